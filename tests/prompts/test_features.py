"""Text features are kept: in the order given, from memory or from disk."""

from __future__ import annotations

import pytest
import torch
from models import tiny_backbone

from zerodefect.prompts.features import TextFeatures, embed_texts


def test_rows_of_texts_are_kept(tmp_path):
    """A bank needs every prompt's embedding, in the order given, from the cache or not."""
    backbone, prompts = tiny_backbone(), ["a screw", "a small bolt", "a screw"]
    expected = embed_texts(backbone.clip, prompts)
    first = TextFeatures(backbone.clip, "weights", tmp_path)
    assert torch.equal(first.rows(prompts), expected)
    again = TextFeatures(backbone.clip, "weights", tmp_path, reload=lambda: pytest.fail("not kept"))
    assert torch.equal(again.rows(prompts), expected)
    assert torch.equal(again.rows(prompts), expected)  # now from memory
    torch.testing.assert_close(first.means([prompts])[0], expected.mean(0))
    with pytest.raises(ValueError, match="no prompt"):
        first.rows([])


def test_embeddings_in_memory_stay_within_their_budget(tmp_path):
    """Those used last are kept; 64 floats are 256 bytes."""
    backbone, asked = tiny_backbone(), []
    kept = TextFeatures(
        backbone.clip, None, tmp_path, reload=lambda: asked.append(1) or backbone.clip, budget=1024
    )
    means = [kept.means([[f"part {number}"]])[0] for number in range(6)]
    assert (len(kept._memory), len(asked)) == (4, 6)
    assert torch.equal(kept.means([["part 2"]])[0], means[2])  # in memory, and now the last used
    kept.means([["part 6"]])
    assert len(asked) == 7
    assert torch.equal(kept.means([["part 2"]])[0], means[2]) and len(asked) == 7
    assert torch.equal(kept.means([["part 3"]])[0], means[3]) and len(asked) == 8
    together = kept.means([[f"part {number}"] for number in range(6)])  # more than fits at once
    torch.testing.assert_close(together, torch.stack(means))
    assert len(kept._memory) == 4

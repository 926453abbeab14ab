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


def test_memory_does_not_grow_with_the_number_of_names(tmp_path, monkeypatch):
    backbone = tiny_backbone()
    one = TextFeatures(backbone.clip).rows(["nut 0"]).nbytes
    monkeypatch.setattr("zerodefect.prompts.features._KEPT", 3 * one)
    features = TextFeatures(backbone.clip, "weights", tmp_path)
    for number in range(8):
        features.rows([f"nut {number}"])
    assert sum(feature.nbytes for feature in features._memory.values()) == 3 * one
    expected = embed_texts(backbone.clip, [f"nut {number}" for number in range(8)])
    torch.testing.assert_close(features.means([[f"nut {n}"] for n in range(8)]), expected)

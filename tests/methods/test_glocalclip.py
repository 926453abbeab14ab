"""What is GlocalCLIP's own; its numbers are held by tests/parity/test_glocalclip.py."""

from __future__ import annotations

import pytest
import torch
from small_detectors import images, small_clip, training_batch

from zerodefect.methods.glocalclip import GlocalCLIP


def build(backbone=None, **options) -> GlocalCLIP:
    return GlocalCLIP.build(backbone or small_clip(), **options).eval()


def test_equal_taps_count_as_often_as_they_are_named():
    one, three = build(taps=(3,)), build(taps=(1, 2, 3))
    torch.testing.assert_close(three(images(2)).map, 3 * one(images(2)).map, atol=1e-5, rtol=0)
    assert [made.map_range(made.empty()) for made in (one, three)] == [(0.0, 1.0), (0.0, 3.0)]
    a, b = (made.training_loss(training_batch(made, [0, 1])) for made in (one, three))
    torch.testing.assert_close(b["focal"], 3 * a["focal"])
    torch.testing.assert_close(b["image"], a["image"])


def test_distinct_taps_are_another_map():
    official = build(taps=(1, 2, 3), stream_start=2)
    distinct = build(taps=(1, 2, 3), stream_start=2, distinct_taps=True)
    assert not torch.allclose(official(images(1)).map, distinct(images(1)).map, atol=1e-3)
    assert torch.equal(official(images(1)).score, distinct(images(1)).score)


def test_the_papers_proportions():
    paper = build(small_clip(vision_layers=24, text_layers=12))
    assert (paper.K, paper.taps, paper.stream.start) == (4, (24,), 6)
    assert len(paper.prompts.compound_prompts_text) == 8
    assert {n: tuple(v.shape[:3]) for n, v in paper.learned.items() if "ctx" in n} == {
        f"prompts.ctx_{pair}_{state}": (1, 1, 12)
        for pair in ("global", "local")
        for state in ("pos", "neg")
    }


def test_the_global_pair_gives_the_score_and_the_local_one_the_map():
    detector = build()
    before = detector(images(1))
    with torch.no_grad():
        detector.learned["prompts.ctx_local_pos"].add_(1)
    detector.after_learning()
    after = detector(images(1))
    assert torch.equal(after.score, before.score)
    assert not torch.equal(after.map, before.map)


def test_contrastive_by_hand():
    G = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    L = torch.tensor([[0.0, 1.0], [0.0, 3.0]])
    near, far = 2**0.5, 0.0
    got = build(margin=1.5).contrastive(G, L)
    first = 2.0 + (1.5 - near) ** 2
    assert got.tolist() == pytest.approx([first, far + (1.5 - far) ** 2], abs=1e-4)


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        ({"temperature": 0.0}, "option temperature=.* greater than 0"),
        ({"taps": ()}, "option taps=.* at least 1 item"),
        ({"margin": -1.0}, "option margin=.* greater than or equal to 0"),
        ({"alpha": -1.0}, "option alpha=.* greater than or equal to 0"),
        ({"taps": (1, 1)}, "taps"),
        ({"attention": "vq"}, "option attention='vq': "),
        ({"abnormal_length": 0}, "option abnormal_length=0: "),
        ({"abnormal_length": 70}, "reads 77"),
    ],
)
def test_impossible_options(option, reason):
    with pytest.raises(ValueError, match=reason):
        build(**option)

"""ClipSAM, our completion: its formulas by hand."""

from __future__ import annotations

import math

import pytest
import torch
from small_assemblies import ShadeSegmenter
from small_detectors import small_clip, training_batch

from zerodefect.backbones.segmenter import Masks
from zerodefect.detector.composed import Later
from zerodefect.detector.knowledge import Product
from zerodefect.layers.grid import Grid
from zerodefect.methods.clipsam import ClipSAM, Features, Interaction, attended


def build(segmenter=None, **options) -> ClipSAM:
    options = {"hidden": 8, **options}
    return ClipSAM.build(small_clip(), segmenter or ShadeSegmenter(), **options).eval()


def features(A: torch.Tensor, segmenter: ShadeSegmenter | None = None) -> Features:
    """Of a picture that the segmenter can look at."""
    looks = Later((segmenter or ShadeSegmenter()).embed, torch.zeros(1, 3, 64, 64))
    return Features(Grid(1, 1, A.shape), torch.zeros(1, 1), (), looks)


def test_queries_find_what_of_the_texts_is_like_them():
    Q = torch.tensor([[[2.0], [0.0], [0.0], [0.0]]])  # one query of four channels
    K, V = torch.eye(2, 4)[None], torch.tensor([[[1.0, 0, 0, 0], [0, 0, 0, 1.0]]])
    first = 1 / (1 + math.exp(-2 / 4**0.5))
    got = attended(Q, K, V).flatten().tolist()
    assert got == pytest.approx([first, 0.0, 0.0, 1 - first])


@pytest.mark.parametrize("grid", [(1, 1), (4, 7), (10, 10)])
def test_a_stage_keeps_the_grid(grid):
    stage = Interaction(6, 5, 4, torch.Generator().manual_seed(0))
    assert stage(torch.randn(2, 6, *grid), torch.randn(2, 2, 5)).shape == (2, 2, *grid)


def test_every_part_of_a_stage_reaches_its_output():
    stage = Interaction(6, 5, 4, torch.Generator().manual_seed(0))
    stage(torch.randn(2, 6, 10, 10), torch.randn(2, 2, 5)).pow(2).sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in stage.parameters())


class Halves(ShadeSegmenter):
    """Three masks: the left half of the picture, all of it, nothing."""

    asked = looked = 0

    def embed(self, pixels):
        self.looked += 1
        return super().embed(pixels)

    def answer(self, embedded, prompts, several):
        self.asked += len(prompts)
        n = len(prompts)
        logits = torch.full((n, 3, 1, 2), -1.0)
        logits[:, 0, :, 0] = logits[:, 1] = 1.0
        return Masks(logits, torch.tensor([[0.5, 0.25, 1.5]]).repeat(n, 1))


def test_masks_count_by_their_quality_over_both_levels():
    segmenter = Halves()
    detector = build(segmenter, smallest=0.0)
    A = torch.zeros(20, 20)
    A[3:5, 3:5] = 0.8
    A[4, 4] = 0.9  # one part above a half, and its peak alone above nearly all of the map
    got = detector.refined(A, features(A, segmenter), 0)
    assert segmenter.asked == 2 and segmenter.looked == 1
    left, right = (0.5 + 0.25) * 2 / (1.75 * 2), 0.25 * 2 / (1.75 * 2)  # 1.5 counts as 1
    assert got[10, 2].item() == pytest.approx(left / 2)
    assert got[10, 17].item() == pytest.approx(right / 2)
    assert got[3, 3].item() == pytest.approx((0.8 + left) / 2)


def test_where_nothing_is_above_a_half_sam_is_not_asked():
    segmenter = Halves()
    A = torch.rand(20, 20) / 2
    assert torch.equal(build(segmenter).refined(A, features(A, segmenter), 0), A)
    A[5, 5] = 0.9  # too small a part
    cautious = build(segmenter, smallest=0.01)
    assert torch.equal(cautious.refined(A, features(A, segmenter), 0), A)
    assert segmenter.asked == segmenter.looked == 0


def test_training_does_not_ask_the_segmenter():
    class Silent(ShadeSegmenter):
        def embed(self, pixels):
            raise AssertionError("the segmenter is not trained")

    detector = build(Silent())
    loss = sum(detector.training_loss(training_batch(detector, [0, 1])).values())
    loss.backward()
    assert not any(name.startswith("segmenter") for name in detector.learned)
    assert detector.describe(detector.empty(), Product("screw"))["texts"].shape[0] == 2

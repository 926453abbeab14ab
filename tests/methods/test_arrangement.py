"""Arrangement: formulas by hand, and what only whole references tell."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from arranged_pictures import BLUE, RED, good, pair
from small_detectors import small_cnn

from zerodefect.backbones.layered_features import load_features
from zerodefect.detector.feature_detector import Patches
from zerodefect.layers.grid import Grid
from zerodefect.methods.arrangement import Arrangement, ArrangementConfig


def learned(detector, images):
    with torch.no_grad():
        return detector.settle(detector.remember(detector.empty(), [detector.encode(images)]))


@pytest.fixture(scope="module")
def detector() -> Arrangement:
    return Arrangement(load_features()).eval()


def test_the_reference_that_explains_most_counts_by_hand():
    detector = Arrangement(small_cnn(), ArrangementConfig(in_place=1.0, anywhere=1.0, sigma=0))
    a, b = torch.eye(2)
    f = torch.stack([a, b, a, a])
    turned = torch.stack([b, a, a, a])  # the same patches, two of them at each other's place
    strange = torch.stack([b, b, b, b])
    (here, where), (near, _) = detector.compared(f, torch.stack([strange, turned]))
    assert float(here) == 0.5 and where.tolist() == [1, 1, 0, 0]  # turned differs at half of them
    assert float(near) == 0
    (alone, _), (alone_near, places) = detector.compared(f, strange[None])
    assert float(alone) == float(alone_near) == 0.75 and places.tolist() == [1, 0, 1, 1]


def test_scores_and_maps_are_standardised_by_references_left_out():
    detector = Arrangement(small_cnn(), ArrangementConfig(sigma=0))
    draws = torch.Generator().manual_seed(0)
    f = F.normalize(torch.rand(5, 16, 6, generator=draws), dim=2)
    seen = Patches(Grid(4, 4, (32, 32)), f)
    known = detector.settle(detector.remember(detector.empty(), [seen]))
    scores, maps = [], []
    for row in range(5):
        both = detector.compared(f[row], torch.cat([f[:row], f[row + 1 :]]))
        scores.append(torch.stack([one[0] for one in both]))
        maps.append(torch.stack([one[1] for one in both]))
    table = torch.stack(scores)
    torch.testing.assert_close(known["scale/score"][:, 0], table.mean(0))
    torch.testing.assert_close(known["scale/score"][:, 1], table.std(0).clamp(min=0.01))
    got = detector.predict(seen, known, torch.arange(5))
    mean, deviation = known["scale/score"].T
    torch.testing.assert_close(got.score, ((table - mean) / deviation).amax(1))
    m, s = known["scale/map"].T[:, :, None]
    expected = ((torch.stack(maps) - m) / s).amax(1).view(5, 4, 4)
    torch.testing.assert_close(got.map[:, 4::8, 4::8], expected, atol=2.0, rtol=0.5)


def test_what_does_not_go_together_is_told_though_every_part_has_been_seen(detector):
    images = F.interpolate(good(), (256, 256))
    known = learned(detector, images)
    fine = torch.stack([pair(RED, RED, 50), pair(BLUE, BLUE, 51)])
    mixed = torch.stack([pair(RED, BLUE, 52), pair(BLUE, RED, 53)])
    moved = torch.stack([pair(RED, RED, 54, gap=8), pair(BLUE, BLUE, 55, gap=8)])
    said = detector(F.interpolate(torch.cat([fine, mixed, moved]), (256, 256)), known).score
    assert said[2:].min() > said[:2].max() + 2


def test_inputs_of_another_size_are_refused_in_one_line(detector):
    known = learned(detector, torch.rand(3, 3, 64, 64))
    with pytest.raises(ValueError, match="give inputs of the same size"):
        detector(torch.rand(1, 3, 64, 96), known)
    with pytest.raises(ValueError, match="give inputs of the same size"):
        learned_more = detector.encode(torch.rand(1, 3, 64, 96))
        detector.remember(known, [learned_more])

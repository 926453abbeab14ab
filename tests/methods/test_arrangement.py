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


def of(**options) -> Arrangement:
    return Arrangement(small_cnn(), ArrangementConfig(sigma=0, **options))


def test_both_directions_by_hand():
    a, b = torch.eye(2)
    f = torch.stack([a, b, a, a])
    turned = torch.stack([b, a, a, a])  # the same patches, two of them at each other's place
    strange = torch.stack([b, b, b, b])
    both = torch.stack([strange, turned])
    anywhere = of(reach=1.0).differences(f, both, (2, 2))
    assert anywhere[0].tolist() == [[1, 0, 1, 1], [0, 0, 0, 0]]  # strange has no a
    assert not anywhere[1].any()  # all that references show is there
    assert of(reach=1.0).differences(strange, f[None], (2, 2)).tolist() == (
        [[[0, 0, 0, 0]], [[1, 0, 1, 1]]]  # the three a of the reference are missing
    )
    in_place = of(reach=0.0).differences(f, both, (2, 2))
    assert in_place.tolist() == 2 * [[[1, 0, 1, 1], [1, 1, 0, 0]]]


def test_parts_may_move_as_far_as_they_reach():
    a, b = torch.eye(2)
    row = torch.stack([b, a, a, a, a, a, a, a])
    moved = torch.stack([a, a, b, a, a, a, a, a])
    for reach, found in ((0.125, 1.0), (0.25, 0.0)):  # one place and two
        d = of(reach=reach).differences(moved, row[None], (1, 8))
        assert d[0, 0, 2] == d[1, 0, 0] == found


def test_the_reference_that_explains_most_counts():
    d = torch.tensor([[[1.0, 0, 1, 1], [1, 1, 0, 0]], [[0, 0, 0, 0.2], [1, 0, 0, 0]]])
    off, where = of(share=1.0).best(d)
    assert off.tolist() == pytest.approx([0.5, 0.05])
    assert where.tolist() == [[1, 1, 0, 0], [0, 0, 0, pytest.approx(0.2)]]
    off, _ = of(share=0.5).best(d)
    assert off.tolist() == pytest.approx([1.0, 0.1])


def test_scores_and_maps_are_standardised_by_references_left_out():
    detector = of(reach=1.0, share=0.1)
    draws = torch.Generator().manual_seed(0)
    f = F.normalize(torch.rand(5, 16, 6, generator=draws), dim=2)
    seen = Patches(Grid(4, 4, (32, 32)), f)
    known = detector.settle(detector.remember(detector.empty(), [seen]))
    near = 1 - f @ f.transpose(1, 2)[:, None]  # (reference, picture, N of picture, N of reference)
    too_much, missing = near.amin(3), near.amin(2)

    def left_out(weights):
        best = [[[], []], [[], []]]
        for row in range(5):
            others = [k for k in range(5) if k != row]
            for way, d in enumerate((too_much, missing)):
                own = d[others, row] * weights[way]
                off = own.topk(2, 1).values.mean(1)  # a tenth of 16
                best[way][0].append(off.min())
                best[way][1].append(own[off.argmin()])
        return [(torch.stack(off), torch.stack(where)) for off, where in best]

    weights = []
    for _, where in left_out(torch.ones(2, 16)):
        usual = where.mean(0) + where.std(0)
        prior = 16 / 5
        weights.append((1 + prior) * usual.mean() / (usual + prior * usual.mean()))
    torch.testing.assert_close(known["scale/weights"], torch.stack(weights))
    ways = left_out(weights)
    expected = sum((off - off.mean()) / off.std().clamp(min=0.01) for off, _ in ways) / 2
    got = detector.predict(seen, known, torch.arange(5))
    torch.testing.assert_close(got.score, expected, rtol=1e-4, atol=1e-4)
    maps = [(where - where.mean()) / where.std().clamp(min=0.01) for _, where in ways]
    strangest = torch.stack(maps).amax(0).view(5, 4, 4)
    torch.testing.assert_close(got.map[:, 4::8, 4::8], strangest, atol=2.0, rtol=0.5)


def test_a_place_where_good_pictures_differ_weighs_less():
    draws = torch.Generator().manual_seed(1)
    f = F.normalize(torch.ones(24, 16, 6) + 0.05 * torch.rand(24, 16, 6, generator=draws), dim=2)
    f[:, 5] = F.normalize(torch.rand(24, 6, generator=draws) - 0.5, dim=1)
    detector = of(reach=0.0)
    seen = Patches(Grid(4, 4, (32, 32)), f)
    weights = detector.settle(detector.remember(detector.empty(), [seen]))["scale/weights"]
    others = weights[:, [k for k in range(16) if k != 5]]
    assert (weights[:, 5] < 0.3 * others.amin(1)).all()
    few = Patches(Grid(4, 4, (32, 32)), f[:2])
    alike = detector.settle(detector.remember(detector.empty(), [few]))["scale/weights"]
    assert (alike[:, 5] > weights[:, 5]).all()  # of two pictures it is nearly chance


def test_what_is_missing_is_told_and_where(detector):
    images = F.interpolate(good(), (256, 256))
    known = learned(detector, images)
    bare = pair(RED, RED, 60)
    bare[:, 40:56, 16:48] = 0.5 + 0.02 * torch.randn(3, 16, 32, generator=torch.Generator())
    fine = pair(RED, RED, 61)
    said = detector(F.interpolate(torch.stack([fine, bare]), (256, 256)), known)
    assert said.score[1] > said.score[0] + 2
    row, column = divmod(int(said.map[1].argmax()), 256)
    assert 150 < row < 240 and 50 < column < 210


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

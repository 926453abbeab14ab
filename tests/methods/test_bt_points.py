"""Back to the Feature on points: what is its own."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from small_detectors import remembered

from zerodefect.detector.combined import Combined
from zerodefect.images import ImageError, Picture
from zerodefect.images.clouds import open_cloud
from zerodefect.methods.bt_points import BTPoints, BTPointsConfig, spacing
from zerodefect.scoring.scorer import Scorer

SIDE = 48


def ridges(seed: int = 0, dent: float = 0.0) -> torch.Tensor:
    """A ridged surface ``(1, 3, S, S)`` that differs a little from part to part; round the rim
    nothing was measured, and in the middle there may be a dent."""
    y, x = torch.meshgrid(*[torch.arange(float(SIDE))] * 2, indexing="ij")
    draws = torch.Generator().manual_seed(seed)
    z = 300 + 1.5 * (x / 4).sin() + 0.02 * torch.randn(SIDE, SIDE, generator=draws)
    z += dent * (1 - ((x - 24) ** 2 + (y - 24) ** 2) / 36).clamp(min=0)
    points = torch.stack([x - 24, y - 24, z])
    points[:, (x - 24).abs().maximum((y - 24).abs()) > 19] = torch.nan
    return points[None]


def made(**config) -> BTPoints:
    return BTPoints(BTPointsConfig(**{"radius": 4.0, "neighbours": 40, **config})).eval()


def known(detector: BTPoints, count: int = 3):
    return remembered(detector, detector.empty(), *({"xyz": ridges(n)} for n in range(count)))


def test_a_dent_stands_out_where_it_is_and_the_rim_does_not():
    detector = made()
    good = detector({"xyz": ridges(9)}, known(detector))
    bad = detector({"xyz": ridges(9, dent=4.0)}, known(detector))
    assert bad.score > 1.5 * good.score
    row, column = divmod(int(bad.map[0].argmax()), SIDE)
    assert abs(row - 24) <= 8 and abs(column - 24) <= 8
    plain = made(rim=1)
    unweighed = plain({"xyz": ridges(9)}, known(plain))
    assert good.map[0, :7].amax() < 0.8 * unweighed.map[0, :7].amax()
    assert bad.map[0, :, 0].abs().max() < 1e-4  # no point there


@pytest.mark.parametrize("unit", [1e-3, 25.4])
def test_the_unit_of_the_cloud_does_not_matter(unit):
    detector = made()
    shown = ridges(9, dent=4.0)
    expected = detector({"xyz": shown}, known(detector))
    got = detector({"xyz": unit * shown}, known(detector))
    torch.testing.assert_close(got.map, expected.map, atol=0.02, rtol=0)


def test_a_part_that_was_turned_on_the_table_is_the_same():
    """By a quarter, so that the grid turns along and nothing is resampled."""
    detector = made()
    shown = ridges(9, dent=4.0)
    turned = shown.rot90(1, (2, 3))
    turned = torch.stack([turned[:, 1], -turned[:, 0], turned[:, 2]], 1)
    expected = detector({"xyz": shown}, known(detector)).map.rot90(1, (1, 2))
    got = detector({"xyz": turned}, known(detector)).map
    torch.testing.assert_close(got, expected, atol=0.1, rtol=0)


def test_only_patches_with_points_are_remembered():
    detector = made()
    knowledge = known(detector)
    encoded = detector.encode({"xyz": ridges(0)})
    assert not encoded.there.all()
    assert len(knowledge["memory/patches"]) == 3 * int(encoded.there.sum())


def test_a_cloud_without_a_point_is_no_reference_and_shows_nothing():
    detector = made()
    empty = torch.full((1, 3, SIDE, SIDE), torch.nan)
    assert not detector({"xyz": empty}, known(detector)).map.any()
    with pytest.raises(ValueError, match="not finite"):
        remembered(detector, detector.empty(), {"xyz": empty})


@pytest.mark.parametrize("times", [2, 3])
def test_points_that_repeat_each_other_are_one(times):
    """A cloud that was enlarged has the histograms of the one that it was made of."""
    detector, plain = made(), ridges(3)[0]
    large = plain.repeat_interleave(times, 1).repeat_interleave(times, 2)
    expected = detector.histograms(plain, plain.isfinite().all(0))
    found = detector.histograms(large, large.isfinite().all(0))
    enlarged = expected.repeat_interleave(times, 1).repeat_interleave(times, 2)
    torch.testing.assert_close(found, enlarged, atol=1e-4, rtol=0)


def test_a_dent_is_found_on_points_in_whole_numbers():
    """Coordinates rounded to the spacing of the points: coarser, and still compared alike."""

    def rounded(seed: int, dent: float = 0.0) -> torch.Tensor:
        fine = ridges(seed, dent)
        return (fine * fine.new_tensor([0.5, 0.5, 1.0]).view(3, 1, 1)).round()

    detector = made()
    knowledge = remembered(detector, detector.empty(), *({"xyz": rounded(n)} for n in range(3)))
    good, bad = (detector({"xyz": rounded(9, dent)}, knowledge) for dent in (0.0, 5.0))
    assert bad.score > 1.2 * good.score
    row, column = divmod(int(bad.map[0].argmax()), SIDE)
    assert abs(row - 24) <= 9 and abs(column - 24) <= 9


def test_a_cloud_of_one_point_many_times_shows_nothing():
    same = torch.ones(3, 4, 4)
    assert not made().histograms(same, torch.ones(4, 4, dtype=torch.bool)).any()


def test_spacing_is_that_of_neighbours():
    assert float(spacing(2 * ridges(0)[0] * torch.tensor([1.0, 1.0, 0.0])[:, None, None])) == 2
    assert float(spacing(torch.full((3, 4, 4), torch.nan))) == 1


# --- pictures that lack something -----------------------------------------------------------------


def part(seed: int, dent: float = 0.0, *, points: bool = True, colours: bool = True) -> Picture:
    xyz = ridges(seed, dent)[0]
    cloud = open_cloud(xyz.permute(1, 2, 0).numpy()) if points else None
    shade = np.random.default_rng(seed).integers(90, 110, (SIDE, SIDE, 3))
    if dent:
        shade[18:30, 18:30] = 220
    return Picture(f"part {seed}", shade.astype(np.uint8), cloud=cloud, colourless=not colours)


def fused() -> Combined:
    from small_detectors import small_cnn

    from zerodefect.methods import create

    joint = Combined({"pyramid": create("pyramid", small_cnn()), "bt_points": made()})
    joint.resize_inputs({"pyramid": (64, 64), "bt_points.xyz": (SIDE, SIDE)})
    return joint.eval()


def taught_by(scorer: Scorer, pictures: list[Picture]):
    return scorer.remember(scorer.detector.empty(), pictures, [None] * len(pictures))


def test_points_alone_need_points():
    scorer = Scorer(made())
    knowledge = taught_by(scorer, [part(n) for n in range(3)])
    (bare,) = scorer.score([part(9, colours=False)], None, knowledge)
    (both,) = scorer.score([part(9)], None, knowledge)
    assert bare.score == both.score
    assert both.map.shape == (SIDE, SIDE)
    with pytest.raises(ImageError, match="needs its points, and there are none"):
        scorer.score([part(9, points=False)], None, knowledge)
    told = "its cloud a.tiff is not used: the file is truncated"
    with pytest.raises(ImageError, match=f"needs its points, and {told}"):
        scorer.score([replace(part(9, points=False), notes=(told,))], None, knowledge)


def test_a_combination_goes_on_with_what_there_is():
    scorer = Scorer(fused())
    knowledge = taught_by(scorer, [part(n) for n in range(8)])
    assert {"level/pyramid", "level/bt_points"} <= knowledge.tensors.keys()
    for lacking in ({}, {"points": False}, {"colours": False}):
        good, bad = scorer.score(
            [part(20, **lacking), part(20, dent=4.0, **lacking)], None, knowledge
        )
        assert bad.score > good.score, lacking
        assert good.map.shape == (SIDE, SIDE) and np.isfinite(bad.map).all()
    with pytest.raises(ImageError, match="needs its colours, points, and there are none"):
        scorer.score([part(9, points=False, colours=False)], None, knowledge)


def test_a_mixed_batch_is_scored_as_each_alone():
    scorer = Scorer(fused())
    knowledge = taught_by(scorer, [part(n) for n in range(5)])
    mixed = [part(20), part(21, points=False), part(22, colours=False), part(23)]
    together = scorer.score(mixed, None, knowledge)
    for one, expected in zip(mixed, together, strict=True):
        (alone,) = scorer.score([one], None, knowledge)
        assert alone.score == pytest.approx(expected.score, abs=1e-5)


def test_scores_of_good_parts_lie_alike_whatever_they_lack():
    """On the references themselves, each left out in turn: mean and deviation are those of all."""
    scorer = Scorer(fused())
    pictures = [part(n) for n in range(8)]
    knowledge = taught_by(scorer, pictures)
    numbers = list(range(8))

    def z(**lacking):
        shown = [part(n, **lacking) for n in numbers]
        found = scorer.score(shown, None, knowledge, left_out=numbers)
        scores = torch.tensor([one.score for one in found])
        bend = 2 * scores - 1
        return 4 * bend / (1 - bend.abs())  # the way back from 0.5 + 0.5 z / (4 + |z|)

    whole = z()
    for lacking in ({"points": False}, {"colours": False}):
        some = z(**lacking)
        assert float(some.mean()) == pytest.approx(float(whole.mean()), abs=0.05)
        assert float(some.std()) == pytest.approx(float(whole.std()), abs=0.05)


def test_references_may_lack_something_too():
    scorer = Scorer(fused())
    shown = [part(n) for n in range(4)] + [part(4, points=False), part(5, colours=False)]
    knowledge = taught_by(scorer, shown)
    assert knowledge.shots == 6
    assert scorer.detector.of(knowledge, "bt_points")["pictures/patches"].unique().tolist() == [
        0, 1, 2, 3, 5
    ]  # fmt: skip
    (good, bad) = scorer.score([part(20), part(20, dent=4.0)], None, knowledge)
    assert bad.score > good.score


def test_what_was_never_shown_is_silent():
    scorer = Scorer(fused())
    knowledge = taught_by(scorer, [part(n, points=False) for n in range(3)])
    whole, plain = scorer.score([part(9), part(9, points=False)], None, knowledge)
    assert whole.score == pytest.approx(plain.score, abs=1e-6)
    with pytest.raises(RuntimeError, match="bt_points was shown no good pictures"):
        scorer.score([part(9, colours=False)], None, knowledge)

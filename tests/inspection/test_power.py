"""The power curve: what counts as found, what is drawn on, what time decides, how it is told."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections import Counter

import numpy as np
import pytest
from models import NoConfig, as_it_is, picture, tiny_backbone
from small_detectors import small_cnn

from zerodefect import CalibrationError, Inspector, Picture, Tiling, Viewing
from zerodefect.detector.contract import Detector, UnsupportedError
from zerodefect.detector.facts import MethodInfo
from zerodefect.inspection import power
from zerodefect.inspection.power import design, good_bases, is_found, measure_power, order
from zerodefect.inspection.power_curve import Cell, PowerCurve, Share
from zerodefect.methods import create
from zerodefect.types import Prediction


class FarFromGrey(Detector):
    """A pixel's distance from middle grey is its anomaly; inputs are 64 x 64."""

    info = MethodInfo("far_from_grey", "", "test", ("words",), "", "", "")
    Config = NoConfig
    with_map = True

    def __init__(self):
        super().__init__(NoConfig(), (tiny_backbone(),), as_it_is(tiny_backbone().preprocess))

    def encode(self, inputs):
        return (inputs.mean(1) - 0.5).abs()

    def predict(self, encoded, knowledge, left_out=None):
        return Prediction(score=encoded.amax((1, 2)), map=encoded if self.with_map else None)

    def map_range(self, knowledge):
        return 0.0, 0.5


def grey(seed: int, height: int = 64, width: int = 64) -> Picture:
    random = np.random.default_rng(seed)
    one = random.integers(126, 130, (height, width, 1)).astype(np.uint8)
    return Picture(f"{seed}.png", one.repeat(3, 2))


def greys(count: int, *size: int) -> list[Picture]:
    return [grey(seed, *size) for seed in range(count)]


def limited(limit: float = 0.1, size: tuple[int, int] = (64, 64), **taught) -> Inspector:
    """It finds what differs from middle grey by more than a tenth of the grey range."""
    inspector = Inspector(FarFromGrey().eval(), **taught)
    inspector.describe("plate")
    policy = inspector.calibrate(greys(10, *size))
    limits = policy.limits.model_copy(update={"unsure": limit, "defect": limit})
    inspector.policy = policy.model_copy(
        update={"limits": limits, "region_limit": limit, "frames": None}
    )
    return inspector


class Clock:
    """Every look at it takes a second."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        self.now += 1.0
        return self.now


@pytest.fixture
def clock(monkeypatch):
    monkeypatch.setattr(power, "monotonic", Clock())


def share_of(curve, **of):
    cells = [c for c in curve.cells if all(getattr(c, n) == v for n, v in of.items())]
    assert cells
    return Share(drawn=sum(c.drawn for c in cells), found=sum(c.found for c in cells))


# --- what is found -------------------------------------------------------------------------------


@pytest.mark.slow
def test_what_lies_above_the_limit_is_found_and_what_lies_below_is_not(clock):
    """The limit is a tenth: 5 % stay below wherever they lie, 15 and 40 % exceed it."""
    curve = measure_power(limited(), greys(6), seconds=150)
    assert curve.drawn > 250 and curve.pictures == 6 and curve.located and curve.calibrated
    assert share_of(curve, contrast=5.0).found == 0 < share_of(curve, contrast=5.0).drawn
    # of the smallest at 15 % fewer than the four pixels that make a region exceed the limit
    for kind, size, cells in curve.rows():
        sure = cells[1:] if size in (2, 8) else ()
        assert all(cell.found == cell.drawn >= 5 for cell in sure), kind
    assert curve.undamaged.found == 0 < curve.undamaged.drawn
    told = " ".join(curve.sentences())
    assert "Scratches of 5 % contrast: not seen up to 2 px" in told
    assert "Stains of 40 % contrast: at least 90 % found from 4 px across on" in told


def test_a_false_alarm_elsewhere_finds_nothing():
    mask = np.zeros((64, 64), bool)
    mask[20:24, 20:24] = True
    pixels = grey(0).pixels.copy()
    pixels[40:44, 40:44] = 255
    inspector = limited()
    (elsewhere,) = inspector.judge([Picture("elsewhere.png", pixels)])
    assert elsewhere.verdict == "defect" and not is_found(elsewhere, mask)
    pixels[22:26, 22:26] = 255
    (both,) = inspector.judge([Picture("both.png", pixels)])
    assert is_found(both, mask) and both.count == 2
    good = dataclasses.replace(both, verdict="good")
    assert not is_found(good, mask)  # a region alone, by its own limit, is no find


def test_without_maps_the_verdict_alone_counts_and_it_is_said(clock):
    inspector = limited()
    inspector.detector.with_map = False
    inspector.policy = None
    inspector.calibrate(greys(12))
    curve = measure_power(inspector, greys(4), seconds=12)
    assert not curve.located and "region" not in curve.sentences()[0]
    assert curve.drawn and share_of(curve, contrast=15.0).found


# --- time and seed -------------------------------------------------------------------------------


def test_more_time_draws_the_same_and_more(clock):
    inspector, good = limited(), greys(5)
    short, longer = (measure_power(inspector, good, seconds=s, seed=3) for s in (14, 26))
    assert 0 < short.drawn < longer.drawn
    for few, many in zip(short.cells, longer.cells, strict=True):
        assert few.drawn <= many.drawn and few.found <= many.found
        assert few.drawn < many.drawn or few == many
    again = measure_power(inspector, good, seconds=14, seed=3)
    assert again == short


def test_no_time_measures_nothing_and_says_so():
    curve = measure_power(limited(), greys(2), seconds=0)
    assert curve.drawn == 0 and {cell.told() for cell in curve.cells} == {"not measured"}
    assert "was not measured: the time allowed (0 s)" in " ".join(curve.sentences())
    with pytest.raises(ValueError, match="0 or more"):
        measure_power(limited(), greys(2), seconds=-1)


def test_a_slow_picture_is_not_begun_when_there_is_no_time_for_it(monkeypatch):
    """Ten seconds a picture, 25 allowed: two fit, the third would end after 30."""
    clock = Clock()
    monkeypatch.setattr(power, "monotonic", lambda: clock.now)
    inspector = limited()
    judge = inspector.judge

    def slow(pictures, *how):
        clock.now += 10 * len(pictures)
        return judge(pictures, *how)

    monkeypatch.setattr(inspector, "judge", slow)
    curve = measure_power(inspector, greys(3), seconds=25)
    assert curve.drawn + curve.undamaged.drawn == 2 and clock.now == 20


def test_the_seed_decides_what_is_drawn():
    cell = Cell(kind="crack", size=2, contrast=15)
    (base,), _ = good_bases(limited(), grey(0), 0)
    one, again, other = (power.damaged(base, cell, seed, 4)[0] for seed in (1, 1, 2))
    assert np.array_equal(one, again) and not np.array_equal(one, other)


def test_kinds_are_measured_alike_whatever_the_time():
    cells = design(limited(), [power.Base(grey(0, 300, 400), np.ones((300, 400), bool))])
    places = list(order(cells))
    assert len(places) == len(set(places)) == 20 * len(cells) == 960
    for cut in (20, 41, 133, 500, 777):
        kinds = Counter(cells[cell].kind for cell, _ in places[:cut])
        assert max(kinds.values()) - min(kinds.values()) <= 1
    first = {(cells[c].size, cells[c].contrast) for c, _ in places[:20]}
    assert first == {(2, 15.0), (8, 15.0)}  # five of each kind
    given = Counter()
    for cell, number in places:
        assert number == given[cell]
        given[cell] += 1


# --- what is drawn on ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "count"),
    [
        ("winclip", 3),
        pytest.param("pyramid", 3, marks=pytest.mark.slow),
        pytest.param("pyramid", 2, marks=pytest.mark.slow),  # a memory anew without each
    ],
)
def test_references_are_left_out_as_a_calibration_does(method, count):
    """The undamaged picture scores as in leave-one-out, whether the memory can do it or not."""
    network = tiny_backbone() if method == "winclip" else small_cnn()
    inspector = Inspector(create(method, network).eval())
    inspector.describe("plate")
    good = [picture(seed) for seed in range(count)]
    inspector.calibrate(good, leave_one_out=True)
    bases, origin = good_bases(inspector, good, seed=0)
    assert origin == "left out" and len(bases) == count
    drawn = [power.Drawn(None, base.picture, None, base) for base in bases]
    scores = [outcome.score for _, outcome in power._of_batch(inspector, drawn)]
    assert sorted(scores) == pytest.approx(inspector.policy.scores, abs=1e-4)
    remembered = [inspector.judge([base.picture])[0].score for base in bases]
    assert all(known < out for known, out in zip(sorted(remembered), sorted(scores), strict=True))
    curve = measure_power(inspector, good, seconds=0)
    assert curve.origin == "left out"


def test_fresh_pictures_go_before_references_and_copies_count_once():
    inspector = Inspector(create("winclip", tiny_backbone()).eval())
    inspector.describe("plate")
    inspector.remember([picture(1), picture(2)])
    bases, origin = good_bases(inspector, [picture(seed) for seed in (1, 2, 3, 3, 4)], 0)
    assert origin == "held out" and len(bases) == 2
    assert all(base.known is None for base in bases)


def test_the_only_reference_is_mirrored():
    inspector = Inspector(create("winclip", tiny_backbone()).eval())
    inspector.describe("plate")
    inspector.remember(picture(1))
    bases, origin = good_bases(inspector, picture(1), 0)
    assert origin == "mirrored"
    np.testing.assert_array_equal(bases[0].picture.pixels, picture(1)[:, ::-1])
    inspector.judge([base.picture for base in bases])


def test_damage_lies_inside_the_area_of_interest():
    white = np.zeros((64, 96, 3), np.uint8)
    white[10:40, 50:90] = 255
    inspector = limited(size=(64, 96), roi=Picture("roi.png", white))
    bases, _ = good_bases(inspector, greys(2, 64, 96), 0)
    for cell, number in itertools.product(design(inspector, bases), range(2)):
        made = power.damaged(bases[0], cell, 0, number)
        assert made is not None
        changed = (made[0] != bases[0].picture.pixels).any(2)
        assert made[1].any() and not (changed | made[1])[white[..., 0] == 0].any()


@pytest.mark.parametrize(("size", "dtype"), [((8, 8), np.uint8), ((64, 64), np.uint16)])
def test_tiny_and_16_bit_pictures(size, dtype, clock):
    scale = np.iinfo(dtype).max // 255
    pixels = np.random.default_rng(0).integers(120, 136, (*size, 3)).astype(dtype) * dtype(scale)
    curve = measure_power(limited(), Picture("one.png", pixels), seconds=30)
    assert curve.pictures == 1 and curve.drawn > 0
    strong = share_of(curve, contrast=40.0)
    assert strong.found == strong.drawn > 0


def test_sizes_are_those_of_the_view_and_fit_the_picture():
    def sizes(height, width, tile=None):
        viewing = Viewing(Tiling(tile)) if tile else Viewing()
        inspector = Inspector(FarFromGrey().eval(), viewing=viewing)
        pixels = np.zeros((height, width, 3), np.uint8)
        base = power.Base(Picture("black.png", pixels), np.ones((height, width), bool))
        cells = design(inspector, [base])
        return [sorted({c.size for c in cells if c.kind == kind}) for kind in ("crack", "stain")]

    assert sizes(256, 400) == [[1, 2, 4, 8], [4, 8, 16, 32]]
    assert sizes(64, 64) == [[1, 2], [4, 8]]
    assert sizes(8, 8) == [[1], [4]]
    assert sizes(2100, 3000) == [[4, 8, 16, 32], [16, 32, 64, 128]]
    assert sizes(2100, 3000, tile=512) == [[1, 2, 4, 8], [4, 8, 16, 32]]


def test_what_cannot_be_used_is_passed_over_and_nothing_left_is_said(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    black = Picture("black.png", np.zeros((64, 64, 3), np.uint8))
    bases, _ = good_bases(limited(), [tmp_path / "broken.png", black, grey(1)], 0)
    assert [base.picture.path for base in bases] == ["1.png"]
    with pytest.raises(CalibrationError, match="no good picture can be used"):
        measure_power(limited(), [tmp_path / "broken.png", black])


def test_a_method_of_sets_is_refused():
    inspector = limited()
    inspector.detector.info = dataclasses.replace(FarFromGrey.info, knows_from=("set",))
    with pytest.raises(UnsupportedError, match="against each other"):
        measure_power(inspector, greys(2))


# --- numbers and words ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "drawn", "low", "high"),
    [
        (5, 5, 0.05 ** (1 / 5), 1.0),
        (0, 10, 0.0, 1 - 0.05 ** (1 / 10)),
        (0, 0, 0.0, 1.0),
        (1, 2, 1 - 0.95**0.5, 0.95**0.5),  # of two, both tails are square roots
    ],
)
def test_the_interval_by_hand(found, drawn, low, high):
    assert Share(drawn=drawn, found=found).interval == pytest.approx((low, high))


def curve_of(cells, **change) -> PowerCurve:
    facts = {
        "method": "winclip", "fingerprint": "abc", "calibrated": True, "unsure_limit": 0.5,
        "region_limit": 0.4, "pictures": 3, "origin": "held out", "located": True,
        "cells": tuple(cells), "undamaged": Share(drawn=4, found=1), "seconds": 60, "seed": 0,
    }  # fmt: skip
    return PowerCurve(**{**facts, **change})


def row(kind, contrast, **found):
    """Cells of ten: ``_2=6`` are six found of 2 pixels."""
    return [
        Cell(kind=kind, size=int(size[1:]), contrast=contrast, drawn=10, found=number)
        for size, number in found.items()
    ]


@pytest.mark.parametrize(
    ("cells", "told"),
    [
        (
            row("scratch", 15, _1=0, _2=6, _4=10, _8=9),
            "Scratches of 15 % contrast: at least 90 % found from 4 px wide on (10 of 10); at "
            "least 50 % found from 2 px wide on (6 of 10); not seen up to 1 px (0 of 10).",
        ),
        (row("stain", 5, _4=0, _8=0), "Stains of 5 % contrast: not seen up to 8 px (0 of 10)."),
        (
            row("crack", 40, _1=10, _2=2),  # larger ones are missed: nothing is claimed from 1 on
            "Cracks of 40 % contrast: fewer found up to 2 px (2 of 10).",
        ),
        (
            [Cell(kind="contamination", size=4, contrast=15, drawn=4, found=4)],
            "Particles of 15 % contrast: too few pictures to tell (4 of 4 found).",
        ),
        (
            [*row("crack", 15, _2=10), Cell(kind="crack", size=2, contrast=40)],
            "Not measured, for lack of time: cracks of 40 % contrast.",
        ),
    ],
)
def test_sentences(cells, told):
    curve = curve_of(cells)
    assert curve.sentences()[-1] == told
    assert "1 of 4 were not called good" in curve.sentences()[0]


def test_the_table_has_a_row_for_each_size_and_a_column_for_each_contrast():
    curve = curve_of([*row("crack", 40, _2=10), *row("crack", 5, _2=1)])
    assert curve.table() == [
        ["damage", "size", "5 % contrast", "40 % contrast"],
        ["crack", "2 px", "10 % (1 of 10; 1-39 %)", "100 % (10 of 10; 74-100 %)"],
    ]


def test_it_travels_as_plain_json_and_fits_its_limits_alone():
    curve = curve_of(row("stain", 5, _4=3, _8=5))
    assert PowerCurve.from_dict(json.loads(json.dumps(curve.as_dict()))) == curve
    assert curve.fits("abc", 0.5, 0.4)
    assert not curve.fits("abc", 0.6, 0.4) and not curve.fits("other", 0.5, 0.4)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"format": "x"}, "not a power curve"),
        ({"version": 2}, "of version 2, this program reads up to 1"),
        ({"pictures": 0}, "damaged power curve: pictures"),
        ({"undamaged": {"drawn": 1, "found": 2}}, "2 found of 1 drawn"),
        ({"later": 1}, "damaged power curve: later"),
    ],
)
def test_what_is_no_curve_is_refused_in_a_line(change, told):
    with pytest.raises(ValueError, match=told) as caught:
        PowerCurve.from_dict({**curve_of(row("stain", 5, _4=3)).as_dict(), **change})
    assert "\n" not in str(caught.value)

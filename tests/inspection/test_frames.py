"""Frames that show nothing, or nothing like the good ones, are never "good"."""

from __future__ import annotations

import math
import pickle
from dataclasses import replace

import numpy as np
import pytest
from models import picture, tiny_backbone
from PIL import Image, ImageFilter

from zerodefect import CalibrationError, ImageError, Inspector, Policy
from zerodefect.images import Picture, open_image
from zerodefect.images.clouds import open_cloud
from zerodefect.inspection.calibration import calibrate
from zerodefect.inspection.frames import (
    Frame,
    FrameRange,
    learn_range,
    measure,
    shows_nothing,
    why_unjudged,
)
from zerodefect.inspection.limit_changes import with_proven_rates
from zerodefect.methods.winclip import WinCLIP

WHO = {"method": "winclip", "fingerprint": "abc", "object": "screw"}


def part(seed: int, height: int = 96, width: int = 128) -> np.ndarray:
    """A plate with waves and a camera's noise."""
    draws = np.random.default_rng(seed)
    grey = 120 + 20 * np.sin(np.arange(width) / 9.0) + draws.normal(0, 5, (height, width))
    return np.repeat(grey.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)


def lit(value: int, background: int = 0) -> np.ndarray:
    frame = np.full((96, 128, 3), background, np.uint8)
    frame[0, 0] = value
    return frame


def noisy(low: int, high: int) -> np.ndarray:
    return np.random.default_rng(0).integers(low, high + 1, (96, 128, 3), dtype=np.uint8)


NOTHING = {
    "black": lit(0),
    "white": lit(255, 255),
    "grey": lit(128, 128),
    "red": np.tile(np.array([250, 3, 90], np.uint8), (40, 48, 1)),
    "one pixel hardly lit": lit(1),
    "one pixel lit": lit(255),
    "one pixel dead": lit(0, 200),
    "one pixel alone": np.full((1, 1, 3), 7, np.uint8),
    "16 bits": np.full((40, 48), 31_000, np.uint16),
    "covered lens": noisy(0, 6),
    "burnt out": noisy(251, 255),
    "JPEG of grey": noisy(127, 129),
}


@pytest.fixture(scope="module")
def detector():
    return WinCLIP(tiny_backbone()).eval()


@pytest.fixture
def inspector(detector):
    made = Inspector(detector)
    made.describe("plate")
    return made


# --- a frame alone -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NOTHING)
def test_a_frame_that_shows_nothing_is_unsure_without_calibration(inspector, name):
    found = inspector.inspect(NOTHING[name])
    assert found.verdict == "unsure" and "nothing can be seen in it" in found.reason
    assert found.reason in found.explanation and found.notes == (found.reason,)
    assert found.reason in str(found)
    assert inspector.inspect(part(0)).reason is None


@pytest.mark.parametrize("seed", range(4))
def test_what_shows_something_is_left_alone(seed):
    assert shows_nothing(open_image(part(seed))) is None
    assert shows_nothing(open_image(picture(seed, 40, 48))) is None
    scratched = lit(128, 128)
    scratched[40:42, 20:30] = 60  # a mark of 20 pixels on a plain, drawn plate
    assert shows_nothing(open_image(scratched)) is None
    assert shows_nothing(open_image(noisy(10, 24))) is None  # dark-field: little, but something


def test_what_counts_is_the_inspected_area(inspector):
    half = part(0)
    half[:, 64:] = 9
    roi = np.zeros_like(half)
    roi[:, 64:] = 255
    assert inspector.inspect(half).reason is None
    inspector.roi = open_image(roi)
    note = "the inspected area is a single colour: nothing can be seen in it"
    found = inspector.inspect(half)
    assert (found.verdict, found.reason) == ("unsure", note)
    inspector.roi = None
    inspector.ignore = open_image(roi)
    assert inspector.inspect(half).reason is None


def test_nothing_is_learned_from_frames_that_show_nothing(inspector):
    with pytest.raises(ImageError, match="nothing can be seen in it"):
        inspector.remember([part(0), NOTHING["black"]])
    assert inspector.shots == 0
    with pytest.raises(ImageError, match="single colour"):
        inspector.calibrate([part(0), part(1), NOTHING["white"]])
    told = []
    good = [part(seed) for seed in range(5)]
    policy = inspector.calibrate([NOTHING["one pixel lit"], *good], on_failure=told.append)
    assert len(policy.scores) == 5 and len(told) == 1
    assert policy.notes[0] == "Files that could not be used, not counted: 1."
    again = inspector.calibrate(good, leave_one_out=True)
    assert len(again.scores) == 5 and again.frames is not None


# --- what is measured ----------------------------------------------------------------------------


def test_brightness_contrast_and_sharpness_of_a_chessboard():
    """Fields of one pixel, 51 and 153: mean 0.4, deviation 0.2, Laplacian 4 * 0.4 everywhere."""
    board = np.where(np.indices((40, 60)).sum(axis=0) % 2, 153, 51).astype(np.uint8)
    found = measure(open_image(board))
    assert found.brightness == pytest.approx(0.4, abs=1e-6)
    assert found.contrast == pytest.approx(0.2, abs=1e-6)
    assert found.sharpness == pytest.approx(1.6, abs=1e-5)
    deep = measure(open_image(board.astype(np.uint16) * 257))
    assert deep.contrast == pytest.approx(0.2, abs=1e-6)
    area = np.zeros((40, 60), bool)
    area[:, :30] = True
    board[:, 30:] = 255  # does not count
    inside = measure(open_image(board), area)
    assert inside.brightness == pytest.approx(0.4, abs=1e-6)
    assert inside.contrast == pytest.approx(0.2, abs=1e-6)


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1), (2, 2), (700, 1100)])
def test_any_size_is_measured(size):
    found = measure(open_image(np.full((*size, 3), 51, np.uint8)))
    assert found.brightness == pytest.approx(0.2, abs=1e-6)
    assert found.contrast == pytest.approx(0, abs=1e-6) and found.sharpness < 1e-6


def frame(brightness=0.25, contrast=0.1, sharpness=0.01, image="x.png"):
    return Frame(image, brightness, contrast, sharpness)


def test_the_range_by_hand():
    """Roots 0.5 and 0.5: margin 0.15. Contrast 0.1 and 0.4: two doublings beyond 0.1."""
    seen, odd = learn_range([frame(), frame(contrast=0.4, sharpness=0.0125)])
    assert seen.brightness == (pytest.approx(0.35**2), pytest.approx(0.65**2))
    assert seen.contrast == pytest.approx(0.1 / 4)
    assert seen.sharpness == pytest.approx(0.01 / 2)
    # two pictures of so different contrast: the flatter one lies outside what the other shows
    assert seen.outside == 1 and odd == [
        "x.png: the picture is far flatter (contrast 0.1 where good ones have at least 0.2)"
    ]
    assert seen.reason(frame(contrast=0.03)) is None
    assert seen.reason(frame(contrast=0.02)).startswith("the picture is far flatter")
    assert seen.reason(frame(contrast=0.9, sharpness=0.9)) is None  # a defect may have much of both
    assert seen.reason(frame(brightness=0.1)).startswith("the picture is far darker")
    assert seen.reason(frame(brightness=0.5)).startswith("the picture is far brighter")
    assert seen.reason(frame(sharpness=0.0051)) is None
    assert seen.reason(frame(sharpness=0.0049)).startswith("the picture is far less sharp")
    assert learn_range([frame()]) == (None, [])


# --- with calibration ----------------------------------------------------------------------------


def changed(name: str) -> np.ndarray:
    good = part(400)
    blurred = Image.fromarray(good).filter(ImageFilter.GaussianBlur(4))
    return {
        "darker": (good * 0.4).astype(np.uint8),
        "brighter": (255 - (255 - good.astype(float)) * 0.25).astype(np.uint8),
        "flatter": (120 + (good.astype(float) - 120) * 0.3).astype(np.uint8),
        "less sharp": np.asarray(blurred),
    }[name]


@pytest.mark.parametrize("name", ["darker", "brighter", "flatter", "less sharp"])
@pytest.mark.parametrize("leave_one_out", [False, True])
def test_far_from_all_good_parts_is_unsure(inspector, tmp_path, name, leave_one_out):
    policy = inspector.calibrate(
        [part(300 + seed) for seed in range(20)], leave_one_out=leave_one_out
    )
    assert policy.frames.outside == 0
    assert policy.review_rate == pytest.approx(0.05, abs=1e-9)  # it costs nothing where none is odd
    found = inspector.inspect(changed(name))
    assert found.verdict == "unsure" and f"far {name} (" in found.reason
    assert inspector.inspect(part(401)).reason is None
    policy.save(tmp_path / "policy.json")
    assert Policy.load(tmp_path / "policy.json") == policy
    inspector.policy = Policy.load(tmp_path / "policy.json")
    assert inspector.inspect(changed(name)).reason == found.reason
    assert pickle.loads(pickle.dumps(policy)) == policy


def test_a_policy_without_frames_judges_by_scores_alone(inspector):
    policy = inspector.calibrate([part(300 + seed) for seed in range(20)])
    former = Policy.model_validate({**policy.model_dump(), "frames": None})
    assert "frames" not in former.model_dump() and "confidence" not in former.model_dump()
    inspector.policy = former
    assert inspector.inspect(changed("less sharp")).reason is None
    assert inspector.inspect(NOTHING["black"]).verdict == "unsure"  # it takes no calibration


# --- what it costs -------------------------------------------------------------------------------


def test_an_odd_good_picture_takes_its_share_of_the_review_rate():
    frames = [frame(0.25 + i / 1000, image=f"{i}.png") for i in range(39)]
    scores = [float(i) for i in range(40)]
    plain = calibrate(scores, scores, frames=[*frames, frame(0.3, image="39.png")], **WHO)
    odd = calibrate(scores, scores, frames=[*frames, frame(0.9, image="lamp.png")], **WHO)
    assert (plain.review_rate, plain.frames.outside) == (0.05, 0)
    assert (plain.limits.unsure, plain.limits.defect) == (38, 39)  # the second and the largest
    assert odd.frames.outside == 1 and odd.limits.unsure == odd.limits.defect == 39
    assert any("lamp.png: the picture is far brighter" in note for note in odd.notes)
    # 19 pictures prove 5 % with nothing to spare
    few = [*frames[:18], frame(0.9, image="lamp.png")]
    raised = calibrate(scores[:19], scores[:19], frames=few, **WHO)
    assert raised.review_rate == pytest.approx(0.1) and raised.limits.unsure == 18
    with pytest.raises(CalibrationError, match=r"lamp\.png.*ask for a review rate of 0\.1"):
        calibrate(scores[:19], scores[:19], frames=few, review_rate=0.05, **WHO)
    assert with_proven_rates(Policy.model_validate(odd.model_dump())).review_rate == 0.05
    cut = {**odd.model_dump(), "limits": {"unsure": 38.0, "defect": 39.0}}
    assert with_proven_rates(Policy.model_validate(cut)).review_rate is None


def draw(rng: np.random.Generator, count: int, tails: str) -> list[tuple[float, Frame]]:
    """Good pictures whose frames vary, some wildly, with scores that follow them in part."""
    if tails == "light":
        light, detail = rng.normal(0, 0.1, count), rng.normal(0, 0.2, count)
    else:  # far outside every range now and then
        light, detail = rng.standard_cauchy(count) / 20, rng.standard_cauchy(count) / 4
    scores = rng.lognormal(size=count) - detail.clip(-20, 20)
    found = []
    for score, one, other in zip(scores, light, detail, strict=True):
        sharp = 0.01 * 2.0 ** float(np.clip(other, -20, 20))
        found.append((score, frame(float(np.clip(0.4 + one, 0, 1)), sharpness=sharp)))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("tails", ["light", "heavy"])
@pytest.mark.parametrize("n", [4, 20, 60])
def test_the_review_rate_holds_for_scores_and_frames_together(n, tails):
    rng = np.random.default_rng(n)
    draws, kept = 1500, dict.fromkeys(("review", "promised", "alarms", "frames"), 0.0)
    for _ in range(draws):
        *good, (score, new) = draw(rng, n + 1, tails)
        scores = [one for one, _ in good]
        policy = calibrate(scores, frames=[each for _, each in good], **WHO)
        odd = policy.frames.reason(new) is not None
        verdict = "unsure" if odd else policy.verdict(score)
        kept["frames"] += odd
        kept["review"] += verdict != "good"
        kept["promised"] += policy.review_rate
        kept["alarms"] += (verdict == "defect") - policy.false_alarms
    # where odd pictures raise the rate it is known up to 4 / (n + 1) ** 2
    rate = kept["promised"] / draws + 4 / (n + 1) ** 2
    assert kept["review"] / draws <= rate + 4 * math.sqrt(rate * (1 - rate) / draws)
    assert kept["alarms"] / draws <= 4 * math.sqrt(0.2 / draws)
    if tails == "heavy":  # the rule was at work
        assert kept["frames"] >= 3


# --- points --------------------------------------------------------------------------------------


def plate(seed: int, kept: float = 1.0, *, colours: bool = True) -> Picture:
    """A plate of 20 x 20 points, of which a share was measured; no ground around it."""
    rows, columns = np.mgrid[:20, :20].astype(np.float64)
    rough = 50 + 9 * np.random.default_rng(seed).random((20, 20))
    points = np.stack([columns, rows, rough], -1)
    points.reshape(-1, 3)[np.random.default_rng(0).permutation(400)[round(400 * kept) :]] = 0
    shade = np.random.default_rng(seed).integers(90, 110, (20, 20, 3), np.uint8)
    return Picture(f"{seed}.png", shade, cloud=open_cloud(points), colourless=not colours)


def test_points_are_counted_where_they_are_judged():
    assert measure(plate(0)).points is None
    assert measure(plate(0), points=True).points == 400
    assert measure(plate(0, 0.6), points=True).points == 240
    assert measure(replace(plate(0), cloud=None), points=True).points is None
    area = np.zeros((20, 20), bool)
    area[:5] = True
    assert measure(plate(0), area, points=True).points == 100


def test_a_part_of_half_as_many_points_as_any_good_one_is_not_judged():
    """Fewest 380, most 400: the margin is a doubling, not their span."""
    seen, odd = learn_range([measure(plate(n, k), points=True) for n, k in enumerate((1, 0.95))])
    assert seen.points == pytest.approx(190) and not odd and seen.outside == 0
    told = "too few of its points were measured (188 on the part, where good ones have at least 190"
    for colours in (True, False):
        assert why_unjudged(plate(9, 0.47, colours=colours), None, seen).startswith(told)
        assert why_unjudged(plate(9, 0.48, colours=colours), None, seen) is None
    assert why_unjudged(replace(plate(9), cloud=None), None, seen) is None  # other parts judge it
    plain, _ = learn_range([measure(plate(n)) for n in range(2)])
    assert plain.points is None and why_unjudged(plate(9, 0.1), None, plain) is None
    assert FrameRange.model_validate(seen.model_dump()) == seen
    former = {k: v for k, v in seen.model_dump().items() if k != "points"}
    assert FrameRange.model_validate(former).points is None


def test_good_parts_with_few_points_or_alone_with_points_take_a_rank():
    frames = [measure(plate(n), points=True) for n in range(5)]
    seen, odd = learn_range([*frames, measure(plate(5, 0.2), points=True)])
    assert seen.outside == 1 and odd[0].startswith("5.png: too few of its points")
    bare = [replace(frame, points=None) for frame in frames]
    seen, odd = learn_range([*bare, frames[0]])
    assert seen.outside == 1 and odd == ["0.png: no other good part has points"]
    assert learn_range(bare)[0].outside == 0


def test_the_rank_that_points_take_keeps_the_review_rate():
    """Parts of which some have no cloud at all, and few points now and then."""
    rng = np.random.default_rng(0)
    draws, n, kept, promised = 3000, 9, 0, 0.0
    for _ in range(draws):
        frames = [
            replace(frame(), points=None if rng.random() < 0.6 else int(2 ** rng.normal(9, 1.5)))
            for _ in range(n + 1)
        ]
        scores = rng.random(n + 1).tolist()
        policy = calibrate(scores[:-1], frames=frames[:-1], **WHO)
        odd = policy.frames.reason(frames[-1]) is not None
        kept += odd or policy.verdict(scores[-1]) != "good"
        promised += policy.review_rate
    rate = promised / draws + 1 / (n + 1) ** 2
    assert kept / draws <= rate + 4 * math.sqrt(rate * (1 - rate) / draws)


def test_a_range_never_narrows_when_a_picture_is_added():
    """What the proof of the review rate rests on."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        frames = [each for _, each in draw(rng, int(rng.integers(3, 12)), "heavy")]
        fewer, _ = learn_range(frames[:-1])
        more, _ = learn_range(frames)
        assert isinstance(more, FrameRange)
        for _, probe in draw(rng, 20, "heavy"):
            assert more.reason(probe) is None or fewer.reason(probe) is not None

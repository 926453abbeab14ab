"""Parts of several pictures: which belong together, limits learned from parts, their verdicts."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from marked_plates import COLOURS, inspector, plate, uncalibrated

from zerodefect import CalibrationError, Failure, Inspector, Policy
from zerodefect.images import encode_png
from zerodefect.inspection.calibration import calibrate
from zerodefect.inspection.conformal import PolicyError, smallest_rate
from zerodefect.inspection.frames import Frame, learn_range
from zerodefect.inspection.part_pictures import Parts, grouped, part_names
from zerodefect.inspection.part_verdict import Outcome, judge_part

WHO = {"method": "marks", "fingerprint": "f", "object": "plate"}
STAIN = (COLOURS["stain"], 8, 10)
BY = r"(?P<part>\d+)_.*"


def named(count: int, sides: int = 2, first: int = 0) -> dict[str, list[np.ndarray]]:
    """Good parts by name."""
    return {
        f"{part:03d}": [plate(100 * part + side) for side in range(sides)]
        for part in range(first, first + count)
    }


@pytest.fixture(scope="module")
def policy() -> Policy:
    return learned().policy


def learned(**options) -> Inspector:
    """Calibrated on 20 parts of two pictures."""
    made = uncalibrated()
    made.calibrate(named(20), **options)
    return made


# --- which pictures belong together ------------------------------------------------------------


def test_names_of_files_and_of_folders():
    assert part_names(["lot/012_left.png", "lot/012_right.png", "013_left.png"], BY) == [
        "012",
        "012",
        "013",
    ]
    assert part_names(["lots/a/7/left.png", "lots/a/8/left.png"], "(?P<part>[^/]+)/[^/]+$") == [
        "7",
        "8",
    ]


@pytest.mark.parametrize(
    ("by", "message"),
    [("(?P<part>", "regular expression"), (r"(\d+)_.*", "group 'part'"), (BY, "left.png")],
)
def test_a_pattern_that_does_not_fit_is_refused(by, message):
    with pytest.raises(PolicyError, match=message):
        part_names(["12_left.png", "left.png"], by)


def test_an_empty_name_is_no_part():
    with pytest.raises(PolicyError, match="gives no part"):
        part_names(["_left.png"], r"(?P<part>\d*)_.*")


def test_pictures_of_a_part_come_together_from_all_folders(tmp_path):
    for side in ("left", "right"):
        for part in (2, 1):
            path = tmp_path / side / f"{part}_{side}.png"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(encode_png(plate(part)))
    groups = grouped(tmp_path, BY)
    assert {part: [f.parent.name for f in files] for part, files in groups.items()} == {
        "1": ["left", "right"],
        "2": ["left", "right"],
    }


def test_what_has_no_name_must_be_named():
    with pytest.raises(PolicyError, match="name the parts"):
        grouped([plate(1)], BY)
    with pytest.raises(PolicyError, match="not known"):
        grouped([plate(1)], None)
    with pytest.raises(PolicyError, match="leave the pattern out"):
        grouped({"1": [plate(1)]}, BY)


# --- limits of parts ---------------------------------------------------------------------------


def test_scores_are_the_highest_of_each_part():
    made, parts = learned(), named(20)
    single = inspector()
    expected = sorted(max(single.inspect(p).score for p in some) for some in parts.values())
    assert made.policy.scores == pytest.approx(expected)
    assert made.policy.parts == Parts(by=None, pictures={2: 20})
    assert made.policy.unit == "part" and made.policy.form == "split" and made.policy.guaranteed
    assert made.policy.notes[0].startswith(
        "Limits learned from 20 good parts of 2 pictures. On average over calibrations at most "
        "4.76 % of good parts like these are called defective"
    )


def test_the_section_stands_in_the_file(tmp_path, policy):
    policy.save(tmp_path / "p.json")
    assert json.loads((tmp_path / "p.json").read_text())["parts"] == {
        "version": 1,
        "by": None,
        "pictures": {"2": 20},
    }
    assert Policy.load(tmp_path / "p.json") == policy
    torn = {**policy.model_dump(mode="json"), "parts": {"version": 1, "pictures": {"2": 19}}}
    (tmp_path / "p.json").write_text(json.dumps(torn))
    with pytest.raises(PolicyError, match="does not count the 20"):
        Policy.load(tmp_path / "p.json")


def test_a_part_with_a_picture_that_cannot_be_used_is_left_out_whole():
    parts, failures = named(21), []
    parts["020"][1] = np.zeros((64, 64, 3), np.uint8)
    made = uncalibrated()
    policy = made.calibrate(parts, on_failure=failures.append)
    assert len(failures) == 1 and len(policy.scores) == 20 and policy.parts.pictures == {2: 20}
    assert "Parts with a picture that does not count, left out: 1." in policy.notes
    parts["020"] = [parts["000"][0], plate(9999)]  # a picture of another part
    assert len(made.calibrate(parts).scores) == 20


def test_a_rate_is_refused_by_the_number_of_parts():
    with pytest.raises(CalibrationError, match=r"with 20 good parts: .* at least 99 good parts"):
        uncalibrated().calibrate(named(20), false_alarms=0.01)


def test_parts_are_not_their_own_references():
    with pytest.raises(CalibrationError, match="others of its part"):
        uncalibrated().calibrate(named(5), leave_one_out=True)


# --- the guarantee, over many draws ------------------------------------------------------------


def draw_parts(rng: np.random.Generator, parts: int, sides: int) -> np.ndarray:
    """Scores ``(parts, sides)`` of good parts: sides differ, and share what the part is like."""
    own = rng.lognormal(sigma=0.6, size=(parts, 1))
    return own + rng.exponential(size=(parts, sides)) * np.arange(1, sides + 1)


@pytest.mark.parametrize("sides", [2, 3, 5])
def test_the_false_alarm_rate_is_that_of_parts(sides):
    """Limits of single pictures, on the same parts, would not keep it."""
    rng, n, draws, rate = np.random.default_rng(sides), 40, 3000, 0.1
    alarms = apart = 0
    for _ in range(draws):
        scores = draw_parts(rng, n + 1, sides)
        good, new = scores[:-1].max(1).tolist(), float(scores[-1].max())
        alarms += calibrate(good, false_alarms=rate, review_rate=rate, **WHO).verdict(new) != "good"
        pictures = scores[:-1].ravel().tolist()
        apart += calibrate(pictures, false_alarms=rate, review_rate=rate, **WHO).verdict(new) != (
            "good"
        )
    margin = 4 * math.sqrt(rate * (1 - rate) / draws)
    exact = math.floor(rate * (n + 1)) / (n + 1)
    assert abs(alarms / draws - exact) <= margin
    assert apart / draws > rate + margin


def test_the_review_rate_of_parts_counts_odd_frames_by_part():
    """Frames of one part stand for each other: leaving one picture out would miss odd parts."""
    rng, n, draws, rate = np.random.default_rng(0), 39, 500, 0.1
    reviewed = 0
    for _ in range(draws):
        scores = draw_parts(rng, n + 1, 2).max(1)
        light = np.where(rng.random(n + 1) < 0.03, 0.9, 0.3)
        frames = [
            Frame(f"{part}-{side}", light[part] + rng.normal(0, 0.01), 0.2, 0.1, str(part))
            for part in range(n + 1)
            for side in range(2)
        ]
        try:
            made = calibrate(
                scores[:-1].tolist(), review_rate=rate, frames=frames[:-2], **parts_of(n), **WHO
            )
        except CalibrationError:
            continue  # too many odd ones for the rate: refused
        odd = any(made.frames.reason(frame) for frame in frames[-2:])
        reviewed += odd or made.verdict(float(scores[-1])) != "good"
    assert reviewed / draws <= rate + 4 * math.sqrt(rate * (1 - rate) / draws)


def parts_of(n: int) -> dict[str, Parts]:
    return {"parts": Parts(pictures={2: n})}


def test_a_part_is_odd_among_the_other_parts():
    frames = [Frame(f"{i}.png", 0.3, 0.2, 0.1, str(i // 2)) for i in range(10)]
    odd = [replace(frame, brightness=0.9) if frame.part == "3" else frame for frame in frames]
    seen, told = learn_range(odd)
    assert seen.outside == 1 and len(told) == 1 and told[0].startswith("6.png: the picture is far")
    # taken for pictures on their own the two hide each other
    assert learn_range([replace(frame, part=None) for frame in odd])[0].outside == 0
    assert learn_range(frames[:2]) == (None, [])  # one part has no others


# --- verdicts of parts -------------------------------------------------------------------------


def outcomes(policy: Policy, *scores: float | None) -> list[Outcome]:
    return [
        Outcome(f"{i}.png", None, None, "the file is empty")
        if score is None
        else Outcome(f"{i}.png", policy.verdict(score), score)
        for i, score in enumerate(scores)
    ]


def test_the_part_is_as_its_worst_picture(policy):
    low, high = policy.scores[0], policy.limits.defect + 0.1
    good = judge_part("7", outcomes(policy, low, low), policy)
    bad = judge_part("8", outcomes(policy, low, high), policy)
    assert (good.verdict, good.reason, good.p_value) == ("good", None, 1.0)
    assert (bad.verdict, bad.score, bad.decisive) == ("defect", high, "1.png")
    assert bad.p_value == pytest.approx(1 / 21)
    assert bad.explanation == (
        f"Decisive of 2 pictures: 1.png. Score {high:.4f} is above the limit "
        f"{policy.limits.defect:.4f} for defect: none of 20 good parts scored as high (p = 0.0476)."
    )


def test_a_picture_that_cannot_be_read_leaves_a_part_unsure(policy):
    low, high = policy.scores[0], policy.limits.defect + 0.1
    found = judge_part("7", outcomes(policy, low, None), policy)
    assert found.verdict == "unsure"
    assert found.reason == "1.png could not be inspected (the file is empty)"
    assert found.explanation.startswith(f"Unsure, whatever the scores: {found.reason}.")
    nothing = judge_part("7", outcomes(policy, None, None), policy)
    assert (nothing.verdict, nothing.score, nothing.p_value) == ("unsure", None, None)
    # the missing picture could only have raised the score
    found = judge_part("7", outcomes(policy, None, high), policy)
    assert found.verdict == "defect" and found.reason in found.explanation


def test_another_number_of_pictures_is_never_good(policy):
    low, high = policy.scores[0], policy.limits.defect + 0.1
    few, many = (judge_part("7", outcomes(policy, *some), policy) for some in ([low], [low] * 3))
    assert few.verdict == many.verdict == "unsure"
    assert few.reason == "it has 1 picture where good parts have 2"
    assert many.reason == "it has 3 pictures where good parts have 2" and many.p_value is None
    # with fewer pictures a limit is reached less often than was proven, with more more often
    assert judge_part("7", outcomes(policy, high), policy).verdict == "defect"
    assert judge_part("7", outcomes(policy, high, low, low), policy).verdict == "unsure"


@given(st.lists(st.none() | st.floats(0, 1), min_size=1, max_size=4))
def test_good_is_said_of_whole_parts_alone(scores):
    good = [i / 20 for i in range(20)]
    made = calibrate(good, **parts_of(20), **WHO)
    found = judge_part("7", outcomes(made, *scores), made)
    order = ("good", "unsure", "defect")
    for one in outcomes(made, *scores):
        if found.verdict == "good":
            assert one.verdict == "good" and len(scores) == 2
        if len(scores) == 2 and one.verdict:
            assert order.index(found.verdict) >= order.index(one.verdict)
    assert (found.verdict == "good") <= (found.reason is None)


def test_the_inspector_judges_parts_with_their_evidence():
    made = learned()
    parts = named(3, first=50)
    parts["051"][1] = plate(7, STAIN)
    parts["052"][0] = np.full((64, 64, 3), 255, np.uint8)
    found = list(made.inspect_parts(parts, batch_size=2))
    assert [(one.part, one.verdict) for one in found] == [
        ("050", "good"),
        ("051", "defect"),
        ("052", "unsure"),
    ]
    assert [len(one.pictures) for one in found] == [2, 2, 2]
    assert found[1].score == found[1].pictures[1].score > found[1].pictures[0].score
    assert found[1].pictures[1].regions[0].kind == "stain"
    assert "nothing can be seen in it" in found[2].reason
    assert str(found[1]).startswith("051: defect, score 0.7843, 2 pictures")


def test_files_and_a_broken_one(tmp_path):
    for part, some in named(20).items():
        for side, pixels in enumerate(some):
            (tmp_path / f"{part}_{side}.png").write_bytes(encode_png(pixels))
    made = uncalibrated()
    made.calibrate(tmp_path, part_by=BY)
    assert made.policy.parts.by == BY
    (tmp_path / "000_1.png").write_bytes(b"")
    found = {one.part: one for one in made.inspect_parts(tmp_path)}
    assert found["000"].verdict == "unsure" and isinstance(found["000"].pictures[1], Failure)
    assert [one.verdict for part, one in found.items() if part != "000"].count("good") >= 17


def test_rules_on_regions_hold_for_each_picture():
    made = learned(allow=["stain:count<=1"])
    parts = {"7": [plate(7, STAIN), plate(8, STAIN)], "8": [plate(7, STAIN, STAIN), plate(8)]}
    good, bad = made.inspect_parts(parts)
    assert (good.verdict, bad.verdict) == ("good", "defect")
    assert good.explanation.endswith("It is called good by rule: 1 stain is allowed (up to 1).")


def test_what_contradicts_the_policy_is_refused(tmp_path):
    made = inspector()  # of single pictures
    with pytest.raises(PolicyError, match="learned from single pictures"):
        next(made.inspect_parts(named(1)))
    (tmp_path / "1_a.png").write_bytes(encode_png(plate(1)))
    made = learned()
    made.policy = made.policy.model_copy(update={"parts": Parts(by=BY, pictures={2: 20})})
    with pytest.raises(PolicyError, match="not what the policy was calibrated with"):
        next(made.inspect_parts(tmp_path, part_by=r"(?P<part>\d)_.*"))


def test_a_provisional_verdict_needs_no_policy():
    good, bad = uncalibrated().inspect_parts(
        {"1": [plate(1)] * 2, "2": [plate(1), plate(2, STAIN)]}
    )
    assert (good.verdict, bad.verdict, bad.calibrated) == ("good", "defect", False)


def test_limits_that_are_replaced_count_parts(policy):
    assert "of the 20 good parts lie above it" in policy.with_threshold("q:0.5").notes[-1]
    with pytest.raises(CalibrationError, match="20 good parts"):
        policy.with_threshold(f"rate:{smallest_rate(20) / 2}")

"""Regions that a user allows: the rules, the verdict, and what stays the detector's."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from marked_plates import COLOURS, WHITE, inspector, plate, uncalibrated

from zerodefect import Policy
from zerodefect.inspection.allowances import Allowances, Rule, allowed_in_words
from zerodefect.inspection.conformal import PolicyError
from zerodefect.types import Region

STAIN, SCRATCH = COLOURS["stain"], COLOURS["scratch"]
SMALL, LARGE = (STAIN, 3, 3), (STAIN, 8, 10)  # 9 and 80 pixels


def region(area: int, kind: str | None = None, percent: float = 1.0) -> Region:
    return Region((0, 0, 1, 1), np.ones((1, 1), bool), (), area, percent, 0.9, None, kind, 0.5)


def marks(rules: list[str], *regions: Region) -> list[str | None]:
    found = Allowances.of(rules).marked(regions)
    assert [(r.area, r.kind) for r in found] == [(r.area, r.kind) for r in regions]
    return [r.allowed for r in found]


# --- the rules ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("area<50", Rule(area=50)),
        (" stain : area < 50 px ", Rule("stain", area=50)),
        ("area<0.25%", Rule(area=0.25, percent=True)),
        ("count<=2", Rule(count=2)),
        ("missing part:count<=2,area<50", Rule("missing part", area=50, count=2)),
        ("a:b:area<1", Rule("a:b", area=1)),
    ],
)
def test_a_rule_is_read_and_written(text, rule):
    assert Rule.parse(text) == rule == Rule.parse(str(rule))


@pytest.mark.parametrize(
    "text",
    (
        *("", "stain", "stain:", ":area<5", "unknown:area<5"),
        *("area<0", "area<-1", "area>5", "area<nan", "area<5,area<6", "area<50,"),
        *("count<2", "count<=0", "count<=1.5", "area<" + "9" * 400),
    ),
)
def test_what_is_no_rule_is_refused_by_its_text(text):
    with pytest.raises(PolicyError, match="allowance"):
        Allowances.of([text])


def test_an_area_allows_what_lies_below_it():
    assert marks(["area<50"], region(49), region(50), region(9, "stain")) == [
        "area<50px",
        None,
        "area<50px",
    ]
    assert marks(["area<0.5%"], region(900, percent=0.4), region(9, percent=0.5)) == [
        "area<0.5%",
        None,
    ]


def test_a_kind_is_matched_by_its_name_and_never_where_it_is_not_known():
    rule = "stain:area<50px"
    assert marks([rule], region(9, "stain"), region(9, "scratch"), region(9, None)) == [
        rule,
        None,
        None,
    ]


def test_a_number_allows_all_or_none():
    two = [region(9, "stain"), region(900, "stain")]
    assert marks(["stain:count<=2"], *two, region(9, "hole")) == ["stain:count<=2"] * 2 + [None]
    assert marks(["stain:count<=2"], *two, region(9, "stain")) == [None] * 3


def test_area_and_number_hold_together():
    rule = "stain:area<50px,count<=2"
    small, large = region(9, "stain"), region(900, "stain")
    assert marks([rule], small, small, large) == [rule, rule, None]
    assert marks([rule], small, small, small) == [None] * 3


def test_what_is_too_small_to_count_does_not_count():
    rules = ["count<=1", "area<5"]
    assert marks(rules, region(4), region(4), region(90)) == ["area<5px"] * 2 + ["count<=1"]
    assert marks(rules, region(4), region(80), region(90)) == ["area<5px", None, None]


rules = st.sampled_from(
    ["area<20", "area<0.5%", "count<=1", "stain:area<50", "stain:count<=2", "hole:area<9,count<=1"]
)
regions = st.builds(
    region,
    st.integers(1, 60),
    st.sampled_from(["stain", "hole", None]),
    st.floats(0.1, 1).map(lambda share: round(share, 3)),
)


@given(st.lists(rules, min_size=1, max_size=4), st.lists(regions, max_size=6), st.randoms())
def test_the_order_of_rules_and_regions_decides_nothing(names, found, chance):
    allowed = [one is not None for one in marks(names, *found)]
    order = list(range(len(found)))
    chance.shuffle(order)
    turned = marks(sorted(names, reverse=True), *[found[i] for i in order])
    assert [allowed[i] for i in order] == [one is not None for one in turned]


@given(st.lists(rules, min_size=1, max_size=4), st.lists(regions, max_size=6))
def test_each_mark_is_a_rule_that_matches_and_more_rules_without_numbers_allow_more(names, found):
    first = marks(names, *found)
    for one, rule in zip(found, first, strict=True):
        assert rule is None or Rule.parse(rule).matches(one)
    more = marks([*names, "area<30"], *found)
    assert all(now is not None for before, now in zip(first, more, strict=True) if before)


def test_the_words():
    allowed = Allowances.of(["stain:area<50", "count<=1"])
    assert allowed.sentence() == (
        "Allowed: any stain below 50 pixels; up to 1 region. Where nothing else stands out a "
        "picture is good by this rule, whatever its score."
    )
    small = [region(9, "stain")] * 3
    assert allowed_in_words(allowed.marked([*small, region(90, "scratch")])) == (
        "3 stains, each below 50 pixels, are allowed; 1 region is allowed (up to 1)"
    )
    assert allowed_in_words(allowed.marked([*small, *[region(90, "scratch")] * 2])) == (
        "3 stains, each below 50 pixels, are allowed; 2 regions of up to 90 pixels are not"
    )


# --- verdicts ----------------------------------------------------------------------------------


def test_a_picture_with_nothing_but_what_is_allowed_is_good_and_says_why():
    made, plain = inspector(allow=["stain:area<50"]), inspector()
    for pixels in (plate(50, SMALL), plate(51, SMALL, SMALL, SMALL)):
        found, before = made.inspect(pixels), plain.inspect(pixels)
        assert (found.verdict, before.verdict) == ("good", "defect")
        assert (found.score, found.p_value) == (before.score, before.p_value)
        assert found.count == before.count and found.calibrated
        assert [r.allowed for r in found.regions] == ["stain:area<50px"] * found.count
    assert found.allowed == "3 stains, each below 50 pixels, are allowed"
    assert found.explanation.startswith(
        "3 stains, each below 50 pixels, are allowed; nothing else stands out: good by this rule, "
        "not by the score. Score 0.7843 is above the limit"
    )


def test_what_is_not_allowed_decides_and_is_told():
    made = inspector(allow=["stain:area<50"])
    for pixels, rest in (
        (plate(50, SMALL, LARGE), "1 stain of 80 pixels is not"),
        (plate(50, SMALL, (SCRATCH, 3, 3)), "1 scratch of 9 pixels is not"),
        (plate(50, SMALL, (WHITE, 3, 3)), "1 region of 9 pixels is not"),
    ):
        found = made.inspect(pixels)
        assert found.verdict == "defect" and found.allowed is None
        assert found.explanation.startswith(f"1 stain, below 50 pixels, is allowed; {rest}. Score")


def test_a_kind_that_is_not_known_is_allowed_by_a_rule_for_all_kinds_alone():
    pixels = plate(50, (WHITE, 3, 3))
    made = inspector(allow=["stain:area<50", "scratch:area<50", "hole:area<50"])
    found = made.inspect(pixels)
    assert [r.kind for r in found.regions] == [None] and found.verdict == "defect"
    made.policy = made.policy.allowing(["area<50"])
    assert made.inspect(pixels).verdict == "good"


def test_a_score_without_a_region_is_not_excused():
    """Nothing that stands out is not the same as nothing but what is allowed."""
    made = inspector(allow=["area<1000"])
    limits = made.policy.limits.model_copy(update={"unsure": 0.1, "defect": 0.2})
    made.policy = made.policy.model_copy(update={"limits": limits})
    found = made.inspect(plate(50))
    assert found.regions == () and found.verdict == "defect" and found.allowed is None


def test_a_good_score_is_good_by_itself():
    found = inspector(allow=["area<1000"]).inspect(plate(50))
    assert found.verdict == "good" and found.allowed is None
    assert "allowed" not in found.explanation


def test_single_pixels_count_once_rules_are_given():
    """Regions below 4 pixels are not listed as a rule; a rule must see all that stands out."""
    pixels = plate(50, (STAIN, 1, 2))
    assert inspector().inspect(pixels).regions == ()
    found = inspector(allow=["area<4"]).inspect(pixels)
    assert found.verdict == "good" and [r.area for r in found.regions] == [2]
    assert inspector(allow=["scratch:area<4"]).inspect(pixels).verdict == "defect"


def test_a_frame_that_shows_nothing_stays_unsure():
    made = inspector(allow=["area<99%"])
    found = made.inspect(np.full((64, 64, 3), 255, np.uint8))
    assert found.verdict == "unsure" and found.reason and found.allowed is None


def test_without_a_limit_for_unsure_nothing_is_called_good():
    made = inspector(allow=["area<50"])
    limits = made.policy.limits.model_copy(update={"unsure": None})
    made.policy = made.policy.model_copy(update={"limits": limits})
    found = made.inspect(plate(50, SMALL))
    assert found.verdict == "unsure" and "not by the score" in found.explanation
    assert made.inspect(plate(50)).verdict == "unsure"


def test_a_provisional_run_can_allow_too():
    made = uncalibrated()
    made.policy = made.active_policy().allowing(["area<50"])
    found = made.inspect(plate(50, SMALL))
    assert (found.verdict, found.calibrated) == ("good", False)
    assert made.inspect(plate(50, LARGE)).verdict == "defect"


@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=40),
    st.floats(0, 1),
    st.lists(regions, max_size=4),
    st.lists(rules, min_size=1, max_size=3),
)
def test_rules_only_ever_take_a_verdict_back(scores, score, found, names):
    """So no rate that was proven rises."""
    who = {"method": "m", "fingerprint": "f", "object": None}
    from zerodefect.inspection.calibration import calibrate

    plain = calibrate(scores, scores, **who)
    policy = plain.allowing(names)
    order = ("good", "unsure", "defect")
    verdict = policy.verdict(score, policy.marked(found))
    assert order.index(verdict) <= order.index(plain.verdict(score))
    assert verdict in (plain.verdict(score), plain.verdict(-math.inf))
    assert policy.p_value(score) == plain.p_value(score)
    assert (policy.false_alarms, policy.guaranteed) == (plain.false_alarms, plain.guaranteed)


# --- the policy and its file -------------------------------------------------------------------


def test_rules_are_kept_in_their_own_section(tmp_path):
    made = inspector(allow=["stain:area<50", "area<4"])
    made.policy.save(tmp_path / "p.json")
    section = json.loads((tmp_path / "p.json").read_text())["allowances"]
    assert section == {"version": 1, "rules": ["stain:area<50px", "area<4px"]}
    assert Policy.load(tmp_path / "p.json") == made.policy
    assert "allowances" not in inspector().policy.model_dump()


def written(tmp_path, **changes):
    path = tmp_path / "p.json"
    path.write_text(json.dumps({**inspector().policy.model_dump(mode="json"), **changes}))
    return path


def test_later_fields_break_nothing(tmp_path):
    section = {"version": 1, "rules": ["area<5"], "shapes": ["round"]}
    assert Policy.load(written(tmp_path, allowances=section)).allowances.rules == ("area<5px",)
    policy = Policy.load(written(tmp_path, tints={"version": 3, "red": 1}))
    assert policy.allowances is None and "not used: tints" in policy.notes[-1]


def test_a_later_section_and_a_wrong_rule_are_refused_by_name(tmp_path):
    with pytest.raises(PolicyError, match=r"p\.json: written in allowances version 2.*Update"):
        Policy.load(written(tmp_path, allowances={"version": 2, "rules": []}))
    with pytest.raises(PolicyError, match=r"p\.json: allowances\.rules: allowance 'area<'"):
        Policy.load(written(tmp_path, allowances={"version": 1, "rules": ["area<"]}))
    with pytest.raises(PolicyError, match=r"p\.json: limitz"):  # a slip is still told
        Policy.load(written(tmp_path, limitz=3))


def test_rules_are_replaced_and_taken_back():
    policy = inspector(allow=["stain:area<50"]).policy
    assert policy.allowing(["count<=2", "area<0.1%"]).allowances.rules == ("count<=2", "area<0.1%")
    assert policy.allowing(["none"]).allowances is None
    with pytest.raises(PolicyError, match="alone"):
        policy.allowing(["none", "area<50"])


def test_a_kind_is_validated_by_name_before_the_work():
    seen = []
    with pytest.raises(PolicyError, match=r"no kind 'stian'; it knows: stain, scratch, hole"):
        inspector(allow=["stian:area<50"], on_scored=seen.append)
    assert not seen
    made = inspector()
    made.policy = made.policy.allowing(["stian:area<50"])
    with pytest.raises(PolicyError, match="stian"):
        made.inspect(plate(1))


def test_a_method_without_maps_has_no_region_to_allow():
    made = inspector(maps=False)
    made.policy = made.policy.allowing(["area<50"])
    with pytest.raises(PolicyError, match="no maps"):
        made.inspect(plate(1))

"""Limits of measured values: by hand, shared among rules, and the rate that they keep."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zerodefect.inspection.conformal import CalibrationError, smallest_rate
from zerodefect.inspection.rules.rule_limits import SharedRates, learn_rule, limits_of, two_sided_p
from zerodefect.inspection.rules.rule_reader import parse_rule

LEVEL, PLACE = parse_rule("fill level as usual"), parse_rule("position of label as usual")


def values(numbers):
    return [None if one is None else (float(one),) for one in numbers]


def test_limits_by_hand():
    learned = learn_rule(LEVEL, values(range(1, 20)), SharedRates(2, 0.3))  # each 10 % of 20
    assert learned.limits == ((2.0, 18.0),)
    assert learned.values == (tuple(map(float, range(1, 20))),)
    assert two_sided_p(learned, (10.0,)) == 1.0
    assert two_sided_p(learned, (1.0,)) == pytest.approx(2 * 2 / 20)
    assert two_sided_p(learned, (0.5,)) == pytest.approx(2 * 1 / 20)
    assert two_sided_p(learned, (30.0,)) == pytest.approx(2 * 1 / 20)
    assert two_sided_p(learned, None) == pytest.approx(2 * 1 / 20)


def test_a_missing_component_lies_below_all_values():
    learned = learn_rule(LEVEL, values([None, *range(1, 19)]), SharedRates(2, 0.3))
    assert learned.limits == ((1.0, 17.0),) and learned.missing == 1
    assert two_sided_p(learned, None) == pytest.approx(2 * 2 / 20)
    with pytest.raises(CalibrationError, match="not found with confidence in 2 of 19 good images"):
        learn_rule(LEVEL, values([None, None, *range(1, 18)]), SharedRates(2, 0.3))


def test_several_limits_share_what_is_allowed():
    rules = [LEVEL, PLACE, parse_rule("exactly 2 screws")]
    assert limits_of(rules) == 6
    shared = SharedRates(6, 0.14)
    assert shared.of_score({"false_alarms": 0.14, "confidence": None}) == {
        **{"false_alarms": pytest.approx(0.02), "confidence": None}
    }
    assert shared.of_limit(60) == pytest.approx(0.02)
    assert shared.together(60) == pytest.approx(0.12)
    with pytest.raises(CalibrationError, match=r"6 limits of rules.*0\.2258.*at least 49"):
        shared.of_limit(30)
    usual = SharedRates(2)
    assert usual.of_limit(30) == pytest.approx(smallest_rate(30))
    assert usual.of_limit(1000) == pytest.approx(0.01)
    assert SharedRates(0, 0.05, 0.9).of_score({"false_alarms": 0.05}) == {"false_alarms": 0.05}
    sure = SharedRates(4, 0.2, 0.9)
    assert sure.own_confidence == pytest.approx(0.98)
    assert sure.together(400) <= 0.2 * 4 / 5


def test_a_position_has_four_limits():
    rng = np.random.default_rng(0)
    found = [tuple(one) for one in rng.uniform(0.4, 0.6, (50, 2)).tolist()]
    learned = learn_rule(PLACE, found, SharedRates(4, 0.1))
    assert len(learned.limits) == 2
    low, high = learned.limits[1]
    assert low == min(y for _, y in found) and high == max(y for _, y in found)
    assert two_sided_p(learned, (0.5, 0.9)) == pytest.approx(2 * 2 / 51)


def test_the_score_and_all_rules_together_keep_the_rate():
    """Of drawn calibrations, as many further good parts as promised are beyond any limit."""
    rng = np.random.default_rng(5)
    n, rate, runs, alarms = 59, 0.25, 4000, 0
    shared = SharedRates(4, rate)
    for _ in range(runs):
        common = rng.normal(size=n + 1)  # values that hang together
        a, b = common + rng.normal(size=n + 1), np.round(2 * common)  # and one with ties
        score = common - rng.normal(size=n + 1)
        limits = [
            learn_rule(LEVEL, values(one[:n]), shared).limits[0] for one in (a.tolist(), b.tolist())
        ]
        k = int(shared.own_rate * (n + 1))
        broken = [
            not low <= new <= high for (low, high), new in zip(limits, (a[n], b[n]), strict=True)
        ]
        alarms += any([*broken, score[n] > np.sort(score[:n])[-k]])
    assert alarms / runs <= rate + 3 * np.sqrt(rate * (1 - rate) / runs)


@given(st.lists(st.integers(-5, 5), min_size=9, max_size=30), st.integers(-7, 7))
def test_a_value_beyond_the_limits_has_a_small_p(found, new):
    learned = learn_rule(LEVEL, values(found), SharedRates(1, 0.25))  # each 1/8
    low, high = learned.limits[0]
    p = two_sided_p(learned, (float(new),))
    assert (low <= new <= high) == (p > 2 * 0.125)

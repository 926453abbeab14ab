import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zerodefect.inspection.calibration import calibrate
from zerodefect.inspection.conformal import (
    CalibrationError,
    PolicyError,
    conformal_limit,
    needed_images,
    smallest_rate,
)
from zerodefect.inspection.explain import explain
from zerodefect.inspection.policy import Limits, Policy, PolicyMismatch

WHO = {"method": "winclip", "fingerprint": "abc", "object": "screw"}

finite = st.floats(-1e6, 1e6)
# Few values, so that ties are the rule.
tied = st.integers(0, 3).map(float)
score_lists = st.lists(finite | tied, min_size=1, max_size=130)
rates = st.floats(0.001, 0.999)


def learn(scores, map_maxima=None, **options):
    return calibrate(scores, scores if map_maxima is None else map_maxima, **WHO, **options)


# The rule


@given(score_lists, rates, finite | tied)
def test_defect_exactly_when_the_p_value_is_within_the_rate(scores, rate, score):
    if math.floor(rate * (len(scores) + 1)) < 1:
        return
    policy = learn(scores, false_alarms=rate, review_rate=rate)
    for s in [score, *scores, *np.nextafter(scores, np.inf).tolist()]:
        p = policy.p_value(s)
        assert 0 < p <= 1
        assert p == (1 + sum(x >= s for x in scores)) / (len(scores) + 1)
        assert (policy.verdict(s) == "defect") == (p <= rate + 1e-12)


@given(score_lists, rates, rates)
def test_limit_falls_when_the_rate_rises(scores, one, other):
    low, high = sorted((one, other))
    at_low, at_high = conformal_limit(scores, low), conformal_limit(scores, high)
    if at_low is not None:
        assert at_high is not None and at_high <= at_low


@given(score_lists, finite, finite)
def test_p_value_falls_when_the_score_rises(scores, one, other):
    policy = learn(scores)
    assert policy.p_value(min(one, other)) >= policy.p_value(max(one, other))


@given(st.integers(1, 10_000))
def test_rate_and_number_of_images_belong_together(n):
    rate = smallest_rate(n)
    assert needed_images(rate) == n
    assert conformal_limit([0.0] * n, rate) == 0.0
    assert n == 1 or conformal_limit([0.0] * (n - 1), rate) is None


@pytest.mark.parametrize(
    ("rate", "n", "from_above"),
    [(0.01, 99, 1), (0.29, 99, 29), (0.07, 99, 7), (0.02, 120, 2), (0.1, 9, 1), (0.5, 1, 1)],
)
def test_rounding_of_rate_times_images_costs_no_rank(rate, n, from_above):
    assert conformal_limit(list(range(n)), rate) == n - from_above


# The guarantee: the empirical false-alarm rate over many draws of good images


def binomial_margin(rate, draws):
    return 4 * math.sqrt(rate * (1 - rate) / draws)


@pytest.mark.parametrize("n", [5, 20, 99, 120])
@pytest.mark.parametrize("ties", [False, True])
def test_split_false_alarm_rate_is_kept(n, ties):
    rng = np.random.default_rng(n)
    draws = 4000
    alarms = dict.fromkeys([smallest_rate(n), 0.2, 0.25, 0.37], 0)
    for _ in range(draws):
        scores = rng.poisson(2.0, n + 1) if ties else rng.lognormal(size=n + 1)
        for rate in alarms:
            # The new image is as good as any of the others.
            alarms[rate] += scores[-1] > conformal_limit(scores[:-1].tolist(), rate)
    for rate, count in alarms.items():
        assert count / draws <= rate + binomial_margin(rate, draws)
        if not ties:  # without ties the rate is used up: exactly floor(rate (n+1)) / (n+1)
            exact = math.floor(rate * (n + 1) + 1e-9) / (n + 1)
            assert abs(count / draws - exact) <= binomial_margin(exact, draws)


def test_a_limit_at_the_plain_quantile_would_not_keep_the_rate():
    """The test above can fail: without the + 1 of the rank the same count exceeds the rate."""
    rng = np.random.default_rng(0)
    n, rate, draws = 5, 0.2, 4000
    alarms = 0
    for _ in range(draws):
        scores = rng.lognormal(size=n + 1)
        alarms += scores[-1] > np.quantile(scores[:-1], 1 - rate)
    assert alarms / draws > rate + binomial_margin(rate, draws)


@pytest.mark.parametrize("n", [2, 5, 20])
def test_leave_one_out_false_alarm_rate_is_kept_for_nearest_neighbours(n):
    rng = np.random.default_rng(n)
    draws = 3000
    alarms = dict.fromkeys([smallest_rate(n), 0.34, 0.5], 0)
    for _ in range(draws):
        points = rng.normal(size=n + 1)
        distance = np.abs(points[:, None] - points[None, :]) + np.diag(np.full(n + 1, np.inf))
        left_out = distance[:-1, :-1].min(axis=1).tolist()
        new = distance[-1, :-1].min()
        for rate in alarms:
            limit = conformal_limit(left_out, rate)
            alarms[rate] += limit is not None and new > limit
    for rate, count in alarms.items():
        assert count / draws <= rate + binomial_margin(rate, draws)


# On average, and with confidence


def test_the_confident_rate_by_hand():
    """One rank of n: the rate is below 1 - 0.1 ** (1 / n) in 90 % of calibrations."""
    policy = learn(list(range(40)))
    assert policy.false_alarms == pytest.approx(1 / 41)
    assert (
        policy.confident_rate
        == pytest.approx(1 - 0.1 ** (1 / 40))
        == pytest.approx(0.0559, abs=1e-4)
    )
    assert policy.notes[0] == (
        "Limits learned from 40 good images. On average over calibrations at most 2.44 % of good "
        "images like these are called defective; with 90 % confidence at most 5.59 % by these "
        "limits."
    )
    # 40 images at 10 %: the fourth largest, Beta(4, 37)
    assert learn(list(range(40)), false_alarms=0.1).confident_rate == pytest.approx(
        0.1594, abs=1e-4
    )


def test_a_limit_with_confidence_by_hand():
    asked = {"false_alarms": 0.1, "confidence": 0.95}
    assert [needed_images(0.1, 0.95), needed_images(0.01, 0.95)] == [29, 299]
    assert smallest_rate(29, 0.95) == pytest.approx(1 - 0.05 ** (1 / 29))
    with pytest.raises(
        CalibrationError,
        match=r"0\.1 cannot be guaranteed with 95 % confidence with 28 good.*at least 29",
    ):
        learn(list(range(28)), **asked)
    policy = learn(list(range(29)), **asked)
    assert policy.limits.defect == 28 and policy.confidence == 0.95
    assert policy.false_alarms == pytest.approx(1 / 30) and policy.confident_rate <= 0.1
    assert "With 95 % confidence at most 9.81 %" in policy.notes[0]
    assert "on average over calibrations at most 3.33 %" in policy.notes[0]
    by_default = learn(list(range(50)), confidence=0.95)
    assert by_default.confident_rate == pytest.approx(smallest_rate(50, 0.95))


@pytest.mark.parametrize("confidence", [0.0, 1.0, -1.0, math.nan])
def test_a_confidence_is_a_share(confidence):
    with pytest.raises(CalibrationError, match="confidence must lie between 0 and 1"):
        learn([0.5] * 40, confidence=confidence)


def test_no_confidence_is_claimed_where_none_is_proven():
    with pytest.raises(CalibrationError, match="not proven where good images are references"):
        learn([0.5] * 40, form="leave-one-out", confidence=0.9)
    policy = learn(list(range(40)), form="leave-one-out", monotone=True)
    assert policy.guaranteed and policy.confident_rate is None
    assert "n average" in policy.notes[0] and "confidence" not in policy.notes[0]
    by_hand = learn(list(range(40))).with_threshold("7")
    assert by_hand.confident_rate is None
    assert learn(list(range(40))).with_threshold("rate:0.1").confident_rate > 0.1


def exceeded(n, draws, **asked):
    """Share of calibrations whose limit is exceeded by more good scores than promised; the mean."""
    rng = np.random.default_rng(n)
    rates, promised = [], []
    for _ in range(draws):
        policy = learn(rng.uniform(size=n).tolist(), **asked)
        rates.append(1 - policy.limits.defect)  # of uniform scores
        promised.append(policy.confident_rate)
    return np.mean(np.array(rates) > np.array(promised)), np.mean(rates), np.array(rates)


@pytest.mark.slow
@pytest.mark.parametrize("n", [29, 40, 150])
def test_rates_by_simulation(n):
    draws = 2000
    above, mean, rates = exceeded(n, draws, false_alarms=0.1)
    exact = math.floor(0.1 * (n + 1)) / (n + 1)
    assert mean == pytest.approx(exact, abs=0.004) and mean <= 0.1 + 0.004
    assert 0.3 < np.mean(rates > 0.1) < 0.6  # on average is not every time
    assert above == pytest.approx(0.1, abs=binomial_margin(0.1, draws))
    above, mean, rates = exceeded(n, draws, false_alarms=0.1, confidence=0.95)
    assert np.mean(rates > 0.1) <= 0.05 + binomial_margin(0.05, draws)
    assert above == pytest.approx(0.05, abs=binomial_margin(0.05, draws)) and mean < 0.1


# Calibration


def test_defaults_grow_to_what_few_images_can_prove():
    policy = learn([0.1, 0.2, 0.3])
    assert policy.false_alarms == policy.review_rate == 0.25
    assert policy.limits.defect == policy.limits.unsure == 0.3
    policy = learn(list(range(150)))
    assert (policy.false_alarms, policy.review_rate) == (0.01, 0.05)
    assert (policy.limits.defect, policy.limits.unsure) == (149, 143)
    assert policy.verdict(149) == "unsure" and policy.verdict(143) == "good"
    assert policy.verdict(149.001) == "defect"
    assert policy.calibrated and policy.guaranteed


@given(st.lists(tied | finite, min_size=1, max_size=40))
def test_region_limit_sits_in_the_middle_of_the_colours(maxima):
    policy = learn([0.0] * len(maxima), maxima)
    low, high = policy.colour_range
    assert low < high
    # the ends may be far larger than the limit between them
    assert (low + high) / 2 == pytest.approx(policy.region_limit, abs=1e-9 * (high - low))
    above = sum(m > policy.region_limit for m in maxima)
    assert above <= policy.review_rate * (len(maxima) + 1)


def test_a_rate_that_cannot_be_proven_says_what_can():
    with pytest.raises(CalibrationError, match=r"10 good images.*0\.09091.*at least 99 good"):
        learn([0.5] * 10, false_alarms=0.01)
    with pytest.raises(CalibrationError, match=r"review rate of 0\.05.*at least 19"):
        learn([0.5] * 10, false_alarms=0.1, review_rate=0.05)
    with pytest.raises(CalibrationError, match="lies below"):
        learn([0.5] * 99, false_alarms=0.1, review_rate=0.05)


@pytest.mark.parametrize(
    ("scores", "maxima", "word"),
    [
        ([], [], "no good image"),
        ([math.nan], [0.0], "NaN"),
        ([0.0], [math.inf], "infinity"),
        ([0.0, 1.0], [0.0], "2 scores but 1"),
    ],
)
def test_scores_that_teach_nothing_are_refused(scores, maxima, word):
    with pytest.raises(CalibrationError, match=word):
        learn(scores, maxima)


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1, 2.0, math.nan])
def test_a_rate_is_a_share(rate):
    with pytest.raises(CalibrationError, match="between 0 and 1"):
        learn([0.5] * 10, false_alarms=rate)


def test_only_proven_rates_are_called_guaranteed():
    scores = [0.1, 0.2, 0.3]
    assert learn(scores, form="leave-one-out", monotone=True).guaranteed
    policy = learn(scores, form="leave-one-out")
    assert not policy.guaranteed
    assert "not guaranteed" in policy.notes[-1]


def test_the_policy_does_not_depend_on_the_order_of_the_images():
    fixed = {"false_alarms": 0.3, "review_rate": 0.4}
    one, other = learn([3.0, 1.0, 2.0], **fixed), learn([1.0, 2.0, 3.0], **fixed)
    assert one.model_copy(update={"created": other.created}) == other


# Without calibration


def provisional(neutral):
    return Policy.provisional(**WHO, neutral=neutral, map_range=(0.0, 1.0), region_limit=0.5)


def test_provisional_verdicts_follow_the_neutral_score():
    policy = provisional(0.5)
    assert [policy.verdict(s) for s in (0.4, 0.5, 0.6)] == ["good", "good", "defect"]
    assert not policy.calibrated and not policy.guaranteed
    assert policy.p_value(0.6) is None and policy.region_p_value(0.6) is None


def test_without_a_neutral_score_everything_is_unsure():
    assert {provisional(None).verdict(s) for s in (-1e9, 0.0, 1e9)} == {"unsure"}


def test_a_score_that_is_no_number_gets_no_verdict():
    for policy in (provisional(0.5), learn([0.5])):
        with pytest.raises(ValueError, match="NaN"):
            policy.verdict(math.nan)


# Methods without maps


def test_scores_alone_are_enough():
    policy = calibrate([0.1, 0.2, 0.3], **WHO)
    with_maps = learn([0.1, 0.2, 0.3])
    assert policy.map_maxima == () and policy.region_limit is policy.colour_range is None
    assert policy.region_p_value(0.2) is None
    assert (policy.limits, policy.notes) == (with_maps.limits, with_maps.notes)
    assert policy.p_value(0.2) == with_maps.p_value(0.2)
    assert policy.with_threshold("q:0.5").limits.defect == 0.2


def test_a_policy_without_maps_is_kept(tmp_path):
    policy = calibrate([0.1, 0.2, 0.3], **WHO)
    policy.save(tmp_path / "p.json")
    assert Policy.load(tmp_path / "p.json") == policy
    stored = json.loads((tmp_path / "p.json").read_text())
    assert stored["version"] == 1 and stored["region_limit"] is None
    (tmp_path / "p.json").write_text(json.dumps({**stored, "limits": {"unsure": 0, "defect": 0}}))
    assert not Policy.load(tmp_path / "p.json").guaranteed


def test_a_provisional_policy_without_maps():
    policy = Policy.provisional(**WHO, neutral=0.5, map_range=None, region_limit=None)
    assert policy.verdict(0.6) == "defect" and policy.region_limit is policy.colour_range is None
    assert "region" not in explain("defect", 0.6, policy, (), (10, 10))


def test_without_maps_nothing_is_said_of_places():
    text = explain("defect", 0.9, calibrate([0.1, 0.2], **WHO), (), (10, 10))
    assert "none of 2 good images scored as high" in text
    assert "region" not in text
    assert "No single region stands out." in explain("good", 0.1, learn([0.1]), (), (10, 10))


# Thresholds at run time


@pytest.mark.parametrize(
    ("text", "limit", "rate"),
    [
        ("12.5", 12.5, None),
        ("rate:0.02", 98.0, 0.02),
        ("q:1", 99.0, 1 / 101),
        ("q:0.9", 90.0, 10 / 101),
        ("x1.05", 99 * 1.05, 0.01),
        ("105%", 99 * 1.05, 0.01),
        (" 50% ", 49.5, None),
        ("1e3", 1000.0, None),
    ],
)
def test_threshold_forms(text, limit, rate):
    policy = learn([float(i) for i in range(100)])
    changed = policy.with_threshold(text)
    assert changed.limits.defect == pytest.approx(limit)
    assert changed.limits.unsure <= changed.limits.defect
    assert changed.false_alarms == pytest.approx(rate) if rate else changed.false_alarms is None
    assert repr(text.strip()) in changed.notes[-1]
    assert changed.p_value(50.0) == policy.p_value(50.0)
    # The result is a policy like any other.
    assert Policy.model_validate(changed.model_dump()) == changed


@given(st.lists(finite, min_size=2, max_size=60), rates)
@settings(max_examples=50)
def test_a_threshold_by_rate_is_the_limit_calibrated_at_that_rate(scores, rate):
    if rate * (len(scores) + 1) < 1:
        return
    direct = learn(scores, false_alarms=rate, review_rate=max(rate, 0.9))
    assert learn(scores).with_threshold(f"rate:{rate!r}").limits.defect == direct.limits.defect


@pytest.mark.parametrize("text", ["", "abc", "rate:", "x", "%", "nan", "inf", "q:2", "x-1", "0%"])
def test_thresholds_that_mean_nothing_are_refused(text):
    with pytest.raises(PolicyError, match="threshold"):
        learn([0.5, 0.6]).with_threshold(text)


def test_thresholds_that_need_good_images_say_so():
    with pytest.raises(PolicyError, match="zerodefect calibrate"):
        provisional(0.5).with_threshold("rate:0.1")
    with pytest.raises(CalibrationError, match="at least 99"):
        learn([0.5] * 3).with_threshold("rate:0.01")
    with pytest.raises(PolicyError, match="has no meaning"):
        learn([-0.5] * 3).with_threshold("x1.1")


@pytest.mark.parametrize("neutral", [0.5, None])
def test_an_uncalibrated_run_takes_a_raw_threshold(neutral):
    policy = provisional(neutral).with_threshold("0.8")
    assert [policy.verdict(s) for s in (0.7, 0.9)] == ["good", "defect"]
    assert not policy.calibrated


# The file


@given(score_lists)
@settings(max_examples=40, deadline=None)
def test_file_round_trip(tmp_path_factory, scores):
    path = tmp_path_factory.mktemp("policy") / "policy.json"
    policy = learn(scores)
    policy.save(path)
    assert Policy.load(path) == policy


# As the first version wrote it.
OLD = """{
  "format": "zerodefect-policy", "version": 1, "method": "winclip", "fingerprint": "abc",
  "object": "screw", "form": "split", "guaranteed": true, "false_alarms": 0.25,
  "review_rate": 0.25, "scores": [0.31, 0.35, 0.42], "map_maxima": [0.5, 0.6, 0.75],
  "limits": {"unsure": 0.42, "defect": 0.42}, "region_limit": 0.75, "colour_range": [0.6, 0.9],
  "created": "2025-03-04T05:06:07+00:00", "zerodefect": "0.1.0",
  "notes": ["Limits learned from 3 good images. At most 25 % of good images like these are \
called defective."]
}"""


def test_a_file_of_the_first_version_loads_unchanged(tmp_path):
    path = tmp_path / "policy.json"
    path.write_text(OLD)
    policy = Policy.load(path)
    # a file that names no bit depth comes from a version that read 16 bits as they were
    assert policy.model_dump(mode="json") == {**json.loads(OLD), "bit_depth": 16}
    policy.check(**WHO)
    assert (policy.verdict(0.42), policy.verdict(0.43)) == ("good", "defect")
    assert (policy.p_value(0.35), policy.region_p_value(0.8)) == (0.75, 0.25)


def test_limits_edited_by_hand_count(tmp_path):
    path = tmp_path / "policy.json"
    learn([0.1, 0.2, 0.3]).save(path)
    data = json.loads(path.read_text())
    data["limits"] = {"unsure": 0.5, "defect": 0.9}
    path.write_text("\ufeff" + json.dumps(data), encoding="utf-8")
    policy = Policy.load(path)
    assert [policy.verdict(s) for s in (0.4, 0.6, 0.95)] == ["good", "unsure", "defect"]
    assert policy.p_value(0.6) == 0.25
    assert policy.guaranteed and policy.false_alarms == 0.25  # higher limits keep the rate


def test_a_limit_lowered_by_hand_loses_its_guarantee(tmp_path):
    path = tmp_path / "policy.json"
    learn([0.1, 0.2, 0.3]).save(path)
    data = json.loads(path.read_text())
    data["limits"] = {"unsure": 0.1, "defect": 0.2}
    path.write_text(json.dumps(data))
    policy = Policy.load(path)
    assert policy.verdict(0.25) == "defect"
    assert not policy.guaranteed
    assert policy.false_alarms is None and policy.review_rate is None
    assert "by hand" in policy.notes[-1]


def damage(**changes):
    return lambda text: json.dumps({**json.loads(text), **changes})


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda text: text[: len(text) // 2], "cut off"),
        (lambda text: "", "not valid JSON"),
        (lambda text: "[1, 2]", "not a ZeroDefect policy"),
        (damage(format="other"), "not a ZeroDefect policy"),
        (damage(version=2), "version 2.*Update ZeroDefect"),
        (damage(limits={"unsure": 2.0, "defect": 1.0}), "limits.unsure .2.0. lies above"),
        (damage(limits={"unsure": 0.1}), "limits.defect"),
        (damage(region_limit=math.nan), "NaN"),
        (damage(colour_range=[1.0, 1.0]), "does not rise"),
        (damage(scores=[]), "needs scores"),
        (damage(false_alarms=1.5), "false_alarms"),
        (damage(colour="red"), "colour"),
        (lambda text: '{"a":' * 100_000, "not valid JSON"),
    ],
)
def test_a_damaged_file_names_file_reason_and_remedy(tmp_path, spoil, reason):
    path = tmp_path / "policy.json"
    learn([0.1, 0.2, 0.3]).save(path)
    path.write_text(spoil(path.read_text()))
    with pytest.raises(PolicyError, match=f"(?s)policy.json: .*{reason}") as caught:
        Policy.load(path)
    assert "calibrate" in str(caught.value)


def test_a_missing_file_says_so(tmp_path):
    with pytest.raises(PolicyError, match="cannot be read"):
        Policy.load(tmp_path / "none.json")


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "policy.json"
    policy = learn([0.1])
    policy.save(path)
    before = path.read_bytes()

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("zerodefect.files.os.fsync", full)
    with pytest.raises(RuntimeError, match="No space left"):
        learn([0.2]).save(path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["policy.json"]


def test_a_policy_is_for_one_detector_and_product():
    policy = learn([0.1])
    policy.check(**WHO)
    with pytest.raises(PolicyMismatch, match=r"object: 'screw' when calibrated, 'nut' now"):
        policy.check("winclip", "abc", "nut")
    with pytest.raises(PolicyMismatch, match=r"method: .*object: .*detectors .*calibrate"):
        policy.check("other", "xyz", None)
    with pytest.raises(
        PolicyMismatch, match=r"detector .weights, .*: 'abc' when calibrated, 'xyz'"
    ):
        policy.check("winclip", "xyz", "screw")
    left_out = learn([0.1] * 7, form="leave-one-out")  # as former files: nothing more is known
    with pytest.raises(PolicyMismatch, match="made with 7 references: add --reference"):
        left_out.check("winclip", "xyz", "screw", {"references": 0})


def test_colours_stay_inside_what_a_map_can_be():
    facts = {"method": "m", "fingerprint": "f", "object": None}
    maxima = [0.6, 0.7, 0.8, 0.9, 0.95]
    free = calibrate(maxima, maxima, **facts)
    assert free.colour_range[1] > 1
    bounded = calibrate(maxima, maxima, map_range=(0.0, 1.0), **facts)
    assert bounded.colour_range == (free.colour_range[0], 1.0)
    saturated = calibrate(maxima, [1.0] * 5, map_range=(0.0, 1.0), **facts)
    assert saturated.colour_range[0] < saturated.colour_range[1]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"map_maxima": [0.5]}, "come in pairs"),
        ({"map_maxima": []}, "come together"),
        ({"region_limit": None}, "come together"),
        ({"colour_range": None}, "come together"),
        ({"map_maxima": [], "region_limit": None}, "come together"),
        ({"form": "none"}, "proves nothing"),
        ({"limits": {"unsure": True, "defect": True}}, "limits.unsure"),
        ({"limits": {"unsure": "0.5", "defect": "0.6"}}, "limits.unsure"),
    ],
    ids=str,
)
def test_contents_that_contradict_each_other_are_refused(tmp_path, change, reason):
    learn([0.1, 0.2, 0.3], [0.1, 0.2, 0.3]).save(tmp_path / "p.json")
    stored = json.loads((tmp_path / "p.json").read_text())
    (tmp_path / "p.json").write_text(json.dumps({**stored, **change}))
    with pytest.raises(PolicyError, match=reason):
        Policy.load(tmp_path / "p.json")


def test_a_promise_that_no_longer_holds_is_not_repeated(tmp_path):
    policy = learn([0.1, 0.2, 0.3], [0.1, 0.2, 0.3])
    assert any("at most" in note for note in policy.notes)
    assert not any("at most" in note for note in policy.with_threshold("0.05").notes)
    policy.save(tmp_path / "p.json")
    stored = json.loads((tmp_path / "p.json").read_text())
    stored["limits"] = {"unsure": 0.01, "defect": 0.05}
    (tmp_path / "p.json").write_text(json.dumps(stored))
    edited = Policy.load(tmp_path / "p.json")
    assert not edited.guaranteed
    assert not any("at most" in note for note in edited.notes)
    assert edited.notes[0].startswith("Limits learned from 3 good images")


def test_an_edited_region_limit_is_said(tmp_path):
    learn([0.1, 0.2, 0.3], [0.1, 0.2, 0.3]).save(tmp_path / "p.json")
    stored = json.loads((tmp_path / "p.json").read_text())
    (tmp_path / "p.json").write_text(json.dumps({**stored, "region_limit": -5.0}))
    assert "region limit was edited" in Policy.load(tmp_path / "p.json").notes[-1]


def test_explanations_agree_with_verdicts():
    policy = learn([0.1, 0.2, 0.3], [0.1, 0.2, 0.3])
    without = policy.model_copy(update={"limits": Limits(unsure=None, defect=None)})
    assert without.verdict(0.2) == "unsure"
    text = explain("unsure", 0.2, without, (), (10, 10))
    assert "cannot be judged" in text
    assert "within what good parts show" not in text
    assert "within what good parts show" in explain("good", 0.1, policy, (), (10, 10))

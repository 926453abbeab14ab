"""IAD-R1's rewards: what they ask for, and any text at all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zerodefect.training.defect_types import type_score
from zerodefect.training.reasoning_rewards import (
    accuracy_reward,
    consistency_reward,
    location_reward,
    rewards,
    solution_of,
)

TRUTH = solution_of(True, "upper left", "scratch")
BEST = f"<think>a line</think>{TRUTH}"


def test_the_truth_itself_has_the_highest_reward():
    assert rewards([BEST], [TRUTH]) == [3.0]
    assert rewards(["<think>fine</think><answer>No</answer>"], [solution_of(False)]) == [2.0]


def test_what_is_not_known_of_a_defect_is_not_asked_for():
    truth = solution_of(True)
    assert truth == "<answer>Yes</answer>"
    assert accuracy_reward(BEST, truth) == 1.0 and consistency_reward(BEST, truth) == 1.0


def test_tags_of_a_good_part_are_wrong():
    said = "<think>x</think><location>top</location><answer>No</answer>"
    assert consistency_reward(said, solution_of(False)) == 0.0
    assert accuracy_reward(said, solution_of(False)) == 1.0


@pytest.mark.parametrize("solution", ["", "maybe", "<answer></answer>", "<answer>Ja</answer>"])
def test_a_solution_that_is_none_is_refused(solution):
    for reward in (accuracy_reward, consistency_reward):
        with pytest.raises(ValueError, match="write <answer>Yes</answer>"):
            reward(BEST, solution)


words = st.sampled_from(
    ["scratch", "hole", "stain", "wear", "surface anomaly", "structural anomalies", "crack", "top"]
)
text = st.text(max_size=30) | st.lists(words, max_size=3).map(" ".join)


@given(text, text)
def test_a_type_is_scored_from_0_to_1_and_itself_with_1(one, other):
    assert 0 <= type_score(one, other) <= 1
    assert type_score(one, one) == (1.0 if one else 0.0)


@given(text)
def test_a_location_is_its_own(one):
    assert location_reward(one, one) == 1.0


@given(st.text(alphabet="<>/thinkaswerlocotypyesNo. \n", max_size=80), st.booleans())
def test_any_completion_has_a_reward(completion, defective):
    solution = TRUTH if defective else solution_of(False)
    (reward,) = rewards([completion], [solution])
    assert 0 <= reward <= 3

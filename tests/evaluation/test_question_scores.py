"""Scores of answers to questions, against values by hand."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zerodefect.evaluation.question_scores import (
    AVERAGE,
    DETECTION,
    KINDS,
    MISS,
    OVERKILL,
    Answered,
    option_share,
    score_answers,
)

GOOD, BAD = "V/c/good/0.png", "V/c/crack/0.png"


def detections(*rows):
    return [Answered(image, DETECTION, true, given) for image, true, given in rows]


def test_detection_is_balanced_and_defects_are_positive():
    answers = detections(
        *[(GOOD, "B", "B")] * 7, (GOOD, "B", "A"), (BAD, "A", "A"), (BAD, "A", "B")
    )
    scores = score_answers(answers)
    row = scores.table()["V"]
    assert row[DETECTION] == pytest.approx((87.5 + 50) / 2)
    assert (row[OVERKILL], row[MISS]) == (12.5, 50)
    found = scores.defects_found()["V"]
    assert found["recall"] == 50 and found["precision"] == 50 and found["f1"] == 50


def test_official_counting_leaves_out_the_question_behind_an_invalid_answer():
    answers = detections(
        (GOOD, "B", ""), (GOOD, "B", "A"), (GOOD, "B", "B"), (BAD, "A", "A"), (BAD, "F", "A")
    )
    official, every = score_answers(answers), score_answers(answers, official=False)
    assert official.counts["V", DETECTION] == [2, 2]
    assert (official.invalid, official.skipped) == (2, 3)
    assert every.counts["V", DETECTION] == [4, 2]  # the last one has no true answer
    assert (every.invalid, every.skipped) == (2, 1)


def test_rows_are_averaged_over_the_kinds_that_were_asked():
    answers = [
        Answered("V/c/crack/0.png", "Object Structure", "A", "A"),
        Answered("V/c/crack/0.png", "Object Details", "A", "B"),
        Answered("W/c/crack/0.png", "Defect Analysis", "A", "A"),
    ]
    table = score_answers(answers).table()
    assert table["V"]["Object Analysis"] == table["V"][AVERAGE] == 50
    assert math.isnan(table["V"]["Defect Analysis"]) and table["W"][AVERAGE] == 100
    assert table[AVERAGE]["Defect Analysis"] == 100 and table[AVERAGE][AVERAGE] == 75


def test_without_good_parts_official_counting_takes_nothing_for_them():
    answers = detections((BAD, "A", "A"))
    assert score_answers(answers).table()["V"][DETECTION] == 50
    assert score_answers(answers, official=False).table()["V"][DETECTION] == 100


def test_no_answers_at_all():
    scores = score_answers([])
    assert scores.table() == {} and scores.defects_found() == {} and option_share([]) == {}


letters = st.sampled_from(["A", "B", "C", "D", "E", "F", "", "AB"])
answer = st.builds(
    Answered,
    st.sampled_from([GOOD, BAD, "W/c/good/1.png", "W"]),
    st.sampled_from([*KINDS, "Object Details", "other"]),
    letters,
    letters,
)


@given(st.lists(answer, max_size=30))
def test_counts_add_up_and_percentages_are_percentages(answers):
    for official in (True, False):
        scores = score_answers(answers, official=official)
        assert sum(total for total, _ in scores.counts.values()) == len(answers) - scores.skipped
        for row in [*scores.table().values(), *scores.defects_found().values()]:
            assert all(math.isnan(value) or 0 <= value <= 100 for value in row.values())
    if all(one.valid for one in answers):
        counted = [score_answers(answers, official=one).counts for one in (True, False)]
        assert counted[0] == counted[1]
    assert sum(option_share(answers).values()) == pytest.approx(1 if answers else 0)

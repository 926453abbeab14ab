"""MMAD's scoring, parsing and rendering against the official ones."""

from __future__ import annotations

import json

import numpy as np
import pytest
from cases import Case, find

from zerodefect.data.question_file import read_questions
from zerodefect.evaluation.question_scores import Answered, score_answers
from zerodefect.prompts.chosen_options import letters_in
from zerodefect.prompts.question_prompts import question_text

pytestmark = pytest.mark.parity


@pytest.fixture(scope="module", params=find("mmad"))
def case(request) -> Case:
    return Case(request.param)


def test_table_and_counts(case):
    answers = [Answered(*entry) for entry in case.meta["answers"]]
    scores = score_answers(answers)
    table = scores.table()
    assert set(table) == set(case.meta["table_rows"])
    columns = case.meta["table_columns"]
    assert set(table["Average"]) == set(columns)
    got = [[table[row][column] for column in columns] for row in case.meta["table_rows"]]
    np.testing.assert_allclose(got, case.arrays["out/accuracy_table"], atol=1e-9, rtol=0)
    counts = [scores.counts[tuple(row)] for row in case.meta["count_rows"]]
    np.testing.assert_array_equal(counts, case.arrays["out/counts"])
    assert len(scores.counts) == len(case.meta["count_rows"])


def test_replies(case):
    for (reply, options), expected in zip(case.meta["responses"], case.meta["parsed"], strict=True):
        assert letters_in(reply, options) == expected, reply


def test_a_rendered_conversation(case, tmp_path):
    """Through the file that a user has."""
    content = {"DS-MVTec/bottle/test/good/0.png": case.meta["conversation"]}
    (tmp_path / "mmad.json").write_text(json.dumps(content), "utf-8")
    (picture,) = read_questions(tmp_path).pictures
    rendered = [
        question_text(number, question.text, question.options)
        for number, question in enumerate(picture.questions, start=1)
    ]
    assert rendered == case.meta["rendered"]
    assert [question.answer for question in picture.questions] == case.meta["answer_keys"]

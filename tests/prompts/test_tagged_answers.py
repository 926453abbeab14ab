"""Answers in tags and in words: what is read of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zerodefect.prompts.chosen_options import chosen_letter, letters_in, option_in_tags
from zerodefect.prompts.tagged_answers import answer_begun, read_tags, training_prompt

WHOLE = (
    "<think>A bright line.</think><location>top left</location><type>scratch</type>"
    "<answer>Yes</answer>"
)


def test_a_whole_answer():
    read = read_tags(WHOLE)
    assert (read.answer, read.location, read.type) == ("Yes", "top left", "scratch")
    assert read.reasoning == "A bright line." and read.raw == WHOLE and read.defective is True
    assert read.sentence == "Yes: scratch, top left. A bright line."


@pytest.mark.parametrize(
    ("text", "answer", "type", "defective"),
    [
        ("<think>fine</think><answer>No</answer>", "No", None, False),
        ("<THINK>x</THINK><Answer> no. </Answer>", "no.", None, False),
        ("<think>x<type>hole</type><answer>Yes", "Yes", "hole", True),  # cut off, left open
        ("<answer>Yes</answer><answer>No</answer>", "Yes", None, True),
        ("<answer></answer>yes", None, None, True),
        ("<answer>maybe</answer>", "maybe", None, None),
        ("Yes, there is a hole.", None, None, True),
        ("**No** defects.", None, None, False),
        ("Nothing to see", None, None, None),
        ("<think>long thoughts that were cut o", None, None, None),
        ("", None, None, None),
    ],
)
def test_what_is_missing_is_none(text, answer, type, defective):
    read = read_tags(text)
    assert (read.answer, read.type, read.defective) == (answer, type, defective)
    assert read.raw == text


def test_without_tags_all_of_it_is_reasoning():
    assert read_tags(" It is\nfine. ").reasoning == "It is\nfine."
    assert read_tags("It is\nfine. ").sentence == "It is fine."
    assert read_tags("<think>unsure").sentence == "unsure"


@given(st.text(alphabet="<>/thinkanswer yYesNo.\n", max_size=60) | st.text(max_size=60))
def test_any_text_is_read(text):
    read = read_tags(text)
    assert "\n" not in read.sentence and read.defective in (True, False, None)
    assert answer_begun(text).lower().endswith("<answer>")


def test_an_answer_is_gone_on_from_where_it_says_yes_or_no():
    assert answer_begun(WHOLE) == WHOLE.removesuffix("Yes</answer>")
    assert answer_begun("A scratch.") == "A scratch.<answer>"


OPTIONS = {"A": "Yes.", "B": "No.", "C": "A deep scratch."}


@pytest.mark.parametrize(
    ("reply", "letter"),
    [
        ("<answer>yes</answer>", "A"),
        ("<answer>No.</answer>", "B"),
        ("<answer>scratch</answer>", "C"),  # held by it
        ("<answer>no, not at all</answer>", "B"),  # holds it
        ("<answer>zzz</answer>", "E"),
        ("<answer></answer>", "E"),
        ("<answer>y\nes</answer>", "E"),
        ("yes", "E"),
    ],
)
def test_the_option_that_a_tag_means(reply, letter):
    assert option_in_tags(reply, OPTIONS) == letter


def test_a_letter_in_words_or_in_a_tag():
    assert chosen_letter("I think A, or rather B.", OPTIONS) == "B"
    assert chosen_letter("<think>A line</think><answer>C</answer>", OPTIONS) == "C"
    assert chosen_letter("<think>A line</think><answer>yes</answer>", OPTIONS) == "A"
    assert chosen_letter("a deep scrtch", OPTIONS) == "C"
    assert letters_in("none", None) == ["none"]


@given(st.text(max_size=80))
def test_any_reply_chooses_something(reply):
    assert chosen_letter(reply, OPTIONS) in {"A", "B", "C", "D", "E"}


def test_the_training_prompt():
    alone, compared = training_prompt(), training_prompt(reference=True)
    assert alone.endswith("in the test image.Are there any defects in the query image?")
    assert "The first image is a normal reference image" in compared

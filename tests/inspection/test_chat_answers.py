"""What chat models answer, in form and out of it."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zerodefect.inspection.chat_answers import AnswerError, read_answer
from zerodefect.inspection.explanation import Explanation
from zerodefect.types import printable

SIZE = (200, 400)  # height, width
FULL = {
    "location": "upper left",
    "kind": "scratch",
    "why": "A bright line crosses the thread.",
    "verdict": "defect",
    "box": [100, 250, 500, 750],
}
WANTED = Explanation(
    location="upper left",
    kind="scratch",
    why="A bright line crosses the thread.",
    verdict="defect",
    boxes=((40, 50, 160, 100),),
)
PLAIN = json.dumps(FULL)
WRAPPED = {
    "as asked": PLAIN,
    "over lines": json.dumps(FULL, indent=2),
    "in a fence": f"```json\n{PLAIN}\n```",
    "in a fence of no language": f"```\n{PLAIN}```",
    "within prose": f"Sure! Here it is: {PLAIN} I hope that helps.",
    "after thoughts": f'<think>Perhaps {{"verdict": "good"}}? No {{1}}.</think>\n{PLAIN}',
    "in answer tags": f"<answer>{PLAIN}</answer>",
    "in a list": f"[{PLAIN}]",
    "with other names": json.dumps(
        {
            "Where": "upper left",
            "defect type": "scratch",
            "reason": FULL["why"],
            "Judgement": " DEFECTIVE. ",
            "bbox_2d": [[100, 250, 500, 750]],
            "confidence": 0.9,
        }
    ),
    "with shares": json.dumps({**FULL, "box": [0.1, 0.25, 0.5, 0.75]}),
}


@pytest.mark.parametrize("text", WRAPPED.values(), ids=WRAPPED)
def test_the_form_is_found_wherever_it_stands(text):
    assert read_answer(text, SIZE, None) == WANTED


def test_an_answer_to_a_question_keeps_the_question():
    found = read_answer(json.dumps({"why": "Yes, it is straight."}), SIZE, "is it straight?")
    assert (found.why, found.question) == ("Yes, it is straight.", "is it straight?")
    assert found.verdict is found.location is found.kind is None and found.boxes == ()
    both = json.dumps({"answer": "Yes.", "why": "The cap is level."})
    assert read_answer(both, SIZE, "?").why == "The cap is level."


def test_the_tags_of_reasoning_models():
    text = (
        "<think>There is a\nnotch.</think><location>Top Left</location>"
        "<type>Missing parts</type><answer>Yes.</answer>"
    )
    found = read_answer(text, SIZE, None)
    assert (found.location, found.kind) == ("Top Left", "Missing parts")
    assert (found.why, found.verdict) == ("There is a notch.", "defect")
    assert read_answer("<think>Fine.</think><answer>No</answer>", SIZE, None).verdict == "good"


@pytest.mark.parametrize(
    ("text", "verdict", "why"),
    [
        ("<think>A notch.</think><answer>Yes", "defect", "A notch."),
        ("<think>A notch.<answer>Yes, there is.</answer>", "defect", "A notch."),
        ("<answer>No, all is well.</answer>", "good", "No, all is well."),
        ("<answer>unsure</answer>", "unsure", "unsure"),
    ],
)
def test_tags_are_read_as_the_method_that_asks_for_them_reads_them(text, verdict, why):
    found = read_answer(text, SIZE, None)
    assert (found.verdict, found.why, found.remarks) == (verdict, why, ())


def test_numbers_that_are_none_are_no_words():
    text = '{"location": Infinity, "kind": NaN, "why": "A notch.", "verdict": "defect"}'
    found = read_answer(text, SIZE, None)
    assert (found.location, found.kind, found.why) == (None, None, "A notch.")


def test_prose_answers_a_question_and_explains_nothing():
    found = read_answer("It is  straight.\nQuite.", SIZE, "is it?")
    assert found.why == "It is straight. Quite." and found.verdict is None
    assert found.remarks and "cannot be checked" not in found.why
    assert "nothing of it can be checked" in found.remarks[0]
    with pytest.raises(AnswerError, match="not in the form"):
        read_answer("It is straight.", SIZE, None)


@pytest.mark.parametrize(
    "text",
    [
        PLAIN[:-20],
        f"```json\n{PLAIN[:40]}",
        f"Sure: {PLAIN[:60]}",
        "<think>it goes on and on",
        "{'verdict': 'good', 'why': 'single quotes'",
        "{" * 5000,
        '{"a":' * 3000,
        "",
        "   ",
    ],
)
def test_what_is_cut_off_or_empty_is_no_answer(text):
    for question in (None, "is it?"):
        if question and text.startswith(("{{", '{"a"')):
            continue  # an odd answer, yet one in words
        with pytest.raises(AnswerError):
            read_answer(text, SIZE, question)


@pytest.mark.parametrize("given", [{}, dict.fromkeys(FULL), {"why": "none", "location": "n/a"}])
def test_an_object_that_says_nothing_is_no_answer(given):
    with pytest.raises(AnswerError):
        read_answer(json.dumps(given), SIZE, None)
    with pytest.raises(AnswerError):
        read_answer(json.dumps({**given, "verdict": "good"}), SIZE, "is it?")


@pytest.mark.parametrize(
    ("said", "verdict"),
    [
        *(("good", "good"), ("OK", "good"), ("No defect.", "good"), ("normal", "good")),
        *(("Defect", "defect"), ("anomalous", "defect"), ("unclear", "unsure"), (None, None)),
    ],
)
def test_verdicts_by_other_words(said, verdict):
    found = read_answer(json.dumps({**FULL, "verdict": said}), SIZE, None)
    assert found.verdict == verdict and not found.remarks


@pytest.mark.parametrize("said", ["perhaps", True, 3, ["good"], {"a": 1}, "goodish"])
def test_a_verdict_that_is_none_is_remarked(said):
    found = read_answer(json.dumps({**FULL, "verdict": said}), SIZE, None)
    assert found.verdict is None and "none of good, unsure and defect" in found.remarks[0]


@pytest.mark.parametrize(
    "box",
    [
        *([500, 250, 100, 750], [0, 0, 1500, 10], [-1, 0, 5, 5], [1, 2, 3], [1, 2, 3, "4"]),
        *([1, 2, 3, float("inf")], [1, 2, 3, float("nan")], [1, 2, 3, 10**400], [[1], [2]]),
        *([True, 0, 5, 5], [100, 100, 100, 200], ["a", 3], [[0, 0, 1], 7]),
    ],
)
def test_a_box_that_is_none_in_the_picture_is_remarked(box):
    found = read_answer(json.dumps({**FULL, "box": box}), SIZE, None)
    assert found.boxes == () and "is none in the picture" in found.remarks[0]


@pytest.mark.parametrize("box", [None, [], [0, 0, 0, 0], [[0, 0, 0, 0]], "none", {}])
def test_no_box_is_no_remark(box):
    found = read_answer(json.dumps({**FULL, "box": box}), SIZE, None)
    assert found.boxes == () and not found.remarks


def test_several_boxes():
    boxes = [[0, 0, 10, 10], [990, 990, 1000, 1000]]
    found = read_answer(json.dumps({**FULL, "boxes": boxes, "box": None}), SIZE, None)
    assert found.boxes == ((0, 0, 4, 2), (396, 198, 4, 2))


def test_long_words_are_cut_and_remarked():
    found = read_answer(json.dumps({**FULL, "why": "very " * 5000, "kind": "k" * 101}), SIZE, None)
    assert len(found.why) < 1010 and found.why.endswith("very...")
    assert len(found.kind) == 103 and len(found.remarks) == 2
    long = read_answer("word " * 100_000, SIZE, "is it?")
    assert len(long.why) < 1010 and "shortened to 1000 characters" in long.remarks


def test_nothing_that_acts_on_a_terminal_is_left():
    bad = "\x1b[2J\x1b]0;owned\x07 fine\u202e\r\n\u2028next"
    found = read_answer(json.dumps({**FULL, "why": bad, "kind": bad, "verdict": bad}), SIZE, None)
    for text in (found.why, found.kind, *found.remarks):
        assert printable(text) == text and "\x1b" not in text
    assert read_answer(bad, SIZE, "?").why.startswith("\\u001b[2J")


VALUES = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=True) | st.integers() | st.text(max_size=30),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
NAMES = st.sampled_from(["location", "kind", "why", "verdict", "box", "boxes", "answer", "x"])


@given(st.dictionaries(NAMES, VALUES), st.text(max_size=40), st.sampled_from([None, "is it?"]))
def test_whatever_a_model_says_is_read_or_refused(fields, around, question):
    for text in (json.dumps(fields), f"{around}{json.dumps(fields)}{around}", around):
        try:
            found = read_answer(text, SIZE, question)
        except AnswerError:
            continue
        for x, y, width, height in found.boxes:
            assert 0 <= x < x + width <= SIZE[1] and 0 <= y < y + height <= SIZE[0]
        assert printable(found.why) == found.why
        again = Explanation.model_validate(json.loads(json.dumps(found.to_dict())))
        assert again == found

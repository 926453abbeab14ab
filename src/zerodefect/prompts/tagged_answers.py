"""What a reasoning model is asked, and its answer in tags (IAD-R1, arXiv 2508.09178).

A defect is answered with ``<think>..</think><location>..</location><type>..</type>
<answer>Yes</answer>``, a good part with ``<think>..</think><answer>No</answer>``. Models leave tags
out, leave them open, or answer in plain words; whatever can be read of an answer is read.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

TAGS = ("think", "location", "type", "answer")

QUESTION = "Are there any defects in the test image?"
"""Asked when a picture is judged."""

TRAINING_QUESTION = "Are there any defects in the query image?"
"""Asked in both stages of the training."""

_TASK = (
    "You are an expert in detecting defects in image. Your task is to detect if there are any "
    "defects in the test image."
)
_COMPARED = (
    " The first image is a normal reference image and the second is the test image. Compare the "
    "test image with the reference image."
)
_SHOWN = (
    "Following is {count} image of normal sample, which can be used as a template to compare the "
    "image being queried."
)
_BEHIND = "Following is image of test sample:"
_ANY_TAG = re.compile(rf"</?(?:{'|'.join(TAGS)})>", re.IGNORECASE)
_THOUGHTS = re.compile(r"<think>.*?(?:</think>|\Z)", re.IGNORECASE | re.DOTALL)
_WORD = re.compile(r"\W*(yes|no)\b", re.IGNORECASE)


def shown_before(count: int) -> str:
    """Words before ``count`` pictures of good parts."""
    return _SHOWN.format(count=count)


SHOWN_BEHIND = _BEHIND
"""Words between pictures of good parts and the picture that is judged."""


def training_prompt(reference: bool = False) -> str:
    """What stands behind the pictures in the second stage of the training, without a system turn.

    Args:
        reference: whether the first of two pictures is a good part.
    """
    return f"{_TASK}{_COMPARED if reference else ''}{TRAINING_QUESTION}"


@dataclass(frozen=True)
class TaggedAnswer:
    """What could be read of an answer.

    Attributes:
        answer: text of the tag ``answer``, such as ``Yes``; None where it is not there.
        location: where the defect is, in words; None where it is not said.
        type: of the defect; None where it is not said.
        reasoning: what it thought; of an answer without any tag, all that it said.
        raw: the whole text.
    """

    answer: str | None
    location: str | None
    type: str | None
    reasoning: str | None
    raw: str

    @property
    def defective(self) -> bool | None:
        """What it says of the part; None where that is neither yes nor no.

        The word that the tag ``answer`` begins with or, without that tag, what stands outside of
        ``think``.
        """
        outside = _ANY_TAG.sub(" ", _THOUGHTS.sub(" ", self.raw))
        found = _WORD.match(outside if self.answer is None else self.answer)
        return None if found is None else found[1].lower() == "yes"

    @property
    def sentence(self) -> str:
        """Everything in one line without tags: ``Yes: scratch, top left. A bright line ...``."""
        if self.answer is None:
            return " ".join(_ANY_TAG.sub(" ", self.raw).split())
        where = ", ".join(filter(None, (self.type, self.location)))
        begun = f"{self.answer}: {where}" if where else self.answer
        return " ".join(f"{begun.rstrip('.')}. {self.reasoning or ''}".split())


def read_tags(text: str) -> TaggedAnswer:
    """Read an answer, however much of it is there.

    The first tag of a name counts. One that is not closed ends where the next tag begins, or where
    the text was cut off. An empty one is as if it were not there.

    Args:
        text: what a model said; anything.
    """
    found = {tag: _inside(text, tag) for tag in TAGS}
    if not any(found.values()):
        return TaggedAnswer(None, None, None, text.strip() or None, text)
    return TaggedAnswer(found["answer"], found["location"], found["type"], found["think"], text)


def answer_begun(text: str) -> str:
    """An answer up to where it says yes or no: what a model is made to go on from."""
    opened = re.search("<answer>", text, re.IGNORECASE)
    return text[: opened.end()] if opened else f"{text}<answer>"


def _inside(text: str, tag: str) -> str | None:
    opened = re.search(f"<{tag}>", text, re.IGNORECASE)
    if opened is None:
        return None
    rest = text[opened.end() :]
    closed = re.search(f"</{tag}>", rest, re.IGNORECASE) or _ANY_TAG.search(rest)
    return (rest[: closed.start()] if closed else rest).strip() or None

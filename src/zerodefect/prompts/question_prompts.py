"""Multiple-choice questions about a picture in words (MMAD, arXiv 2410.09453)."""

from __future__ import annotations

from collections.abc import Mapping

INSTRUCTION = (
    "You are an industrial inspector who checks products by images. You should judge whether there "
    "is a defect in the query image and answer the questions about it. Answer with the option's "
    "letter from the given choices directly! "
)
"""What stands before everything else."""

QUERY = "Following is the query image: "
"""What stands before the picture that is asked about."""

LIST = "Following is the question list: "
"""What stands before the questions."""


def templates_told(count: int) -> str:
    """What stands before ``count`` pictures of good parts."""
    verb = "is" if count == 1 else "are"
    return (
        f"Following {verb} {count} image of normal sample, which can be used as a template to "
        "compare the image being queried."
    )


def question_text(number: int, question: str, options: Mapping[str, str]) -> str:
    """A question with a line for each option.

    Args:
        number: in the list of questions, from 1.
        question: in words.
        options: text of each letter, in the order in which they are shown.
    """
    lines = "".join(f"{letter}. {text}\n" for letter, text in options.items())
    return f"Question {number}: {question} \n{lines}"

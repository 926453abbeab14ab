"""Which option of a question a model chose: letters out of words (MMAD, arXiv 2410.09453)."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping

LETTERS = "ABCDE"
"""Letters that an answer can be; anything else is none."""

NONE = "E"
"""Letter of an answer in tags that names no option: a wrong one, and not an error."""

_ALONE = re.compile(r"\b([A-E])\b")
_ANSWER = re.compile(r"<answer>(.*?)</answer>")


def letters_in(reply: str, options: Mapping[str, str] | None = None) -> list[str]:
    """All capital letters A to E that stand alone in a reply; the last one is the answer.

    Without any, the letter of the option whose text is closest (``difflib``); without options
    either, the reply itself, which then counts as invalid.

    Args:
        reply: what a model said.
        options: text of each letter.
    """
    found = _ALONE.findall(reply)
    if found or not options:
        return found or [reply]
    (closest,) = difflib.get_close_matches(reply, list(options.values()), n=1, cutoff=0)
    return [next(letter for letter, text in options.items() if text == closest)]


def option_in_tags(reply: str, options: Mapping[str, str]) -> str:
    """Letter of the option that the tag ``answer`` of a reply means, as IAD-R1 is measured.

    The option whose text it is, without regard to case and full stops; else the first one that
    holds it or is held by it; ``NONE`` where there is no such option or no such tag.

    Args:
        reply: what a model said, with ``<answer>..</answer>`` on one line.
        options: text of each letter.
    """
    found = _ANSWER.search(reply)
    said = found[1].lower().strip() if found else ""
    if not said:
        return NONE
    texts = {letter: text.lower().strip(" .") for letter, text in options.items()}
    for letter, text in texts.items():
        if said in (text, f"{text}."):
            return letter
    return next((one for one, text in texts.items() if said in text or text in said), NONE)


def chosen_letter(reply: str, options: Mapping[str, str]) -> str:
    """The option that a reply chooses, whether it comes in tags or in words."""
    inside = _ANSWER.search(reply)
    if inside is None:
        return letters_in(reply, options)[-1]
    alone = _ALONE.findall(inside[1])
    return alone[-1] if alone else option_in_tags(reply, options)

"""IAD-R1's rewards of an answer in tags (arXiv 2508.09178): text in, numbers out, no model.

A solution is the truth in the same tags: ``<location>..</location><type>..</type>
<answer>Yes</answer>``, of a good part ``<answer>No</answer>``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from zerodefect.training.defect_types import type_score

_ANSWER = re.compile(r"<answer>(.*?)</answer>")
_LOCATION = re.compile(r"<location>(.*?)</location>")
_TYPE = re.compile(r"<type>(.*?)</type>")
_GOOD = re.compile(r".*<think>.*?</think><answer>.*?</answer>.*", re.DOTALL)
_DEFECT = re.compile(
    r".*<think>.*?</think><location>.*?</location><type>.*?</type><answer>.*?</answer>.*",
    re.DOTALL,
)


def consistency_reward(completion: str, solution: str) -> float:
    """1 where the tags are those that the truth asks for, in their order, else 0.

    What stands in them does not count. Of a good part, tags of location and type are wrong.

    Raises:
        ValueError: a solution that answers neither yes nor no.
    """
    if _truth(solution) == "yes":
        return float(bool(_DEFECT.fullmatch(completion)))
    bare = "<location>" not in completion and "<type>" not in completion
    return float(bare and bool(_GOOD.fullmatch(completion)))


def accuracy_reward(completion: str, solution: str) -> float:
    """Of a good part 1 for exactly ``no``; of a defect 1 for ``yes`` and 1 for type and location.

    From 0 to 2. A tag that runs over several lines is not read.

    Raises:
        ValueError: a solution that answers neither yes nor no.
    """
    truth, said = _truth(solution), _inside(_ANSWER, completion)
    if truth == "no":
        return float(said == "no")
    places = _inside(_LOCATION, completion), _inside(_LOCATION, solution)
    types = _inside(_TYPE, completion), _inside(_TYPE, solution)
    where = location_reward(*places) if None not in places else 0.0  # type: ignore[arg-type]
    what = type_score(*types) if None not in types else 0.0  # type: ignore[arg-type]
    return (what + where) / 2 + float(said == "yes")


def location_reward(said: str, true: str) -> float:
    """1 where both texts name the same of nine fields of a picture, else 0."""
    return float(_field(said) == _field(true))


def rewards(completions: Sequence[str], solutions: Sequence[str]) -> list[float]:
    """Accuracy and consistency of each completion together, from 0 to 3."""
    pairs = zip(completions, solutions, strict=True)
    return [accuracy_reward(*pair) + consistency_reward(*pair) for pair in pairs]


def solution_of(defective: bool, location: str = "", kind: str = "") -> str:
    """The truth of a picture in tags; what is not known of a defect is left out."""
    if not defective:
        return "<answer>No</answer>"
    where = f"<location>{location}</location>" if location else ""
    what = f"<type>{kind}</type>" if kind else ""
    return f"{where}{what}<answer>Yes</answer>"


def _truth(solution: str) -> str:
    found = _ANSWER.search(solution)
    truth = (found[1] if found else solution).strip().lower()
    if truth not in ("yes", "no"):
        raise ValueError(
            f"the solution answers {truth[:40]!r}: write <answer>Yes</answer> or "
            "<answer>No</answer>"
        )
    return truth


def _inside(tag: re.Pattern[str], text: str) -> str | None:
    found = tag.search(text)
    return found[1].strip().lower() if found else None


def _field(text: str) -> int:
    """Number of a field, from 1 at the top left to 9; the middle where nothing is said."""
    text, field = text.lower(), 5
    if "left" in text:
        field -= 1
    elif "right" in text:
        field += 1
    if "top" in text or "upper" in text:
        field -= 3
    elif "bottom" in text or "lower" in text:
        field += 3
    return min(max(field, 1), 9)

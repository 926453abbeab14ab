"""What a chat model answered, read into the record of an explanation.

Models keep to a form loosely: the JSON object that was asked for may stand in a fence, after
thoughts or within prose, its fields under names that are near; and reasoning models that were
trained on defects answer in tags (IAD-R1, arXiv 2508.09178). Whatever would act on a terminal or a
page is taken out here, once.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from zerodefect.inspection.chat_prompts import WHOLE
from zerodefect.inspection.explanation import Box, Explanation
from zerodefect.prompts.tagged_answers import read_tags
from zerodefect.types import Verdict, printable

_LONG, _SHORT = 1000, 100  # characters of a sentence, and of a place or kind
_READ = 100_000  # characters of an answer that are looked at
_BEGINNINGS = 200  # of objects that are tried
_BOXES = 8

_FIELDS = {
    "location": ("location", "where", "position"),
    "kind": ("kind", "type", "defect_type", "label"),
    "why": ("why", "answer", "reason", "explanation", "description"),
    "verdict": ("verdict", "judgement", "judgment"),
    "box": ("box", "boxes", "bbox", "bbox_2d", "bounding_box"),
}
_VERDICTS: dict[str, Verdict] = {
    **dict.fromkeys(("good", "ok", "okay", "normal", "pass", "no defect", "not defective"), "good"),
    **dict.fromkeys(("defect", "defective", "anomalous", "anomaly", "bad", "fail"), "defect"),
    **dict.fromkeys(("unsure", "uncertain", "unclear", "unknown", "not sure"), "unsure"),
}
_NOTHING = ("", "null", "none", "n/a", "na", "nothing", "no defect", "-")


class AnswerError(ValueError):
    """An answer that cannot be read; the message says why."""


def read_answer(text: str, size: tuple[int, int], question: str | None) -> Explanation:
    """Read an answer.

    Prose without any form is taken as the answer to a question, and remarked on: nothing of it can
    be checked. As an explanation it is not taken.

    Args:
        text: what the model said.
        size: ``(height, width)`` of the picture, for boxes.
        question: that was asked; None: to explain the picture.

    Returns:
        With ``location``, ``kind``, ``why``, ``verdict``, ``boxes``, ``question`` and ``remarks``.

    Raises:
        AnswerError: it holds none of what was asked for.
    """
    text = text[:_READ]
    remarks: list[str] = []
    fields = _from_json(text)
    fields = _from_tags(text) if fields is None else fields
    if fields is None:
        if question is None or _looks_cut(text):
            raise AnswerError("its answer is not in the form that was asked for")
        remarks.append("not in the form that was asked for, so that nothing of it can be checked")
        fields = {"why": text}
    boxes, strange = _boxes(fields.get("box"), size)
    remarks += strange
    verdict = _verdict(fields.get("verdict"), remarks)
    why = _words(fields.get("why"), _LONG, remarks)
    if not (why or verdict or boxes):
        raise AnswerError("its answer says nothing of the picture")
    if question is not None and not why:
        raise AnswerError("it does not answer the question")
    return Explanation(
        location=_words(fields.get("location"), _SHORT, remarks),
        kind=_words(fields.get("kind"), _SHORT, remarks),
        why=why or "",
        verdict=verdict,
        boxes=boxes,
        question=question,
        remarks=tuple(remarks),
    )


def shortened(text: str, most: int = 300) -> str:
    """A model's own words as one line that acts on nothing."""
    text = printable(" ".join(text[:_READ].split()))
    return text if len(text) <= most else f"{text[:most].rstrip()}..."


# --- forms ---------------------------------------------------------------------------------------


def _from_json(text: str) -> dict[str, Any] | None:
    """The last object with fields that are known: a model may think aloud before it."""
    found = None
    for each in _objects(text):
        known = _known(each)
        found = found if known is None else known
    return found


def _objects(text: str) -> Iterator[Mapping[str, Any]]:
    """JSON objects in a text, those within others left out."""
    decoder, at = json.JSONDecoder(), text.find("{")
    for _ in range(_BEGINNINGS):
        if at < 0:
            return
        try:
            each, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            end = at + 1
        else:
            yield each
        at = text.find("{", end)


def _known(given: Mapping[str, Any]) -> dict[str, Any] | None:
    """Fields by our names; None where there is none of them."""
    plain = {str(name).strip().lower().replace(" ", "_"): v for name, v in given.items()}
    own = [(own, name) for own, names in _FIELDS.items() for name in names if name in plain]
    found: dict[str, Any] = {}
    for field, name in own:
        if plain[name] is not None:
            found.setdefault(field, plain[name])
    return found if own else None


def _from_tags(text: str) -> dict[str, Any] | None:
    """Tags of reasoning models, where one of them answers (Yes: there is a defect)."""
    found = read_tags(text)
    if found.answer is None:
        return None
    verdict = {True: "defect", False: "good", None: found.answer}[found.defective]
    return {
        "why": found.reasoning or found.answer,
        "verdict": verdict,
        "location": found.location,
        "kind": found.type,
    }


def _looks_cut(text: str) -> bool:
    """Whether a text begins an object, or a thought, and does not end it."""
    begun = re.search(r"\{\s*[\"']", text) is not None
    return begun or ("<think>" in text and "</think>" not in text)


# --- fields --------------------------------------------------------------------------------------


def _words(given: Any, most: int, remarks: list[str]) -> str | None:
    if isinstance(given, list):
        given = ", ".join(str(one) for one in given if isinstance(one, str | int | float))
    if not isinstance(given, str | int | float) or isinstance(given, bool):
        return None
    if isinstance(given, float) and not math.isfinite(given):
        return None  # which JSON does not have, and models write
    text = shortened(str(given), most)
    if text.strip(" .").lower() in _NOTHING:
        return None
    if len(text) > most:
        remarks.append(f"shortened to {most} characters")
    return text


def _verdict(given: Any, remarks: list[str]) -> Verdict | None:
    if given is None:
        return None
    said = shortened(str(given), _SHORT).strip(" .!").lower()
    if said not in _VERDICTS and said not in _NOTHING:
        remarks.append(f"its verdict {said!r} is none of good, unsure and defect")
    return _VERDICTS.get(said)


def _boxes(given: Any, size: tuple[int, int]) -> tuple[tuple[Box, ...], list[str]]:
    """Boxes in pixels of the picture, and what is to say of those that are none."""
    if not given or not isinstance(given, list):
        return (), []
    each = given if isinstance(given[0], list) else [given]
    found, remarks = [], []
    for one in each[:_BOXES]:
        box = _box(one, size)
        if box is None and not (isinstance(one, list) and not any(one)):
            remarks.append(f"its box {shortened(str(one), _SHORT)} is none in the picture")
        if box is not None:
            found.append(box)
    return tuple(found), remarks


def _box(given: Any, size: tuple[int, int]) -> Box | None:
    """``[left, top, right, bottom]`` in thousandths, or in shares of 1, as pixels."""
    if not isinstance(given, list) or len(given) != 4:
        return None
    if not all(type(value) in (int, float) and 0 <= value <= WHOLE for value in given):
        return None
    whole = 1 if max(given) <= 1 else WHOLE
    left, top, right, bottom = (value / whole for value in given)
    if not (left < right and top < bottom):
        return None
    x, y = math.floor(left * size[1]), math.floor(top * size[0])
    width, height = math.ceil(right * size[1]) - x, math.ceil(bottom * size[0]) - y
    return x, y, max(1, width), max(1, height)

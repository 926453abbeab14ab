"""What a chat model is taught by: pictures with answers in tags (IAD-R1, arXiv 2508.09178)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from zerodefect.data import Dataset, read_mask
from zerodefect.data.dataset import UNNAMED_DEFECT, DatasetError, Sample
from zerodefect.images import ImageError, open_image
from zerodefect.prompts.tagged_answers import read_tags
from zerodefect.training.reasoning_rewards import solution_of
from zerodefect.types import Failure

_ROWS, _COLUMNS = ("top", "", "bottom"), ("left", "", "right")


@dataclass(frozen=True)
class ChatLesson:
    """One labelled picture.

    Attributes:
        file: the picture.
        solution: the truth in tags, which rewards compare with.
        answer: a whole answer with its reasoning, to be imitated; empty where there is none.
    """

    file: Path
    solution: str
    answer: str = ""


def lessons_of(
    dataset: Dataset, on_failure: Callable[[Failure], None] = lambda failure: None
) -> list[ChatLesson]:
    """Lessons of a labelled data set: the TEST split, or all where there are no splits.

    Location and type are told by mask and kind. The reasoning is a sentence of these facts: it
    teaches the form of an answer, and no thoughts of a person. A defect without a mask has no
    answer to imitate, and a truth without a location.

    Args:
        dataset: with labels.
        on_failure: called with each picture or mask that cannot be used; it is left out.
    """
    labelled = [sample for sample in dataset if sample.anomalous is not None]
    test = [sample for sample in labelled if sample.split == "test"]
    lessons = []
    for sample in test or labelled:
        try:
            open_image(sample.image)
            lessons.append(_lesson(sample))
        except ImageError as error:
            on_failure(error.failure)
    return lessons


def _lesson(sample: Sample) -> ChatLesson:
    if not sample.anomalous:
        truth = solution_of(False)
        why = f"Nothing on the {sample.product} differs from a good one."
        return ChatLesson(sample.image, truth, f"<think>{why}</think>{truth}")
    kind = sample.kind.replace("_", " ")
    if not sample.masks:
        return ChatLesson(sample.image, solution_of(True, "", _named(kind)))
    mask = read_mask(sample)
    where = location_of(mask)
    why = (
        f"The {sample.product} shows a {kind} at the {where}, on {100 * mask.mean():.2g} percent "
        "of the picture."
    )
    shown = solution_of(True, where, kind)
    return ChatLesson(
        sample.image, solution_of(True, where, _named(kind)), f"<think>{why}</think>{shown}"
    )


def _named(kind: str) -> str:
    return "" if kind == UNNAMED_DEFECT else kind


def location_of(mask: np.ndarray) -> str:
    """The ninth of the picture that the middle of a mask ``(H, W)`` lies in: ``top left``."""
    places = np.argwhere(mask).mean(axis=0) / mask.shape
    row, column = (min(2, int(3 * place)) for place in places)
    return " ".join(filter(None, (_ROWS[row], _COLUMNS[column]))) or "center"


def read_lessons(
    path: str | Path, on_failure: Callable[[Failure], None] = lambda failure: None
) -> list[ChatLesson]:
    """Lessons of JSON lines: ``{"image": "a.png", "answer": "<think>..</think>..."}``.

    Pictures are relative to the file. The truth is what the answer says without its reasoning.

    Args:
        path: the file.
        on_failure: called with each picture that cannot be opened; it is left out.

    Raises:
        DatasetError: the file cannot be read, or a line is no lesson; names it.
    """
    file = Path(path)
    remedy = 'Write a line {"image": "a.png", "answer": "<think>..</think><answer>No</answer>"}'
    try:
        lines = file.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(file, f"cannot be read ({error})", remedy) from None
    lessons = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            picture, answer = file.parent / entry["image"], str(entry["answer"])
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            told = f"line {number} is no lesson ({type(error).__name__}: {error})"
            raise DatasetError(file, told, remedy) from None
        read = read_tags(answer)
        if read.answer is None or read.defective is None:
            told = f"line {number} answers neither Yes nor No in <answer>"
            raise DatasetError(file, told, remedy)
        try:
            open_image(picture)
        except ImageError as error:
            on_failure(error.failure)
            continue
        truth = solution_of(read.defective, read.location or "", read.type or "")
        lessons.append(ChatLesson(picture, truth, answer))
    return lessons


def check_lessons(lessons: Iterable[ChatLesson], imitated: bool) -> list[ChatLesson]:
    """Lessons that a stage can be taught by.

    Args:
        lessons: all there are.
        imitated: whether answers are imitated, so that those without one do not count.

    Raises:
        ValueError: none is left.
    """
    kept = [lesson for lesson in lessons if lesson.answer or not imitated]
    if not kept:
        raise ValueError(
            "there is nothing to learn: no labelled picture"
            + (" with a whole answer, which takes a mask of the defect" if imitated else "")
        )
    return kept

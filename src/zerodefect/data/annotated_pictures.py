"""From what a labelling tool says of pictures to samples; the same rules for all such tools.

A picture is good if it is called so as a whole, or if somebody has looked at it and marked
nothing. One that nobody has annotated is left out by name, and so is one whose annotation cannot
be read whole or contradicts itself.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from zerodefect.data.dataset import GOOD, UNNAMED_DEFECT, Split
from zerodefect.data.drawn_masks import Area, DrawnMask, Mask, Size
from zerodefect.data.listing import Listing, is_good, pattern
from zerodefect.data.picture_finder import PictureFinder
from zerodefect.data.row_labels import Labels
from zerodefect.data.table_columns import Row
from zerodefect.data.words import says_good
from zerodefect.images.find import natural_key

ANEW = "Correct it in the labelling tool and export it anew"
_ABOUT_BOXES = "Mark the pixels where pixel metrics count, or go by image metrics only"


@dataclass
class Annotated:
    """What a labelling tool says of one picture.

    Attributes:
        where: file and entry, for errors.
        name: of the picture, as the tool has it.
        size: width and height that the tool saw, or None where it does not say.
        areas: what is marked, each with its label (empty if it has none).
        words: what is said of the picture as a whole, each with the question that it answers.
        mask: the mask where it is a file; else areas are drawn.
        files: pictures that belong to it beside its own.
        split: that it belongs to.
        seen: whether somebody has looked at it.
        fault: why it cannot be used; else empty.
        boxes: how many of the areas are boxes.
    """

    where: str
    name: str
    size: Size | None = None
    areas: list[tuple[str, Area]] = field(default_factory=list)
    words: list[tuple[str, str]] = field(default_factory=list)
    mask: Path | None = None
    files: list[Path] = field(default_factory=list)
    split: Split | None = None
    seen: bool = True
    fault: str = ""
    boxes: int = 0


def add_annotated(
    listing: Listing, entries: Sequence[Annotated], root: Path, bases: Sequence[Path], product: str
) -> None:
    """Note a sample for each picture that can be used, and report the others.

    Args:
        listing: takes them.
        entries: all of the data set.
        root: folder of the pictures.
        bases: folders that names are relative to.
        product: that the pictures show.
    """
    finder = PictureFinder(root, bases)
    found = finder.find_all([entry.name for entry in entries])
    rows = [Row(e.where, {"label": word}) for e in entries for _, word in e.words]
    labels, telling = Labels(listing, rows), _telling(entries)
    for entry, one in zip(entries, found, strict=True):
        kind, fault = ("", entry.fault) if entry.fault else _kind(labels, telling, entry)
        if not entry.fault and not entry.seen:
            reason = "nobody has annotated this picture, so it is left out"
            remedy = "Annotate it; a good part is submitted without a mark, or called good"
            listing.report("warning", f"{entry.where} ({entry.name})", reason, remedy)
        elif fault:
            listing.report("error", entry.where, f"{fault}; the picture is left out", ANEW)
        elif one.path is None:
            remedy = f"Copy it to {root}, under the name and folder that the tool has for it"
            listing.report("error", entry.where, f"{one.reason}; it is left out", remedy)
        else:
            sample = pattern(product, entry.split, kind)
            mask = _mask(entry) if sample.anomalous else None
            listing.samples.append(replace(sample, image=one.path, mask=mask))
    _tell(listing, entries, root)
    used = {one.path for one in found} | {file for entry in entries for file in entry.files}
    if left := [file for file in finder.pictures if file not in used]:
        shown = ", ".join(file.name for file in left[:3])
        reason = f"pictures that the labels do not name, and that are not read: {len(left)}"
        listing.report("warning", root, f"{reason} ({shown})", "Label them, or leave them out")


def _telling(entries: Iterable[Annotated]) -> set[str]:
    """Find the questions whose answers say good or defective; where there are none, all count."""
    asked = {question for e in entries for question, _ in e.words}
    said = {q for e in entries for q, word in e.words if says_good(word) is not None}
    return said or asked


def _kind(labels: Labels, telling: set[str], entry: Annotated) -> tuple[str, str]:
    """Give the kind of a picture, empty for no label, and why it has none that can be trusted."""
    marked = {_called(label) for label, _ in entry.areas if not is_good(label)}
    said = {
        labels.kind(Row(entry.where, {"label": word}))
        for question, word in entry.words
        if question in telling
    }
    if GOOD in said and (marked or entry.mask or said - {GOOD}):
        return "", "it is called good and is marked, or called otherwise, as well"
    kinds = marked or (said - {GOOD, ""})
    named = sorted(kinds - {UNNAMED_DEFECT} or kinds, key=natural_key)
    if named:
        return "+".join(named), ""
    if entry.mask:
        return UNNAMED_DEFECT, ""
    return "" if "" in said else GOOD, ""


def _called(label: str) -> str:
    """Give the kind that an area's label names."""
    if not label or (says_good(label) is False and not re.search(r"\d", label)):
        return UNNAMED_DEFECT
    return label


def _mask(entry: Annotated) -> Mask | None:
    areas = tuple(area for label, area in entry.areas if not is_good(label))
    return DrawnMask(entry.where, areas, entry.size) if areas else entry.mask


def _tell(listing: Listing, entries: Sequence[Annotated], root: Path) -> None:
    """Note how the labels were read, where that is not plain."""
    sound = [entry for entry in entries if entry.seen and not entry.fault]
    bare = sum(not (entry.areas or entry.words or entry.mask) for entry in sound)
    if bare:
        reason = f"pictures in which nothing is marked, read as good: {bare} of {len(entries)}"
        listing.notes.append(reason)
    if boxes := sum(entry.boxes for entry in sound):
        reason = f"areas that are boxes, whose whole inside counts as defective: {boxes}"
        listing.report("warning", root, reason, _ABOUT_BOXES)
    fine = defaultdict[str, int](int)
    for label in (label for entry in sound for label, _ in entry.areas if is_good(label)):
        fine[label] += 1
    listing.notes += [f"areas called {name}, which mark no defect: {n}" for name, n in fine.items()]

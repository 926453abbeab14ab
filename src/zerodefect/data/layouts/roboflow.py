"""Exports of Roboflow for segmentation: COCO in every split's folder, or YOLO with data.yaml."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from zerodefect.data.annotated_pictures import Annotated, add_annotated
from zerodefect.data.dataset import DatasetError, Split
from zerodefect.data.drawn_masks import Outline
from zerodefect.data.folders import SPLITS, any_pictures, split_folders
from zerodefect.data.layout_registry import Layout, register
from zerodefect.data.layouts.coco import polygon, read_coco
from zerodefect.data.listing import Listing
from zerodefect.data.table_columns import text_of

TREE = """\
parts/
├── train/_annotations.coco.json       COCO segmentation; valid/ and test/ likewise
└── train/0_jpg.rf.1a2b.jpg ...
or, for YOLO:
parts/
├── data.yaml                          names: [scratch, ...], train: train/images, ...
├── train/images/0_jpg.rf.1a2b.jpg ...
└── train/labels/0_jpg.rf.1a2b.txt ... class and corners as shares of the picture; empty is good"""

_COCO = "_annotations.coco.json"
_YAML = ("data.yaml", "data.yml")


def _recognises(place: Path, named: bool) -> bool:
    if place.is_file():
        return place.suffix.lower() in (".yaml", ".yml")
    return bool(_coco_files(place)) or _yaml_of(place) is not None


def _coco_files(root: Path) -> list[tuple[Path, Split]]:
    files = [(folder / _COCO, split) for folder, split in split_folders(root)]
    return [(file, split) for file, split in files if file.is_file()]


def _yaml_of(place: Path) -> Path | None:
    if place.is_file():
        return place
    return next((place / name for name in _YAML if _describes(place / name)), None)


def _describes(file: Path) -> bool:
    """Whether a file names classes at its top level, as no other program's ``data.yaml`` need."""
    try:
        with file.open("rb") as stream:
            return re.search(rb"^[\"']?names[\"']?\s*:", stream.read(2**20), re.M) is not None
    except OSError:
        return False


@register(Layout("roboflow", TREE, _recognises, asked=20))
def _read(place: Path, name: str) -> Listing:
    """Read the folders of an export, or the YOLO data set that a ``data.yaml`` describes.

    Raises:
        DatasetError: there is none, or a file is not of that form.
    """
    files = _coco_files(place) if place.is_dir() else []
    if files:
        listing = Listing(f"{_COCO} in each split's folder lists its pictures")
        listed = [read_coco(listing, file, split, [file.parent]) for file, split in files]
        entries = [entry for part in listed for entry in part]
        add_annotated(listing, entries, place, [], name)
        return listing
    described = _yaml_of(place)
    if described is None:
        reason = f"there is neither {_COCO} in train/, valid/ or test/ nor data.yaml"
        raise DatasetError(place, reason, "Name the folder of the export")
    return _read_yolo(described, name)


def _read_yolo(file: Path, name: str) -> Listing:
    listing = Listing(f"{file.name} names the classes, a file of labels belongs to each picture")
    content = _yaml(file)
    classes = content.get("names")
    names = dict(enumerate(classes)) if isinstance(classes, list) else classes
    if not isinstance(names, dict) or not names:
        raise DatasetError(file, "it has no list names of classes", "Copy the export anew")
    entries: list[Annotated] = []
    for key in ("train", "val", "test"):
        if not content.get(key):
            continue
        folder = _folder(file, content, content[key])
        if folder is None:
            reason = f"there is no folder for {key} ({content[key]})"
            listing.report("warning", file, reason, "Copy it there, or take the line out")
            continue
        entries += _yolo_entries(listing, folder, SPLITS[key], names)
    if not entries:
        reason = "it names no folder with pictures under train, val or test"
        raise DatasetError(file, reason, "Copy the export anew, folders included")
    add_annotated(listing, entries, file.parent, [], name)
    return listing


def _yaml(file: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(text_of(file))
    except yaml.YAMLError as error:
        reason = f"it is not YAML ({' '.join(str(error).split())[:120]})"
        raise DatasetError(file, reason, "Copy the export anew") from None
    return content if isinstance(content, dict) else {}


def _folder(file: Path, content: dict[str, Any], written: Any) -> Path | None:
    """Find a folder of pictures: relative to ``path`` or the file; Roboflow writes one ../ more."""
    text = str(written).replace("\\", "/")
    bases = [file.parent / str(content.get("path") or ""), file.parent]
    tried = [base / one for base in bases for one in (text, text.removeprefix("../"))]
    return next((folder for folder in tried if folder.is_dir()), None)


def _yolo_entries(
    listing: Listing, folder: Path, split: Split, names: dict[Any, Any]
) -> Iterator[Annotated]:
    left = set(_labels_folder(folder).rglob("*.txt"))
    for image in any_pictures(folder):
        file = _labels_folder(folder) / image.relative_to(folder).with_suffix(".txt")
        entry = Annotated(str(file), str(image), split=split, seen=file in left)
        left.discard(file)
        lines = text_of(file).splitlines() if entry.seen else []
        for number, line in enumerate(lines, 1):
            try:
                if line.strip():
                    _add_line(entry, line.split(), names)
            except ValueError as error:
                entry.fault = f"line {number}: {error}"
        yield entry
    for file in sorted(left - {_labels_folder(folder) / "classes.txt"}):
        reason = "there is no picture for these labels"
        listing.report("error", file, reason, f"Copy it to {folder}, or remove the labels")


def _labels_folder(folder: Path) -> Path:
    """Give ``labels`` beside ``images``, wherever that stands in the path."""
    parts = list(folder.parts)
    if "images" not in parts:
        return folder
    last = len(parts) - 1 - parts[::-1].index("images")
    return Path(*parts[:last], "labels", *parts[last + 1 :])


def _add_line(entry: Annotated, words: list[str], names: dict[Any, Any]) -> None:
    """Note one area: a class with corners, or with centre, width and height of a box."""
    if not words[0].isdecimal() or int(words[0]) not in names:
        raise ValueError(f"class {words[0]} is not among the names of data.yaml")
    values = [float(word) for word in words[1:]]
    if len(values) == 4:
        x, y, w, h = values
        left, right, top, bottom = x - w / 2, x + w / 2, y - h / 2, y + h / 2
        corners = (left, top, right, top, right, bottom, left, bottom)
        entry.areas.append((str(names[int(words[0])]), Outline(corners, relative=True)))
        entry.boxes += 1
    else:
        entry.areas.append((str(names[int(words[0])]), polygon(values, relative=True)))

"""COCO: a JSON file of pictures, classes and areas (polygons, run lengths or boxes)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zerodefect.data.annotated_pictures import Annotated, add_annotated
from zerodefect.data.dataset import DatasetError, Split
from zerodefect.data.drawn_masks import Area, Outline, Runs, box_outline
from zerodefect.data.folders import SPLITS
from zerodefect.data.layout_registry import Layout, register
from zerodefect.data.layouts.mvtec import mvtec_products
from zerodefect.data.listing import Listing
from zerodefect.data.table_columns import json_head, json_of
from zerodefect.images.find import natural_key

TREE = """\
parts/
├── annotations.json                   or annotations/instances_train.json, ..._test.json
└── images/0.png ...                   {"images", "annotations", "categories"}; a picture that is
                                       listed and has no annotation is good"""

# The first key of such files; whatever goes before, where the user names the file.
_HEAD = re.compile(rb'\s*\{\s*"(info|licenses|images|annotations|categories|type)"\s*:')
_NAMED_HEAD = re.compile(rb'\s*\{.*"(info|licenses|images|annotations|categories)"\s*:', re.DOTALL)
_REMEDY = "Export it anew as COCO (instances, segmentation)"


def is_coco(file: Path, named: bool = True) -> bool:
    """Whether a JSON file that the user named, or that lies in a folder, begins as COCO's do."""
    return (_NAMED_HEAD if named else _HEAD).match(json_head(file)) is not None


def _recognises(place: Path, named: bool) -> bool:
    return bool(_files(place))


def _files(place: Path) -> list[Path]:
    """List the files of a folder; beside the tree of MVTec those at its top are something else."""
    if place.is_file():
        return [place] if is_coco(place) else []
    inner = sorted((place / "annotations").glob("*.json"), key=natural_key)
    if files := [file for file in inner if is_coco(file, named=False)]:
        return files
    outer = sorted(place.glob("*.json"), key=natural_key)
    files = [file for file in outer if is_coco(file, named=False)]
    return [] if files and mvtec_products(place) else files


@register(Layout("coco", TREE, _recognises, asked=24))
def _read(place: Path, name: str) -> Listing:
    """Read one file, or all of a folder: its name says the split (``instances_train.json``).

    Raises:
        DatasetError: there is none, or one is not of that form.
    """
    files = [place] if place.is_file() else _files(place)
    if not files:
        reason = "there is no JSON file with images, annotations and categories"
        raise DatasetError(place, reason, "Name the file, or another layout")
    listing = Listing(f"{', '.join(file.name for file in files)} of COCO lists the pictures")
    root = _root(place)
    entries = []
    for file in files:
        own = file.stem.removeprefix("instances_")  # train2017
        folders = [root / "images" / own, root / own]
        entries += read_coco(listing, file, _split(file), folders)
    add_annotated(listing, entries, root, [root / "images"], name)
    return listing


def _root(place: Path) -> Path:
    if place.is_dir():
        return place
    return place.parent.parent if place.parent.name == "annotations" else place.parent


def _split(file: Path) -> Split | None:
    words = re.findall(r"[a-z]+", file.stem.casefold())
    return next((SPLITS[word] for word in words if word in SPLITS), None)


def read_coco(
    listing: Listing, file: Path, split: Split | None, folders: Sequence[Path]
) -> list[Annotated]:
    """Read the pictures of one file, which lie in one of its own ``folders`` or elsewhere.

    Raises:
        DatasetError: it is not of that form.
    """
    content = json_of(file)
    parts = content if isinstance(content, dict) else {}
    lists = [parts.get(key) for key in ("images", "annotations", "categories")]
    if not all(isinstance(one, list) and all(isinstance(i, dict) for i in one) for one in lists):
        raise DatasetError(file, "it has no lists images, annotations and categories", _REMEDY)
    images, annotations, categories = (part or [] for part in lists)
    names = {one.get("id"): str(one.get("name", "")) for one in categories}
    entries: dict[Any, Annotated] = {}
    twins: list[Annotated] = []
    for image in images:
        entry = _entry(file, image, split)
        own = (folder / entry.name for folder in folders)
        entry.name = next((str(path) for path in own if path.is_file()), entry.name)
        if image.get("id") in entries:
            entry.fault = entries[image.get("id")].fault = "two pictures have the same id"
            twins.append(entry)
        else:
            entries[image.get("id")] = entry
    crowds = 0
    for annotation in annotations:
        number, owner = annotation.get("id"), entries.get(annotation.get("image_id"))
        if owner is None:
            reason = f"annotation {number} is of a picture that is not listed"
            listing.report("error", file, f"{reason}; it is not read", _REMEDY)
            continue
        crowds += annotation.get("iscrowd") == 1
        _add_area(owner, annotation, names)
    if crowds:
        note = f"areas of COCO's iscrowd count as defective like the others: {crowds}"
        listing.notes.append(note)
    return [*entries.values(), *twins]


def _entry(file: Path, image: dict[str, Any], split: Split | None) -> Annotated:
    name = str(image.get("file_name") or "")
    entry = Annotated(f"{file}: image {image.get('id')} ({name})", name, split=split)
    width, height = image.get("width"), image.get("height")
    if type(width) is int and type(height) is int and min(width, height) > 0:
        entry.size = width, height
    elif width is not None or height is not None:
        entry.fault = f"its width and height are no sizes ({width}, {height})"
    if not name:
        entry.fault = "the entry names no picture"
    return entry


def _add_area(entry: Annotated, annotation: dict[str, Any], names: dict[Any, str]) -> None:
    """Note the areas of one annotation with their label, or what is wrong with them."""
    number, category = annotation.get("id"), annotation.get("category_id")
    if category not in names:
        entry.fault = f"annotation {number} has a category that is not listed ({category})"
        return
    try:
        boxed = not annotation.get("segmentation")
        areas = [_box(annotation["bbox"])] if boxed else _areas(annotation["segmentation"])
        entry.areas += [(names[category], area) for area in areas]
        entry.boxes += boxed
    except (KeyError, TypeError, ValueError) as error:
        what = error if type(error) is ValueError else "neither polygons nor RLE nor a box"
        entry.fault = f"annotation {number} cannot be read ({what})"


def _box(values: Any) -> Area:
    x, y, width, height = map(float, values)
    return box_outline(x, y, width, height)


def _areas(segmentation: Any) -> list[Area]:
    """Read polygons, or run lengths: COCO's text, or plain numbers."""
    if isinstance(segmentation, dict):
        height, width = map(int, segmentation["size"])
        counts = segmentation["counts"]
        return [Runs(counts if isinstance(counts, str) else tuple(counts), (width, height))]
    return [polygon(points) for points in segmentation]


def polygon(points: Any, relative: bool = False) -> Outline:
    """Make an outline of a flat list of numbers.

    Raises:
        ValueError, TypeError: they are no corners.
    """
    corners = tuple(float(value) for value in points)
    if len(corners) < 6 or len(corners) % 2:
        raise ValueError(f"a polygon has {len(corners)} numbers, not two for each of its corners")
    return Outline(corners, relative)

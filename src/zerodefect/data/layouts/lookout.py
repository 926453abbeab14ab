"""Amazon Lookout for Vision: manifests of JSON lines, with masks in colours of their own."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from zerodefect.data.annotated_pictures import Annotated, add_annotated
from zerodefect.data.dataset import DatasetError, Split
from zerodefect.data.drawn_masks import ColouredFile
from zerodefect.data.folders import SPLITS
from zerodefect.data.layout_registry import Layout, register
from zerodefect.data.listing import Listing
from zerodefect.data.picture_finder import PictureFinder
from zerodefect.data.table_columns import text_of
from zerodefect.images import ImageError
from zerodefect.images.find import natural_key

TREE = """\
parts/
├── train.manifest, test.manifest      {"source-ref": "s3://...", "anomaly-label": 0 or 1,
│                                      "anomaly-label-metadata", "anomaly-mask-ref",
│                                      "anomaly-mask-ref-metadata": {"internal-color-map"}}
└── ...                                pictures and masks, at any depth"""

_ENDINGS = frozenset({".manifest", ".jsonl", ".ndjson"})
_CLASSIFIED = "image-classification"
_SEGMENTED = "semantic-segmentation"
_REMEDY = "Copy the manifest anew"


def _recognises(place: Path, named: bool) -> bool:
    return bool(_files(place))


def _files(place: Path) -> list[Path]:
    found = [place] if place.is_file() else [*place.glob("*"), *place.glob("manifests/**/*")]
    return sorted((file for file in found if _is_manifest(file)), key=natural_key)


def _is_manifest(file: Path) -> bool:
    if file.suffix.lower() not in _ENDINGS or not file.is_file():
        return False
    try:
        with file.open("rb") as stream:
            return b'"source-ref"' in stream.read(4096)
    except OSError:
        return False


@register(Layout("lookout", TREE, _recognises, asked=23))
def _read(place: Path, name: str) -> Listing:
    """Read one manifest, or all of a folder; the name of file or folder says the split.

    Raises:
        DatasetError: there is none, or a line is not JSON.
    """
    files = _files(place)
    if not files:
        reason = "there is no manifest with source-ref in its lines"
        raise DatasetError(place, reason, "Name the manifest, or another layout")
    root = place.parent if place.is_file() else place
    listing = Listing(f"{', '.join(file.name for file in files)} of Lookout list the pictures")
    listing.tables.update(files)
    finder = PictureFinder(root, [root])
    entries = []
    for file in files:
        for number, line in enumerate(text_of(file).split("\n"), 1):
            if line.strip():
                entries.append(_entry(f"{file}: line {number}", line, _split(file, root), finder))
    add_annotated(listing, entries, root, [root], name)
    return listing


def _split(file: Path, root: Path) -> Split | None:
    parts = file.relative_to(root).with_suffix("").parts[::-1]
    words = [word for part in parts for word in re.findall(r"[a-z]+", part.casefold())]
    return next((SPLITS[word] for word in words if word in SPLITS), None)


def _entry(where: str, line: str, split: Split | None, finder: PictureFinder) -> Annotated:
    try:
        facts = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DatasetError(where, f"it is not JSON ({error})", _REMEDY) from None
    if not isinstance(facts, dict):
        raise DatasetError(where, "it is not an object", _REMEDY)
    entry = Annotated(where, str(facts.get("source-ref") or ""), split=split)
    if not entry.name:
        entry.fault = "the line names no picture (source-ref)"
    label, about = _attribute(facts, _CLASSIFIED, "anomaly-label")
    entry.seen = label in facts
    word = str(about.get("class-name") or "")
    number = facts.get(label)
    # The number is an index of classes unless it is the one of Lookout, which the name must match.
    if word:
        entry.words.append(("label", word))
    if label == "anomaly-label" and number in (0, 1):
        entry.words.append(("label", "anomaly" if number else "normal"))
    elif entry.seen and not word:
        entry.fault = f"its label is neither 0 nor 1 and has no class-name ({number!r})"
    mask, about = _attribute(facts, _SEGMENTED, "anomaly-mask-ref")
    if facts.get(mask) and not entry.fault:
        try:
            _add_mask(entry, str(facts[mask]), about, finder)
        except ValueError as error:
            entry.fault = error.reason if isinstance(error, ImageError) else str(error)
    return entry


def _attribute(facts: dict[str, Any], type: str, usual: str) -> tuple[str, dict[str, Any]]:
    """Find the attribute whose metadata are of a type, and those; else the one that is usual."""
    about = {key: value for key, value in facts.items() if isinstance(value, dict)}
    named = (k for k, value in about.items() if str(value.get("type", "")).endswith(type))
    key = next((k for k in named if k.removesuffix("-metadata") in facts), f"{usual}-metadata")
    return key.removesuffix("-metadata"), about.get(key, {})


def _add_mask(entry: Annotated, written: str, about: dict[str, Any], finder: PictureFinder) -> None:
    """Note the mask: an area for each class of the map of colours that is in the file."""
    found = finder.find(written)
    if found.path is None:
        raise ValueError(f"its mask is not there ({found.reason})")
    entry.files.append(found.path)
    listed = about.get("internal-color-map")
    if not isinstance(listed, dict):
        entry.mask = found.path  # white on black, as everybody else has it
        return
    classes = {_colour(one): str(one.get("class-name") or "") for one in listed.values()}
    background = tuple(c for c, name in classes.items() if name.casefold() == "background")
    colours = tuple(colour for colour in classes if colour not in background)
    present = np.unique(ColouredFile(found.path, colours, background).codes()).tolist()
    for colour in (colour for colour in colours if colour in present):
        others = tuple(c for c in classes if c != colour)
        entry.areas.append((classes[colour], ColouredFile(found.path, (colour,), others)))
    if not entry.areas and ("label", "anomaly") in entry.words:
        entry.fault = "its mask marks nothing"


def _colour(entry: Any) -> int:
    text = str(entry.get("hex-color", "")) if isinstance(entry, dict) else ""
    if not re.fullmatch(r"#[0-9a-fA-F]{6}", text):
        raise ValueError(f"the map of its mask's colours has none of the form #rrggbb ({text})")
    return int(text[1:], 16)

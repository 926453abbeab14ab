"""Label Studio: its JSON export, with brushes, polygons, boxes, ellipses and choices."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zerodefect.data.annotated_pictures import Annotated, add_annotated
from zerodefect.data.dataset import DatasetError
from zerodefect.data.drawn_masks import Area, Brush, Outline, box_outline, ellipse_outline
from zerodefect.data.layout_registry import Layout, register
from zerodefect.data.listing import Listing
from zerodefect.data.table_columns import json_head, json_of
from zerodefect.images.find import natural_key

TREE = """\
parts/
├── export.json                        JSON, not JSON-MIN: [{"data": {"image": ...},
│                                      "annotations": [{"result": [...]}]}, ...]
└── images/0.png ...                   a task without annotations is left out; a submitted one
                                       without a mark, or with the choice good, is good"""

_HEAD = re.compile(rb'\s*\[\s*\{.*"(annotations|original_width|annotator|completions)"', re.DOTALL)
_REMEDY = "Export it anew from Label Studio as JSON"
# Results that say nothing of defects or of where they are.
_ASIDE = frozenset({"textarea", "rating", "number", "datetime", "relation", "pairwise"})

Result = Mapping[str, Any]


def is_label_studio(file: Path) -> bool:
    """Whether a JSON file begins as Label Studio's exports do."""
    return _HEAD.match(json_head(file)) is not None


def _recognises(place: Path, named: bool) -> bool:
    return bool(_files(place))


def _files(place: Path) -> list[Path]:
    files = [place] if place.is_file() else sorted(place.glob("*.json"), key=natural_key)
    return [file for file in files if is_label_studio(file)]


@register(Layout("label-studio", TREE, _recognises, asked=22))
def _read(place: Path, name: str) -> Listing:
    """Read one export, or the only one in a folder.

    Raises:
        DatasetError: there is none or several, or it is of another form.
    """
    files = [place] if place.is_file() else _files(place)
    if len(files) != 1:
        shown = ", ".join(file.name for file in files)
        reason = f"several exports could describe it: {shown}" if files else "there is no export"
        raise DatasetError(place, f"{reason} of Label Studio", "Name the JSON file")
    (file,) = files
    tasks = json_of(file)
    if not isinstance(tasks, list) or not all(
        isinstance(task, dict) and isinstance(task.get("annotations"), list) for task in tasks
    ):
        reason = "it is no list of tasks with annotations (JSON-MIN has none)"
        raise DatasetError(file, reason, _REMEDY)
    listing = Listing(f"{file.name} is an export of Label Studio")
    entries = [_entry(file, number, task) for number, task in enumerate(tasks, 1)]
    root = file.parent
    add_annotated(listing, entries, root, [root / "images"], name)
    return listing


def _entry(file: Path, number: int, task: Result) -> Annotated:
    data = task.get("data")
    values = data if isinstance(data, dict) else {}
    named = [v for v in values.values() if isinstance(v, str)]
    written = values.get("image") or values.get("img") or values.get("ocr")
    name = str(written or next((v for v in named if "/" in v or "." in v), ""))
    entry = Annotated(f"{file}: task {task.get('id', number)}", name)
    annotations = [
        one
        for one in task["annotations"]
        if isinstance(one, dict) and not one.get("was_cancelled") and "result" in one
    ]
    entry.seen = bool(annotations)
    truth = [one for one in annotations if one.get("ground_truth")]
    chosen = truth if len(annotations) > 1 and len(truth) == 1 else annotations
    if not name:
        entry.fault = "the task names no picture"
    elif len(chosen) > 1:
        entry.fault = f"it has {len(chosen)} annotations, and none is marked as the ground truth"
    elif chosen:
        _read_results(entry, chosen[0]["result"])
    return entry


def _read_results(entry: Annotated, results: Any) -> None:
    """Note areas and choices; parts of one area (shape, label) share its id."""
    parts: dict[Any, list[Result]] = defaultdict(list)
    for number, result in enumerate(results if isinstance(results, list) else []):
        if isinstance(result, dict) and isinstance(result.get("value"), dict):
            parts[result.get("id", number)].append(result)
        elif not isinstance(result, dict) or result.get("type") != "relation":
            entry.fault = "one of its results has no value"
    try:
        for group in parts.values():
            _read_group(entry, group)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        what = error if type(error) is ValueError else "numbers are missing or are none"
        entry.fault = f"one of its results cannot be read ({what})"


def _read_group(entry: Annotated, group: list[Result]) -> None:
    value = {key: one for result in group for key, one in result["value"].items()}
    kinds = [str(result.get("type", "")) for result in group]
    labels = [
        str(label)
        for result, kind in zip(group, kinds, strict=True)
        if kind.endswith("labels")
        for label in result["value"].get(kind) or []
    ]
    if any(kind.startswith(("brush", "polygon", "rectangle", "ellipse")) for kind in kinds):
        width, height = (int(group[0][key]) for key in ("original_width", "original_height"))
        if entry.size not in (None, (width, height)):
            raise ValueError("its results are of pictures of different sizes")
        entry.size = width, height
        if any(float(result.get("image_rotation") or 0) % 360 for result in group):
            raise ValueError("the picture was turned in the tool; turn it back there")
        area = _area(value, width, height)
        entry.areas += [(label, area) for label in labels or [""]]
        entry.boxes += "height" in value and "rle" not in value
    elif "choices" in value:
        question = str(group[0].get("from_name", ""))
        entry.words += [(question, str(choice)) for choice in value["choices"]]
    elif not _ASIDE & set(kinds):
        raise ValueError(f"{kinds[0] or 'a result without a type'} is no area and no choice")


def _area(value: Result, width: int, height: int) -> Area:
    """Make an area of percents of the picture, turned about an upper left corner or a centre."""
    if min(width, height) < 1:
        raise ValueError(f"a picture of {width} x {height} pixels")
    if "rle" in value:
        return Brush(bytes(value["rle"]))
    if "points" in value:
        corners = [(float(x) * width / 100, float(y) * height / 100) for x, y in value["points"]]
        if len(corners) < 3:
            raise ValueError(f"a polygon of {len(corners)} corners")
        return Outline(tuple(number for corner in corners for number in corner))
    x, y = float(value["x"]) * width / 100, float(value["y"]) * height / 100
    degrees = float(value.get("rotation") or 0)
    across, down = ("radiusX", "radiusY") if "radiusX" in value else ("width", "height")
    sides = float(value[across]) * width / 100, float(value[down]) * height / 100
    make = ellipse_outline if "radiusX" in value else box_outline
    return make(x, y, *sides, degrees)

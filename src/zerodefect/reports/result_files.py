"""Results for other programs: tables (CSV), annotations (COCO), anomaly maps (TIFF).

Every file appears complete or not at all; ``StoreError`` where the operating system refuses.
"""

from __future__ import annotations

import bisect
import csv
import functools
import hashlib
import io
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from zerodefect.files import atomic_write
from zerodefect.reports.records import Record
from zerodefect.version import __version__

IMAGE_COLUMNS = (
    *("image", "status", "object", "verdict", "calibrated", "score", "p_value", "count", "kinds"),
    *("largest_area_percent", "width", "height", "explanation", "answer", "reason", "remedy"),
)
REGION_COLUMNS = (
    *("image", "object", "verdict", "calibrated", "region", "kind", "kind_score"),
    *("x", "y", "width", "height", "area", "area_percent", "score", "p_value"),
)
_NO_KIND = "anomaly"

# What spreadsheet programs take for the beginning of a formula, full-width forms included.
_FORMULA = tuple("=+-@\uff1d\uff0b\uff0d\uff20")

# Signs that separate folders or name drives on some system; % keeps the replacement unambiguous.
_NOT_IN_NAMES = str.maketrans({sign: f"%{ord(sign):02X}" for sign in '%\\:*?"<>|'})


def write_csv(records: Iterable[Mapping[str, Any]], path: str | Path) -> None:
    """Write one row per image (``IMAGE_COLUMNS``), failed ones included; UTF-8.

    ``kinds`` lists the kinds of the regions by falling score, separated by ``"; "``. Text that a
    spreadsheet would take for a formula is preceded by an apostrophe.
    """
    _write_table(path, IMAGE_COLUMNS, (_image_row(record) for record in records))


def write_regions_csv(records: Iterable[Mapping[str, Any]], path: str | Path) -> None:
    """Write one row per region (``REGION_COLUMNS``), numbered from 1 in each image; UTF-8."""
    rows = (row for record in records for row in _region_rows(record))
    _write_table(path, REGION_COLUMNS, rows)


def write_coco(
    records: Iterable[Mapping[str, Any]], path: str | Path, *, kinds: Sequence[str] = ()
) -> None:
    """Write the regions as COCO annotations, with the raw score of each.

    Args:
        records: read once; only one is held in memory at a time. Failed images are left out and
            counted in ``info``.
        path: the JSON file.
        kinds: names that come first among the categories, in this order; further kinds follow as
            they come up. Regions without a kind are of category "anomaly".
    """
    categories: dict[str, int] = {name: i for i, name in enumerate(kinds, start=1)}
    calibrated: set[bool] = set()
    images = annotations = failed = 0
    with (
        atomic_write(Path(path)) as file,
        tempfile.SpooledTemporaryFile(max_size=1 << 24) as second,
    ):
        file.write(b'{"images": [')
        for record in records:
            if record["status"] != "ok":
                failed += 1
                continue
            images += 1
            calibrated.add(bool(record["calibrated"]))
            _write_item(file.write, images, _coco_image(record, images))
            for region in record["regions"]:
                annotations += 1
                kind = region["kind"] or _NO_KIND
                category = categories.setdefault(kind, len(categories) + 1)
                item = _coco_annotation(region, annotations, images, category)
                _write_item(second.write, annotations, item)
        file.write(b'\n], "annotations": [')
        second.seek(0)
        shutil.copyfileobj(second, file)
        listed = [{"id": i, "name": n, "supercategory": "defect"} for n, i in categories.items()]
        info = _coco_info(calibrated, failed)
        file.write(
            f'\n], "categories": {json.dumps(listed)}, "info": {json.dumps(info)}}}\n'.encode()
        )


def write_map_tiff(path: str | Path, map: np.ndarray) -> None:
    """Write an anomaly map ``(H, W)`` as a single-channel float32 TIFF, uncompressed.

    Raises:
        ValueError: the map is not two-dimensional.
    """
    if map.ndim != 2:
        raise ValueError(f"the map must be (H, W), got {map.shape}")
    with atomic_write(Path(path)) as file:
        tifffile.imwrite(file, np.asarray(map, np.float32), photometric="minisblack", metadata=None)


def map_path(run_folder: str | Path, image_path: str | Path, root: str | Path) -> Path:
    """Say where the map of an image belongs: below ``run_folder/maps``, one place per image.

    Images in the MVTec layout, ``<object>/test/<defect>/<id>.png``, get
    ``maps/<object>/test/<defect>/<id>.tiff`` if ``root`` is the folder that holds the objects or
    any folder further in; other images keep their path below ``root``. Where a folder holds files
    that differ in the ending only, the ending stays in the name: ``a.png.tiff``, ``a.jpg.tiff``.

    Args:
        run_folder: of the run.
        image_path: of the image.
        root: folder that all images of the run lie in, the same for all of them. An image that
            does not is put into a folder of its own kind.
    """
    image = Path(os.path.abspath(image_path))  # noqa: PTH100 - resolve() would follow links
    base = Path(os.path.abspath(root))  # noqa: PTH100
    if image.is_relative_to(base) and image != base:
        parts = (*_layout_above(base), *image.relative_to(base).parts[:-1])
    else:
        digest = hashlib.sha256(os.fsencode(image.parent)).hexdigest()
        parts = (f"elsewhere-{digest[:16]}",)
    name = image.stem if _stem_is_unique(image) else image.name
    safe = [part.translate(_NOT_IN_NAMES) for part in (*parts, f"{name}.tiff")]
    return Path(run_folder, "maps", *safe)


def _layout_above(root: Path) -> tuple[str, ...]:
    """The part ``<object>/test/<defect>`` of the MVTec layout that lies at or above ``root``.

    It depends on ``root`` alone, so that two images never come to share a place.
    """
    names = root.parts[1:]  # the first one is the drive or "/"
    if root.parent.name == "test":
        return names[-3:]
    if root.name == "test":
        return names[-2:]
    return (root.name,) if (root / "test").is_dir() else ()


def _stem_is_unique(image: Path) -> bool:
    """Whether no file beside the image has the same name up to the ending."""
    folder = image.parent
    try:
        names = _names_in(folder, folder.stat().st_mtime_ns)
    except OSError:
        return True
    first = bisect.bisect_left(names, image.stem + ".")
    same = [name for name in names[first : first + 2] if name.startswith(image.stem + ".")]
    bare = bisect.bisect_left(names, image.stem)
    return all(name == image.name for name in same) and names[bare : bare + 1] != [image.stem]


@functools.lru_cache(maxsize=16)
def _names_in(folder: Path, changed: int) -> list[str]:
    """Names in a folder, sorted; ``changed`` makes a changed folder be read again."""
    return sorted(entry.name for entry in folder.iterdir())


def _image_row(record: Mapping[str, Any]) -> list[Any]:
    regions = record.get("regions", ())
    extra = {
        "kinds": "; ".join(dict.fromkeys(region["kind"] or _NO_KIND for region in regions)),
        "largest_area_percent": max((region["area_percent"] for region in regions), default=None),
    }
    return [{**record, **extra}.get(column) for column in IMAGE_COLUMNS]


def _region_rows(record: Mapping[str, Any]) -> Iterator[list[Any]]:
    for number, region in enumerate(record.get("regions", ()), start=1):
        x, y, width, height = region["box"]
        place = {"region": number, "x": x, "y": y, "width": width, "height": height}
        shared = {name: record[name] for name in ("image", "object", "verdict", "calibrated")}
        row = {**region, **shared, **place}
        yield [row[column] for column in REGION_COLUMNS]


def _write_table(path: str | Path, columns: Sequence[str], rows: Iterable[list[Any]]) -> None:
    with atomic_write(Path(path)) as file:
        # File names that are no valid text are written with escapes rather than refused.
        text = io.TextIOWrapper(file, "utf-8", errors="backslashreplace", newline="")
        writer = csv.writer(text)
        writer.writerow(columns)
        for row in rows:
            writer.writerow([_cell(value) for value in row])
        text.flush()
        text.detach()  # closing it would close the file before it is on disk


def _cell(value: Any) -> Any:
    """Keep spreadsheet programs from running text (names of files, say) as formulas."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str):
        return value  # numbers and None
    starts = value.lstrip().startswith(_FORMULA) or value.startswith(("\t", "\r", "\n"))
    return f"'{value}" if starts else value


def _write_item(write: Callable[[bytes], Any], number: int, item: Record) -> None:
    comma = "," if number > 1 else ""
    write(f"{comma}\n{json.dumps(item, allow_nan=False)}".encode())


def _coco_image(record: Mapping[str, Any], number: int) -> Record:
    shared = {name: record[name] for name in ("width", "height", "verdict", "score", "p_value")}
    return {"id": number, "file_name": record["image"], **shared}


def _coco_annotation(region: Mapping[str, Any], number: int, image: int, category: int) -> Record:
    return {
        "id": number,
        "image_id": image,
        "category_id": category,
        "bbox": region["box"],
        "area": region["area"],
        "segmentation": region["rle"],
        "iscrowd": 0,
        **{name: region[name] for name in ("score", "p_value", "kind_score")},
    }


def _coco_info(calibrated: set[bool], failed: int) -> Record:
    sure = calibrated == {True}
    return {
        "description": "ZeroDefect inspection"
        + ("" if sure else ": not calibrated, verdicts and regions are provisional"),
        "calibrated": sure,
        "failed_images": failed,
        "version": __version__,
    }

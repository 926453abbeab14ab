"""Results for other programs: tables (CSV), annotations (COCO), anomaly maps (TIFF).

Every file appears complete or not at all; ``StoreError`` where the operating system refuses.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
import os
import re
import shutil
import sys
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tifffile

from zerodefect.files import atomic_write
from zerodefect.inspection.records import Record
from zerodefect.reports.conversation_columns import SAID_COLUMNS, said_columns
from zerodefect.types import Count
from zerodefect.version import __version__

IMAGE_COLUMNS = (
    *("image", "status", "object", "verdict", "calibrated", "score", "p_value", "count", "kinds"),
    *("largest_area_percent", "width", "height", "explanation", "answer", "notes"),
    *("reason", "remedy", "allowed", "part", "counts", "rules", *SAID_COLUMNS),
)
REGION_COLUMNS = (
    *("image", "object", "verdict", "calibrated", "region", "kind", "kind_score"),
    *("x", "y", "width", "height", "area", "area_percent", "score", "p_value"),
    "allowed",
)
PART_COLUMNS = (
    *("part", "verdict", "calibrated", "score", "p_value", "count", "decisive", "images"),
    *("explanation", "reason"),
)
_NO_KIND = "anomaly"

CocoForm = Literal["rle", "polygons"]

# What spreadsheet programs take for the beginning of a formula, full-width forms included.
_FORMULA = tuple("=+-@\uff1d\uff0b\uff0d\uff20")

# What ends a cell in one program or another.
_SPLITTING = re.compile(r'[,;|"\s]')

# Bytes that a name may take on nearly all file systems, and a path with it.
_LONGEST_NAME = 255
_DEEPEST = 200  # folders; Python makes them one in another
_LONGEST_PATH = {"linux": 4000, "darwin": 1000}.get(sys.platform, 250)

# Signs that no name may hold on some system; % keeps the replacement unambiguous.
_NOT_IN_NAMES = str.maketrans(
    {sign: f"%{ord(sign):02X}" for sign in ('%\\:*?"<>|\x7f' + "".join(map(chr, range(32))))}
)


def write_csv(records: Iterable[Mapping[str, Any]], path: str | Path) -> None:
    """Write one row per image (``IMAGE_COLUMNS``), failed ones included; UTF-8.

    ``kinds`` lists the kinds of the regions by falling score, ``notes`` what is to know about the
    file, both separated by ``"; "``. Text that a spreadsheet would take for a formula is preceded
    by an apostrophe; text with any sign that some program splits cells at is quoted. ``counts`` has
    how many defects of each kind there are, see ``types.Count``, ``rules`` whether each rule is
    kept and what was measured.
    """
    _write_table(path, IMAGE_COLUMNS, (image_row(record) for record in records))


def write_regions_csv(records: Iterable[Mapping[str, Any]], path: str | Path) -> None:
    """Write one row per region (``REGION_COLUMNS``), numbered from 1 in each image; UTF-8."""
    rows = (row for record in records for row in region_rows(record))
    _write_table(path, REGION_COLUMNS, rows)


def write_parts_csv(records: Iterable[Mapping[str, Any]], path: str | Path) -> None:
    """Write one row per part of several pictures (``PART_COLUMNS``); UTF-8.

    ``images`` lists the names of its pictures, separated by ``"; "``.
    """
    rows = (
        {**record, "images": "; ".join(one["image"] for one in record["pictures"])}
        for record in records
    )
    _write_table(path, PART_COLUMNS, ([row.get(c) for c in PART_COLUMNS] for row in rows))


def write_coco(
    records: Iterable[Mapping[str, Any]],
    path: str | Path,
    *,
    kinds: Sequence[str] = (),
    form: CocoForm = "rle",
) -> None:
    """Write the regions as COCO annotations, with the raw score of each.

    Args:
        records: read once; only one is held in memory at a time. Failed images are left out and
            counted in ``info``.
        path: the JSON file.
        kinds: names that come first among the categories, in this order; further kinds follow as
            they come up. Regions without a kind are of category "anomaly".
        form: how regions are written: run lengths, or outlines for tools that edit them. An
            outline would fill a hole, so that regions with holes are run lengths in either form.
    """
    categories: dict[str, int] = {name: i for i, name in enumerate(kinds, start=1)}
    calibrated: set[bool] = set()
    hosts: set[str] = set()
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
            hosts.update(filter(None, [said_columns(record)["pictures_sent_to"]]))
            _write_item(file.write, images, _coco_image(record, images))
            for region in record["regions"]:
                annotations += 1
                kind = region["kind"] or _NO_KIND
                category = categories.setdefault(kind, len(categories) + 1)
                item = _coco_annotation(region, annotations, images, category, form)
                _write_item(second.write, annotations, item)
        file.write(b'\n], "annotations": [')
        second.seek(0)
        shutil.copyfileobj(second, file)
        listed = [{"id": i, "name": n, "supercategory": "defect"} for n, i in categories.items()]
        info = _coco_info(calibrated, failed, sorted(hosts))
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
    A hash of the name is added to names that differ in upper and lower case only, which some disks
    do not tell apart, and takes the place of what is too long for a name.

    Args:
        run_folder: of the run.
        image_path: of the image.
        root: folder that all images of the run lie in, the same for all of them. Images that do
            not, or whose paths would be too long or deep, get a folder for each of theirs.
    """
    image = Path(os.path.abspath(image_path))  # noqa: PTH100 - resolve() would follow links
    base = Path(os.path.abspath(root))  # noqa: PTH100
    if image.is_relative_to(base) and image != base:
        inside = image.relative_to(base).parts[:-1]
        above = (base.joinpath(*inside[:depth]) for depth in range(1, len(inside) + 1))
        parts = [*map(_safe, _layout_above(base)), *map(_folder_name, above)]
        path = Path(run_folder, "maps", *parts, _map_name(image))
        if len(os.fsencode(path.absolute())) <= _LONGEST_PATH and len(parts) <= _DEEPEST:
            return path
    return Path(run_folder, "maps", f"elsewhere-{_digest(image.parent)}", _map_name(image))


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


def _map_name(image: Path) -> str:
    """Name of an image's map, without the image's ending where that leaves it to one image."""
    names, stems = _names_beside(image)
    stem = _folded(image.stem)
    if stems[stem] < 2 and names[stem] <= (image.name == image.stem):
        return _safe(image.stem, ".tiff")
    return _safe(image.name, ".tiff", unique=names[_folded(image.name)] < 2)


def _folder_name(folder: Path) -> str:
    return _safe(folder.name, unique=_names_beside(folder)[0][_folded(folder.name)] < 2)


def _safe(name: str, ending: str = "", *, unique: bool = True) -> str:
    """A name that every system takes; what would be lost of the given one stands in a hash."""
    safe = name.translate(_NOT_IN_NAMES)
    if unique and len(os.fsencode(safe + ending)) <= _LONGEST_NAME:
        return safe + ending
    ending = f"-{_digest(name)}{ending}"
    room = _LONGEST_NAME - len(ending)
    return os.fsencode(safe)[:room].decode(errors="ignore") + ending


def _digest(name: str | Path) -> str:
    return hashlib.sha256(os.fsencode(name)).hexdigest()[:16]


def _folded(name: str) -> str:
    """What a disk that ignores case, or composes accents in its own way, takes a name for."""
    return unicodedata.normalize("NFC", name.casefold())


def _names_beside(path: Path) -> tuple[Counter[str], Counter[str]]:
    """How often each name, and each name up to its ending, stands in the folder of a file."""
    try:
        return _names_in(path.parent, path.parent.stat().st_mtime_ns)
    except OSError:
        return Counter(), Counter()


@functools.lru_cache(maxsize=16)
def _names_in(folder: Path, changed: int) -> tuple[Counter[str], Counter[str]]:
    """See ``_names_beside``; ``changed`` makes a changed folder be read again."""
    names = list(folder.iterdir())
    return Counter(_folded(n.name) for n in names), Counter(_folded(n.stem) for n in names)


def image_row(record: Mapping[str, Any]) -> list[Any]:
    """Values of ``IMAGE_COLUMNS`` of an image's record."""
    regions = record.get("regions", ())
    extra = {
        "kinds": "; ".join(dict.fromkeys(region["kind"] or _NO_KIND for region in regions)),
        "largest_area_percent": max((region["area_percent"] for region in regions), default=None),
        "notes": "; ".join(record.get("notes") or ()),
        "counts": "; ".join(str(Count(**one)) for one in record.get("counts") or ()),
        "rules": "; ".join(f"{r['truth']}: {r['told']}" for r in record.get("rules") or ()),
        **said_columns(record),
    }
    return [{**record, **extra}.get(column) for column in IMAGE_COLUMNS]


def region_rows(record: Mapping[str, Any]) -> Iterator[list[Any]]:
    """Values of ``REGION_COLUMNS`` of each region in an image's record."""
    for number, region in enumerate(record.get("regions", ()), start=1):
        x, y, width, height = region["box"]
        place = {"region": number, "x": x, "y": y, "width": width, "height": height}
        shared = {name: record[name] for name in ("image", "object", "verdict", "calibrated")}
        row = {**region, **shared, **place}
        yield [row.get(column) for column in REGION_COLUMNS]


def _write_table(path: str | Path, columns: Sequence[str], rows: Iterable[list[Any]]) -> None:
    with atomic_write(Path(path)) as file:
        # File names that are no valid text are written with escapes rather than refused.
        text = io.TextIOWrapper(file, "utf-8", errors="backslashreplace", newline="")
        for row in chain([columns], rows):
            text.write(",".join(map(_cell, row)) + "\r\n")
        text.flush()
        text.detach()  # closing it would close the file before it is on disk


def _cell(value: Any) -> str:
    """Keep spreadsheet programs from running text (names of files, say) as formulas.

    The ``csv`` module quotes what holds its own separator only; in half of Europe, spreadsheets
    split at semicolons, and what follows one would begin a cell.
    """
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    text = str(value)
    if not isinstance(value, str):
        return text
    if text.lstrip().startswith(_FORMULA) or text.startswith(("\t", "\r", "\n")):
        text = f"'{text}"
    doubled = text.replace('"', '""')
    return f'"{doubled}"' if _SPLITTING.search(text) else text


def _write_item(write: Callable[[bytes], Any], number: int, item: Record) -> None:
    comma = "," if number > 1 else ""
    write(f"{comma}\n{json.dumps(item, allow_nan=False)}".encode())


def _coco_image(record: Mapping[str, Any], number: int) -> Record:
    shared = {name: record[name] for name in ("width", "height", "verdict", "score", "p_value")}
    return {"id": number, "file_name": record["image"], **shared}


def _coco_annotation(
    region: Mapping[str, Any], number: int, image: int, category: int, form: CocoForm
) -> Record:
    outlined = form == "polygons" and not _has_holes(region)
    return {
        "id": number,
        "image_id": image,
        "category_id": category,
        "bbox": region["box"],
        "area": region["area"],
        "segmentation": region["polygons" if outlined else "rle"],
        "iscrowd": 0,
        **{name: region.get(name) for name in ("score", "p_value", "kind_score", "allowed")},
    }


def _has_holes(region: Mapping[str, Any]) -> bool:
    """Whether the outlines, which run along edges of pixels, enclose more than the region."""
    doubled = 0.0
    for points in region["polygons"]:
        x, y = points[::2], points[1::2]
        corners = zip(x, y, [*x[1:], x[0]], [*y[1:], y[0]], strict=True)
        doubled += abs(sum(a * d - b * c for a, b, c, d in corners))
    return bool(doubled != 2 * region["area"])


def _coco_info(calibrated: set[bool], failed: int, hosts: list[str]) -> Record:
    sure = calibrated == {True}
    return {
        "description": "ZeroDefect inspection"
        + ("" if sure else ": not calibrated, verdicts and regions are provisional"),
        "calibrated": sure,
        "failed_images": failed,
        **({"pictures_sent_to": hosts} if hosts else {}),
        "version": __version__,
    }

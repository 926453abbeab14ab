"""One image's outcome as a plain dictionary that is strict JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from zerodefect.images.run_lengths import counts_to_text
from zerodefect.types import Failure, Region

if TYPE_CHECKING:
    from zerodefect.inspection.inspected import Inspection

Record = dict[str, Any]


def to_record(
    inspection: Inspection,
    *,
    map_path: str | None = None,
    assets: Mapping[str, str] | None = None,
    part: str | None = None,
) -> Record:
    """Turn an inspection into a record of ``results.jsonl``.

    Args:
        inspection: the outcome; its map is not part of the record.
        map_path: where the map was written, relative to the run folder, or None.
        assets: pictures for the report, relative to the run folder, or None.
        part: name of the part that the image shows, where parts have several; or None.

    Raises:
        ValueError: a number is NaN or infinite, which JSON cannot say.
    """
    return {
        "image": inspection.image,
        "status": "ok",
        "object": inspection.object,
        "width": int(inspection.width),
        "height": int(inspection.height),
        "verdict": inspection.verdict,
        "calibrated": bool(inspection.calibrated),
        "score": _number(inspection.score, "score"),
        "p_value": _number(inspection.p_value, "p_value"),
        "count": inspection.count,
        "counts": [asdict(one) for one in inspection.counts],
        "regions": [_region_record(r, inspection) for r in inspection.regions],
        "explanation": inspection.explanation,
        "answer": inspection.answer,
        "reason": inspection.reason,
        "allowed": inspection.allowed,
        "part": part,
        "notes": [*inspection.notes, *(one.remark for one in inspection.words if one.remark)],
        "map": map_path,
        "assets": None if assets is None else dict(assets),
        "transductive": bool(inspection.transductive),
        "area": _area_record(inspection),
        "words": [one.to_dict() for one in inspection.words],
        "rules": [one.model_dump(mode="json") for one in inspection.rules],
        "components": [one.model_dump(mode="json") for one in inspection.components],
        "explained": inspection.explained and inspection.explained.to_dict(),
        "conversation": [one.to_dict() for one in inspection.conversation],
    }


def failure_record(failure: Failure, *, part: str | None = None) -> Record:
    """Turn a failure into a record of ``results.jsonl``; ``part`` as in ``to_record``."""
    return {**failure.to_dict(), "part": part}


def _region_record(region: Region, inspection: Inspection) -> Record:
    return {
        "box": [int(value) for value in region.box],
        "area": int(region.area),
        "area_percent": _number(region.area_percent, "area_percent"),
        "score": _number(region.score, "region score"),
        "p_value": _number(region.p_value, "region p_value"),
        "kind": region.kind,
        "kind_score": _number(region.kind_score, "kind_score"),
        "allowed": region.allowed,
        # Outlines run along pixel edges: 12 instead of 12.0 saves a third of the file.
        "polygons": [[int(v) if v.is_integer() else v for v in one] for one in region.polygons],
        "rle": region_rle(region, inspection.height, inspection.width),
    }


def _area_record(inspection: Inspection) -> Record | None:
    """Where words found the area that was inspected; ``rle`` is null where all was."""
    found, size = inspection.area, (inspection.height, inspection.width)
    if found is None:
        return None
    mask = found.mask(*size)
    rle = None if mask is None else mask_rle(mask, (0, 0), *size)
    return {"words": str(found.words), "percent": round(found.percent, 2), "rle": rle}


def _number(value: float | None, name: str) -> float | None:
    number = None if value is None else float(value)
    if number is not None and not math.isfinite(number):
        raise ValueError(f"{name} is {number}, which JSON cannot say")
    return number


def region_rle(region: Region, height: int, width: int) -> dict[str, Any]:
    """Encode a region's mask within its ``height`` x ``width`` image, see ``mask_rle``.

    Raises:
        ValueError: the region does not lie within the image.
    """
    x, y, box_width, box_height = region.box
    if x < 0 or y < 0 or x + box_width > width or y + box_height > height:
        raise ValueError(f"region {region.box} lies outside the {width} x {height} image")
    return mask_rle(region.mask, (x, y), height, width)


def mask_rle(mask: np.ndarray, corner: tuple[int, int], height: int, width: int) -> dict[str, Any]:
    """Encode a mask within a ``height`` x ``width`` image as COCO does, holes included.

    The mask is read column by column; the lengths of its runs, beginning with background, are
    written as text (``counts_to_text``).

    Args:
        mask: ``(h, w)`` bool, within the image.
        corner: ``(x, y)`` of its upper left pixel in the image.
        height, width: of the image.

    Returns:
        ``size`` is ``[height, width]``, ``counts`` the text.
    """
    x, y = corner
    change = np.diff(np.pad(mask.T.astype(np.int8), ((0, 0), (1, 1))), axis=1)
    # Where the runs of each column begin and end, counted through the image column by column.
    starts, ends = (
        (columns + x) * height + rows + y
        for columns, rows in (np.nonzero(change == 1), np.nonzero(change == -1))
    )
    # A run that reaches the bottom goes on at the top of the next column: end and start cancel.
    edges = np.setxor1d(starts, ends, assume_unique=True)
    counts = np.diff(edges, prepend=0, append=height * width).tolist()
    if counts[-1] == 0 and len(counts) > 1:
        counts.pop()
    return {"size": [height, width], "counts": counts_to_text(counts)}

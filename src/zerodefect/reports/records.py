"""One image's outcome as a plain dictionary that is strict JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from zerodefect.reports.rle import region_rle
from zerodefect.types import Failure, Inspection, Region

Record = dict[str, Any]


def to_record(
    inspection: Inspection, *, map_path: str | None = None, assets: Mapping[str, str] | None = None
) -> Record:
    """Turn an inspection into a record of ``results.jsonl``.

    Args:
        inspection: the outcome; its map is not part of the record.
        map_path: where the map was written, relative to the run folder, or None.
        assets: pictures for the report, relative to the run folder, or None.

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
        "regions": [_region_record(r, inspection) for r in inspection.regions],
        "explanation": inspection.explanation,
        "answer": inspection.answer,
        "notes": list(inspection.notes),
        "map": map_path,
        "assets": None if assets is None else dict(assets),
    }


def failure_record(failure: Failure) -> Record:
    """Turn a failure into a record of ``results.jsonl``."""
    told = {"reason": failure.reason, "remedy": failure.remedy}
    return {"image": failure.image, "status": "failed", **told}


def _region_record(region: Region, inspection: Inspection) -> Record:
    return {
        "box": [int(value) for value in region.box],
        "area": int(region.area),
        "area_percent": _number(region.area_percent, "area_percent"),
        "score": _number(region.score, "region score"),
        "p_value": _number(region.p_value, "region p_value"),
        "kind": region.kind,
        "kind_score": _number(region.kind_score, "kind_score"),
        # Outlines run along pixel edges: 12 instead of 12.0 saves a third of the file.
        "polygons": [[int(v) if v.is_integer() else v for v in one] for one in region.polygons],
        "rle": region_rle(region, inspection.height, inspection.width),
    }


def _number(value: float | None, name: str) -> float | None:
    number = None if value is None else float(value)
    if number is not None and not math.isfinite(number):
        raise ValueError(f"{name} is {number}, which JSON cannot say")
    return number

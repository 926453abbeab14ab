"""One image's outcome as a plain dictionary that is strict JSON, and back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from zerodefect.reports.rle import decode_rle_box, region_rle
from zerodefect.types import Failure, Inspection, Region

Record = dict[str, Any]


def to_record(
    inspection: Inspection,
    *,
    map_path: str | None = None,
    assets: Mapping[str, str] | None = None,
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
        "p_value": _number_or_none(inspection.p_value, "p_value"),
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
    return {
        "image": failure.image,
        "status": "failed",
        "reason": failure.reason,
        "remedy": failure.remedy,
    }


def from_record(record: Mapping[str, Any]) -> Inspection | Failure:
    """Turn a record back; masks come back exactly, the map stays None.

    Raises:
        ValueError: the record's status is unknown or a mask does not fit its region.
        KeyError: a field is missing.
    """
    if record["status"] == "failed":
        return Failure(record["image"], record["reason"], record["remedy"])
    if record["status"] != "ok":
        raise ValueError(f"unknown status {record['status']!r} of {record['image']!r}")
    return Inspection(
        image=record["image"],
        object=record["object"],
        width=record["width"],
        height=record["height"],
        verdict=record["verdict"],
        calibrated=record["calibrated"],
        score=record["score"],
        p_value=record["p_value"],
        regions=tuple(_region(region) for region in record["regions"]),
        explanation=record["explanation"],
        notes=tuple(record["notes"]),
        answer=record.get("answer"),  # records of earlier versions have none
    )


def _region_record(region: Region, inspection: Inspection) -> Record:
    return {
        "box": [int(value) for value in region.box],
        "area": int(region.area),
        "area_percent": _number(region.area_percent, "area_percent"),
        "score": _number(region.score, "region score"),
        "p_value": _number_or_none(region.p_value, "region p_value"),
        "kind": region.kind,
        "kind_score": _number_or_none(region.kind_score, "kind_score"),
        "polygons": [[_short(value) for value in polygon] for polygon in region.polygons],
        "rle": dict(region_rle(region, inspection.height, inspection.width)),
    }


def _region(record: Mapping[str, Any]) -> Region:
    x, y, width, height = record["box"]
    return Region(
        box=(x, y, width, height),
        mask=decode_rle_box(record["rle"], (x, y, width, height)),
        polygons=tuple(tuple(float(v) for v in polygon) for polygon in record["polygons"]),
        area=record["area"],
        area_percent=record["area_percent"],
        score=record["score"],
        p_value=record["p_value"],
        kind=record["kind"],
        kind_score=record["kind_score"],
    )


def _number(value: float, name: str) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{name} is {number}, which JSON cannot say")
    return number


def _number_or_none(value: float | None, name: str) -> float | None:
    return None if value is None else _number(value, name)


def _short(value: float) -> float | int:
    """Outlines run along pixel edges: 12 instead of 12.0 saves a third of the file."""
    number = _number(value, "outline")
    return int(number) if number.is_integer() else number

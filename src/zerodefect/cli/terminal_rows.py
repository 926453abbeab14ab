"""Rows of the table that 'inspect' prints."""

from __future__ import annotations

from collections import Counter
from typing import Any

_ANSWER = 100  # characters of what a model says that outlines no region


def picture_row(record: dict[str, Any]) -> dict[str, Any]:
    """What the table needs of a record, so that a long run does not stay in memory whole."""
    from zerodefect.inspection.chat_answers import shortened

    kinds = Counter(region["kind"] or "anomaly" for region in record.get("regions", []))
    found = ", ".join(f"{n} x {kind}" if n > 1 else kind for kind, n in kinds.items())
    told = [record.get("reason"), *(word["remark"] for word in record.get("words") or ())]
    return {
        "image": record["image"],
        "verdict": record.get("verdict", "failed"),
        "score": record.get("score"),
        "p_value": record.get("p_value"),
        "kinds": found or shortened(record.get("answer") or "", _ANSWER),
        "reason": "; ".join(filter(None, [record.get("reason"), *_not_kept(record)])),
        "notes": "; ".join(n for n in record.get("notes", []) if n not in told),
    }


def _not_kept(record: dict[str, Any]) -> list[str]:
    """Rules that a picture breaks, or leaves uncertain."""
    some = [one for one in record.get("rules") or () if one["truth"] != "kept"]
    return [f"{one['truth']}: {one['told']}" for one in some]


def part_row(record: dict[str, Any]) -> dict[str, Any]:
    """The same of a part with several pictures."""
    shown = ("verdict", "score", "p_value")
    decisive = f"decisive of {record['count']}: {record['decisive']}"
    return {
        **{name: record[name] for name in shown},
        "image": record["part"],
        "kinds": decisive if record["decisive"] else "",
        "reason": record["reason"] or "",
        "notes": "",
    }

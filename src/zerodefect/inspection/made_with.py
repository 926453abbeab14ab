"""What limits were learned with, and what differs where a policy does not fit."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

# What decides a score besides product and method, and the option by which it is chosen.
_OPTIONS = {
    "checkpoint": "--checkpoint",
    "weights": "--backbone, --weights",
    "precision": "--precision",
    "input": "--image-size",
    "settings": "--set",
    "tiles and aspect": "--tile, --overlap, --keep-aspect",
    "areas": "--roi, --ignore",
}
_READABLE = ("precision",)  # the others are digests, or long


def made_with(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The short form of an inspector's facts that a policy keeps; plain data."""
    return {
        "references": facts["shots"],
        "pictures": _digest(facts["references"]),
        "checkpoint": facts.get("checkpoint"),
        "weights": facts["weights"],
        "precision": facts["precision"],
        "input": _digest(facts["preprocess"]),
        "settings": _digest(facts["config"]),
        "tiles and aspect": _digest(facts["viewing"]),
        "areas": facts["areas"],
    }


def what_differs(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Each difference between two of ``made_with``, and what to do; only of what both tell."""
    found = []
    made, given = before.get("references", 0), now.get("references", 0)
    if made and not given:
        found.append(f"made with {_count(made)}: add --reference")
    elif given and not made:
        found.append(f"made without references, {given} now: drop --reference")
    elif made != given:
        found.append(f"made with {_count(made)}, {given} now: give the same --reference")
    elif before.get("pictures", 0) != now.get("pictures") and "pictures" in before:
        found.append("other pictures as references: give the same --reference")
    for name, option in _OPTIONS.items():
        if name in before and before[name] != now.get(name):
            values = (before[name], now.get(name)) if name in _READABLE else ()
            told = f" ({values[0]} then, {values[1]} now)" if values else ""
            found.append(f"other {name}{told}: see {option}")
    return found


def _count(references: int) -> str:
    return f"{references} reference{'s' * (references != 1)}"


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:12]

"""What chat models say of a picture, as columns of tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zerodefect.inspection.explanation import Explanation

SAID_COLUMNS = ("said", "said_by", "contradictions", "pictures_sent_to")
"""Of ``results.csv``; several entries of a picture are separated by ``"; "``."""
ENTRY_FIELDS = (
    *("question", "location", "kind", "why", "verdict", "source", "sent_to", "fault"),
    *("contradictions", "remarks"),
)
"""Texts of an entry in ``results.parquet``."""


def said_columns(record: Mapping[str, Any]) -> dict[str, str]:
    """Values of ``SAID_COLUMNS`` of an image's record."""
    entries = [Explanation.model_validate(one) for one in record.get("conversation") or ()]
    return {
        "said": "; ".join(
            f"{one.question}: {one.sentence()}" if one.question else one.sentence()
            for one in entries
        ),
        "said_by": "; ".join(dict.fromkeys(one.source for one in entries)),
        "contradictions": " ".join(text for one in entries for text in one.contradictions),
        "pictures_sent_to": "; ".join(
            dict.fromkeys(one.sent_to for one in entries if one.sent_to is not None)
        ),
    }


def entry_rows(record: Mapping[str, Any]) -> list[dict[str, str | None]]:
    """Values of ``ENTRY_FIELDS`` of each entry in an image's record."""
    return [
        {name: _text(one.get(name)) for name in ENTRY_FIELDS}
        for one in record.get("conversation") or ()
    ]


def _text(value: Any) -> str | None:
    return " ".join(value) if isinstance(value, list) else value

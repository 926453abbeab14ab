"""The page that 'zerodefect setup' leaves: what was learned of a product, in one HTML file."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

import numpy as np

from zerodefect.files import atomic_write
from zerodefect.images import encode_jpeg, thumbnail
from zerodefect.inspection.records import Record
from zerodefect.reports.report_page import facts_list, filled, promises
from zerodefect.reports.report_pictures import THUMB_SIDE
from zerodefect.types import told_score

_SHOWN = 24  # thumbnails; more make no page better
_WIDTH, _HEIGHT = 640, 150  # of the drawing, in its own units
_BARS = 32


def write_setup_page(
    path: Path,
    *,
    heading: str,
    facts: Mapping[str, object],
    policy: Record,
    references: Sequence[tuple[str, np.ndarray]],
    finds: Sequence[str],
    commands: Sequence[tuple[str, str]],
) -> None:
    """Write the page; it needs neither network nor script.

    Args:
        path: of the HTML file.
        heading: what the product is called.
        facts: names and values for the head.
        policy: as JSON, calibrated.
        references: names and pictures ``(H, W, 3)`` uint8; the first of them are shown.
        finds: sentences on the damage that would be found; empty where it was not measured.
        commands: what to type next, each with what it does.

    Raises:
        StoreError: the file cannot be written.
    """
    limits = policy["limits"]
    rows = [
        (name, told_score(limits[name]) if limits[name] is not None else "none can be proven")
        for name in ("defect", "unsure")
    ]
    parts = {
        "title": escape(f"{heading}: what was learned"),
        "heading": escape(heading),
        "facts": facts_list(facts),
        "promises": _paragraphs(promises(policy)),
        "limits": "".join(
            f'<tr><td>{name} above</td><td class="number">{value}</td></tr>' for name, value in rows
        ),
        "drawing": _drawing(policy["scores"], limits),
        "finds": _paragraphs(finds or [_NOT_MEASURED]),
        "references": "".join(map(_card, references[:_SHOWN])),
        "count": str(len(references))
        + (f", {_SHOWN} of them shown" if len(references) > _SHOWN else ""),
        "commands": "".join(
            f"<p>{escape(what)}</p><pre><code>{escape(typed)}</code></pre>"
            for typed, what in commands
        ),
    }
    with atomic_write(path) as file:
        file.write(filled("setup.html", parts).encode("utf-8", "replace"))


_NOT_MEASURED = "Not measured. That defects are found is not guaranteed."


def _paragraphs(sentences: Sequence[str]) -> str:
    return "".join(f"<p>{escape(sentence)}</p>" for sentence in sentences)


def _card(reference: tuple[str, np.ndarray]) -> str:
    name, pixels = reference
    data = base64.b64encode(encode_jpeg(thumbnail(pixels, THUMB_SIDE))).decode("ascii")
    source = f"data:image/jpeg;base64,{data}"
    return (
        f'<li class="card"><span class="thumb"><img src="{source}" alt="{escape(name)}"></span>'
        f'<span class="text"><span class="name">{escape(name)}</span></span></li>'
    )


def _drawing(scores: Sequence[float], limits: Mapping[str, float | None]) -> str:
    """Histogram of the good pictures' scores, with the limits."""
    marks = {name: limit for name, limit in limits.items() if limit is not None}
    low, high = min([*scores, *marks.values()]), max([*scores, *marks.values()])
    room = 0.08 * (high - low) or 1e-3
    low, high = low - room, high + room
    counts, _ = np.histogram(scores, _BARS, (low, high))
    step, tallest = _WIDTH / _BARS, max(1, counts.max())
    bars = "".join(
        f'<rect class="bar good" x="{place * step + 1:.1f}" y="{_HEIGHT - height:.1f}" '
        f'width="{step - 2:.1f}" height="{height:.1f}"/>'
        for place, height in enumerate(counts / tallest * (_HEIGHT - 40))
        if height
    )
    # the lower limit's name stands to the left of its line, so that two near ones can be read
    sides = {
        name: "end" if limit == min(marks.values()) else "start" for name, limit in marks.items()
    }
    lines = "".join(
        f'<path class="limit" d="M{x:.1f} 22V{_HEIGHT}"/>'
        f'<text class="limit-name" x="{x + (4 if sides[name] == "start" else -4):.1f}" y="16" '
        f'text-anchor="{sides[name]}">{name} above {told_score(limit)}</text>'
        for name, limit in marks.items()
        for x in [(limit - low) / (high - low) * _WIDTH]
    )
    label = f"Scores of {len(scores)} good pictures and the limits"
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT + 4}" role="img" aria-label="{label}">{bars}{lines}'
        f'<path class="axis" d="M0 {_HEIGHT}H{_WIDTH}"/></svg>'
    )

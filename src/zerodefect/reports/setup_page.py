"""The page that 'zerodefect setup' leaves: what was learned of a product, in one HTML file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

import numpy as np

from zerodefect.files import atomic_write
from zerodefect.images import jpeg_address, thumbnail
from zerodefect.inspection.power_curve import PowerCurve
from zerodefect.inspection.records import Record
from zerodefect.reports.power_section import power_section
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
    curve: PowerCurve | None,
    commands: Sequence[tuple[str, str]],
) -> None:
    """Write the page; it needs neither network nor script.

    Args:
        path: of the HTML file.
        heading: what the product is called.
        facts: names and values for the head.
        policy: as JSON, calibrated.
        references: names and pictures ``(H, W, 3)`` uint8; the first of them are shown.
        curve: which drawn damage would be found, None where it was not measured.
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
        "power": power_section(curve, opened=True) if curve else _NOT_MEASURED,
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


_NOT_MEASURED = (
    '<section class="panel"><h2>Which damage would be found</h2>'
    "<p>Not measured. That defects are found is not guaranteed.</p></section>"
)


def _paragraphs(sentences: Sequence[str]) -> str:
    return "".join(f"<p>{escape(sentence)}</p>" for sentence in sentences)


def _card(reference: tuple[str, np.ndarray]) -> str:
    name, pixels = reference
    source = jpeg_address(thumbnail(pixels, THUMB_SIDE))
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
        for place, height in enumerate(counts / tallest * (_HEIGHT - 50))
        if height
    )
    names: dict[float, str] = {}
    for name, limit in marks.items():
        names[limit] = f"{names[limit]} and {name}" if limit in names else name
    lines = "".join(  # each name on a line of its own, so that two near ones can be read
        f'<path class="limit" d="M{x:.1f} {top + 6}V{_HEIGHT}"/>'
        f'<text class="limit-name" x="{x + (-4 if x > _WIDTH / 2 else 4):.1f}" y="{top}" '
        f'text-anchor="{"end" if x > _WIDTH / 2 else "start"}">{name} above {told_score(limit)}'
        "</text>"
        for top, (limit, name) in zip((14, 30), sorted(names.items()), strict=False)
        for x in [(limit - low) / (high - low) * _WIDTH]
    )
    label = f"Scores of {len(scores)} good pictures and the limits"
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT + 4}" role="img" aria-label="{label}">{bars}{lines}'
        f'<path class="axis" d="M0 {_HEIGHT}H{_WIDTH}"/></svg>'
    )

"""The power curve in a page: sentences, and a table with a bar in each cell."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from zerodefect.inspection.power_curve import CONFIDENCE, Cell, PowerCurve

_STYLE = """<style>
.power > p { margin: 0 0 4px; max-width: 90ch; }
.power summary { margin-bottom: 4px; }
.power table { width: auto; }
.power td.share { min-width: 130px; white-space: nowrap; font-variant-numeric: tabular-nums; }
.power td.share small { color: var(--quiet, #5a666f); }
.power .bar { height: 6px; border-radius: 3px; margin-top: 3px; }
.power .bar { background: var(--line, #d9dee2); }
.power .bar i { display: block; height: 100%; border-radius: 3px; }
.power .bar i { background: var(--link, #0b5cad); }
</style>"""

_READING = (
    "Share of drawn damage that was found, and how many of how many; the range is where the share "
    f"lies with {100 * CONFIDENCE:.0f} % confidence. Size: width of lines, diameter of what is "
    "round, in pixels of the picture. Contrast: percent of the grey range, against the surface "
    "around."
)


def power_section(curve: PowerCurve, opened: bool = False) -> str:
    """HTML of a curve, for any page; it needs nothing besides.

    Args:
        curve: what was measured.
        opened: whether it is unfolded at first.
    """
    heading = "".join(f'<th scope="col">{one:g} % contrast</th>' for one in curve.contrasts)
    rows = "".join(
        f'<tr><th scope="row">{escape(kind)}</th><td class="number">{size} px</td>'
        f"{''.join(map(_cell, cells))}</tr>"
        for kind, size, cells in curve.rows()
    )
    sentences = "".join(f"<p>{escape(sentence)}</p>" for sentence in curve.sentences())
    return (
        f'{_STYLE}<details class="panel power" id="power"{" open" * opened}>'
        f"<summary>Which damage would be found</summary>{sentences}"
        '<div class="table"><table><thead><tr><th scope="col">Damage</th>'
        f'<th scope="col" class="number">Size</th>{heading}</tr></thead>'
        f'<tbody>{rows}</tbody></table></div><p class="quiet">{_READING}</p></details>'
    )


def power_of_run(manifest: Mapping[str, Any]) -> str:
    """The section of a run whose manifest carries a curve as ``power``; empty where none does.

    A curve that cannot be read, or was measured at other limits, is replaced by a line that says
    so.
    """
    data, policy = manifest.get("power"), manifest.get("policy") or {}
    if data is None:
        return ""
    try:
        curve = PowerCurve.from_dict(data)
    except ValueError as error:
        return _line(f"Which damage would be found is not shown: {error}.")
    unsure = (policy.get("limits") or {}).get("unsure")
    if not curve.fits(policy.get("fingerprint", ""), unsure, policy.get("region_limit")):
        return _line(
            "Which damage would be found is not known: it was measured at other limits than this "
            "run's."
        )
    return power_section(curve)


def _line(text: str) -> str:
    return f'<p class="panel power">{escape(text)}</p>'


def _cell(cell: Cell) -> str:
    if cell.share is None:
        return '<td class="share"><small>not measured</small></td>'
    low, high = cell.interval
    percent = f"{100 * cell.share:.0f}"
    return (
        f'<td class="share"><b>{percent} %</b> <small>{cell.found} of {cell.drawn}; '
        f"{100 * low:.0f}-{100 * high:.0f} %</small>"
        f'<div class="bar"><i style="width:{percent}%"></i></div></td>'
    )

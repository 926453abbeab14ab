"""How an inspection looks: its map and regions on its picture, and both in a notebook."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from zerodefect.images import jpeg_address, laid_over, thumbnail
from zerodefect.types import Region, printable, told_score

if TYPE_CHECKING:
    from zerodefect.inspection.explanation import Explanation
    from zerodefect.inspection.inspected import Inspection

_SIDE = 480  # pixels of the picture in a notebook
_REGIONS = 10  # that it lists
_COLOURS = {"good": "#1b7837", "unsure": "#8a6100", "defect": "#b2182b"}


def drawn_on(pixels: np.ndarray, inspection: Inspection) -> np.ndarray:
    """Map and outlines on the picture, uint8 ``(H, W, 3)``, whole or smaller."""
    size = inspection.height, inspection.width
    return laid_over(pixels, inspection.map, inspection.regions, size, inspection.colour_range)


def as_html(inspection: Inspection) -> str:
    """The inspection as HTML that stands alone; names of files and kinds are text in it."""
    told = verdict_html(inspection.verdict, inspection.calibrated)
    p = "" if inspection.p_value is None else f", p = {inspection.p_value:.3g}"
    lines = [
        f"<b>{_text(inspection.image)}</b>",
        f"{told} score {told_score(inspection.score)}{p}",
        _text(inspection.explanation),
        *map(_text, filter(None, [inspection.answer, *inspection.notes])),
        *(line for one in inspection.conversation for line in _said(one)),
    ]
    body = "".join(f"<div>{line}</div>" for line in lines if line)
    return f"<div>{_picture(inspection)}{body}{_table(inspection.regions)}</div>"


def _said(one: Explanation) -> Iterator[str]:
    """What a chat model says, and what of it contradicts the evidence."""
    where = f" at {one.sent_to} (pictures left this process)" if one.sent_to else ""
    asked = f"<i>{_text(one.question)}</i> " if one.question else ""
    yield f"{asked}{_text(one.source + where)}: {_text(one.sentence())}"
    for sentence in one.contradictions:
        yield f'<b style="color:{_COLOURS["defect"]}">Contradiction: {_text(sentence)}</b>'
    if one.remarks:
        yield _text("; ".join(one.remarks))


def verdict_html(verdict: str, calibrated: bool) -> str:
    """A verdict in its colour, and whether it is provisional."""
    caution = "" if calibrated else " (provisional)"
    return f'<b style="color:{_COLOURS.get(verdict, "#555")}">{_text(verdict)}</b>{caution}'


def html_table(heads: list[str], rows: list[list[str]]) -> str:
    """A table of cells that are HTML already."""
    top = "".join(f"<th>{head}</th>" for head in heads)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def _picture(inspection: Inspection) -> str:
    if inspection.picture is None:
        return ""
    shown = drawn_on(thumbnail(inspection.picture.to_uint8(), _SIDE), inspection)
    return f'<img src="{jpeg_address(shown)}" alt="{_text(inspection.image)}">'


def _table(regions: tuple[Region, ...]) -> str:
    rows = [
        [
            _text(region.kind or "anomaly"),
            "{}, {}: {} x {}".format(*region.box),
            f"{region.area_percent:.2g} %",
            told_score(region.score),
        ]
        for region in regions[:_REGIONS]
    ]
    more = len(regions) - len(rows)
    rest = f"<div>and {more} more</div>" if more else ""
    heads = ["kind", "x, y: width x height", "area", "score"]
    return html_table(heads, rows) + rest if rows else ""


def _text(text: object) -> str:
    return escape(printable(text))

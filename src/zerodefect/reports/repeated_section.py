"""The same mark on many pictures, in the report of a run and as a file."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from zerodefect.files import atomic_write
from zerodefect.inspection.repeated_marks import Member, RepeatedMark
from zerodefect.types import printable

FILE = "repeated.json"
_SHOWN, _EXAMPLES = 12, 6  # marks, and pictures of each

_STYLE = """<style>
.repeated ul { display: flex; flex-wrap: wrap; gap: 10px; list-style: none; padding: 0; }
.repeated li { width: 132px; font-size: 12px; overflow-wrap: anywhere; }
.repeated li img { width: 132px; height: 132px; object-fit: contain; display: block; }
</style>"""

Address = Callable[[str], "str | None"]


def write_repeated(marks: Sequence[RepeatedMark], folder: Path) -> None:
    """Write ``repeated.json``: the marks, the commonest first; removed where there is none."""
    path = folder / FILE
    if not marks:
        path.unlink(missing_ok=True)
        return
    with atomic_write(path) as file:
        file.write(json.dumps([mark.as_dict() for mark in marks], indent=2).encode("ascii"))


def repeated_section(
    marks: Sequence[RepeatedMark], thumbs: Mapping[str, str], address: Address
) -> str:
    """HTML of the marks with examples; empty where there is none.

    Args:
        marks: the commonest first.
        thumbs: small pictures by the image's name, relative to the run folder.
        address: where the page finds such a file.
    """
    if not marks:
        return ""
    more = len(marks) - _SHOWN
    rest = f'<p class="quiet">{more} more are in {FILE}.</p>' if more > 0 else ""
    parts = "".join(_told(mark, thumbs, address) for mark in marks[:_SHOWN])
    return (
        f'{_STYLE}<details class="panel repeated" id="repeated" open>'
        f"<summary>The same mark again</summary>{parts}{rest}</details>"
    )


def thumbs_of(
    marks: Sequence[RepeatedMark], records: Iterable[Mapping[str, Any]]
) -> dict[str, str]:
    """Small pictures of the examples by the image's name, those that the run has."""
    wanted = {one.image for mark in marks for one in mark.members[:_EXAMPLES]}
    return {
        record["image"]: record["assets"]["thumb"]
        for record in records
        if record["image"] in wanted and (record.get("assets") or {}).get("thumb")
    }


def _told(mark: RepeatedMark, thumbs: Mapping[str, str], address: Address) -> str:
    first = mark.members[:_EXAMPLES]
    shown = "".join(_example(one, thumbs.get(one.image), address) for one in first)
    return f"<p>{escape(printable(mark.sentence()))}</p><ul>{shown}</ul>"


def _example(member: Member, thumb: str | None, address: Address) -> str:
    """A link to a picture's page in the report, as the script names it."""
    whole = re.sub("[\ud800-\udfff]", "\ufffd", member.image)
    link = escape("#image=" + quote(whole, safe="!'()*-._~"))
    source = address(thumb) if thumb else None
    picture = f'<img src="{escape(source)}" alt="" loading="lazy">' if source else ""
    name = escape(printable(member.name))
    told = "below the limit" if member.region is None else f"region {member.region}"
    return f'<li><a href="{link}">{picture}{name}</a><br>{told}</li>'

"""The same mark on many pictures, in the report of a run and as a file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from zerodefect.files import atomic_write
from zerodefect.inspection.repeated_marks import Member, RepeatedMark
from zerodefect.reports.example_list import STYLE, Address, Example, examples, thumbs_of
from zerodefect.types import printable

FILE = "repeated.json"
_SHOWN, _EXAMPLES = 12, 6  # marks, and pictures of each


def write_repeated(marks: Sequence[RepeatedMark], folder: Path) -> None:
    """Write ``repeated.json``: the marks, the commonest first; removed where there is none."""
    path = folder / FILE
    if not marks:
        path.unlink(missing_ok=True)
        return
    with atomic_write(path) as file:
        file.write(json.dumps([mark.as_dict() for mark in marks], indent=2).encode("ascii"))


def repeated_section(
    marks: Sequence[RepeatedMark], records: Iterable[Mapping[str, Any]], address: Address
) -> str:
    """HTML of the marks with examples; empty where there is none.

    Args:
        marks: the commonest first.
        records: of the run.
        address: where the page finds a file of the run folder.
    """
    if not marks:
        return ""
    wanted = {one.image for mark in marks for one in mark.members[:_EXAMPLES]}
    thumbs = thumbs_of(wanted, records)
    more = len(marks) - _SHOWN
    rest = f'<p class="quiet">{more} more are in {FILE}.</p>' if more > 0 else ""
    parts = "".join(
        f"<p>{escape(printable(mark.sentence()))}</p>"
        + examples(map(_example, mark.members[:_EXAMPLES]), thumbs, address)
        for mark in marks[:_SHOWN]
    )
    return (
        f'{STYLE}<details class="panel" id="repeated" open>'
        f"<summary>The same mark again</summary>{parts}{rest}</details>"
    )


def _example(member: Member) -> Example:
    told = "below the limit" if member.region is None else f"region {member.region}"
    return Example(member.image, member.name, told)

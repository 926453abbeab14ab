"""Rows of small pictures in a report, each a link to its picture's page."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from html import escape
from typing import Any
from urllib.parse import quote

from zerodefect.types import printable

STYLE = """<style>
.examples { display: flex; flex-wrap: wrap; gap: 10px; list-style: none; padding: 0; }
.examples li { width: 132px; font-size: 12px; overflow-wrap: anywhere; }
.examples li img { width: 132px; height: 132px; object-fit: contain; display: block; }
</style>"""

Address = Callable[[str], "str | None"]


@dataclass(frozen=True)
class Example:
    """A picture of a run: its path, what it is called, and a word on it."""

    image: str
    name: str
    told: str


def examples(some: Iterable[Example], thumbs: Mapping[str, str], address: Address) -> str:
    """HTML of a list of pictures.

    Args:
        some: of them.
        thumbs: small pictures by the image's name, relative to the run folder.
        address: where the page finds such a file.
    """
    shown = "".join(_one(each, thumbs.get(each.image), address) for each in some)
    return f'<ul class="examples">{shown}</ul>'


def thumbs_of(wanted: set[str], records: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Small pictures of these images by the image's name, those that the run has."""
    return {
        record["image"]: record["assets"]["thumb"]
        for record in records
        if record["image"] in wanted and (record.get("assets") or {}).get("thumb")
    }


def _one(example: Example, thumb: str | None, address: Address) -> str:
    """A link to a picture's page in the report, as the script names it."""
    whole = re.sub("[\ud800-\udfff]", "\ufffd", example.image)
    link = escape("#image=" + quote(whole, safe="!'()*-._~"))
    source = address(thumb) if thumb else None
    picture = f'<img src="{escape(source)}" alt="" loading="lazy">' if source else ""
    name = escape(printable(example.name))
    return f'<li><a href="{link}">{picture}{name}</a><br>{escape(example.told)}</li>'

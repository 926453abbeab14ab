"""``zerodefect data list``: the published data sets that can be read, and on whose terms."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Annotated

import typer

from zerodefect.cli.options import AsJson
from zerodefect.cli.telling import tell

if TYPE_CHECKING:
    from zerodefect.data import KnownSet

_TERMS = (
    "Pictures are counted as good + defective.\n"
    "Nothing is downloaded: get a data set from its source and accept its terms there. A\n"
    "non-commercial licence binds the pictures, and possibly weights trained on them."
)


def data_list(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Show one data set with its tree on disk.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the published data sets that can be read.

    What each shows, its terms, source and layout on disk.
    """
    from zerodefect.data import CATALOGUE, expected_layouts, find_known

    known = find_known(name) if name else None
    if name and not known:
        names = ", ".join(one.name for one in CATALOGUE)
        raise ValueError(
            f"no data set {name!r}; there are: {names}. Your own pictures need no entry here: see "
            "'zerodefect data check'"
        )
    chosen = [known] if known else list(CATALOGUE)
    if as_json:
        facts = [
            {**dataclasses.asdict(one), "tree": expected_layouts(one.name).strip()}
            for one in chosen
        ]
        tell(json.dumps(facts[0] if known else facts, indent=2), lines=True)
        return
    if known:
        tell(_details(known), lines=True)
        tell(f"\n{expected_layouts(known.name).strip()}", lines=True)
        tell(f"\nzerodefect data check --layout {known.name} PATH", lines=True)
        return
    for one in chosen:
        tell(_details(one, notes=False), lines=True)
    tell(f"\n{_TERMS}\nOn disk: zerodefect data list NAME", lines=True)


def _details(known: KnownSet, notes: bool = True) -> str:
    classes = f"{known.count} classes" if known.count > 1 else "1 class"
    lines = [
        f"{known.name}: {known.title}, {known.what}",
        f"  {classes}; pictures: {known.pictures}" + ("" if known.masks else "; no masks"),
        f"  licence: {known.licence}",
        f"  source:  {known.source}",
        f"  layout:  {known.layout}",
    ]
    if notes and known.products:
        lines.append(f"  classes: {', '.join(known.products)}")
    if notes and known.product:
        lines.append(f"  in texts: {known.product}")
    if notes and known.notes:
        lines.append(f"  note:    {known.notes}")
    return "\n".join(lines)

"""HeadCT: a table that says which pictures show a haemorrhage."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from zerodefect.data.dataset import GOOD, UNNAMED_DEFECT, DatasetError
from zerodefect.data.folders import any_pictures
from zerodefect.data.layout_registry import Layout, register
from zerodefect.data.layouts.mvtec import mvtec_products, read_mvtec
from zerodefect.data.listing import Listing, pattern
from zerodefect.data.table_columns import csv_rows

TREE = """\
headct/
├── labels.csv                         columns id, hemorrhage
└── head_ct/000.png ...
or brain/test/{good,other}/000.png ..."""


def _recognises(root: Path, named: bool) -> bool:
    """Find ``labels.csv`` with a column ``hemorrhage``."""
    try:
        head = (root / "labels.csv").read_text(encoding="utf-8-sig").partition("\n")[0]
    except (OSError, UnicodeDecodeError):
        return False
    return "hemorrhage" in [cell.strip().casefold() for cell in head.split(",")]


@register(Layout("headct", TREE, _recognises, asked=16))
def _read(root: Path, name: str) -> Listing:
    """Read the table, or the tree ``brain/test/{good,other}`` that CLIP repositories make of it."""
    table = root / "labels.csv"
    if not _recognises(root, named=True):
        if mvtec_products(root):
            return read_mvtec(root, name)
        reason = "there is no labels.csv with a column hemorrhage"
        raise DatasetError(root, reason, "Name the folder that holds labels.csv")
    listing = Listing("labels.csv says which pictures show a haemorrhage")
    listing.tables.add(table)
    pictures: dict[int, Path] = {}
    for file in any_pictures(root):
        if not file.stem.isdecimal() or int(file.stem) in pictures:
            listing.report("error", file, "its name is no id, or another's", "Remove the file")
        else:
            pictures[int(file.stem)] = file
    for row in csv_rows(table):
        number = row.values.get("id", "").strip()
        label = row.values.get("hemorrhage", "").strip()
        if not number.isdecimal() or label not in ("0", "1"):
            listing.report("error", table, f"not understood: {row.values}", "Correct it")
        elif int(number) not in pictures:
            listing.report("error", table, f"there is no picture for id {number}", "Copy it there")
        else:
            common = pattern(name, "test", UNNAMED_DEFECT if label == "1" else GOOD)
            listing.samples.append(replace(common, image=pictures.pop(int(number))))
    for left in pictures.values():
        listing.report("error", left, "labels.csv does not name it", "Add it, or remove the file")
    return listing

"""A CSV, TSV or JSON-lines file that lists pictures, manifests of Lookout for Vision included."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

from zerodefect.data.dataset import DatasetError
from zerodefect.data.layout_registry import Layout, register
from zerodefect.data.listing import Listing, is_good
from zerodefect.data.table_rows import COLUMNS, Row, add_rows, text_of, values_of

TREE = """\
data/
├── parts.csv                          columns image, label, mask, product, kind, split; only
└── ...                                image is needed; .tsv and .jsonl are read, too"""

VISA_SPLIT = Path("split_csv", "1cls.csv")

_ENDINGS = frozenset({".csv", ".tsv", ".jsonl", ".ndjson", ".manifest"})
_CLASS_COLUMNS = ("class", "category", "class_name")


def _recognises(place: Path, named: bool) -> bool:
    return _is_table(place) if place.is_file() else _find_table(place) is not None


@register(Layout("csv", TREE, _recognises, asked=70, drawn=4))
def read_table(place: Path, name: str) -> Listing:
    """Read a table, or the one in a folder; see ``COLUMNS`` for the names of its columns.

    Paths in it are relative to the folder, to the table's own or to the one above that.

    Raises:
        DatasetError: if there is none or several, or it cannot be read as a table of pictures.
    """
    file = place if place.is_file() else _find_table(place)
    if file is None:
        reason = "there is no CSV, TSV or JSON-lines file that lists pictures"
        raise DatasetError(place, reason, "Write one, or name another layout")
    listing = Listing(f"{file.name} lists the pictures")
    rows = _class_as_label(_rows(file))
    if not any(row.get("image") for row in rows):
        columns = ", ".join(dict.fromkeys(c for row in rows[:5] for c in row.values)) or "none"
        reason = f"the table has no column for the picture (its columns: {columns})"
        raise DatasetError(file, reason, f"Call it one of: {', '.join(COLUMNS['image'])}")
    root = file.parent if file == place else place
    add_rows(listing, rows, [root, file.parent, file.parent.parent], name)
    return listing


def _find_table(root: Path) -> Path | None:
    """Find the table that describes a folder: VisA's ``split_csv/1cls.csv``, or the only one.

    A file counts if it has a column for the picture and one for a label, kind, mask or split.

    Raises:
        DatasetError: if there are several.
    """
    if (root / VISA_SPLIT).is_file():
        return root / VISA_SPLIT
    files = [f for f in root.iterdir() if _is_table(f) and not f.name.startswith(".")]
    tables = sorted(f for f in files if f.is_file() and _describes_pictures(f))
    if len(tables) > 1:
        names = ", ".join(f.name for f in tables)
        raise DatasetError(root, f"several tables could describe it: {names}", "Name one of them")
    return tables[0] if tables else None


def _is_table(file: Path) -> bool:
    return file.suffix.lower() in _ENDINGS


def _rows(file: Path) -> list[Row]:
    if file.suffix.lower() in {".csv", ".tsv"}:
        return csv_rows(file)
    rows = []
    for number, line in enumerate(text_of(file).split("\n"), 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except ValueError as error:
            reason = f"line {number} is not JSON ({error})"
            raise DatasetError(file, reason, "Write one object per line") from None
        if not isinstance(entry, dict):
            reason = f"line {number} is not an object"
            raise DatasetError(file, reason, "Write one object per line")
        rows.append(Row(f"{file}: line {number}", values_of(entry)))
    return rows


def csv_rows(file: Path) -> list[Row]:
    """Read the rows of a CSV or TSV file.

    Raises:
        DatasetError: if it cannot be read.
    """
    text = text_of(file)
    head = text.partition("\n")[0]
    delimiter = max(",;\t", key=head.count)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
    rows = []
    try:
        for entry in reader:
            named = {key: value for key, value in entry.items() if key is not None}
            rows.append(Row(f"{file}: line {reader.line_num}", values_of(named)))
    except csv.Error as error:
        reason = f"line {reader.line_num} cannot be read ({error})"
        raise DatasetError(file, reason, "Save it as CSV anew") from None
    return rows


def _describes_pictures(file: Path) -> bool:
    try:
        rows = _class_as_label(_rows(file))
    except DatasetError:
        return False
    known = set(rows[0].values) if rows else set()
    facts = {fact for fact, columns in COLUMNS.items() if known & set(columns)}
    return "image" in facts and bool(facts & {"label", "kind", "mask", "split"})


def _class_as_label(rows: list[Row]) -> list[Row]:
    """Read a column called class as the label where nothing else is one and it says good."""
    if not rows or any(row.get("label") or row.get("kind") for row in rows):
        return rows
    for column in _CLASS_COLUMNS:
        if any(is_good(row.values.get(column, "")) for row in rows):
            return [
                Row(row.where, {**row.values, "label": row.values.get(column, ""), column: ""})
                for row in rows
            ]
    return rows

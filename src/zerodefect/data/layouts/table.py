"""A CSV, TSV or JSON-lines file that lists pictures, manifests of Lookout for Vision included."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from zerodefect.data.dataset import DatasetError
from zerodefect.data.layout_registry import Layout, register
from zerodefect.data.listing import Listing, is_good
from zerodefect.data.row_labels import is_idle
from zerodefect.data.table_columns import COLUMNS, Row, csv_rows, json_lines
from zerodefect.data.table_rows import add_rows

TREE = """\
data/
├── parts.csv                          columns image, label, mask, product, kind, split; only
└── ...                                image is needed; .tsv and .jsonl are read, too"""

VISA_SPLIT = Path("split_csv", "1cls.csv")

_ENDINGS = frozenset({".csv", ".tsv", ".jsonl", ".ndjson", ".manifest"})
_SHEETS = frozenset({".xlsx", ".xls", ".xlsm", ".ods"})
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
    listing.tables.add(file)
    read = _read(file)
    rows = _without(read, _idle(read))
    if not any(row.get("image") for row in rows):
        columns = ", ".join(dict.fromkeys(c for row in rows[:5] for c in row.values)) or "none"
        reason = f"the table has no column for the picture (its columns: {columns})"
        raise DatasetError(file, reason, f"Call it one of: {', '.join(COLUMNS['image'])}")
    root = file.parent if file == place else place
    add_rows(listing, rows, [root, file.parent, file.parent.parent], name)
    return listing


def unused_tables(root: Path, used: set[Path]) -> Iterator[tuple[Path, str]]:
    """Give the tables that lie in a folder and are not used, each with why."""
    for file in sorted(root.iterdir()):
        if file in used or file.name.startswith(".") or not file.is_file():
            continue
        if file.suffix.lower() in _SHEETS:
            yield file, "spreadsheets are not read"
        elif _is_table(file):
            yield file, _why_not(file) or "the folder was read in another layout"


def _find_table(root: Path) -> Path | None:
    """Find the table that describes a folder: VisA's ``split_csv/1cls.csv``, or the only one.

    A file counts if it has a column for the picture and one for a label, kind, mask or split.

    Raises:
        DatasetError: if there are several.
    """
    if (root / VISA_SPLIT).is_file():
        return root / VISA_SPLIT
    files = [f for f in root.iterdir() if _is_table(f) and not f.name.startswith(".")]
    tables = sorted(f for f in files if f.is_file() and not _why_not(f))
    if len(tables) > 1:
        names = ", ".join(f.name for f in tables)
        raise DatasetError(root, f"several tables could describe it: {names}", "Name one of them")
    return tables[0] if tables else None


def _is_table(file: Path) -> bool:
    return file.suffix.lower() in _ENDINGS


def _read(file: Path) -> list[Row]:
    return csv_rows(file) if file.suffix.lower() in {".csv", ".tsv"} else json_lines(file)


def _idle(rows: list[Row]) -> set[str]:
    """Find columns that are called like labels (status) and hold no word for good or defective."""
    columns = {column for row in rows for column in row.values}
    return {c for c in columns if is_idle(c, {row.values.get(c, "") for row in rows})}


def _without(rows: list[Row], idle: set[str]) -> list[Row]:
    kept = [{c: v for c, v in row.values.items() if c not in idle} for row in rows]
    return _class_as_label([Row(r.where, values) for r, values in zip(rows, kept, strict=True)])


def _why_not(file: Path) -> str:
    """Say why a table cannot describe pictures; empty if it can."""
    try:
        read = _read(file)
    except DatasetError as error:
        return error.reason
    idle = _idle(read)
    rows = _without(read, idle)
    known = {column for row in rows[:20] for column in row.values}
    facts = {fact for fact, columns in COLUMNS.items() if known & set(columns)}
    columns = ", ".join(dict.fromkeys(c or "(no name)" for row in read[:5] for c in row.values))
    if not rows:
        return "it has no rows"
    if "image" not in facts:
        return f"no column is called like one for the picture (its columns: {columns[:200]})"
    if facts & {"label", "kind", "mask", "split"}:
        return ""
    if idle:
        return f"no word for good or defective stands in its column {', '.join(sorted(idle))}"
    return f"no column is called like one for a label (its columns: {columns[:200]})"


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

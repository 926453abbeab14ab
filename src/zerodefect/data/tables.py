"""Data sets that a file describes: the field's meta.json, and CSV, TSV or JSON lines."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from zerodefect.data.dataset import GOOD, UNNAMED_DEFECT, DatasetError, Sample, Split
from zerodefect.data.listing import GOOD_NAMES, Listing, is_good

TABLE_ENDINGS = frozenset({".csv", ".tsv", ".jsonl", ".ndjson", ".manifest"})

# Names that one fact goes by, lower case with underscores; the first that is present counts.
COLUMNS: dict[str, tuple[str, ...]] = {
    "image": (
        "image",
        "img_path",
        "image_path",
        "path",
        "img",
        "file",
        "filename",
        "file_name",
        "filepath",
        "source_ref",
    ),
    "mask": ("mask", "mask_path", "gt_path", "ground_truth", "gt", "anomaly_mask_ref"),
    "label": ("label", "anomaly", "anomalous", "is_anomaly", "target", "anomaly_label"),
    "product": ("product", "object", "cls_name", "class_name", "class", "category"),
    "kind": ("kind", "defect", "specie_name", "defect_type", "anomaly_class"),
    "split": ("split", "set", "subset"),
}
_CLASS_COLUMNS = ("class", "category", "class_name")

_SPLITS: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}
_EMPTY = frozenset({"", "nan", "none", "null"})
_GOOD_LABELS = GOOD_NAMES | {"0", "0.0", "false", "no"}
_BAD_LABELS = frozenset(
    {"1", "1.0", "true", "yes", "bad", "ng", "nok", "ko"}
    | {"anomaly", "anomalous", "abnormal", "defect", "defective"}
)


@dataclass(frozen=True)
class _Row:
    """One entry of a table: where it stands, and its values under lower-case names."""

    where: str
    values: dict[str, str]

    def get(self, fact: str) -> str:
        for column in COLUMNS[fact]:
            value = self.values.get(column, "")
            if value.strip().casefold() not in _EMPTY:
                return value.strip()
        return ""


def find_table(root: Path) -> Path | None:
    """Find the table that describes a folder: VisA's ``split_csv/1cls.csv``, or the only one.

    A file counts if it has a column for the picture and one for a label, kind, mask or split.

    Raises:
        DatasetError: if there are several.
    """
    visa = root / "split_csv" / "1cls.csv"
    if visa.is_file():
        return visa
    files = [f for f in root.iterdir() if f.suffix.lower() in TABLE_ENDINGS and f.is_file()]
    tables = sorted(f for f in files if not f.name.startswith(".") and _describes_pictures(f))
    if len(tables) > 1:
        names = ", ".join(f.name for f in tables)
        raise DatasetError(root, f"several tables could describe it: {names}", "Name one of them")
    return tables[0] if tables else None


def read_table(file: Path, root: Path, name: str) -> Listing:
    """Read a CSV, TSV or JSON-lines file; see ``COLUMNS`` for the names of its columns.

    Paths in it are relative to ``root``, or to the table's folder or the folder above that.

    Raises:
        DatasetError: if the file cannot be read as a table of pictures.
    """
    listing = Listing(f"{file.name} lists the pictures")
    rows = _class_as_label(_table_rows(file))
    if not any(row.get("image") for row in rows):
        columns = ", ".join(dict.fromkeys(c for row in rows[:5] for c in row.values)) or "none"
        reason = f"the table has no column for the picture (its columns: {columns})"
        raise DatasetError(file, reason, f"Call it one of: {', '.join(COLUMNS['image'])}")
    _add_rows(listing, rows, [root, file.parent, file.parent.parent], name)
    return listing


def read_meta(file: Path, name: str) -> Listing:
    """Read the field's ``meta.json``: split -> class -> entries.

    An entry has ``img_path``, ``mask_path`` (empty if there is none), ``cls_name``,
    ``specie_name`` and ``anomaly`` (0 or 1). Split names are understood in any case.

    Raises:
        DatasetError: if the file is not of this form.
    """
    try:
        content = json.loads(_text(file))
    except ValueError as error:
        raise DatasetError(file, f"it is not JSON ({error})", "Write it anew") from None
    splits = content if isinstance(content, dict) else {}
    known = {key: value for key, value in splits.items() if key.strip().casefold() in _SPLITS}
    if not known:
        reason = "it has no 'train' or 'test' on its first level"
        raise DatasetError(file, reason, "Write it as split -> class -> list of entries")
    listing = Listing(f"{file.name} lists the pictures")
    for key in splits.keys() - known.keys():
        if isinstance(splits[key], dict | list) and splits[key]:
            reason = "this part is not read: it is no train, validation or test"
            listing.report("warning", f"{file}: {key}", reason, "Rename it if it is one")
    for key, classes in known.items():
        rows = list(_meta_rows(listing, file, key, classes))
        _add_rows(listing, rows, [file.parent], name, _SPLITS[key.strip().casefold()])
    return listing


def _meta_rows(listing: Listing, file: Path, split: str, classes: Any) -> Iterator[_Row]:
    groups = classes.items() if isinstance(classes, dict) else [("", classes)]
    for product, entries in groups:
        place = f"{file}: {split}/{product}" if product else f"{file}: {split}"
        if not isinstance(entries, list):
            listing.report("error", place, "this is no list of entries", "Write a list here")
        elif not entries:
            listing.report("warning", place, "there are no entries", "Add them or remove it")
        else:
            for number, entry in enumerate(entries, 1):
                values = _values(entry) if isinstance(entry, dict) else {}
                yield _Row(f"{place} entry {number}", {"cls_name": product} | values)


def _table_rows(file: Path) -> list[_Row]:
    if file.suffix.lower() in {".csv", ".tsv"}:
        return _csv_rows(file)
    rows = []
    for number, line in enumerate(_text(file).split("\n"), 1):
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
        rows.append(_Row(f"{file}: line {number}", _values(entry)))
    return rows


def _csv_rows(file: Path) -> list[_Row]:
    text = _text(file)
    head = text.partition("\n")[0]
    delimiter = max(",;\t", key=head.count)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
    rows = []
    try:
        for entry in reader:
            named = {key: value for key, value in entry.items() if key is not None}
            rows.append(_Row(f"{file}: line {reader.line_num}", _values(named)))
    except csv.Error as error:
        reason = f"line {reader.line_num} cannot be read ({error})"
        raise DatasetError(file, reason, "Save it as CSV anew") from None
    return rows


def plain_rows(file: Path) -> list[dict[str, str]]:
    """Read a CSV file's rows under lower-case names.

    Raises:
        DatasetError: if it cannot be read.
    """
    return [row.values for row in _csv_rows(file)]


def _text(file: Path) -> str:
    try:
        data = file.read_bytes()
    except OSError as error:
        reason = f"it cannot be read ({error.strerror or error})"
        raise DatasetError(file, reason, "Check the path and your access to it") from None
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError:
        raise DatasetError(file, "it is not UTF-8 text", "Save it as UTF-8") from None


def _values(entry: dict[Any, Any]) -> dict[str, str]:
    """Bring the names to lower case with underscores, and the values to text."""
    return {
        str(key).strip().casefold().replace("-", "_").replace(" ", "_"): (
            "" if value is None else str(value)
        )
        for key, value in entry.items()
    }


def _describes_pictures(file: Path) -> bool:
    try:
        rows = _table_rows(file)
    except DatasetError:
        return False
    known = set(rows[0].values) if rows else set()
    facts = {fact for fact, columns in COLUMNS.items() if known & set(columns)}
    has_class_labels = bool(rows) and rows[0] is not _class_as_label(rows)[0]
    return "image" in facts and (
        has_class_labels or bool(facts & {"label", "kind", "mask", "split"})
    )


def _class_as_label(rows: list[_Row]) -> list[_Row]:
    """Read a column called class as the label where nothing else is one and it says good."""
    if not rows or any(row.get("label") or row.get("kind") for row in rows):
        return rows
    for column in _CLASS_COLUMNS:
        if any(is_good(row.values.get(column, "")) for row in rows):
            return [
                _Row(row.where, {**row.values, "label": row.values.get(column, ""), column: ""})
                for row in rows
            ]
    return rows


def _add_rows(
    listing: Listing,
    rows: Sequence[_Row],
    bases: list[Path],
    product: str,
    split: Split | None = None,
) -> None:
    """Note a sample per row whose picture exists."""
    locate = _Locator(bases)
    for row in rows:
        image = _existing_file(listing, row, "image", locate)
        if image is None:
            continue
        mask = _existing_file(listing, row, "mask", locate) if row.get("mask") else None
        kind, anomalous = _label(listing, row)
        listing.samples.append(
            Sample(
                image,
                mask,
                row.get("product") or product,
                kind,
                anomalous,
                split or _split(listing, row),
            )
        )
    if locate.moved:
        listing.notes.append(
            "paths that point to another place and were found by their end beneath "
            f"{bases[0]}: {locate.moved}"
        )


def _existing_file(listing: Listing, row: _Row, fact: str, locate: _Locator) -> Path | None:
    written = row.get(fact)
    if not written:
        remedy = f"Fill in one of: {', '.join(COLUMNS[fact][:4])}"
        listing.report("error", row.where, "the entry names no picture", remedy)
        return None
    path = locate(written)
    if path is None:
        word = "mask" if fact == "mask" else "picture"
        reason = f"there is no such file: {word} {written}"
        remedy = "Copy it there, or correct the path (relative to the table's folder)"
        listing.report("error", row.where, reason, remedy)
    return path


def _label(listing: Listing, row: _Row) -> tuple[str, bool | None]:
    """Give kind and label, from the label if there is one, else from the kind."""
    label, kind = row.get("label"), row.get("kind")
    word = label.casefold()
    if not label:
        if not kind:
            return "", None
        return (GOOD, False) if is_good(kind) else (kind, True)
    if word in _GOOD_LABELS:
        if kind and not is_good(kind):
            reason = f"the label says good ({label}) but the kind says {kind!r}; the label counts"
            listing.report("error", row.where, reason, "Correct one of the two")
        return GOOD, False
    if word in _BAD_LABELS:
        if kind and is_good(kind):
            reason = (
                f"the label says defective ({label}) but the kind says {kind!r}; the label counts"
            )
            listing.report("error", row.where, reason, "Correct one of the two")
            kind = ""
        return kind or UNNAMED_DEFECT, True
    if _is_number(label):
        reason = f"the label {label} is not understood, so the picture counts as unlabelled"
        listing.report("error", row.where, reason, "Write 0 for good and 1 for defective")
        return "", None
    return kind or label, True


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _split(listing: Listing, row: _Row) -> Split | None:
    written = row.get("split")
    split = _SPLITS.get(written.casefold())
    if written and split is None:
        reason = f"the split {written!r} is not understood, so the picture has none"
        listing.report("error", row.where, reason, "Write train, validation or test")
    return split


class _Locator:
    """Finds the file that a path in a table means.

    Attributes:
        moved: how many paths were found only by their last parts.
    """

    def __init__(self, bases: Sequence[Path]) -> None:
        self.moved = 0
        self._bases = list(dict.fromkeys(bases))

    def __call__(self, written: str) -> Path | None:
        for text in dict.fromkeys([written, written.replace("\\", "/")]):
            for base in self._bases:
                if _is_file(base / text):
                    return base / text
        return self._by_end(_parts(written))

    def _by_end(self, parts: tuple[str, ...]) -> Path | None:
        """Look for a path of another machine or a bucket by its end, longest first.

        A bare file name is not enough: too many pictures are called 000.png.
        """
        for start in range(len(parts) - 1):
            for base in self._bases:
                path = base.joinpath(*parts[start:])
                if _is_file(path):
                    self.moved += 1
                    return path
        return None


def _is_file(path: Path) -> bool:
    return os.path.isfile(path)  # noqa: PTH113 - Path's own raises on names that are too long


def _parts(written: str) -> tuple[str, ...]:
    """Split an absolute path or an address such as ``s3://bucket/folder/file``; else nothing."""
    scheme, separator, rest = written.partition("://")
    if separator and len(scheme) > 1:
        return PurePosixPath(rest).parts
    path = PureWindowsPath(written)
    return path.parts[1:] if path.drive or path.root else ()

"""What rows of a table say about pictures: names of columns, words for labels, paths to files."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from zerodefect.data.dataset import GOOD, UNNAMED_DEFECT, DatasetError, Split
from zerodefect.data.folders import SPLITS as FOLDER_SPLITS
from zerodefect.data.listing import GOOD_NAMES, Listing, is_good, pattern
from zerodefect.images.find import spellings

# Names that one fact goes by, lower case with underscores; the first that is present counts.
COLUMNS: dict[str, tuple[str, ...]] = {
    "image": (
        *("image", "img_path", "image_path", "path", "img", "file", "filename", "file_name"),
        *("filepath", "source_ref"),
    ),
    "mask": ("mask", "mask_path", "gt_path", "ground_truth", "gt", "anomaly_mask_ref"),
    "label": ("label", "anomaly", "anomalous", "is_anomaly", "target", "anomaly_label"),
    "product": ("product", "object", "cls_name", "class_name", "class", "category"),
    "kind": ("kind", "defect", "specie_name", "defect_type", "anomaly_class"),
    "split": ("split", "set", "subset"),
}

SPLITS: dict[str, Split] = {
    **FOLDER_SPLITS,
    "training": "train",
    "valid": "validation",
    "testing": "test",
}
_EMPTY = frozenset({"", "nan", "none", "null"})
_GOOD_LABELS = GOOD_NAMES | {"0", "0.0", "false", "no"}
_BAD_LABELS = frozenset(
    {"1", "1.0", "true", "yes", "bad", "ng", "nok", "ko"}
    | {"anomaly", "anomalous", "abnormal", "defect", "defective"}
)


@dataclass(frozen=True)
class Row:
    """One entry of a table: where it stands, and its values under lower-case names."""

    where: str
    values: dict[str, str]

    def get(self, fact: str) -> str:
        """Give the first value that is not empty among the columns for a fact."""
        for column in COLUMNS[fact]:
            value = self.values.get(column, "")
            if value.strip().casefold() not in _EMPTY:
                return value.strip()
        return ""


def text_of(file: Path) -> str:
    """Read a file of text in UTF-8, or in UTF-16 if it begins with a mark that says so.

    Raises:
        DatasetError: if it cannot be read.
    """
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


def json_of(file: Path) -> Any:
    """Read a JSON file.

    Raises:
        DatasetError: if it cannot be read.
    """
    text = text_of(file)
    try:
        return json.loads(text)
    except ValueError as error:
        raise DatasetError(file, f"it is not JSON ({error})", "Write it anew") from None


def values_of(entry: dict[Any, Any]) -> dict[str, str]:
    """Bring the names to lower case with underscores, and the values to text."""
    return {
        re.sub("[- ]", "_", str(key).strip().casefold()): "" if value is None else str(value)
        for key, value in entry.items()
    }


def add_rows(
    listing: Listing, rows: list[Row], bases: list[Path], product: str, split: Split | None = None
) -> None:
    """Note a sample per row whose picture exists."""
    locate = _Locator(list(dict.fromkeys(bases)))
    for row in rows:
        image = _existing_file(listing, row, "image", locate)
        if image is None:
            continue
        mask = _existing_file(listing, row, "mask", locate) if row.get("mask") else None
        kind = _kind(listing, row)
        common = pattern(row.get("product") or product, split or _split(listing, row), kind)
        listing.samples.append(replace(common, image=image, mask=mask))
    if locate.moved:
        listing.notes.append(
            "paths that point to another place and were found by their end beneath "
            f"{bases[0]}: {locate.moved}"
        )


def _existing_file(listing: Listing, row: Row, fact: str, locate: _Locator) -> Path | None:
    written = row.get(fact)
    if not written:
        remedy = f"Fill in one of: {', '.join(COLUMNS[fact][:4])}"
        listing.report("error", row.where, "the entry names no picture", remedy)
        return None
    path = locate(written)
    if path is None:
        word = "mask" if fact == "mask" else "picture"
        reason = f"there is no such file: {word} {written}"
        remedy = f"Copy it there, or correct the path (relative to {locate.bases[0]})"
        listing.report("error", row.where, reason, remedy)
    return path


def _kind(listing: Listing, row: Row) -> str:
    """Give the kind, empty for no label: from the label if there is one, else from the kind."""
    label, kind = row.get("label"), row.get("kind")
    word = label.casefold()
    if not label:
        return kind
    good = word in _GOOD_LABELS
    if good or word in _BAD_LABELS:
        if kind and is_good(kind) != good:
            says = f"the label says {'good' if good else 'defective'} ({label})"
            reason = f"{says} but the kind says {kind!r}; the label counts"
            listing.report("error", row.where, reason, "Correct one of the two")
            kind = ""
        return GOOD if good else kind or UNNAMED_DEFECT
    try:
        float(label)
    except ValueError:
        return label if is_good(kind) else kind or label
    reason = f"the label {label} is not understood, so the picture counts as unlabelled"
    listing.report("error", row.where, reason, "Write 0 for good and 1 for defective")
    return ""


def _split(listing: Listing, row: Row) -> Split | None:
    written = row.get("split")
    split = SPLITS.get(written.casefold())
    if written and split is None:
        reason = f"the split {written!r} is not understood, so the picture has none"
        listing.report("error", row.where, reason, "Write train, validation or test")
    return split


@dataclass
class _Locator:
    """Finds the file that a path in a table means.

    Attributes:
        bases: folders that paths may be relative to.
        moved: how many paths were found only by their last parts.
    """

    bases: list[Path]
    moved: int = 0

    def __call__(self, written: str) -> Path | None:
        for text in spellings(written):
            for base in self.bases:
                if _is_file(base / text):
                    return base / text
        # A path of another machine or a bucket is looked for by its end, longest first. A bare
        # file name is not enough: too many pictures are called 000.png.
        parts = _parts(written)
        for start in range(len(parts) - 1):
            for base in self.bases:
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

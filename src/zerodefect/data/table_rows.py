"""What rows of a table say about pictures: paths to files, labels, splits."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath, PureWindowsPath

from zerodefect.data.dataset import Split
from zerodefect.data.folders import SPLITS
from zerodefect.data.listing import Listing, pattern
from zerodefect.data.row_labels import Labels
from zerodefect.data.table_columns import COLUMNS, Row
from zerodefect.images.find import spellings


def add_rows(
    listing: Listing, rows: list[Row], bases: list[Path], product: str, split: Split | None = None
) -> None:
    """Note a sample per row whose picture exists."""
    locate, labels = _Locator(list(dict.fromkeys(bases))), Labels(listing, rows)
    for row in rows:
        image = _existing_file(listing, row, "image", locate)
        if image is None:
            continue
        mask = _existing_file(listing, row, "mask", locate) if row.get("mask") else None
        kind = labels.kind(row)
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

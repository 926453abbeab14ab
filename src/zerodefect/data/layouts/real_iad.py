"""Real-IAD: a JSON file for every class, beside folders of pictures in several sizes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from zerodefect.data.dataset import DatasetError, Split
from zerodefect.data.folders import subfolders
from zerodefect.data.layout_registry import Layout, register
from zerodefect.data.listing import Listing
from zerodefect.data.table_columns import Row, json_head, json_of, values_of
from zerodefect.data.table_rows import add_rows
from zerodefect.images.find import natural_key

TREE = """\
real-iad/
├── realiad_jsons/realiad_jsons/audiojack.json ...
│                                      {"meta": {"prefix"}, "train": [entry, ...], "test": [...]},
│                                      entry = {image_path, mask_path, anomaly_class}
└── realiad_1024/audiojack/            or realiad_512, realiad_256
    ├── OK/S0001/audiojack_0001_OK_C1_2023.jpg ...
    └── NG/AK/S0001/audiojack_0001_NG_AK_C1_2023.jpg, ..._mask.png ..."""

_PICTURES = re.compile(r"realiad_(\d+)", re.IGNORECASE)
_DEFAULT = "realiad_jsons"
_SPLITS: tuple[Split, ...] = ("train", "test")


def is_real_iad(place: Path, named: bool = False) -> bool:
    """Whether ``place`` or the folder above has ``realiad_jsons``, or is such a folder or file."""
    return _jsons_of(place) is not None


@register(Layout("real-iad", TREE, is_real_iad, asked=15))
def _read(place: Path, name: str) -> Listing:
    """Read the lists ``train`` and ``test`` of one JSON file per class.

    An entry's ``image_path`` and ``mask_path`` are relative to ``meta.prefix``, or to the class's
    name, in a folder ``realiad_256``, ``realiad_512`` or ``realiad_1024``.

    Args:
        place: the root (several views, the largest pictures); or the folder of one size; or one of
            the folders of JSON files, or a single file, for another protocol.
        name: not used, because the files name their classes.
    """
    files = _jsons_of(place)
    if files is None:
        reason = "there is no folder realiad_jsons with a JSON file for each class"
        raise DatasetError(place, reason, "Name the folder that holds it")
    listing = Listing(f"a JSON file for each class in {files[0].parent.name}/ lists the pictures")
    base = _pictures_of(place, files[0], listing)
    for file in files:
        _read_class(listing, file, base)
    return listing


def _jsons_of(place: Path) -> list[Path] | None:
    """Find the JSON files: those of a folder or the one named, else the default protocol."""
    if place.is_file():
        return [place] if _is_listing(place) else None
    root = place.parent if _PICTURES.fullmatch(place.name) else place
    for folder in (root / _DEFAULT / _DEFAULT, root / _DEFAULT, root):
        files = sorted(folder.glob("*.json"), key=natural_key)
        if files and _is_listing(files[0]):
            return files
    return None


def _is_listing(file: Path) -> bool:
    """Whether a JSON file is one of Real-IAD's: it begins with what the others have not."""
    head = json_head(file)
    return b'"prefix"' in head or b'"anomaly_class"' in head


def _pictures_of(place: Path, file: Path, listing: Listing) -> Path:
    if _PICTURES.fullmatch(place.name):
        return place
    for root in list(file.parents)[:4]:
        sizes = {int(m[1]): f for f in subfolders(root) if (m := _PICTURES.fullmatch(f.name))}
        if sizes:
            chosen = sizes[max(sizes)]
            if len(sizes) > 1:
                others = ", ".join(f.name for f in sizes.values() if f != chosen)
                listing.notes.append(f"{chosen.name}/ is read; for {others} name that folder")
            return chosen
    reason = "there is no folder realiad_256, realiad_512 or realiad_1024 with the pictures"
    raise DatasetError(place, reason, "Put one beside realiad_jsons")


def _read_class(listing: Listing, file: Path, pictures: Path) -> None:
    content = json_of(file)
    if not isinstance(content, dict) or not content.keys() & set(_SPLITS):
        reason = "it has no list called train or test"
        raise DatasetError(file, reason, "Copy Real-IAD's own file there")
    meta = content.get("meta")
    prefix = str(meta.get("prefix") or "") if isinstance(meta, dict) else ""
    # the prefix first: it may be empty or not, and the pictures may lie one folder higher
    bases = [pictures / prefix, pictures / file.stem, pictures]
    for split in _SPLITS:
        rows = list(_rows(listing, f"{file}: {split}", content.get(split) or []))
        add_rows(listing, rows, bases, file.stem, split)


def _rows(listing: Listing, where: str, entries: Any) -> Iterator[Row]:
    if not isinstance(entries, list):
        listing.report("error", where, "this is no list", "Copy the file anew")
        return
    for number, entry in enumerate(entries, 1):
        if not isinstance(entry, dict):
            place = f"{where} entry {number}"
            listing.report("error", place, "this is no entry", "Copy the file anew")
            continue
        row = Row(f"{where} entry {number}", values_of(entry))
        if row.get("image") and not row.get("kind"):
            reason = "the entry has no anomaly_class, so the picture has no label"
            listing.report("error", row.where, reason, "Write OK or the kind of defect")
        yield row

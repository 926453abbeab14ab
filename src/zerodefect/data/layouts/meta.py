"""The field's ``meta.json``: split -> class -> entries."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from zerodefect.data.dataset import DatasetError
from zerodefect.data.layout_registry import Layout, register
from zerodefect.data.layouts.coco import is_coco
from zerodefect.data.layouts.label_studio import is_label_studio
from zerodefect.data.layouts.real_iad import is_real_iad
from zerodefect.data.listing import Listing
from zerodefect.data.table_columns import Row, json_of, values_of
from zerodefect.data.table_rows import SPLITS, add_rows

TREE = """\
data/
├── meta.json                          {"train": {class: [entry, ...]}, "test": {...}}, entry =
└── ...                                {img_path, mask_path, cls_name, specie_name, anomaly}"""


def _recognises(place: Path, named: bool) -> bool:
    if place.is_file():
        others = (is_real_iad, is_coco, is_label_studio)
        return place.suffix.lower() == ".json" and not any(test(place) for test in others)
    return (place / "meta.json").is_file()


# Tentative, because other programs have files of that name, too.
@register(Layout("meta", TREE, _recognises, asked=0, drawn=3, tentative=True))
def _read(place: Path, name: str) -> Listing:
    """Read ``meta.json``, or a file of that form.

    An entry has ``img_path``, ``mask_path`` (empty if there is none), ``cls_name``,
    ``specie_name`` and ``anomaly`` (0 or 1). Split names are understood in any case.
    """
    file = place if place.is_file() else place / "meta.json"
    if not file.is_file():
        raise DatasetError(place, "there is no meta.json", "Write one, or name another layout")
    content = json_of(file)
    splits = content if isinstance(content, dict) else {}
    known = {key: value for key, value in splits.items() if key.strip().casefold() in SPLITS}
    if not known:
        reason = "it has no 'train' or 'test' on its first level"
        raise DatasetError(file, reason, "Write it as split -> class -> list of entries")
    listing = Listing(f"{file.name} lists the pictures")
    for key in splits.keys() - known.keys():
        if isinstance(splits[key], dict | list) and splits[key]:
            reason = "this part is not read: it is no train, validation or test"
            listing.report("warning", f"{file}: {key}", reason, "Rename it if it is one")
    for key, classes in known.items():
        rows = list(_rows(listing, file, key, classes))
        add_rows(listing, rows, [file.parent], name, SPLITS[key.strip().casefold()])
    return listing


def _rows(listing: Listing, file: Path, split: str, classes: Any) -> Iterator[Row]:
    groups = classes.items() if isinstance(classes, dict) else [("", classes)]
    for product, entries in groups:
        place = f"{file}: {split}/{product}" if product else f"{file}: {split}"
        if not isinstance(entries, list):
            listing.report("error", place, "this is no list of entries", "Write a list here")
        elif not entries:
            listing.report("warning", place, "there are no entries", "Add them or remove it")
        else:
            for number, entry in enumerate(entries, 1):
                values = values_of(entry) if isinstance(entry, dict) else {}
                yield Row(f"{place} entry {number}", {"cls_name": product} | values)

"""DAGM 2007: a picture is defective where the folder Label holds a mask of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from zerodefect.data import folders
from zerodefect.data.dataset import GOOD, UNNAMED_DEFECT, DatasetError
from zerodefect.data.layout_registry import Layout, register
from zerodefect.data.listing import Listing, pattern
from zerodefect.data.pairing import strip_suffix

TREE = """\
dagm/
└── Class1/                            or one such class
    ├── Train/0576.PNG ...
    ├── Train/Label/0577_label.PNG ... for defective pictures only
    └── Test/0001.PNG ..., Test/Label/0002_label.PNG ..."""


@register(Layout("dagm", TREE, lambda place, named: _products(place), asked=14))
def _read(root: Path, name: str) -> Listing:
    products = _products(root)
    if not products:
        reason = "there is no class with pictures in Train or Test and masks in Label"
        raise DatasetError(root, reason, "Name the folder that holds the classes (Class1, ...)")
    listing = Listing("masks lie in Label; pictures without one are good")
    for product in products:
        for folder, split in folders.split_folders(product):
            common = pattern(name if product == root else product.name, split, GOOD)
            masks = folders.files_by_path(_label_folder(folder))
            folders.add_pictures(listing, folder, folders.direct_pictures(folder), masks, common)
    listing.samples = [
        replace(sample, kind=UNNAMED_DEFECT, anomalous=True) if sample.mask else sample
        for sample in listing.samples
    ]
    return listing


def _products(root: Path) -> list[Path]:
    return [folder for folder in (root, *folders.subfolders(root)) if _is_class(folder)]


def _is_class(folder: Path) -> bool:
    splits = [part for part, _ in folders.split_folders(folder)]
    return any(map(_label_folder, splits)) and all(
        len(folders.subfolders(part)) <= 1 and folders.direct_pictures(part) for part in splits
    )


def _label_folder(split: Path) -> Path | None:
    """Find the folder ``Label``, where every mask is called ``_label``."""
    for folder in folders.subfolders(split):
        if folder.name.casefold() == "label":
            masks = folders.direct_pictures(folder)
            if masks and all(strip_suffix(file.stem, "_label") for file in masks):
                return folder
    return None

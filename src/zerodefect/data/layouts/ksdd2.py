"""KolektorSDD2: train and test, with a mask beside every picture."""

from __future__ import annotations

from pathlib import Path

from zerodefect.data.dataset import DatasetError
from zerodefect.data.folders import split_folders, subfolders
from zerodefect.data.layout_registry import Layout, register
from zerodefect.data.layouts.ksdd import all_have_masks, read_by_masks, told_apart
from zerodefect.data.listing import Listing

TREE = """\
ksdd2/
├── train/10000.png, 10000_GT.png ...  the mask is black where the part is good
└── test/20000.png, 20000_GT.png ..."""


def _recognises(root: Path, named: bool) -> bool:
    splits = split_folders(root)
    return bool(splits) and all(
        not subfolders(folder) and all_have_masks(folder, "_gt") for folder, _ in splits
    )


@register(Layout("ksdd2", TREE, _recognises, asked=13))
def _read(root: Path, name: str) -> Listing:
    splits = split_folders(root)
    if not any(told_apart(folder, "_gt")[1] for folder, _ in splits):
        reason = "there is no train/ or test/ folder with a picture and its _GT beside it"
        raise DatasetError(root, reason, "Name the folder that holds train and test")
    listing = Listing("every picture in train/ and test/ has its _GT beside it")
    for folder, split in splits:
        read_by_masks(listing, folder, name, "_gt", split)
    return listing

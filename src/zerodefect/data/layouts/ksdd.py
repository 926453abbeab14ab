"""KolektorSDD: a folder for each item, with a mask beside every picture, black where it is good."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from zerodefect.data.dataset import GOOD, UNNAMED_DEFECT, DatasetError, Split
from zerodefect.data.folders import direct_pictures, subfolders
from zerodefect.data.layout_registry import Layout, register
from zerodefect.data.listing import Listing, pattern
from zerodefect.data.mask_files import marks
from zerodefect.data.pairing import strip_suffix
from zerodefect.images import ImageError

TREE = """\
ksdd/
└── kos01/Part0.jpg, Part0_label.bmp ..."""


def _recognises(root: Path, named: bool) -> bool:
    items = _items(root)
    return bool(items) and all(all_have_masks(folder, "_label") for folder in items)


@register(Layout("ksdd", TREE, _recognises, asked=12))
def _read(root: Path, name: str) -> Listing:
    if not _recognises(root, named=True):
        reason = "there are no folders kosNN whose pictures have a _label beside them"
        raise DatasetError(root, reason, "Name the folder that holds the items (kos01, ...)")
    listing = Listing("folders kosNN hold pictures with a _label beside each")
    for folder in _items(root):
        read_by_masks(listing, folder, name, "_label", None)
    return listing


def _items(root: Path) -> list[Path]:
    return [folder for folder in subfolders(root) if folder.name.casefold().startswith("kos")]


def all_have_masks(folder: Path, suffix: str) -> bool:
    """Whether there are pictures, each with one mask ``X<suffix>`` beside it, and nothing else."""
    images, masks, doubles = told_apart(folder, suffix)
    return bool(images) and not doubles and images.keys() == masks.keys()


def told_apart(folder: Path, suffix: str) -> tuple[dict[str, Path], dict[str, Path], list[Path]]:
    """Tell pictures from the masks beside them, both by the picture's stem; then the doubles."""
    images: dict[str, Path] = {}
    masks: dict[str, Path] = {}
    doubles = []
    for file in direct_pictures(folder):
        stem = strip_suffix(file.stem, suffix)
        if (images if stem is None else masks).setdefault(stem or file.stem, file) is not file:
            doubles.append(file)
    return images, masks, doubles


def read_by_masks(
    listing: Listing, folder: Path, product: str, suffix: str, split: Split | None
) -> None:
    """Note the pictures of a folder; each is defective if its mask has a pixel that is not black.

    Masks have the suffix, given in lower case, after their picture's name.
    """
    images, masks, doubles = told_apart(folder, suffix)
    for file in doubles:
        reason = "another file has this name with another ending; this one is not read"
        listing.report("error", file, reason, "Keep one of the two")
    for stem, image in images.items():
        mask, kind = masks.pop(stem, None), ""
        if mask is None:
            reason = f"there is no {stem}{suffix.upper()} beside it, so its label is not known"
            listing.report("error", image, reason, "Add the mask, empty if the part is good")
        else:
            try:
                kind = UNNAMED_DEFECT if marks(mask) else GOOD
            except ImageError as error:
                reason = f"{error.reason}; the label of its picture is not known"
                listing.report("error", mask, reason, error.remedy)
        kept = mask if kind == UNNAMED_DEFECT else None
        listing.samples.append(replace(pattern(product, split, kind), image=image, mask=kept))
    for mask in masks.values():
        listing.report("error", mask, "this mask belongs to no picture", "Remove it")

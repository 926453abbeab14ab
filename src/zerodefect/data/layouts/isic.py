"""ISIC's challenges: pictures in any folder beside the one of the masks."""

from __future__ import annotations

from pathlib import Path

from zerodefect.data import folders
from zerodefect.data.dataset import UNNAMED_DEFECT, DatasetError
from zerodefect.data.layout_registry import Layout, register
from zerodefect.data.listing import Listing, pattern

TREE = """\
skin/                                  or the folder above
├── test/DIR/ISIC_0000003.jpg ...      the folders' names do not matter
└── ISBI2016_ISIC_Part1_Test_GroundTruth/ISIC_0000003_Segmentation.png ..."""


@register(Layout("isic", TREE, lambda place, named: _truth(place), asked=18))
def _read(root: Path, name: str) -> Listing:
    truth = _truth(root)
    if truth is None:
        reason = "there is no folder called ISBI2016_ISIC_Part1_Test_GroundTruth"
        raise DatasetError(root, reason, "Name the folder that holds it, or the one above")
    listing = Listing(f"masks lie in {truth.name}/: every picture shows a lesion")
    listing.all_defective = True
    place, images = truth.parent, folders.direct_pictures(truth.parent)
    for folder in folders.subfolders(place):
        images += folders.any_pictures(folder) if folder != truth else []
    common = pattern(name, "test", UNNAMED_DEFECT)
    folders.add_pictures(listing, place, images, folders.files_by_path(truth), common)
    return listing


def _truth(root: Path) -> Path | None:
    for place in (root, root / "skin"):
        for folder in folders.subfolders(place):
            called = folder.name.casefold()
            if "isic" in called and called.endswith("groundtruth"):
                return folder
    return None

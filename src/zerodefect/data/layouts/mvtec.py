"""The tree of MVTec AD, which most industrial data sets share."""

from __future__ import annotations

from pathlib import Path

from zerodefect.data import folders
from zerodefect.data.dataset import DatasetError
from zerodefect.data.layout_registry import Layout, register
from zerodefect.data.listing import Listing

TREE = """\
bottle/                                or a folder of several such products
├── train/good/000.png ...
├── test/good/000.png ...
├── test/scratch/000.png ...
└── ground_truth/scratch/000_mask.png  optional"""


def mvtec_products(root: Path) -> list[Path]:
    """Find the product folders of an MVTec tree: the root itself, or folders in it.

    Returns:
        Folders that hold train/ or test/ (any case) with something in them; none if this is no
        such tree.
    """
    if folders.split_folders(root):
        return [root]
    return [folder for folder in folders.subfolders(root) if folders.split_folders(folder)]


@register(Layout("mvtec", TREE, lambda place, named: mvtec_products(place), asked=60, drawn=2))
def read_mvtec(root: Path, name: str) -> Listing:
    """Read ``<product>/{train,validation,test}/KIND/X`` and ``ground_truth/KIND/X_mask``.

    Raises:
        DatasetError: if there is no train/ or test/ folder.
    """
    products = mvtec_products(root)
    if not products:
        raise DatasetError(root, "there is no train/ or test/ folder", "Check the path")
    single = products == [root]
    has = "it has" if single else "each product's folder has"
    listing = Listing(f"{has} train/ or test/ folders")
    for folder in products:
        _read_product(listing, folder, name if single else folder.name)
    for folder in [] if single else folders.subfolders(root):
        if folder not in products and folders.listed_pictures(listing, folder, may_be_empty=True):
            reason = "its pictures are not read: it has no train/ or test/ folder"
            listing.report("warning", folder, reason, "Arrange it like the other products")
    return listing


def _read_product(listing: Listing, folder: Path, product: str) -> None:
    before = len(listing.samples)
    truth = [f for f in folders.subfolders(folder) if folders.is_mask_folder(f)]
    for part, split in folders.split_folders(folder):
        # Masks beside the splits belong to the tests: training pictures of this tree are good.
        folders.read_kinds(listing, part, product, split, truth if split == "test" else ())
    if len(listing.samples) == before:
        listing.report("error", folder, "the product has no pictures", "Add them or remove it")
    for other in folders.subfolders(folder):
        if folders.is_split(other) or folders.is_mask_folder(other):
            continue
        if folders.listed_pictures(listing, other, may_be_empty=True):
            reason = "its pictures are not read: it is no split and no folder of masks"
            listing.report("warning", other, reason, "Move them under train/ or test/ if meant so")

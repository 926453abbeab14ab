"""Plain folders: good parts beside a folder for each kind of defect, or bare pictures."""

from __future__ import annotations

from pathlib import Path

from zerodefect.data import folders
from zerodefect.data.dataset import DatasetError
from zerodefect.data.layout_registry import Layout, register
from zerodefect.data.layouts.mvtec import mvtec_products
from zerodefect.data.listing import Listing, is_good, pattern
from zerodefect.images.find import natural_key

TREE = """\
parts/
├── good/0.png ...                     good, ok, pass, iO, ...; one folder is enough; without
├── scratch/0.png ...                  any such folder the pictures count as unlabelled
└── ground_truth/scratch/0_mask.png    optional"""


@register(Layout("folder", TREE, lambda place, named: place.is_dir(), asked=99, drawn=1))
def _read(root: Path, name: str) -> Listing:
    """Read ``good/`` beside folders of defect kinds, products of that form, or bare pictures."""
    if mvtec_products(root):  # splits must not be taken for products
        reason = "there are train/ or test/ folders, so this is the mvtec layout"
        raise DatasetError(root, reason, "Name the layout mvtec, or none")
    if folders.has_kinds(root):
        listing = Listing("sub-folders say good, or have masks, and there is no train/ or test/")
        folders.read_kinds(listing, root, name)
        if folders.is_split(root):
            listing.notes.append(
                "this is one split of a product: load the folder above for masks and splits"
            )
        return listing
    products = [folder for folder in folders.subfolders(root) if folders.has_kinds(folder)]
    if not products:
        return _read_bare(root, name)
    listing = Listing("each product's folder has a sub-folder for good pictures, or masks")
    for folder in folders.subfolders(root):
        if folder in products:
            folders.read_kinds(listing, folder, folder.name)
        elif not folders.is_mask_folder(folder):
            _read_unlabelled(listing, folder, folder.name)
    folders.add_mixed(listing, root, folders.direct_pictures(root), pattern(name, None))
    return listing


def _read_unlabelled(listing: Listing, folder: Path, product: str) -> None:
    found = folders.listed_pictures(listing, folder)
    folders.add_mixed(listing, folder, found, pattern(product, None))


def _read_bare(root: Path, name: str) -> Listing:
    """Read pictures without labels; folders in the root are products."""
    listing = Listing("no sub-folder's name means good, train or test: no labels")
    loose, inside = folders.direct_pictures(root), folders.subfolders(root)
    telling = {"image", "images", "img", "imgs"}
    masked = any(folders.holds_masks(f.name) or f.name.casefold() in telling for f in inside)
    if loose or not inside or masked:
        _read_unlabelled(listing, root, name)
    else:
        for folder in inside:
            _read_unlabelled(listing, folder, folder.name)
    labels = {
        part
        for sample in listing.samples
        for part in sample.image.relative_to(root).parent.parts
        if is_good(part) or part.casefold() in folders.SPLITS
    }
    if labels:
        reason = f"folders that look like labels ({', '.join(sorted(labels))}) lie deeper inside"
        listing.report("error", root, reason, "Load the folder that holds the products")
    elif len(products := {sample.product for sample in listing.samples}) > 1:
        names = ", ".join(sorted(products, key=natural_key)[:5])
        reason = f"no folder's name means good, so each is read as a product ({names})"
        listing.report("warning", root, reason, "If one holds good parts, call it good")
    return listing

"""Data sets whose folder names say everything: plain folders and the MVTec tree."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path, PurePath

from zerodefect.data.dataset import DatasetError, Sample, Severity, Split
from zerodefect.data.listing import GOOD_NAMES, Listing, is_good, labelled
from zerodefect.data.masks import marks
from zerodefect.data.pairing import MASK_SUFFIXES, Pairing, pair_masks, strip_suffix
from zerodefect.images import ImageError, find_images
from zerodefect.images.find import natural_key

_SPLITS: dict[str, Split] = {
    "train": "train",
    "validation": "validation",
    "val": "validation",
    "test": "test",
}
# "label" is no mask folder beside folders of kinds: there it may be a kind, as of a bottle.
_MASK_FOLDERS = frozenset({"ground_truth", "groundtruth", "gt", "mask", "masks"})
_INNER_MASK_FOLDERS = _MASK_FOLDERS | {"label", "labels"}


def mvtec_products(root: Path) -> list[Path]:
    """Find the product folders of an MVTec tree: the root itself, or folders in it.

    Returns:
        Folders that hold train/ or test/ (any case) with something in them; none if this is no
        such tree.
    """
    if split_folders(root):
        return [root]
    return [folder for folder in subfolders(root) if split_folders(folder)]


def read_mvtec(root: Path, name: str) -> Listing:
    """Read ``<product>/{train,validation,test}/KIND/X`` and ``ground_truth/KIND/X_mask``.

    Raises:
        DatasetError: if there is no train/ or test/ folder.
    """
    products = mvtec_products(root)
    if not products:
        raise DatasetError(root, "there is no train/ or test/ folder", "Check the path")
    if products == [root]:
        listing = Listing("it has train/ or test/ folders")
        _read_product(listing, root, name)
        return listing
    listing = Listing("each product's folder has train/ or test/ folders")
    for folder in products:
        _read_product(listing, folder, folder.name)
    for folder in subfolders(root):
        if folder not in products and listed_pictures(listing, folder, may_be_empty=True):
            reason = "its pictures are not read: it has no train/ or test/ folder"
            listing.report("warning", folder, reason, "Arrange it like the other products")
    return listing


def read_folder(root: Path, name: str) -> Listing:
    """Read ``good/`` beside folders of defect kinds, products of that form, or bare pictures.

    Raises:
        DatasetError: if this is an MVTec tree, whose splits must not be taken for products.
    """
    if mvtec_products(root):
        reason = "there are train/ or test/ folders, so this is the mvtec layout"
        raise DatasetError(root, reason, "Name the layout mvtec, or none")
    if _has_kinds(root):
        listing = Listing("sub-folders say good, or have masks, and there is no train/ or test/")
        _read_kinds(listing, root, name, None)
        if root.name.casefold() in _SPLITS:
            listing.notes.append(
                "this is one split of a product: load the folder above for masks and splits"
            )
        return listing
    products = [folder for folder in subfolders(root) if _has_kinds(folder)]
    if products:
        listing = Listing("each product's folder has a sub-folder for good pictures, or masks")
        for folder in subfolders(root):
            if folder in products:
                _read_kinds(listing, folder, folder.name, None)
            elif not _is_mask_folder(folder):
                _read_unlabelled(listing, folder, folder.name, None)
        loose = direct_pictures(root)
        _add_pictures(listing, root, *_split_masks(root, loose), name, None)
        return listing
    return _read_bare(root, name)


def subfolders(folder: Path) -> list[Path]:
    """List visible folders in natural order, without links that lead back up.

    A folder that may not be read counts as empty here; listing its pictures reports it.
    """
    above = (folder.resolve(), *folder.resolve().parents)
    return [
        entry
        for entry in _entries(folder)
        if entry.is_dir() and not (entry.is_symlink() and entry.resolve() in above)
    ]


def _entries(folder: Path) -> list[Path]:
    try:
        names = [name for name in os.listdir(folder) if not name.startswith(".")]  # noqa: PTH208
    except OSError:
        return []
    return [folder / name for name in sorted(names, key=natural_key)]


def split_folders(folder: Path) -> list[tuple[Path, Split]]:
    """List train/, validation/ and test/, in any case; none without a train/ or test/."""
    folders = [(f, _SPLITS[f.name.casefold()]) for f in subfolders(folder) if _is_split(f)]
    return folders if {split for _, split in folders} & {"train", "test"} else []


def _is_split(folder: Path) -> bool:
    return folder.name.casefold() in _SPLITS


def _is_mask_folder(folder: PurePath) -> bool:
    return folder.name.casefold() in _MASK_FOLDERS


def _has_kinds(folder: Path) -> bool:
    """Whether sub-folders are kinds: one is called good, or folders of masks have their names."""
    inside = subfolders(folder)
    names = {f.name.casefold() for f in inside if not _is_mask_folder(f)}
    masked = {k.name.casefold() for f in inside if _is_mask_folder(f) for k in subfolders(f)}
    return any(is_good(name) for name in names) or bool(names & masked)


def _read_product(listing: Listing, folder: Path, product: str) -> None:
    before = len(listing.samples)
    ignored = [f for f in subfolders(folder) if not (_is_split(f) or _is_mask_folder(f))]
    truth = [f for f in subfolders(folder) if _is_mask_folder(f)]
    for part, split in split_folders(folder):
        # Masks beside the splits belong to the tests: training pictures of this tree are good.
        _read_kinds(listing, part, product, split, truth if split == "test" else ())
    if len(listing.samples) == before:
        listing.report("error", folder, "the product has no pictures", "Add them or remove it")
    for other in ignored:
        if listed_pictures(listing, other, may_be_empty=True):
            reason = "its pictures are not read: it is no split and no folder of masks"
            listing.report("warning", other, reason, "Move them under train/ or test/ if meant so")


def _read_kinds(
    listing: Listing,
    folder: Path,
    product: str,
    split: Split | None,
    truth: Iterable[Path] = (),
) -> None:
    """Read folders of kinds, with their masks in the folders ``truth`` or in folders beside."""
    inside = subfolders(folder)
    loose = direct_pictures(folder)
    mask_folders = _INNER_MASK_FOLDERS if loose else _MASK_FOLDERS
    truth = [*truth, *(f for f in inside if f.name.casefold() in mask_folders)]
    kinds = [f for f in inside if f not in truth]
    masks = _masks_by_kind(listing, truth)
    defects = [f.name.casefold() for f in kinds if not is_good(f.name)]
    if len(defects) == 1 and not loose and defects[0] not in masks:
        masks[defects[0]] = masks.pop("", {})  # a single kind needs no folder for its masks
    for kind in kinds:
        found = _without_depth(listing, kind, listed_pictures(listing, kind))
        if not found:
            continue
        images, beside = _split_masks(kind, found)
        separate = masks.pop(kind.name.casefold(), {})
        _add_pictures(listing, kind, images, beside, product, split, kind.name, separate)
    shared = masks.pop("", {})
    if loose:
        images, beside = _split_masks(folder, loose)
        _add_pictures(listing, folder, images, beside, product, split, None, shared)
        reason = f"pictures lie directly in this folder and so have no label: {len(images)}"
        listing.report("warning", folder, reason, "Move them into good/ or a folder per defect")
        shared = {}
    for left in (*masks.values(), shared):
        for mask in left.values():
            reason = "there is no folder of pictures for this mask"
            listing.report("error", mask, reason, "Name mask folders like the folders of pictures")


def _masks_by_kind(listing: Listing, truth: Iterable[Path]) -> dict[str, dict[PurePath, Path]]:
    """List mask files by kind in lower case, each under its path in the folder of that kind."""
    masks: dict[str, dict[PurePath, Path]] = {}
    for folder in truth:
        for file in listed_pictures(listing, folder, may_be_empty=True):
            first, *rest = file.relative_to(folder).parts
            of_kind = masks.setdefault(first.casefold() if rest else "", {})
            _add_mask(listing, of_kind, PurePath(*rest) if rest else PurePath(first), file)
    return masks


def _add_mask(listing: Listing, masks: dict[PurePath, Path], inside: PurePath, file: Path) -> None:
    if inside in masks:
        reason = f"there is a mask of this name in another folder: {masks[inside]}"
        listing.report("error", file, reason, "Remove one of the two")
    else:
        masks[inside] = file


def _read_unlabelled(listing: Listing, folder: Path, product: str, split: Split | None) -> None:
    found = listed_pictures(listing, folder)
    _add_pictures(listing, folder, *_split_masks(folder, found), product, split)


def _read_bare(root: Path, name: str) -> Listing:
    """Read pictures without labels; folders in the root are products."""
    listing = Listing("no sub-folder is called good, ok, normal, train or test: no labels")
    loose = direct_pictures(root)
    folders = [f for f in subfolders(root) if f.name.casefold() not in _INNER_MASK_FOLDERS]
    pictured = [f for f in folders if f.name.casefold() in {"image", "images", "img", "imgs"}]
    has_masks = len(folders) < len(subfolders(root))
    if loose or pictured or has_masks or not folders:
        _read_unlabelled(listing, root, name, None)
    else:
        for folder in folders:
            _read_unlabelled(listing, folder, folder.name, None)
    telling = (GOOD_NAMES | set(_SPLITS)) & {
        part.casefold()
        for sample in listing.samples
        for part in sample.image.relative_to(root).parent.parts
    }
    if telling:
        reason = f"folders that look like labels ({', '.join(sorted(telling))}) lie deeper inside"
        listing.report("error", root, reason, "Load the folder that holds the products")
    return listing


def direct_pictures(folder: Path) -> list[Path]:
    """List the pictures that lie in a folder itself."""
    files = {entry for entry in _entries(folder) if not entry.is_dir()}
    return [file for file in find_images([folder]) if file in files] if files else []


def listed_pictures(listing: Listing, folder: Path, may_be_empty: bool = False) -> list[Path]:
    """List the pictures in a folder at any depth; an empty or closed folder is a problem."""
    try:
        return find_images([folder])
    except ImageError as error:
        empty = "no pictures" in error.reason
        if not (empty and may_be_empty):
            severity: Severity = "warning" if empty else "error"
            listing.report(severity, error.path, error.reason, error.remedy)
        return []


def _split_masks(folder: Path, files: list[Path]) -> tuple[list[Path], list[Path]]:
    """Tell pictures from masks among the files of one kind.

    Masks lie in a folder of their own (BMAD: ``label``; MVTec 3D-AD: ``gt``) or beside their
    picture under its name and a suffix (KSDD: ``Part0.jpg``, ``Part0_label.bmp``).
    """
    masks = {f for f in files if _in_folder(f.relative_to(folder), _INNER_MASK_FOLDERS)}
    images = [f for f in files if f not in masks]
    names = {(f.parent, f.stem) for f in images}
    for file in images:
        bare = [strip_suffix(file.stem, suffix) for suffix in MASK_SUFFIXES[1:]]
        if any((file.parent, name) in names for name in bare if name):
            masks.add(file)
    return [f for f in images if f not in masks], [f for f in files if f in masks]


def _without_depth(listing: Listing, folder: Path, files: list[Path]) -> list[Path]:
    """Leave out what MVTec 3D-AD has beside ``rgb`` pictures: positions, masks of good ones."""
    inner = {f.relative_to(folder).parts[0] for f in files}
    if not {"rgb", "xyz"} <= inner:
        return files
    listing.notes.append(f"{folder}: pictures in rgb/ are read, positions in xyz/ are not")
    seen = [f for f in files if f.relative_to(folder).parts[0] != "xyz"]
    if not is_good(folder.name):
        return seen
    return [f for f in seen if not (f.relative_to(folder).parts[0] == "gt" and _is_black(f))]


def _is_black(mask: Path) -> bool:
    try:
        return not marks(mask)
    except ImageError:
        return False  # it is kept, and its error reported


def _in_folder(path: PurePath, names: frozenset[str]) -> bool:
    return any(part.casefold() in names for part in path.parent.parts)


def _add_pictures(
    listing: Listing,
    folder: Path,
    images: list[Path],
    beside: list[Path],
    product: str,
    split: Split | None,
    kind: str | None = None,
    separate: dict[PurePath, Path] | None = None,
) -> None:
    """Pair pictures with masks and note the samples.

    Args:
        listing: where to note them.
        folder: that the pictures are in.
        images: pictures of one kind.
        beside: masks that lie in the same folder.
        product: name of the product.
        split: of the pictures.
        kind: name of their folder, or None for pictures without a label.
        separate: masks in another folder, by the path in that folder.
    """
    masks = dict(separate or {})
    for file in beside:
        _add_mask(listing, masks, file.relative_to(folder), file)
    pictures = {f.relative_to(folder): f for f in images}
    pairing = pair_masks(list(pictures), list(masks))
    for inside, image in pictures.items():
        files = [masks[m] for m in pairing.masks.get(inside, ())]
        sample = Sample(image, None, product, "", None, split)
        if files:
            sample = Sample(image, files[0], product, "", None, split, tuple(files[1:]))
        listing.samples.append(sample if kind is None else labelled(sample, kind))
    report_pairing(listing, folder, pairing, masks)


def report_pairing(
    listing: Listing, folder: Path, pairing: Pairing, masks: dict[PurePath, Path]
) -> None:
    """Note what a pairing leaves to look at: masks without a picture, pairs made by order."""
    if pairing.by_order:
        listing.notes.append(
            f"{folder}: names of pictures and masks do not agree; the {len(pairing.masks)} masks "
            "were paired in sorted order: look at a few"
        )
    for mask in pairing.orphans:
        reason = "this mask belongs to no picture, or its picture has another mask"
        listing.report("error", masks[mask], reason, "Name it like its picture, or remove it")

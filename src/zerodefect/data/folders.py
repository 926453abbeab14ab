"""What lies in folders: splits, kinds of pictures, and the masks that belong to them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path, PurePath

from zerodefect.data.dataset import Sample, Severity, Split
from zerodefect.data.listing import Listing, is_good, pattern, tell_test_words
from zerodefect.data.mask_files import marks
from zerodefect.data.pairing import Pairing, is_by_product, masks_among, pair_masks
from zerodefect.images import ImageError, find_images
from zerodefect.images.find import is_folder, is_picture, visible
from zerodefect.images.part_files import COLOURS, MASKS, POINTS, cloud_beside

SPLITS: dict[str, Split] = {
    "train": "train",
    "validation": "validation",
    "val": "validation",
    "valid": "validation",
    "test": "test",
    "training": "train",
    "testing": "test",
}
# "label" is no mask folder beside folders of kinds: there it may be a kind, as of a bottle.
_MASK_FOLDERS = frozenset(
    {"groundtruth", "groundtruths", "gt", "gts", "gtmask", "gtmasks", "mask", "masks"}
    | {"maskimages", "binarymasks", "segmentation", "segmentations", "segmentationclass"}
    | {"annotation", "annotations"}
)
_INNER_MASK_FOLDERS = _MASK_FOLDERS | {"label", "labels"}

Masks = dict[PurePath, Path]  # mask files under their paths in the folder of masks


def subfolders(folder: Path) -> list[Path]:
    """List visible folders in natural order, without links that lead back up.

    A folder that may not be read counts as empty here; listing its pictures reports it.
    """
    above = (folder.resolve(), *folder.resolve().parents)
    return [
        entry
        for entry in _inside(folder)
        if is_folder(entry) and not (entry.is_symlink() and entry.resolve() in above)
    ]


def _inside(folder: Path) -> list[Path]:
    try:
        return visible(folder)
    except OSError:
        return []


def is_split(folder: Path) -> bool:
    """Whether a folder is called like a split, in any case."""
    return folder.name.casefold() in SPLITS


def split_folders(folder: Path) -> list[tuple[Path, Split]]:
    """List train/, validation/ and test/, in any case; none without a train/ or test/."""
    folders = [(f, SPLITS[f.name.casefold()]) for f in subfolders(folder) if is_split(f)]
    return folders if {split for _, split in folders} & {"train", "test"} else []


def direct_pictures(folder: Path) -> list[Path]:
    """List the pictures that lie in a folder itself."""
    return [entry for entry in _inside(folder) if is_picture(entry)]


def listed_pictures(listing: Listing, folder: Path, may_be_empty: bool = False) -> list[Path]:
    """List the pictures in a folder at any depth; what is empty or closed is a problem.

    A folder inside that cannot be opened costs its own pictures alone.
    """
    try:
        found = find_images([folder])
    except ImageError as error:
        empty = "no pictures" in error.reason
        if not (empty and may_be_empty):
            severity: Severity = "warning" if empty else "error"
            listing.report(severity, error.path, error.reason, error.remedy)
        return []
    closed = {path for path in found if path.is_dir()}
    for path in closed:
        reason, remedy = "the folder cannot be read", "Ask for access to it, or leave it out"
        listing.report("error", path, reason, remedy)
    return [path for path in found if path not in closed]


def any_pictures(folder: Path) -> list[Path]:
    """List the pictures in a folder at any depth; none where it is missing, empty or closed."""
    return listed_pictures(Listing(""), folder, may_be_empty=True) if folder.is_dir() else []


def files_by_path(folder: Path | None) -> Masks:
    """List a folder of masks at any depth, each file under its path in the folder."""
    return {file.relative_to(folder): file for file in any_pictures(folder)} if folder else {}


def add_pictures(
    listing: Listing, folder: Path, images: Iterable[Path], masks: Masks, common: Sample
) -> None:
    """Pair pictures in a folder with masks, and note samples and what is left to look at.

    ``common`` is what all the pictures share.
    """
    pictures = {file.relative_to(folder): file for file in images}
    pairing = pair_masks(list(pictures), list(masks))
    _report_pairing(listing, folder, pairing, masks)
    for inside, image in pictures.items():
        own = tuple(masks[name] for name in pairing.masks.get(inside, ()))
        sample = replace(common, image=image, mask=own[0] if own else None, more_masks=own[1:])
        listing.samples.append(replace(sample, cloud=cloud_beside(image)))


def _report_pairing(listing: Listing, folder: Path, pairing: Pairing, masks: Masks) -> None:
    """Report masks that were paired by less than their names, and those that were not."""
    if pairing.how != "name":
        how = "by their numbers" if pairing.how == "number" else "in sorted order"
        reason = f"names of pictures and masks do not agree; {len(pairing.masks)} masks were paired"
        remedy = "Look at a few; better name masks like their pictures"
        listing.report("warning", folder, f"{reason} {how}", remedy)
    for orphan in pairing.orphans:
        claimed = [image.as_posix() for image in pairing.claims.get(orphan, ())]
        reason = "this mask belongs to no picture, by its name"
        if len(claimed) == 1:
            reason = f"its name is that of {claimed[0]}, which has another mask; it is not used"
        elif claimed:
            reason = f"its name fits several pictures ({', '.join(claimed[:3])}); it is not used"
        listing.report("error", masks[orphan], reason, "Name it like its picture, or remove it")


def is_mask_folder(folder: PurePath) -> bool:
    """Whether a folder beside folders of kinds holds their masks, by its name."""
    return _plain(folder.name) in _MASK_FOLDERS


def holds_masks(name: str) -> bool:
    """Whether a folder among pictures holds their masks, by its name."""
    return _plain(name) in _INNER_MASK_FOLDERS


def _plain(name: str) -> str:
    return re.sub("[-_. ]", "", name.casefold())


def has_kinds(folder: Path) -> bool:
    """Whether sub-folders are kinds: one is called good, or folders of masks have their names."""
    inside = subfolders(folder)
    names = {f.name.casefold() for f in inside if not is_mask_folder(f)}
    masked = {k.name.casefold() for f in inside if is_mask_folder(f) for k in subfolders(f)}
    return any(is_good(name) for name in names) or bool(names & masked)


def read_kinds(
    listing: Listing,
    folder: Path,
    product: str,
    split: Split | None = None,
    truth: Iterable[Path] = (),
) -> None:
    """Read folders of kinds, with their masks in the folders ``truth`` or in folders beside."""
    inside = subfolders(folder)
    loose = direct_pictures(folder)
    holds = holds_masks if loose else lambda name: is_mask_folder(PurePath(name))
    truth = [*truth, *(f for f in inside if holds(f.name))]
    kinds = [f for f in inside if f not in truth]
    masks = _masks_by_kind(listing, truth)
    defects = [f.name.casefold() for f in kinds if not is_good(f.name)]
    if len(defects) == 1 and not loose and defects[0] not in masks:
        masks[defects[0]] = masks.pop("", {})  # a single kind needs no folder for its masks
    tell_test_words(listing, (kind.name for kind in kinds))
    for kind in kinds:
        if found := _parts(kind, listed_pictures(listing, kind)):
            separate = masks.pop(kind.name.casefold(), {})
            add_mixed(listing, kind, found, pattern(product, split, kind.name), separate)
    shared = masks.pop("", {})
    if loose:
        count = add_mixed(listing, folder, loose, pattern(product, split), shared)
        reason = f"pictures lie directly in this folder and so have no label: {count}"
        listing.report("warning", folder, reason, "Move them into good/ or a folder per defect")
        shared = {}
    for left in (*masks.values(), shared):
        for mask in left.values():
            reason = "there is no folder of pictures for this mask"
            listing.report("error", mask, reason, "Name mask folders like the folders of pictures")


def add_mixed(
    listing: Listing, folder: Path, files: list[Path], common: Sample, separate: Masks | None = None
) -> int:
    """Tell pictures from the masks among them, add them, and say how many pictures there are."""
    images, beside = _split_masks(folder, files)
    masks = dict(separate or {})
    for file in beside:
        _add_mask(listing, masks, file.relative_to(folder), file)
    add_pictures(listing, folder, images, masks, common)
    return len(images)


def _masks_by_kind(listing: Listing, truth: Iterable[Path]) -> dict[str, Masks]:
    """List mask files by kind in lower case, each under its path in the folder of that kind."""
    masks: dict[str, Masks] = {}
    for folder in truth:
        found = listed_pictures(listing, folder, may_be_empty=True)
        for file in (file for file in found if not is_by_product(file)):
            first, *rest = file.relative_to(folder).parts
            of_kind = masks.setdefault(first.casefold() if rest else "", {})
            _add_mask(listing, of_kind, PurePath(*rest) if rest else PurePath(first), file)
    return masks


def _add_mask(listing: Listing, masks: Masks, inside: PurePath, file: Path) -> None:
    if inside in masks:
        reason = f"there is a mask of this name in another folder: {masks[inside]}"
        listing.report("error", file, reason, "Remove one of the two")
    else:
        masks[inside] = file


def _split_masks(folder: Path, files: list[Path]) -> tuple[list[Path], list[Path]]:
    """Tell pictures from masks among the files of one kind.

    Masks lie in a folder of their own (BMAD: ``label``; MVTec 3D-AD: ``gt``) or beside their
    picture under its name and a suffix (KSDD: ``Part0.jpg``, ``Part0_label.bmp``).
    """
    files = [f for f in files if not is_by_product(f)]
    above = {f: f.relative_to(folder).parts[:-1] for f in files}
    masks = {f for f in files if any(map(holds_masks, above[f]))}
    masks |= masks_among([f for f in files if f not in masks])
    return [f for f in files if f not in masks], [f for f in files if f in masks]


def _parts(folder: Path, files: list[Path]) -> list[Path]:
    """Leave out what MVTec 3D-AD has beside its parts: their clouds, and masks of good ones.

    A part is its picture, or its cloud where it has none.
    """
    inner = {f: f.relative_to(folder).parts[0] for f in files}
    if POINTS not in inner.values() or not set(inner.values()) <= {COLOURS, POINTS, MASKS}:
        return files
    pictures = {f.stem for f in files if inner[f] == COLOURS}
    good = is_good(folder.name)
    return [
        f
        for f in files
        if not (inner[f] == POINTS and f.stem in pictures)
        and not (good and inner[f] == MASKS and _black(f))
    ]


def _black(mask: Path) -> bool:
    try:
        return not marks(mask)
    except ImageError:
        return False  # it is kept, and its error reported

"""Which mask file belongs to which picture, by their names."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from zerodefect.images.find import natural_key

# What data sets append to a picture's name to name its mask: MVTec AD, DAGM, KSDD2, ISIC.
MASK_SUFFIXES = ("", "_mask", "_label", "_gt", "_segmentation")


@dataclass(frozen=True)
class Pairing:
    """Outcome of pairing.

    Attributes:
        masks: the masks of each picture that has any, in natural order.
        orphans: masks that belong to no picture, or to one that has another mask already.
        by_order: the names did not agree at all, so the sorted lists were laid side by side.
    """

    masks: Mapping[PurePath, tuple[PurePath, ...]]
    orphans: tuple[PurePath, ...] = ()
    by_order: bool = False


def pair_masks(images: Sequence[PurePath], masks: Sequence[PurePath]) -> Pairing:
    """Pair the pictures and masks of one folder of pictures and one of masks.

    First by name: ``X`` with ``X``, ``X_mask``, ``X_label``, ``X_GT`` or ``X_Segmentation``, any
    ending; the suffix that fits most files goes first. Sub-folders count as part of the name
    where they agree. A folder of masks named like a picture holds that picture's masks (MVTec
    LOCO AD). A name that fits several pictures is given to none of them. Where not a single name
    fits and there are as many masks as pictures, both sorted lists are paired in their order.

    Args:
        images: paths relative to the folder of pictures, each once, in any order.
        masks: paths relative to the folder of masks, each once, in any order.

    Returns:
        Pairs of those paths; every mask is either in a pair or an orphan.
    """
    left = sorted(images, key=lambda path: natural_key(path.as_posix()))
    loose = sorted(masks, key=lambda path: natural_key(path.as_posix()))
    pairs = _in_named_folders(left, loose)
    doubtful = False
    for name_of in (_exact_name, _folded_name, _bare_name):
        left = [image for image in left if image not in pairs]
        taken = {mask for group in pairs.values() for mask in group}
        loose = [mask for mask in loose if mask not in taken]
        found, unclear = _by_name(left, loose, name_of)
        pairs.update(found)
        doubtful = doubtful or unclear
    taken = {mask for group in pairs.values() for mask in group}
    orphans = tuple(mask for mask in loose if mask not in taken)
    if not pairs and not doubtful and orphans and len(left) == len(orphans):
        in_order = {image: (mask,) for image, mask in zip(left, orphans, strict=True)}
        return Pairing(in_order, by_order=True)
    return Pairing(pairs, orphans)


def strip_suffix(name: str, suffix: str) -> str | None:
    """Give ``name`` without ``suffix`` in any case, or None if it does not end so."""
    if not suffix:
        return name
    fits = name[-len(suffix) :].casefold() == suffix and len(name) > len(suffix)
    return name[: -len(suffix)] if fits else None


def _exact_name(path: PurePath) -> tuple[str, str]:
    return path.parent.as_posix(), path.stem


def _folded_name(path: PurePath) -> tuple[str, str]:
    return _fold(path.parent.as_posix()), _fold(path.stem)


def _bare_name(path: PurePath) -> tuple[str, str]:
    return "", _fold(path.stem)


def _fold(name: str) -> str:
    """Make names equal that differ in case, or in how an accent is stored (macOS)."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _in_named_folders(
    images: list[PurePath], masks: list[PurePath]
) -> dict[PurePath, tuple[PurePath, ...]]:
    by_name = _unambiguous(images, _exact_name)
    pairs: dict[PurePath, tuple[PurePath, ...]] = {}
    for mask in masks:
        folder = mask.parent
        image = by_name.get((folder.parent.as_posix(), folder.name))
        if image is not None:
            pairs[image] = (*pairs.get(image, ()), mask)
    return pairs


def _by_name(
    images: list[PurePath],
    masks: list[PurePath],
    name_of: Callable[[PurePath], tuple[str, str]],
) -> tuple[dict[PurePath, tuple[PurePath, ...]], bool]:
    """Pair by one rule for names; also say whether some name fitted several pictures."""
    by_name = _unambiguous(images, name_of)
    several = {name for name, n in Counter(map(name_of, images)).items() if n > 1}
    fits: dict[str, list[tuple[PurePath, PurePath]]] = {}
    unclear = False
    for suffix in MASK_SUFFIXES:
        fits[suffix] = []
        for mask in masks:
            folder, stem = name_of(mask)
            name = (folder, strip_suffix(stem, suffix) or "")
            unclear = unclear or name in several
            if name in by_name:
                fits[suffix].append((by_name[name], mask))
    pairs: dict[PurePath, tuple[PurePath, ...]] = {}
    used: set[PurePath] = set()
    # The suffix of most files first: with a.png, a_mask.png, a_mask_mask.png the second file may
    # be a picture or a mask, and only the folder as a whole tells.
    for suffix in sorted(MASK_SUFFIXES, key=lambda s: -len(fits[s])):
        for image, mask in fits[suffix]:
            if image not in pairs and mask not in used:
                pairs[image] = (mask,)
                used.add(mask)
    return pairs, unclear


def _unambiguous(
    images: list[PurePath], name_of: Callable[[PurePath], Hashable]
) -> dict[Hashable, PurePath]:
    counts = Counter(map(name_of, images))
    return {name_of(image): image for image in images if counts[name_of(image)] == 1}

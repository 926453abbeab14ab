"""Which mask file belongs to which picture, by their names."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath

from zerodefect.images.find import natural_key

# What data sets append to a picture's name to name its mask: MVTec AD, DAGM, KSDD2, ISIC.
MASK_SUFFIXES = ("", "_mask", "_label", "_gt", "_segmentation")

_Name = tuple[str, str]
_Rule = Callable[[PurePath], _Name]
_Pairs = dict[PurePath, tuple[PurePath, ...]]


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
    images, masks = (
        sorted(paths, key=lambda path: natural_key(path.as_posix())) for paths in (images, masks)
    )
    pairs: _Pairs = {}
    named = _group(images, _exact_name)
    for mask in masks:
        fitting = named.get((mask.parent.parent.as_posix(), mask.parent.name), ())
        if len(fitting) == 1:
            pairs[fitting[0]] = (*pairs.get(fitting[0], ()), mask)
    used = {mask for group in pairs.values() for mask in group}
    rules = (_exact_name, _folded_name, _bare_name)
    doubtful = [_pair_by_name(images, masks, rule, pairs, used) for rule in rules]
    orphans = tuple(mask for mask in masks if mask not in used)
    if not pairs and not any(doubtful) and orphans and len(images) == len(orphans):
        in_order = {image: (mask,) for image, mask in zip(images, orphans, strict=True)}
        return Pairing(in_order, by_order=True)
    return Pairing(pairs, orphans)


def strip_suffix(name: str, suffix: str) -> str | None:
    """Give ``name`` without ``suffix`` in any case, or None if it does not end so."""
    bare = name[: len(name) - len(suffix)]
    return bare if bare and name[len(bare) :].casefold() == suffix else None


def _exact_name(path: PurePath) -> _Name:
    return path.parent.as_posix(), path.stem


def _folded_name(path: PurePath) -> _Name:
    return _fold(path.parent.as_posix()), _fold(path.stem)


def _bare_name(path: PurePath) -> _Name:
    return "", _fold(path.stem)


def _fold(name: str) -> str:
    """Make names equal that differ in case, or in how an accent is stored (macOS)."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _group(images: Iterable[PurePath], rule: _Rule) -> dict[_Name, list[PurePath]]:
    groups = defaultdict(list)
    for image in images:
        groups[rule(image)].append(image)
    return groups


def _pair_by_name(
    images: list[PurePath], masks: list[PurePath], rule: _Rule, pairs: _Pairs, used: set[PurePath]
) -> bool:
    """Pair by one rule what is left; say whether some name fitted several pictures."""
    named = _group((image for image in images if image not in pairs), rule)
    fits: list[list[tuple[PurePath, PurePath]]] = [[] for _ in MASK_SUFFIXES]
    doubtful = False
    for mask in (mask for mask in masks if mask not in used):
        folder, stem = rule(mask)
        for fit, suffix in zip(fits, MASK_SUFFIXES, strict=True):
            fitting = named.get((folder, strip_suffix(stem, suffix) or ""), ())
            doubtful = doubtful or len(fitting) > 1
            if len(fitting) == 1:
                fit.append((fitting[0], mask))
    # The suffix of most files first: with a.png, a_mask.png, a_mask_mask.png the second file may
    # be a picture or a mask, and only the folder as a whole tells.
    for fit in sorted(fits, key=len, reverse=True):
        for image, mask in fit:
            if image not in pairs and mask not in used:
                pairs[image] = (mask,)
                used.add(mask)
    return doubtful

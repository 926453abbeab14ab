"""Which mask file belongs to which picture, by their names."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Literal

from zerodefect.images.find import natural_key

# What data sets and annotation tools put before or behind a picture's name to name its mask.
_PLAIN = r"masks?|labels?|gts?|ground[-_. ]?truths?|segs?|segmentations?"
_MASK_WORD = (
    rf"(?:{_PLAIN}|(?:colou?r|bw|binary|pixel|seg|gt|bin)[-_. ]?(?:masks?|labels?)|lbl|truth|segm|"
    r"segmentationclass|annotations?|anno|ann|defects?|gtfine|labelids|pixels?|matte|anomaly)"
)
_PICTURE_WORD = (
    r"(?:images?|imgs?|im|pictures?|pics?|photos?|frames?|inputs?|orig|originals?|raw|rgb|colou?r|"
    r"sat|scan|leftimg8bit)"
)
_ENDING = re.compile(r"(.+)\.(?:png|jpe?g|bmp|tiff?|webp|gif)", re.I | re.S)
_JSON_FOLDER = "_json"  # labelme's converter: 001_json/label.png, beside img.png and label_viz.png

_Name = tuple[str, str]
_Rule = Callable[[PurePath], _Name]
_Pairs = dict[PurePath, tuple[PurePath, ...]]
How = Literal["name", "number", "order"]


def _affixes(word: str, index: str = "") -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Patterns of a name with one of the words before or behind it, glued only to a digit."""
    gap = "[-_. ]"
    before = rf"{word}{index}(?:{gap}|(?=\d))(?P<bare>.+)"
    flags = re.IGNORECASE | re.DOTALL  # names may hold new lines
    behind = rf"(?P<bare>.+?)(?:{gap}|(?<=\d)){word}{index}"
    return re.compile(behind, flags), re.compile(before, flags)


_AFFIXES = _affixes(_MASK_WORD)
_BESIDE = _affixes(rf"(?:{_PLAIN})")  # in one folder 001_defect.png may as well be a picture
_NUMBERED, _ = _affixes(_MASK_WORD, r"[-_. ]?\d{1,3}")  # 001_mask_0.png, 001_mask_1.png
_OF_PICTURES = _affixes(_PICTURE_WORD)


@dataclass(frozen=True)
class Pairing:
    """Outcome of pairing.

    Attributes:
        masks: the masks of each picture that has any, in natural order.
        orphans: masks that belong to no picture, or to one that has another mask already.
        claims: pictures whose name an orphan has: one that has another mask, or several.
        how: ``name``; or, where not a single name fitted, ``number`` if the numbers in the names
            agree, and ``order`` if the sorted lists were laid side by side.
    """

    masks: Mapping[PurePath, tuple[PurePath, ...]]
    orphans: tuple[PurePath, ...] = ()
    claims: Mapping[PurePath, tuple[PurePath, ...]] = field(default_factory=dict)
    how: How = "name"


def pair_masks(images: Sequence[PurePath], masks: Sequence[PurePath]) -> Pairing:
    """Pair the pictures and masks of one folder of pictures and one of masks.

    First by name: ``X`` with ``X``, ``X_mask``, ``mask_X``, ``X_GT``, ``label-X`` and the like, any
    ending or two (``X.jpg.png``); what is put before or behind in most files goes first.
    Sub-folders count as part of the name where they agree. A folder of masks named like a picture
    holds that picture's masks (MVTec LOCO AD), and so do ``X_mask_0``, ``X_mask_1``. A name that
    fits several pictures is given to none of them. Where not a single name fits, those are paired
    whose numbers agree; and where one of the two has no numbers, and there are as many masks as
    pictures, both sorted lists are paired in their order.

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
    claims: _Pairs = {}
    named = _group(images, _exact_name)
    for mask in masks:
        fitting = named.get((mask.parent.parent.as_posix(), _of_folder(mask.parent.name)), ())
        if len(fitting) == 1:
            pairs[fitting[0]] = (*pairs.get(fitting[0], ()), mask)
    used = {mask for group in pairs.values() for mask in group}
    for rule in (_exact_name, _folded_name, _bare_name):
        _pair_by_name(images, masks, rule, pairs, used, claims)
        _pair_numbered(images, masks, rule, pairs, used, claims)
    if not pairs and not claims and images and masks:
        if found := _by_number(images, masks):
            left = tuple(mask for mask in masks if (mask,) not in found.values())
            return Pairing(found, left, how="number")
        if len(images) == len(masks) and not (_counted(images) and _counted(masks)):
            in_order = {image: (mask,) for image, mask in zip(images, masks, strict=True)}
            return Pairing(in_order, how="order")
    orphans = tuple(mask for mask in masks if mask not in used)
    return Pairing(pairs, orphans, {mask: claims[mask] for mask in orphans if mask in claims})


def masks_among(files: Sequence[Path]) -> set[Path]:
    """Find the masks that lie beside their pictures, under a name made from the picture's."""
    names = {(file.parent, _fold(file.stem)) for file in files}

    def is_mask(file: Path) -> bool:
        if file.parent.name.endswith(_JSON_FOLDER):
            return file.stem == "label"
        stem = _fold(file.stem)
        matches = [pattern.fullmatch(stem) for pattern in (*_BESIDE, _NUMBERED)]
        return any((file.parent, match["bare"]) in names for match in matches if match)

    return {file for file in files if is_mask(file)}


def is_by_product(file: PurePath) -> bool:
    """Whether a file is what labelme's converter leaves beside the mask ``label.png``."""
    return file.parent.name.endswith(_JSON_FOLDER) and file.stem in ("img", "label_viz")


def strip_suffix(name: str, suffix: str) -> str | None:
    """Give ``name`` without ``suffix`` in any case, or None if it does not end so."""
    bare = name[: len(name) - len(suffix)]
    return bare if bare and name[len(bare) :].casefold() == suffix else None


def _of_folder(name: str) -> str:
    return name.removesuffix(_JSON_FOLDER)


def _names(stem: str, times: int = 2) -> Iterator[tuple[str, str]]:
    """Give the names that a mask's stem may stand for, each with what was taken away for it."""
    yield "", stem
    for pattern in _AFFIXES if times else ():
        if match := pattern.fullmatch(stem):
            start, end = match.span("bare")
            form = f"{stem[:start]}*{stem[end:]}".casefold()
            for inner, name in _names(match["bare"], times - 1):  # 001_gtFine_labelIds
                yield form + inner, name
            if (stripped := match["bare"].strip("-_. ")) != match["bare"]:  # 001__mask
                yield f"{form} ", stripped


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


def _called(images: Iterable[PurePath], rule: _Rule) -> list[dict[_Name, list[PurePath]]]:
    """Group pictures by their names: whole with ending, stem, stem without ``image_`` or so."""
    whole, stems, bare = (defaultdict[_Name, list[PurePath]](list) for _ in range(3))
    for image in images:
        folder, stem = rule(image)
        ending = image.suffix if rule is _exact_name else _fold(image.suffix)
        whole[folder, stem + ending].append(image)
        stems[folder, stem].append(image)
        for pattern in _OF_PICTURES:
            if match := pattern.fullmatch(stem):
                bare[folder, match["bare"]].append(image)
    return [whole, stems, bare]


def _pair_by_name(
    images: list[PurePath],
    masks: list[PurePath],
    rule: _Rule,
    pairs: _Pairs,
    used: set[PurePath],
    claims: _Pairs,
) -> None:
    """Pair by one rule what is left; note which pictures a mask may mean besides."""
    groups = _called(images, rule)
    fits: dict[tuple[int, str], list[tuple[PurePath, PurePath]]] = defaultdict(list)
    for mask in (mask for mask in masks if mask not in used):
        folder, stem = rule(mask)
        for form, name in _names(stem):
            ending = _ENDING.fullmatch(name)
            tried = [(0, name), (1, name), (2, name), *([(1, ending[1])] if ending else [])]
            for place, (kind, called) in enumerate(tried):
                fitting = groups[kind].get((folder, called), ())
                free = [image for image in fitting if image not in pairs]
                if len(fitting) == 1 and free:
                    fits[place, form].append((free[0], mask))
                if fitting:
                    claims.setdefault(mask, tuple(fitting))
    # What most files have first: with a.png, a_mask.png, a_mask_mask.png the second file may be a
    # picture or a mask, and only the folder as a whole tells.
    for fit in sorted(fits.values(), key=len, reverse=True):
        for image, mask in fit:
            if image not in pairs and mask not in used:
                pairs[image] = (mask,)
                used.add(mask)


def _pair_numbered(
    images: list[PurePath],
    masks: list[PurePath],
    rule: _Rule,
    pairs: _Pairs,
    used: set[PurePath],
    claims: _Pairs,
) -> None:
    """Give a picture all its numbered masks, ``001_mask_0``, ``001_mask_1``."""
    named, taken = _group(images, rule), set(pairs)
    for mask in (mask for mask in masks if mask not in used):
        folder, stem = rule(mask)
        match = _NUMBERED.fullmatch(stem)
        fitting = named.get((folder, match["bare"]), ()) if match else ()
        if len(fitting) == 1 and fitting[0] not in taken:
            pairs[fitting[0]] = (*pairs.get(fitting[0], ()), mask)
            used.add(mask)
        elif fitting:
            claims.setdefault(mask, tuple(fitting))


def _counted(files: Iterable[PurePath]) -> bool:
    return any(re.search(r"\d", file.stem) for file in files)


def _by_number(images: list[PurePath], masks: list[PurePath]) -> _Pairs:
    """Pair the files whose numbers agree; none where numbers say nothing or fit several files."""
    numbers = [_numbers(files) for files in (images, masks)]
    if not all(numbers) or any(max(Counter(one.values()).values()) > 1 for one in numbers):
        return {}
    wanted = {number: mask for mask, number in numbers[1].items()}
    return {i: (wanted[number],) for i, number in numbers[0].items() if number in wanted}


def _numbers(files: Sequence[PurePath]) -> dict[PurePath, tuple[int, ...]]:
    """The numbers in each file's name, without those that all have; none where some has none."""
    found = {file: tuple(map(int, re.findall(r"\d+", file.stem))) for file in files}
    if len(set(map(len, found.values()))) != 1 or not all(found.values()):
        return {}
    columns = list(zip(*found.values(), strict=True))
    telling = [i for i, column in enumerate(columns) if len(set(column)) > 1] or [len(columns) - 1]
    return {file: tuple(each[i] for i in telling) for file, each in found.items()}

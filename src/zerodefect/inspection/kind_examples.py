"""Kinds of defects taught by a user's pictures, and regions named by them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from zerodefect.data import DatasetError, Sample, load_dataset, opened_mask
from zerodefect.images import ImageError, Picture, find_images
from zerodefect.inspection.region_features import describe_regions
from zerodefect.inspection.region_kinds import KindExamples, KindsError, by_words, checked_names
from zerodefect.inspection.regions import find_regions
from zerodefect.inspection.sources import Source, digest, expand, open_source
from zerodefect.scoring.joining import Scored
from zerodefect.types import Region

if TYPE_CHECKING:
    from zerodefect.inspection.keepable import Keepable
    from zerodefect.inspection.shown import Shown

MOST_OF_A_PICTURE = 8
"""Regions of a mask, the largest, that are examples."""

Examples = Source | Iterable[Source | tuple[Source, Source]]
"""Pictures of one kind: files, folders (masks beside them or in a folder of theirs count), arrays,
or pairs of a picture and its mask."""


def learn_kinds(
    inspector: Keepable, examples: Mapping[str, Examples], unknown: float
) -> KindExamples:
    """What an inspector's detector makes of examples of kinds; see ``Inspector.teach_kinds``."""
    if not examples:
        raise KindsError("no kind was named")
    names = checked_names(examples)
    rows, kinds, pictures, digests = [], [], [], list[str]()
    widths: tuple[int, ...] = ()
    number = 0
    for kind, given in enumerate(examples.values()):
        before = number
        for source, mask in _pairs(given):
            picture = inspector.open_good(source)
            regions = _marked(picture, mask) if mask is not None else _unusual(inspector, picture)
            area = inspector.words().area(picture)
            values, widths = describe_regions(inspector.scorer, picture, area, regions)
            if len(widths) < 2:
                method = inspector.detector.info.name
                raise KindsError(f"{method} gives no features of patches to tell kinds apart by")
            rows.append(values)
            kinds += [kind] * len(values)
            pictures += [number] * len(values)
            digests += [digest(picture)] * len(values)
            number += 1
        if number == before:
            raise KindsError(f"kind {names[kind]!r}: no example was given. Give pictures of it")
    columns = np.concatenate(rows), np.array(kinds), np.array(pictures)
    return KindExamples(names, *columns, widths, unknown, tuple(digests))


def name_regions(
    inspector: Keepable,
    regions: tuple[Region, ...],
    scored: Scored,
    picture: Picture,
    shown: Shown,
) -> tuple[Region, ...]:
    """Say of what kind each region is: by the examples that were taught, else by words."""
    if inspector.taught_kinds is None:
        kinds = inspector.detector.kinds(shown.known)
        return by_words(regions, scored.type_map, kinds, (picture.height, picture.width))
    if not regions:
        return regions
    seen = inspector.scorer, picture, shown.area(picture)
    values, _ = describe_regions(*seen, regions, scored.features)
    named = inspector.taught_kinds.decide(values)
    return tuple(
        replace(region, kind=kind, kind_score=share)
        for region, (kind, share) in zip(regions, named, strict=True)
    )


def _pairs(given: Examples) -> Iterator[tuple[Source, Source | np.ndarray | None]]:
    """Pictures with their masks, where there are any.

    Raises:
        KindsError: a folder holds no pictures, or what was given is no pair.
        FileNotFoundError: nothing is there.
    """
    several: Any = given if isinstance(given, (list, tuple)) else [given]
    for one in several:
        if isinstance(one, tuple):
            if len(one) != 2:
                raise KindsError(f"{len(one)} things are no pair. Give a picture and its mask")
            yield one
        elif isinstance(one, (str, os.PathLike)) and Path(one).is_dir():
            for sample in _samples(Path(one)):
                yield sample.image, opened_mask(sample)[0] if sample.masks else None
        else:
            yield from ((source, None) for source in expand(one))


def _samples(folder: Path) -> tuple[Sample, ...]:
    """The pictures of a folder of examples.

    Raises:
        KindsError: it holds none. A data set's layouts, drawn, would be no help here.
    """
    try:
        return load_dataset(folder).samples
    except DatasetError as error:
        reason = error.reason.partition("\n")[0]
        try:
            find_images([folder])
        except ImageError as empty:
            reason = empty.reason
        raise KindsError(
            f"{folder}: {reason}. Give a folder with pictures of the kind, their masks beside "
            "them (001_mask.png) or in masks/"
        ) from None


def _marked(picture: Picture, mask: Source | np.ndarray) -> list[Region]:
    """The largest regions of a mask.

    Raises:
        ImageError: an empty mask, one of another size, or of values that are no numbers.
    """
    pixels = np.asarray(mask if isinstance(mask, np.ndarray) else _opened_mask(mask))
    if pixels.ndim not in (2, 3) or pixels.dtype.kind not in "buif":
        reason = f"its mask is an array of shape {pixels.shape} and type {pixels.dtype}"
        raise ImageError(picture.path, reason, "Give numbers, one for each pixel")
    if not np.isfinite(pixels).all():
        reason = "its mask holds NaN or infinity"
        raise ImageError(picture.path, reason, "Mark damage by 1, all else by 0")
    marked = pixels.reshape(*pixels.shape[:2], -1).any(-1)
    if marked.shape != (picture.height, picture.width):
        reason = f"its mask is {marked.shape[1]} x {marked.shape[0]} pixels"
        raise ImageError(picture.path, reason, "Give a mask of the picture's size")
    found = find_regions(marked.astype(np.float32), 0.5, minimum_area=1)
    if not found:
        raise ImageError(picture.path, "its mask is empty", "Draw the damage, or drop the mask")
    return sorted(found, key=lambda region: -region.area)[:MOST_OF_A_PICTURE]


def _opened_mask(mask: Source) -> np.ndarray:
    return open_source(mask).to_uint8() > 127


def _unusual(inspector: Keepable, picture: Picture) -> list[Region]:
    """The region that stands out most; else the surroundings of the most unusual place.

    Raises:
        KindsError: the method gives no map, or none of a picture alone.
        ImageError: nothing stands out.
    """
    if "set" in inspector.detector.info.needs:
        raise KindsError(
            f"{inspector.detector.info.name} scores the pictures of a set against each other, so "
            "that nothing stands out of one example alone: give masks beside the examples"
        )
    shown = inspector.snapshot()
    area = shown.area(picture)
    (scored,) = inspector.scorer.score([picture], [area], shown.known)
    if scored.map is None:
        name = inspector.detector.info.name
        raise KindsError(f"{name} does not say where: give examples of kinds with masks")
    counted = scored.map if area is None else scored.map[area]
    limit = inspector.active_policy().region_limit
    between = (float(counted.max()) + float(np.median(counted))) / 2
    for low in (limit, between):
        if found := find_regions(scored.map, low, inspected=area):
            return [found[0]]
    reason = "nothing stands out of it, and there is no mask"
    raise ImageError(picture.path, reason, "Give a mask, or leave it out")

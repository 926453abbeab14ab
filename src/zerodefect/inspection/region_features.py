"""What a region looks like, as numbers that kinds of defects are told apart by.

Of every patch feature that the detector gives, the mean over the region and how that differs from
the mean of what surrounds it; and a few facts of shape and brightness, which no feature of a square
patch holds. All are means, so that the size of a region counts in its own fact alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from zerodefect.detector.contract import PatchFeatures
from zerodefect.images import Picture
from zerodefect.images.tiling import Tile
from zerodefect.inspection.regions import overlaps
from zerodefect.scoring.scorer import Scorer
from zerodefect.types import Region

SHAPE_FACTS = 7
_RING = 0.03  # width of the surroundings whose brightness is compared; of the longer side
_SIDE = 512  # pixels of a cut-out, at most, that facts of shape are measured on


def describe_regions(
    scorer: Scorer,
    picture: Picture,
    area: np.ndarray | None,
    regions: Sequence[Region],
    whole: tuple[PatchFeatures, ...] | None = None,
) -> tuple[np.ndarray, tuple[int, ...]]:
    """Describe regions of one picture by the detector's patch features.

    Where pictures are cut into tiles, each region is seen in a tile of its own, with the region in
    the middle; one that is larger than a tile is seen in the whole picture.

    Args:
        scorer: whose network runs, once for each view that holds regions.
        picture: theirs.
        area: ``(H, W)`` bool, what counts, or None; as it was when they were found.
        regions: one or more.
        whole: patch features of the whole picture, if they are at hand: the network need not run.

    Returns:
        ``(n, D)`` float32, and the widths of the D columns' blocks: one for each patch feature,
        and the facts of shape.
    """
    views: dict[Tile | None, list[int]] = {}
    for number, region in enumerate(regions):
        views.setdefault(_tile(scorer, picture, region), []).append(number)
    rows: dict[int, np.ndarray] = {}
    widths: tuple[int, ...] = ()
    for tile, numbers in views.items():
        seen = tile or Tile(0, 0, picture.height, picture.width, 0, 0)
        there = whole if tile is None else None
        features = there or scorer.patch_features(picture, area, tile)
        blocks = [_contrast(one, [regions[n] for n in numbers], seen) for one in features]
        widths = tuple(block.shape[1] for block in blocks)
        for place, number in enumerate(numbers):
            rows[number] = np.concatenate([np.zeros(0), *(block[place] for block in blocks)])
    grey = picture.to_uint8().mean(-1, dtype=np.float32)
    shape = np.stack([_shape_facts(grey, region) for region in regions])
    means = np.stack([rows[number] for number in range(len(regions))])
    return np.concatenate([means, shape], axis=1).astype(np.float32), (*widths, SHAPE_FACTS)


def _tile(scorer: Scorer, picture: Picture, region: Region) -> Tile | None:
    """The tile that shows a region best; None for the whole picture."""
    tiles = scorer.viewing.tiles(picture)
    if not tiles:
        return None
    x, y, width, height = region.box
    tall, wide = tiles[0].height, tiles[0].width
    if height > tall or width > wide:
        return None
    top = min(max(0, y + height // 2 - tall // 2), picture.height - tall)
    left = min(max(0, x + width // 2 - wide // 2), picture.width - wide)
    return Tile(top, left, tall, wide, 0, 0)


def _contrast(features: PatchFeatures, regions: Sequence[Region], seen: Tile) -> np.ndarray:
    """Means over regions less those of their surroundings, and the means themselves.

    Returns:
        ``(n, 2C)``.
    """
    h, w = features.grid.shape
    overlap = overlaps(regions, (h, w), (seen.top, seen.left, seen.height, seen.width))
    values = features.values[0].float().cpu().numpy().astype(np.float64)
    inside = overlap @ values
    around = np.stack([_surroundings(row, (h, w)) for row in overlap.toarray()])
    beside = around @ values / around.sum(1, keepdims=True)
    return np.concatenate([inside - beside, inside], axis=1)


def _surroundings(pixels: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Weight of each cell outside of a region, which has so many pixels in each.

    Cells beside it show some of it; where no others are left, they count, and at last all do.
    """
    touched = (pixels > 0).reshape(shape)
    far = ~ndimage.binary_dilation(touched, np.ones((3, 3)))
    if far.mean() > 0.02:
        return far.ravel().astype(np.float64)
    return (np.ones(touched.size) if touched.all() else ~touched.ravel()).astype(np.float64)


def _shape_facts(grey: np.ndarray, region: Region) -> np.ndarray:
    """Size, elongation, fullness, and brightness against the surroundings ``(7,)``."""
    x, y, width, height = region.box
    ring = max(2, round(_RING * max(grey.shape)))
    top, left = max(0, y - ring), max(0, x - ring)
    cut = grey[top : y + height + ring, left : x + width + ring]
    mask = np.zeros(cut.shape, bool)
    mask[y - top : y - top + height, x - left : x - left + width] = region.mask
    step = max(1, max(cut.shape) // _SIDE)
    small = mask[::step, ::step]
    if small.any() and not small.all():
        cut, mask, ring = cut[::step, ::step], small, max(1, ring // step)
    else:
        step = 1
    near = (ndimage.distance_transform_edt(~mask) <= ring) & ~mask
    inside, outside = cut[mask], cut[near] if near.any() else cut[mask]
    places = np.argwhere(mask).T * step
    spread = np.cov(places) if places.shape[1] > 1 else np.zeros((2, 2))
    short, long = 4 * np.sqrt(np.linalg.eigvalsh(spread + np.eye(2) * step**2 / 12))
    unit, level = grey.std() + 1.0, outside.mean()
    facts = [
        np.log(region.area / grey.size),
        np.log(long / short),
        np.log(region.area / (np.pi / 4 * long * short)),
        (inside.mean() - level) / unit,
        np.log((inside.std() + 1) / (outside.std() + 1)),
        (inside.max() - level) / (3 * unit),
        (inside.min() - level) / (3 * unit),
    ]
    return np.array(facts)

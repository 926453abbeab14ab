"""From an anomaly map to separate regions: where, how large, how strong."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain

import numpy as np
from scipy import ndimage, sparse

from zerodefect.types import Region

USUAL_MINIMUM = 4  # pixels

_EIGHT_NEIGHBOURS = np.ones((3, 3), dtype=bool)

# Steps along the outline, y pointing down. Turning right is the next one, left the one before.
_EAST, _SOUTH, _WEST, _NORTH = range(4)
_STEPS = ((1, 0), (0, 1), (-1, 0), (0, -1))


def find_regions(
    map: np.ndarray | None,
    limit: float | None,
    *,
    minimum_area: int = USUAL_MINIMUM,
    inspected: np.ndarray | None = None,
    p_value: Callable[[float], float | None] | None = None,
) -> tuple[Region, ...]:
    """Find the connected areas where the anomaly map exceeds a limit.

    Pixels with ``map > limit`` that touch by an edge or a corner form one region.

    Args:
        map: ``(H, W)`` raw anomaly map at the image's size, finite; without one, or without a
            limit, there are no regions.
        limit: raw map value above which a pixel is anomalous.
        minimum_area: regions of fewer pixels are dropped.
        inspected: ``(H, W)`` boolean; pixels outside are ignored and do not count in
            ``area_percent``. None: the whole image.
        p_value: turns a region's score into its p-value, such as ``Policy.region_p_value``.

    Returns:
        Regions by falling score (largest raw map value inside); of equal scores the larger
        region comes first, then the upper, then the left one.

    Raises:
        ValueError: a shape does not fit, or ``map`` holds NaN or infinity.
    """
    if map is None or limit is None:
        return ()
    _check(map, inspected)
    above = map > limit if inspected is None else (map > limit) & inspected
    labels, areas = _label(above, minimum_area)
    if len(areas) == 0:
        return ()
    pixels = np.flatnonzero(labels)
    owners = labels.ravel()[pixels] - 1
    peaks = np.full(len(areas), -np.inf)
    np.maximum.at(peaks, owners, map.ravel()[pixels])
    inspected_area = map.size if inspected is None else int(np.count_nonzero(inspected))
    regions = _cut_out(labels, areas, peaks, inspected_area, p_value)
    return tuple(sorted(regions, key=lambda r: (-r.score, -r.area, r.box[1], r.box[0])))


def outlines(mask: np.ndarray, x: int = 0, y: int = 0) -> tuple[tuple[float, ...], ...]:
    """Outer outlines of a boolean mask ``(h, w)`` along the pixels' edges, clockwise.

    Each outline is a flat list ``(x0, y0, x1, y1, ...)`` of its corners (COCO), shifted by the
    mask's position ``x, y`` in the image; the pixel in column c and row r covers the square from
    (c, r) to (c + 1, r + 1). Filled again, the outlines give the mask with its holes closed.
    Parts that touch by a corner only get an outline each.
    """
    solid = np.pad(ndimage.binary_fill_holes(mask), 1)
    inside = solid[1:-1, 1:-1]
    # An edge is (corner it starts from, direction); the region lies to its right.
    sides = [
        (solid[:-2, 1:-1], _EAST, 0, 0),  # nothing above: upper edge
        (solid[1:-1, 2:], _SOUTH, 1, 0),
        (solid[2:, 1:-1], _WEST, 1, 1),
        (solid[1:-1, :-2], _NORTH, 0, 1),
    ]
    edges = [
        [(c + right, r + down, direction) for r, c in np.argwhere(inside & ~beside).tolist()]
        for beside, direction, right, down in sides
    ]
    pending = set(chain.from_iterable(edges))
    # From top to bottom and left to right, the first upper edge of an outline that comes up begins
    # at one of its corners.
    return tuple(_follow(pending, edge, x, y) for edge in edges[_EAST] if edge in pending)


def _follow(
    pending: set[tuple[int, int, int]], start: tuple[int, int, int], x: int, y: int
) -> tuple[float, ...]:
    """Walk the outline that begins with edge ``start``, using its edges up."""
    edge = start
    corners: list[float] = []
    previous = -1
    while True:
        pending.remove(edge)
        column, row, direction = edge
        if direction != previous:
            corners += [float(column + x), float(row + y)]
        previous = direction
        column, row = column + _STEPS[direction][0], row + _STEPS[direction][1]
        # Right first: where two parts meet at a corner this stays with the same pixel.
        for turn in (1, 0, -1):
            edge = (column, row, (direction + turn) % 4)
            if edge == start:
                return tuple(corners)
            if edge in pending:
                break


def _label(above: np.ndarray, minimum_area: int) -> tuple[np.ndarray, np.ndarray]:
    """Regions of at least ``minimum_area`` pixels, numbered 1..n on 0, and their n areas."""
    labels, _ = ndimage.label(above, structure=_EIGHT_NEIGHBOURS)
    areas = np.bincount(labels.ravel())[1:]
    keep = areas >= minimum_area
    if not keep.all():
        labels = np.append(0, np.where(keep, np.cumsum(keep), 0)).astype(labels.dtype)[labels]
    return labels, areas[keep]


def _cut_out(
    labels: np.ndarray,
    areas: np.ndarray,
    peaks: np.ndarray,
    inspected_area: int,
    p_value: Callable[[float], float | None] | None,
) -> Iterator[Region]:
    for i, (rows, columns) in enumerate(ndimage.find_objects(labels)):
        mask = labels[rows, columns] == i + 1
        x, y = int(columns.start), int(rows.start)
        area, score = int(areas[i]), float(peaks[i])
        yield Region(
            box=(x, y, mask.shape[1], mask.shape[0]),
            mask=mask,
            polygons=outlines(mask, x, y),
            area=area,
            area_percent=100.0 * area / inspected_area,
            score=score,
            p_value=None if p_value is None else p_value(score),
        )


def overlaps(
    regions: Sequence[Region], shape: tuple[int, int], seen: tuple[int, int, int, int]
) -> sparse.csr_matrix:
    """Share of each region that lies in each cell of a grid ``(regions, h * w)``; rows sum to one.

    Args:
        regions: of one picture.
        shape: ``(h, w)`` of the grid.
        seen: ``(top, left, height, width)`` of the part of the picture that the grid covers, in
            pixels; it holds the regions.
    """
    top, left, height, width = seen
    owners, cells, shares = [], [], []
    for number, region in enumerate(regions):
        rows, columns = np.nonzero(region.mask)
        down = (rows + (region.box[1] - top)) * shape[0] // height
        across = (columns + (region.box[0] - left)) * shape[1] // width
        owners.append(np.full(len(rows), number))
        cells.append(down * shape[1] + across)
        shares.append(np.full(len(rows), 1 / max(1, len(rows))))
    place = np.concatenate(owners), np.concatenate(cells)
    size = len(regions), shape[0] * shape[1]
    return sparse.csr_matrix((np.concatenate(shares), place), shape=size)


def _check(map: np.ndarray, inspected: np.ndarray | None) -> None:
    if map.ndim != 2:
        raise ValueError(f"the map must be (H, W), got {map.shape}")
    if not np.isfinite(map).all():
        raise ValueError("the anomaly map holds NaN or infinity")
    if inspected is not None and (inspected.shape != map.shape or inspected.dtype != bool):
        raise ValueError(f"'inspected' must be boolean {map.shape}, got {inspected.shape}")

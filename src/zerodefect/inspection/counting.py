"""How many defects of each kind a picture shows, and how sure that is.

A region is not yet a defect: two that touch lie in one region, and a scratch may show as several.
So each region is split where its map falls far enough between two peaks (the persistence of a peak,
Edelsbrunner et al., Discrete & Computational Geometry 2002; a watershed by flooding, Vincent and
Soille, PAMI 1991), pieces in one line are joined, and what hardly rises above the limit beside
something strong of its kind is not counted. The interval is what the count is at higher limits, and
with more and with less splitting: it says how far the map alone decides the count, and promises no
rate.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import chain
from typing import Any

import numpy as np
from scipy import ndimage, sparse
from scipy.sparse.csgraph import connected_components

from zerodefect.types import Count, Region

_USUAL = (0.4, 0.4)
_OTHERS = ((0.1, 0.25), (0.6, 0.6))  # much counted and split, and little
_HIGHER = (0.0, 0.2, 0.4)  # limits, as shares of the way to the highest peak
_LEVELS = 12  # between limit and peak at which a region may fall apart
_SIDE = 96  # pixels of a region's cut-out, at most, that it is split on
_LINE = 2.0  # length by width from which a piece has a direction
_TURN = math.cos(math.radians(20))  # of directions that still count as one
_GAP = 0.5  # of the longer piece, at most, between two of one line
_MOST = 100  # regions of a kind, at most, that are split and joined

_TOUCHING = np.ones((3, 3), bool)


@dataclass(frozen=True)
class _Piece:
    """The ellipse of a piece: centre ``(y, x)``, axis, length and width in pixels."""

    centre: np.ndarray
    axis: np.ndarray
    length: float
    width: float


def count_kinds(
    map: np.ndarray | None, regions: Sequence[Region], limit: float | None
) -> tuple[Count, ...]:
    """Count the defects of each kind.

    Args:
        map: ``(H, W)`` raw anomaly map; without one, or without a limit, nothing is counted.
        regions: of that map above the limit, named by kind.
        limit: of the map.

    Returns:
        One count per kind, in the order of the regions.
    """
    if map is None or limit is None:
        return ()
    found = []
    for kind in dict.fromkeys(region.kind for region in regions):
        own = [region for region in regions if region.kind == kind]
        top = max(region.score for region in own)
        usual, *others = chain.from_iterable(
            _counted(map, own, limit + share * (top - limit), top) for share in _HIGHER
        )
        found.append(Count(kind, usual, min(usual, *others), max(usual, *others)))
    return tuple(found)


def _counted(map: np.ndarray, regions: Sequence[Region], limit: float, top: float) -> list[int]:
    """Numbers of defects by ``_USUAL`` and each of ``_OTHERS``.

    They rise by the first share of the highest one, and are split at the second one.
    """
    rise = top - limit
    rising = [one for one in regions if one.score > limit]
    cut = cache(lambda number: _CutOut.of(map, rising[number], limit))
    counts = []
    for keep, split in (_USUAL, *_OTHERS):
        high = [n for n, one in enumerate(rising) if one.score - limit >= keep * rise]
        if len(high) > _MOST:
            counts.append(len(high))
        else:
            counts.append(_joined([p for n in high for p in cut(n).pieces(limit, split * rise)]))
    return counts


@dataclass(frozen=True)
class _CutOut:
    """What of a region lies above a limit.

    Attributes:
        values: ``(h, w)`` of the map.
        inside: ``(h, w)`` bool.
        step, corner: pixels between values, and where the first one lies ``(y, x)``.
    """

    values: np.ndarray
    inside: np.ndarray
    step: int
    corner: tuple[int, int]

    @classmethod
    def of(cls, map: np.ndarray, region: Region, limit: float) -> _CutOut:
        x, y, width, height = region.box
        step = max(1, max(width, height) // _SIDE)
        values = map[y : y + height : step, x : x + width : step]
        inside = region.mask[::step, ::step] & (values > limit)
        if not inside.any():
            values, inside, step = map[y : y + height, x : x + width], region.mask, 1
        return cls(values, inside, step, (y, x))

    def pieces(self, limit: float, depth: float) -> list[_Piece]:
        """Of which it consists where it is split at peaks of that depth."""
        if self.whole is not None:
            return [self.whole]
        cores = _split(self.values, self.inside, limit, depth)
        parts = _flooded(self.values, self.inside, cores)
        return [_ellipse(part, self.step, self.corner) for part in parts]

    @cached_property
    def whole(self) -> _Piece | None:
        """All of it, where no depth splits it."""
        if not _has_one_peak(self.values, self.inside):
            return None
        return _ellipse(self.inside, self.step, self.corner)


def _split(values: np.ndarray, part: np.ndarray, low: float, depth: float) -> list[np.ndarray]:
    """Cores ``(h, w)`` bool of a part whose peaks lie at least ``depth`` above where they meet."""
    high = float(values[part].max()) - depth
    for level in np.linspace(low, high, _LEVELS)[1:] if high > low else ():
        labels, count = ndimage.label(part & (values > level), _TOUCHING)
        if count < 2:
            continue
        reached = np.unique(labels[values - level >= depth])
        apart = reached[reached > 0]
        if len(apart) > 1:
            places = ndimage.find_objects(labels)
            cores = (_split_of(values, labels, n, places[n - 1], level, depth) for n in apart)
            return list(chain.from_iterable(cores))
    return [part]


def _split_of(
    values: np.ndarray, labels: np.ndarray, number: int, place: Any, level: float, depth: float
) -> Iterator[np.ndarray]:
    """``_split`` of what has that number; only where it lies, for most parts are small."""
    near, part = values[place], labels[place] == number
    for core in [part] if _has_one_peak(near, part) else _split(near, part, level, depth):
        whole = np.zeros(labels.shape, bool)
        whole[place] = core
        yield whole


def _has_one_peak(values: np.ndarray, part: np.ndarray) -> bool:
    """Whether no level can split a part: all pixels but one plateau have a higher neighbour."""
    v = np.full((part.shape[0] + 2, part.shape[1] + 2), -np.inf, values.dtype)
    v[1:-1, 1:-1][part] = values[part]
    rows = np.maximum(np.maximum(v[:-2], v[1:-1]), v[2:])
    highest = np.maximum(np.maximum(rows[:, :-2], rows[:, 1:-1]), rows[:, 2:])
    return bool(ndimage.label(part & (v[1:-1, 1:-1] >= highest), _TOUCHING)[1] == 1)


def _flooded(
    values: np.ndarray, inside: np.ndarray, cores: Sequence[np.ndarray]
) -> list[np.ndarray]:
    """The parts that belong to cores: a region flooded from its peaks down."""
    if len(cores) < 2:
        return [inside]
    marks = np.zeros(values.shape, np.int16)
    for number, core in enumerate(cores, start=1):
        marks[core] = number
    low, high = float(values[inside].min()), float(values[inside].max())
    down = np.where(inside, 250 * (high - values) / max(high - low, 1e-12), 255)
    flooded = ndimage.watershed_ift(down.astype(np.uint8), marks, _TOUCHING)
    return [inside & (flooded == number) for number in range(1, len(cores) + 1)]


def _ellipse(part: np.ndarray, step: int, corner: tuple[int, int]) -> _Piece:
    places = np.argwhere(part) * float(step)
    centre = places.mean(0)
    off = places - centre
    spread = off.T @ off / max(len(places) - 1, 1)
    variances, axes = np.linalg.eigh(spread + np.eye(2) * step**2 / 12)
    width, length = 4 * np.sqrt(variances)
    return _Piece(centre + corner, axes[:, 1], float(length), float(width))


def _joined(pieces: Sequence[_Piece]) -> int:
    """Number of pieces, those that continue each other counted as one."""
    if len(pieces) < 2:
        return len(pieces)
    links = _continues(pieces)
    np.fill_diagonal(links, False)
    if not links.any():
        return len(pieces)
    return int(connected_components(sparse.csr_matrix(links), directed=False)[0])


def _continues(pieces: Sequence[_Piece]) -> np.ndarray:
    """Whether each piece is a line with the other one, no longer, near its end ``(n, n)``."""
    centres = np.stack([piece.centre for piece in pieces])
    axes = np.stack([piece.axis for piece in pieces])
    length = np.array([piece.length for piece in pieces])
    width = np.array([piece.width for piece in pieces])
    way = centres[None] - centres[:, None]  # from the line to the other one
    across = np.stack([-axes[:, 1], axes[:, 0]], axis=1)
    beside = np.abs(np.einsum("ijk,ik->ij", way, across))
    gap = np.abs(np.einsum("ijk,ik->ij", way, axes)) - (length[:, None] + length[None]) / 2
    line = length >= _LINE * width
    turned = line[None] & (np.abs(axes @ axes.T) < _TURN)
    near = (beside <= np.maximum(width[:, None], width[None])) & (gap <= _GAP * length[:, None])
    return line[:, None] & (length[:, None] >= length[None]) & near & ~turned

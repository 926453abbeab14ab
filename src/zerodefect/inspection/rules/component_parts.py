"""The parts of components in one picture: where they lie, how large, and how surely they are there.

A part is a connected area where a component's margin is above zero. Its strength is the mean margin
times the root of its share of the picture, so that half as wide is half as strong. Beside that of
the strongest part on a usual good picture it says how surely the part is one: weak ones are
doubtful, and a rule that holds or not depending on doubtful parts is neither kept nor broken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from zerodefect.images import resize_map
from zerodefect.inspection.regions import find_regions
from zerodefect.scoring.areas import FLAT, resize_area
from zerodefect.types import Region

SURE: Final = 0.3
"""Strength, of the usual one, from which a part is there."""
DOUBTFUL: Final = 0.12
"""Strength below which it is none."""

_SIDE = 512  # pixels of the longer side at which parts are found; margins are coarser


@dataclass(frozen=True)
class ComponentPart:
    """One part of a component.

    Attributes:
        mask: ``(h, w)`` bool, of the whole picture at the size at which parts are found.
        box: ``(x, y, width, height)`` in pixels of the picture.
        polygons: outlines in pixels of the picture, as those of ``Region``.
        area: percent of the inspected area.
        centre: ``(x, y)`` of its centroid in [0, 1].
        confidence: its strength beside the usual one, at most 1.
    """

    mask: np.ndarray
    box: tuple[int, int, int, int]
    polygons: tuple[tuple[float, ...], ...]
    area: float
    centre: tuple[float, float]
    confidence: float

    @property
    def sure(self) -> bool:
        """Whether it is there beyond doubt."""
        return self.confidence >= SURE


@dataclass(frozen=True)
class SeenComponent:
    """A component in one picture.

    Attributes:
        name: of the component.
        parts: the strongest first.
        unseen: why nothing can be said of it, in words; None where something can.
    """

    name: str
    parts: tuple[ComponentPart, ...] = ()
    unseen: str | None = None


def working_size(height: int, width: int) -> tuple[int, int]:
    """Size at which the parts of a picture are found."""
    scale = min(1.0, _SIDE / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def strengths(margin: np.ndarray, size: tuple[int, int], area: np.ndarray | None) -> list[float]:
    """Strengths of a component's parts in a picture of ``size``, not compared with usual ones."""
    small = working_size(*size)
    large, inside = _sized(margin, small, area)
    return sorted((_strength(large, r) for r in _regions(large, inside)), reverse=True)


def seen_component(
    name: str,
    margin: np.ndarray,
    usual: float,
    size: tuple[int, int],
    area: np.ndarray | None = None,
) -> SeenComponent:
    """The parts of a component.

    Args:
        name: of the component.
        margin: ``(h, w)`` of patches, above 0 where it lies.
        usual: strength of the strongest part on a usual good picture.
        size: ``(height, width)`` of the picture.
        area: ``(height, width)`` bool, what counts; None for all of it.
    """
    small = working_size(*size)
    large, inside = _sized(margin, small, area)
    inspected = large.size if inside is None else int(inside.sum())
    scale = size[0] / small[0], size[1] / small[1]
    parts = []
    for region in _regions(large, inside):
        confidence = _strength(large, region) / max(usual, 1e-12)
        if confidence >= DOUBTFUL:
            parts.append(_part(region, small, scale, inspected, min(1.0, confidence)))
    return SeenComponent(name, tuple(sorted(parts, key=lambda part: -part.confidence)))


def seen_words(
    name: str, map: np.ndarray, size: tuple[int, int], area: np.ndarray | None = None
) -> SeenComponent:
    """The parts of a component that words name.

    Args:
        name: of the component.
        map: ``(h, w)`` in [0, 1], above 0.5 where the words are rather seen than anything else.
        size, area: as of ``seen_component``.
    """
    if np.ptp(map) < FLAT:
        return SeenComponent(name, (), f"the model sees no place for {name}")
    margin = map.astype(np.float32) - 0.5
    own = strengths(margin, size, area)
    return seen_component(name, margin, own[0] if own else 1.0, size, area)


def _sized(
    margin: np.ndarray, small: tuple[int, int], area: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray | None]:
    large = resize_map(margin.astype(np.float32), *small)
    return large, None if area is None else resize_area(area, small)


def _regions(large: np.ndarray, inside: np.ndarray | None) -> Sequence[Region]:
    return find_regions(large, 0.0, inspected=inside)


def _strength(large: np.ndarray, region: Region) -> float:
    x, y, width, height = region.box
    cut = large[y : y + height, x : x + width]
    return float(cut[region.mask].mean()) * (region.area / large.size) ** 0.5


def _part(
    region: Region,
    small: tuple[int, int],
    scale: tuple[float, float],
    inspected: int,
    confidence: float,
) -> ComponentPart:
    x, y, width, height = region.box
    mask = np.zeros(small, bool)
    mask[y : y + height, x : x + width] = region.mask
    rows, columns = np.nonzero(mask)
    down, across = scale
    left, top = round(x * across), round(y * down)
    right, bottom = round((x + width) * across), round((y + height) * down)
    polygons = tuple(
        tuple(
            round(value * (down if place % 2 else across), 1) for place, value in enumerate(outline)
        )
        for outline in region.polygons
    )
    return ComponentPart(
        mask=mask,
        box=(left, top, max(1, right - left), max(1, bottom - top)),
        polygons=polygons,
        area=100.0 * region.area / inspected,
        centre=(
            float((columns.mean() + 0.5) / small[1]),
            float((rows.mean() + 0.5) / small[0]),
        ),
        confidence=confidence,
    )


Seen = Mapping[str, SeenComponent]
"""The components of a picture by name."""

"""Large pictures in overlapping tiles, and their maps put together again without seams."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from zerodefect.images.decode import Picture

MANY_VIEWS = 256
"""A picture that is shown to the network more often takes long enough to say so before."""

MOST_VIEWS = 4096
"""A picture that would be shown to the network more often is refused."""


@dataclass(frozen=True)
class Tile:
    """A rectangle of a picture in pixels, and its place in the grid of tiles."""

    top: int
    left: int
    height: int
    width: int
    row: int
    column: int

    def cut(self, picture: Picture) -> Picture:
        """Take the tile out of the picture, shrunk as it is; a view, nothing is copied."""
        rows = _span(self.top, self.height, picture.pixels.shape[0] / picture.height)
        columns = _span(self.left, self.width, picture.pixels.shape[1] / picture.width)
        cloud = picture.cloud
        if cloud is not None:
            down, across = (
                _span(start, length, side / own)
                for start, length, side, own in (
                    (self.top, self.height, cloud.height, picture.height),
                    (self.left, self.width, cloud.width, picture.width),
                )
            )
            cloud = replace(
                cloud, points=cloud.points[down, across], valid=cloud.valid[down, across]
            )
        pixels = picture.pixels[rows, columns]
        part, plain = picture.path, picture.colourless
        return Picture(part, pixels, picture.notes, cloud=cloud, colourless=plain)


def _span(start: int, length: int, scale: float) -> slice:
    first = round(start * scale)
    return slice(first, max(first + 1, round((start + length) * scale)))


@dataclass(frozen=True)
class Tiling:
    """How a picture is cut.

    Attributes:
        size: side of a tile in pixels of the picture; a picture no larger is one tile.
        overlap: least share of a tile that its neighbour shows, too; in [0, 0.5].

    Raises:
        ValueError: a size below 1 or an overlap outside its range.
    """

    size: int
    overlap: float = 0.25

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"the tile size must be at least 1 pixel, got {self.size}")
        if not 0 <= self.overlap <= 0.5:
            raise ValueError(f"the overlap must lie in [0, 0.5], got {self.overlap}")

    def starts(self, length: int) -> list[int]:
        """First pixels of the tiles along a side; evenly spaced, the last one ends at the edge."""
        if length <= self.size:
            return [0]
        stride = max(1, math.floor(self.size * (1 - self.overlap)))
        count = math.ceil((length - self.size) / stride) + 1
        return [round(i * (length - self.size) / (count - 1)) for i in range(count)]

    def views(self, height: int, width: int) -> int:
        """Number of network inputs that a picture takes: the whole of it, and its tiles."""
        tiles = len(self.starts(height)) * len(self.starts(width))
        return tiles + 1 if tiles > 1 else 1

    def size_for(self, height: int, width: int, most: int = MANY_VIEWS) -> int:
        """Side of tiles, not much larger than needed, that give at most so many views."""
        size = self.size
        while Tiling(size, self.overlap).views(height, width) > most:
            size += max(1, size // 16)
        return size

    def tiles(self, height: int, width: int) -> list[Tile]:
        """Tiles that cover a picture, row by row."""
        tall, wide = min(self.size, height), min(self.size, width)
        return [
            Tile(top, left, tall, wide, row, column)
            for row, top in enumerate(self.starts(height))
            for column, left in enumerate(self.starts(width))
        ]


class Mosaic:
    """Tiles' maps blended into one map.

    Where tiles overlap, their values are mixed with weights that fall linearly towards each inner
    edge and add up to one at every pixel: equal values stay equal, so that no seam shows.

    Args:
        tiling: how the picture was cut.
        height, width: of the picture in pixels.

    Attributes:
        map: ``(height, width)`` float32, complete once every tile has been added.
    """

    def __init__(self, tiling: Tiling, height: int, width: int) -> None:
        self.map = np.zeros((height, width), np.float32)
        self._down = _shares(tiling.starts(height), min(tiling.size, height), height)
        self._across = _shares(tiling.starts(width), min(tiling.size, width), width)

    def add(self, tile: Tile, values: np.ndarray) -> None:
        """Blend in ``values (h, w)``, of the tile's own size in pixels."""
        weights = self._down[tile.row][:, None] * self._across[tile.column]
        rows = slice(tile.top, tile.top + tile.height)
        self.map[rows, tile.left : tile.left + tile.width] += values * weights


def _shares(starts: list[int], size: int, length: int) -> list[np.ndarray]:
    """Weight of each tile along one side, ``(size,)`` each; at every pixel they add up to one."""
    inner = np.arange(size, dtype=np.float64)
    ramps, total = [], np.zeros(length)
    for index, start in enumerate(starts):
        ramp = np.ones(size)
        if index > 0:
            ramp = np.minimum(ramp, (inner + 1) / (starts[index - 1] + size - start + 1))
        if index < len(starts) - 1:
            ramp = np.minimum(ramp, (size - inner) / (start + size - starts[index + 1] + 1))
        total[start : start + size] += ramp
        ramps.append(ramp)
    return [
        (ramp / total[start : start + size]).astype(np.float32)
        for start, ramp in zip(starts, ramps, strict=True)
    ]

"""The predictions of a picture's views become one score and one map at the picture's size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from zerodefect.detector.contract import PatchFeatures
from zerodefect.images import Picture
from zerodefect.images.tiling import Mosaic, Tile
from zerodefect.scoring.areas import resize_area
from zerodefect.scoring.viewing import Viewing
from zerodefect.types import Prediction

_TYPE_SIDE = 256  # longest side of a tiled picture's map of kinds: kinds need no single pixels


@dataclass(frozen=True)
class Scored:
    """What a detector says of one picture.

    Attributes:
        score: raw image score; with tiles, the highest of all views.
        map: ``(H, W)`` float32 raw map at the picture's size; with tiles, the mean of the global
            view and of the blended tiles. Outside the inspected area it is the lowest value, of the
            map itself where its scale has no end. None from a method without a map.
        highest: highest value of the map inside the inspected area.
        type_map: ``(T, h, w)`` float32 distribution over kinds, at any resolution, or None.
        answer: what the method says of the whole picture in words, or None.
        features: of the whole picture's patches, a batch of one, where the scorer was asked for
            them; None of a picture that was cut into tiles.
    """

    score: float
    map: np.ndarray | None
    highest: float | None
    type_map: np.ndarray | None = None
    answer: str | None = None
    features: tuple[PatchFeatures, ...] | None = None


class Joint:
    """Joins the predictions of one picture's views as they come, in any order.

    Args:
        picture, viewing: whose views they are, and how it was shown.
        inspected: ``(H, W)`` bool, or None for all of it.
        lowest: value of the map where nothing is inspected.
        map_size: ``(height, width)`` of the map, instead of the picture's.
        sized: False leaves the map as the network gives it (joined at the picture's size where
            there are tiles), for ``sized_map`` to finish.
    """

    def __init__(
        self,
        picture: Picture,
        viewing: Viewing,
        inspected: np.ndarray | None,
        lowest: float,
        map_size: tuple[int, int] | None,
        sized: bool = True,
    ) -> None:
        self.sized = sized
        self.own = (picture.height, picture.width)
        self.tiles, self.tiling = viewing.tiles(picture), viewing.tiling
        self.inspected, self.lowest, self.map_size = inspected, lowest, map_size
        self.score = -np.inf
        self.answer: str | None = None
        self.map: np.ndarray | None = None
        self.types: np.ndarray | None = None
        self.features: tuple[PatchFeatures, ...] | None = None
        self._mosaic: Mosaic | None = None
        self._coarse: _Coarse | None = None

    def add(self, view: int, prediction: Prediction, row: int) -> None:
        """Take the prediction of a view: 0 is the global one, then the tiles in their order."""
        self.score = max(self.score, float(prediction.score[row]))
        map = None if prediction.map is None else prediction.map[row]
        types = None if prediction.type_map is None else prediction.type_map[row]
        if view:
            self._add_tile(self.tiles[view - 1], map, types)
            return
        if map is not None:
            # at the picture's size only where tiles are to be joined there; a copy frees the batch
            own = resize_map(map, self.own) if self.tiles else map.float().cpu().numpy().copy()
            self.map = own
        if types is not None and not self.tiles:
            self.types = types.float().cpu().numpy()
        if prediction.answer is not None:
            self.answer = prediction.answer[row]

    def _add_tile(self, tile: Tile, map: Tensor | None, types: Tensor | None) -> None:
        if map is not None:
            assert self.tiling is not None
            self._mosaic = self._mosaic or Mosaic(self.tiling, *self.own)
            self._mosaic.add(tile, resize_map(map, (tile.height, tile.width)))
        if types is not None:
            self._coarse = self._coarse or _Coarse(*self.own, len(types))
            self._coarse.add(tile, types)

    def scored(self) -> Scored:
        """The whole, once all views are there."""
        full, highest = self.map, None
        if full is not None:
            if self._mosaic:
                full = np.add(full, self._mosaic.map, out=self._mosaic.map)
                full /= 2
            if self.sized:
                size = self.map_size or self.own
                full = sized_map(full, size, self.inspected, self.lowest)
            highest = float(full.max())
        types = self._coarse.shares() if self._coarse else self.types
        return Scored(float(self.score), full, highest, types, self.answer, self.features)


def sized_map(
    map: np.ndarray, size: tuple[int, int], inspected: np.ndarray | None, lowest: float
) -> np.ndarray:
    """A map ``(h, w)`` at another size, ``lowest`` outside of the inspected area ``(H, W)``.

    Where ``lowest`` is infinite, since the scale has no end, it is the map's own lowest value.
    """
    if map.shape != size:
        map = resize_map(torch.from_numpy(map), size)
    if inspected is None:
        return map
    outside = np.float32(lowest) if np.isfinite(lowest) else map.min()
    return np.where(resize_area(inspected, size), map, outside)


def resize_map(map: Tensor, size: tuple[int, int]) -> np.ndarray:
    """``(h, w)`` bilinear at another size, pixel centres aligned; values stay in their range."""
    resized = F.interpolate(
        map[None, None].float().cpu(), size, mode="bilinear", align_corners=False
    )
    return resized[0, 0].numpy()


class _Coarse:
    """Tiles' distributions over kinds on a coarse grid of the whole picture."""

    def __init__(self, height: int, width: int, kinds: int) -> None:
        self.scale = min(1.0, _TYPE_SIDE / max(height, width))
        self.height = max(1, round(height * self.scale))
        self.width = max(1, round(width * self.scale))
        self.total = np.zeros((kinds, self.height, self.width), np.float32)

    def add(self, tile: Tile, shares: Tensor) -> None:
        top, left = int(tile.top * self.scale), int(tile.left * self.scale)
        bottom = min(self.height, max(top + 1, round((tile.top + tile.height) * self.scale)))
        right = min(self.width, max(left + 1, round((tile.left + tile.width) * self.scale)))
        resized = F.interpolate(
            shares[None].float().cpu(), (bottom - top, right - left), mode="bilinear"
        )
        self.total[:, top:bottom, left:right] += resized[0].numpy()

    def shares(self) -> np.ndarray:
        return self.total / np.maximum(self.total.sum(0, keepdims=True), 1e-12)

"""From pictures of any size to scores and maps at the picture's size, the same for every method.

Here a detector, which knows fixed-size tensors only, meets what pictures in plants are like: large
(tiles plus a global view), not square (aspect ratio kept), and with surroundings that do not count
(regions of interest).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, islice

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from zerodefect.detector.contract import Detector
from zerodefect.images import ImageError, Picture
from zerodefect.images.tiling import MOST_VIEWS, Mosaic, Tile, Tiling
from zerodefect.types import Prediction

_TYPE_SIDE = 256  # longest side of a tiled picture's map of kinds: kinds need no single pixels


@dataclass(frozen=True)
class Viewing:
    """How a picture is shown to the network.

    Attributes:
        tiling: cut into tiles besides the global view, or None.
        keep_aspect: the network's input takes the picture's aspect ratio at about the native
            number of patches, instead of the field's square.
    """

    tiling: Tiling | None = None
    keep_aspect: bool = False


@dataclass(frozen=True)
class Scored:
    """What a detector says of one picture.

    Attributes:
        score: raw image score; with tiles, the highest of all views.
        map: ``(H, W)`` float32 raw map at the picture's size; with tiles, the mean of the global
            view and of the blended tiles. Outside the inspected area it is the lowest value.
        highest: highest value of the map inside the inspected area.
        type_map: ``(T, h, w)`` float32 distribution over kinds, at any resolution, or None.
    """

    score: float
    map: np.ndarray
    highest: float
    type_map: np.ndarray | None


class Scorer:
    """Scores pictures with a detector.

    Args:
        detector: ready to score: described, with references as wanted.
        viewing: how pictures are shown to it.
        batch_size: network inputs that go through at once.
        map_size: ``(height, width)`` of all maps, instead of each picture's own.
    """

    def __init__(
        self,
        detector: Detector,
        viewing: Viewing | None = None,
        batch_size: int = 8,
        map_size: tuple[int, int] | None = None,
    ) -> None:
        self.map_size = map_size
        self.detector = detector
        self.viewing = viewing or Viewing()
        self.batch_size = batch_size

    # --- inputs ---------------------------------------------------------------------------------

    def tensor(self, picture: Picture) -> Tensor:
        """Network input ``(3, h, w)`` of a picture or tile."""
        preprocess = self.detector.preprocess
        if self.viewing.keep_aspect:
            size = aspect_size(
                (picture.height, picture.width), preprocess.size, self.detector.patch_size
            )
            preprocess = replace(preprocess, size=size)
        return preprocess(picture)

    def tiles(self, picture: Picture) -> list[Tile]:
        """Tiles besides the global view; none where one tile would hold the picture.

        Raises:
            ImageError: more views than ``MOST_VIEWS``.
        """
        tiling = self.viewing.tiling
        if tiling is None:
            return []
        check_views(picture.path, tiling, picture.height, picture.width)
        tiles = tiling.tiles(picture.height, picture.width)
        return tiles if len(tiles) > 1 else []

    def views(self, picture: Picture, inspected: np.ndarray | None = None) -> Iterator[Tensor]:
        """Network inputs of a picture, made one by one: the global view first, then the tiles.

        Raises:
            ValueError: an inspected area that is empty or of another size.
            ImageError: more views than ``MOST_VIEWS``.
        """
        shown = _paint_over(picture, inspected)
        yield self.tensor(shown)
        for tile in self.tiles(shown):
            yield self.tensor(tile.cut(shown))

    # --- scores ---------------------------------------------------------------------------------

    def score(
        self, pictures: Sequence[Picture], inspected: Sequence[np.ndarray | None] | None = None
    ) -> list[Scored]:
        """Score pictures.

        Args:
            pictures: of any sizes.
            inspected: per picture ``(H, W)`` bool, True where it counts, or None for all of it.
                What lies outside is painted over before the network sees it, so that it can
                change nothing.

        Raises:
            ValueError: an inspected area that is empty or of another size.
        """
        areas = inspected or [None] * len(pictures)
        pairs = list(zip(pictures, areas, strict=True))
        views = (view for picture, area in pairs for view in self.views(picture, area))
        predictions = self._predict(views)
        return [self.combine(picture, predictions, area) for picture, area in pairs]

    def score_each(
        self,
        pictures: Sequence[Picture],
        inspected: Sequence[np.ndarray | None],
        states: Sequence[dict[str, Tensor]],
    ) -> list[list[Scored]]:
        """Score pictures under several states of the detector; the network runs once.

        Args:
            pictures: of any sizes; not for tiled viewing.
            inspected: as for ``score``.
            states: buffers of the detector (its words and memory), as ``restore`` takes them; the
                last one stays in place.

        Returns:
            Per state a list over the pictures.
        """
        pairs = list(zip(pictures, inspected, strict=True))
        views = (next(self.views(picture, area)) for picture, area in pairs)
        rows: list[list[Prediction]] = [[] for _ in states]
        for batch in self._batches(views):
            with torch.inference_mode():
                encoded = self.detector.encode(batch)
                for found, state in zip(rows, states, strict=True):
                    self.detector.restore(state)
                    prediction = self.detector.predict(encoded)
                    found += [_row(prediction, row) for row in range(len(batch))]
        return [
            [
                self.combine(p, iter([row]), area)
                for (p, area), row in zip(pairs, found, strict=True)
            ]
            for found in rows
        ]

    def combine(
        self, picture: Picture, predictions: Iterator[Prediction], inspected: np.ndarray | None
    ) -> Scored:
        """Join the predictions of a picture's views, taken in the order of ``views``."""
        whole = next(predictions)
        score = float(whole.score[0])
        own = (picture.height, picture.width)
        tiles = self.tiles(picture)
        # through the picture's size only where tiles are to be joined there
        size = own if tiles else self.map_size or own
        full = self._resize(whole.map[0], size)
        types = None if whole.type_map is None else whole.type_map[0].float().cpu().numpy()
        if tiles:
            assert self.viewing.tiling is not None
            mosaic = Mosaic(self.viewing.tiling, picture.height, picture.width)
            coarse = _Coarse(picture.height, picture.width, len(self.detector.kinds))
            for tile, seen in zip(tiles, predictions, strict=False):
                score = max(score, float(seen.score[0]))
                mosaic.add(tile, self._resize(seen.map[0], (tile.height, tile.width)))
                coarse.add(tile, seen.type_map)
            full = np.add(full, mosaic.map, out=mosaic.map)
            full /= 2
            types = None if types is None else coarse.shares()
        if self.map_size and size != self.map_size:
            full = self._resize(torch.from_numpy(full), self.map_size)
        if inspected is not None:
            inspected = resize_area(inspected, (full.shape[0], full.shape[1]))
            full = np.where(inspected, full, np.float32(self.detector.map_range[0]))
        return Scored(score, full, float(full.max()), types)

    def score_left_out(
        self, pictures: Sequence[Picture], inspected: Sequence[np.ndarray | None]
    ) -> list[Scored]:
        """Score each picture with all the OTHER ones as its references.

        The detector must remember nothing before, and remembers nothing afterwards.
        """
        pairs = list(zip(pictures, inspected, strict=True))
        views = [list(self.views(picture, area)) for picture, area in pairs]
        flat = [view for some in views for view in some]
        if len({view.shape for view in flat}) == 1:
            groups = torch.arange(len(views)).repeat_interleave(torch.tensor(list(map(len, views))))
            with torch.inference_mode():
                seen = self.detector.score_left_out(
                    torch.stack(flat).to(self.detector.device), groups.to(self.detector.device)
                )
            rows = (_row(seen, row) for row in range(len(flat)))
            return [self.combine(picture, rows, area) for picture, area in pairs]
        scored = []
        for index, (picture, area) in enumerate(pairs):
            self.remember(view for some in views[:index] + views[index + 1 :] for view in some)
            scored += self.score([picture], [area])
            self.detector.forget()
        return scored

    def remember(self, views: Iterable[Tensor]) -> None:
        """Let the detector remember network inputs, in batches of one size."""
        with torch.no_grad():
            for batch in self._batches(views):
                self.detector.remember(batch)

    def _predict(self, inputs: Iterable[Tensor]) -> Iterator[Prediction]:
        """One prediction per input, in order; a batch at a time is held."""
        for batch in self._batches(inputs):
            with torch.inference_mode():
                prediction = self.detector(batch)
            for row in range(len(batch)):
                yield _row(prediction, row)

    def _batches(self, inputs: Iterable[Tensor]) -> Iterator[Tensor]:
        """Neighbours of one size together, at most ``batch_size``."""
        for _, alike in groupby(inputs, key=lambda tensor: tensor.shape):
            while some := list(islice(alike, self.batch_size)):
                yield torch.stack(some).to(self.detector.device)

    def _resize(self, values: Tensor, size: tuple[int, int]) -> np.ndarray:
        return self.detector.preprocess.resize_map(values.float().cpu(), *size).numpy()


def check_views(path: str, tiling: Tiling, height: int, width: int) -> int:
    """Number of views that a picture takes.

    Raises:
        ImageError: there are more than ``MOST_VIEWS``.
    """
    views = tiling.views(height, width)
    if views > MOST_VIEWS:
        reason = (
            f"{views} views of the {width} x {height} pixels in tiles of {tiling.size} are more "
            f"than the {MOST_VIEWS} that are allowed"
        )
        larger = tiling.size_for(height, width)
        raise ImageError(path, reason, f"Take larger tiles: {larger} pixels would do well")
    return views


class _Coarse:
    """Tiles' distributions over kinds on a coarse grid of the whole picture."""

    def __init__(self, height: int, width: int, kinds: int) -> None:
        self.scale = min(1.0, _TYPE_SIDE / max(height, width))
        self.height = max(1, round(height * self.scale))
        self.width = max(1, round(width * self.scale))
        self.total = np.zeros((kinds, self.height, self.width), np.float32)

    def add(self, tile: Tile, shares: Tensor | None) -> None:
        if shares is None:
            return
        top, left = int(tile.top * self.scale), int(tile.left * self.scale)
        bottom = min(self.height, max(top + 1, round((tile.top + tile.height) * self.scale)))
        right = min(self.width, max(left + 1, round((tile.left + tile.width) * self.scale)))
        resized = torch.nn.functional.interpolate(
            shares.float().cpu(), (bottom - top, right - left), mode="bilinear"
        )
        self.total[:, top:bottom, left:right] += resized[0].numpy()

    def shares(self) -> np.ndarray:
        return self.total / np.maximum(self.total.sum(0, keepdims=True), 1e-12)


def aspect_size(picture: tuple[int, int], native: tuple[int, int], patch: int) -> tuple[int, int]:
    """Network input with the picture's aspect ratio and about the native area.

    Args:
        picture: ``(height, width)``.
        native: the network's ``(height, width)``.
        patch: both sides are multiples of this.
    """
    side = (native[0] * native[1]) ** 0.5
    ratio = (picture[0] / picture[1]) ** 0.5
    # beyond 4:1 a side would hold too few patches for windows
    ratio = min(max(ratio, 0.5), 2.0)
    height, width = (max(1, round(side * r / patch)) * patch for r in (ratio, 1 / ratio))
    return height, width


def read_area(
    roi: Picture | None, ignore: Picture | None, height: int, width: int
) -> np.ndarray | None:
    """Inspected area of a picture from mask pictures: white in ``roi``, not white in ``ignore``.

    Masks of another size are resized (nearest pixel). None if there is no mask.

    Raises:
        ValueError: nothing is left to inspect.
    """
    if roi is None and ignore is None:
        return None
    area = np.ones((height, width), bool)
    for picture, counts in ((roi, True), (ignore, False)):
        if picture is not None:
            white = np.asarray(Image.fromarray(picture.to_uint8()).convert("L")) > 127
            area &= resize_area(white, (height, width)) == counts
    if not area.any():
        raise ValueError(
            "the masks leave nothing to inspect; white means inspect in a region of "
            "interest, and ignore in an ignore mask"
        )
    return area


def resize_area(area: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Inspected area ``(H, W)`` bool at another size, by the nearest pixel."""
    if area.shape == size:
        return area
    resized = Image.fromarray(area).resize((size[1], size[0]), Image.Resampling.NEAREST)
    return np.asarray(resized)


def _paint_over(picture: Picture, inspected: np.ndarray | None) -> Picture:
    """The picture with everything outside the inspected area in that area's mean colour."""
    if inspected is None:
        return picture
    if inspected.shape != (picture.height, picture.width):
        raise ValueError(
            f"{picture.path}: the inspected area is {inspected.shape}, the picture "
            f"{(picture.height, picture.width)}"
        )
    if not inspected.any():
        raise ValueError(f"{picture.path}: the inspected area is empty")
    pixels = picture.pixels.copy()
    pixels[~inspected] = np.round(picture.pixels[inspected].mean(0)).astype(pixels.dtype)
    return replace(picture, pixels=pixels)


def _row(prediction: Prediction, row: int) -> Prediction:
    def pick(values: Tensor | None) -> Tensor | None:
        return None if values is None else values[row : row + 1]

    return Prediction(
        score=prediction.score[row : row + 1],
        map=prediction.map[row : row + 1],
        type_score=pick(prediction.type_score),
        type_map=pick(prediction.type_map),
    )

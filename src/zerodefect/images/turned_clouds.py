"""Clouds seen from the side: rendered by a z-buffer, with what each pixel shows, and back again."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from zerodefect.images.cloud_geometry import filled, surface_of
from zerodefect.images.cloud_views import field_of_view
from zerodefect.images.clouds import Cloud

_GAP = 3.0  # pixels that a point is drawn around itself, at most, so that a surface has no holes


@dataclass(frozen=True, eq=False)
class TurnedView:
    """A cloud from another side.

    Attributes:
        pixels: ``(h, w, 3)`` uint16, the normals as that side sees them, see ``seen_as``.
        cells: ``(h, w)`` int64, the cell ``row * W + column`` of the cloud that a pixel shows; -1
            where it shows none.
        shape: ``(H, W)`` of the cloud's grid.
    """

    pixels: np.ndarray
    cells: np.ndarray
    shape: tuple[int, int]

    def back(self, map: np.ndarray) -> np.ndarray:
        """Values ``(h, w)`` of the view's pixels on the cloud's grid, ``(H, W)`` float32.

        A cell that several pixels show takes the highest; one that none shows is NaN.

        Raises:
            ValueError: a map of another size.
        """
        if map.shape != self.cells.shape:
            raise ValueError(f"the map is {map.shape}, the view {self.cells.shape}")
        grid = torch.full((math.prod(self.shape),), -math.inf)
        there = self.cells >= 0
        places = torch.from_numpy(self.cells[there])
        values = torch.from_numpy(map[there].astype(np.float32))
        grid.scatter_reduce_(0, places, values, "amax")
        grid[torch.isinf(grid)] = math.nan
        return grid.reshape(self.shape).numpy()


def turned(
    cloud: Cloud, yaw: float, pitch: float, side: int | None = None, width: float | None = None
) -> TurnedView:
    """See a cloud after turning it about its middle.

    Every measured point is drawn as one pixel of a parallel projection; of several the nearest is
    kept. Pixels beside a drawn one take its colour, for the picture alone: they show no cell. The
    rest is drawn as a plane that faces the camera.

    Args:
        cloud: on its grid.
        yaw, pitch: degrees about the y and then the x axis, each in [-90, 90].
        side: pixels of the square view; None for as many as the longer side of the grid.
        width: what the view covers, in the cloud's unit; None for 1.5 times what the cloud covers,
            so that a square's diagonal fits.

    Raises:
        ValueError: an angle, side or width out of range.
    """
    if not (abs(yaw) <= 90 and abs(pitch) <= 90):
        raise ValueError(f"yaw and pitch must lie in [-90, 90] degrees, got {yaw:g}, {pitch:g}")
    side = max(cloud.valid.shape) if side is None else side
    if side < 2:
        raise ValueError(f"a view needs at least 2 pixels a side, got {side}")
    width = 1.5 * field_of_view(cloud) if width is None else width
    if not 0 < width < math.inf:
        raise ValueError(f"the width of a view must be more than 0, got {width:g}")
    turn = _rotation(yaw, pitch)
    points = torch.from_numpy(cloud.measured.astype(np.float64))
    points = (points - points.mean(0)) @ turn.T
    scale = (side - 1) / width
    columns, rows = (((points[:, axis] * scale) + (side - 1) / 2).round().long() for axis in (0, 1))
    inside = (columns >= 0) & (columns < side) & (rows >= 0) & (rows < side)
    own = torch.from_numpy(np.flatnonzero(cloud.valid))[inside]
    pixels = (rows * side + columns)[inside]
    cells = _nearest(pixels, points[inside, 2], own, side * side).reshape(side, side).numpy()
    surface = surface_of(cloud)
    normals = surface.normals.reshape(-1, 3) @ turn.numpy().T
    facing = np.where(normals[:, 2:] > 0, -normals, normals)
    known = (cells >= 0) & surface.known.reshape(-1)[np.maximum(cells, 0)]
    colours = np.broadcast_to(np.array([0.5, 0.5, 1.0]), (side, side, 3))
    if known.any():
        drawn = facing[np.maximum(cells, 0)] * (0.5, 0.5, -0.5) + 0.5
        between = ndimage.distance_transform_edt(~known) <= _GAP
        colours = np.where(between[..., None], filled(drawn, known), colours)
    return TurnedView((np.clip(colours, 0, 1) * 65535).round().astype(np.uint16), cells, _of(cloud))


def _of(cloud: Cloud) -> tuple[int, int]:
    return cloud.height, cloud.width


def _rotation(yaw: float, pitch: float) -> Tensor:
    a, b = math.radians(yaw), math.radians(pitch)
    about_y = [[math.cos(a), 0, math.sin(a)], [0, 1, 0], [-math.sin(a), 0, math.cos(a)]]
    about_x = [[1, 0, 0], [0, math.cos(b), -math.sin(b)], [0, math.sin(b), math.cos(b)]]
    return torch.tensor(about_x, dtype=torch.float64) @ torch.tensor(about_y, dtype=torch.float64)


def _nearest(pixels: Tensor, depth: Tensor, own: Tensor, count: int) -> Tensor:
    """The z-buffer: of the points at each pixel the cell of the nearest, -1 where there is none."""
    buffer = torch.full((count,), math.inf, dtype=depth.dtype)
    buffer.scatter_reduce_(0, pixels, depth, "amin")
    in_front = depth == buffer[pixels]
    found = torch.full((count,), -1, dtype=torch.int64)
    # of two at the same depth the one with the lower number, whatever the order of writing
    lowest = torch.full((count,), torch.iinfo(torch.int64).max)
    lowest.scatter_reduce_(0, pixels[in_front], own[in_front], "amin")
    seen = lowest < torch.iinfo(torch.int64).max
    found[seen] = lowest[seen]
    return found

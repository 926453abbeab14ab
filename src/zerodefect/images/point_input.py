"""From a picture's point cloud to a detector's input."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar
from weakref import WeakKeyDictionary

import numpy as np
import torch
from scipy import ndimage

from zerodefect.images.cloud_geometry import (
    Plane,
    background_plane,
    filled,
    usual_tolerance,
    without_plane,
)
from zerodefect.images.clouds import Cloud, open_cloud
from zerodefect.images.decode import Picture
from zerodefect.images.preprocess import Preprocess

_OVER_GROUND = 5.0  # usual tolerances within which points count as ground: its noise has tails
_OTHER_SIDE = 4  # times as many points as before the plane: there lies the part
_PIECES = 0.02  # of the largest piece: smaller ones are left-overs of the ground


@dataclass(frozen=True, eq=False)
class PartCloud(Cloud):
    """A cloud whose ground was looked for, and taken away where there is one."""


_ALONE: WeakKeyDictionary[Cloud, PartCloud] = WeakKeyDictionary()  # several ask for the same part


@dataclass(frozen=True)
class PointsPreprocess(Preprocess):
    """The points of a part on its grid, without the ground that it lies on.

    A grid that is larger than ``size`` is thinned out, row by row and column by column; a smaller
    one stays as it is, since points cannot be made. Of ``Preprocess`` only ``size`` counts here.
    """

    modality: ClassVar[str] = "points"

    def lacks(self, picture: Picture) -> bool:
        """Whether the picture has no point cloud."""
        return picture.cloud is None

    def __call__(self, picture: Picture) -> torch.Tensor:
        """Give ``(3, h, w)`` float32, x, y, z in the cloud's unit, NaN where there is no point.

        Raises:
            ValueError: the picture has no point cloud.
        """
        if picture.cloud is None:
            raise ValueError(f"{picture.path} has no point cloud")
        part = part_alone(picture.cloud)
        rows, columns = (
            _spread(side, most) for side, most in zip(part.valid.shape, self.size, strict=True)
        )
        points = np.where(part.valid[..., None], part.points, np.float32(np.nan))
        thinned = np.ascontiguousarray(points[rows][:, columns].transpose(2, 0, 1))
        return torch.from_numpy(thinned.astype(np.float32, copy=False))


def _spread(side: int, most: int) -> np.ndarray:
    """Evenly spread places, ``most`` of them at most."""
    if side <= most:
        return np.arange(side)
    return (np.arange(most) * side + side // 2) // most


def part_alone(cloud: Cloud) -> PartCloud:
    """The cloud without the plane that the part lies on, and without what is left of that.

    A cloud without such a plane keeps all points, and so does what was cut out of a part alone. The
    part is looked for behind the plane where nearly all other points are: in a well of the table,
    or in a file whose z grows towards the camera.
    """
    if isinstance(cloud, PartCloud):
        return cloud
    if cloud not in _ALONE:
        _ALONE[cloud] = _without_ground(cloud)
    return _ALONE[cloud]


def _without_ground(cloud: Cloud) -> PartCloud:
    plane = background_plane(cloud)
    if plane is None:
        return PartCloud(**vars(cloud))
    tolerance = _OVER_GROUND * usual_tolerance(cloud)
    away = plane.distances(cloud.measured)
    if (away < -tolerance).sum() > _OTHER_SIDE * (away > tolerance).sum():
        x, y, z = plane.normal
        plane = Plane((-x, -y, -z), -plane.offset)
    part = without_plane(cloud, plane, tolerance)
    pieces, count = ndimage.label(part.valid, np.ones((3, 3)))
    sizes = np.bincount(pieces.ravel(), minlength=count + 1)
    sizes[0] = 0
    kept = (sizes >= _PIECES * sizes.max())[pieces] & part.valid
    cells = np.where((part.cells >= 0) & kept.ravel()[part.cells], part.cells, -1)
    alone = replace(part, points=part.points * kept[..., None], valid=kept, cells=cells)
    return PartCloud(**vars(alone))


def raised(picture: Picture) -> Picture:
    """The picture with points that stand as high as its pixels are bright, for checks of scores."""
    grey = picture.to_uint8().mean(2).astype(np.float32)
    y, x = np.indices(grey.shape, dtype=np.float32)
    points = np.stack([x, y, 1000 - grey / 32], -1)
    return replace(picture, cloud=open_cloud(points))


def relief(points: torch.Tensor) -> torch.Tensor:
    """Points ``(B, 3, h, w)`` as pictures ``(B, 3, h, w)`` in [0, 1]: z and both slopes.

    Slopes are x and y of the normal. Each is stretched from its lowest to its highest value on the
    part; holes are filled from the nearest point, and a cloud without any is black.
    """
    return torch.stack([_relief(one) for one in points])


def _relief(points: torch.Tensor) -> torch.Tensor:
    there = points.isfinite().all(0)
    if not there.any():
        return torch.zeros_like(points)
    known = points.detach().permute(1, 2, 0).cpu().numpy()
    whole = torch.from_numpy(filled(known, there.cpu().numpy())).permute(2, 0, 1).to(points)
    right, down = (_step(whole, axis) for axis in (2, 1))
    normal = torch.linalg.cross(right, down, dim=0)
    normal = normal / normal.norm(dim=0).clamp(min=1e-12)
    drawn = torch.stack([whole[2], normal[0], normal[1]])
    low, high = (f(drawn[:, there], dim=1)[:, None, None] for f in (torch.amin, torch.amax))
    return ((drawn - low) / (high - low).clamp(min=1e-12)).clamp(0, 1)


def _step(maps: torch.Tensor, axis: int) -> torch.Tensor:
    """Half the difference of both neighbours in an axis; at an edge that to the only one."""
    if maps.shape[axis] < 2:
        return torch.zeros_like(maps)
    return torch.gradient(maps, dim=axis)[0]

"""Clouds as pictures, which any method for pictures can judge, on scales that no part changes.

A view has the cloud's grid, so that what is found on its pixels is found on the points. Nothing is
stretched to a cloud's own lowest and highest value: the same height on two parts is the same grey.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

from zerodefect.images.cloud_geometry import Plane, background_plane, filled, surface_of
from zerodefect.images.clouds import Cloud
from zerodefect.images.point_input import part_alone

View = Literal["depth", "normals", "curvature"]
VIEWS: tuple[str, ...] = get_args(View)

_WHITE = 65535
_GROUND = 0.25  # grey of the ground, so that holes below it are seen, too
_FACING = np.array([0.5, 0.5, -0.5])
_MOST_VARIATION = 1 / 3  # of three equal spreads


def checked_view(view: str | None) -> str | None:
    """The name of a view, or None.

    Raises:
        ValueError: there is no such view.
    """
    if view is None or view in VIEWS:
        return view
    raise ValueError(f"no view {view!r} of a cloud; there are: {', '.join(VIEWS)}")


def seen_as(cloud: Cloud, view: str) -> np.ndarray:
    """Draw a cloud; what was not measured is taken from the nearest measured pixel.

    Where the part lies on a plane, that is drawn flat, since its noise tells nothing of the part.

    - ``depth``: height above the ground (the plane along the edges, or where there is none the
      median), in widths of the field of view; the ground is a quarter of white.
    - ``normals``: x, y and -z of the normal from [-1, 1] to [0, 1] as red, green and blue.
    - ``curvature``: root of the surface variation (Pauly et al. 2002) over its highest, 1/3.

    Returns:
        ``(H, W, 3)`` uint16, all channels alike but for ``normals``.

    Raises:
        ValueError: there is no such view.
    """
    plane, part = background_plane(cloud), part_alone(cloud)
    flat = np.array((0.0, 0.0, -1.0) if plane is None else plane.normal)
    if checked_view(view) == "depth":
        values, ground = _heights(cloud, plane), np.full(1, _GROUND)
    elif view == "normals":
        values, ground = surface_of(part).normals * _FACING + 0.5, flat * _FACING + 0.5
    else:
        values = np.sqrt(surface_of(part).variation / _MOST_VARIATION)[..., None]
        ground = np.zeros(1)
    drawn = filled(np.where(part.valid[..., None], values, ground), cloud.valid)
    whole = np.broadcast_to(np.clip(drawn, 0, 1), (*cloud.valid.shape, 3))
    return (whole * _WHITE).round().astype(np.uint16)


def _heights(cloud: Cloud, plane: Plane | None) -> np.ndarray:
    """Share of white of each pixel, ``(H, W, 1)``."""
    if plane is None:
        heights = np.median(cloud.measured[:, 2]) - cloud.points[..., 2].astype(np.float64)
    else:
        heights = plane.distances(cloud.points)
    return (_GROUND + (1 - _GROUND) * heights / field_of_view(cloud))[..., None]


def field_of_view(cloud: Cloud) -> float:
    """Longer side of what the cloud covers in x and y, without the outermost hundredth."""
    low, high = np.percentile(cloud.measured[:, :2], (1, 99), axis=0)
    return float(max((high - low).max(), 1e-9))

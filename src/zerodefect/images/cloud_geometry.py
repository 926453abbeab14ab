"""What a cloud's grid tells of its surface: holes, normals, curvature, and the plane it lies on."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from zerodefect.images.clouds import Cloud

_FRAME = 0.05  # of each side: pixels in which the background is looked for
_DRAWS = 256  # of three points; a plane of half of them is missed once in 10^14
_ENOUGH = 0.5  # of the frame's points, for it to be the background
_MOST = 4096  # points that draws are tried on
_TOLERANCE = 0.005  # of the cloud's diagonal
_WITHOUT_TAILS = 1.2  # times the diagonal without the outermost hundredths: false readings add more


def filled(values: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Values ``(H, W, ...)`` with those that are not valid taken from the nearest valid pixel.

    Raises:
        ValueError: no pixel is valid.
    """
    if not valid.any():
        raise ValueError("no pixel is valid, so there is nothing to fill holes with")
    if valid.all():
        return values
    rows, columns = ndimage.distance_transform_edt(
        ~valid, return_distances=False, return_indices=True
    )
    return np.asarray(values[rows, columns])


@dataclass(frozen=True, eq=False)
class Surface:
    """The surface around each pixel.

    Attributes:
        normals: ``(H, W, 3)`` float32 of length one, towards the camera (z is not positive); zero
            where there are too few points around.
        variation: ``(H, W)`` float32 in [0, 1/3], the share of the spread that lies across the
            surface: 0 of a plane (Pauly, Gross and Kobbelt 2002, "surface variation").
        known: ``(H, W)`` bool, measured with at least three points around.
    """

    normals: np.ndarray
    variation: np.ndarray
    known: np.ndarray


def surface_of(cloud: Cloud, radius: int = 2) -> Surface:
    """Fit a plane to the measured points in a window around each pixel.

    Args:
        cloud: on its grid.
        radius: the window has ``2 * radius + 1`` pixels a side.

    Raises:
        ValueError: a radius below 1.
    """
    if radius < 1:
        raise ValueError(f"the radius must be at least 1 pixel, got {radius}")
    valid = cloud.valid
    weight = valid.astype(np.float64)
    # from the middle of the cloud, or squares of far coordinates would eat up the differences
    points = (cloud.points - cloud.measured.mean(0, dtype=np.float64)) * weight[..., None]
    count = _summed(weight, radius)
    enough = valid & (count > 2.5)
    share = 1 / np.maximum(count, 1)
    mean = np.stack([_summed(points[..., axis], radius) * share for axis in range(3)], -1)
    spread = np.zeros((*valid.shape, 3, 3))
    for a in range(3):
        for b in range(a, 3):
            both = _summed(points[..., a] * points[..., b], radius) * share
            spread[..., a, b] = spread[..., b, a] = both - mean[..., a] * mean[..., b]
    lengths, directions = np.linalg.eigh(spread[enough])
    own = directions[..., 0]
    own = np.where(own[:, 2:] > 0, -own, own)
    lengths = np.maximum(lengths, 0)
    total = lengths.sum(-1)
    # three points in a line have no plane
    planar = lengths[:, 1] > 1e-6 * np.maximum(total, 1e-300)
    known = enough.copy()
    known[enough] = planar
    normals = np.zeros((*valid.shape, 3), np.float32)
    normals[known] = own[planar]
    variation = np.zeros(valid.shape, np.float32)
    variation[known] = lengths[planar, 0] / total[planar]
    return Surface(normals, variation, known)


def _summed(values: np.ndarray, radius: int) -> np.ndarray:
    """Sum over a window; what lies outside of the grid counts as zero."""
    size = 2 * radius + 1
    return np.asarray(ndimage.uniform_filter(values, size, mode="constant") * size**2)


@dataclass(frozen=True)
class Plane:
    """Points ``p`` with ``normal . p = offset``.

    Attributes:
        normal: unit vector, towards the camera (z is not positive).
        offset: in the cloud's unit.
    """

    normal: tuple[float, float, float]
    offset: float

    def distances(self, points: np.ndarray) -> np.ndarray:
        """Signed distances of points ``(..., 3)``, positive on the camera's side; float64."""
        return np.asarray(points @ np.asarray(self.normal, np.float64) - self.offset)


def usual_tolerance(cloud: Cloud) -> float:
    """Distance from a plane within which points count as on it: 0.5 % of the cloud's diagonal.

    A few false readings far out do not stretch it by more than a fifth.
    """
    points = cloud.measured
    low, high = np.percentile(points, (1, 99), axis=0)
    whole, inner = np.linalg.norm(np.ptp(points, axis=0)), np.linalg.norm(high - low)
    return _TOLERANCE * float(min(whole, _WITHOUT_TAILS * inner) if inner > 0 else whole)


def background_plane(cloud: Cloud, tolerance: float | None = None, seed: int = 0) -> Plane | None:
    """The plane that the part lies on, found along the edge of the grid by RANSAC.

    The part itself may be flat, so that the plane is looked for where the part is not: among the
    points in a frame of 5 % of the sides.

    Args:
        cloud: on its grid.
        tolerance: distance in the cloud's unit within which a point lies on it, see
            ``usual_tolerance``.
        seed: of the draws; the same cloud and seed give the same plane everywhere.

    Returns:
        The plane, or None where no plane holds half of the frame's points.
    """
    tolerance = usual_tolerance(cloud) if tolerance is None else tolerance
    down, across = (max(1, round(_FRAME * side)) for side in cloud.valid.shape)
    frame = cloud.valid.copy()
    frame[down:-down, across:-across] = False
    everyone = cloud.points[frame].astype(np.float64)
    points = everyone[:: max(1, len(everyone) // _MOST)]
    if len(points) < 3:
        return None
    draws = np.random.Generator(np.random.PCG64(seed)).integers(0, len(points), (_DRAWS, 3))
    a, b, c = (points[draws[:, corner]] for corner in range(3))
    normals = np.cross(b - a, c - a)
    lengths = np.linalg.norm(normals, axis=1)
    proper = lengths > 1e-12 * tolerance**2
    if not proper.any():
        return None
    normals = normals[proper] / lengths[proper, None]
    away = np.abs(points @ normals.T - (a[proper] * normals).sum(1))
    held = (away <= tolerance).sum(0)
    best = int(held.argmax())
    if held[best] < _ENOUGH * len(points):
        return None
    found = np.abs(everyone @ normals[best] - (a[proper][best] * normals[best]).sum())
    return _fitted(everyone[found <= tolerance])


def _fitted(points: np.ndarray) -> Plane:
    """The plane of least squares."""
    middle = points.mean(0)
    normal = np.linalg.svd(points - middle, full_matrices=False)[2][2]
    normal = -normal if normal[2] > 0 else normal
    return Plane((float(normal[0]), float(normal[1]), float(normal[2])), float(normal @ middle))


def without_plane(cloud: Cloud, plane: Plane, tolerance: float | None = None) -> Cloud:
    """The cloud without the points on a plane or behind it, as if they were not measured.

    What would leave nothing is left as it is.
    """
    tolerance = usual_tolerance(cloud) if tolerance is None else tolerance
    kept = cloud.valid & (plane.distances(cloud.points) > tolerance)
    if not kept.any():
        return cloud
    cells = np.where((cloud.cells >= 0) & kept.ravel()[cloud.cells], cloud.cells, -1)
    return replace(cloud, points=cloud.points * kept[..., None], valid=kept, cells=cells)

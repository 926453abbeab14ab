"""What a cloud's file lost before it came here: copies of points, and rounded coordinates."""

from __future__ import annotations

import numpy as np

_APART = 8  # cells over which the distance of neighbours is taken, so that rounding averages out
_COPIES = 0.1  # share of neighbours at the very same place from where they are told of
_LEVELS = 4  # heights, at least, that rounding leaves: fewer are a flat table
_STEP = 1.0  # spacings of the points, from where a step of the heights is told of
_LOOKED_AT = 50_000  # points, at most, that heights are compared of
_REMEDY = "export the cloud as the camera gives it, with all decimals"


def resolution_notes(points: np.ndarray, valid: np.ndarray) -> tuple[str, ...]:
    """What the reader should know about the resolution of points on a grid.

    Args:
        points: ``(H, W, 3)``.
        valid: ``(H, W)`` bool, measured.

    Returns:
        At most one note on points that repeat their neighbour (a cloud that was enlarged, or x and
        y that were rounded) and one on heights that were rounded to steps as wide as the points lie
        apart: dents below these are lost.
    """
    told = []
    share = _repeated(points, valid)
    if share >= _COPIES:
        told.append(
            f"{share:.0%} of its points repeat their neighbour, as where a cloud was enlarged or "
            f"its coordinates rounded; copies count once. Better {_REMEDY}"
        )
    spacing, step = _spacing(points, valid), _height_step(points[valid][:, 2])
    if spacing and step and step >= _STEP * spacing:
        told.append(
            f"its heights are rounded to steps of {step:.3g} where points lie {spacing:.2g} apart, "
            f"and less deep damage is lost. Better {_REMEDY}"
        )
    return tuple(told)


def _pairs(points: np.ndarray, valid: np.ndarray, apart: int) -> np.ndarray:
    """Differences ``(n, 3)`` of measured points so many cells apart in a row or column."""
    found = []
    for axis in (0, 1):
        k = min(apart, valid.shape[axis] - 1)
        if k:
            near, far = ((slice(None),) * axis + (s,) for s in (slice(None, -k), slice(k, None)))
            both = valid[near] & valid[far]
            found.append((points[far][both].astype(np.float64) - points[near][both]) / k)
    return np.concatenate(found) if found else np.zeros((0, 3))


def _repeated(points: np.ndarray, valid: np.ndarray) -> float:
    steps = _pairs(points, valid, 1)
    return float((steps == 0).all(1).mean()) if len(steps) else 0.0


def _spacing(points: np.ndarray, valid: np.ndarray) -> float:
    """Usual distance of neighbours across the line of sight; 0 where there are none."""
    steps = _pairs(points, valid, _APART)
    return float(np.median(np.linalg.norm(steps[:, :2], axis=1))) if len(steps) else 0.0


def _height_step(heights: np.ndarray) -> float:
    """The step of which all heights are multiples, apart from an offset; 0 of any heights."""
    some = heights[:: max(1, len(heights) // _LOOKED_AT)].astype(np.float64)
    levels = np.unique(some)
    if len(levels) < _LEVELS or len(levels) > len(some) / 2:
        return 0.0
    step = float(np.diff(levels).min())
    places = (levels - levels[0]) / step
    return step if np.abs(places - places.round()).max() < 0.05 else 0.0

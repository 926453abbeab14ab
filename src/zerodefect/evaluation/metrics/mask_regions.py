"""One image's map and mask taken apart: normal pixels, defective pixels, regions."""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import numpy as np
from scipy import ndimage

from zerodefect.evaluation.metrics.metric_query import MetricError

NO_SCORES = np.empty(0, np.float32)
NO_AREAS = np.empty(0, np.int64)
_EIGHT = np.ones((3, 3), bool)


class Pixels(NamedTuple):
    """Scores of one image's pixels.

    Attributes:
        normal: ``(n,)`` float32, pixels outside every region.
        defective: ``(p,)`` float32, pixels of regions; one that lies in several counts in each.
        areas: ``(p,)`` for each of them the area whose inverse is its weight in the overlap of its
            region, in pixels; 0 where it has no weight.
        regions: number of regions.
        holes: ``(h,)`` float32, pixels inside the holes of regions, where asked for.
        hole_areas: ``(h,)`` area of the region around each of them.
    """

    normal: np.ndarray
    defective: np.ndarray = NO_SCORES
    areas: np.ndarray = NO_AREAS
    regions: int = 0
    holes: np.ndarray = NO_SCORES
    hole_areas: np.ndarray = NO_AREAS


def as_array(values: Any) -> np.ndarray:
    """Take a NumPy array of a torch tensor (any device, any float type), an array or a list."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        if values.is_floating_point() and values.element_size() == 2:
            values = values.float()  # NumPy knows no bfloat16
        return cast(np.ndarray, values.numpy())
    return np.asarray(values)


def as_plane(values: Any, what: str) -> np.ndarray:
    """Take ``(H, W)``, or ``(1, H, W)`` as detectors of one image give it.

    Raises:
        MetricError: for any other shape, or an empty one.
    """
    array = as_array(values)
    if array.ndim == 3 and len(array) == 1:
        array = array[0]
    if array.ndim != 2 or not array.size:
        raise MetricError(f"{what} must be (height, width), got {array.shape}")
    return array


def as_scores(values: Any) -> np.ndarray:
    """A map as float32 ``(H, W)``.

    Raises:
        MetricError: if a score is NaN or infinite, or not exactly a float32.
    """
    given = as_plane(values, "map")
    if given.dtype.kind not in "fiub":
        raise MetricError(f"map must hold real numbers, got {given.dtype}")
    with np.errstate(over="ignore"):
        scores = given.astype(np.float32, copy=False)
    if not np.isfinite(scores).all():
        bad = int(np.count_nonzero(~np.isfinite(given)))
        if bad:
            raise MetricError(f"map holds {bad} NaN or infinite scores; no metric is defined")
        raise MetricError("map holds scores beyond the range of float32")
    if given.dtype.itemsize > 2 and given.dtype != np.float32 and not (scores == given).all():
        raise MetricError(
            f"{given.dtype} scores would be rounded to float32, which can make unequal scores "
            "equal; round them yourself with map.astype(numpy.float32) if that is meant"
        )
    return scores


def as_mask(values: Any, shape: tuple[int, ...], what: str = "mask") -> np.ndarray:
    """A mask as boolean ``(H, W)``.

    Raises:
        MetricError: if it has another shape than the map, or values between black and white.
    """
    given = as_plane(values, what)
    if given.shape != shape:
        raise MetricError(
            f"{what} is {given.shape[0]} x {given.shape[1]}, map {shape[0]} x {shape[1]}; "
            "resize one of them by a rule that you name"
        )
    mask = given != 0
    if given.dtype != bool and not np.isin(given[mask], (given.dtype.type(1), 255)).all():
        raise MetricError(
            f"{what} holds values other than 0 and 1 (or 0 and 255): binarise it by a rule that "
            "you name"
        )
    return mask


def split(map: Any, mask: Any = None, valid: Any = None, fill_holes: bool = False) -> Pixels:
    """Split a map by its mask; regions are the mask's 8-connected components.

    Args:
        map: ``(H, W)`` anomaly scores.
        mask: ``(H, W)`` defective pixels (True, 1 or 255); None for an image without defects.
        valid: ``(H, W)`` pixels that count; the others are left out everywhere, and the area of
            a region is what of it counts. None: all count.
        fill_holes: whether to collect the pixels in the holes of regions.

    Raises:
        MetricError: if shapes differ, or scores or masks are not usable.
    """
    scores = as_scores(map)
    counted = None if valid is None else as_mask(valid, scores.shape, "valid")
    defect = None if mask is None else as_mask(mask, scores.shape)
    if defect is None or not defect.any():
        return Pixels(scores.ravel() if counted is None else scores[counted])
    # Components are sought inside the upright rectangle around all defects.
    rows, columns = np.flatnonzero(defect.any(1)), np.flatnonzero(defect.any(0))
    window = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    labels, _ = ndimage.label(defect[window], _EIGHT)
    counted_there = None if counted is None else counted[window]
    inside = labels > 0 if counted_there is None else (labels > 0) & counted_there
    region = labels[inside]
    area = np.bincount(region)
    outside = ~defect if counted is None else ~defect & counted
    return Pixels(
        scores[outside],
        scores[window][inside],
        area[region],
        int(np.count_nonzero(area)),
        *(_holes(labels, scores[window], counted_there, area) if fill_holes else ()),
    )


def _holes(
    labels: np.ndarray, scores: np.ndarray, counted: np.ndarray | None, area: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    found, areas = [NO_SCORES], [NO_AREAS]
    for number, box in enumerate(ndimage.find_objects(labels), start=1):
        if number >= len(area) or not area[number]:
            continue  # nothing of the region counts
        region = labels[box] == number
        # The background inside is 4-connected where the region is 8-connected, and vice versa;
        # the reference fills with the full structure.
        hole = ndimage.binary_fill_holes(region, _EIGHT) & ~region
        if counted is not None:
            hole &= counted[box]
        inside = scores[box][hole]
        found.append(inside)
        areas.append(np.full(len(inside), area[number]))
    return np.concatenate(found), np.concatenate(areas)

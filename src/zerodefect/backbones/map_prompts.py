"""From parts of an anomaly map to prompts for a segmenter: boxes and peaks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage

from zerodefect.backbones.segmenter import Prompts


@dataclass(frozen=True)
class MapPart:
    """A connected part of a map, cut out of it.

    Attributes:
        rows, columns: where it lies.
        mask: ``(h, w)`` bool within these.
    """

    rows: slice
    columns: slice
    mask: np.ndarray


def parts_above(map: np.ndarray, limit: float, least: float = 1) -> list[MapPart]:
    """Parts of ``(H, W)`` above a limit, connected by edges or corners, of ``least`` pixels."""
    labels, _ = ndimage.label(map > limit, structure=np.ones((3, 3), bool))
    found = [
        MapPart(rows, columns, labels[rows, columns] == number)
        for number, (rows, columns) in enumerate(ndimage.find_objects(labels), start=1)
    ]
    return [part for part in found if np.count_nonzero(part.mask) >= least]


def peaks(values: np.ndarray, mask: np.ndarray, most: int, apart: float) -> list[tuple[int, int]]:
    """Rows and columns of the highest pixel of ``(h, w)`` in a mask, and of further local maxima.

    Args:
        values: of a map.
        mask: where they lie; not empty.
        most: peaks at most.
        apart: pixels that lie between any two of them, at least.
    """
    inside = np.where(mask, values, -np.inf)
    highest = np.isfinite(inside) & (inside == ndimage.maximum_filter(inside, 3))
    places = np.argwhere(highest)
    order = np.argsort(-inside[highest], kind="stable")
    taken: list[np.ndarray] = []
    for place in places[order]:
        if all(np.hypot(*(place - other)) >= apart for other in taken):
            taken.append(place)
        if len(taken) == most:
            break
    return [(int(row), int(column)) for row, column in taken]


def prompts_from(
    map: np.ndarray, parts: Sequence[MapPart], *, most: int = 5, apart: float = 0.05
) -> Prompts:
    """A prompt for each part: its box and its peaks, all of which are on it.

    Args:
        map: ``(H, W)``.
        parts: of it, one or more.
        most: peaks of a part, at most.
        apart: distance between two peaks, at least, as a share of the map's diagonal.
    """
    height, width = map.shape
    boxes, points = [], []
    for part in parts:
        top, left = part.rows.start, part.columns.start
        boxes.append([left / width, top / height, part.columns.stop / width])
        boxes[-1].append(part.rows.stop / height)
        gap = apart * float(np.hypot(height, width))
        found = peaks(map[part.rows, part.columns], part.mask, most, gap)
        points.append([((x + left + 0.5) / width, (y + top + 0.5) / height) for y, x in found])
    longest = max(len(each) for each in points)
    padded = [each + [(0.0, 0.0)] * (longest - len(each)) for each in points]
    labels = [[1] * len(each) + [-1] * (longest - len(each)) for each in points]
    return Prompts(torch.tensor(boxes), torch.tensor(padded), torch.tensor(labels))

"""Saturated per-region overlap of MVTec LOCO, streaming and exact.

Bergmann et al., Beyond Dents and Scratches: Logical Constraints in Unsupervised Anomaly Detection
and Localization, IJCV 2022.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from zerodefect.evaluation.metrics.compute import compute
from zerodefect.evaluation.metrics.regions import as_mask, as_scores, saturated_split
from zerodefect.evaluation.metrics.results import Metric, MetricError, Query, average
from zerodefect.evaluation.metrics.store import (
    MEMORY_LIMIT,
    PixelStore,
    load_stores,
    read_header,
    source_of,
    write_folder,
)

_KIND = "spro"
_GOOD = "good"


@dataclass(frozen=True)
class Saturation:
    """How much of a kind of defect must be found for full credit.

    Attributes:
        threshold: pixels, or share of the defect's area if ``relative``.
        relative: which of the two.
    """

    threshold: float
    relative: bool = False

    def area(self, region: int) -> int:
        """Saturation area in pixels of a region of an area in pixels.

        Raises:
            MetricError: if it is below one pixel, where the overlap would divide by zero.
        """
        area = int(self.threshold * region) if self.relative else int(min(self.threshold, region))
        if area < 1:
            raise MetricError(f"{self} gives a region of {region} pixels no saturation area")
        return area


def saturated_overlap(
    map: Any, region: Any, saturation: Saturation, thresholds: Sequence[float]
) -> np.ndarray:
    """Overlap ``min(hits / saturation area, 1)`` of one region at thresholds, ``score > t``.

    Args:
        map: ``(H, W)`` anomaly scores.
        region: ``(H, W)`` pixels of one annotated defect, at least one.
        saturation: of the defect's kind.
        thresholds: ``(T,)``.

    Returns:
        ``(T,)`` float64 in [0, 1].

    Raises:
        MetricError: as :func:`zerodefect.evaluation.metrics.pixel_metrics`.
    """
    scores = as_scores(map)
    inside = np.sort(scores[as_mask(region, scores.shape, "region")])
    hits = len(inside) - np.searchsorted(inside, np.asarray(thresholds, np.float64), "right")
    return np.minimum(hits / saturation.area(len(inside)), 1.0)


class SPROMetrics:
    """AU-sPRO per group of defects and their mean, each group with all good images.

    Every annotated defect (channel) is one region, connected or not. False positives are counted
    over pixels that no channel covers, of the group's and the good images. MVTec's script refines
    thresholds until neighbouring points are within 0.001; here every distinct score is one.

    Args:
        groups: names of the groups.
        mask_rule, memory_limit, spill_folder: as for :class:`PixelMetrics`.
    """

    def __init__(
        self,
        groups: Sequence[str] = ("logical_anomalies", "structural_anomalies"),
        *,
        mask_rule: str = "as given",
        memory_limit: int = MEMORY_LIMIT,
        spill_folder: str | Path | None = None,
    ) -> None:
        if _GOOD in groups or not groups or len(set(groups)) < len(groups):
            raise MetricError(f"groups must be distinct names other than {_GOOD!r}: {groups}")
        self.mask_rule = mask_rule
        share = memory_limit // (len(groups) + 1)
        self._stores = {name: PixelStore(share, spill_folder) for name in (_GOOD, *groups)}

    @property
    def groups(self) -> tuple[str, ...]:
        """Names of the groups."""
        return tuple(name for name in self._stores if name != _GOOD)

    def update(
        self,
        map: Any,
        channels: Sequence[tuple[Any, Saturation]] = (),
        group: str | None = None,
        valid: Any = None,
    ) -> None:
        """Take one image.

        Args:
            map: ``(H, W)`` anomaly scores.
            channels: mask ``(H, W)`` and saturation of every annotated defect; none for a good
                image.
            group: the group that the defects belong to; None for a good image.
            valid: ``(H, W)`` pixels that count, None for all.

        Raises:
            MetricError: for unusable scores or masks, an unknown group, or channels without group
                and the reverse. The state is unchanged.
            SpillError: if scores cannot be written.
        """
        if (group is None) != (not channels):
            raise MetricError("a defective image needs channels and a group, a good one neither")
        if group is not None and group not in self.groups:
            raise MetricError(f"unknown group {group!r}; known: {', '.join(self.groups)}")
        shape = as_scores(map).shape
        saturated = [
            (mask, kind.area(int(as_mask(mask, shape, "channel").sum()))) for mask, kind in channels
        ]
        self._stores[group or _GOOD].add(saturated_split(map, saturated, valid))

    def merge(self, other: SPROMetrics) -> None:
        """Add all images of another state, which stays as it is.

        Raises:
            MetricError: if it has other groups or another mask rule.
            SpillError: as for :meth:`update`.
        """
        if (other.groups, other.mask_rule) != (self.groups, self.mask_rule):
            raise MetricError("states with other groups or mask rules cannot be merged")
        for name, store in self._stores.items():
            store.absorb(other._stores[name])

    def compute(self, limits: Iterable[float] = (0.05,)) -> list[Metric]:
        """AU-sPRO up to each false-positive limit, divided by it: every group, then their mean.

        Raises:
            MetricError: for a limit outside (0, 1].
            SpillError: if spilled scores have vanished.
        """
        queries = [Query("spro", at=limit) for limit in limits]
        good = self._stores[_GOOD]
        found = [
            compute(source_of([good, self._stores[name]]), queries, "pixel", self.mask_rule, name)
            for name in self.groups
        ]
        return [
            metric for one in zip(*found, strict=True) for metric in (*one, average(one, "mean"))
        ]

    def save(self, folder: str | Path) -> None:
        """Save to a new folder, as :meth:`PixelMetrics.save`."""
        write_folder(folder, _KIND, self._stores, {"mask_rule": self.mask_rule})

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        memory_limit: int = MEMORY_LIMIT,
        spill_folder: str | Path | None = None,
    ) -> SPROMetrics:
        """Load a saved state, as :meth:`PixelMetrics.load`."""
        header = read_header(folder, _KIND)
        names = [name for name in header["stores"] if name != _GOOD]
        state = cls(names, mask_rule=str(header["facts"]["mask_rule"]), memory_limit=1)
        share = memory_limit // (len(names) + 1)
        state._stores = load_stores(header, folder, share, spill_folder)
        return state

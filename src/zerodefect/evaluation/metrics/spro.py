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

from zerodefect.evaluation.metrics.mask_regions import (
    NO_AREAS,
    NO_SCORES,
    Pixels,
    as_mask,
    as_scores,
)
from zerodefect.evaluation.metrics.metric_query import Metric, MetricError, Query, average
from zerodefect.evaluation.metrics.metric_values import compute
from zerodefect.evaluation.metrics.streaming_metrics import MEMORY_LIMIT, PixelMetrics

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


class SPROMetrics:
    """AU-sPRO per group of defects and their mean, each group with all good images.

    Every annotated defect (channel) is one region, connected or not. False positives are counted
    over pixels that no channel covers, of the group's and the good images. MVTec's script refines
    thresholds until neighbouring points are within 0.001; here every distinct score is one.

    Args:
        groups: names of the groups; each has one of ``states``, and the good images.
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
        self.mask_rule, self.groups = mask_rule, tuple(groups)
        share = memory_limit // (len(groups) + 1)
        self.states = {
            name: PixelMetrics(memory_limit=share, spill_folder=spill_folder)
            for name in (_GOOD, *groups)
        }

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
        self.states[group or _GOOD].add(_split(map, channels, valid))

    def compute(self, limits: Iterable[float] = (0.05,)) -> list[Metric]:
        """AU-sPRO up to each false-positive limit, divided by it: every group, then their mean.

        Raises:
            MetricError: for a limit outside (0, 1].
            SpillError: if spilled scores have vanished.
        """
        queries = [Query("spro", at=limit) for limit in limits]
        good, *others = self.states.values()
        found = [
            compute(good.ranked(state), queries, "pixel", self.mask_rule, name)
            for name, state in zip(self.groups, others, strict=True)
        ]
        return [metric for one in zip(*found, strict=True) for metric in (*one, average(one))]


def _split(map: Any, channels: Sequence[tuple[Any, Saturation]], valid: Any) -> Pixels:
    """Split a map by annotated defects, each one region.

    Only the highest scores of a region, as many as its saturation area has pixels, have a weight:
    their sum above a threshold is then ``min(hits / saturation area, 1)``.
    """
    scores = as_scores(map)
    whole = np.ones(scores.shape, bool)
    counted = whole if valid is None else as_mask(valid, scores.shape, "valid")
    outside = counted.copy()
    defective, areas = [NO_SCORES], [NO_AREAS]
    for mask, kind in channels:
        region = as_mask(mask, scores.shape, "channel")
        saturation = kind.area(int(region.sum()))
        region &= counted
        outside &= ~region
        inside = -np.sort(-scores[region])
        if len(inside):
            area = min(saturation, len(inside))
            defective.append(inside)
            areas.append(np.where(np.arange(len(inside)) < saturation, area, 0))
    regions = len(areas) - 1
    return Pixels(scores[outside], np.concatenate(defective), np.concatenate(areas), regions)

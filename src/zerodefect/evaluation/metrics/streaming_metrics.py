"""Metrics that are fed image by image and merge: of image scores, and exact ones of pixels."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from array import array
from collections.abc import Iterable
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from zerodefect.evaluation.metrics.mask_regions import Pixels, as_array, split
from zerodefect.evaluation.metrics.metric_query import (
    IMAGE_PANEL,
    PIXEL_PANEL,
    Level,
    Metric,
    MetricError,
    Query,
    SpillError,
)
from zerodefect.evaluation.metrics.metric_values import CurvePoints, compute, curve_points
from zerodefect.evaluation.metrics.ranked_scores import Blocks, Ranked, Totals
from zerodefect.evaluation.metrics.sorted_runs import (
    Run,
    SortedRuns,
    SpillFolder,
    merged,
    pack,
    unpack,
)

BLOCK = 1 << 19
"""Anomalous scores that are held in memory at a time."""

MEMORY_LIMIT = 256 << 20
"""Bytes that a state's buffers may take by default (256 MiB)."""

_LARGEST_AREA = (1 << 32) - 1


class MetricState(ABC):
    """Metrics over any number of images, fed one by one, by whatever way scores are kept.

    Attributes:
        level: whether images or pixels are ranked.
        mask_rule: name of the rule by which the caller resized and binarised the masks.
        fill_holes: whether the pixels in holes of regions are collected.
        images: number of images taken so far.
        regions: number of regions taken so far, of maps.
    """

    level: Level = "pixel"
    mask_rule: str | None = None
    fill_holes = False
    images = 0
    regions = 0

    @abstractmethod
    def _absorb(self, other: Any) -> None:
        """Keep the scores of another state."""

    @abstractmethod
    def ranked(self) -> Ranked:
        """Everything taken so far, as metrics ask for it."""

    @abstractmethod
    def _check(self, query: Query) -> None:
        """Raise :class:`MetricError` for a query that cannot be answered."""

    @property
    def totals(self) -> Totals:
        """Scores and regions taken so far."""
        return self.ranked().totals

    def merge(self, other: MetricState) -> None:
        """Add all images of another state, which stays as it is.

        Raises:
            MetricError: if it is this state itself, is kept otherwise, has another mask rule, or
                only one collects holes.
            SpillError: if scores cannot be written; the state then refuses to go on.
        """
        if other is self:
            raise MetricError("a state cannot be merged with itself: every image would count twice")
        if type(other) is not type(self):
            raise MetricError("exact and approximate states cannot be merged")
        if other.mask_rule != self.mask_rule:
            raise MetricError(
                f"masks were made by different rules: {self.mask_rule!r}, {other.mask_rule!r}"
            )
        if other.fill_holes != self.fill_holes:
            raise MetricError("only one of the states keeps the pixels in holes of regions")
        self._absorb(other)
        self.images += other.images
        self.regions += other.regions

    def compute(self, queries: Iterable[str | Query] | None = None) -> list[Metric]:
        """Compute metrics of everything taken so far; more images may follow.

        Args:
            queries: as described at :class:`Query`; by default the panel of the level.

        Raises:
            MetricError: for an unknown query, or one that this state cannot answer.
            SpillError: if spilled scores have vanished.
        """
        panel = IMAGE_PANEL if self.level == "image" else PIXEL_PANEL
        asked = [Query.parse(query) for query in (panel if queries is None else queries)]
        for query in asked:
            self._check(query)
        return compute(self.ranked(), asked, self.level, self.mask_rule)

    def curves(self) -> CurvePoints:
        """All vertices of the ROC, precision-recall and region-overlap curves, for drawing.

        Raises:
            MetricError: if there are no normal or no anomalous scores.
            SpillError: if spilled scores have vanished.
        """
        return curve_points(self.ranked(), self.level)


class ImageMetrics(MetricState):
    """Exact image metrics, fed score by score or batch by batch; 8 bytes per image are kept.

    The result is the same to the last bit however images were ordered or split over states.
    """

    level = "image"

    def __init__(self) -> None:
        self._anomalous, self._normal = array("d"), array("d")

    def update(self, score: Any, label: Any) -> None:
        """Take one image or a batch.

        Args:
            score: number or ``(B,)``, higher is more anomalous; taken as float64.
            label: bool or ``(B,)``, True or 1 for anomalous.

        Raises:
            MetricError: for NaN or infinite scores, labels other than 0 and 1, or different
                lengths. The state is unchanged.
        """
        scores = np.atleast_1d(as_array(score)).astype(np.float64)
        labels = np.atleast_1d(as_array(label))
        if scores.ndim != 1 or scores.shape != labels.shape:
            raise MetricError(f"scores {scores.shape} and labels {labels.shape} must be (B,) both")
        if not np.isfinite(scores).all():
            raise MetricError("image scores hold NaN or infinite values; no metric is defined")
        if not np.isin(labels, (0, 1)).all():
            raise MetricError("labels must be 0 (normal) or 1 (anomalous)")
        anomalous = labels.astype(bool)
        self._anomalous.extend(scores[anomalous])
        self._normal.extend(scores[~anomalous])
        self.images += len(scores)

    def _absorb(self, other: ImageMetrics) -> None:
        self._anomalous.extend(other._anomalous)
        self._normal.extend(other._normal)

    def _check(self, query: Query) -> None:
        if query.name in ("aupro", "spro"):
            raise MetricError(f"{query.name} ranks pixels; it is not defined for image scores")

    def ranked(self) -> Ranked:
        """All images; each anomalous one is a region of its own."""
        anomalous, normal = np.sort(np.asarray(self._anomalous)), np.sort(np.asarray(self._normal))
        both = np.concatenate((anomalous, normal, [] if self.images else [math.nan]))
        return Ranked(
            Totals(len(anomalous), len(normal), len(anomalous)),
            (float(both.min()), float(both.max())),
            [Run(normal)],
            lambda: iter([(anomalous[::-1], np.ones(len(anomalous)))]),
        )


def image_metrics(
    scores: Any, labels: Any, queries: Iterable[str | Query] = IMAGE_PANEL
) -> list[Metric]:
    """Image metrics of scores ``(N,)`` and labels ``(N,)``, 1 for anomalous.

    Raises:
        MetricError: as :meth:`ImageMetrics.update` and :meth:`ImageMetrics.compute`.
    """
    state = ImageMetrics()
    state.update(scores, labels)
    return state.compute(queries)


class PixelState(MetricState):
    """Pixel metrics over any number of maps, fed one by one."""

    @abstractmethod
    def _take(self, pixels: Pixels) -> None:
        """Keep the scores of one image."""

    def update(self, map: Any, mask: Any = None, valid: Any = None) -> None:
        """Take one image.

        Args:
            map: ``(H, W)`` anomaly scores, higher is more anomalous; array or tensor, any finite
                values that are exactly float32.
            mask: ``(H, W)`` defective pixels (True, 1 or 255); None for an image without defects.
            valid: ``(H, W)`` pixels that count; what lies outside counts nowhere. None: all.

        Raises:
            MetricError: for NaN or infinite scores, float64 scores that float32 cannot hold, or
                masks of another shape or not binary. The state is unchanged.
            SpillError: if scores cannot be written; the state then refuses to go on.
        """
        self.add(split(map, mask, valid, self.fill_holes))

    def add(self, pixels: Pixels) -> None:
        """Take one image that was split before; raises as :meth:`update`."""
        self._take(pixels)
        self.images += 1
        self.regions += pixels.regions


class PixelMetrics(PixelState):
    """Exact pixel metrics over any number of maps, fed one by one.

    Every score is kept, in memory up to a limit and beyond it as sorted files in a temporary
    folder, so the numbers are those of all pixels at once (scikit-learn, MVTec's scripts) whatever
    their number. The result is the same to the last bit however images were ordered or split over
    states that were merged. sPRO needs :class:`SPROMetrics`.

    Args:
        mask_rule: name of the rule by which the caller resized and binarised the masks; it is
            repeated in every result, as it moves pixel metrics by tenths of a point.
        fill_holes: collect what ``aupro:steps200_winclip`` needs.
        memory_limit: bytes for the buffers, 256 MiB unless given. Half goes to normal pixels (4
            bytes each), a quarter to defective ones (8 bytes), an eighth to holes if they are kept;
            computing needs the rest and about 50 MiB of its own.
        spill_folder: where a temporary folder for what exceeds the buffers is made; None for
            the system's. Disk needed: 4 bytes per normal and 8 per defective pixel.
    """

    def __init__(
        self,
        *,
        mask_rule: str = "as given",
        fill_holes: bool = False,
        memory_limit: int = MEMORY_LIMIT,
        spill_folder: str | Path | None = None,
    ) -> None:
        self.mask_rule, self.fill_holes = mask_rule, fill_holes
        folder = SpillFolder(spill_folder)
        self.normal = SortedRuns(np.float32, memory_limit // 8, folder)
        self.defective = SortedRuns(np.uint64, memory_limit // 32, folder)
        self.holes = SortedRuns(np.uint64, memory_limit // 64 if fill_holes else 1, folder)
        self.low, self.high = math.inf, -math.inf
        self._broken = False

    def __getstate__(self) -> dict[str, Any]:
        raise TypeError("a state of exact pixel metrics stays in its process: it is not pickled")

    def _take(self, pixels: Pixels) -> None:
        self._check_whole()
        if len(pixels.areas) and pixels.areas.max() > _LARGEST_AREA:
            raise MetricError("a region has more than 2^32 pixels")
        for scores in (pixels.normal, pixels.defective):
            if len(scores):
                self.low = min(self.low, float(scores.min()))
                self.high = max(self.high, float(scores.max()))
        self._broken = True  # until everything is in
        self.normal.append(pixels.normal)
        self.defective.append(pack(pixels.defective, pixels.areas))
        self.holes.append(pack(pixels.holes, pixels.hole_areas))
        self._broken = False

    def _absorb(self, other: PixelMetrics) -> None:
        self._check_whole()
        other._check_whole()
        self._broken = True
        self.normal.absorb(other.normal)
        self.defective.absorb(other.defective)
        self.holes.absorb(other.holes)
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)
        self._broken = False

    def ranked(self, *others: PixelMetrics) -> Ranked:
        """All pixels, those of other states among them, without copying them."""
        states = (self, *others)
        for state in states:
            state._check_whole()

        def blocks(kept: Iterable[SortedRuns]) -> Blocks:
            runs = [run for one in kept for run in one.runs()]
            return lambda: map(unpack, merged(runs, BLOCK))

        return Ranked(
            Totals(
                sum(len(state.defective) for state in states),
                sum(len(state.normal) for state in states),
                sum(state.regions for state in states),
            ),
            # Adding zero turns a negative zero into zero.
            (min(state.low for state in states) + 0.0, max(state.high for state in states) + 0.0),
            [run for state in states for run in state.normal.runs()],
            blocks(state.defective for state in states),
            blocks(state.holes for state in states),
        )

    def _check(self, query: Query) -> None:
        if query.name == "spro":
            raise MetricError("spro needs saturation areas: use SPROMetrics")
        if query.variant == "steps200_winclip" and not self.fill_holes:
            raise MetricError(f"{query} needs PixelMetrics(fill_holes=True)")

    def _check_whole(self) -> None:
        if self._broken:
            raise SpillError("spilling failed before, so that scores are missing; start over")


def pixel_metrics(
    maps: Iterable[Any],
    masks: Iterable[Any],
    queries: Iterable[str | Query] = PIXEL_PANEL,
    **options: Any,
) -> list[Metric]:
    """Pixel metrics of maps and masks of equal number, each pair ``(H, W)`` of any size.

    ``options`` are those of :class:`PixelMetrics`; a mask may be None for an image without defects.

    Raises:
        MetricError, SpillError: as :meth:`PixelMetrics.update` and :meth:`PixelMetrics.compute`.
    """
    asked = [Query.parse(query) for query in queries]
    options.setdefault("fill_holes", any(q.variant == "steps200_winclip" for q in asked))
    state, missing = PixelMetrics(**options), object()
    for map, mask in zip_longest(maps, masks, fillvalue=missing):
        if map is missing or mask is missing:
            raise MetricError("maps and masks differ in number")
        state.update(map, mask)
    return state.compute(asked)

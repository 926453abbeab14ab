"""Pixel metrics from a histogram: constant memory, and a bound on the error beside every value."""

from __future__ import annotations

import math

import numpy as np

from zerodefect.evaluation.metrics.mask_regions import Pixels
from zerodefect.evaluation.metrics.metric_query import PIXEL_PANEL, VARIANTS, MetricError, Query
from zerodefect.evaluation.metrics.ranked_scores import Ranked, Steps, Totals
from zerodefect.evaluation.metrics.sorted_runs import order_key, score_of
from zerodefect.evaluation.metrics.streaming_metrics import PixelState

# Weights are whole multiples of 2^-40, so that sums do not depend on the order of addition.
_UNIT = 1 << 40
_MOST_REGIONS = 1 << 22
# No two float32 scores differ by less than the inverse.
_MOST_BINS_PER_UNIT = 2.0**149
# Places of minus and plus infinity where bins are float32 numbers.
_KEYS = order_key(np.array([-np.inf, np.inf], np.float32))


class HistogramPixelMetrics(PixelState):
    """Pixel metrics in memory that does not grow, within a bound that every result states.

    Scores of one bin count as equal; a ``threshold`` is the lower edge of a bin. Only the default
    variants of the pixel panel can be bounded.

    Bins are joined two by two whenever a score lies outside, until all lie inside: the range need
    not be known before, and the final bins depend on the lowest and the highest score alone.

    Args:
        low, high: range of the scores that the bins divide evenly to begin with. Without it a bin
            begins as a single float32 number, and ends as the same share of every power of two,
            which suits probabilities near zero and long tails as well.
        bins: number of bins; 24 bytes each.
        mask_rule: as for :class:`PixelMetrics`.

    Raises:
        MetricError: unless ``low < high``, both finite, and there is a bin.
    """

    def __init__(
        self,
        low: float | None = None,
        high: float | None = None,
        *,
        bins: int = 1 << 20,
        mask_rule: str = "as given",
    ) -> None:
        self.mask_rule = mask_rule
        self._even = _even_bins(low, high, bins)
        # Places of the lowest and the highest score, counted in bins that were never joined.
        self._range = math.inf, -math.inf
        self._joined = 0  # how often bins were joined
        self._first = 0.0  # place of the first bin, counted in bins as they are now
        # Rows: normal pixels, defective pixels, weight of the defective ones in units.
        self._counts = np.zeros((3, bins + 2), np.int64)

    def _take(self, pixels: Pixels) -> None:
        self._check_regions(pixels.regions)
        normal, defective = self._places(pixels.normal), self._places(pixels.defective)
        for places in (normal, defective):
            if len(places):
                self._make_room(float(places.min()), float(places.max()))
        bins = self._counts.shape[1]
        self._counts[0] += np.bincount(self._bin(normal), minlength=bins)
        where = self._bin(defective)
        self._counts[1] += np.bincount(where, minlength=bins)
        weights = np.rint(_UNIT / np.maximum(pixels.areas, 1)).astype(np.int64)
        np.add.at(self._counts[2], where, weights)

    def _absorb(self, other: HistogramPixelMetrics) -> None:
        grid, others = ((h._even, h._counts.shape[1] - 2) for h in (self, other))
        if grid != others:
            raise MetricError(f"histograms differ in (low, bins per unit), bins: {grid}, {others}")
        self._check_regions(other.regions)
        self._make_room(*other._range)
        self._pour(other._counts, other._first, other._joined)

    def _check_regions(self, more: int) -> None:
        if self.regions + more > _MOST_REGIONS:
            raise MetricError(f"a histogram holds at most {_MOST_REGIONS} regions")

    def _places(self, scores: np.ndarray) -> np.ndarray:
        """Float64 places, ascending as the float32 scores, counted in bins that were not joined."""
        if self._even is None:
            return order_key(scores + np.float32(0)).astype(np.float64)
        low, scale = self._even
        return (scores.astype(np.float64) - low) * scale

    def _edges(self, bins: np.ndarray) -> np.ndarray:
        """Lower edges of bins, which are counted as ``_first`` is."""
        places = np.ldexp(bins, self._joined)
        if self._even is None:
            return score_of(np.clip(places, *_KEYS).astype(np.uint32))
        low, scale = self._even
        return low + places / scale

    def _bin(self, places: np.ndarray) -> np.ndarray:
        return (np.floor(np.ldexp(places, -self._joined)) - self._first).astype(np.int64)

    def _make_room(self, lowest: float, highest: float) -> None:
        """Join bins until the present scores and these places have one each."""
        low, high = self._range = min(self._range[0], lowest), max(self._range[1], highest)
        if low > high:
            return  # still empty
        counts, first, joined = self._counts, self._first, self._joined
        bins = counts.shape[1]
        while self._cell(high) - self._cell(low) >= bins:
            self._joined += 1
        self._first = self._cell(low)
        if (self._first, self._joined) != (first, joined):
            self._counts = np.zeros_like(counts)
            self._pour(counts, first, joined)

    def _cell(self, place: float) -> float:
        # A float: places of equal large scores exceed whole numbers of 64 bits, but are exact.
        return float(np.floor(math.ldexp(place, -self._joined)))

    def _pour(self, counts: np.ndarray, first: float, joined: int) -> None:
        """Add the counts of bins that were joined less often, or as often."""
        filled = np.flatnonzero(counts.any(0))
        where = self._bin(np.ldexp(first + filled, joined))
        for own, row in zip(self._counts, counts, strict=True):
            np.add.at(own, where, row[filled])

    def ranked(self) -> Ranked:
        """All bins that hold anomalous scores."""
        normal, defective, weight = (row[::-1] for row in self._counts)
        there = defective > 0
        fp = np.cumsum(normal)
        edges = self._edges(self._first + np.arange(len(fp)))[::-1]
        steps = Steps(
            edges[there],
            defective[there],
            np.cumsum(defective)[there],
            (fp - normal)[there],
            fp[there],
            np.cumsum(weight)[there] / _UNIT,
        )
        low, high = self._edges(np.array([self._cell(place) for place in self._range]))
        totals = Totals(int(defective.sum()), int(normal.sum()), self.regions)
        return Ranked(totals, (float(low), float(high)), bins=steps)

    def _check(self, query: Query) -> None:
        if query.name not in PIXEL_PANEL or query.variant != VARIANTS[query.name][0]:
            raise MetricError(
                f"{query} cannot be bounded from a histogram: it needs exact pixel metrics"
            )


def _even_bins(low: float | None, high: float | None, bins: int) -> tuple[float, float] | None:
    """The lower end and the bins per unit; None where bins are float32 numbers."""
    if bins >= 1 and low is None and high is None:
        return None
    if bins >= 1 and low is not None and high is not None:
        scale = bins / (high - low) if high > low else math.inf
        if math.isfinite(low) and 0 < scale <= _MOST_BINS_PER_UNIT:
            return float(low), scale
    raise MetricError(f"no histogram of {bins} bins from {low} to {high}")

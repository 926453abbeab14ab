"""Pixel metrics from a histogram: constant memory, and a bound on the error beside every value.

Scores of one bin count as equal. Whatever their true order, every curve stays inside the rectangle
that a bin spans between the exact vertices before and after it; the bounds follow from that alone.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from zerodefect.evaluation.metrics.compute import compute
from zerodefect.evaluation.metrics.curves import Steps, Totals
from zerodefect.evaluation.metrics.regions import split
from zerodefect.evaluation.metrics.results import (
    PIXEL_PANEL,
    Metric,
    MetricError,
    Query,
    SpillError,
)

_FORMAT = "zerodefect-histogram"
# Weights are whole multiples of 2^-40, so that sums do not depend on the order of addition.
_UNIT = 1 << 40
_MOST_REGIONS = 1 << 22


class HistogramPixelMetrics:
    """Pixel metrics in memory that does not grow, within a bound that every result states.

    Args:
        low, high: range of the scores that the bins divide evenly. Scores outside fall into one
            bin below and one above; nothing is refused, but the bound grows with them.
        bins: number of bins; 24 bytes each.
        mask_rule: as for :class:`PixelMetrics`.

    Raises:
        MetricError: unless ``low < high``, both finite, and there is a bin.
    """

    def __init__(
        self, low: float, high: float, *, bins: int = 65536, mask_rule: str = "as given"
    ) -> None:
        if not (math.isfinite(low) and math.isfinite(high) and low < high and bins >= 1):
            raise MetricError(f"no histogram of {bins} bins from {low} to {high}")
        self.low, self.high, self.bins, self.mask_rule = float(low), float(high), bins, mask_rule
        self.images = 0
        self.regions = 0
        # Rows: normal pixels, defective pixels, weight of the defective ones in units.
        self._counts = np.zeros((3, bins + 2), np.int64)

    @property
    def totals(self) -> Totals:
        """Pixels and regions taken so far."""
        return Totals(int(self._counts[1].sum()), int(self._counts[0].sum()), self.regions)

    def update(self, map: Any, mask: Any = None, valid: Any = None) -> None:
        """Take one image, as :meth:`PixelMetrics.update`.

        Raises:
            MetricError: for unusable scores or masks, or after more than four million regions.
        """
        pixels = split(map, mask, valid)
        if self.regions + pixels.regions > _MOST_REGIONS:
            raise MetricError(f"a histogram holds at most {_MOST_REGIONS} regions")
        normal, defective, weight = self._counts
        normal += np.bincount(self._bin(pixels.normal), minlength=self.bins + 2)
        where = self._bin(pixels.defective)
        defective += np.bincount(where, minlength=self.bins + 2)
        np.add.at(weight, where, np.rint(_UNIT / np.maximum(pixels.areas, 1)).astype(np.int64))
        self.images += 1
        self.regions += pixels.regions

    def _bin(self, scores: np.ndarray) -> np.ndarray:
        place = (scores.astype(np.float64) - self.low) * (self.bins / (self.high - self.low))
        return (np.floor(np.clip(place, -1, self.bins)) + 1).astype(np.int64)

    def merge(self, other: HistogramPixelMetrics) -> None:
        """Add all images of another state, which stays as it is.

        Raises:
            MetricError: if its bins or its mask rule differ.
        """
        if other is self:
            raise MetricError("a state cannot be merged with itself: every image would count twice")
        if self._facts() != other._facts():
            raise MetricError(f"histograms differ: {self._facts()}, {other._facts()}")
        if self.regions + other.regions > _MOST_REGIONS:
            raise MetricError(f"a histogram holds at most {_MOST_REGIONS} regions")
        self._counts += other._counts
        self.images += other.images
        self.regions += other.regions

    def compute(self, queries: Iterable[str | Query] = PIXEL_PANEL) -> list[Metric]:
        """Compute metrics with ``error_bound``: the exact value is within it of ``value``.

        A ``threshold`` is the lower edge of a bin. Only exact variants and ``ap`` by the step rule
        can be bounded.

        Raises:
            MetricError: for other queries.
        """
        asked = [Query.parse(query) for query in queries]
        for query in asked:
            if (query.name, query.variant) not in _BOUNDS:
                raise MetricError(f"{query} cannot be bounded from a histogram: use PixelMetrics")
        source = _HistogramSource(self._steps(), self.totals)
        metrics = compute(cast(Any, source), asked, "pixel", self.mask_rule)
        return [
            m if m.reason else replace(m, error_bound=self._bound(query, source, m.value))
            for query, m in zip(asked, metrics, strict=True)
        ]

    def _bound(self, query: Query, source: _HistogramSource, value: float) -> float:
        bound = _BOUNDS[query.name, query.variant](source.block, source.totals, query, value)
        # The rounding of weights to units, and that of the sums in floating point.
        rounding = 2.0**-41 * source.totals.positives / source.totals.regions
        return bound + (rounding if query.name == "aupro" else 0.0) + 1e-12

    def _steps(self) -> Steps:
        normal, defective, weight = (row[::-1] for row in self._counts)
        there = defective > 0
        fp = np.cumsum(normal)
        edges = np.concatenate(([-np.inf], np.linspace(self.low, self.high, self.bins + 1)))
        return Steps(
            edges[::-1][there],
            np.cumsum(defective)[there],
            (fp - normal)[there],
            fp[there],
            np.cumsum(weight)[there] / _UNIT,
        )

    def _facts(self) -> dict[str, Any]:
        return {
            "low": self.low,
            "high": self.high,
            "bins": self.bins,
            "mask_rule": self.mask_rule,
        }

    def save(self, path: str | Path) -> None:
        """Save as a NumPy archive without pickled objects.

        Raises:
            SpillError: if the file cannot be written.
        """
        header = {"format": _FORMAT, "version": 1, "facts": self._facts()}
        header |= {"images": self.images, "regions": self.regions}
        try:
            with Path(path).open("wb") as file:
                np.savez_compressed(file, counts=self._counts, header=np.array(json.dumps(header)))
        except OSError as error:
            raise SpillError(f"cannot save a state to {path}: {error.strerror}") from error

    @classmethod
    def load(cls, path: str | Path) -> HistogramPixelMetrics:
        """Load a saved state.

        Raises:
            MetricError: if the file is not one.
        """
        try:
            with np.load(path, allow_pickle=False) as archive:
                header, counts = json.loads(str(archive["header"])), archive["counts"]
            if (header["format"], header["version"]) != (_FORMAT, 1):
                raise MetricError(f"{path}: not a saved histogram, version 1")
            state = cls(**header["facts"])
            if counts.shape != state._counts.shape or counts.dtype != np.int64:
                raise MetricError(f"{path}: counts do not fit the bins")
        except MetricError:
            raise
        except Exception as error:  # the archive reader raises errors of many kinds
            raise MetricError(f"{path} holds no saved state: {error!r}") from error
        state._counts = counts
        state.images, state.regions = int(header["images"]), int(header["regions"])
        return state


class _HistogramSource:
    """The part of :class:`~zerodefect.evaluation.metrics.source.Source` that exact curves need."""

    def __init__(self, block: Steps, totals: Totals) -> None:
        self.block = block
        self.totals = totals

    def steps(self) -> Iterable[Steps]:
        yield self.block


def _auroc_bound(steps: Steps, totals: Totals, query: Query, value: float) -> float:
    """Pairs within a bin count one half each and may count 0 or 1."""
    pairs = float((steps.positives * (steps.fp - steps.fp_before).astype(float)).sum())
    return pairs / (2.0 * totals.positives * totals.negatives)


def _ap_bound(steps: Steps, totals: Totals, query: Query, value: float) -> float:
    """Precision at a score of a bin is highest with all of it found and no false positive of it."""
    highest = steps.tp / (steps.tp + steps.fp_before)
    # Lowest with all false positives first. Precision is concave in the number found, so its mean
    # over the bin is at least that of its ends.
    first = (steps.tp_before + 1) / (steps.tp_before + 1 + steps.fp)
    lowest = (first + steps.tp / (steps.tp + steps.fp)) / 2
    upper = float((steps.positives * highest).sum()) / totals.positives
    lower = float((steps.positives * lowest).sum()) / totals.positives
    return max(upper - value, value - lower)


def _f1_bound(steps: Steps, totals: Totals, query: Query, value: float) -> float:
    """The edges of bins are thresholds, so the maximum is at least ``value``."""
    upper = 2 * steps.tp / (steps.tp + steps.fp_before + totals.positives)
    return float(upper.max()) - value


def _fpr_bound(steps: Steps, totals: Totals, query: Query, value: float) -> float:
    """The threshold lies in the bin whose false positives were all counted."""
    index = int(np.searchsorted(steps.fp, round(value * totals.negatives)))
    return float(np.max((steps.fp - steps.fp_before)[index:][:1], initial=0)) / totals.negatives


def _aupro_bound(steps: Steps, totals: Totals, query: Query, value: float) -> float:
    """A rising curve inside a rectangle is off the diagonal by at most half of it, if not cut."""
    limit = query.limit * totals.negatives
    width = np.minimum(steps.fp, limit) - np.minimum(steps.fp_before, limit)
    # At the limit the rectangle is cut, and the curve may lie anywhere in what is left.
    share = np.where(steps.fp > limit, 1.0, 0.5)
    area = float((share * width * (steps.overlap - steps.overlap_before)).sum())
    return area / (limit * totals.regions)


_Bound = Callable[[Steps, Totals, Query, float], float]
_BOUNDS: dict[tuple[str, str], _Bound] = {
    ("auroc", "exact"): _auroc_bound,
    ("ap", "step"): _ap_bound,
    ("f1max", "exact"): _f1_bound,
    ("fpr_at_miss", "exact"): _fpr_bound,
    ("aupro", "exact"): _aupro_bound,
}

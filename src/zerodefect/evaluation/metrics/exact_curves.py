"""Exact curves from ranks: every metric needs only, for each distinct anomalous score, how many
normal scores are above it and how many equal it.

Between two neighbouring anomalous scores only false positives grow, so that all vertices there lie
on one straight piece. The normal scores are sorted, never paired with labels or carried along.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from zerodefect.evaluation.metrics.metric_query import Level, MetricError
from zerodefect.evaluation.metrics.ranked_scores import Ranked, Steps, Totals, running_sum


class Answer(NamedTuple):
    """Value of a metric, the score at which it is reached, and why the value is NaN."""

    value: float
    threshold: float | None = None
    reason: str | None = None


class Curve:
    """Takes the blocks of :class:`Steps` in turn and then knows one metric.

    Args:
        totals: of the set; neither kind of score is missing.
        at: false-positive limit or miss rate, for the metrics that have one.
    """

    def __init__(self, totals: Totals, at: float) -> None:
        self.totals = totals
        self.at = at

    def add(self, steps: Steps) -> None:
        """Take the next block."""
        raise NotImplementedError

    def answer(self) -> Answer:
        """The metric, after the last block."""
        raise NotImplementedError


class AreaUnderROC(Curve):
    """P(anomalous > normal) + P(equal) / 2, from whole numbers, so without rounding until the end.

    Equals the trapezoid area under the ROC curve over all distinct thresholds.
    """

    _half_wins = 0

    def add(self, steps: Steps) -> None:
        """Count pairs: two for every normal score below an anomalous one, one for every equal."""
        half_wins = 2 * self.totals.negatives - steps.fp - steps.fp_before
        self._half_wins += exact_dot(steps.positives, half_wins)

    def answer(self) -> Answer:
        """Area in [0, 1]."""
        return Answer(self._half_wins / (2 * self.totals.positives * self.totals.negatives))


class AveragePrecision(Curve):
    """Sum over distinct thresholds of (R_i - R_{i-1}) P_i, the step rule of scikit-learn."""

    _sum = 0.0

    def add(self, steps: Steps) -> None:
        """Add precision times the anomalous scores found at each threshold."""
        self._sum = float(running_sum(self._sum, self.terms(steps))[-1])

    def terms(self, steps: Steps) -> np.ndarray:
        """Area of each step times the number of anomalous scores."""
        return steps.positives * (steps.tp / (steps.tp + steps.fp))

    def answer(self) -> Answer:
        """Area in [0, 1]."""
        return Answer(self._sum / self.totals.positives)


class TrapezoidPrecisionRecall(AveragePrecision):
    """Area under the linearly joined precision-recall curve that starts at (0, 1)."""

    def terms(self, steps: Steps) -> np.ndarray:
        """Area of each trapezoid times the number of anomalous scores."""
        before = _precision(steps.tp_before, steps.fp_before)
        return steps.positives * (before + steps.tp / (steps.tp + steps.fp)) / 2


class MaximumF1(Curve):
    """Maximum of 2PR / (P + R) over distinct thresholds, and the lowest score that reaches it."""

    _best = Answer(-1.0)

    def add(self, steps: Steps) -> None:
        """Take the best of the block, the lowest threshold among equals."""
        f1 = 2 * steps.tp / (steps.tp + steps.fp + self.totals.positives)
        last = len(f1) - 1 - int(np.argmax(f1[::-1]))
        if f1[last] >= self._best.value:
            self._best = Answer(float(f1[last]), float(steps.score[last]))

    def answer(self) -> Answer:
        """F1 in (0, 1]; scores at or above the threshold are called anomalous."""
        return self._best


class FalsePositivesAtMiss(Curve):
    """False-positive rate at the highest threshold that misses at most a share of the anomalous.

    No interpolation: ``floor(at * positives)`` anomalous scores may be missed.
    """

    _found: Answer | None = None

    def add(self, steps: Steps) -> None:
        """Look for the first threshold that finds enough."""
        positives, negatives = self.totals.positives, self.totals.negatives
        # A product such as 0.07 * 100 falls short of the whole number by rounding.
        needed = max(positives - math.floor(self.at * positives + 1e-9), 1)
        index = int(np.searchsorted(steps.tp, needed))
        if self._found is None and index < len(steps.tp):
            self._found = Answer(int(steps.fp[index]) / negatives, float(steps.score[index]))

    def answer(self) -> Answer:
        """Rate in [0, 1]; scores at or above the threshold are called anomalous."""
        return self._found or Answer(math.nan)


class RegionOverlap(Curve):
    """Exact area under the per-region overlap curve up to a false-positive rate, divided by it.

    Overlap is the mean over all regions of the share of a region that scores at least t; the curve
    starts at (0, 0), ends at (1, 1), is piecewise linear between the distinct scores and cut at the
    limit by interpolation (Bergmann et al., The MVTec Anomaly Detection Dataset, IJCV 2021).
    """

    def __init__(self, totals: Totals, at: float) -> None:
        super().__init__(totals, at)
        self._limit = at * totals.negatives
        self._area, self._fp, self._overlap = 0.0, 0, 0.0

    def add(self, steps: Steps) -> None:
        """Add, for each score, the flat piece before it and the slanted one of equal scores."""
        fp_last = np.concatenate(([steps.fp_start], steps.fp[:-1]))
        left, middle, right = (
            np.minimum(fp, self._limit) for fp in (fp_last, steps.fp_before, steps.fp)
        )
        flat = steps.overlap_before * (middle - left)
        width = steps.fp - steps.fp_before
        rise = steps.overlap - steps.overlap_before
        slope = np.divide(rise, width, out=np.zeros(len(width)), where=width > 0)
        cut = right - middle
        slanted = cut * (steps.overlap_before + slope * cut / 2)
        self._area = float(running_sum(self._area, flat + slanted)[-1])
        self._fp, self._overlap = int(steps.fp[-1]), float(steps.overlap[-1])

    def answer(self) -> Answer:
        """Area in [0, 1]."""
        rest = max(self._limit - self._fp, 0.0) * self._overlap
        return Answer((self._area + rest) / (self._limit * self.totals.regions))


CURVES: dict[tuple[str, str], type[Curve]] = {
    ("auroc", "exact"): AreaUnderROC,
    ("ap", "step"): AveragePrecision,
    ("ap", "trapezoid"): TrapezoidPrecisionRecall,
    ("f1max", "exact"): MaximumF1,
    ("fpr_at_miss", "exact"): FalsePositivesAtMiss,
    ("aupro", "exact"): RegionOverlap,
    ("aupro", "anomalib"): RegionOverlap,
    ("spro", "exact"): RegionOverlap,
}
"""Exact metrics by name and variant; the other variants sample thresholds."""


@dataclass(frozen=True)
class CurvePoints:
    """Exact points of the curves, from the highest threshold to the lowest.

    Attributes:
        threshold: ``(K,)`` scores; a score occurs twice where the curve has a vertex before it.
        fpr: ``(K,)`` share of normal samples that are called anomalous.
        tpr: ``(K,)`` share of anomalous samples that are, also called recall.
        precision: ``(K,)`` share of anomalous samples among those called anomalous; 1 for none.
        overlap: ``(K,)`` mean over regions of the share found; for images the same as ``tpr``.
    """

    threshold: np.ndarray
    fpr: np.ndarray
    tpr: np.ndarray
    precision: np.ndarray
    overlap: np.ndarray


def curve_points(ranked: Ranked, level: Level) -> CurvePoints:
    """All vertices of the curves.

    Raises:
        MetricError: if there are no normal or no anomalous scores.
    """
    totals = ranked.totals
    if reason := totals.why_undefined(level):
        raise MetricError(f"no curve: {reason}")
    blocks = list(ranked.steps())

    def column(before: str, after: str, first: float, last: float) -> np.ndarray:
        pairs = [np.stack((getattr(b, before), getattr(b, after)), 1).ravel() for b in blocks]
        return np.concatenate(([first], *pairs, [last]))

    low, high = ranked.range
    tp = column("tp_before", "tp", 0, totals.positives)
    fp = column("fp_before", "fp", 0, totals.negatives)
    return CurvePoints(
        column("score", "score", high, low),
        fp / totals.negatives,
        tp / totals.positives,
        _precision(tp, fp),
        column("overlap_before", "overlap", 0, totals.regions) / totals.regions,
    )


def _precision(tp: np.ndarray, fp: np.ndarray) -> np.ndarray:
    """Share of the found that is anomalous; 1 where nothing is found."""
    found = tp + fp
    return np.divide(tp, found, out=np.ones(len(found)), where=found > 0)


def exact_dot(a: np.ndarray, b: np.ndarray) -> int:
    """Sum of products of non-negative int64 numbers without overflow; ``sum(a)`` below 2^36."""
    low, high = b & ((1 << 26) - 1), b >> 26
    return int(a @ low) + (int(a @ high) << 26)

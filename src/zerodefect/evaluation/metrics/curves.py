"""Exact curves from ranks: every metric needs only, for each distinct anomalous score, how many
normal scores are above it and how many equal it.

Between two neighbouring anomalous scores only false positives grow, so that all vertices there lie
on one straight piece. The normal scores are sorted, never paired with labels or carried along.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np


@dataclass(frozen=True)
class Totals:
    """Size of the set that is ranked: anomalous and normal scores, and annotated regions."""

    positives: int
    negatives: int
    regions: int = 0


@dataclass(frozen=True)
class Steps:
    """Vertices of the curves at distinct anomalous scores, from high to low; a block of them.

    Attributes:
        score: ``(K,)`` distinct scores.
        tp: ``(K,)`` int64, anomalous scores at or above each.
        fp_before: ``(K,)`` int64, normal scores above each.
        fp: ``(K,)`` int64, normal scores at or above each.
        overlap: ``(K,)`` float64, sum over regions of the share at or above each.
        tp_start, fp_start, overlap_start: ``tp``, ``fp``, ``overlap`` at the end of the last block.
    """

    score: np.ndarray
    tp: np.ndarray
    fp_before: np.ndarray
    fp: np.ndarray
    overlap: np.ndarray
    tp_start: int = 0
    fp_start: int = 0
    overlap_start: float = 0.0

    @cached_property
    def tp_before(self) -> np.ndarray:
        """Anomalous scores above each."""
        return np.concatenate(([self.tp_start], self.tp[:-1]))

    @cached_property
    def overlap_before(self) -> np.ndarray:
        """Sum over regions of the share above each."""
        return np.concatenate(([self.overlap_start], self.overlap[:-1]))

    @property
    def positives(self) -> np.ndarray:
        """Anomalous scores that equal each."""
        return self.tp - self.tp_before


def running_sum(start: float, terms: np.ndarray) -> np.ndarray:
    """Sums of ``start`` and the first 0, 1, ... terms, added strictly one after the other.

    A sum over blocks that starts with the last block's is then the same however blocks were cut.
    """
    return np.cumsum(np.concatenate(([start], terms)))


def exact_dot(a: np.ndarray, b: np.ndarray) -> int:
    """Sum of products of non-negative int64 numbers without overflow; ``sum(a)`` below 2^36."""
    low, high = b & ((1 << 26) - 1), b >> 26
    return int(a @ low) + (int(a @ high) << 26)


class Curve:
    """Takes the blocks of :class:`Steps` in turn and then knows one metric.

    Attributes:
        value: the metric; complete after the last block.
        threshold: the score at which it is reached, where that makes sense.
    """

    def __init__(self, totals: Totals) -> None:
        self.totals = totals

    def add(self, steps: Steps) -> None:
        """Take the next block."""
        raise NotImplementedError

    @property
    def value(self) -> float:
        """The metric."""
        raise NotImplementedError

    @property
    def threshold(self) -> float | None:
        """Score at which the metric is reached, or None."""
        return None


class AreaUnderROC(Curve):
    """P(anomalous > normal) + P(equal) / 2, from whole numbers, so without rounding until the end.

    Equals the trapezoid area under the ROC curve over all distinct thresholds.
    """

    def __init__(self, totals: Totals) -> None:
        super().__init__(totals)
        self._half_wins = 0

    def add(self, steps: Steps) -> None:
        """Count pairs: two for every normal score below an anomalous one, one for every equal."""
        half_wins = 2 * self.totals.negatives - steps.fp - steps.fp_before
        self._half_wins += exact_dot(steps.positives, half_wins)

    @property
    def value(self) -> float:
        """Area in [0, 1]."""
        return self._half_wins / (2 * self.totals.positives * self.totals.negatives)


class AveragePrecision(Curve):
    """Sum over distinct thresholds of (R_i - R_{i-1}) P_i, the step rule of scikit-learn."""

    def __init__(self, totals: Totals) -> None:
        super().__init__(totals)
        self._sum = 0.0

    def add(self, steps: Steps) -> None:
        """Add precision times the anomalous scores found at each threshold."""
        self._sum = float(running_sum(self._sum, self.terms(steps))[-1])

    def terms(self, steps: Steps) -> np.ndarray:
        """Area of each step times the number of anomalous scores."""
        return steps.positives * (steps.tp / (steps.tp + steps.fp))

    @property
    def value(self) -> float:
        """Area in [0, 1]."""
        return self._sum / self.totals.positives


class TrapezoidPrecisionRecall(AveragePrecision):
    """Area under the linearly joined precision-recall curve that starts at (0, 1)."""

    def terms(self, steps: Steps) -> np.ndarray:
        """Area of each trapezoid times the number of anomalous scores."""
        flagged = steps.tp_before + steps.fp_before
        before = np.divide(steps.tp_before, flagged, out=np.ones(len(flagged)), where=flagged > 0)
        return steps.positives * (before + steps.tp / (steps.tp + steps.fp)) / 2


class MaximumF1(Curve):
    """Maximum of 2PR / (P + R) over distinct thresholds, and the lowest score that reaches it."""

    def __init__(self, totals: Totals) -> None:
        super().__init__(totals)
        self._best, self._threshold = -1.0, math.nan

    def add(self, steps: Steps) -> None:
        """Take the best of the block, the lowest threshold among equals."""
        f1 = 2 * steps.tp / (steps.tp + steps.fp + self.totals.positives)
        last = len(f1) - 1 - int(np.argmax(f1[::-1]))
        if f1[last] >= self._best:
            self._best, self._threshold = float(f1[last]), float(steps.score[last])

    @property
    def value(self) -> float:
        """F1 in (0, 1]."""
        return self._best

    @property
    def threshold(self) -> float:
        """Scores at or above this are called anomalous."""
        return self._threshold


class FalsePositivesAtMiss(Curve):
    """False-positive rate at the highest threshold that misses at most a share of the anomalous.

    No interpolation: ``floor(rate * positives)`` anomalous scores may be missed.
    """

    def __init__(self, totals: Totals, rate: float) -> None:
        super().__init__(totals)
        # A product such as 0.07 * 100 falls short of the whole number by rounding.
        self._needed = max(totals.positives - math.floor(rate * totals.positives + 1e-9), 1)
        self._found: tuple[int, float] | None = None

    def add(self, steps: Steps) -> None:
        """Look for the first threshold that finds enough."""
        index = int(np.searchsorted(steps.tp, self._needed))
        if self._found is None and index < len(steps.tp):
            self._found = int(steps.fp[index]), float(steps.score[index])

    @property
    def value(self) -> float:
        """False-positive rate in [0, 1]."""
        return self._found[0] / self.totals.negatives if self._found else math.nan

    @property
    def threshold(self) -> float | None:
        """Scores at or above this are called anomalous."""
        return self._found[1] if self._found else None


class RegionOverlap(Curve):
    """Exact area under the per-region overlap curve up to a false-positive rate, divided by it.

    Overlap is the mean over all regions of the share of a region that scores at least t; the curve
    starts at (0, 0), ends at (1, 1), is piecewise linear between the distinct scores and cut at the
    limit by interpolation (Bergmann et al., The MVTec Anomaly Detection Dataset, IJCV 2021).
    """

    def __init__(self, totals: Totals, limit: float) -> None:
        super().__init__(totals)
        self._limit = limit * totals.negatives
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

    @property
    def value(self) -> float:
        """Area in [0, 1]."""
        rest = max(self._limit - self._fp, 0.0) * self._overlap
        return (self._area + rest) / (self._limit * self.totals.regions)

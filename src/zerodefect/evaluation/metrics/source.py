"""Where curves come from: scores in memory, or the runs of one or several stores."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np

from zerodefect.evaluation.metrics.curves import Steps, Totals, running_sum
from zerodefect.evaluation.metrics.keys import order_key, score_of, unpack
from zerodefect.evaluation.metrics.runs import Run, merged

BLOCK = 1 << 19
"""Anomalous scores that are held in memory at a time."""


class Source(Protocol):
    """What the metrics ask of a set of scores."""

    @property
    def totals(self) -> Totals:
        """Numbers of anomalous and normal scores and of regions."""

    @property
    def range(self) -> tuple[float, float]:
        """Lowest and highest score."""

    def steps(self) -> Iterator[Steps]:
        """Vertices at distinct anomalous scores, from high to low, in blocks."""

    def positives_above(
        self, thresholds: np.ndarray, inclusive: bool, filled: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """Number of anomalous scores above thresholds, and sum over regions of their share.

        ``filled``: count pixels in the holes of regions towards the share too.
        """

    def negatives_above(self, thresholds: np.ndarray, inclusive: bool) -> np.ndarray:
        """Number of normal scores above thresholds (or at them, if inclusive)."""

    def negatives_at(self, ranks: np.ndarray) -> np.ndarray:
        """Normal scores at ascending 0-based ranks in ascending order."""


class ScoresSource:
    """Scores in memory, float64; each anomalous one is a region of its own.

    Args:
        positives: scores of anomalous samples.
        negatives: scores of normal samples.
    """

    def __init__(self, positives: np.ndarray, negatives: np.ndarray) -> None:
        self.positives = np.sort(positives)
        self.negatives = np.sort(negatives)
        self.totals = Totals(len(positives), len(negatives), len(positives))

    @property
    def range(self) -> tuple[float, float]:
        """Lowest and highest score."""
        both = np.concatenate((self.positives, self.negatives))
        return float(both.min()), float(both.max())

    def steps(self) -> Iterator[Steps]:
        """One block with all distinct anomalous scores."""
        score, count = np.unique(self.positives, return_counts=True)
        score, tp = score[::-1], np.cumsum(count[::-1])
        total = len(self.negatives)
        fp_before = total - np.searchsorted(self.negatives, score, "right")
        fp = total - np.searchsorted(self.negatives, score, "left")
        if len(score):
            yield Steps(score, tp, fp_before, fp, tp.astype(float))

    def positives_above(
        self, thresholds: np.ndarray, inclusive: bool, filled: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """See :class:`Source`."""
        count = _above(self.positives, thresholds, inclusive)
        return count, count.astype(float)

    def negatives_above(self, thresholds: np.ndarray, inclusive: bool) -> np.ndarray:
        """See :class:`Source`."""
        return _above(self.negatives, thresholds, inclusive)

    def negatives_at(self, ranks: np.ndarray) -> np.ndarray:
        """See :class:`Source`."""
        return self.negatives[ranks]


class RunsSource:
    """Spilled or buffered pixel scores.

    Args:
        totals: numbers of scores and regions.
        range: lowest and highest score.
        normal: sorted float32 runs of normal scores.
        defective: sorted runs of packed records of anomalous scores.
        holes: the same of the pixels in holes, or None if they were not collected.
    """

    def __init__(
        self,
        totals: Totals,
        range: tuple[float, float],
        normal: Sequence[Run],
        defective: Sequence[Run],
        holes: Sequence[Run] | None = None,
    ) -> None:
        self.totals = totals
        self.range = range
        self.normal = normal
        self.defective = defective
        self.holes = holes

    def steps(self) -> Iterator[Steps]:
        """See :class:`Source`."""
        tp_start, fp_start, overlap_start = 0, 0, 0.0
        for score, count, overlap in _distinct(self.defective):
            at_most, below = self._rank(score[::-1])
            steps = Steps(
                score,
                tp_start + np.cumsum(count),
                self.totals.negatives - at_most[::-1],
                self.totals.negatives - below[::-1],
                overlap,
                tp_start,
                fp_start,
                overlap_start,
            )
            yield steps
            tp_start, fp_start = int(steps.tp[-1]), int(steps.fp[-1])
            overlap_start = float(overlap[-1])

    def positives_above(
        self, thresholds: np.ndarray, inclusive: bool, filled: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """See :class:`Source`."""
        count, share = _packed_above(self.defective, thresholds, inclusive)
        if filled:
            share = share + _packed_above(self.holes or (), thresholds, inclusive)[1]
        return count, share

    def negatives_above(self, thresholds: np.ndarray, inclusive: bool) -> np.ndarray:
        """See :class:`Source`."""
        order = np.argsort(thresholds)
        at_most, below = self._rank(thresholds[order])
        result = np.empty(len(order), np.int64)
        result[order] = self.totals.negatives - (below if inclusive else at_most)
        return result

    def negatives_at(self, ranks: np.ndarray) -> np.ndarray:
        """See :class:`Source`; found by bisection among all float32 numbers."""
        low, high = np.full(len(ranks), 0, np.int64), np.full(len(ranks), (1 << 32) - 1, np.int64)
        edges = order_key(np.array(self.range, np.float32)).astype(np.int64)
        low, high = np.maximum(low, edges[0]), np.minimum(high, edges[1])
        while (low < high).any():
            middle = (low + high) // 2
            at_most, _ = self._rank(score_of(middle.astype(np.uint32)))
            enough = at_most > ranks
            low, high = np.where(enough, low, middle + 1), np.where(enough, middle, high)
        return score_of(low.astype(np.uint32))

    def _rank(self, ascending: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Normal scores at most, and below, each value; ranks in runs add up."""
        at_most, below = np.zeros((2, len(ascending)), np.int64)
        for run in self.normal:
            run_below, run_at_most = run.rank(ascending)
            below += run_below
            at_most += run_at_most
        return at_most, below


def _above(scores: np.ndarray, thresholds: np.ndarray, inclusive: bool) -> np.ndarray:
    return len(scores) - np.searchsorted(scores, thresholds, "left" if inclusive else "right")


def _distinct(runs: Sequence[Run]) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Distinct scores from high to low, how often each occurs, and the sum of weights so far."""
    total = 0.0
    # The last score of a block may go on in the next one: score, count and sum, each of one row.
    open_row: tuple[np.ndarray, ...] = ()
    for block in merged(runs, BLOCK):
        score, weight = unpack(block)
        weights = running_sum(total, weight)
        total = float(weights[-1])
        ends = np.append(np.flatnonzero(score[1:] != score[:-1]), len(score) - 1)
        rows: tuple[np.ndarray, ...] = score[ends], np.diff(ends, prepend=-1), weights[ends + 1]
        if open_row and open_row[0][0] == rows[0][0]:
            rows[1][0] += open_row[1][0]
        elif open_row:
            rows = tuple(np.concatenate(pair) for pair in zip(open_row, rows, strict=True))
        open_row = tuple(column[-1:] for column in rows)
        if len(rows[0]) > 1:
            yield rows[0][:-1], rows[1][:-1], rows[2][:-1]
    if open_row:
        yield open_row[0], open_row[1], open_row[2]


def _packed_above(
    runs: Sequence[Run], thresholds: np.ndarray, inclusive: bool
) -> tuple[np.ndarray, np.ndarray]:
    count, share = np.zeros(len(thresholds), np.int64), np.zeros(len(thresholds))
    total = 0.0
    for block in merged(runs, BLOCK):
        score, weight = unpack(block)
        weights = running_sum(total, weight)
        above = _above(score[::-1], thresholds, inclusive)
        count += above
        share = np.where(above > 0, weights[above], share)
        total = float(weights[-1])
    return count, share

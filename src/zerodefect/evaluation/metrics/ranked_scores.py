"""A set of scores as metrics ask for it: how many are above, and at, each distinct one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from zerodefect.evaluation.metrics.metric_query import Level
from zerodefect.evaluation.metrics.sorted_runs import Run, order_key, score_of

Blocks = Callable[[], Iterator[tuple[np.ndarray, np.ndarray]]]
"""Scores from high to low, in blocks, and of each the share of its region that it stands for."""


@dataclass(frozen=True)
class Totals:
    """Size of the set that is ranked: anomalous and normal scores, and annotated regions."""

    positives: int
    negatives: int
    regions: int = 0

    def why_undefined(self, level: Level) -> str | None:
        """Why no metric is defined for a set of this size, or None."""
        things = "images" if level == "image" else "pixels"
        if not self.positives and not self.negatives:
            return f"no {things}"
        if not self.positives:
            return f"no anomalous {things}"
        if not self.negatives:
            return f"no normal {things}"
        return None


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


class Ranked:
    """A set of anomalous and normal scores.

    Args:
        totals: size of the set.
        range: lowest and highest score.
        normal: sorted runs of the normal scores.
        anomalous: the others.
        holes: scores of normal pixels in the holes of regions, where they were collected.
    """

    def __init__(
        self,
        totals: Totals,
        range: tuple[float, float],
        normal: Sequence[Run],
        anomalous: Blocks,
        holes: Blocks = lambda: iter(()),
    ) -> None:
        self.totals = totals
        self.range = range
        self._normal = normal
        self._anomalous = anomalous
        self._holes = holes

    def steps(self) -> Iterator[Steps]:
        """Vertices at distinct anomalous scores, from high to low, in blocks."""
        tp_start, fp_start, overlap_start = 0, 0, 0.0
        for score, count, overlap in _distinct(self._anomalous):
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
        """Number of anomalous scores above thresholds, and sum over regions of their share.

        ``filled``: count pixels in the holes of regions towards the share too.
        """
        count, share = _sum_above(self._anomalous, thresholds, inclusive)
        if filled:
            share = share + _sum_above(self._holes, thresholds, inclusive)[1]
        return count, share

    def negatives_above(self, thresholds: np.ndarray, inclusive: bool) -> np.ndarray:
        """Number of normal scores above thresholds (or at them, if inclusive)."""
        order = np.argsort(thresholds)
        at_most, below = self._rank(thresholds[order])
        result = np.empty(len(order), np.int64)
        result[order] = self.totals.negatives - (below if inclusive else at_most)
        return result

    def negatives_at(self, ranks: np.ndarray) -> np.ndarray:
        """Normal float32 scores at 0-based ranks in ascending order, found by bisection."""
        edges = order_key(np.array(self.range, np.float32)).astype(np.int64)
        low, high = np.full(len(ranks), edges[0]), np.full(len(ranks), edges[1])
        while (low < high).any():
            middle = (low + high) // 2
            at_most, _ = self._rank(score_of(middle.astype(np.uint32)))
            enough = at_most > ranks
            low, high = np.where(enough, low, middle + 1), np.where(enough, middle, high)
        return score_of(low.astype(np.uint32))

    def _rank(self, ascending: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Normal scores at most, and below, each value; ranks in runs add up."""
        at_most, below = np.zeros((2, len(ascending)), np.int64)
        for run in self._normal:
            run_below, run_at_most = run.rank(ascending)
            below += run_below
            at_most += run_at_most
        return at_most, below


def _distinct(blocks: Blocks) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Distinct scores from high to low, how often each occurs, and the sum of weights so far."""
    total = 0.0
    # The last score of a block may go on in the next one: score, count and sum, each of one row.
    open_row: tuple[np.ndarray, ...] = ()
    for score, weight in blocks():
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


def _sum_above(
    blocks: Blocks, thresholds: np.ndarray, inclusive: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Number of scores above thresholds, and the sum of their weights."""
    count, share = np.zeros(len(thresholds), np.int64), np.zeros(len(thresholds))
    total = 0.0
    for score, weight in blocks():
        weights = running_sum(total, weight)
        side: Literal["left", "right"] = "left" if inclusive else "right"
        above = len(score) - np.searchsorted(score[::-1], thresholds, side)
        count += above
        share = np.where(above > 0, weights[above], share)
        total = float(weights[-1])
    return count, share


def running_sum(start: float, terms: np.ndarray) -> np.ndarray:
    """Sums of ``start`` and the first 0, 1, ... terms, added strictly one after the other.

    A sum over blocks that starts with the last block's is then the same however blocks were cut.
    """
    return np.cumsum(np.concatenate(([start], terms)))

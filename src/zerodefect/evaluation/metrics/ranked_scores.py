"""A set of scores as metrics ask for it: how many are above, and at, each distinct one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

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
        missing = "anomalous" if not self.positives else "normal"
        return None if self.positives and self.negatives else f"no {missing} {things}"


class Steps(NamedTuple):
    """Vertices of the curves at distinct anomalous scores, from high to low; a block of them.

    Attributes:
        score: ``(K,)`` distinct scores.
        positives: ``(K,)`` int64, anomalous scores that equal each.
        tp: ``(K,)`` int64, anomalous scores at or above each.
        fp_before: ``(K,)`` int64, normal scores above each.
        fp: ``(K,)`` int64, normal scores at or above each.
        overlap: ``(K,)`` float64, sum over regions of the share at or above each.
    """

    score: np.ndarray
    positives: np.ndarray
    tp: np.ndarray
    fp_before: np.ndarray
    fp: np.ndarray
    overlap: np.ndarray


@dataclass(frozen=True)
class Ranked:
    """A set of anomalous and normal scores.

    Attributes:
        totals: size of the set.
        range: lowest and highest score.
        normal: sorted runs of the normal scores.
        anomalous: the others.
        holes: scores of normal pixels in the holes of regions, where they were collected.
        bins: all vertices, where they are known in place of the scores.
    """

    totals: Totals
    range: tuple[float, float]
    normal: Sequence[Run] = ()
    anomalous: Blocks = lambda: iter(())
    holes: Blocks = lambda: iter(())
    bins: Steps | None = None

    def steps(self) -> Iterator[Steps]:
        """Vertices at distinct anomalous scores, from high to low, in blocks."""
        if self.bins:
            yield self.bins
        tp, negatives = 0, self.totals.negatives
        for score, count, overlap in _distinct(self.anomalous):
            below, at_most = self._rank(score[::-1])
            found = tp + np.cumsum(count)
            tp = found[-1]
            fp_before, fp = negatives - at_most[::-1], negatives - below[::-1]
            yield Steps(score, count, found, fp_before, fp, overlap)

    def positives_above(
        self, thresholds: np.ndarray, inclusive: bool, filled: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """Number of anomalous scores above thresholds, and sum over regions of their share.

        ``filled``: count pixels in the holes of regions towards the share too.
        """
        count, share = _sum_above(self.anomalous, thresholds, inclusive)
        if filled:
            share = share + _sum_above(self.holes, thresholds, inclusive)[1]
        return count, share

    def negatives_above(self, thresholds: np.ndarray, inclusive: bool) -> np.ndarray:
        """Number of normal scores above thresholds (or at them, if inclusive)."""
        order = np.argsort(thresholds)
        below, at_most = self._rank(thresholds[order])
        return (self.totals.negatives - (below if inclusive else at_most))[np.argsort(order)]

    def negatives_at(self, ranks: np.ndarray) -> np.ndarray:
        """Normal float32 scores at 0-based ranks in ascending order, found by bisection."""
        edges = order_key(np.array(self.range, np.float32)).astype(np.int64)
        low, high = np.full(len(ranks), edges[0]), np.full(len(ranks), edges[1])
        while (low < high).any():
            middle = (low + high) // 2
            _, at_most = self._rank(score_of(middle.astype(np.uint32)))
            enough = at_most > ranks
            low, high = np.where(enough, low, middle + 1), np.where(enough, middle, high)
        return score_of(low.astype(np.uint32))

    def _rank(self, ascending: np.ndarray) -> np.ndarray:
        """Normal scores below, and at most, each value, ``(2, K)``; ranks in runs add up."""
        none = np.zeros((2, len(ascending)), np.int64)
        return sum((run.rank(ascending) for run in self.normal), none)


def _distinct(blocks: Blocks) -> Iterator[list[np.ndarray]]:
    """Distinct scores from high to low, how often each occurs, and the sum of weights so far."""
    total = 0.0
    open_row: list[np.ndarray] = []  # the last score of a block may go on in the next one
    for score, weight in blocks():
        weights = running_sum(total, weight)
        total = float(weights[-1])
        ends = np.append(np.flatnonzero(score[1:] != score[:-1]), len(score) - 1)
        rows = [score[ends], np.diff(ends, prepend=-1), weights[ends + 1]]
        if open_row and open_row[0] == rows[0][0]:
            rows[1][0] += open_row[1][0]
        elif open_row:
            rows = [np.concatenate(pair) for pair in zip(open_row, rows, strict=True)]
        open_row = [column[-1:] for column in rows]
        if len(rows[0]) > 1:
            yield [column[:-1] for column in rows]
    if open_row:
        yield open_row


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

"""From ranked scores to metrics: exact curves in one pass, or what the field samples instead.

Exact curves need only, for each distinct anomalous score, how many normal scores are above it and
how many equal it: between two neighbouring anomalous scores only false positives grow, so that all
vertices there lie on one straight piece. Normal scores are sorted, never paired with labels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np

from zerodefect.evaluation.metrics.metric_query import Level, Metric, MetricError, Query
from zerodefect.evaluation.metrics.ranked_scores import Ranked, Steps, Totals, running_sum

_CONSTANT = "all scores are equal, so the thresholds coincide"
_ONE_VERTEX = "only one sampled threshold has a false-positive rate below the limit"


class Answer(NamedTuple):
    """Value of a metric, the score at which it is reached, and why the value is NaN."""

    value: float
    threshold: float | None = None
    reason: str | None = None


Curve = Generator[None, "Steps | None", Answer]
"""Is sent the blocks of :class:`Steps` in turn, then None, and returns one metric."""


def compute(
    ranked: Ranked,
    queries: Sequence[Query],
    level: Level,
    mask_rule: str | None = None,
    group: str | None = None,
) -> list[Metric]:
    """Answer queries in their order; the scores are read once for all exact curves.

    Raises:
        SpillError: if spilled scores cannot be read.
    """
    totals, bins = ranked.totals, ranked.bins
    if reason := totals.why_undefined(level):
        answers = dict.fromkeys(queries, Answer(math.nan, None, reason))
    else:
        exact = [query for query in queries if (query.name, query.variant) in _CURVES]
        curves = [_CURVES[q.name, q.variant](totals, q.limit) for q in exact]
        answers = dict(zip(exact, _drawn(curves, ranked.steps()), strict=True))
    metrics = []
    for query in queries:
        found = answers.get(query) or _sampled(ranked, query)
        bound = _bound(bins, totals, query, found.value) if bins and not reason else 0.0
        kind = level, query.name, query.variant, found.value, query.at
        metrics.append(Metric(*kind, found.threshold, found.reason, bound, mask_rule, group))
    return metrics


def _drawn(curves: Sequence[Curve], blocks: Iterable[Steps]) -> list[Answer]:
    for curve in curves:
        next(curve)
    for steps in blocks if curves else ():
        for curve in curves:
            curve.send(steps)
    answers = []
    for curve in curves:
        try:
            curve.send(None)
        except StopIteration as end:
            answers.append(end.value)
    return answers


# --- exact curves -------------------------------------------------------------------------------
# Each knows the totals of the set, in which neither kind of score is missing, and the limit or
# miss rate of its query.


def _area_under_roc(totals: Totals, at: float) -> Curve:
    """P(anomalous > normal) + P(equal) / 2, from whole numbers, so without rounding until the end.

    Equals the trapezoid area under the ROC curve over all distinct thresholds.
    """
    half_wins = 0
    while steps := (yield):
        # Two for every normal score below an anomalous one, one for every equal.
        wins = 2 * totals.negatives - steps.fp - steps.fp_before
        half_wins += _exact_dot(steps.positives, wins)
    return Answer(half_wins / (2 * totals.positives * totals.negatives))


def _average_precision(totals: Totals, at: float) -> Curve:
    """Sum over distinct thresholds of (R_i - R_{i-1}) P_i, the step rule of scikit-learn."""
    total = 0.0
    while steps := (yield):
        terms = steps.positives * (steps.tp / (steps.tp + steps.fp))
        total = float(running_sum(total, terms)[-1])
    return Answer(total / totals.positives)


def _area_under_precision_recall(totals: Totals, at: float) -> Curve:
    """Area under the linearly joined precision-recall curve that starts at (0, 1)."""
    total = 0.0
    while steps := (yield):
        before = _precision(steps.tp - steps.positives, steps.fp_before)
        terms = steps.positives * (before + steps.tp / (steps.tp + steps.fp)) / 2
        total = float(running_sum(total, terms)[-1])
    return Answer(total / totals.positives)


def _maximum_f1(totals: Totals, at: float) -> Curve:
    """Maximum of 2PR / (P + R) over distinct thresholds, and the lowest score that reaches it."""
    best = Answer(-1.0)
    while steps := (yield):
        f1 = 2 * steps.tp / (steps.tp + steps.fp + totals.positives)
        last = len(f1) - 1 - int(np.argmax(f1[::-1]))
        if f1[last] >= best.value:
            best = Answer(float(f1[last]), float(steps.score[last]))
    return best


def _false_positives_at_miss(totals: Totals, at: float) -> Curve:
    """False-positive rate at the highest threshold that misses at most a share of the anomalous.

    No interpolation: ``floor(at * positives)`` anomalous scores may be missed.
    """
    # A product such as 0.07 * 100 falls short of the whole number by rounding.
    needed = max(totals.positives - math.floor(at * totals.positives + 1e-9), 1)
    found = Answer(math.nan)
    while steps := (yield):
        index = int(np.searchsorted(steps.tp, needed))
        if found.threshold is None and index < len(steps.tp):
            found = Answer(int(steps.fp[index]) / totals.negatives, float(steps.score[index]))
    return found


def _region_overlap(totals: Totals, at: float) -> Curve:
    """Exact area under the per-region overlap curve up to a false-positive rate, divided by it.

    Overlap is the mean over all regions of the share of a region that scores at least t; the curve
    starts at (0, 0), ends at (1, 1), is piecewise linear between the distinct scores and cut at the
    limit by interpolation (Bergmann et al., The MVTec Anomaly Detection Dataset, IJCV 2021).
    """
    limit = at * totals.negatives
    area, fp_last, overlap_last = 0.0, 0, 0.0
    while steps := (yield):
        # For each score the flat piece before it and the slanted one of equal scores.
        before = np.append(fp_last, steps.fp[:-1]), np.append(overlap_last, steps.overlap[:-1])
        left, middle, right = (
            np.minimum(fp, limit) for fp in (before[0], steps.fp_before, steps.fp)
        )
        width = steps.fp - steps.fp_before
        rise = steps.overlap - before[1]
        slope = np.divide(rise, width, out=np.zeros(len(width)), where=width > 0)
        cut = right - middle
        pieces = before[1] * (middle - left) + cut * (before[1] + slope * cut / 2)
        area = float(running_sum(area, pieces)[-1])
        fp_last, overlap_last = int(steps.fp[-1]), float(steps.overlap[-1])
    rest = max(limit - fp_last, 0.0) * overlap_last
    return Answer((area + rest) / (limit * totals.regions))


_CURVES: dict[tuple[str, str], Callable[[Totals, float], Curve]] = {
    ("auroc", "exact"): _area_under_roc,
    ("ap", "step"): _average_precision,
    ("ap", "trapezoid"): _area_under_precision_recall,
    ("f1max", "exact"): _maximum_f1,
    ("fpr_at_miss", "exact"): _false_positives_at_miss,
    ("aupro", "exact"): _region_overlap,
    ("aupro", "anomalib"): _region_overlap,
    ("spro", "exact"): _region_overlap,
}


def _bound(steps: Steps, totals: Totals, query: Query, value: float) -> float:
    """How far the exact value may lie from that of bins.

    Whatever the true order of the scores of a bin, every curve stays inside the rectangle that the
    bin spans between the exact vertices before and after it; the bound follows from that alone.
    """
    inside = steps.fp - steps.fp_before
    match query.name:
        case "auroc":  # pairs within a bin count one half each and may count 0 or 1
            pairs = float((steps.positives * inside.astype(float)).sum())
            bound = pairs / (2.0 * totals.positives * totals.negatives)
        case "ap":
            # Precision at a score of a bin is highest with all of it found and no false positive
            # of it, lowest with all of those first. It is concave in the number found, so its mean
            # over the bin is at least that of its ends.
            highest = steps.tp / (steps.tp + steps.fp_before)
            one = steps.tp - steps.positives + 1
            lowest = (one / (one + steps.fp) + steps.tp / (steps.tp + steps.fp)) / 2
            upper = float((steps.positives * highest).sum()) / totals.positives
            lower = float((steps.positives * lowest).sum()) / totals.positives
            bound = max(upper - value, value - lower)
        case "f1max":  # the edges of bins are thresholds, so the maximum is at least the value
            highest = 2 * steps.tp / (steps.tp + steps.fp_before + totals.positives)
            bound = float(highest.max()) - value
        case "fpr_at_miss":  # the threshold lies in the bin whose false positives were all counted
            index = int(np.searchsorted(steps.fp, round(value * totals.negatives)))
            bound = float(np.max(inside[index:][:1], initial=0)) / totals.negatives
        case _:
            # A rising curve inside a rectangle is off the diagonal by at most half of it; where
            # the limit cuts the rectangle, it may lie anywhere in what is left.
            limit = query.limit * totals.negatives
            width = np.minimum(steps.fp, limit) - np.minimum(steps.fp_before, limit)
            share = np.where(steps.fp > limit, 1.0, 0.5)
            area = float((share * width * np.diff(steps.overlap, prepend=0.0)).sum())
            # The last term is the rounding of weights to units.
            bound = area / (limit * totals.regions) + 2.0**-41 * totals.positives / totals.regions
    return bound + 1e-12  # the rounding of the sums in floating point


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
    steps = Steps(*(np.concatenate(column) for column in zip(*ranked.steps(), strict=True)))

    def column(before: np.ndarray, after: np.ndarray, first: float, last: float) -> np.ndarray:
        return np.concatenate(([first], np.stack((before, after), 1).ravel(), [last]))

    low, high = ranked.range
    tp = column(steps.tp - steps.positives, steps.tp, 0, totals.positives)
    fp = column(steps.fp_before, steps.fp, 0, totals.negatives)
    overlap_before = np.append(0.0, steps.overlap[:-1])
    return CurvePoints(
        column(steps.score, steps.score, high, low),
        fp / totals.negatives,
        tp / totals.positives,
        _precision(tp, fp),
        column(overlap_before, steps.overlap, 0, totals.regions) / totals.regions,
    )


def _precision(tp: np.ndarray, fp: np.ndarray) -> np.ndarray:
    """Share of the found that is anomalous; 1 where nothing is found."""
    found = tp + fp
    return np.divide(tp, found, out=np.ones(len(found)), where=found > 0)


def _exact_dot(a: np.ndarray, b: np.ndarray) -> int:
    """Sum of products of non-negative int64 numbers without overflow; ``sum(a)`` below 2^36."""
    low, high = b & ((1 << 26) - 1), b >> 26
    return int(a @ low) + (int(a @ high) << 26)


# --- sampled thresholds -------------------------------------------------------------------------


def _sampled(ranked: Ranked, query: Query) -> Answer:
    """Answer a query that has no exact curve."""
    if query.name == "f1max":
        return _grid_f1(ranked)
    low, high = ranked.range
    if low == high and query.variant != "quantile100_mvtec3d":
        return Answer(math.nan, None, _CONSTANT)
    return _AUPRO[query.variant](ranked, query.limit)


def _grid_f1(ranked: Ranked) -> Answer:
    """Maximum F1 over 21 equidistant thresholds from lowest to highest score, ``score >= t``."""
    thresholds = np.linspace(*ranked.range, 21)
    tp, _ = ranked.positives_above(thresholds, inclusive=True)
    fp = ranked.negatives_above(thresholds, inclusive=True)
    f1 = 2 * tp / (tp + fp + ranked.totals.positives)
    best = int(np.argmax(f1))
    return Answer(float(f1[best]), float(thresholds[best]))


def _quantile100(ranked: Ranked, limit: float) -> Answer:
    """AUPRO with thresholds at 100 equidistant ranks of the normal scores."""
    total = ranked.totals.negatives
    ranks = np.linspace(0, total - 1, 100, dtype=np.int64)
    thresholds = ranked.negatives_at(ranks).astype(np.float64)
    _, share = ranked.positives_above(thresholds, inclusive=False)
    rate = np.append((1 - (ranks + 1) / total)[::-1], 1.0)
    overlap = np.append(share[::-1] / ranked.totals.regions, 1.0)
    return Answer(_clipped_area(rate, overlap, limit) / limit)


def _steps200(ranked: Ranked, limit: float, from_zero: bool = False) -> Answer:
    """AUPRO of most CLIP papers: false-positive rates below the limit stretched to [0, 1].

    ``from_zero``: the rates are only divided by the largest kept one (AF-CLIP).
    """
    low, high = ranked.range
    rate, overlap = _vertices(ranked, np.arange(low, high, (high - low) / 200)[::-1])
    return _stretched_area(rate, overlap, rate < limit, from_zero)


def _steps200_winclip(ranked: Ranked, limit: float) -> Answer:
    """As ``_steps200`` from the highest score down, rates up to the limit, holes filled."""
    low, high = ranked.range
    thresholds = high - np.arange(200) * (high - low) / 200
    rate, overlap = _vertices(ranked, thresholds, filled=True)
    return _stretched_area(rate, overlap, rate <= limit)


def _histogram1000(ranked: Ranked, limit: float) -> Answer:
    """AUPRO with thresholds at the edges of 1000 equal strips between lowest and highest score."""
    thresholds = np.linspace(*ranked.range, 1001)
    rate, overlap = _vertices(ranked, thresholds[::-1], inclusive=True)
    return Answer(_clipped_area(np.append(0.0, rate), np.append(0.0, overlap), limit) / limit)


_AUPRO: dict[str, Callable[[Ranked, float], Answer]] = {
    "steps200": _steps200,
    "steps200_afclip": partial(_steps200, from_zero=True),
    "steps200_winclip": _steps200_winclip,
    "quantile100_mvtec3d": _quantile100,
    "adeval_hist1000": _histogram1000,
}


def _vertices(
    ranked: Ranked, thresholds: np.ndarray, inclusive: bool = False, filled: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """False-positive rate and mean overlap at thresholds."""
    _, share = ranked.positives_above(thresholds, inclusive, filled)
    rate = ranked.negatives_above(thresholds, inclusive) / ranked.totals.negatives
    return rate, share / ranked.totals.regions


def _stretched_area(
    rate: np.ndarray, overlap: np.ndarray, kept: np.ndarray, from_zero: bool = False
) -> Answer:
    """Area over the kept rates, of which the lowest (or zero) becomes 0 and the highest 1."""
    rate, overlap = rate[kept], overlap[kept]
    if len(np.unique(rate)) < 2:
        return Answer(math.nan, None, _ONE_VERTEX)
    start = 0.0 if from_zero else rate.min()
    return Answer(_area((rate - start) / (rate.max() - start), overlap))


def _area(x: np.ndarray, y: np.ndarray) -> float:
    """Trapezoid area over ascending ``x``."""
    return float(np.sum(np.diff(x) * (y[1:] + y[:-1])) / 2)


def _clipped_area(x: np.ndarray, y: np.ndarray, limit: float) -> float:
    """Trapezoid area over ascending ``x`` up to a limit, linear interpolation there."""
    inside = int(np.searchsorted(x, limit, "right"))
    if inside < len(x):
        x0, x1, y0, y1 = x[inside - 1], x[inside], y[inside - 1], y[inside]
        end = y0 + (y1 - y0) * (limit - x0) / (x1 - x0)
        x, y = np.append(x[:inside], limit), np.append(y[:inside], end)
    return _area(x, y)

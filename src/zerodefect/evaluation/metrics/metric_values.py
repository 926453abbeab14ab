"""From ranked scores to the asked-for metrics: exact curves in one pass over the scores, and what
the field reads off at a few thresholds instead.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from zerodefect.evaluation.metrics.exact_curves import CURVES, Answer, Curve
from zerodefect.evaluation.metrics.metric_query import Level, Metric, Query
from zerodefect.evaluation.metrics.ranked_scores import Ranked

_CONSTANT = "all scores are equal, so the thresholds coincide"
_ONE_VERTEX = "only one sampled threshold has a false-positive rate below the limit"


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
    reason = ranked.totals.why_undefined(level)
    kinds = [None if reason else CURVES.get((query.name, query.variant)) for query in queries]
    curves = [
        kind(ranked.totals, query.at or 0.0) if kind else None
        for kind, query in zip(kinds, queries, strict=True)
    ]
    exact = [curve for curve in curves if curve]
    for steps in ranked.steps() if exact else ():
        for curve in exact:
            curve.add(steps)

    def answer(query: Query, curve: Curve | None) -> Answer:
        if reason:
            return Answer(math.nan, None, reason)
        return curve.answer() if curve else _sampled(ranked, query)

    return [
        Metric(
            level,
            query.name,
            query.variant,
            at=query.at,
            mask_rule=mask_rule,
            group=group,
            **answer(query, curve)._asdict(),
        )
        for query, curve in zip(queries, curves, strict=True)
    ]


def _sampled(ranked: Ranked, query: Query) -> Answer:
    """Answer a query that has no exact curve."""
    if query.name == "f1max":
        return grid_f1(ranked)
    low, high = ranked.range
    if low == high and query.variant != "quantile100_mvtec3d":
        return Answer(math.nan, None, _CONSTANT)
    return _AUPRO[query.variant](ranked, query.limit)


def grid_f1(ranked: Ranked) -> Answer:
    """Maximum F1 over 21 equidistant thresholds from lowest to highest score, ``score >= t``."""
    thresholds = np.linspace(*ranked.range, 21)
    tp, _ = ranked.positives_above(thresholds, inclusive=True)
    fp = ranked.negatives_above(thresholds, inclusive=True)
    f1 = 2 * tp / (tp + fp + ranked.totals.positives)
    best = int(np.argmax(f1))
    return Answer(float(f1[best]), float(thresholds[best]))


def quantile100(ranked: Ranked, limit: float) -> Answer:
    """AUPRO with thresholds at 100 equidistant ranks of the normal scores."""
    total = ranked.totals.negatives
    ranks = np.linspace(0, total - 1, 100, dtype=np.int64)
    thresholds = ranked.negatives_at(ranks).astype(np.float64)
    _, share = ranked.positives_above(thresholds, inclusive=False)
    rate = np.append((1 - (ranks + 1) / total)[::-1], 1.0)
    overlap = np.append(share[::-1] / ranked.totals.regions, 1.0)
    return Answer(_clipped_area(rate, overlap, limit) / limit)


def steps200(ranked: Ranked, limit: float, from_zero: bool = False) -> Answer:
    """AUPRO of most CLIP papers: false-positive rates below the limit stretched to [0, 1]."""
    low, high = ranked.range
    thresholds = np.arange(low, high, (high - low) / 200)[::-1]
    rate, overlap = _vertices(ranked, thresholds)
    return _stretched_area(rate, overlap, rate < limit, from_zero)


def steps200_afclip(ranked: Ranked, limit: float) -> Answer:
    """As :func:`steps200`, but the rates are only divided by the largest kept one."""
    return steps200(ranked, limit, from_zero=True)


def steps200_winclip(ranked: Ranked, limit: float) -> Answer:
    """As :func:`steps200` from the highest score down, rates up to the limit, holes filled."""
    low, high = ranked.range
    thresholds = high - np.arange(200) * (high - low) / 200
    rate, overlap = _vertices(ranked, thresholds, filled=True)
    return _stretched_area(rate, overlap, rate <= limit)


def histogram1000(ranked: Ranked, limit: float) -> Answer:
    """AUPRO with thresholds at the edges of 1000 equal strips between lowest and highest score."""
    thresholds = np.linspace(*ranked.range, 1001)
    rate, overlap = _vertices(ranked, thresholds[::-1], inclusive=True)
    return Answer(_clipped_area(np.append(0.0, rate), np.append(0.0, overlap), limit) / limit)


_AUPRO: dict[str, Callable[[Ranked, float], Answer]] = {
    "steps200": steps200,
    "steps200_afclip": steps200_afclip,
    "steps200_winclip": steps200_winclip,
    "quantile100_mvtec3d": quantile100,
    "adeval_hist1000": histogram1000,
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

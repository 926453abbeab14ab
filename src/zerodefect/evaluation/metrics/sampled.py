"""Metrics that the field reads off at a few thresholds instead of all."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from zerodefect.evaluation.metrics.source import Source

Answer = tuple[float, float | None, str | None]
"""Value, threshold or None, and the reason where the value is NaN."""

_CONSTANT = "all scores are equal, so the thresholds coincide"
_ONE_VERTEX = "only one sampled threshold has a false-positive rate below the limit"


def grid_f1(source: Source) -> Answer:
    """Maximum F1 over 21 equidistant thresholds from lowest to highest score, ``score >= t``."""
    thresholds = np.linspace(*source.range, 21)
    tp, _ = source.positives_above(thresholds, inclusive=True)
    fp = source.negatives_above(thresholds, inclusive=True)
    f1 = 2 * tp / (tp + fp + source.totals.positives)
    best = int(np.argmax(f1))
    return float(f1[best]), float(thresholds[best]), None


def steps200(source: Source, limit: float) -> Answer:
    """AUPRO of most CLIP papers: false-positive rates below the limit stretched to [0, 1]."""
    vertices = _steps_below(source, limit)
    if vertices is None:
        return math.nan, None, _CONSTANT
    rate, overlap = vertices
    if len(np.unique(rate)) < 2:
        return math.nan, None, _ONE_VERTEX
    return _area((rate - rate.min()) / (rate.max() - rate.min()), overlap), None, None


def steps200_afclip(source: Source, limit: float) -> Answer:
    """As :func:`steps200`, but the rates are only divided by the largest kept one."""
    vertices = _steps_below(source, limit)
    if vertices is None:
        return math.nan, None, _CONSTANT
    rate, overlap = vertices
    if len(np.unique(rate)) < 2:
        return math.nan, None, _ONE_VERTEX
    return _area(rate / rate.max(), overlap), None, None


def steps200_winclip(source: Source, limit: float) -> Answer:
    """As :func:`steps200` from the highest score down, rates up to the limit, holes filled."""
    low, high = source.range
    if low == high:
        return math.nan, None, _CONSTANT
    thresholds = high - np.arange(200) * (high - low) / 200
    rate, overlap = _vertices(source, thresholds, filled=True)
    kept = rate <= limit
    rate, overlap = rate[kept], overlap[kept]
    if len(np.unique(rate)) < 2:
        return math.nan, None, _ONE_VERTEX
    return _area((rate - rate.min()) / (rate.max() - rate.min()), overlap), None, None


def quantile100(source: Source, limit: float) -> Answer:
    """AUPRO with thresholds at 100 equidistant ranks of the normal scores."""
    total = source.totals.negatives
    ranks = np.linspace(0, total - 1, 100, dtype=np.int64)
    thresholds = source.negatives_at(ranks).astype(np.float64)
    _, share = source.positives_above(thresholds, inclusive=False)
    rate = np.append((1 - (ranks + 1) / total)[::-1], 1.0)
    overlap = np.append(share[::-1] / source.totals.regions, 1.0)
    return _clipped_area(rate, overlap, limit) / limit, None, None


def histogram1000(source: Source, limit: float) -> Answer:
    """AUPRO with thresholds at the edges of 1000 equal strips between lowest and highest score."""
    low, high = source.range
    if low == high:
        return math.nan, None, _CONSTANT
    thresholds = np.linspace(low, high, 1001)
    tp_rate, overlap = _vertices(source, thresholds[::-1], inclusive=True)
    rate, overlap = np.append(0.0, tp_rate), np.append(0.0, overlap)
    return _clipped_area(rate, overlap, limit) / limit, None, None


AUPRO: dict[str, Callable[[Source, float], Answer]] = {
    "steps200": steps200,
    "steps200_afclip": steps200_afclip,
    "steps200_winclip": steps200_winclip,
    "quantile100_mvtec3d": quantile100,
    "adeval_hist1000": histogram1000,
}
"""Sampled variants of AUPRO by name."""


def _vertices(
    source: Source, thresholds: np.ndarray, inclusive: bool = False, filled: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """False-positive rate and mean overlap at thresholds."""
    _, share = source.positives_above(thresholds, inclusive, filled)
    rate = source.negatives_above(thresholds, inclusive) / source.totals.negatives
    return rate, share / source.totals.regions


def _steps_below(source: Source, limit: float) -> tuple[np.ndarray, np.ndarray] | None:
    low, high = source.range
    if low == high:
        return None
    thresholds = np.arange(low, high, (high - low) / 200)[::-1]
    rate, overlap = _vertices(source, thresholds)
    kept = rate < limit
    return rate[kept], overlap[kept]


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

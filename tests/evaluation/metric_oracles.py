"""Slow, direct computations of the metrics, by other ways than the library's."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import strategies as st
from scipy import ndimage
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

SIDE = 6


def sklearn_values(scores: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    precision, recall, thresholds = precision_recall_curve(labels, scores)
    precision, recall = precision[:-1], recall[:-1]
    total = precision + recall
    f1 = np.divide(2 * precision * recall, total, out=np.zeros_like(total), where=total > 0)
    return {
        "auroc": roc_auc_score(labels, scores),
        "ap": average_precision_score(labels, scores),
        "f1max": f1.max(),
        "threshold": thresholds[np.flatnonzero(f1 >= f1.max() - 1e-12)[0]],
    }


def aupro(maps: np.ndarray, masks: np.ndarray, limit: float = 0.3) -> float:
    """One threshold after the other over all pixels, then an integral on a polyline."""
    regions = []
    for index, mask in enumerate(masks):
        labels, found = ndimage.label(mask, np.ones((3, 3)))
        regions += [(index, labels == number) for number in range(1, found + 1)]
    curve = [(0.0, 0.0)]
    for threshold in np.unique(maps)[::-1]:
        found = maps >= threshold
        rate = found[masks == 0].mean()
        curve.append((rate, np.mean([found[i][region].mean() for i, region in regions])))
    area = 0.0
    for (x0, y0), (x1, y1) in pairwise(curve):
        if x0 < limit and x1 > x0:
            end = min(x1, limit)
            height = y0 + (y1 - y0) * (end - x0) / (x1 - x0)
            area += (end - x0) * (y0 + height) / 2
    return area / limit


@st.composite
def images(draw, least: int = 1, most: int = 5, levels: int = 12, side: int = SIDE):
    """Maps with many equal scores, and masks, some of them empty."""
    count = draw(st.integers(least, most))
    seed = draw(st.integers(0, 2**32 - 1))
    grid = draw(st.sampled_from([1, 2, levels, 10**6]))
    scale = draw(st.sampled_from([1.0, -3.0, 1e-30, 1e30]))
    random = np.random.default_rng(seed)
    maps = (random.integers(-grid, grid, (count, side, side)) / grid * scale).astype(np.float32)
    masks = random.random((count, side, side)) < draw(st.sampled_from([0.05, 0.3, 0.7]))
    masks[random.random(count) < 0.3] = False
    return maps, masks


def both_kinds(masks: np.ndarray) -> bool:
    return bool(masks.any() and not masks.all())

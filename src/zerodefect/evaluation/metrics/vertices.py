"""Vertices of the ROC, precision-recall and region-overlap curves, for drawing."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from zerodefect.evaluation.metrics.curves import Steps, Totals
from zerodefect.evaluation.metrics.source import Source


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


def curve_points(source: Source, most: int | None) -> CurvePoints:
    """Points of a source with anomalous and normal scores; every vertex if ``most`` is None.

    Otherwise up to about ``6 * most`` points, so that no rate moves by more than ``2 / most``
    between neighbours unless a single threshold does it.
    """
    totals = source.totals
    low, high = source.range
    prevalence = totals.positives / (totals.positives + totals.negatives)
    blocks = [
        _point(high, rate=0.0, precision=1.0),
        *(_thinned(steps, totals, most) for steps in source.steps()),
        _point(low, rate=1.0, precision=prevalence),
    ]
    return CurvePoints(
        *(np.concatenate([getattr(b, f.name) for b in blocks]) for f in fields(CurvePoints))
    )


def _point(threshold: float, rate: float, precision: float) -> CurvePoints:
    return CurvePoints(*(np.array([v]) for v in (threshold, rate, rate, precision, rate)))


def _thinned(steps: Steps, totals: Totals, most: int | None) -> CurvePoints:
    keep = slice(None) if most is None else _moves(steps, totals, most)

    def pairs(before: np.ndarray, after: np.ndarray) -> np.ndarray:
        return np.stack((before[keep], after[keep]), 1).ravel()

    tp, fp = pairs(steps.tp_before, steps.tp), pairs(steps.fp_before, steps.fp)
    flagged = tp + fp
    return CurvePoints(
        pairs(steps.score, steps.score),
        fp / totals.negatives,
        tp / totals.positives,
        np.divide(tp, flagged, out=np.ones(len(tp)), where=flagged > 0),
        pairs(steps.overlap_before, steps.overlap) / totals.regions,
    )


def _moves(steps: Steps, totals: Totals, most: int) -> np.ndarray:
    """Rows at which a rate enters the next of ``most`` equal strips."""
    keep = np.zeros(len(steps.score), bool)
    for values, start, total in (
        (steps.fp, steps.fp_start, totals.negatives),
        (steps.tp, steps.tp_start, totals.positives),
        (steps.overlap, steps.overlap_start, totals.regions),
    ):
        strip = np.floor(values * (most / total))
        keep |= np.diff(strip, prepend=np.floor(start * (most / total))) > 0
    return keep

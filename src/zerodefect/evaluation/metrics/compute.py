"""From a source of scores to the asked-for metrics, in one pass for all exact ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from zerodefect.evaluation.metrics import sampled
from zerodefect.evaluation.metrics.curves import (
    AreaUnderROC,
    AveragePrecision,
    Curve,
    FalsePositivesAtMiss,
    MaximumF1,
    RegionOverlap,
    Totals,
    TrapezoidPrecisionRecall,
)
from zerodefect.evaluation.metrics.results import Level, Metric, Query
from zerodefect.evaluation.metrics.source import Source

_CURVES: dict[tuple[str, str], Callable[[Totals, Query], Curve]] = {
    ("auroc", "exact"): lambda totals, query: AreaUnderROC(totals),
    ("ap", "step"): lambda totals, query: AveragePrecision(totals),
    ("ap", "trapezoid"): lambda totals, query: TrapezoidPrecisionRecall(totals),
    ("f1max", "exact"): lambda totals, query: MaximumF1(totals),
    ("fpr_at_miss", "exact"): lambda totals, query: FalsePositivesAtMiss(totals, query.limit),
    ("aupro", "exact"): lambda totals, query: RegionOverlap(totals, query.limit),
    ("aupro", "anomalib"): lambda totals, query: RegionOverlap(totals, query.limit),
    ("spro", "exact"): lambda totals, query: RegionOverlap(totals, query.limit),
}


def curve_of(query: Query, totals: Totals) -> Curve | None:
    """The exact curve behind a query, or None where it samples thresholds."""
    make = _CURVES.get((query.name, query.variant))
    return make(totals, query) if make else None


def why_undefined(totals: Totals, level: Level) -> str | None:
    """Why no metric is defined for a set of this size, or None."""
    things = "images" if level == "image" else "pixels"
    if not totals.positives and not totals.negatives:
        return f"no {things}"
    if not totals.positives:
        return f"no anomalous {things}"
    if not totals.negatives:
        return f"no normal {things}"
    return None


def compute(
    source: Source,
    queries: Sequence[Query],
    level: Level,
    mask_rule: str | None = None,
    group: str | None = None,
) -> list[Metric]:
    """Answer queries in their order; the scores are read once for all exact curves.

    Raises:
        SpillError: if spilled scores cannot be read.
    """
    reason = why_undefined(source.totals, level)
    curves = [None if reason else curve_of(query, source.totals) for query in queries]
    exact = [curve for curve in curves if curve]
    for steps in source.steps() if exact else ():
        for each in exact:
            each.add(steps)

    def answer(query: Query, curve: Curve | None) -> sampled.Answer:
        if reason:
            return math.nan, None, reason
        if curve:
            return curve.value, curve.threshold, None
        if query.name == "f1max":
            return sampled.grid_f1(source)
        return sampled.AUPRO[query.variant](source, query.limit)

    metrics = []
    for query, curve in zip(queries, curves, strict=True):
        value, threshold, why = answer(query, curve)
        metrics.append(
            Metric(
                level,
                query.name,
                query.variant,
                value,
                at=query.at,
                threshold=threshold,
                reason=why,
                mask_rule=mask_rule,
                group=group,
            )
        )
    return metrics

"""What is asked for, what is answered, and the errors of this room."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

Level = Literal["image", "pixel"]

VARIANTS: dict[str, tuple[str, ...]] = {
    "auroc": ("exact",),
    "ap": ("step", "trapezoid"),
    "f1max": ("exact", "grid21"),
    "aupro": (
        *("exact", "steps200", "steps200_afclip", "steps200_winclip", "quantile100_mvtec3d"),
        *("anomalib", "adeval_hist1000"),
    ),
    "fpr_at_miss": ("exact",),
    "spro": ("exact",),
}
"""Names of the metrics and of their variants, the default first (see :class:`Query`)."""

DEFAULT_AT = {"aupro": 0.3, "fpr_at_miss": 0.05, "spro": 0.05}
"""False-positive limit of ``aupro`` and ``spro``, miss rate of ``fpr_at_miss``."""

IMAGE_PANEL = ("auroc", "ap", "f1max", "fpr_at_miss")
"""The metrics that are reported for image scores unless others are named."""

PIXEL_PANEL = ("auroc", "ap", "f1max", "aupro", "fpr_at_miss")
"""The metrics that are reported for maps unless others are named."""


class MetricError(ValueError):
    """Scores, masks or states from which no metric can be computed."""


class SpillError(RuntimeError):
    """Scores could not be written to or read back from the spill folder."""


@dataclass(frozen=True)
class Query:
    """One metric to compute; written ``name[:variant][@at]``, for example ``aupro:steps200@0.1``.

    The variants, with ``score >= t`` counted as anomalous unless said otherwise:

    - ``auroc``: probability that an anomalous score is above a normal one, ties one half.
    - ``ap``: ``step`` is average precision, the sum of ``(R_i - R_{i-1}) P_i`` over distinct
      thresholds (scikit-learn); ``trapezoid`` is the area under the linearly joined
      precision-recall curve, often named AUPR.
    - ``f1max``: ``exact`` is the maximum over all distinct thresholds; ``grid21`` the maximum over
      21 equidistant thresholds from the lowest to the highest score of the whole set.
    - ``aupro``: area under the per-region overlap curve up to the false-positive rate ``at``,
      divided by ``at``. ``exact`` is MVTec's definition (8-connected regions, every distinct
      score a vertex, linear interpolation at the limit); ``anomalib`` is the same curve.
      ``steps200`` is what most CLIP papers print: 200 equidistant thresholds, ``score > t``,
      only vertices below the limit, their false-positive axis stretched to [0, 1];
      ``steps200_afclip`` divides by the largest kept rate instead of stretching;
      ``steps200_winclip`` counts hits inside the holes of a region too, so that it can exceed 1.
      ``quantile100_mvtec3d`` puts thresholds at 100 equidistant ranks of the normal scores.
      ``adeval_hist1000`` puts them at 1000 equal strips between lowest and highest score.
    - ``fpr_at_miss``: false-positive rate at the highest threshold that misses at most the share
      ``at`` of the anomalous samples.
    - ``spro``: AUPRO with saturation (MVTec LOCO); only from :class:`SPROMetrics`.

    Raises:
        MetricError: if name or variant is unknown or ``at`` out of range.
    """

    name: str
    variant: str = ""
    at: float | None = None

    def __post_init__(self) -> None:
        if self.name not in VARIANTS:
            raise MetricError(f"unknown metric {self.name!r}; known: {', '.join(VARIANTS)}")
        known = VARIANTS[self.name]
        object.__setattr__(self, "variant", self.variant or known[0])
        if self.variant not in known:
            raise MetricError(
                f"{self.name} has no variant {self.variant!r}; known: {', '.join(known)}"
            )
        at = DEFAULT_AT.get(self.name) if self.at is None else float(self.at)
        object.__setattr__(self, "at", at)
        if at is None:
            return
        if self.name not in DEFAULT_AT:
            raise MetricError(f"{self.name} takes no '@' value")
        if not (0 < at <= 1 or (at == 0 and self.name == "fpr_at_miss")):
            raise MetricError(f"{self.name}@{at:g}: must be above 0 and at most 1")

    @property
    def limit(self) -> float:
        """The number behind the ``@``; 0 where the metric takes none."""
        return self.at or 0.0

    @classmethod
    def parse(cls, text: str | Query) -> Query:
        """Read ``name[:variant][@at]``.

        Raises:
            MetricError: if the text names no known metric.
        """
        if isinstance(text, Query):
            return text
        head, _, at = text.strip().partition("@")
        name, _, variant = head.partition(":")
        try:
            number = float(at) if at else None
        except ValueError:
            raise MetricError(f"{text!r}: {at!r} is not a number") from None
        return cls(name, variant, number)

    def __str__(self) -> str:
        """``name:variant`` with ``@at`` where the metric has one; :meth:`parse` reads it back."""
        return f"{self.name}:{self.variant}" + ("" if self.at is None else f"@{self.at:g}")


@dataclass(frozen=True)
class Metric:
    """One computed metric, with everything that is needed to compare it honestly.

    Attributes:
        level: whether images or pixels were ranked.
        name: metric, a key of ``VARIANTS``.
        variant: definition of it, one of ``VARIANTS[name]``.
        value: the number; NaN where it is undefined, never 0 in its place.
        at: false-positive limit (``aupro``, ``spro``) or miss rate (``fpr_at_miss``), or None.
        threshold: score at which ``f1max`` or ``fpr_at_miss`` is reached, or None.
        reason: why ``value`` is NaN, or None.
        error_bound: the exact value lies within ``value`` plus or minus this; 0 for exact states.
        mask_rule: how masks were resized and binarised, as named by the caller; None for images.
        group: subset that the number belongs to (defect kinds of sPRO), or None.
    """

    level: Level
    name: str
    variant: str
    value: float
    at: float | None = None
    threshold: float | None = None
    reason: str | None = None
    error_bound: float = 0.0
    mask_rule: str | None = None
    group: str | None = None

    @property
    def label(self) -> str:
        """Level, name and variant in one line, such as ``pixel aupro:exact@0.3``."""
        return f"{self.level} {Query(self.name, self.variant, self.at)}"

    def __str__(self) -> str:
        """Label and value, with the error bound or the reason where there is one."""
        where = f" [{self.group}]" if self.group else ""
        if self.reason:
            return f"{self.label}{where}: undefined ({self.reason})"
        bound = f" ± {self.error_bound:.1g}" if self.error_bound else ""
        return f"{self.label}{where}: {self.value:.4f}{bound}"


def average(metrics: Sequence[Metric]) -> Metric:
    """Mean with equal weight of one metric over several products; undefined ones are left out.

    ``reason`` stays None as long as one value is defined; ``group`` then says how many were left
    out. The error bound is the mean of the bounds.

    Raises:
        MetricError: if the metrics are not all of the same level, name, variant and limit, or
            their masks were made by different rules.
    """
    if not metrics:
        raise MetricError("nothing to average")
    if len({(m.label, m.mask_rule) for m in metrics}) > 1:
        kinds = sorted({f"{m.label} (masks: {m.mask_rule})" for m in metrics})
        raise MetricError(f"not the same metric: {', '.join(kinds)}")
    first, defined = metrics[0], [m for m in metrics if not math.isnan(m.value)]
    count = len(defined)
    group = "mean" if count == len(metrics) else f"mean of {count} of {len(metrics)}"
    return replace(
        first,
        value=math.fsum(m.value for m in defined) / count if count else math.nan,
        threshold=None,
        reason=None if count else "undefined for every group",
        error_bound=math.fsum(m.error_bound for m in defined) / count if count else 0.0,
        group=group,
    )

"""Image metrics: one score and one label per image."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from zerodefect.evaluation.metrics.compute import compute, why_undefined
from zerodefect.evaluation.metrics.regions import as_array
from zerodefect.evaluation.metrics.results import (
    IMAGE_PANEL,
    Metric,
    MetricError,
    Query,
    SpillError,
)
from zerodefect.evaluation.metrics.source import ScoresSource
from zerodefect.evaluation.metrics.vertices import CurvePoints, curve_points

_FORMAT = "zerodefect-image-scores"


class ImageMetrics:
    """Exact image metrics, fed score by score or batch by batch; 8 bytes per image are kept.

    The result is the same to the last bit however images were ordered or split over states.
    """

    def __init__(self) -> None:
        self._scores: dict[bool, list[float]] = {True: [], False: []}

    @property
    def images(self) -> int:
        """Number of scores taken so far."""
        return len(self._scores[True]) + len(self._scores[False])

    def update(self, score: Any, label: Any) -> None:
        """Take one image or a batch.

        Args:
            score: number or ``(B,)``, higher is more anomalous; taken as float64.
            label: bool or ``(B,)``, True or 1 for anomalous.

        Raises:
            MetricError: for NaN or infinite scores, labels other than 0 and 1, or different
                lengths. The state is unchanged.
        """
        scores = np.atleast_1d(as_array(score)).astype(np.float64)
        labels = np.atleast_1d(as_array(label))
        if scores.ndim != 1 or scores.shape != labels.shape:
            raise MetricError(f"scores {scores.shape} and labels {labels.shape} must be (B,) both")
        if not np.isfinite(scores).all():
            raise MetricError("image scores hold NaN or infinite values; no metric is defined")
        if not np.isin(labels, (0, 1)).all():
            raise MetricError("labels must be 0 (normal) or 1 (anomalous)")
        anomalous = labels.astype(bool)
        self._scores[True] += scores[anomalous].tolist()
        self._scores[False] += scores[~anomalous].tolist()

    def merge(self, other: ImageMetrics) -> None:
        """Add all images of another state, which stays as it is.

        Raises:
            MetricError: if it is this state itself.
        """
        if other is self:
            raise MetricError("a state cannot be merged with itself: every image would count twice")
        for label, scores in other._scores.items():
            self._scores[label] += scores

    def compute(self, queries: Iterable[str | Query] = IMAGE_PANEL) -> list[Metric]:
        """Compute metrics of everything taken so far.

        Args:
            queries: as described at :class:`Query`; AUPRO and sPRO need maps.

        Raises:
            MetricError: for a query that is unknown or needs maps.
        """
        asked = [Query.parse(query) for query in queries]
        for query in asked:
            if query.name in ("aupro", "spro"):
                raise MetricError(f"{query.name} ranks pixels; it is not defined for image scores")
        return compute(self._source(), asked, "image")

    def curves(self, most: int | None = None) -> CurvePoints:
        """Points of the ROC and precision-recall curves, for drawing.

        Args:
            most: steps into which every rate is divided; None for all vertices.

        Raises:
            MetricError: if there are no normal or no anomalous images.
        """
        source = self._source()
        reason = why_undefined(source.totals, "image")
        if reason:
            raise MetricError(f"no curve: {reason}")
        return curve_points(source, most)

    def _source(self) -> ScoresSource:
        return ScoresSource(np.array(self._scores[True]), np.array(self._scores[False]))

    def save(self, path: str | Path) -> None:
        """Save as JSON; numbers are written so that they are read back unchanged.

        Raises:
            SpillError: if the file cannot be written.
        """
        content = {
            "format": _FORMAT,
            "version": 1,
            "anomalous": self._scores[True],
            "normal": self._scores[False],
        }
        try:
            Path(path).write_text(json.dumps(content), "utf-8")
        except OSError as error:
            raise SpillError(f"cannot save a state to {path}: {error.strerror}") from error

    @classmethod
    def load(cls, path: str | Path) -> ImageMetrics:
        """Load a saved state.

        Raises:
            MetricError: if the file is not a saved state.
        """
        state = cls()
        try:
            content = json.loads(Path(path).read_text("utf-8"))
            if (content["format"], content["version"]) != (_FORMAT, 1):
                raise MetricError(f"{path}: not a saved state of image scores, version 1")
            for label, name in ((1, "anomalous"), (0, "normal")):
                state.update(content[name], np.full(len(content[name]), label))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise MetricError(f"{path} holds no saved state: {error!r}") from error
        return state


def image_metrics(
    scores: Any, labels: Any, queries: Iterable[str | Query] = IMAGE_PANEL
) -> list[Metric]:
    """Image metrics of scores ``(N,)`` and labels ``(N,)``, 1 for anomalous.

    Raises:
        MetricError: as :meth:`ImageMetrics.update` and :meth:`ImageMetrics.compute`.
    """
    state = ImageMetrics()
    state.update(scores, labels)
    return state.compute(queries)

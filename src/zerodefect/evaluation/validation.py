"""Figures of a detector while it is trained."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from pathlib import Path

from zerodefect.data import Dataset, distinct, open_dataset
from zerodefect.detector.contract import Detector
from zerodefect.evaluation.evaluator import Evaluator
from zerodefect.evaluation.protocol import ALL, Protocol

_PROTOCOL = Protocol(
    resolution="network", image_queries=("auroc", "ap"), pixel_queries=("auroc", "aupro@0.3")
)

_log = logging.getLogger("zerodefect")


class Validation:
    """Measures a detector after each epoch of ``zerodefect.fit``, as ``zerodefect evaluate`` does.

    Args:
        targets: data sets to measure on, as ``zerodefect.fit`` takes them; nothing of them may be
            learned from.
        layout: of the data sets, where it should not be recognised.

    Attributes:
        targets: as read.
    """

    def __init__(self, targets: Iterable[Dataset | str | Path], layout: str = "auto") -> None:
        self.targets = distinct([open_dataset(entry, layout) for entry in targets])
        self._evaluators: list[Evaluator] = []
        for remark in (remark for target in self.targets for remark in target.remarks()):
            _log.info("%s", remark)

    def prepare(
        self, detector: Detector, names: dict[str, str], bit_depth: int | None = None
    ) -> None:
        """Get ready to measure a detector; ``names`` are words per product.

        Raises:
            ValueError: a target has no labelled pictures.
        """
        self._evaluators = [
            Evaluator(detector, target, _PROTOCOL, names=names, bit_depth=bit_depth)
            for target in self.targets
        ]
        for evaluator in self._evaluators:
            evaluator.count()

    def __call__(self, detector: Detector) -> dict[str, float]:
        """Mean of each metric over the products, by data set, level and name."""
        found: dict[str, float] = {}
        for evaluator in self._evaluators:
            values: dict[str, list[float]] = {}
            for row in evaluator.run().rows:
                if row.group == ALL and not math.isnan(row.metric.value):
                    name = f"{row.metric.level} {row.metric.name}"
                    values.setdefault(name, []).append(row.metric.value)
            for name, each in values.items():
                found[f"{evaluator.dataset.name} {name}"] = sum(each) / len(each)
        told = ", ".join(f"{name} {value:.4f}" for name, value in found.items())
        _log.info("validation of %s: %s", detector.info.name, told)
        return found

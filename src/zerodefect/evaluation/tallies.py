"""Metric states of one product under one setting."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from zerodefect.evaluation.metrics import (
    HistogramPixelMetrics,
    ImageMetrics,
    PixelMetrics,
    PixelState,
    SPROMetrics,
)
from zerodefect.evaluation.protocol import ALL, Protocol, Row


@dataclass
class Tally:
    """Scores and maps of one product under one setting, by kind of defect."""

    protocol: Protocol
    saturated: SPROMetrics | None = None
    image: dict[str, ImageMetrics] = field(default_factory=lambda: defaultdict(ImageMetrics))
    pixel: dict[str, PixelState] = field(default_factory=dict)
    scores: list[float] = field(default_factory=list)
    labels: list[bool] = field(default_factory=list)

    def add_score(self, kind: str, anomalous: bool, score: float) -> None:
        """Take the score of a picture."""
        self.image[kind].update(score, anomalous)
        self.scores.append(score)
        self.labels.append(anomalous)

    def add_map(
        self, kind: str, map: np.ndarray, mask: np.ndarray, valid: np.ndarray | None
    ) -> None:
        """Take the map of a picture, where ``valid`` counts; all ``(H, W)``."""
        if kind not in self.pixel:
            self.pixel[kind] = self._pixel_metrics()
        self.pixel[kind].update(map, mask, valid)

    def _pixel_metrics(self) -> PixelState:
        if self.protocol.approximate:
            return HistogramPixelMetrics(mask_rule=self.protocol.mask_rule)
        holes = any("steps200_winclip" in query for query in self.protocol.pixel_queries)
        return PixelMetrics(mask_rule=self.protocol.mask_rule, fill_holes=holes)

    def rows(self, product: str, shots: int, seed: int) -> Iterator[Row]:
        """Every metric of every group."""
        good = ["good"] if "good" in self.image else []
        kinds = [kind for kind in self.image if kind != "good"]
        groups = {ALL: [*good, *kinds], **{kind: [*good, kind] for kind in kinds}}
        for group, members in groups.items():
            image = ImageMetrics()
            for kind in members:
                image.merge(self.image[kind])
            for metric in image.compute(self.protocol.image_queries):
                yield Row(product, group, shots, seed, metric, image.images)
            # a kind's pixels alone: data sets without good pictures have them, too
            parts = members if group == ALL else [group]
            states = [self.pixel[kind] for kind in parts if kind in self.pixel]
            if not states:
                continue
            pixel = states[0]
            if len(states) > 1:
                pixel = self._pixel_metrics()
                for state in states:
                    pixel.merge(state)
            for metric in pixel.compute(self.protocol.plain_queries):
                yield Row(product, group, shots, seed, metric, pixel.images)
        if self.saturated:
            for metric in self.saturated.compute(self.protocol.spro_limits):
                group = metric.group if metric.group in self.saturated.groups else ALL
                images = sum(self.pixel[k].images for k in groups[group] if k in self.pixel)
                yield Row(product, group, shots, seed, metric, images)

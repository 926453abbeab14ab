"""One protocol for all methods: what is measured, on which pictures, at which size, and how."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from zerodefect.data import MASK_RULES
from zerodefect.data.dataset import GOOD
from zerodefect.evaluation.count_errors import CountErrors
from zerodefect.evaluation.data_frame import data_frame
from zerodefect.evaluation.kind_confusion import Confusion
from zerodefect.evaluation.metrics import (
    IMAGE_PANEL,
    PIXEL_PANEL,
    HistogramPixelMetrics,
    ImageMetrics,
    Metric,
    PixelMetrics,
    PixelState,
    Query,
    SPROMetrics,
)
from zerodefect.evaluation.worst_cases import WorstCase
from zerodefect.types import Failure

if TYPE_CHECKING:
    import pandas as pd

ALL = "all"
"""Group that pools every kind of a product."""


@dataclass(frozen=True)
class Protocol:
    """What an evaluation does; stored whole with its result.

    Attributes:
        shots: numbers of references to try; 0 is zero-shot.
        seeds: draws of references per number above 0.
        resolution: where map and mask meet: each picture's own size (MVTec's scripts), the
            network's input size (most CLIP papers), or a square of that many pixels.
        mask_rule: how masks are resized, see ``data.read_mask``.
        smoothing: standard deviation of a Gaussian on the map, in pixels at ``resolution``.
        image_queries, pixel_queries: metrics, as ``metrics.Query`` writes them. sPRO joins the
            panel where the data set says how much of a defect must be found (MVTec LOCO AD).
        approximate: pixel metrics in constant memory, each with a bound on its error, instead of
            exact ones that keep every score; sPRO stays exact.
        set_level: name of an official step over all pictures of a product, see
            ``Detector.set_level``; figures are then transductive.
        alike: crop the centre of every picture to the same number of pixels first, the largest
            that all pictures of the product have. Where size or crop go with the label, only then
            does an image figure tell of defects.
        allow_training_pictures: measure also where the method learned from pictures that it is
            measured on; such figures say nothing of new pictures.
        kind_examples: pictures of each kind that are drawn as its examples, and left out, to tell
            the kinds of the others by; 0 tells them by words, or as a product was taught. None
            tells no kinds.
        batch_size: network inputs at once; changes no number.
    """

    shots: tuple[int, ...] = (0,)
    seeds: int = 1
    resolution: Literal["picture", "network"] | int = "picture"
    mask_rule: str = "nonzero"
    smoothing: float = 0.0
    image_queries: tuple[str, ...] = IMAGE_PANEL
    pixel_queries: tuple[str, ...] = PIXEL_PANEL
    approximate: bool = False
    set_level: str | None = None
    alike: bool = False
    allow_training_pictures: bool = False
    kind_examples: int | None = None
    batch_size: int = 8

    def __post_init__(self) -> None:
        if not self.shots or min(self.shots) < 0 or self.seeds < 1:
            raise ValueError("name at least one number of shots, 0 or more, and at least one seed")
        if isinstance(self.resolution, int) and self.resolution < 1:
            raise ValueError(f"a resolution of {self.resolution} pixels")
        if self.kind_examples is not None and self.kind_examples < 0:
            raise ValueError("name 0 or more examples of each kind")
        if self.mask_rule not in MASK_RULES:
            raise ValueError(f"no mask rule {self.mask_rule!r}; there are: {', '.join(MASK_RULES)}")
        for query in (*self.image_queries, *self.pixel_queries):
            Query.parse(query)  # an unknown metric is an error before the work
        if self.approximate:
            HistogramPixelMetrics(bins=1).compute(self.plain_queries)  # as is one without a bound
        if len(self.plain_queries) < len(self.pixel_queries) and not self.at_picture_size:
            raise ValueError(
                "spro counts pixels of the pictures' own size: it needs the resolution 'picture' "
                "and no common crop"
            )

    @property
    def at_picture_size(self) -> bool:
        """Whether maps and masks meet at the picture's own, whole size."""
        return self.resolution == "picture" and not self.alike

    @property
    def plain_queries(self) -> tuple[str, ...]:
        """Pixel metrics that a mask alone is enough for."""
        return tuple(query for query in self.pixel_queries if Query.parse(query).name != "spro")

    @property
    def spro_limits(self) -> tuple[float, ...]:
        """False-positive limits of sPRO: those that were named, or its own with the panel."""
        texts = ("spro",) if self.pixel_queries == PIXEL_PANEL else self.pixel_queries
        return tuple(q.limit for q in map(Query.parse, texts) if q.name == "spro")

    def settings(self) -> Iterator[tuple[int, int]]:
        """Pairs of shots and seed; zero-shot has one seed, since nothing is drawn."""
        for shots in self.shots:
            yield from ((shots, seed) for seed in range(self.seeds if shots else 1))


@dataclass(frozen=True)
class Row:
    """One metric of one group of pictures.

    Attributes:
        product: of the data set.
        group: a defect kind, or ``ALL``. Image metrics of a kind compare its pictures with the
            good ones; pixel metrics of a kind look at its own pictures alone.
        shots, seed: of the references.
        metric: value, name and variant.
        images: pictures that went in.
    """

    product: str
    group: str
    shots: int
    seed: int
    metric: Metric
    images: int


class Tally:
    """Scores and maps of one product under one setting, by kind of defect.

    Pictures of a kind come one after the other: pixel metrics of a kind are computed when the next
    one begins, so that two states of pixel scores are held, however many kinds there are.
    """

    def __init__(self, protocol: Protocol, saturated: SPROMetrics | None = None) -> None:
        self.protocol, self.saturated = protocol, saturated
        self.image: dict[str, ImageMetrics] = defaultdict(ImageMetrics)
        self.scores: list[float] = []
        self.labels: list[bool] = []
        self._whole = self._pixel_metrics()
        self._present: tuple[str, PixelState] | None = None
        self._pixel: dict[str, list[Metric]] = {}  # of the kinds that are done
        self._maps: dict[str, int] = defaultdict(int)

    def add_score(self, kind: str, anomalous: bool, score: float) -> None:
        """Take the score of a picture."""
        self.image[kind].update(score, anomalous)
        self.scores.append(score)
        self.labels.append(anomalous)

    def add_map(
        self, kind: str, map: np.ndarray, mask: np.ndarray, valid: np.ndarray | None
    ) -> None:
        """Take the map of a picture, where ``valid`` counts; all ``(H, W)``.

        Raises:
            ValueError: the pictures of a kind do not come one after the other.
        """
        self._maps[kind] += 1
        if kind == GOOD:  # no group of its own
            self._whole.update(map, mask, valid)
            return
        if self._present is None or self._present[0] != kind:
            self._close()
            if kind in self._pixel:
                raise ValueError(f"pictures of {kind!r} must come one after the other")
            self._present = kind, self._pixel_metrics()
        self._present[1].update(map, mask, valid)

    def _close(self) -> None:
        """Compute what the present kind has, and keep its pixels among those of all kinds."""
        if self._present:
            kind, state = self._present
            self._pixel[kind] = state.compute(self.protocol.plain_queries)
            self._whole.merge(state)
            self._present = None

    def _pixel_metrics(self) -> PixelState:
        if self.protocol.approximate:
            return HistogramPixelMetrics(mask_rule=self.protocol.mask_rule)
        holes = any("steps200_winclip" in query for query in self.protocol.pixel_queries)
        return PixelMetrics(mask_rule=self.protocol.mask_rule, fill_holes=holes)

    def rows(self, product: str, shots: int, seed: int) -> Iterator[Row]:
        """Every metric of every group."""
        self._close()
        good = [GOOD] if GOOD in self.image else []
        kinds = [kind for kind in self.image if kind != GOOD]
        groups = {ALL: [*good, *kinds], **{kind: [*good, kind] for kind in kinds}}
        for group, members in groups.items():
            image = ImageMetrics()
            for kind in members:
                image.merge(self.image[kind])
            for metric in image.compute(self.protocol.image_queries):
                yield Row(product, group, shots, seed, metric, image.images)
            # a kind's pixels alone: data sets without good pictures have them, too
            if group == ALL:
                some = self._whole.images > 0
                found = self._whole.compute(self.protocol.plain_queries) if some else []
                images = self._whole.images
            else:
                found, images = self._pixel.get(group, []), self._maps[group]
            for metric in found:
                yield Row(product, group, shots, seed, metric, images)
        if self.saturated:
            for metric in self.saturated.compute(self.protocol.spro_limits):
                group = metric.group if metric.group in self.saturated.groups else ALL
                images = sum(self._maps[kind] for kind in groups[group])
                yield Row(product, group, shots, seed, metric, images)


@dataclass(frozen=True)
class PictureScore:
    """What a picture scored.

    Attributes:
        image: path relative to the data set.
        product, kind, anomalous: as the data set has them.
        shots, seed: of the references.
        score: raw image score; the higher, the more anomalous.
    """

    image: str
    product: str
    kind: str
    anomalous: bool
    shots: int
    seed: int
    score: float


@dataclass(frozen=True, repr=False)
class Evaluation:
    """Result of one method on one data set.

    Attributes:
        rows: every metric measured.
        scores: per ``(product, shots, seed)`` the image scores and labels, for curves.
        pictures: what every picture scored.
        worst: the pictures that were judged worst, see ``worst_cases``.
        failures: pictures and masks that could not be used; they are left out of all figures.
        notes: consequences that the reader should know.
        set_level_shots: numbers of references at which the set-level step was applied.
        confusions: which kinds were called what, where the protocol asks for it.
        counts: how far numbers of defects lie from the masks, where kinds are asked for.
        facts: detector, data, protocol and versions.
    """

    rows: tuple[Row, ...]
    scores: dict[tuple[str, int, int], tuple[np.ndarray, np.ndarray]]
    pictures: tuple[PictureScore, ...]
    worst: tuple[WorstCase, ...]
    failures: tuple[Failure, ...]
    notes: tuple[str, ...]
    set_level_shots: tuple[int, ...]
    facts: dict[str, Any]
    confusions: tuple[Confusion, ...] = ()
    counts: tuple[CountErrors, ...] = ()

    def __repr__(self) -> str:
        """Its figures in one line."""
        from zerodefect.evaluation.result_tables import headline

        return headline(self.facts["detector"]["method"], self)

    def to_frame(self) -> pd.DataFrame:
        """A pandas table: each metric of each product and group, over the seeds; see ``Cell``.

        Raises:
            ImportError: pandas is not installed.
        """
        from zerodefect.evaluation.result_tables import Cell, summarise

        columns = [field.name for field in fields(Cell)]
        cells = summarise(self.rows)
        return data_frame(([getattr(cell, name) for name in columns] for cell in cells), columns)

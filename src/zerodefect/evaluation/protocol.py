"""One protocol for all methods: what is measured, on which pictures, at which size."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch

from zerodefect.backbones.clip_weights import file_hash
from zerodefect.data import MASK_RULES, Dataset, Sample, read_channels, read_mask
from zerodefect.detector.contract import Detector
from zerodefect.evaluation.metrics import (
    IMAGE_PANEL,
    PIXEL_PANEL,
    ImageMetrics,
    Metric,
    MetricError,
    PixelMetrics,
    Query,
    Saturation,
    SPROMetrics,
)
from zerodefect.evaluation.prediction_cache import PredictionCache
from zerodefect.images import ImageError, Picture, open_image, picture_size
from zerodefect.layers.smoothing import gaussian_smooth
from zerodefect.scoring.scorer import Scorer, Viewing, read_area, resize_area
from zerodefect.types import Failure
from zerodefect.version import __version__

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
        alike: crop the centre of every picture to the same number of pixels first, the largest
            that all pictures of the product have. Where size or crop go with the label, only then
            does an image figure tell of defects.
        batch_size: network inputs at once; changes no number.
    """

    shots: tuple[int, ...] = (0,)
    seeds: int = 1
    resolution: Literal["picture", "network"] | int = "picture"
    mask_rule: str = "nonzero"
    smoothing: float = 0.0
    image_queries: tuple[str, ...] = IMAGE_PANEL
    pixel_queries: tuple[str, ...] = PIXEL_PANEL
    alike: bool = False
    batch_size: int = 8

    def __post_init__(self) -> None:
        if not self.shots or min(self.shots) < 0 or self.seeds < 1:
            raise ValueError("name at least one number of shots, 0 or more, and at least one seed")
        if isinstance(self.resolution, int) and self.resolution < 1:
            raise ValueError(f"a resolution of {self.resolution} pixels")
        if self.mask_rule not in MASK_RULES:
            raise ValueError(f"no mask rule {self.mask_rule!r}; there are: {', '.join(MASK_RULES)}")
        for query in (*self.image_queries, *self.pixel_queries):
            Query.parse(query)  # an unknown metric is an error before the work
        if self._named_spro and not self.at_picture_size:
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
        default = (Query("spro").limit,) if self.pixel_queries == PIXEL_PANEL else ()
        return self._named_spro or default

    @property
    def _named_spro(self) -> tuple[float, ...]:
        queries = map(Query.parse, self.pixel_queries)
        return tuple(query.limit for query in queries if query.name == "spro")

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


@dataclass(frozen=True)
class Evaluation:
    """Result of one method on one data set.

    Attributes:
        rows: every metric measured.
        scores: per ``(product, shots, seed)`` the image scores and labels, for curves.
        failures: pictures and masks that could not be used; they are left out of all figures.
        notes: consequences that the reader should know.
        facts: detector, data, protocol and versions.
    """

    rows: tuple[Row, ...]
    scores: dict[tuple[str, int, int], tuple[np.ndarray, np.ndarray]]
    failures: tuple[Failure, ...]
    notes: tuple[str, ...]
    facts: dict[str, Any]


@dataclass
class _Groups:
    """Metric states of one product under one setting."""

    protocol: Protocol
    saturated: SPROMetrics | None = None
    image: dict[str, ImageMetrics] = field(default_factory=dict)
    pixel: dict[str, PixelMetrics] = field(default_factory=dict)
    scores: list[float] = field(default_factory=list)
    labels: list[bool] = field(default_factory=list)

    def add_score(self, kind: str, anomalous: bool, score: float) -> None:
        self.image.setdefault(kind, ImageMetrics()).update(score, anomalous)
        self.scores.append(score)
        self.labels.append(anomalous)

    def add_map(
        self, kind: str, map: np.ndarray, mask: np.ndarray, valid: np.ndarray | None
    ) -> None:
        if kind not in self.pixel:
            self.pixel[kind] = self._pixel_metrics()
        self.pixel[kind].update(map, mask, valid)

    def _pixel_metrics(self) -> PixelMetrics:
        holes = any("steps200_winclip" in query for query in self.protocol.pixel_queries)
        return PixelMetrics(mask_rule=self.protocol.mask_rule, fill_holes=holes)

    def rows(self, product: str, shots: int, seed: int) -> Iterator[Row]:
        good = [kind for kind in self.image if kind == "good"]
        kinds = [kind for kind in self.image if kind != "good"]
        for group, members in ((ALL, [*good, *kinds]), *((k, [*good, k]) for k in kinds)):
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
                members = [*good, *kinds] if group == ALL else [*good, group]
                images = sum(self.pixel[kind].images for kind in members if kind in self.pixel)
                yield Row(product, group or ALL, shots, seed, metric, images)


class Evaluator:
    """Evaluates one detector on one data set.

    Args:
        detector: freshly loaded; its words and memory are replaced.
        dataset: labelled pictures.
        protocol: what to measure.
        viewing: how pictures are shown to the network.
        names: product -> words for it; by default the product's own name.
        roi, ignore: mask pictures; what lies outside counts nowhere.
        cache: predictions of earlier runs, reused and added to.
    """

    def __init__(
        self,
        detector: Detector,
        dataset: Dataset,
        protocol: Protocol,
        *,
        viewing: Viewing | None = None,
        names: dict[str, str] | None = None,
        roi: Picture | None = None,
        ignore: Picture | None = None,
        cache: PredictionCache | None = None,
    ) -> None:
        self.detector = detector
        self.dataset = dataset
        self.protocol = protocol
        self.names = names or {}
        self.roi, self.ignore = roi, ignore
        self._areas = [p and hashlib.sha256(p.pixels.tobytes()).hexdigest() for p in (roi, ignore)]
        self.cache = cache or PredictionCache(None)
        self.scorer = Scorer(
            detector, viewing, protocol.batch_size, map_size=self._map_size(protocol.resolution)
        )
        self._failures: dict[str, Failure] = {}
        self._notes: dict[str, None] = {}

    def _map_size(self, resolution: str | int) -> tuple[int, int] | None:
        if resolution == "picture":
            return None
        if resolution == "network":
            return self.detector.preprocess.size
        return int(resolution), int(resolution)

    def test_samples(self, product: str) -> tuple[Sample, ...]:
        """Labelled pictures of a product to measure on: its test split, or all if it has none.

        Raises:
            ValueError: none is labelled.
        """
        samples = self.dataset.select(product=product).samples
        if any(sample.split == "test" for sample in samples):
            samples = tuple(s for s in samples if s.split == "test")
        labelled = tuple(s for s in samples if s.anomalous is not None)
        if not labelled:
            raise ValueError(
                f"{self.dataset.name}: {product!r} has no labelled pictures to measure on. Sort "
                "them into good/ and a folder for each defect kind, or give labels in a table"
            )
        return labelled

    def count(self) -> int:
        """Predictions that the protocol takes."""
        settings = len(list(self.protocol.settings()))
        return settings * sum(len(self.test_samples(p)) for p in self.dataset.products)

    def check(self) -> None:
        """Make sure that the draws of references are possible, before the long work.

        Raises:
            ValueError: a product has fewer good training pictures than the largest draw, or sPRO
                was named and the data set does not say how much of a defect must be found.
        """
        if self.protocol.spro_limits and self.protocol.pixel_queries != PIXEL_PANEL:
            unknown = [p for p in self.dataset.products if not self.dataset.defects.get(p)]
            if unknown:
                raise ValueError(
                    f"{self.dataset.name}: spro needs the saturation of every kind of defect, "
                    f"which only MVTec LOCO AD's defects_config.json gives; {', '.join(unknown)} "
                    "has none. Name other pixel metrics"
                )
        most = max(self.protocol.shots)
        for product in self.dataset.products:
            good = len(self.dataset.good_train(product))
            if most > good:
                raise ValueError(
                    f"{self.dataset.name}: {most}-shot needs {most} good training pictures of "
                    f"{product!r}, and there are {good}. Put good ones into train/good, or ask "
                    "for fewer (--k-shot 0 needs none)"
                )

    def run(self, on_image: Callable[[], None] = lambda: None) -> Evaluation:
        """Measure everything.

        Raises:
            ValueError: too few good training pictures for the shots, or nothing labelled.
            UnsupportedError: the method takes no references and shots were asked for.
        """
        self.check()
        rows: list[Row] = []
        scores = {}
        for product in self.dataset.products:
            samples = self.test_samples(product)
            crop = self._common_side(samples) if self.protocol.alike else None
            self._fill(product, samples, crop)
            for shots, seed in self.protocol.settings():
                key = self._prepare(product, shots, seed, crop)
                groups = _Groups(self.protocol, self._saturated(product, samples))
                for sample, score, map in self._predictions(samples, key, crop, on_image):
                    self._add(groups, sample, score, map, crop)
                rows += groups.rows(product, shots, seed)
                scores[product, shots, seed] = (np.array(groups.scores), np.array(groups.labels))
        return Evaluation(
            tuple(rows), scores, tuple(self._failures.values()), tuple(self._notes), self.facts()
        )

    def _saturated(self, product: str, samples: Iterable[Sample]) -> SPROMetrics | None:
        """State of sPRO, where the data set says how much of a defect must be found."""
        kinds = list(dict.fromkeys(s.kind for s in samples if s.anomalous))
        if not (self.protocol.spro_limits and self.dataset.defects.get(product) and kinds):
            return None
        if not self.protocol.at_picture_size:
            note = "no sPRO: it counts pixels of whole pictures at their own size"
            self._notes[f"{note} (--resolution picture, without --alike)"] = None
            return None
        return SPROMetrics(kinds, mask_rule=self.protocol.mask_rule)

    def facts(self) -> dict[str, Any]:
        """Everything that a reader needs to repeat the evaluation, as plain data."""
        facts = self.detector.facts()
        return {
            "detector": {k: v for k, v in facts.items() if k not in ("object", "shots")},
            "names": {p: self.names.get(p, p) for p in self.dataset.products},
            "viewing": asdict(self.scorer.viewing),
            "data": {
                "name": self.dataset.name,
                "layout": self.dataset.layout,
                "fingerprint": self.dataset.fingerprint(),
            },
            "protocol": asdict(self.protocol),
            "versions": {"zerodefect": __version__, "torch": torch.__version__},
        }

    # --- all settings at once ---------------------------------------------------------------------

    def _fill(self, product: str, samples: Sequence[Sample], crop: int | None) -> None:
        """Predict under all settings into the cache, running the network once for each picture."""
        settings = list(self.protocol.settings())
        if len(settings) < 2 or not self.cache.folder or self.scorer.viewing.tiling:
            return
        shelves, states = [], []
        for shots, seed in settings:
            shelves.append(self.cache.shelf(self._prepare(product, shots, seed, crop)))
            states.append(dict(self.detector.named_buffers()))
        missing = [s for s in samples if not all(shelf.has(s.image) for shelf in shelves)]
        for start in range(0, len(missing), self.protocol.batch_size):
            opened = []
            for sample in missing[start : start + self.protocol.batch_size]:
                with suppress(ImageError):  # its failure is recorded when it is measured
                    opened.append((sample, _centre(open_image(sample.image), crop)))
            pictures = [picture for _, picture in opened]
            areas = [self._area(picture) for picture in pictures]
            for shelf, scored in zip(
                shelves, self.scorer.score_each(pictures, areas, states), strict=True
            ):
                for (sample, _), one in zip(opened, scored, strict=True):
                    shelf.put(sample.image, one.score, self._smoothed(one.map))

    def _smoothed(self, map: np.ndarray) -> np.ndarray:
        if not self.protocol.smoothing:
            return map
        return gaussian_smooth(torch.from_numpy(map), self.protocol.smoothing).numpy()

    # --- one setting ----------------------------------------------------------------------------

    def _prepare(self, product: str, shots: int, seed: int, crop: int | None) -> dict[str, Any]:
        """Set words and references; returns what the predictions depend on."""
        known = self.detector.info.knows_from
        if "words" in known:
            self.detector.describe(self.names.get(product, product))
        references: list[str] = []
        if "references" in known:
            self.detector.forget()
        if shots:
            drawn = self.dataset.k_shot(product, shots, seed)
            pictures = [_centre(open_image(s.image), crop) for s in drawn]
            views = (v for p in pictures for v in self.scorer.views(p, self._area(p)))
            self.scorer.remember(views)
            references = sorted(file_hash(sample.image) for sample in drawn)
        return {
            "detector": self.detector.facts(),
            "references": references,
            "viewing": asdict(self.scorer.viewing),
            "map_size": self.scorer.map_size,
            "smoothing": self.protocol.smoothing,
            "crop": crop,
            "areas": self._areas,
        }

    def _predictions(
        self,
        samples: Iterable[Sample],
        key: dict[str, Any],
        crop: int | None,
        on_image: Callable[[], None],
    ) -> Iterator[tuple[Sample, float, np.ndarray]]:
        shelf = self.cache.shelf(key)
        waiting: list[tuple[Sample, Picture]] = []
        for sample in samples:
            on_image()
            found = shelf.get(sample.image)
            if found:
                yield sample, *found
                continue
            try:
                waiting.append((sample, _centre(open_image(sample.image), crop)))
            except ImageError as error:
                self._failures[str(sample.image)] = error.failure
            if len(waiting) >= self.protocol.batch_size:
                yield from self._score(waiting, shelf)
                waiting = []
        yield from self._score(waiting, shelf)

    def _score(
        self, waiting: list[tuple[Sample, Picture]], shelf: Any
    ) -> Iterator[tuple[Sample, float, np.ndarray]]:
        pictures = [picture for _, picture in waiting]
        scored = self.scorer.score(pictures, [self._area(p) for p in pictures])
        for (sample, _), one in zip(waiting, scored, strict=True):
            map = self._smoothed(one.map)
            shelf.put(sample.image, one.score, map)
            yield sample, one.score, map

    def _add(
        self, groups: _Groups, sample: Sample, score: float, map: np.ndarray, crop: int | None
    ) -> None:
        assert sample.anomalous is not None
        mask = self._mask(sample, crop)
        if crop and sample.anomalous and mask is not None and not mask.any():
            self._notes["pictures whose defect lies outside the common crop are left out"] = None
            return
        groups.add_score(sample.kind, sample.anomalous, score)
        if mask is None:
            return
        size = (map.shape[0], map.shape[1])
        area = read_area(self.roi, self.ignore, *mask.shape)
        if mask.shape != size:
            mask = MASK_RULES[self.protocol.mask_rule](mask, size)
        valid = None if area is None else resize_area(area, size)
        groups.add_map(sample.kind, map, mask, valid)
        if groups.saturated:
            self._add_saturated(groups.saturated, sample, map, valid)

    def _add_saturated(
        self, state: SPROMetrics, sample: Sample, map: np.ndarray, valid: np.ndarray | None
    ) -> None:
        try:
            channels = [
                (mask, Saturation(kind.saturation, kind.relative))
                for mask, kind in read_channels(sample, self.dataset.defects[sample.product])
            ]
            state.update(map, channels, sample.kind if sample.anomalous else None, valid)
        except ImageError as error:
            self._failures[error.path] = error.failure
        except MetricError as error:
            remedy = "It counts in all metrics but sPRO; check its masks"
            self._failures[str(sample.image)] = Failure(str(sample.image), str(error), remedy)

    def _mask(self, sample: Sample, crop: int | None) -> np.ndarray | None:
        if sample.anomalous and not sample.masks:
            self._notes["pictures without a mask count in image metrics only"] = None
            return None
        try:
            return _centre_of(read_mask(sample), crop)
        except ImageError as error:
            self._failures[error.path] = error.failure
            return None

    def _area(self, picture: Picture) -> np.ndarray | None:
        return read_area(self.roi, self.ignore, picture.height, picture.width)

    def _common_side(self, samples: Iterable[Sample]) -> int:
        sides = []
        for sample in samples:
            try:
                sides.append(min(picture_size(sample.image)))
            except ImageError:
                continue  # it fails again, with a record, when it is opened
        return min(sides, default=1)


def _centre_of(pixels: np.ndarray, side: int | None) -> np.ndarray:
    if side is None:
        return pixels
    top, left = (pixels.shape[0] - side) // 2, (pixels.shape[1] - side) // 2
    return pixels[top : top + side, left : left + side]


def _centre(picture: Picture, side: int | None) -> Picture:
    return replace(picture, pixels=_centre_of(picture.pixels, side))

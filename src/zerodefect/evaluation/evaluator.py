"""Evaluates one detector on one data set."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch

from zerodefect.backbones.weight_files import file_hash
from zerodefect.data import MASK_RULES, Dataset, Sample, read_channels, read_mask, told_depths
from zerodefect.detector.contract import Detector, UnsupportedError
from zerodefect.detector.knowledge import Knowledge, Product
from zerodefect.evaluation.metrics import PIXEL_PANEL, MetricError, Saturation, SPROMetrics
from zerodefect.evaluation.prediction_cache import PredictionCache
from zerodefect.evaluation.protocol import Evaluation, Protocol, Row, Tally
from zerodefect.images import ImageError, Picture, open_image, picture_size
from zerodefect.inspection.sources import digest
from zerodefect.layers.smoothing import gaussian_smooth
from zerodefect.scoring.areas import read_area, resize_area
from zerodefect.scoring.joining import Scored
from zerodefect.scoring.scorer import Scorer
from zerodefect.scoring.stream import Seen, scored_stream, stream
from zerodefect.scoring.viewing import Viewing
from zerodefect.types import Failure
from zerodefect.version import __version__

_Predicted = tuple[Sample, float, np.ndarray | None]


@dataclass(frozen=True)
class _Setting:
    """A number of references, which draw of them, what is known then, and kept predictions."""

    shots: int
    seed: int
    knowledge: Knowledge
    shelf: PredictionCache


class Evaluator:
    """Evaluates one detector on one data set.

    Args:
        detector: as loaded.
        dataset: labelled pictures.
        protocol: what to measure.
        viewing: how pictures are shown to the network.
        names: product -> words for it; by default the product's own name.
        roi, ignore: mask pictures; what lies outside counts nowhere.
        bit_depth: bits that 16-bit pictures use; by default inferred once for each product.
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
        bit_depth: int | None = None,
        cache: PredictionCache | None = None,
    ) -> None:
        self.detector = detector
        self.dataset = dataset
        self.protocol = protocol
        self.names = names or {}
        self.roi, self.ignore = roi, ignore
        self.cache = cache or PredictionCache(None)
        self.scorer = Scorer(detector, viewing, self._map_size(protocol.resolution))
        self.bit_depth = bit_depth
        self._crops: dict[str, int] = {}  # product -> side of what counts of every picture
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
        if self.protocol.set_level:
            self.detector.set_level(self.protocol.set_level, self.detector.empty())
        most = max(self.protocol.shots)
        if most and self.detector.memory is None:
            raise UnsupportedError(
                f"{self.detector.info.name} takes no references; it can be measured with "
                "--k-shot 0 alone"
            )
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
            ValueError: too few good training pictures for the shots, nothing labelled, or a
                set-level step that the method does not have.
            UnsupportedError: the method takes no references and shots were asked for.
        """
        self.check()
        rows: list[Row] = []
        scores = {}
        for product in self.dataset.products:
            samples = self.test_samples(product)
            if self.protocol.alike:
                self._crops[product] = self._common_side(samples)
            settings = [self._setting(product, *pair) for pair in self.protocol.settings()]
            self._fill(samples, settings)
            for setting in settings:
                tally = Tally(self.protocol, self._saturated(product, samples))
                for sample, score, map in self._predictions(samples, setting):
                    on_image()
                    self._add(tally, sample, score, map)
                rows += tally.rows(product, setting.shots, setting.seed)
                pair = np.array(tally.scores), np.array(tally.labels)
                scores[product, setting.shots, setting.seed] = pair
        if self._transductive:
            self._notes["transductive: every score depends on the other pictures of the set"] = None
        return Evaluation(
            tuple(rows), scores, tuple(self._failures.values()), tuple(self._notes), self.facts()
        )

    @cached_property
    def _depths(self) -> dict[str, int | None]:
        """Bits that the 16-bit pictures of each product use."""
        return told_depths(self.dataset, self.bit_depth)

    @property
    def _transductive(self) -> bool:
        return bool(self.protocol.set_level) or "set" in self.detector.info.needs

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
        data = self.dataset
        return {
            "detector": self.detector.facts(),
            "names": {p: self.names.get(p, p) for p in data.products},
            "bit_depths": self._depths,
            "viewing": asdict(self.scorer.viewing),
            "data": {"name": data.name, "layout": data.layout, "fingerprint": data.fingerprint()},
            "protocol": asdict(self.protocol),
            "versions": {"zerodefect": __version__, "torch": torch.__version__},
        }

    # --- predictions ----------------------------------------------------------------------------

    def _setting(self, product: str, shots: int, seed: int) -> _Setting:
        """Words and references of one setting, and the shelf of its predictions."""
        words = Product(self.names.get(product, product))
        knowledge = self.detector.describe(self.detector.empty(), words)
        references: list[str] = []
        if shots:
            drawn = self.dataset.k_shot(product, shots, seed)
            pictures = list(map(self._open, drawn))
            areas, size = self._areas(pictures), self.protocol.batch_size
            knowledge = self.scorer.remember(knowledge, pictures, areas, size)
            references = sorted(file_hash(sample.image) for sample in drawn)
        key = {
            "detector": self.detector.facts(),
            "object": words.name if "words" in self.detector.info.knows_from else None,
            "references": references,
            "memory": dict(knowledge.facts),
            "viewing": asdict(self.scorer.viewing),
            "map_size": self.scorer.map_size,
            "smoothing": self.protocol.smoothing,
            "crop": self._crops.get(product),
            "bit_depth": self._depths.get(product),
            "areas": [picture and digest(picture) for picture in (self.roi, self.ignore)],
            "set": self._transductive and [self.dataset.fingerprint(), self.protocol.set_level],
        }
        return _Setting(shots, seed, knowledge, self.cache.shelf(key))

    def _fill(self, samples: Sequence[Sample], settings: Sequence[_Setting]) -> None:
        """Predict under all settings into the cache, running the network once for each picture."""
        if len(settings) < 2 or not self.cache.folder or self._transductive:
            return
        known = [setting.knowledge for setting in settings]
        missing = [s for s in samples if not all(one.shelf.has(s.image) for one in settings)]

        def score(pictures: list[Picture]) -> list[tuple[Scored, ...]]:
            size = self.protocol.batch_size
            under = self.scorer.score_under(pictures, self._areas(pictures), known, size)
            return list(zip(*under, strict=True))

        for seen in stream(missing, self._open, score, self.protocol.batch_size):
            if not isinstance(seen.result, Failure):  # a failure is recorded when it is measured
                for setting, one in zip(settings, seen.result, strict=True):
                    setting.shelf.put(seen.source.image, one.score, self._smoothed(one.map))

    def _open(self, sample: Sample) -> Picture:
        picture = open_image(sample.image, bit_depth=self._depths.get(sample.product))
        return replace(picture, pixels=self._cropped(picture.pixels, sample))

    def _cropped(self, pixels: np.ndarray, sample: Sample) -> np.ndarray:
        side = self._crops.get(sample.product)
        if side is None:
            return pixels
        top, left = (pixels.shape[0] - side) // 2, (pixels.shape[1] - side) // 2
        return pixels[top : top + side, left : left + side]

    def _smoothed(self, map: np.ndarray | None) -> np.ndarray | None:
        if map is None or not self.protocol.smoothing:
            return map
        return gaussian_smooth(torch.from_numpy(map), self.protocol.smoothing).numpy()

    def _predictions(self, samples: Sequence[Sample], setting: _Setting) -> Iterator[_Predicted]:
        """Score and map of every picture that can be used, those of earlier runs among them."""
        get, as_set = setting.shelf.get, self._transductive
        reuse = not as_set or all(get(sample.image) for sample in samples)
        waiting: list[Sample] = []
        for sample in samples:
            kept = get(sample.image) if reuse else None
            if kept:
                yield sample, *kept
                continue
            waiting.append(sample)
            if len(waiting) == 8 * self.protocol.batch_size and not as_set:
                yield from self._scored(waiting, setting)
                waiting = []
        if waiting:
            yield from self._scored(waiting, setting)

    def _scored(self, samples: Sequence[Sample], setting: _Setting) -> Iterator[_Predicted]:
        for seen in self._seen(samples, setting):
            if isinstance(seen.result, Failure):
                self._failures[str(seen.source.image)] = seen.result
                continue
            map = self._smoothed(seen.result.map)
            setting.shelf.put(seen.source.image, seen.result.score, map)
            yield seen.source, seen.result.score, map

    def _seen(self, samples: Sequence[Sample], setting: _Setting) -> Iterator[Seen[Sample, Scored]]:
        size, known = self.protocol.batch_size, setting.knowledge
        if not self.protocol.set_level:
            return scored_stream(self.scorer, known, samples, self._open, self._area, size)
        step = self.detector.set_level(self.protocol.set_level, known)

        def see(pictures: list[Picture]) -> list[None]:
            for prediction in self.scorer.predictions(pictures, self._areas(pictures), known, size):
                step.see(prediction)
            return [None] * len(pictures)

        def apply(pictures: list[Picture]) -> list[Scored]:
            return self.scorer.score(pictures, self._areas(pictures), known, size, step.apply)

        for _ in stream(samples, self._open, see, size):
            pass
        return stream(samples, self._open, apply, size)

    # --- what is measured -----------------------------------------------------------------------

    def _add(self, tally: Tally, sample: Sample, score: float, map: np.ndarray | None) -> None:
        assert sample.anomalous is not None
        mask = self._mask(sample)
        if self._crops and sample.anomalous and mask is not None and not mask.any():
            self._notes["pictures whose defect lies outside the common crop are left out"] = None
            return
        tally.add_score(sample.kind, sample.anomalous, score)
        if mask is None or map is None:
            return
        size = map.shape[0], map.shape[1]
        height, width = mask.shape
        area = read_area(self.roi, self.ignore, height, width, str(sample.image))
        if mask.shape != size:
            mask = MASK_RULES[self.protocol.mask_rule](mask, size)
        valid = None if area is None else resize_area(area, size)
        tally.add_map(sample.kind, map, mask, valid)
        if tally.saturated:
            self._add_saturated(tally.saturated, sample, map, valid)

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

    def _mask(self, sample: Sample) -> np.ndarray | None:
        if sample.anomalous and not sample.masks:
            self._notes["pictures without a mask count in image metrics only"] = None
            return None
        try:
            return self._cropped(read_mask(sample), sample)
        except ImageError as error:
            self._failures[error.path] = error.failure
            return None

    def _area(self, picture: Picture) -> np.ndarray | None:
        return read_area(self.roi, self.ignore, picture.height, picture.width, picture.path)

    def _areas(self, pictures: Sequence[Picture]) -> list[np.ndarray | None]:
        return [self._area(picture) for picture in pictures]

    def _common_side(self, samples: Iterable[Sample]) -> int:
        sides = []
        for sample in samples:
            with contextlib.suppress(ImageError):  # it fails again, with a record, when opened
                sides.append(min(picture_size(sample.image)))
        return min(sides, default=1)

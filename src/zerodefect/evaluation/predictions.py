"""Predictions of a detector for the pictures of a data set, those of earlier runs among them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from zerodefect.backbones.weight_files import file_hash
from zerodefect.data import Dataset, Sample, told_depths
from zerodefect.detector.composed import SetLevel
from zerodefect.detector.contract import Detector
from zerodefect.detector.knowledge import Knowledge, Product
from zerodefect.evaluation.prediction_cache import Kept, PredictionCache, Shelf
from zerodefect.evaluation.protocol import Protocol
from zerodefect.images import ImageError, Picture
from zerodefect.images.part_files import open_part, part_of, part_size
from zerodefect.inspection.region_kinds import KindExamples
from zerodefect.inspection.sources import digest
from zerodefect.layers.smoothing import gaussian_smooth
from zerodefect.scoring.areas import read_area
from zerodefect.scoring.joining import Scored, sized_map
from zerodefect.scoring.scorer import Scorer
from zerodefect.scoring.stream import Seen, scored_stream, stream
from zerodefect.scoring.viewing import Viewing
from zerodefect.types import Failure

_AHEAD = 8  # batches of pictures that go through the network together where none is kept


@dataclass(frozen=True)
class Setting:
    """A number of references, which draw of them, what is known then, and kept predictions.

    Attributes:
        step: official step over all pictures of the product, where one is asked for and applies.
    """

    shots: int
    seed: int
    knowledge: Knowledge
    shelf: Shelf
    step: SetLevel | None


@dataclass(frozen=True)
class Taught:
    """What a detector knows already, so that nothing is drawn from the data set.

    Attributes:
        knowledge: of the product.
        references: digests of the pictures that it remembers.
        good: digests of all pictures that it, or its limits, were learned from.
        kinds: of defects, from examples.
        region_limit: from which on a map shows regions.
    """

    knowledge: Knowledge
    references: tuple[str, ...] = ()
    good: frozenset[str] = frozenset()
    kinds: KindExamples | None = None
    region_limit: float | None = None


class Predictions:
    """Scores and maps of one detector on one data set; arguments as of ``Evaluator``.

    Attributes:
        failures: pictures that could not be scored, by path.
        crops: product -> side of what counts of every picture.
    """

    def __init__(
        self,
        detector: Detector,
        dataset: Dataset,
        protocol: Protocol,
        viewing: Viewing | None,
        names: dict[str, str],
        areas: tuple[Picture | None, Picture | None],
        bit_depth: int | None,
        cache: PredictionCache,
        taught: Taught | None = None,
    ) -> None:
        self.detector, self.dataset, self.protocol = detector, dataset, protocol
        self.taught = taught
        self.names, self.cache, self.bit_depth = names, cache, bit_depth
        self.roi, self.ignore = areas
        self.scorer = Scorer(detector, viewing, sized=False)
        self.failures: dict[str, Failure] = {}
        self.crops: dict[str, int] = {}

    @cached_property
    def depths(self) -> dict[str, int | None]:
        """Bits that the 16-bit pictures of each product use."""
        return told_depths(self.dataset, self.bit_depth)

    def setting(self, product: str, shots: int, seed: int) -> Setting:
        """Words and references of one setting, and the shelf of its predictions."""
        words = Product(self.names.get(product, product))
        references: list[str] = []
        if self.taught:
            knowledge, references = self.taught.knowledge, sorted(self.taught.references)
        else:
            knowledge = self.detector.describe(self.detector.empty(), words)
        if shots and not self.taught:
            drawn = self._drawn(product, shots, seed)
            pictures = list(drawn.values())
            areas, size = self._areas(pictures), self.protocol.batch_size
            knowledge = self.scorer.remember(knowledge, pictures, areas, size)
            references = sorted(
                file_hash(file) for sample in drawn for file in part_of(sample.image)
            )
        name = self.protocol.set_level
        step = self.detector.set_level(name, knowledge) if name else None
        key = {
            "detector": self.detector.facts(),
            "object": words.name if "words" in self.detector.info.knows_from else None,
            "references": references,
            "memory": dict(knowledge.facts),
            "viewing": self.scorer.viewing.facts(),
            "crop": self.crops.get(product),
            "bit_depth": self.depths.get(product),
            "areas": [picture and digest(picture) for picture in (self.roi, self.ignore)],
            "set": self._as_set(step) and [self.dataset.fingerprint(), step and name],
        }
        about = {"method": self.detector.info.name, "data": self.dataset.name}
        return Setting(shots, seed, knowledge, self.cache.shelf(key, about), step)

    def _drawn(self, product: str, shots: int, seed: int) -> dict[Sample, Picture]:
        """Draw references; the next of the draw takes the place of one that cannot be read."""
        found: dict[Sample, Picture] = {}
        for sample in self.dataset.k_shot(product, len(self.dataset.good_train(product)), seed):
            if len(found) == shots:
                break
            try:
                found[sample] = self.opened(sample)
            except ImageError as error:
                self.failures[error.path] = error.failure
        if len(found) < shots:
            reason = f"only {len(found)} good training pictures of {product!r} can be read"
            raise ValueError(f"{self.dataset.name}: {reason}. Ask for fewer (--k-shot)")
        return found

    def _as_set(self, step: SetLevel | None) -> bool:
        """Whether a prediction depends on the other pictures."""
        return step is not None or "set" in self.detector.info.needs

    def fill(self, samples: Sequence[Sample], settings: Sequence[Setting]) -> None:
        """Predict under all settings into the cache, running the network once for each picture."""
        settings = [setting for setting in settings if not self._as_set(setting.step)]
        if len(settings) < 2 or not self.cache.folder:
            return
        known = [setting.knowledge for setting in settings]
        missing = [s for s in samples if not all(one.shelf.has(s.image) for one in settings)]

        def score(pictures: list[Picture]) -> list[tuple[Scored, ...]]:
            size = self.protocol.batch_size
            under = self.scorer.score_under(pictures, self._areas(pictures), known, size)
            return list(zip(*under, strict=True))

        for seen in stream(missing, self.opened, score, self.protocol.batch_size):
            if not isinstance(seen.result, Failure):  # a failure is recorded when it is measured
                for setting, one in zip(settings, seen.result, strict=True):
                    setting.shelf.put(seen.source.image, _kept(seen.picture, one))

    def of(self, samples: Sequence[Sample], setting: Setting) -> Iterator[tuple[Sample, Kept]]:
        """Prediction of every picture that can be used; kinds come one after the other."""
        get, as_set = setting.shelf.get, self._as_set(setting.step)
        reuse = not as_set or all(get(sample.image) for sample in samples)
        waiting: list[Sample] = []
        for sample in samples:
            other_kind = waiting and waiting[-1].kind != sample.kind
            if not as_set and (other_kind or len(waiting) == _AHEAD * self.protocol.batch_size):
                yield from self._scored(waiting, setting)
                waiting = []
            kept = get(sample.image) if reuse else None
            if kept:
                yield sample, kept
            else:
                waiting.append(sample)
        if waiting:
            yield from self._scored(waiting, setting)

    def of_some(
        self, samples: Sequence[Sample], wanted: Set[Sample], setting: Setting
    ) -> Iterator[tuple[Sample, Kept]]:
        """Predictions of the wanted ones alone; all are looked at where one hangs on the others."""
        all_count = self._as_set(setting.step)
        found = self.of([s for s in samples if all_count or s in wanted], setting)
        return ((sample, kept) for sample, kept in found if sample in wanted)

    def _scored(self, samples: Sequence[Sample], setting: Setting) -> Iterator[tuple[Sample, Kept]]:
        for seen in self._seen(samples, setting):
            if isinstance(seen.result, Failure):
                self.failures[str(seen.source.image)] = seen.result
                continue
            kept = _kept(seen.picture, seen.result)
            yield seen.source, setting.shelf.put(seen.source.image, kept)

    def _seen(self, samples: Sequence[Sample], setting: Setting) -> Iterator[Seen[Sample, Scored]]:
        size, known, step = self.protocol.batch_size, setting.knowledge, setting.step
        if step is None or "set" in self.detector.info.needs:
            how = (self.scorer, known, samples, self.opened, self.area, size)
            return scored_stream(*how, step=step)
        taken = step

        def see(pictures: list[Picture]) -> list[None]:
            for prediction in self.scorer.predictions(pictures, self._areas(pictures), known, size):
                taken.see(prediction)
            return [None] * len(pictures)

        def apply(pictures: list[Picture]) -> list[Scored]:
            return self.scorer.score(pictures, self._areas(pictures), known, size, taken.apply)

        for _ in stream(samples, self.opened, see, size):
            pass
        return stream(samples, self.opened, apply, size)

    def map(self, kept: Kept, setting: Setting) -> np.ndarray | None:
        """The map ``(H, W)`` float32 as it is measured: at the protocol's size, smoothed."""
        if kept.map is None:
            return None
        lowest = (self.detector.map_range(setting.knowledge) or (0.0, 1.0))[0]
        area = read_area(self.roi, self.ignore, *kept.size)
        map = sized_map(kept.map, self._size(kept.size), area, lowest)
        if self.protocol.smoothing:
            map = gaussian_smooth(torch.from_numpy(map), self.protocol.smoothing).numpy()
        return map

    def _size(self, own: tuple[int, int]) -> tuple[int, int]:
        resolution = self.protocol.resolution
        if resolution == "picture":
            return own
        if resolution == "network":
            return self.detector.preprocess.size
        return int(resolution), int(resolution)

    # --- pictures -------------------------------------------------------------------------------

    def crop_alike(self, product: str, samples: Iterable[Sample]) -> None:
        """From now on only the centre counts that all these pictures of the product have."""
        sides = []
        for sample in samples:
            with contextlib.suppress(ImageError):  # it fails again, with a record, when opened
                sides.append(min(part_size(sample.image)))
        self.crops[product] = min(sides, default=1)

    def cropped(self, pixels: np.ndarray, product: str) -> np.ndarray:
        """What counts of a picture or mask ``(H, W, ...)``."""
        side = self.crops.get(product)
        return pixels if side is None else centre(pixels, side)

    def opened(self, sample: Sample) -> Picture:
        """What counts of a sample's picture.

        Raises:
            ImageError: it cannot be read.
        """
        picture = self._opened(sample)
        cloud = picture.cloud
        if cloud is not None and sample.product in self.crops:
            points, valid = (
                self.cropped(each, sample.product) for each in (cloud.points, cloud.valid)
            )
            cloud = replace(cloud, points=points, valid=valid)
        return replace(picture, pixels=self.cropped(picture.pixels, sample.product), cloud=cloud)

    def _opened(self, sample: Sample) -> Picture:
        depth, view = self.depths.get(sample.product), self.scorer.viewing.view
        return open_part(sample.image, bit_depth=depth, cloud=sample.cloud, view=view)

    def taught_from(self, samples: Iterable[Sample]) -> int:
        """How many of these pictures are, whatever their names, among those it was taught from."""
        return len(self.among(samples, self.taught.good if self.taught else frozenset()))

    def among(self, samples: Iterable[Sample], digests: frozenset[str]) -> list[Sample]:
        """Those whose whole picture has one of these digests, whatever its name."""
        found = []
        for sample in samples if digests else ():
            with contextlib.suppress(ImageError):  # it fails again, with a record, when measured
                found += [sample] if digest(self._opened(sample)) in digests else []
        return found

    def area(self, picture: Picture) -> np.ndarray | None:
        """Where a picture counts; None for everywhere."""
        return read_area(self.roi, self.ignore, picture.height, picture.width, picture.path)

    def _areas(self, pictures: Sequence[Picture]) -> list[np.ndarray | None]:
        return [self.area(picture) for picture in pictures]

    def bytes_of(self, images: Iterable[Path]) -> int:
        """About what the predictions of these pictures take on disk under one setting."""
        tiling, size = self.scorer.viewing.tiling, self.detector.preprocess.size
        if tiling is None:
            return sum(self.cache.bytes_of(*size) for _ in images)
        total = 0
        for image in images:
            with contextlib.suppress(ImageError):
                width, height = part_size(image)
                alone = tiling.views(height, width) == 1
                total += self.cache.bytes_of(*(size if alone else (height, width)))
        return total


def centre(pixels: np.ndarray, side: int) -> np.ndarray:
    """The central square of a picture ``(H, W, ...)``."""
    top, left = (pixels.shape[0] - side) // 2, (pixels.shape[1] - side) // 2
    return pixels[top : top + side, left : left + side]


def _kept(picture: Picture | None, scored: Scored) -> Kept:
    assert picture is not None
    return Kept(scored.score, scored.map, (picture.height, picture.width))

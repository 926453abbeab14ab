"""Evaluates one detector on one data set."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from zerodefect.data import MASK_RULES, Dataset, Sample, opened_mask, read_channels
from zerodefect.detector.contract import Detector, UnsupportedError
from zerodefect.detector.learned_pictures import known_among
from zerodefect.evaluation.count_errors import CountErrors
from zerodefect.evaluation.kind_confusion import Confusion, KindTelling
from zerodefect.evaluation.metrics import PIXEL_PANEL, MetricError, Saturation, SPROMetrics
from zerodefect.evaluation.prediction_cache import Kept, PredictionCache
from zerodefect.evaluation.predictions import Predictions, Setting, Taught
from zerodefect.evaluation.protocol import Evaluation, PictureScore, Protocol, Row, Tally
from zerodefect.evaluation.worst_cases import WorstCase, WorstCases
from zerodefect.images import ImageError, Picture
from zerodefect.inspection.region_kinds import KindExamples, KindsError
from zerodefect.inspection.sources import digest
from zerodefect.scoring.areas import read_area, resize_area
from zerodefect.scoring.viewing import Viewing
from zerodefect.types import Failure
from zerodefect.version import __version__


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
        taught: what is known already; the protocol's shots then only say how many references
            that are, and none is drawn.
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
        taught: Taught | None = None,
    ) -> None:
        self.detector, self.dataset, self.protocol = detector, dataset, protocol
        self.names, self.roi, self.ignore = names or {}, roi, ignore
        self.cache = cache or PredictionCache(None)
        areas = roi, ignore
        self._predictions = Predictions(
            detector, dataset, protocol, viewing, self.names, areas, bit_depth, self.cache, taught
        )
        self.taught = taught
        self._failures: dict[str, Failure] = {}
        self._notes: dict[str, None] = {}
        self._worst = WorstCases()
        self._pictures: list[PictureScore] = []
        self._learned: int | None = None

    def test_samples(self, product: str) -> tuple[Sample, ...]:
        """Labelled pictures of a product to measure on: its test split, or all if it has none.

        Those of a kind come one after the other.

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
        places = {kind: place for place, kind in enumerate(dict.fromkeys(s.kind for s in labelled))}
        return tuple(sorted(labelled, key=lambda sample: places[sample.kind]))

    def count(self) -> int:
        """Predictions that the protocol takes."""
        settings = len(list(self.protocol.settings()))
        return settings * sum(len(self.test_samples(p)) for p in self.dataset.products)

    def cache_bytes(self) -> int:
        """About what the predictions take in the cache, those of earlier runs among them."""
        samples = [s for product in self.dataset.products for s in self.test_samples(product)]
        one = self._predictions.bytes_of(sample.image for sample in samples)
        return len(list(self.protocol.settings())) * one

    def check(self) -> None:
        """Make sure that the draws of references are possible, before the long work.

        Raises:
            ValueError: a product has fewer good training pictures than the largest draw, sPRO was
                named and the data set does not say how much of a defect must be found, or the
                method learned from pictures that it is measured on.
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
            if most > good and not self.taught:
                raise ValueError(
                    f"{self.dataset.name}: {most}-shot needs {most} good training pictures of "
                    f"{product!r}, and there are {good}. Put good ones into train/good, or ask "
                    "for fewer (--k-shot 0 needs none)"
                )
        self._check_apart()

    def learned_pictures(self) -> int | None:
        """How many of the measured pictures the method learned from; None where it is unknown.

        Pictures are compared by content, whatever their names; it takes reading them once.
        """
        if self.taught and self._learned is None:
            samples = (s for p in self.dataset.products for s in self.test_samples(p))
            self._learned = self._predictions.taught_from(samples)
        if self.taught or self.detector.checkpoint is None:
            return self._learned or 0  # learned from no file, or still learning
        if self.detector.learned_from is not None and self._learned is None:
            files = [s.image for p in self.dataset.products for s in self.test_samples(p)]
            self._learned = len(known_among(files, self.detector.learned_from))
        return self._learned

    def _check_apart(self) -> None:
        found, allowed = self.learned_pictures(), self.protocol.allow_training_pictures
        if found is None:
            self._note(
                "it is unknown whether the checkpoint learned from some of these pictures: it was "
                "imported, or written before checkpoints named what they learned from"
            )
        elif found and not allowed:
            name = self.detector.info.name
            raise ValueError(
                f"{self.dataset.name}: this {'product' if self.taught else 'checkpoint'} of {name} "
                f"learned from {found} of the "
                f"{self.count() // len(list(self.protocol.settings()))} pictures that it would be "
                "measured on, so figures would say nothing of new pictures. Measure on others, or "
                "ask for it: --allow-training-pictures"
            )
        elif found:
            self._note(f"{found} of these pictures were learned from: no figures of new ones")

    def run(self, on_image: Callable[[], None] = lambda: None) -> Evaluation:
        """Measure everything.

        Raises:
            ValueError: too few good training pictures for the shots, nothing labelled, or a
                set-level step that the method does not have.
            UnsupportedError: the method takes no references and shots were asked for.
        """
        self.check()
        self._worst, self._pictures = WorstCases(), []
        rows: list[Row] = []
        scores = {}
        confusions: list[Confusion] = []
        counts: list[CountErrors] = []
        applied: set[int] = set()
        for product in self.dataset.products:
            samples = self.test_samples(product)
            if self.protocol.alike:
                self._predictions.crop_alike(product, samples)
            pairs = self.protocol.settings()
            settings = [self._predictions.setting(product, *pair) for pair in pairs]
            self._predictions.fill(samples, settings)
            for setting in settings:
                applied |= {setting.shots} if setting.step else set()
                tally = Tally(self.protocol, self._saturated(product, samples))
                for sample, kept in self._predictions.of(samples, setting):
                    on_image()
                    self._add(tally, setting, sample, kept)
                rows += tally.rows(product, setting.shots, setting.seed)
                pair = np.array(tally.scores), np.array(tally.labels)
                scores[product, setting.shots, setting.seed] = pair
            confusions += self._confusions(product, samples, settings[-1])
            counts += self._counts(product, samples, settings[-1])
        self._note_sets(applied)
        return Evaluation(
            rows=tuple(rows),
            scores=scores,
            pictures=tuple(self._pictures),
            worst=self._worst.ranked(),
            failures=tuple((self._predictions.failures | self._failures).values()),
            notes=tuple(self._notes),
            set_level_shots=tuple(sorted(applied)),
            facts=self.facts(),
            confusions=tuple(confusions),
            counts=tuple(counts),
        )

    def _confusions(
        self, product: str, samples: Sequence[Sample], setting: Setting
    ) -> Iterator[Confusion]:
        """Which kinds are called what, with the damaged area known."""
        asked, of = self.protocol.kind_examples, self._predictions
        if asked is None:
            return
        masked = [one for one in samples if one.anomalous and self._marked(one)]
        told = KindTelling(of.scorer, setting.knowledge, of.opened, of.area, self._mask)
        taught = self.taught.kinds if self.taught else None
        try:
            if taught and not asked:
                masked = self._not_taught(masked, taught)
            yield from told.confusion(product, masked, asked, taught)
        except KindsError as error:
            self._note(f"{product}: kinds are not told: {error}")

    def _counts(
        self, product: str, samples: Sequence[Sample], setting: Setting
    ) -> Iterator[CountErrors]:
        """How far the numbers of defects lie from the masks, where kinds are asked for."""
        masked = [one for one in samples if one.anomalous and self._marked(one)]
        has_maps = self.detector.map_range(setting.knowledge) is not None
        if self.protocol.kind_examples is None or not masked or not has_maps:
            return
        limit, by = self._region_limit(samples, setting)
        if limit is None:
            return
        predicted = self._predictions.of_some(samples, set(masked), setting)
        found = ((s, self._predictions.map(kept, setting)) for s, kept in predicted)
        seen = ((s, map, self._mask(s)) for s, map in found if map is not None)
        pairs = ((s.kind, map, mask) for s, map, mask in seen if mask is not None)
        yield CountErrors.of(product, by, limit, pairs)

    def _region_limit(
        self, samples: Sequence[Sample], setting: Setting
    ) -> tuple[float | None, str]:
        """From which value on a map shows regions, and where that is from."""
        if self.taught and self.taught.region_limit is not None:
            return self.taught.region_limit, "the product's own limit"
        good = {s for s in samples if not s.anomalous}
        found = self._predictions.of_some(samples, good, setting)
        maps = (self._predictions.map(kept, setting) for _, kept in found)
        highest = max((float(map.max()) for map in maps if map is not None), default=None)
        if highest is not None:
            return highest, "the highest value on the good pictures of the test"
        span = self.detector.map_range(setting.knowledge)
        limit = self.detector.neutral_score(setting.knowledge)
        if limit is None and span is not None and np.isfinite(span).all():
            limit = sum(span) / 2
        return limit, "where the method itself is undecided"

    def _not_taught(self, samples: list[Sample], taught: KindExamples) -> list[Sample]:
        """Those that are no examples of the kinds that a product was taught, unless asked for.

        Raises:
            KindsError: all are examples.
        """
        if not all(taught.digests):
            self._note(
                "it is unknown whether kinds were taught by some of these pictures: the product "
                "was written before it named its examples. Teach the kinds anew to have it checked"
            )
        examples = self._predictions.among(samples, frozenset(taught.digests) - {""})
        if not examples:
            return samples
        many = f"{len(examples)} of {len(samples)} damaged pictures are examples of kinds"
        if self.protocol.allow_training_pictures:
            self._note(f"{many}, and count among them: no figures of new ones")
            return samples
        if len(examples) == len(samples):
            raise KindsError(
                f"{many}, so figures would say nothing of new pictures. Measure on others, or ask "
                "for it: --allow-training-pictures"
            )
        self._note(f"{many} that were taught, and are left out of the table of kinds")
        return [one for one in samples if one not in examples]

    def _note_sets(self, applied: set[int]) -> None:
        """Say which figures depend on the whole set of pictures."""
        name = self.protocol.set_level
        if applied:
            shots = ", ".join(f"{number}-shot" for number in sorted(applied))
            text = f"transductive at {shots}: {name!r} was applied over all test pictures of a"
            self._note(f"{text} product")
        for number in sorted(set(self.protocol.shots) - applied) if name else ():
            self._note(f"the official test has no {name!r} at {number}-shot: none was applied")
        if self.transductive:
            self._note("transductive: every score depends on the other pictures of the set")

    @property
    def transductive(self) -> bool:
        """Whether every score depends on the other pictures, whatever the protocol asks for."""
        return "set" in self.detector.info.needs

    def _note(self, text: str) -> None:
        self._notes[text] = None

    def _saturated(self, product: str, samples: Iterable[Sample]) -> SPROMetrics | None:
        """State of sPRO, where the data set says how much of a defect must be found."""
        kinds = list(dict.fromkeys(s.kind for s in samples if s.anomalous))
        if not (self.protocol.spro_limits and self.dataset.defects.get(product) and kinds):
            return None
        if not self.protocol.at_picture_size:
            note = "no sPRO: it counts pixels of whole pictures at their own size"
            self._note(f"{note} (--resolution picture, without --alike)")
            return None
        return SPROMetrics(kinds, mask_rule=self.protocol.mask_rule)

    def facts(self) -> dict[str, Any]:
        """Everything that a reader needs to repeat the evaluation, as plain data."""
        data, kinds = self.dataset, self.taught.kinds if self.taught else None
        return {
            **({"taught_kinds": kinds.facts()} if kinds else {}),
            "detector": self.detector.facts(),
            "transductive": self.transductive,
            "names": {p: self.names.get(p, p) for p in data.products},
            "viewing": self._predictions.scorer.viewing.facts(),
            "areas": [picture and digest(picture) for picture in (self.roi, self.ignore)],
            "bit_depths": self._predictions.depths,
            "data": {
                "name": data.name,
                "layout": data.layout,
                "fingerprint": data.fingerprint(),
                "remarks": list(data.remarks()),
            },
            "learned_pictures": self.learned_pictures(),
            "maps": self.cache.precision,
            "protocol": _asked(self.protocol),
            "versions": {"zerodefect": __version__, "torch": torch.__version__},
        }

    # --- what is measured -----------------------------------------------------------------------

    def _add(self, tally: Tally, setting: Setting, sample: Sample, kept: Kept) -> None:
        assert sample.anomalous is not None
        mask = self._mask(sample)
        cropped = sample.product in self._predictions.crops
        if cropped and sample.anomalous and mask is not None and not mask.any():
            self._note("pictures whose defect lies outside the common crop are left out")
            return
        tally.add_score(sample.kind, sample.anomalous, kept.score)
        self._note_picture(setting, sample, kept)
        map = self._predictions.map(kept, setting)
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

    def _note_picture(self, setting: Setting, sample: Sample, kept: Kept) -> None:
        name, shots, seed = self.dataset.relative(sample.image), setting.shots, setting.seed
        what = name, sample.product, sample.kind, bool(sample.anomalous)
        self._pictures.append(PictureScore(*what, shots, seed, kept.score))
        if seed == 0:
            of = self._predictions
            shown = of.crops.get(sample.product), of.depths.get(sample.product)
            scored = shots, 0, kept.score, kept.map
            self._worst.add(WorstCase(sample.image, *what, *scored, sample.masks, *shown))

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

    def _marked(self, sample: Sample) -> bool:
        mask = self._mask(sample)
        return mask is not None and bool(mask.any())

    def _mask(self, sample: Sample) -> np.ndarray | None:
        if sample.anomalous and not sample.masks:
            self._note("pictures without a mask count in image metrics only")
            return None
        try:
            mask, remarks = opened_mask(sample)
            for remark in remarks:
                self._note(remark)
            return self._predictions.cropped(mask, sample.product)
        except ImageError as error:
            self._failures[error.path] = error.failure
            return None


def _asked(protocol: Protocol) -> dict[str, Any]:
    """The protocol as plain data; what was not asked for is as it was before it could be."""
    facts = asdict(protocol)
    return {k: v for k, v in facts.items() if k != "kind_examples" or v is not None}

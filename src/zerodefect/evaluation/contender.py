"""What is measured: methods as they are, or a product with its limits."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from zerodefect.data import Dataset
from zerodefect.detector.contract import Detector
from zerodefect.evaluation.evaluator import Evaluator
from zerodefect.evaluation.prediction_cache import PredictionCache
from zerodefect.evaluation.predictions import Taught
from zerodefect.evaluation.protocol import Evaluation, Protocol
from zerodefect.inspection.inspector import Inspector
from zerodefect.inspection.word_sight import UNMEASURED
from zerodefect.scoring.areas import AreaWords


@dataclass(frozen=True)
class Contender:
    """One of those that are measured.

    Attributes:
        name: of its results.
        method: registered name.
        load: gives the detector.
        options: further keyword arguments of ``Evaluator``, for a data set.
        inspector: of a product, or None.
    """

    name: str
    method: str
    load: Callable[[], Detector]
    options: Callable[[Dataset], dict[str, Any]]
    inspector: Inspector | None = None

    def evaluator(
        self, dataset: Dataset, protocol: Protocol, cache: PredictionCache | None = None
    ) -> Evaluator:
        """What measures it on a data set, of which a product sees its own pictures."""
        options = self.options(dataset)
        return Evaluator(self.load(), dataset, protocol, cache=cache, **options)

    def protocol(self, protocol: Protocol) -> Protocol:
        """The protocol; of a product with its own references, and no draws of others.

        Raises:
            ValueError: of a product, and numbers of references were asked for.
        """
        if self.inspector is None:
            return protocol
        if protocol.shots != (0,):
            raise ValueError("--k-shot draws references, and a product has its own: drop it")
        return dataclasses.replace(protocol, shots=(self.inspector.shots,), seeds=1)

    def pictures(self, dataset: Dataset) -> Dataset:
        """The data set; for a product what shows it: all of it, or the product of that name.

        Raises:
            ValueError: it has several products, and none of that name.
        """
        if self.inspector is None or len(dataset.products) == 1:
            return dataset
        name = self.inspector.object or ""
        alike = [p for p in dataset.products if _plain(p) == _plain(name)]
        if not alike:
            raise ValueError(
                f"{dataset.name}: several products ({', '.join(dataset.products)}), and none is "
                f"called {name!r} as that of the product file. Name the folder of one of them "
                "(--data)"
            )
        return dataset.select(product=alike[0])

    def told(self, evaluation: Evaluation) -> str | None:
        """What the limits of a product say of the measured pictures, by their scores alone."""
        if self.inspector is None or not self.inspector.active_policy().calibrated:
            return None
        policy, counts = self.inspector.active_policy(), Counter[tuple[bool, str]]()
        for picture in evaluation.pictures:
            counts[picture.anomalous, policy.verdict(picture.score)] += 1
        rows = [
            f"{'defective' if bad else 'good'} parts: "
            + ", ".join(f"{counts[bad, one]} {one}" for one in ("defect", "unsure", "good"))
            for bad in (False, True)
        ]
        return f"{self.name} at its limits, by score: {'; '.join(rows)}"


def product_contender(inspector: Inspector, name: str) -> Contender:
    """A product as it is: what it knows, how it is shown pictures, its limits.

    Raises:
        ValueError: words name what it inspects.
    """
    if isinstance(inspector.roi, AreaWords):
        raise ValueError(f"{name}: inspects {inspector.roi}: {UNMEASURED}")
    shown = inspector.snapshot()
    good, limit = frozenset(inspector.known_digests()), inspector.active_policy().region_limit
    options = {
        "viewing": inspector.viewing,
        "roi": inspector.roi,
        "ignore": inspector.ignore,
        "bit_depth": inspector.bit_depth,
        "taught": Taught(shown.known, shown.digests, good, inspector.taught_kinds, limit),
    }

    def of(dataset: Dataset) -> dict[str, Any]:
        return {**options, "names": dict.fromkeys(dataset.products, shown.name or "object")}

    method = inspector.detector.info.name
    return Contender(name, method, lambda: inspector.detector, of, inspector)


def _plain(name: str) -> str:
    return name.replace("_", " ").casefold()


def check_step(protocol: Protocol, *methods: str) -> None:
    """Refuse a set-level step that one of the methods does not have, before the work.

    Raises:
        ValueError: naming the steps that there are.
    """
    from zerodefect.methods import get, names

    for method in methods if protocol.set_level else ():
        steps = get(method).set_levels if method in names() else ()  # several in one have none
        if protocol.set_level not in steps:
            has = ", ".join(map(repr, steps)) or "none"
            raise ValueError(
                f"--set-level {protocol.set_level!r}: {method} has no such step; it has: {has}"
            )

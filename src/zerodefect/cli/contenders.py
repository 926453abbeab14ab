"""What ``evaluate`` measures side by side: methods as they are, or a product with its limits."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zerodefect.cli.opening import product_names
from zerodefect.cli.options import LoadingOptions, Options, PictureOptions, option

if TYPE_CHECKING:
    from zerodefect.data import Dataset
    from zerodefect.detector.contract import Detector
    from zerodefect.evaluation.protocol import Evaluation, Protocol
    from zerodefect.inspection.inspector import Inspector


@dataclass(frozen=True)
class ContenderOptions(Options, panel="Detector"):
    """Methods to measure side by side."""

    method: list[str] | None = option(
        None, "Method to measure, or several with commas; repeatable.", "--method", "-m"
    )
    checkpoint: list[Path] | None = option(None, "Of a trained method; repeatable.")
    product: Path | None = option(
        None, "Product file instead: its detector with what it knows.", rich_help_panel="Product"
    )


@dataclass(frozen=True)
class Contender:
    """One of those that are measured.

    Attributes:
        name: of its results.
        method: registered name.
        load: gives the detector.
        options: further keyword arguments of ``Evaluator``, for a data set.
        inspector: of a product file, or None.
    """

    name: str
    method: str
    load: Callable[[], Detector]
    options: Callable[[Dataset], dict[str, Any]]
    inspector: Inspector | None = None

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


def methods_of(
    contenders: ContenderOptions,
    loading: LoadingOptions,
    pictures: PictureOptions,
    words: list[str] | None,
) -> list[Contender]:
    """Methods and checkpoints that were named, in the order of the methods."""
    from zerodefect.methods import load_detector

    shown = {**pictures.opened(), "bit_depth": pictures.bit_depth}

    def options(dataset: Dataset) -> dict[str, Any]:
        return {"names": product_names(words, [dataset]), **shown}

    def contender(name: str, method: str, checkpoint: Path | None) -> Contender:
        def load() -> Detector:
            return load_detector(method, checkpoint=checkpoint, **loading.keywords())

        return Contender(name, method, load, options)

    return [contender(*each) for each in _chosen(contenders, loading)]


def product_of(
    contenders: ContenderOptions,
    loading: LoadingOptions,
    pictures: PictureOptions,
    words: list[str] | None,
) -> Contender:
    """The product file that was named, as it is.

    Raises:
        ValueError: methods were named besides.
        ProductError: the file cannot be used, or is contradicted.
    """
    from zerodefect.evaluation.predictions import Taught
    from zerodefect.inspection.load_inspector import load_product

    path = contenders.product
    assert path is not None
    if contenders.method or contenders.checkpoint:
        raise ValueError("--product names its method itself: drop --method and --checkpoint")
    said = {**loading.keywords(), **pictures.keywords()}
    for name in words or []:
        said["object"] = name.rpartition("=")[2]
    inspector = load_product(path, **said)
    shown = inspector.snapshot()
    good = frozenset(inspector.known_digests())
    taught = Taught(shown.known, shown.digests, good, inspector.taught_kinds)
    options = {
        "viewing": inspector.viewing,
        "roi": inspector.roi,
        "ignore": inspector.ignore,
        "bit_depth": inspector.bit_depth,
        "taught": taught,
    }

    def of(dataset: Dataset) -> dict[str, Any]:
        return {**options, "names": dict.fromkeys(dataset.products, shown.name or "object")}

    method = inspector.detector.info.name
    return Contender(path.stem, method, lambda: inspector.detector, of, inspector)


def of_product(contender: Contender, protocol: Protocol) -> Protocol:
    """The protocol of a product: its own references, and no draws of others.

    Raises:
        ValueError: numbers of references were asked for.
    """
    assert contender.inspector is not None
    if protocol.shots != (0,):
        raise ValueError("--k-shot draws references, and a product has its own: drop it")
    return dataclasses.replace(protocol, shots=(contender.inspector.shots,), seeds=1)


def pictures_of(contender: Contender, dataset: Dataset) -> Dataset:
    """The part of a data set that shows the product: all of it, or the product of that name.

    Raises:
        ValueError: it has several products, and none of that name.
    """
    assert contender.inspector is not None
    name, products = contender.inspector.object or "", dataset.products
    if len(products) == 1:
        return dataset
    alike = [p for p in products if p.replace("_", " ").casefold() == name.casefold()]
    if not alike:
        raise ValueError(
            f"{dataset.name}: several products ({', '.join(products)}), and none is called {name!r}"
            " as that of the product file. Name the folder of one of them (--data)"
        )
    return dataset.select(product=alike[0])


def _chosen(
    contenders: ContenderOptions, loading: LoadingOptions
) -> Sequence[tuple[str, str, Path | None]]:
    """Label, method and checkpoint of each detector to measure, in the order of the methods."""
    from zerodefect.detector.checkpoint_file import read_checkpoint
    from zerodefect.methods import default_method

    found = [read_checkpoint(path) for path in contenders.checkpoint or []]
    named = [part.strip() for part in ",".join(contenders.method or []).split(",") if part.strip()]
    for one in found:
        if named and one.method not in named:
            raise ValueError(
                f"{one.path}: a checkpoint of {one.method}, which --method {','.join(named)} "
                "leaves out"
            )
    names = named or list(dict.fromkeys(one.method for one in found))
    chosen: list[tuple[str, str, Path | None]] = []
    given = loading.keywords()
    for name in names or [default_method(given["backbone"], given["weights"])]:
        own = [one for one in found if one.method == name]
        for one in own:
            label = name if len(own) == 1 else f"{name}-{one.sha256[:8]}"
            chosen.append((label, name, one.path))
        if not own:
            chosen.append((name, name, None))
    return chosen

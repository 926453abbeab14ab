"""What the options of ``evaluate`` name: methods side by side, or a product."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zerodefect.cli.options import LoadingOptions, Options, option
from zerodefect.cli.picture_options import PictureOptions

if TYPE_CHECKING:
    from zerodefect.data import Dataset
    from zerodefect.detector.contract import Detector
    from zerodefect.evaluation.contender import Contender


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


def methods_of(
    contenders: ContenderOptions,
    loading: LoadingOptions,
    pictures: PictureOptions,
    words: list[str] | None,
) -> list[Contender]:
    """Methods and checkpoints that were named, in the order of the methods."""
    from zerodefect.data import product_words
    from zerodefect.evaluation.contender import Contender
    from zerodefect.methods import load_detector

    shown = {**pictures.opened(), "bit_depth": pictures.bit_depth}

    def options(dataset: Dataset) -> dict[str, Any]:
        return {"names": product_words(words, [dataset]), **shown}

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
    from zerodefect.evaluation.contender import product_contender
    from zerodefect.inspection.load_inspector import load_product

    path = contenders.product
    assert path is not None
    if contenders.method or contenders.checkpoint:
        raise ValueError("--product names its method itself: drop --method and --checkpoint")
    said = {**loading.keywords(), **pictures.keywords()}
    for name in words or []:
        said["object"] = name.rpartition("=")[2]
    return product_contender(load_product(path, **said), path.stem)


def _chosen(
    contenders: ContenderOptions, loading: LoadingOptions
) -> Sequence[tuple[str, str, Path | None]]:
    """Label, method and checkpoint of each detector to measure, in the order of the methods."""
    from zerodefect.detector.checkpoint_file import read_checkpoint
    from zerodefect.detector.facts import JOIN
    from zerodefect.methods import default_method

    found = [read_checkpoint(path) for path in contenders.checkpoint or []]
    named = [part.strip() for part in ",".join(contenders.method or []).split(",") if part.strip()]
    for one in found:
        if named and not any(one.method in name.split(JOIN) for name in named):
            raise ValueError(
                f"{one.path}: a checkpoint of {one.method}, which --method {','.join(named)} "
                "leaves out"
            )
    names = named or list(dict.fromkeys(one.method for one in found))
    chosen: list[tuple[str, str, Path | None]] = []
    given = loading.keywords()
    for name in names or [default_method(given["backbone"], given["weights"])]:
        own = [one for one in found if one.method in name.split(JOIN)]
        for one in own:
            label = name if len(own) == 1 else f"{name}-{one.sha256[:8]}"
            chosen.append((label, name, one.path))
        if not own:
            chosen.append((name, name, None))
    return chosen

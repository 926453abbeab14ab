"""``zerodefect.evaluate``: one method or product on one data set."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from zerodefect.data import Dataset, ProductWords, open_dataset, product_words
from zerodefect.detector.contract import Detector
from zerodefect.evaluation.contender import Contender, check_step, product_contender
from zerodefect.evaluation.prediction_cache import PredictionCache
from zerodefect.evaluation.protocol import Evaluation, Protocol
from zerodefect.images import Picture
from zerodefect.inspection.inspector import Inspector
from zerodefect.inspection.load_inspector import is_product, load_product
from zerodefect.methods import default_method, load_detector
from zerodefect.scoring.viewing import Viewing


def evaluate(
    data: Dataset | str | Path,
    method: str | Path | Detector | Inspector | None = None,
    *,
    protocol: Protocol | None = None,
    object: ProductWords = None,
    layout: str = "auto",
    viewing: Viewing | None = None,
    roi: Picture | None = None,
    ignore: Picture | None = None,
    bit_depth: int | None = None,
    cache: PredictionCache | None = None,
    on_image: Callable[[], None] = lambda: None,
    **loading: Any,
) -> Evaluation:
    """Measure a method on labelled pictures as ``zerodefect evaluate`` does.

    Args:
        data: folder or table, ``"NAME=FOLDER"``, or a data set that was read.
        method: a name from ``zerodefect.methods()``, several as ``"dense+patchcore"``, a detector,
            or what has its own references and limits: a product file, or an ``Inspector``. By
            default the checkpoint's (``checkpoint=``), or what the weights recommend.
        protocol: what is measured, and how; ``Protocol(shots=(0, 4))``.
        object: what the product is called; of several by the products' names.
        layout: of the data set, where it should not be recognised.
        viewing, roi, ignore, bit_depth: how pictures are shown, read and what of them counts, as of
            ``Evaluator``; a product has its own.
        cache: predictions of earlier runs, reused and added to; by default none, so that pixel
            figures are those of maps in float32.
        on_image: called after each picture.
        loading: as of ``methods.load_detector``: ``checkpoint``, ``backbone``, ``device``, ...

    Raises:
        ValueError: unknown method, option, metric or step; nothing is labelled; too few good
            pictures for the shots; or pictures that the method learned from.
        DatasetError, ProductError, CheckpointError, WeightsError: something cannot be read.
    """
    said = {"viewing": viewing, "roi": roi, "ignore": ignore, "bit_depth": bit_depth}
    shown = {name: value for name, value in said.items() if value is not None}
    contender = _contender(method, object, shown, loading)
    measured = protocol or Protocol()
    check_step(measured, contender.method)
    dataset = contender.pictures(open_dataset(data, layout))
    return contender.evaluator(dataset, contender.protocol(measured), cache).run(on_image)


def _contender(
    method: str | Path | Detector | Inspector | None,
    object: ProductWords,
    shown: dict[str, Any],
    loading: dict[str, Any],
) -> Contender:
    if isinstance(method, (str, Path)) and is_product(method):
        method, loading, object = load_product(method, object=object, **loading), {}, None
    if isinstance(method, Inspector):
        said = [*shown, *loading, *([] if object is None else ["object"])]
        if said:
            raise ValueError(f"{', '.join(said)}: a product has its own; leave it out")
        return product_contender(method, method.object or method.detector.info.name)
    if isinstance(method, Detector) and loading:
        raise ValueError(f"{', '.join(loading)}: the detector is loaded already; leave it out")

    def options(dataset: Dataset) -> dict[str, Any]:
        return {"names": product_words(object, [dataset]), **shown}

    if isinstance(method, Detector):
        detector: Detector = method
        return Contender(detector.info.name, detector.info.name, lambda: detector, options)
    name = None if method is None else str(method)
    if name is None and not loading.get("checkpoint"):
        name = default_method(loading.get("backbone"), loading.get("weights"))
    loaded = load_detector(name, **loading)
    return Contender(loaded.info.name, loaded.info.name, lambda: loaded, options)

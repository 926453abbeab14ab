"""``zerodefect.fit``: train a method, by its name, on data sets as they are named."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Protocol

from zerodefect.data import Dataset, ProductWords, distinct, open_dataset, product_words
from zerodefect.detector.checkpoint_file import Checkpoint
from zerodefect.detector.contract import Detector
from zerodefect.detector.recipes import Recipe
from zerodefect.methods import facts_of, get, load_detector
from zerodefect.training.engine import Progress, Settings
from zerodefect.training.engine import fit as run
from zerodefect.training.examples import Examples, Pictures, Procedural, Source, check_apart
from zerodefect.training.processes import Processes
from zerodefect.types import told_size

_PROCEDURAL, _GOOD = "procedural", "procedural-good"

_log = logging.getLogger("zerodefect")


class Measuring(Protocol):
    """Measures a detector after each epoch, such as ``evaluation.validation.Validation``."""

    @property
    def targets(self) -> Sequence[Dataset]:
        """What it measures on."""

    def prepare(
        self, detector: Detector, names: dict[str, str], bit_depth: int | None = None
    ) -> None:
        """Get ready, or raise before the work; ``names`` are words per product."""

    def __call__(self, detector: Detector) -> dict[str, float]:
        """Figures by name."""


def fit(
    method: str,
    data: Dataset | str | Path | Iterable[Dataset | str | Path],
    output: str | Path | None = None,
    *,
    settings: Settings | None = None,
    object: ProductWords = None,
    train_good: bool = False,
    layout: str = "auto",
    bit_depth: int | None = None,
    validate: Measuring | None = None,
    processes: Processes | None = None,
    on_step: Callable[[Progress], None] = lambda progress: None,
    **loading: Any,
) -> Checkpoint:
    """Train a method as ``zerodefect train`` does, or go on with a run that was cut off.

    Args:
        method: a name of ``zerodefect.methods()`` that is ``trained``.
        data: folders or tables, as ``"NAME=FOLDER"`` to name them, data sets that were read,
            ``"procedural:2000"`` or ``"procedural-good:2000"`` for drawn pictures; one or several.
        output: folder of the run, by default ``runs/METHOD``; the same resumes.
        settings: what is otherwise than the paper has it: ``Settings({"epochs": 2})``.
        object: what the product is called; of several by the products' names.
        train_good: learn from the good pictures of the training split, too.
        layout: of the data sets, where it should not be recognised.
        bit_depth: bits that 16-bit pictures use.
        validate: measures after each epoch, see ``evaluation.validation.Validation``.
        processes: this one among those that train together.
        on_step: called after every step, in the first process.
        loading: as of ``methods.load_detector``: ``backbone``, ``device``, hyper-parameters, ...

    Returns:
        The checkpoint, for ``zerodefect.load(checkpoint=made.path)``.

    Raises:
        ValueError: the method is not trained, there is nothing to learn, or an option that is none.
        DatasetError: a data set cannot be used, or is measured on, too.
        TrainingError: the folder holds another run; see ``training.engine.fit``.
    """
    check_trained(method)
    chosen, joined = settings or Settings(), processes or Processes()
    folder = _folder(output or Path("runs", method))
    entries = _opened([data] if isinstance(data, (Dataset, str, Path)) else data, layout)
    targets = validate.targets if validate else ()
    names = product_words(object, [*(e for e in entries if isinstance(e, Dataset)), *targets])
    loading = {"device": joined.device, **_seed(method, chosen), **loading}
    detector = load_detector(method, untrained=True, judges=validate is not None, **loading)
    recipes = [stage.recipe.changed(**chosen.changes) for stage in detector.stages()]
    how = {"names": names, "train_good": train_good, "bit_depth": bit_depth}
    sources = _sources(entries, detector, recipes, how)
    for target in targets:
        check_apart(sources, target)
    for remark in _remarks(sources, detector, recipes) if joined.first else ():
        _log.info("%s", remark)
    _check_defects(sources, detector)
    if validate:
        validate.prepare(detector, names, bit_depth)
    told: dict[str, Any] = {"validate": validate, "on_step": on_step}
    return run(detector, Examples(sources), folder, chosen, processes=joined, **told)


def _folder(output: str | Path) -> Path:
    folder = Path(output)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder}: this is a file. Name a folder for the run")
    return folder


def check_trained(method: str) -> None:
    """Refuse a method that has nothing to learn.

    Raises:
        ValueError: naming it.
    """
    if not facts_of(method).trained:
        raise ValueError(f"{method} is not trained; 'zerodefect methods' says what it learns from")


def _opened(
    entries: Iterable[Dataset | str | Path], layout: str
) -> list[Dataset | tuple[str, int]]:
    """Data sets, each with a name of its own, and kinds and numbers of drawn pictures."""
    once = {id(one) if isinstance(one, Dataset) else one: one for one in entries}
    found = [_procedural(entry) or open_dataset(entry, layout) for entry in once.values()]
    named = iter(distinct([one for one in found if isinstance(one, Dataset)]))
    return [next(named) if isinstance(one, Dataset) else one for one in found]


def _procedural(entry: Dataset | str | Path) -> tuple[str, int] | None:
    """Kind and number of pictures to draw, or None for a data set."""
    kind, _, count = str(entry).partition(":")
    if not isinstance(entry, str) or kind not in (_PROCEDURAL, _GOOD) or Path(entry).exists():
        return None
    try:
        return kind, int(count or 1000)
    except ValueError:
        raise ValueError(f"--data {entry}: write {kind}:COUNT, such as {kind}:2000") from None


def _sources(
    entries: Iterable[Dataset | tuple[str, int]],
    detector: Detector,
    recipes: Sequence[Recipe],
    how: dict[str, Any],
) -> list[Source]:
    """Sources in the order in which they were named."""
    good_only = "good" in detector.info.knows_from
    compared = any(recipe.references for recipe in recipes)
    side, found = max(detector.preprocess.size), list[Source]()
    for entry in entries:
        if isinstance(entry, Dataset):
            found.append(Pictures(entry, good_only=good_only, compared=compared, **how))
        else:
            (kind, count), seed = entry, recipes[0].seed
            good = good_only or kind == _GOOD
            found.append(Procedural(count, seed, side, good_only=good, compared=compared))
    return found


def _remarks(
    sources: Iterable[Source], detector: Detector, recipes: Iterable[Recipe]
) -> Iterator[str]:
    """What should be known before the run: of the data, and how it goes."""
    for source in sources:
        yield from source.remarks
        if isinstance(source, Pictures) and source.left_out:
            yield f"{source.name}: {source.left_out} defective pictures have no mask; left out"
        one = source.facts()
        yield f"learning from {one['name']}: {one['good']} good, {one['anomalous']} defective"
    on = f" on {detector.backbone}" if detector.backbone else ""
    run = ", then ".join(map(_told, recipes))
    yield f"{detector.info.name}{on} at {told_size(detector.sizes)}, {run}"


def _told(recipe: Recipe) -> str:
    epochs = f"{recipe.epochs} epoch{'s' * (recipe.epochs != 1)}"
    optimizer = f"{recipe.optimizer} {recipe.learning_rate:g}"
    return f"{epochs}, batch {recipe.batch_size}, {optimizer}, seed {recipe.seed}"


def _check_defects(sources: Sequence[Source], detector: Detector) -> None:
    if "good" in detector.info.knows_from or not sources:
        return
    if not any(source.facts()["anomalous"] for source in sources):
        raise ValueError(
            f"{', '.join(source.name for source in sources)}: no defective picture among them, so "
            "there is no defect to learn. Add a data set with masks, or more procedural pictures"
        )


def _seed(method: str, settings: Settings) -> dict[str, int]:
    """The run's seed for the initial values, where the method draws any."""
    kind, chosen = get(method), settings.changes.get("seed")
    if "seed" not in {field.name for field in fields(kind.Config)}:
        return {}
    if chosen is None and kind.recipe:
        chosen = kind.recipe.seed
    return {} if chosen is None else {"seed": chosen}

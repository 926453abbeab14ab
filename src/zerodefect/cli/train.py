"""``zerodefect train``: learn from other products' labelled defects."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from zerodefect.cli.opening import open_dataset, product_names
from zerodefect.cli.options import (
    BitDepth,
    Layout,
    MachineOptions,
    NetworkOptions,
    ObjectNames,
    Options,
    TrainableMethod,
    option,
    output_option,
)
from zerodefect.cli.telling import progress, say, tell, told_size

if TYPE_CHECKING:
    from zerodefect.data import Dataset
    from zerodefect.detector.contract import Detector
    from zerodefect.detector.recipes import Recipe
    from zerodefect.training.engine import Progress, Settings
    from zerodefect.training.examples import Source
    from zerodefect.training.processes import Processes

_QUIET = 30.0  # seconds between lines where there is no terminal
_PROCEDURAL = "procedural"


@dataclass(frozen=True)
class DataOptions(Options, panel="Product"):
    """Pictures to learn from and to measure on, and what is on them."""

    data: list[str] = option(
        ...,
        "Folder, NAME=FOLDER, procedural:N or procedural-good:N; repeatable.",
        "--data",
        "-d",
        metavar="FOLDER",
    )
    val: list[str] | None = option(
        None, "Data set to measure on after each epoch; repeatable.", metavar="FOLDER"
    )
    train_good: bool = option(False, "Learn from the train/good pictures, too.", "--train-good")
    object: ObjectNames = None
    layout: Layout = "auto"
    bit_depth: BitDepth = None


@dataclass(frozen=True)
class RecipeOptions(Options, panel="Training"):
    """What is otherwise as the paper has it."""

    epochs: int | None = option(None, "Default: as the paper.", min=1)
    batch_size: int | None = option(None, "Pictures a step, over all processes.", min=1)
    learning_rate: float | None = option(
        None, "Learning rate; default: as the paper.", "--lr", metavar="RATE"
    )
    seed: int | None = option(None, "Of order, draws and initial values.")


@dataclass(frozen=True)
class RunOptions(Options, panel="Training"):
    """How the run goes."""

    max_steps: int | None = option(None, "Stop after so many steps.", min=1)
    mosaic: float = option(
        0.0, "Of 2 x 2 mosaics (papers: 0.2 on MVTec AD).", min=0, max=1, metavar="SHARE"
    )
    workers: int = option(0, "Processes that prepare pictures ahead.", min=0)
    state_steps: int | None = option(
        None, "Steps between states on disk; default 5 minutes and epochs.", "--save-every", min=1
    )


def train(
    method: TrainableMethod,
    *,
    data: DataOptions,
    network: NetworkOptions,
    recipe: RecipeOptions,
    run: RunOptions,
    output: Path | None = output_option(None, "Run folder, default runs/METHOD; the same resumes."),
    machine: MachineOptions,
    processes: int = option(
        1, "Train in so many processes on this machine.", min=1, rich_help_panel="Machine"
    ),
) -> None:
    """Train a method on labelled pictures.

    Killed and started again, it goes on.


    From each data set it takes the TEST split (good and defective pictures with masks), as the
    field does, or all labelled pictures where there are no splits. Pictures of --val are never
    learned from.
    """
    from zerodefect.training.engine import Settings
    from zerodefect.training.processes import Processes

    _check_trainable(method)  # before any process is started
    if processes > 1 and "RANK" not in os.environ:
        raise typer.Exit(_launch(processes))
    joined = Processes.join(machine.device)
    try:
        settings = Settings(recipe.keywords(), precision=machine.precision, **run.keywords())
        _train(method, _Data(data), output or Path("runs") / method, settings, joined, network)
    finally:
        joined.leave()


def _check_trainable(method: str) -> None:
    from zerodefect.methods import facts_of

    if not facts_of(method).trained:
        raise ValueError(f"{method} is not trained; 'zerodefect methods' says what it learns from")


def _launch(processes: int) -> int:
    """Start the same command in several processes; gives the exit code."""
    import subprocess
    from importlib.util import find_spec

    from zerodefect.training.processes import NO_ACCELERATE

    if not find_spec("accelerate"):  # said once, not by every process
        raise ValueError(NO_ACCELERATE)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", str(processes), "-m", "zerodefect", *sys.argv[1:]]
    with subprocess.Popen(command) as launched:
        try:
            return launched.wait()
        except BaseException:  # told to end: so are they all
            launched.terminate()
            launched.wait()
            raise


class _Data:
    """What the user named, opened: sources to learn from and data sets to measure on."""

    def __init__(self, options: DataOptions) -> None:
        self.entries, self.train_good = options.data, options.train_good
        from zerodefect.data import distinct

        self.bit_depth = options.bit_depth
        self.drawn = {entry: drawn for entry in options.data if (drawn := _procedural(entry))}
        entries = list(dict.fromkeys(e for e in options.data if e not in self.drawn))
        opened = distinct([_open(e, options.layout) for e in entries])
        self.named = dict(zip(entries, opened, strict=True))
        self.targets = distinct([_open(entry, options.layout) for entry in options.val or []])
        self.names = product_names(options.object, [*self.named.values(), *self.targets])

    def sources(
        self, method: type[Detector], seed: int, side: int, remark: Callable[[str], None]
    ) -> list[Source]:
        """Sources in the order they were named; ``side`` pixels is that of drawn pictures.

        Raises:
            ValueError: one of them is also measured on, or the method needs defects and there are
                none.
        """
        from zerodefect.training.examples import Pictures, Procedural, check_apart

        good_only = "good" in method.info.knows_from
        found: list[Source] = []
        for entry in self.entries:
            if entry in self.drawn:
                kind, count = self.drawn[entry]
                drawn_good = good_only or kind != _PROCEDURAL
                found.append(Procedural(count, seed, side, good_only=drawn_good))
                continue
            pictures = Pictures(
                self.named[entry],
                self.names,
                train_good=self.train_good,
                good_only=good_only,
                bit_depth=self.bit_depth,
            )
            if pictures.left_out:
                count = pictures.left_out
                remark(f"{pictures.name}: {count} defective pictures have no mask; left out")
            found.append(pictures)
        for target in self.targets:
            check_apart(found, target)
        facts = [source.facts() for source in found]
        for one in facts:
            good, bad = one["good"], one["anomalous"]
            remark(f"learning from {one['name']}: {good} good, {bad} defective")
        if found and not good_only and not any(one["anomalous"] for one in facts):
            raise ValueError(
                f"--data {' '.join(self.entries)}: no defective picture among them, so there is no "
                "defect to learn. Add a data set with masks, or more procedural pictures"
            )
        return found


def _train(
    method: str,
    data: _Data,
    output: Path,
    settings: Settings,
    processes: Processes,
    network: NetworkOptions,
) -> None:
    from zerodefect.methods import load_detector
    from zerodefect.training.engine import fit
    from zerodefect.training.examples import Examples

    remark = say if processes.first else lambda text: None
    if output.exists() and not output.is_dir():
        raise ValueError(f"--output {output}: this is a file. Name a folder for the run")
    options = {**_seed(method, settings), **network.keywords()}
    detector = load_detector(method, device=processes.device, untrained=True, **options)
    recipes = [stage.recipe.changed(**settings.changes) for stage in detector.stages()]
    sources = data.sources(type(detector), recipes[0].seed, max(detector.preprocess.size), remark)
    on = f" on {detector.backbone}" if detector.backbone else ""
    remark(f"{method}{on} at {told_size(detector.sizes)}, {', then '.join(map(_told, recipes))}")
    with progress("training", quiet=not processes.first) as bar:
        made = fit(
            detector,
            Examples(sources),
            output,
            settings,
            processes=processes,
            validate=_validation(data, method, detector),
            on_step=_steps_told(bar),
        )
    if processes.first:
        tell(f"checkpoint: {made.path} (SHA-256 {made.sha256[:12]})")
        tell(f"journal:    {output} ({', '.join(_journal(output))})")
        tell(f"use:        zerodefect inspect PICTURES --checkpoint {made.path}")


def _journal(folder: Path) -> list[str]:
    """What the journal of a run consists of; why there are no curves was said before."""
    from zerodefect.training.journal import CURVES, EVENTS, LOG

    names = {LOG: LOG, EVENTS: "TensorBoard events", CURVES: CURVES}
    return [told for pattern, told in names.items() if any(folder.glob(pattern))]


def _seed(method: str, settings: Settings) -> dict[str, int]:
    """The run's seed for the initial values, where the method draws any."""
    from zerodefect.methods import get

    kind, chosen = get(method), settings.changes.get("seed")
    if "seed" not in {field.name for field in fields(kind.Config)}:
        return {}
    if chosen is None and kind.recipe:
        chosen = kind.recipe.seed
    return {} if chosen is None else {"seed": chosen}


def _steps_told(bar: Callable[..., None]) -> Callable[[Progress], None]:
    """Tells of every step: the bar moves or, where there is no terminal, now and then a line."""
    spoken = time.monotonic()

    def on_step(now: Progress) -> None:
        nonlocal spoken
        losses = ", ".join(f"{name} {value:.4f}" for name, value in now.losses.items())
        epoch = f"{now.stage} epoch {now.epoch}/{now.epochs}".strip()
        bar(total=now.steps, completed=now.step, description=f"{epoch} {losses}")
        late = time.monotonic() - spoken > _QUIET or now.step == now.steps
        if late and not sys.stderr.isatty():
            spoken = time.monotonic()
            left = timedelta(seconds=round(now.seconds_left))
            say(
                f"step {now.step}/{now.steps}, {epoch}: {losses}; "
                f"{now.images_per_second:.1f} images/s, {left} left"
            )

    return on_step


def _told(recipe: Recipe) -> str:
    epochs = f"{recipe.epochs} epoch{'s' * (recipe.epochs != 1)}"
    optimizer = f"{recipe.optimizer} {recipe.learning_rate:g}"
    return f"{epochs}, batch {recipe.batch_size}, {optimizer}, seed {recipe.seed}"


def _validation(
    data: _Data, method: str, detector: Detector
) -> Callable[[Detector], dict[str, float]] | None:
    """Measure on the named targets with the metrics of ``zerodefect evaluate``.

    Raises:
        ValueError: a target has no labelled pictures.
    """
    import math

    from zerodefect.evaluation.evaluator import Evaluator
    from zerodefect.evaluation.protocol import ALL, Protocol

    if not data.targets:
        return None
    protocol = Protocol(
        resolution="network", image_queries=("auroc", "ap"), pixel_queries=("auroc", "aupro@0.3")
    )
    evaluators = [
        Evaluator(detector, target, protocol, names=data.names, bit_depth=data.bit_depth)
        for target in data.targets
    ]
    for evaluator in evaluators:
        evaluator.count()  # a target that cannot be measured is an error before the work

    def validate(detector: Detector) -> dict[str, float]:
        found: dict[str, float] = {}
        for target, evaluator in zip(data.targets, evaluators, strict=True):
            evaluation = evaluator.run()
            values: dict[str, list[float]] = {}
            for row in evaluation.rows:
                if row.group == ALL and not math.isnan(row.metric.value):
                    name = f"{row.metric.level} {row.metric.name}"
                    values.setdefault(name, []).append(row.metric.value)
            for name, each in values.items():
                found[f"{target.name} {name}"] = sum(each) / len(each)
        say(f"validation of {method}: " + ", ".join(f"{k} {v:.4f}" for k, v in found.items()))
        return found

    return validate


def _procedural(entry: str) -> tuple[str, int] | None:
    """Kind and number of pictures to draw, or None for a data set on disk."""
    kind, _, count = entry.partition(":")
    if kind not in (_PROCEDURAL, f"{_PROCEDURAL}-good") or Path(entry).exists():
        return None
    try:
        return kind, int(count or 1000)
    except ValueError:
        raise ValueError(f"--data {entry}: write {kind}:COUNT, such as {kind}:2000") from None


def _open(entry: str, layout: str) -> Dataset:
    dataset = open_dataset(entry, layout)
    for remark in dataset.remarks():
        say(remark)
    return dataset

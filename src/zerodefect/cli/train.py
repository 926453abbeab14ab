"""``zerodefect train``: learn from other products' labelled defects."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zerodefect.cli.opening import open_dataset, product_names
from zerodefect.cli.options import (
    BitDepth,
    Device,
    NetworkOptions,
    ObjectNames,
    Options,
    TrainableMethod,
)
from zerodefect.cli.telling import progress, say, told_size

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

    from zerodefect.data import Dataset
    from zerodefect.detector.contract import Detector
    from zerodefect.detector.recipes import Recipe
    from zerodefect.training.engine import Progress, Settings
    from zerodefect.training.examples import Source
    from zerodefect.training.processes import Processes

_QUIET = 30.0  # seconds between lines where there is no terminal
_PROCEDURAL = "procedural"


@dataclass(frozen=True)
class DataOptions(Options):
    """Pictures to learn from and to measure on, and what is on them."""

    data: Annotated[
        list[str],
        typer.Option(
            "--data",
            "-d",
            help="NAME=PATH, PATH, procedural:COUNT or procedural-good:COUNT; repeatable.",
        ),
    ]
    val: Annotated[
        list[str] | None, typer.Option(help="NAME=PATH to measure on after each epoch; repeatable.")
    ] = None
    train_good: Annotated[
        bool, typer.Option("--train-good", help="Learn from the train/good pictures, too.")
    ] = False
    object: ObjectNames = None
    layout: Annotated[str, typer.Option(help="Of the data; 'zerodefect data' lists them.")] = "auto"
    bit_depth: BitDepth = None


@dataclass(frozen=True)
class RecipeOptions(Options):
    """What is otherwise as the paper has it."""

    epochs: Annotated[int | None, typer.Option(min=1, help="Default: as the paper.")] = None
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Pictures a step, over all processes.")
    ] = None
    learning_rate: Annotated[
        float | None, typer.Option("--lr", help="Learning rate; default: as the paper.")
    ] = None
    seed: Annotated[int | None, typer.Option(help="Of order, draws and initial values.")] = None


@dataclass(frozen=True)
class RunOptions(Options):
    """How the run goes."""

    max_steps: Annotated[int | None, typer.Option(min=1, help="Stop after so many steps.")] = None
    mosaic: Annotated[
        float,
        typer.Option(min=0, max=1, help="Probability of 2 x 2 mosaics (papers: 0.2 on MVTec AD)."),
    ] = 0.0
    precision: Annotated[str, typer.Option(help="float32, or bfloat16 under autocast.")] = "float32"
    workers: Annotated[int, typer.Option(min=0, help="Processes that prepare pictures ahead.")] = 0
    state_steps: Annotated[
        int | None,
        typer.Option(
            "--save-every",
            min=1,
            help="Steps between states on disk; default 5 minutes and epochs.",
        ),
    ] = None


def train(
    method: TrainableMethod,
    *,
    data: DataOptions,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Run folder, default runs/METHOD; the same resumes."),
    ] = None,
    recipe: RecipeOptions,
    network: NetworkOptions,
    device: Device = "auto",
    run: RunOptions,
    processes: Annotated[
        int, typer.Option(min=1, help="Train in so many processes on this machine.")
    ] = 1,
) -> None:
    """Train a method on labelled pictures; killed and started again, it goes on.

    From each data set it takes the TEST split (good and defective pictures with masks), as the
    field does, or all labelled pictures where there are no splits. Pictures of --val are never
    learned from.
    """
    from zerodefect.training.engine import Settings
    from zerodefect.training.processes import Processes

    _check_trainable(method)  # before any process is started
    if processes > 1 and "RANK" not in os.environ:
        raise typer.Exit(_launch(processes))
    joined = Processes.join(device)
    try:
        settings = Settings(recipe.keywords(), **run.keywords())
        _train(method, _Data(data), output or Path("runs") / method, settings, joined, network)
    finally:
        joined.leave()


def _check_trainable(method: str) -> None:
    from zerodefect.methods import get

    if not get(method).info.trained:
        raise ValueError(f"{method} is not trained; 'zerodefect methods' says what it learns from")


def _launch(processes: int) -> int:
    """Start the same command in several processes; gives the exit code."""
    import subprocess

    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", str(processes), "-m", "zerodefect", *sys.argv[1:]]
    return subprocess.run(command, check=False).returncode


class _Data:
    """What the user named, opened: sources to learn from and data sets to measure on."""

    def __init__(self, options: DataOptions) -> None:
        self.entries, self.train_good = options.data, options.train_good
        self.bit_depth = options.bit_depth
        self.named = {e: _open(e, options.layout) for e in options.data if not _is_procedural(e)}
        self.targets = [_open(entry, options.layout) for entry in options.val or []]
        self.names = product_names(options.object, [*self.named.values(), *self.targets])

    def sources(
        self, method: type[Detector], seed: int, side: int, tell: Callable[[str], None]
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
            if entry not in self.named:
                kind, count = _procedural(entry)
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
                tell(f"{pictures.name}: {count} defective pictures have no mask; left out")
            found.append(pictures)
        for target in self.targets:
            check_apart(found, target)
        facts = [source.facts() for source in found]
        for one in facts:
            good, bad = one["good"], one["anomalous"]
            tell(f"learning from {one['name']}: {good} good, {bad} defective")
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

    tell = say if processes.first else lambda text: None
    if output.exists() and not output.is_dir():
        raise ValueError(f"--output {output}: this is a file. Name a folder for the run")
    options = {**_seed(method, settings), **network.keywords()}
    detector = load_detector(method, device=processes.device, untrained=True, **options)
    recipes = [stage.recipe.changed(**settings.changes) for stage in detector.stages()]
    sources = data.sources(type(detector), recipes[0].seed, max(detector.preprocess.size), tell)
    on = f" on {detector.backbone}" if detector.backbone else ""
    tell(f"{method}{on} at {told_size(detector.sizes)}, {', then '.join(map(_told, recipes))}")
    with progress(quiet=not processes.first) as bar:
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
        typer.echo(f"checkpoint: {made.path} (SHA-256 {made.sha256[:12]})")
        typer.echo(f"journal:    {output} (log.jsonl, TensorBoard events, curves.png)")
        typer.echo(f"use:        zerodefect inspect PICTURES --checkpoint {made.path}")


def _seed(method: str, settings: Settings) -> dict[str, int]:
    """The run's seed for the initial values, where the method draws any."""
    from zerodefect.methods import get

    kind, chosen = get(method), settings.changes.get("seed")
    if "seed" not in {field.name for field in fields(kind.Config)}:
        return {}
    if chosen is None and kind.recipe:
        chosen = kind.recipe.seed
    return {} if chosen is None else {"seed": chosen}


def _steps_told(bar: Bar) -> Callable[[Progress], None]:
    """Tells of every step: the bar moves or, where there is no terminal, now and then a line."""
    task = bar.add_task("training", total=None)
    spoken = time.monotonic()

    def on_step(now: Progress) -> None:
        nonlocal spoken
        losses = ", ".join(f"{name} {value:.4f}" for name, value in now.losses.items())
        epoch = f"{now.stage} epoch {now.epoch}/{now.epochs}".strip()
        bar.update(task, total=now.steps, completed=now.step, description=f"{epoch} {losses}")
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


def _is_procedural(entry: str) -> bool:
    kind, _, _ = entry.partition(":")
    return kind in (_PROCEDURAL, f"{_PROCEDURAL}-good") and not Path(entry).exists()


def _procedural(entry: str) -> tuple[str, int]:
    kind, _, count = entry.partition(":")
    try:
        return kind, int(count or 1000)
    except ValueError:
        raise ValueError(f"--data {entry}: write {kind}:COUNT, such as {kind}:2000") from None


def _open(entry: str, layout: str) -> Dataset:
    dataset = open_dataset(entry, layout)
    for problem in dataset.problems:
        say(str(problem))
    return dataset

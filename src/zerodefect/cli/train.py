"""``zerodefect train``: learn from other products' labelled defects."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zerodefect.cli import shared

if TYPE_CHECKING:
    from zerodefect.data import Dataset
    from zerodefect.detector.contract import Detector
    from zerodefect.detector.recipes import Recipe
    from zerodefect.training.engine import Progress
    from zerodefect.training.examples import Source

_QUIET = 30.0  # seconds between lines where there is no terminal
_PROCEDURAL = "procedural"


def train(
    method: Annotated[str, typer.Argument(help="A trainable method of 'zerodefect methods'.")],
    data: Annotated[
        list[str],
        typer.Option(
            "--data",
            "-d",
            help="NAME=PATH, PATH, procedural:COUNT or procedural-good:COUNT; repeatable.",
        ),
    ],
    val: Annotated[
        list[str] | None,
        typer.Option("--val", help="NAME=PATH to measure on after each epoch; repeatable."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Run folder, default runs/METHOD; the same resumes."),
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Default: as the paper.")] = None,
    batch_size: Annotated[
        int | None,
        typer.Option("--batch-size", min=1, help="Pictures a step, over all processes."),
    ] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate; default: as the paper.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of order, draws and initial values.")] = None,
    max_steps: Annotated[int | None, typer.Option(min=1, help="Stop after so many steps.")] = None,
    train_good: Annotated[
        bool, typer.Option("--train-good", help="Learn from the train/good pictures, too.")
    ] = False,
    mosaic: Annotated[
        float,
        typer.Option(min=0, max=1, help="Probability of 2 x 2 mosaics (papers: 0.2 on MVTec AD)."),
    ] = 0.0,
    object: Annotated[
        list[str] | None,
        typer.Option("--object", "-n", help="Words for the product, or PRODUCT=WORDS; repeatable."),
    ] = None,
    layout: Annotated[str, typer.Option(help="Of the data; 'zerodefect data' lists them.")] = (
        "auto"
    ),
    backbone: shared.BackboneName = None,
    weights: shared.WeightsFile = None,
    image_size: shared.ImageSize = None,
    settings: shared.MethodOptions = None,
    device: shared.Device = "auto",
    precision: Annotated[
        str, typer.Option("--precision", help="float32, or bfloat16 under autocast.")
    ] = "float32",
    workers: Annotated[int, typer.Option(min=0, help="Processes that prepare pictures ahead.")] = 0,
    processes: Annotated[
        int, typer.Option(min=1, help="Train in so many processes on this machine.")
    ] = 1,
    save_every: Annotated[
        int | None,
        typer.Option(min=1, help="Steps between states on disk; default 5 minutes and epochs."),
    ] = None,
) -> None:
    """Train a method on labelled pictures; killed and started again, it goes on.

    From each data set it takes the TEST split (good and defective pictures with masks), as the
    field does, or all labelled pictures where there are no splits. Pictures of --val are never
    learned from.
    """
    from zerodefect.training.processes import Processes

    _recipe(method)  # before any process is started
    if processes > 1 and not _launched():
        raise typer.Exit(_launch(processes))
    joined = Processes.join(device)
    try:
        _train(
            method,
            _Data(data, val or [], object, layout, train_good),
            output or Path("runs") / method,
            joined,
            recipe={
                "epochs": epochs,
                "batch_size": batch_size,
                "learning_rate": lr,
                "seed": seed,
            },
            loading={"backbone": backbone, "weights": weights, "image_size": image_size},
            options=shared.parse_settings(settings),
            running={
                "max_steps": max_steps,
                "mosaic": mosaic,
                "precision": precision,
                "workers": workers,
                "state_steps": save_every,
            },
        )
    finally:
        joined.leave()


def _recipe(method: str) -> Recipe:
    """The paper's settings of a method that can be trained."""
    from zerodefect.methods import get

    recipe = get(method).detector.recipe
    if recipe is None:
        raise ValueError(f"{method} is not trained; 'zerodefect methods' says what it learns from")
    return recipe


def _launched() -> bool:
    import os

    return "RANK" in os.environ


def _launch(processes: int) -> int:
    """Start the same command in several processes; gives the exit code."""
    import subprocess

    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", str(processes), "-m", "zerodefect", *sys.argv[1:]]
    return subprocess.run(command, check=False).returncode


class _Data:
    """What the user named: sources to learn from and data sets to measure on."""

    def __init__(
        self,
        data: list[str],
        val: list[str],
        objects: list[str] | None,
        layout: str,
        train_good: bool,
    ) -> None:
        self.entries, self.objects, self.train_good = data, objects, train_good
        self.named = {e: _open(e, layout) for e in data if not _is_procedural(e)}
        self.targets = [_open(entry, layout) for entry in val]

    def sources(self, seed: int, side: int, say: Callable[[str], None]) -> list[Source]:
        """Sources in the order they were named."""
        from zerodefect.training.examples import Pictures, Procedural, check_apart

        found: list[Source] = []
        names = shared.product_names(self.objects, [*self.named.values(), *self.targets])
        for entry in self.entries:
            if entry not in self.named:
                kind, count = _procedural(entry)
                good_only = kind != _PROCEDURAL
                found.append(Procedural(count, seed, side, good_only=good_only))
                continue
            dataset = self.named[entry]
            pictures = Pictures(dataset, names, train_good=self.train_good)
            if pictures.left_out:
                say(
                    f"{dataset.name}: {pictures.left_out} defective pictures have no mask; left out"
                )
            found.append(pictures)
        for target in self.targets:
            check_apart(found, target)
        defective = 0
        for source in found:
            facts = source.facts()
            say(
                f"learning from {source.name}: {facts['good']} good, {facts['anomalous']} defective"
            )
            defective += facts["anomalous"]
        if found and not defective:
            raise ValueError(
                f"--data {' '.join(self.entries)}: no defective picture among them, so there is no "
                "defect to learn. Add a data set with masks, or more procedural pictures"
            )
        return found


def _train(
    method: str,
    data: _Data,
    output: Path,
    processes: Any,
    *,
    recipe: dict[str, Any],
    loading: dict[str, Any],
    options: dict[str, Any],
    running: dict[str, Any],
) -> None:
    import dataclasses

    from zerodefect.methods import get, load_detector
    from zerodefect.training.engine import Settings, fit, with_changes
    from zerodefect.training.examples import Examples

    say = shared.say if processes.first else _silent
    if output.exists() and not output.is_dir():
        raise ValueError(f"--output {output}: this is a file. Name a folder for the run")
    chosen = Settings(with_changes(_recipe(method), **recipe), **running)
    if "seed" in {field.name for field in dataclasses.fields(get(method).detector.Config)}:
        options = {"seed": chosen.recipe.seed, **options}
    detector = load_detector(method, device=processes.device, untrained=True, **loading, **options)
    height, width = detector.preprocess.size
    sources = data.sources(chosen.recipe.seed, max(height, width), say)
    say(
        f"{method} on {detector.backbone_name} at {width} x {height} pixels, {_told(chosen.recipe)}"
    )
    with shared.progress(quiet=not processes.first) as bar:
        task = bar.add_task("training", total=None)
        spoken = time.monotonic()

        def on_step(now: Progress) -> None:
            nonlocal spoken
            losses = ", ".join(f"{name} {value:.4f}" for name, value in now.losses.items())
            bar.update(
                task,
                total=now.steps,
                completed=now.step,
                description=f"epoch {now.epoch}/{now.epochs} {losses}",
            )
            late = time.monotonic() - spoken > _QUIET or now.step == now.steps
            if late and not sys.stderr.isatty():
                spoken = time.monotonic()
                shared.say(
                    f"step {now.step}/{now.steps}, epoch {now.epoch}/{now.epochs}: {losses}; "
                    f"{now.images_per_second:.1f} images/s, {_duration(now.seconds_left)} left"
                )

        made = fit(
            detector,
            Examples(sources),
            output,
            chosen,
            processes=processes,
            validate=_validation(data, method, detector),
            on_step=on_step,
        )
    if processes.first:
        typer.echo(f"checkpoint: {made.path} (SHA-256 {made.sha256[:12]})")
        typer.echo(f"journal:    {output} (log.jsonl, TensorBoard events, curves.png)")
        typer.echo(f"use:        zerodefect inspect PICTURES --checkpoint {made.path}")


def _silent(text: str) -> None:
    pass


def _told(recipe: Any) -> str:
    epochs = "1 epoch" if recipe.epochs == 1 else f"{recipe.epochs} epochs"
    return (
        f"{epochs}, batch {recipe.batch_size}, {recipe.optimizer} "
        f"{recipe.learning_rate:g}, seed {recipe.seed}"
    )


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"


def _validation(
    data: _Data, method: str, detector: Detector
) -> Callable[[Detector], dict[str, float]] | None:
    """Measure on the named targets with the metrics of ``zerodefect evaluate``.

    Raises:
        ValueError: a target has no labelled pictures.
    """
    import math

    from zerodefect.evaluation.protocol import ALL, Evaluator, Protocol

    if not data.targets:
        return None
    protocol = Protocol(
        resolution="network",
        image_queries=("auroc", "ap"),
        pixel_queries=("auroc", "aupro@0.3"),
    )
    names = shared.product_names(data.objects, [*data.named.values(), *data.targets])
    evaluators = [Evaluator(detector, target, protocol, names=names) for target in data.targets]
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
        shared.say(
            f"validation of {method}: " + ", ".join(f"{k} {v:.4f}" for k, v in found.items())
        )
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
    dataset = shared.open_dataset(entry, layout)
    for problem in dataset.problems:
        shared.say(str(problem))
    return dataset

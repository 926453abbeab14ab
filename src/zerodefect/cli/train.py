"""``zerodefect train``: learn from other products' labelled defects."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from zerodefect.cli.chat_training import ChatStageOptions, taught, teach
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
from zerodefect.cli.telling import progress, say, tell

if TYPE_CHECKING:
    from zerodefect.training.engine import Progress

_QUIET = 30.0  # seconds between lines where there is no terminal


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

    few: bool = option(
        False,
        "For a few dozen labelled pictures of your own product: more epochs, each picture shown "
        "turned and lit in many ways. Other options of this group go before.",
        "--few",
    )
    epochs: int | None = option(None, "Default: as the paper.", min=1)
    batch_size: int | None = option(None, "Pictures a step, over all processes.", min=1)
    learning_rate: float | None = option(
        None, "Learning rate; default: as the paper.", "--lr", metavar="RATE"
    )
    seed: int | None = option(None, "Of order, draws and initial values.")

    def keywords(self) -> dict[str, Any]:
        """Fields of ``Recipe`` that differ from the paper's."""
        from zerodefect.detector.recipes import FEW

        given = {name: value for name, value in super().keywords().items() if value is not None}
        return {**(FEW if given.pop("few") else {}), **given}


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
    chat: ChatStageOptions,
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
    learned from. A chat model is taught on the same pictures (docs/reasoning.md).
    """
    from zerodefect.evaluation.validation import Validation
    from zerodefect.training.engine import Settings
    from zerodefect.training.fit_method import check_trained, fit
    from zerodefect.training.processes import Processes

    if taught(method, chat):
        teach(method, chat, data, network, recipe, run, machine, output, processes)
        return
    check_trained(method)  # before any process is started
    if processes > 1 and "RANK" not in os.environ:
        raise typer.Exit(_launch(processes))
    joined, folder = Processes.join(machine.device), output or Path("runs") / method
    try:
        settings = Settings(recipe.keywords(), precision=machine.precision, **run.keywords())
        said = {**data.keywords(), **network.keywords()}
        targets = said.pop("val")
        validate = Validation(targets, data.layout) if targets else None
        with progress("training", quiet=not joined.first) as bar:
            made = fit(
                method,
                said.pop("data"),
                folder,
                settings=settings,
                validate=validate,
                processes=joined,
                on_step=_steps_told(bar),
                **said,
            )
    finally:
        joined.leave()
    if joined.first:
        tell(f"checkpoint: {made.path} (SHA-256 {made.sha256[:12]})")
        tell(f"journal:    {folder} ({', '.join(_journal(folder))})")
        tell(f"use:        zerodefect inspect PICTURES --checkpoint {made.path}")


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


def _journal(folder: Path) -> list[str]:
    """What the journal of a run consists of; why there are no curves was said before."""
    from zerodefect.training.journal import CURVES, EVENTS, LOG

    names = {LOG: LOG, EVENTS: "TensorBoard events", CURVES: CURVES}
    return [told for pattern, told in names.items() if any(folder.glob(pattern))]


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

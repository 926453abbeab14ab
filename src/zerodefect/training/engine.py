"""One engine for every trainable method: its losses, its recipe, any labelled pictures.

A run is a pure function of method, weights, data and settings: order, augmentation and draws of
step n depend on (seed, n) alone. Killed at any moment and started again, it goes on from its last
state and ends with the same values, on the same machine with the same number of threads.
"""

from __future__ import annotations

import dataclasses
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from filelock import FileLock, Timeout
from torch import Tensor

from zerodefect.detector.checkpoint_file import Checkpoint, save_checkpoint
from zerodefect.detector.contract import Detector
from zerodefect.detector.recipes import Recipe
from zerodefect.training.batches import Shard, Steps, seeded, shards
from zerodefect.training.examples import Examples
from zerodefect.training.journal import Journal
from zerodefect.training.processes import Processes
from zerodefect.training.run_state import STATE, RunState, TrainingError

Validate = Callable[[Detector], dict[str, float]]


@dataclass(frozen=True)
class Settings:
    """How a run goes.

    Attributes:
        recipe: the paper's settings, or the user's.
        max_steps: stop after so many steps, or None for all epochs; the schedule ends there, too.
        precision: of the forward pass; ``bfloat16`` under autocast. Learned values and optimiser
            are float32.
        mosaic: probability of 2 x 2 mosaics, see ``batches.Steps``.
        workers: processes that prepare pictures ahead, 0 for none.
        log_every: steps between lines of the journal, which are means over them; by default 10,
            fewer in short runs.
        state_steps: steps between states on disk, or None: every ``state_minutes`` and at the end
            of each epoch.
        state_minutes: minutes between states on disk.
    """

    recipe: Recipe
    max_steps: int | None = None
    precision: Literal["float32", "bfloat16"] = "float32"
    mosaic: float = 0.0
    workers: int = 0
    log_every: int | None = None
    state_steps: int | None = None
    state_minutes: float = 5.0

    def __post_init__(self) -> None:
        recipe = self.recipe
        if min(recipe.epochs, recipe.batch_size, self.log_every or 1) < 1:
            raise ValueError("epochs, batch size and log interval are at least 1")
        if self.max_steps is not None and self.max_steps < 1:
            raise ValueError(f"max steps {self.max_steps}: at least 1")
        if not (recipe.learning_rate > 0 and math.isfinite(recipe.learning_rate)):
            raise ValueError(f"learning rate {recipe.learning_rate}: it must be above 0")
        if self.precision not in ("float32", "bfloat16"):
            raise ValueError(f"precision is float32 or bfloat16, not {self.precision!r}")
        if not 0 <= self.mosaic <= 1:
            raise ValueError(f"mosaic {self.mosaic}: a probability lies in [0, 1]")


@dataclass(frozen=True)
class Progress:
    """How far a run is: steps done of all, epoch (from 1), last losses, rate and seconds left."""

    step: int
    steps: int
    epoch: int
    epochs: int
    losses: dict[str, float]
    images_per_second: float
    seconds_left: float


def fit(
    detector: Detector,
    examples: Examples,
    output: str | Path,
    settings: Settings | None = None,
    *,
    processes: Processes | None = None,
    validate: Validate | None = None,
    on_step: Callable[[Progress], None] = lambda progress: None,
) -> Checkpoint:
    """Train a method, or go on with a run that was cut off.

    Args:
        detector: with its initial values, on the device to train on.
        examples: labelled pictures.
        output: folder of the run: state, journal and, at the end, ``METHOD.safetensors`` with its
            side-car.
        settings: by default the paper's recipe.
        processes: this one among those that train together.
        validate: measures the detector after each epoch, in the first process; it may change the
            detector's words, never its values.
        on_step: called after every step, in the first process.

    Returns:
        The checkpoint written, in every process.

    Raises:
        ValueError: the method is not trainable.
        TrainingError: the folder holds another run or a broken state, another process trains
            there, or a loss is not finite.
        ImageError: a picture cannot be read.
    """
    if settings is None:
        settings = Settings(_recipe(detector))
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder, processes or Processes()), _deterministic():
        run = _Run(detector, examples, folder, settings, processes or Processes())
        return run.go(validate, on_step)


def _recipe(detector: Detector) -> Recipe:
    if detector.recipe is None:
        raise ValueError(f"{detector.info.name} is not trained; there is nothing to learn")
    return detector.recipe


@contextmanager
def _alone(folder: Path, processes: Processes) -> Iterator[None]:
    """Keep a second run out of the folder."""
    if not processes.first:
        yield
        return
    try:
        with FileLock(folder / ".lock", timeout=0):
            yield
    except Timeout:
        raise TrainingError(
            f"{folder}: another process trains there. Wait for it, or take another output folder"
        ) from None


@contextmanager
def _deterministic() -> Iterator[None]:
    """Ask for kernels that give the same bits each time, wherever there are such."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.are_deterministic_algorithms_enabled()
    warned = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warned)


class _Run:
    """One run in one process."""

    def __init__(
        self,
        detector: Detector,
        examples: Examples,
        folder: Path,
        settings: Settings,
        processes: Processes,
    ) -> None:
        learned = detector.learned
        if not learned:
            raise ValueError(f"{detector.info.name} has no learned values; it is not trained")
        recipe = settings.recipe
        self.detector, self.settings, self.folder = detector, settings, folder
        self.processes = processes
        self.batches = Steps(
            examples,
            detector.preprocess,
            recipe.batch_size,
            recipe.epochs,
            recipe.seed,
            recipe.augment,
            settings.mosaic,
            processes.rank,
            processes.count,
        )
        self.steps = min(len(self.batches), settings.max_steps or len(self.batches))
        self.log_every = settings.log_every or max(1, min(10, self.steps // 50))
        self.origin = {
            "how": "trained",
            "data": examples.facts(),
            "recipe": asdict(recipe),
            "seed": recipe.seed,
            "steps": self.steps,
            "precision": settings.precision,
            "mosaic": settings.mosaic,
            "processes": processes.count,
        }
        facts = detector.facts()
        self.identity = {
            **{name: value for name, value in self.origin.items() if name != "seed"},
            **{name: facts[name] for name in ("method", "weights", "config", "preprocess")},
            "activation": detector.activation,
        }
        self.state = RunState(learned, optimizer_of(detector, recipe))
        self.rates = [group["lr"] for group in self.state.optimizer.param_groups]
        if (folder / STATE).exists():
            self.state.load(folder / STATE, self.identity)
        processes.wait()  # nobody writes before all have read
        self.journal = Journal(folder, self.state.step) if processes.first else None

    def go(self, validate: Validate | None, on_step: Callable[[Progress], None]) -> Checkpoint:
        """All steps that are left, and the result."""
        state, per_epoch = self.state, self.batches.per_epoch
        if state.step and (state.step % per_epoch == 0 or state.step == self.steps):
            self._validate(validate)  # in case that it was cut off in the middle of it
        saved = started = time.monotonic()
        images = 0
        self.detector.train()
        for shard in shards(self.batches, state.step, self.steps, self.settings.workers):
            losses = self._step(shard)
            images += shard.whole
            ended = state.step % per_epoch == 0 or state.step == self.steps
            passed = time.monotonic() - started
            self._note(losses, images / max(passed, 1e-9), ended)
            if self._due(saved, ended):
                saved = time.monotonic()
                self._save()
            if ended:
                self._validate(validate)
            if self.processes.first:
                left = (self.steps - state.step) * self.batches.batch_size * passed / images
                on_step(self._progress(losses, images / max(passed, 1e-9), left))
        return self._finish()

    # --- one step -------------------------------------------------------------------------------

    def _step(self, shard: Shard) -> dict[str, float]:
        """Change the learned values once; gives the losses over all processes."""
        state, recipe = self.state, self.settings.recipe
        factor = rate_factor(recipe, state.step, self.steps)
        for group, rate in zip(state.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor
        state.optimizer.zero_grad(set_to_none=True)
        terms = self._backward(shard)
        parameters = list(state.learned.values())
        self.processes.sum_gradients(parameters)
        losses = self._summed(shard, terms)
        gradients = [p.grad for p in parameters if p.grad is not None]
        norm = float(torch.nn.utils.get_total_norm(gradients)) if gradients else 0.0
        self._check_finite(losses, norm)
        if recipe.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(parameters, recipe.clip_norm)
        state.optimizer.step()
        state.step += 1
        return {**losses, "gradient_norm": norm, "learning_rate": self.rates[0] * factor}

    def _backward(self, shard: Shard) -> dict[str, Tensor]:
        """Gradients of this process's share of the mean over the whole batch."""
        if not len(shard.images):
            return {}
        generator = seeded(self.settings.recipe.seed, self.state.step, self.processes.rank, 2)
        batch = shard.batch(self.detector.device, generator)
        with self._autocast():
            terms = self.detector.training_loss(batch)
        total = torch.stack([term.float() for term in terms.values()]).sum()
        if total.requires_grad:
            (total * shard.share).backward()
        return terms

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.settings.precision == "float32":
            return nullcontext()
        return torch.autocast(self.detector.device.type, torch.bfloat16)

    def _summed(self, shard: Shard, terms: dict[str, Tensor]) -> dict[str, float]:
        """Total and terms of the loss: means over the images of all processes."""
        own = {name: float(term.detach()) * shard.share for name, term in terms.items()}
        summed: dict[str, float] = {}
        for part in self.processes.gather(own):
            for name, value in part.items():
                summed[name] = summed.get(name, 0.0) + value
        return {"loss": sum(summed.values()), **{f"loss/{n}": v for n, v in summed.items()}}

    def _check_finite(self, losses: dict[str, float], norm: float) -> None:
        if all(map(math.isfinite, (*losses.values(), norm))):
            return
        raise TrainingError(
            f"step {self.state.step + 1}: not finite any more (gradient norm {norm}, losses "
            f"{losses}). Lower the learning rate (--lr), or train in float32"
        )

    # --- between steps --------------------------------------------------------------------------

    def _note(self, losses: dict[str, float], rate: float, ended: bool) -> None:
        """Sum the losses up; write a line of their means when it is time."""
        state = self.state
        for name, value in {**losses, "steps": 1.0}.items():
            state.window[name] = state.window.get(name, 0.0) + value
        if state.step % self.log_every and not ended:
            return
        count = state.window.pop("steps")
        means = {name: value / count for name, value in state.window.items()}
        state.window = {}
        if self.journal:
            place = {"step": state.step, "epoch": self._epoch()}
            self.journal.write({**place, **means, "images_per_second": round(rate, 2)})

    def _epoch(self) -> int:
        """Epoch of the last step done, from 1."""
        return -(-self.state.step // self.batches.per_epoch)

    def _due(self, saved: float, ended: bool) -> bool:
        if self.settings.state_steps is not None:
            return self.state.step % self.settings.state_steps == 0 or self.state.step == self.steps
        return ended or time.monotonic() - saved > 60 * self.settings.state_minutes

    def _save(self) -> None:
        if self.processes.first:
            self.state.save(self.folder / STATE, self.identity)

    def _validate(self, validate: Validate | None) -> None:
        """Measure after an epoch, unless the journal has it already."""
        if self.journal and validate and self.state.step not in self.journal.validated:
            self.detector.eval()
            self.detector.after_learning()
            with torch.no_grad():
                measured = validate(self.detector)
            self.journal.write(
                {"step": self.state.step, "epoch": self._epoch(), "validation": measured}
            )
            self.journal.draw()
            self.detector.train()
        self.processes.wait()

    def _progress(self, losses: dict[str, float], rate: float, left: float) -> Progress:
        shown = {name: v for name, v in losses.items() if name.startswith("loss")}
        epochs = self.settings.recipe.epochs
        return Progress(self.state.step, self.steps, self._epoch(), epochs, shown, rate, left)

    def _finish(self) -> Checkpoint:
        self.detector.eval()
        self.detector.after_learning()
        path = self.folder / f"{self.detector.info.name}.safetensors"
        made = None
        if self.journal:
            made = save_checkpoint(self.detector, path, self.origin)
            self.journal.draw()
        made = self.processes.gather(made)[0]
        assert isinstance(made, Checkpoint)
        self.detector.checkpoint = made.sha256
        return made


def optimizer_of(detector: Detector, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimiser over the method's groups.

    Raises:
        ValueError: the groups do not hold each learned value once.
    """
    groups = [
        {"lr": recipe.learning_rate, "weight_decay": recipe.weight_decay, **group}
        for group in detector.parameter_groups(recipe)
    ]
    grouped = [id(p) for group in groups for p in group["params"]]
    if sorted(grouped) != sorted(id(p) for p in detector.learned.values()):
        raise ValueError(
            f"{detector.info.name}: its parameter groups do not hold each learned value once"
        )
    if recipe.optimizer == "adam":
        return torch.optim.Adam(groups, betas=recipe.betas)
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, betas=recipe.betas)
    return torch.optim.SGD(groups, momentum=recipe.betas[0])


def rate_factor(recipe: Recipe, step: int, steps: int) -> float:
    """Share of the peak learning rate in a step (from 0) of ``steps``."""
    if step < recipe.warm_up:
        return (step + 1) / recipe.warm_up
    if recipe.schedule == "constant":
        return 1.0
    done = (step - recipe.warm_up) / max(1, steps - recipe.warm_up)
    return (1 + math.cos(math.pi * done)) / 2


def with_changes(recipe: Recipe, **changes: Any) -> Recipe:
    """A recipe with what the user set; None leaves the paper's value."""
    return dataclasses.replace(recipe, **{k: v for k, v in changes.items() if v is not None})

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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from torch import Tensor

from zerodefect.backbones.precision import check_precision, pick_precision
from zerodefect.detector.checkpoint_file import Checkpoint, save_checkpoint
from zerodefect.detector.contract import Detector
from zerodefect.detector.learned_pictures import picture_names
from zerodefect.detector.recipes import Learner, Stage
from zerodefect.training.batches import Shard, Steps, seeded, shards
from zerodefect.training.examples import Examples
from zerodefect.training.journal import Journal
from zerodefect.training.left_out import LeftOut
from zerodefect.training.optimizers import check_learners, optimizer_of, rate_factor
from zerodefect.training.processes import Processes
from zerodefect.training.run_state import STATE, RunState, TrainingError

Validate = Callable[[Detector], dict[str, float]]


@dataclass(frozen=True)
class Settings:
    """How a run goes.

    Attributes:
        changes: fields of ``Recipe`` that differ from the paper's, in every stage.
        max_steps: end each stage after so many steps, or None for all epochs; the schedule ends
            there, too.
        precision: of the forward pass; ``bfloat16`` under autocast, ``auto``: see
            ``pick_precision``. Learned values and optimiser are float32.
        mosaic: probability of 2 x 2 mosaics, see ``batches.Steps``.
        workers: processes that prepare pictures ahead, 0 for none.
        log_every: steps between lines of the journal, which are means over them; by default 10,
            fewer in short runs.
        state_steps: steps between states on disk, or None: every ``state_minutes`` and at the end
            of each epoch.
        state_minutes: minutes between states on disk.
    """

    changes: Mapping[str, Any] = field(default_factory=dict)
    max_steps: int | None = None
    precision: str = "float32"
    mosaic: float = 0.0
    workers: int = 0
    log_every: int | None = None
    state_steps: int | None = None
    state_minutes: float = 5.0

    def __post_init__(self) -> None:
        if self.log_every is not None and self.log_every < 1:
            raise ValueError("the log interval is at least 1")
        if self.max_steps is not None and self.max_steps < 1:
            raise ValueError(f"max steps {self.max_steps}: at least 1")
        check_precision(self.precision)
        if not 0 <= self.mosaic <= 1:
            raise ValueError(f"mosaic {self.mosaic}: a probability lies in [0, 1]")


@dataclass(frozen=True)
class Progress:
    """How far a run is: steps done of all, epoch (from 1), last losses, rate and seconds left.

    Epochs are those of the present stage, whose name is empty where there is only one.
    """

    step: int
    steps: int
    epoch: int
    epochs: int
    losses: dict[str, float]
    images_per_second: float
    seconds_left: float
    stage: str = ""


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
        settings: by default all as the paper has it.
        processes: this one among those that train together.
        validate: measures the detector after each epoch, in the first process; it may change the
            detector's words, never its values.
        on_step: called after every step, in the first process.

    Returns:
        The checkpoint written, in every process.

    Raises:
        ValueError: the method is not trainable.
        TrainingError: the folder holds another run or a broken state, another process trains
            there, a loss is not finite, or most pictures cannot be used. Fewer are left out, with
            a remark in the journal.
    """
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder, processes or Processes()), _deterministic():
        chosen = settings or Settings()
        chosen = replace(chosen, precision=pick_precision(chosen.precision, detector.device))
        run = _Run(detector, examples, folder, chosen, processes or Processes())
        return run.go(validate, on_step)


@contextmanager
def _alone(folder: Path, processes: Processes) -> Iterator[None]:
    """Keep a second run out of the folder."""
    try:
        with FileLock(folder / ".lock", timeout=0) if processes.first else nullcontext():
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


@dataclass(frozen=True)
class _Part:
    """One stage of a run: its batches, and where in the run it lies.

    Attributes:
        stage: with the user's changes.
        batches: of the stage alone, from its step 0.
        first, last: its steps among those of all stages, the last one exclusive.
    """

    stage: Stage
    batches: Steps
    first: int
    last: int

    def optimizers(self) -> list[torch.optim.Optimizer]:
        """New ones, one for each learner."""
        return [optimizer_of(each, self.stage.recipe) for each in self.stage.learners]


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
        stages = list(detector.stages())
        learned = detector.learned_values
        if not learned:
            raise ValueError(f"{detector.info.name} has no learned values; it is not trained")
        check_learners(detector, stages)
        self.detector, self.settings, self.folder = detector, settings, folder
        self.processes = processes
        self.parts = list(self._parts(stages, examples))
        self.steps = self.parts[-1].last
        self.log_every = settings.log_every or max(1, min(10, self.steps // 50))
        recipes = [asdict(part.stage.recipe) for part in self.parts]
        self.origin = {
            "how": "trained",
            "data": examples.facts(),
            "recipe": recipes[0] if len(recipes) == 1 else recipes,
            "seed": recipes[0]["seed"],
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
        self.state = RunState(learned)
        if (folder / STATE).exists():
            self.state.load(folder / STATE, self.identity, self._optimizers_at)
        # before the work: whoever changes a picture while it goes on does not change its name
        self.learned_from = picture_names(examples.files()) if processes.first else None
        processes.wait()  # nobody writes before all have read
        self.journal = Journal(folder, self.state.step) if processes.first else None
        self.left_out = LeftOut(examples, processes, self.journal)
        if not self.state.step:
            self.left_out.begin()

    def _parts(self, stages: Sequence[Stage], examples: Examples) -> Iterator[_Part]:
        first, unasked = 0, self.detector.info.judging  # by networks that nothing is learned with
        inputs = {n: taken for n, taken in self.detector.inputs.items() if n not in unasked}
        for stage in stages:
            recipe = stage.recipe.changed(**self.settings.changes)
            batches = Steps(
                examples,
                inputs,
                recipe,
                self.settings.mosaic,
                self.processes.rank,
                self.processes.count,
            )
            last = first + min(len(batches), self.settings.max_steps or len(batches))
            yield _Part(dataclasses.replace(stage, recipe=recipe), batches, first, last)
            first = last

    def _optimizers_at(self, step: int) -> Sequence[torch.optim.Optimizer]:
        part = next((part for part in self.parts if part.first <= step < part.last), None)
        # at the first step of a stage nothing has been moved yet
        return part.optimizers() if part and part.first < step else ()

    def go(self, validate: Validate | None, on_step: Callable[[Progress], None]) -> Checkpoint:
        """All steps that are left, and the result."""
        state = self.state
        for part in self.parts:
            done = state.step - part.first
            if done > 0 and (done % part.batches.per_epoch == 0 or state.step == part.last):
                self._validate(part, validate)  # in case that it was cut off in the middle of it
            if state.step < part.last:
                state.optimizers = state.optimizers or part.optimizers()
                self._learn(part, validate, on_step)
                state.optimizers = ()
        return self._finish()

    def _learn(
        self, part: _Part, validate: Validate | None, on_step: Callable[[Progress], None]
    ) -> None:
        """The steps of a stage that are left."""
        state, per_epoch = self.state, part.batches.per_epoch
        saved = started = time.monotonic()
        images = 0
        self.detector.train()
        done, count = state.step - part.first, part.last - part.first
        for shard in shards(part.batches, done, count, self.settings.workers):
            losses = self._step(part, shard)
            self.left_out.note(shard, self._place(part))
            images += shard.whole
            ended = (state.step - part.first) % per_epoch == 0 or state.step == part.last
            passed = max(time.monotonic() - started, 1e-9)
            self._note(part, losses, images / passed, ended)
            if self._due(saved, ended):
                saved = time.monotonic()
                self._save(part)
            if ended:
                self._validate(part, validate)
            if self.processes.first:
                left = (self.steps - state.step) * part.batches.recipe.batch_size * passed / images
                rates: dict[str, Any] = {"images_per_second": images / passed, "seconds_left": left}
                shown = {name: v for name, v in losses.items() if name.startswith("loss")}
                place, epochs = self._place(part), part.batches.recipe.epochs
                on_step(Progress(**place, **rates, steps=self.steps, epochs=epochs, losses=shown))

    # --- one step -------------------------------------------------------------------------------

    def _step(self, part: _Part, shard: Shard) -> dict[str, float]:
        """Let each learner change its values once; gives the losses over all processes."""
        state, losses, norms, rates = self.state, dict[str, float](), [], []
        pairs = list(zip(part.stage.learners, state.optimizers, strict=True))
        for place, (learner, optimizer) in enumerate(pairs):
            recipe = learner.recipe or part.stage.recipe
            factor = rate_factor(recipe, state.step - part.first, part.last - part.first)
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * factor
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            terms = self._backward(part, learner, parameters, shard, place)
            self.processes.sum_gradients(parameters)
            losses |= self._summed(shard, terms)
            gradients = [p.grad for p in parameters if p.grad is not None]
            norms.append(float(torch.nn.utils.get_total_norm(gradients)) if gradients else 0.0)
            self._check_finite(losses, norms[-1])
            if recipe.clip_norm is not None:
                torch.nn.utils.clip_grad_norm_(parameters, recipe.clip_norm)
            if not part.stage.together:
                optimizer.step()
            rates.append(optimizer.param_groups[0]["lr"])
        if part.stage.together:
            for _, optimizer in pairs:
                optimizer.step()
        state.step += 1
        named = {f"loss/{name}": value for name, value in losses.items()}
        norm = norms[0] if len(norms) == 1 else math.hypot(*norms)
        total = {"loss": sum(losses.values()), **named}
        return {**total, "gradient_norm": norm, "learning_rate": rates[0]}

    def _backward(
        self, part: _Part, learner: Learner, parameters: Sequence[Tensor], shard: Shard, place: int
    ) -> dict[str, Tensor]:
        """Gradients of this process's share of the mean over the whole batch."""
        for parameter in parameters:
            parameter.grad = None
        if not shard.labels.numel():
            return {}
        numbers = (part.stage.recipe.seed, self.state.step, self.processes.rank, 2)
        generator = seeded(*numbers, *([place] if place else []))
        batch = shard.batch(self.detector.device, generator)
        reduced = self.settings.precision == "bfloat16"
        with torch.autocast(self.detector.device.type, torch.bfloat16, enabled=reduced):
            terms = learner.loss(batch)
        total = torch.stack([term.float() for term in terms.values()]).sum()
        if total.requires_grad:
            (total * shard.share).backward(inputs=list(parameters))
        return terms

    def _summed(self, shard: Shard, terms: dict[str, Tensor]) -> dict[str, float]:
        """Terms of the loss: means over the images of all processes."""
        own = {name: float(term.detach()) * shard.share for name, term in terms.items()}
        summed: dict[str, float] = {}
        for part in self.processes.gather(own):
            for name, value in part.items():
                summed[name] = summed.get(name, 0.0) + value
        return summed

    def _check_finite(self, losses: dict[str, float], norm: float) -> None:
        if all(map(math.isfinite, (*losses.values(), norm))):
            return
        raise TrainingError(
            f"step {self.state.step + 1}: not finite any more (gradient norm {norm}, losses "
            f"{losses}). Lower the learning rate (--lr), or train in float32"
        )

    # --- between steps --------------------------------------------------------------------------

    def _note(self, part: _Part, losses: dict[str, float], rate: float, ended: bool) -> None:
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
            self.journal.write({**self._place(part), **means, "images_per_second": round(rate, 2)})

    def _place(self, part: _Part) -> dict[str, Any]:
        """Where the run is, for a line of the journal; the epoch is that of the stage, from 1."""
        epoch = -(-(self.state.step - part.first) // part.batches.per_epoch)
        named = {"stage": part.stage.name} if part.stage.name else {}
        return {"step": self.state.step, "epoch": epoch, **named}

    def _due(self, saved: float, ended: bool) -> bool:
        if self.settings.state_steps is not None:
            return self.state.step % self.settings.state_steps == 0 or self.state.step == self.steps
        return ended or time.monotonic() - saved > 60 * self.settings.state_minutes

    def _save(self, part: _Part) -> None:
        if self.processes.first:
            state = self.state
            if state.step == part.last < self.steps:  # the next stage begins with new optimisers
                state = dataclasses.replace(state, optimizers=())
            state.save(self.folder / STATE, self.identity)

    def _validate(self, part: _Part, validate: Validate | None) -> None:
        """Measure after an epoch, unless the journal has it already."""
        if self.journal and validate and self.state.step not in self.journal.validated:
            self.detector.eval()
            self.detector.after_learning()
            with torch.no_grad():
                measured = validate(self.detector)
            self.journal.write({**self._place(part), "validation": measured})
            self.journal.draw()
            self.detector.train()
        self.processes.wait()

    def _finish(self) -> Checkpoint:
        self.detector.eval()
        self.detector.after_learning()
        path = self.folder / f"{self.detector.info.name}.safetensors"
        made = None
        if self.journal:
            made = save_checkpoint(self.detector, path, self.origin, self.learned_from)
            self.journal.draw()
        made = self.processes.gather(made)[0]
        assert isinstance(made, Checkpoint)
        self.detector.checkpoint = made.sha256
        return made

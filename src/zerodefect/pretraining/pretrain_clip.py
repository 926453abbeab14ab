"""Pretraining of the embedded model on procedural pictures: ``zerodefect pretrain``.

A run is a pure function of its configuration: step n draws pictures, prompts and windows from
(seed, n) alone. Killed at any moment and started again, it goes on from its last checkpoint and
ends with the same weights, on the same machine with the same number of threads.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from zerodefect.backbones.clip import CLIP, CLIPConfig, TextConfig, VisionConfig
from zerodefect.backbones.precision import pick_precision
from zerodefect.images import normalised
from zerodefect.pretraining.initial_weights import prepare
from zerodefect.pretraining.model_and_sheets import HELD_OUT, export, samples
from zerodefect.pretraining.objectives import text_losses, total_loss, training_losses
from zerodefect.procedural import ProceduralBatch, generate
from zerodefect.training.batches import made_ahead
from zerodefect.training.journal import Journal
from zerodefect.training.run_state import RunState, TrainingError

CHECKPOINT = "checkpoint.safetensors"
SAMPLES = "samples.png"
SHOWN = 32
"""Pictures on the contact sheet."""
PACKAGED_STEPS = 7_500
"""At which the packaged run stopped: the learning rate had fallen to a fiftieth of its peak."""

FIRST = CLIPConfig(
    embed_dim=128,
    vision=VisionConfig(image_size=128, patch_size=8, width=192, layers=6, heads=3),
    text=TextConfig(context_length=77, vocab_size=49408, width=128, heads=2, layers=4),
)
"""Shape of what the first stage trains. The text tower is as wide as the joint space, so
that methods which feed image features into sentences (VCP-CLIP, CoPS, Crane) run on it."""


@dataclass(frozen=True)
class PretrainConfig:
    """What a run does; everything here changes the weights, except the last four.

    Attributes:
        seed: decides weights, pictures, prompts and windows.
        steps: optimiser steps.
        text_steps: the first of them, which teach the text tower alone to tell states apart;
            afterwards it stands still, so that the image tower has a fixed goal.
        batch: pictures of the model's own size per step, two of each product; as many fewer or
            more of another size as make about the same number of patches.
        learning_rate: peak, reached ``warm_up`` steps after a tower begins to learn; a cosine takes
            it to a hundredth at the end. Matrices of the image tower's blocks are updated by Muon
            (Jordan et al. 2024) with its step scaled to Adam's, all else by AdamW.
        weight_decay: of matrices; vectors and embeddings are spared.
        warm_up: steps of linear rise.
        ema: decay of the averaged weights, which are the ones exported.
        clip_norm: largest gradient norm.
        windows: windows per picture judged through windows, and window side.
        groups: product names per step.
        early_sizes: sides in pixels that the first steps with pictures take in turn. Small ones let
            the tower see more pictures in the same time.
        late_sizes: sides that the remaining steps take in turn; the sizes of use.
        early: share of the steps with pictures that take early sizes.
        precision: of matrix products; ``auto``: see ``pick_precision``.
        device: where the model is trained and pictures are drawn.
        threads: of this process; another number may change the last bits.
        model: shape of the towers.
        surroundings: whether half of the products lie on what is no even table; the packaged model
            was taught without.
        checkpoint_every, log_every, show_every: steps between checkpoints, log lines, and drawings
            of curves and samples.
        workers: processes that draw pictures ahead, 0 for none; on a GPU none is needed.
    """

    seed: int = 0
    steps: int = 8000
    text_steps: int = 240
    batch: int = 16
    learning_rate: float = 8e-4
    weight_decay: float = 0.05
    warm_up: int = 100
    ema: float = 0.998
    clip_norm: float = 1.0
    windows: int = 4
    groups: int = 2
    early_sizes: tuple[int, ...] = (96, 96, 64, 96, 96, 160)
    late_sizes: tuple[int, ...] = (128, 128, 192, 128, 96, 128, 128, 256, 128, 160)
    early: float = 0.6
    precision: str = "auto"
    device: str = "cpu"
    threads: int = 2
    model: CLIPConfig = FIRST
    surroundings: bool = False
    checkpoint_every: int = 50
    log_every: int = 10
    show_every: int = 500
    workers: int = 1

    def identity(self) -> dict[str, Any]:
        """All that the result depends on."""
        spared = ("checkpoint_every", "log_every", "show_every", "workers")
        return {name: value for name, value in asdict(self).items() if name not in spared}

    def pictures(self, step: int) -> tuple[int, int, int]:
        """First picture, count and size of a step (from 0)."""
        with_pictures = max(0, step - self.text_steps)
        late = with_pictures >= self.early * (self.steps - self.text_steps)
        sizes = self.late_sizes if late else self.early_sizes
        size = sizes[step % len(sizes)]
        # The series keeps as many pictures for each step as any takes, so that none comes twice.
        most = max(map(self._count, {*self.early_sizes, *self.late_sizes}))
        return step * most, self._count(size), size

    def draw(self, step: int) -> ProceduralBatch:
        """Pictures of a step."""
        start, count, size = self.pictures(step)
        return generate(self.seed, start, count, size, self.device, 2, self.surroundings)

    def shown(self) -> ProceduralBatch:
        """Pictures outside the training, for the contact sheet."""
        return generate(HELD_OUT, 0, SHOWN, self.model.vision.image_size, self.device)

    def export(self, clip: CLIP, folder: Path, step: int) -> Path:
        """Write the weights file after so many steps; returns its path."""
        return export(clip, folder, {"steps": str(step), "seed": str(self.seed)})

    def begin(self) -> CLIP:
        """The model before the first step."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            clip = CLIP(self.model)
        prepare(clip.visual, self.seed)
        clip.logit_scale.requires_grad_(False)  # the temperature is WinCLIP's, not learned
        return clip

    def optimizers(self, clip: CLIP) -> list[torch.optim.Optimizer]:
        """Muon for the matrices of the image tower's blocks, AdamW for all else."""
        return _muon_and_adamw(self, clip)

    def losses(self, clip: CLIP, batch: ProceduralBatch | None, step: int) -> dict[str, Tensor]:
        """Those of a step, on texts alone where there is no batch."""
        seed = self.seed * 1_000_003 + step
        if batch is None:
            return text_losses(clip, seed, self.groups)
        pixels = normalised(batch.images)
        return training_losses(clip, batch, pixels, seed, self.windows, self.groups)

    def total(self, losses: dict[str, Tensor], step: int) -> Tensor:
        """What is brought down."""
        trained = (step - self.text_steps) / max(1, self.steps - self.text_steps)
        return total_loss(losses, max(0.0, trained))

    def _count(self, size: int) -> int:
        """Pictures of that size in a step: at least two, and whole pairs."""
        area = (self.model.vision.image_size / size) ** 2
        return max(2, int(self.batch * area) // 2 * 2)


def learning_rate(config: PretrainConfig, step: int, tower: str) -> float:
    """Rate of a tower in a step (from 0): linear rise, then a cosine to a hundredth of the peak.

    The text tower learns in the first ``text_steps``, the image tower after them.
    """
    begin, end = (0, config.text_steps) if tower == "text" else (config.text_steps, config.steps)
    if not begin <= step < end:
        return 0.0
    passed, warm_up = step - begin, min(config.warm_up, (end - begin) // 3)
    if passed < warm_up:
        return config.learning_rate * (passed + 1) / warm_up
    done = (passed - warm_up) / max(1, end - begin - warm_up)
    return config.learning_rate * (0.01 + 0.99 * (1 + math.cos(math.pi * done)) / 2)


class _Steps(Dataset[ProceduralBatch]):
    """The pictures of each step, for a worker process to draw ahead."""

    def __init__(self, config: PretrainConfig) -> None:
        self.config = config

    def __getitem__(self, step: int) -> ProceduralBatch:
        return self.config.draw(step)


def _batches(config: PretrainConfig, first: int, end: int) -> Iterator[ProceduralBatch]:
    """Batches of the steps ``first`` to ``end - 1`` that have pictures."""
    steps = range(max(first, config.text_steps), end)
    # A GPU draws faster than workers do, and one batch or none is not drawn ahead of anything.
    workers = config.workers if config.device == "cpu" and len(steps) > 1 else 0
    return iter(made_ahead(_Steps(config), steps, workers))


def _started(config: PretrainConfig) -> tuple[CLIP, CLIP, RunState]:
    """The model, the average of its weights, and the state of both before the first step."""
    clip = config.begin().to(config.device)
    average = copy.deepcopy(clip).eval().requires_grad_(False)
    learned = {f"model/{name}": value for name, value in clip.named_parameters()}
    learned |= {f"ema/{name}": value for name, value in average.named_parameters()}
    return clip, average, RunState(learned, config.optimizers(clip))


def _muon_and_adamw(config: PretrainConfig, clip: CLIP) -> list[torch.optim.Optimizer]:
    if not hasattr(torch.optim, "Muon"):
        raise TrainingError(
            f"pretraining needs PyTorch 2.9 or newer, this is {torch.__version__}: "
            "pip install --upgrade torch torchvision"
        )
    matrices: list[nn.Parameter] = []
    groups: list[dict[str, Any]] = [
        {"params": [], "tower": tower, "weight_decay": decay}
        for tower in ("visual", "text")
        for decay in (config.weight_decay, 0.0)
    ]
    for name, parameter in clip.named_parameters():
        if not parameter.requires_grad:
            continue
        if name.startswith("visual.transformer.") and parameter.ndim == 2:
            matrices.append(parameter)
        else:
            spared = parameter.ndim < 2 or "embedding" in name
            groups[2 * name.startswith("text") + spared]["params"].append(parameter)
    muon = torch.optim.Muon(
        [{"params": matrices, "tower": "visual"}],
        lr=0.0,
        weight_decay=config.weight_decay,
        adjust_lr_fn="match_rms_adamw",
    )
    return [muon, torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.98))]


def _train_step(
    config: PretrainConfig, clip: CLIP, state: RunState, batch: ProceduralBatch | None
) -> dict[str, float]:
    """One optimiser step, on texts alone where there is no batch; returns the losses."""
    device = torch.device(config.device).type
    with torch.autocast(device, torch.bfloat16, enabled=config.precision == "bfloat16"):
        losses = config.losses(clip, batch, state.step)
    total = config.total(losses, state.step)
    for optimizer in state.optimizers:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config, state.step, group["tower"])
        optimizer.zero_grad(set_to_none=True)
    total.backward()
    parameters = [p for p in clip.parameters() if p.grad is not None]
    torch.nn.utils.clip_grad_norm_(parameters, config.clip_norm, error_if_nonfinite=True)
    for optimizer in state.optimizers:
        optimizer.step()
    # Early on the average follows quickly: the first weights are noise.
    decay = min(config.ema, (1 + state.step) / (10 + state.step))
    for name, parameter in clip.named_parameters():
        if parameter.requires_grad:  # what stands still stays as it is, the sign of zeros too
            state.learned[f"ema/{name}"].lerp_(parameter.detach(), 1 - decay)
    state.step += 1
    return {"total": float(total.detach()), **{n: float(v.detach()) for n, v in losses.items()}}


def pretrain(
    config: PretrainConfig,
    output: str | Path,
    progress: Callable[[int, dict[str, float]], None] | None = None,
    until: int | None = None,
) -> Path:
    """Train the embedded model, or go on with a run that was cut off.

    Args:
        config: what to do.
        output: folder of the run: checkpoint, journal (JSON lines, TensorBoard's file and, with
            matplotlib, curves), samples of what the averaged weights say of pictures, and, at the
            end, the exported model ``embedded.safetensors`` with ``embedded.json``.
        progress: called after every step with the number of steps done and the losses.
        until: stop after this step, export what there is, and go on when called again.

    Returns:
        Path of the exported weights.

    Raises:
        TrainingError: the folder holds a run of another configuration or a broken checkpoint, or
            this PyTorch is too old.
        RuntimeError: the gradient is not finite.
    """
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(config.threads)
    config = replace(config, precision=pick_precision(config.precision, config.device))
    clip, average, state = _started(config)
    checkpoint, identity, optimizers = folder / CHECKPOINT, config.identity(), state.optimizers
    if checkpoint.exists():
        state.load(checkpoint, identity, lambda step: optimizers)
    journal = Journal(folder, state.step)
    since, pictures = time.perf_counter(), 0
    end = config.steps if until is None else min(until, config.steps)
    batches = _batches(config, state.step, end)
    while state.step < end:
        batch = None if state.step < config.text_steps else next(batches).to(config.device)
        losses = _train_step(config, clip, state, batch)
        pictures += 0 if batch is None else len(batch.images)
        last = state.step == end
        if state.step % config.log_every == 0 or last:
            rate = pictures / (time.perf_counter() - since)
            named = {f"loss/{name}": loss for name, loss in losses.items() if name != "total"}
            line = {"step": state.step, "loss": losses["total"], **named}
            journal.write({**line, "images_per_second": round(rate, 2)})
            since, pictures = time.perf_counter(), 0
        if state.step % config.checkpoint_every == 0 or last:
            state.save(checkpoint, identity)
        if state.step % config.show_every == 0 or last:
            journal.draw()
            samples(folder / SAMPLES, average, config.shown())
        if progress:
            progress(state.step, losses)
    return config.export(average, folder, state.step)

"""Pretraining of the embedded model on procedural pictures: ``zerodefect pretrain``.

A run is a pure function of its configuration: step n draws pictures, prompts and windows from
(seed, n) alone. Killed at any moment and started again, it goes on from its last checkpoint and
ends with the same weights, on the same machine with the same number of threads.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from zerodefect.backbones.clip import CLIP
from zerodefect.images import normalised
from zerodefect.pretraining.export_model import export
from zerodefect.pretraining.initial_weights import prepare
from zerodefect.pretraining.objectives import text_losses, total_loss, training_losses
from zerodefect.pretraining.pretrain_config import PretrainConfig, learning_rate
from zerodefect.pretraining.sample_sheets import samples
from zerodefect.procedural import ProceduralBatch, generate
from zerodefect.training.journal import Journal
from zerodefect.training.run_state import RunState, TrainingError

CHECKPOINT = "checkpoint.safetensors"
SAMPLES = "samples.png"


class _Steps(Dataset[ProceduralBatch]):
    """The pictures of each step, for a worker process to draw ahead."""

    def __init__(self, config: PretrainConfig) -> None:
        self.config = config

    def __getitem__(self, step: int) -> ProceduralBatch:
        start, count, size = self.config.pictures(step)
        device = self.config.device
        return generate(self.config.seed, start, count, size, device, pictures_per_product=2)


def _batches(config: PretrainConfig, first: int) -> Iterator[ProceduralBatch]:
    """Batches of step ``first``, or of the first step that has any, and all that follow."""
    first = max(first, config.text_steps)
    workers = config.workers if config.device == "cpu" else 0  # a GPU draws faster than they do
    loader = DataLoader(
        _Steps(config),
        batch_size=None,
        sampler=range(first, config.steps),
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        multiprocessing_context="spawn" if workers else None,
    )
    return iter(loader)


def _started(config: PretrainConfig) -> tuple[CLIP, CLIP, RunState]:
    """The model, the average of its weights, and the state of both before the first step."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        clip = CLIP(config.model)
    prepare(clip.visual, config.seed)
    clip.logit_scale.requires_grad_(False)  # the temperature is WinCLIP's, not learned
    clip.to(config.device)
    average = copy.deepcopy(clip).eval().requires_grad_(False)
    learned = {f"model/{name}": value for name, value in clip.named_parameters()}
    learned |= {f"ema/{name}": value for name, value in average.named_parameters()}
    return clip, average, RunState(learned, _optimizers(config, clip))


def _optimizers(config: PretrainConfig, clip: CLIP) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the image tower's blocks, AdamW for all else."""
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
    step_seed = config.seed * 1_000_003 + state.step
    reduced = config.precision == "bfloat16"
    device = torch.device(config.device)
    with torch.autocast(device.type, torch.bfloat16) if reduced else nullcontext():
        if batch is None:
            losses = text_losses(clip, step_seed, config.groups)
        else:
            pixels, how = normalised(batch.images), (step_seed, config.windows, config.groups)
            losses = training_losses(clip, batch, pixels, *how)
    trained = (state.step - config.text_steps) / max(1, config.steps - config.text_steps)
    total = total_loss(losses, max(0.0, trained))
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
    clip, average, state = _started(config)
    checkpoint, identity, optimizers = folder / CHECKPOINT, config.identity(), state.optimizers
    if checkpoint.exists():
        state.load(checkpoint, identity, lambda step: optimizers)
    journal = Journal(folder, state.step)
    since, pictures = time.perf_counter(), 0
    batches = _batches(config, state.step)
    end = config.steps if until is None else min(until, config.steps)
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
            samples(folder / SAMPLES, average)
        if progress:
            progress(state.step, losses)
    return export(average, folder, {"steps": str(state.step), "seed": str(config.seed)})

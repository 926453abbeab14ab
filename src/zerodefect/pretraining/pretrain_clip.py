"""Pretraining of the embedded model on procedural pictures: ``zerodefect pretrain``.

A run is a pure function of its configuration: step n draws pictures, prompts and windows from
(seed, n) alone. Killed at any moment and started again, it goes on from its last checkpoint and
ends with the same weights, on the same machine with the same number of threads.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import torch
from torch.utils.data import DataLoader, Dataset

from zerodefect.images import normalised
from zerodefect.pretraining.export_model import export
from zerodefect.pretraining.objectives import text_losses, total_loss, training_losses
from zerodefect.pretraining.pretrain_config import PretrainConfig, learning_rate
from zerodefect.pretraining.pretrain_state import CHECKPOINT, PretrainState
from zerodefect.pretraining.sample_sheets import samples
from zerodefect.procedural import ProceduralBatch, generate
from zerodefect.training.journal import Journal

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


def _train_step(
    config: PretrainConfig, state: PretrainState, batch: ProceduralBatch | None
) -> dict[str, float]:
    """One optimiser step, on texts alone where there is no batch; returns the losses."""
    step_seed = config.seed * 1_000_003 + state.step
    reduced = config.precision == "bfloat16"
    device = torch.device(config.device)
    with torch.autocast(device.type, torch.bfloat16) if reduced else nullcontext():
        if batch is None:
            losses = text_losses(state.clip, step_seed, config.groups)
        else:
            pixels = normalised(batch.images)
            losses = training_losses(
                state.clip, batch, pixels, step_seed, config.windows, config.groups
            )
    trained = (state.step - config.text_steps) / max(1, config.steps - config.text_steps)
    total = total_loss(losses, max(0.0, trained))
    for optimizer in state.optimizers:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config, state.step, group["tower"])
        optimizer.zero_grad(set_to_none=True)
    total.backward()
    parameters = [p for p in state.clip.parameters() if p.grad is not None]
    torch.nn.utils.clip_grad_norm_(parameters, config.clip_norm, error_if_nonfinite=True)
    for optimizer in state.optimizers:
        optimizer.step()
    # Early on the average follows quickly: the first weights are noise.
    decay = min(config.ema, (1 + state.step) / (10 + state.step))
    for name, parameter in state.clip.named_parameters():
        state.averaged[name].lerp_(parameter.detach(), 1 - decay)
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
        PretrainError: the folder holds a run of another configuration, or a broken checkpoint.
        RuntimeError: the gradient is not finite.
    """
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(config.threads)
    state = PretrainState.start(config)
    checkpoint, identity = folder / CHECKPOINT, config.identity()
    if checkpoint.exists():
        state.load(checkpoint, identity)
    journal = Journal(folder, state.step)
    since, pictures = time.perf_counter(), 0
    batches = _batches(config, state.step)
    end = config.steps if until is None else min(until, config.steps)
    while state.step < end:
        batch = None if state.step < config.text_steps else next(batches).to(config.device)
        losses = _train_step(config, state, batch)
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
            samples(folder / SAMPLES, state.average())
        if progress:
            progress(state.step, losses)
    return export(folder, folder)

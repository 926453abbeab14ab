"""``zerodefect pretrain``: train the embedded model on procedural pictures."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import typer

from zerodefect.cli.options import Device
from zerodefect.cli.telling import progress, tell


def pretrain(
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Run folder; the same folder resumes.")
    ] = Path("pretrain-run"),
    steps: Annotated[
        int | None,
        typer.Option(min=1, help="Optimiser steps of the schedule; default: the packaged one."),
    ] = None,
    until: Annotated[
        int | None,
        typer.Option(min=1, help="Stop after this step; the same command without it goes on."),
    ] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Pictures a step.")] = None,
    seed: Annotated[int, typer.Option(help="Decides weights, pictures, prompts.")] = 0,
    threads: Annotated[int | None, typer.Option(min=1, help="Processor threads.")] = None,
    device: Device = "auto",
    preview: Annotated[
        bool, typer.Option("--preview", help="Only write a contact sheet of training pictures.")
    ] = False,
) -> None:
    """Train the embedded model from nothing but a seed; killed and started again, it goes on."""
    from zerodefect.detector.load_detector import pick_device
    from zerodefect.pretraining import pretrain_clip, sample_sheets
    from zerodefect.training import journal

    if preview:
        output.mkdir(parents=True, exist_ok=True)
        tell(f"contact sheet: {sample_sheets.preview(output / 'preview.png', seed=seed)}")
        return
    chosen: dict[str, Any] = {
        "seed": seed,
        "steps": steps,
        "batch": batch,
        "threads": threads,
        "device": str(pick_device(device)),
    }
    config = dataclasses.replace(
        pretrain_clip.PretrainConfig(), **{k: v for k, v in chosen.items() if v is not None}
    )
    with progress() as bar:
        total = min(config.steps, until or config.steps)
        task = bar.add_task("pretraining", total=total)

        def on_step(step: int, losses: dict[str, float]) -> None:
            bar.update(task, completed=step, description=f"loss {losses['total']:.3f}")

        weights = pretrain_clip.pretrain(config, output, on_step, until)
    tell(f"weights: {weights}")
    tell(f"log:     {output / journal.LOG}, {journal.CURVES}, {pretrain_clip.SAMPLES}")
    tell(f"use:     zerodefect inspect PICTURES --backbone {weights}")

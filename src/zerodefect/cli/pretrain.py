"""``zerodefect pretrain``: train the embedded model on procedural pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from zerodefect.cli.options import Device, Precision, option, output_option
from zerodefect.cli.telling import progress, tell


def pretrain(
    output: Path = output_option(Path("pretrain-run"), "Run folder; the same folder resumes."),
    steps: int | None = option(
        None, "Optimiser steps of the schedule; default: the packaged one.", min=1
    ),
    until: int | None = option(
        None, "Stop after this step; the same command without it goes on.", min=1
    ),
    batch: int | None = option(None, "Pictures a step.", min=1),
    seed: int = option(0, "Decides weights, pictures, prompts."),
    threads: int | None = option(None, "Processor threads.", min=1),
    device: Device = "auto",
    precision: Precision = "auto",
    preview: bool = option(False, "Only write a contact sheet of training pictures.", "--preview"),
) -> None:
    """Train the embedded model from nothing but a seed.

    Killed and started again, it goes on.
    """
    from zerodefect.backbones.precision import pick_precision
    from zerodefect.detector.load_detector import pick_device
    from zerodefect.pretraining import model_and_sheets, pretrain_clip
    from zerodefect.training import journal

    if preview:
        output.mkdir(parents=True, exist_ok=True)
        tell(f"contact sheet: {model_and_sheets.preview(output / 'preview.png', seed=seed)}")
        return
    chosen: dict[str, Any] = {"steps": steps, "batch": batch, "threads": threads}
    given = {name: value for name, value in chosen.items() if value is not None}
    where = str(pick_device(device))
    given["precision"] = pick_precision(precision, where)
    config = pretrain_clip.PretrainConfig(seed=seed, device=where, **given)
    with progress("pretraining", min(config.steps, until or config.steps)) as bar:

        def on_step(step: int, losses: dict[str, float]) -> None:
            bar(completed=step, description=f"loss {losses['total']:.3f}")

        weights = pretrain_clip.pretrain(config, output, on_step, until)
    tell(f"weights: {weights}")
    tell(f"log:     {output / journal.LOG}, {journal.CURVES}, {pretrain_clip.SAMPLES}")
    tell(f"use:     zerodefect inspect PICTURES --backbone {weights}")

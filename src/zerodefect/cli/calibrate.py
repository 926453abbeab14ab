"""``zerodefect calibrate``: limits with a guarantee, from good parts only."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from zerodefect.cli import shared


def calibrate(
    good: Annotated[list[Path], typer.Argument(help="Pictures or folders of good parts only.")],
    object: shared.ObjectName = None,
    reference: shared.References = None,
    false_alarms: Annotated[
        float | None,
        typer.Option(
            help="Largest share of good parts called defective; default 0.01, or what n allows."
        ),
    ] = None,
    review_rate: Annotated[
        float | None,
        typer.Option(help="Largest share of good parts called unsure or worse; default 0.05."),
    ] = None,
    leave_one_out: Annotated[
        bool,
        typer.Option(
            "--leave-one-out", help="The good parts are the references, each left out in turn."
        ),
    ] = False,
    output: Annotated[Path, typer.Option("--output", "-o", help="Policy file.")] = Path(
        "policy.json"
    ),
    method: shared.Method = None,
    checkpoint: shared.CheckpointFile = None,
    backbone: shared.BackboneName = None,
    weights: shared.WeightsFile = None,
    image_size: shared.ImageSize = None,
    tile: shared.Tile = None,
    overlap: shared.Overlap = 0.25,
    keep_aspect: shared.KeepAspect = False,
    roi: shared.Roi = None,
    ignore: shared.Ignore = None,
    settings: shared.MethodOptions = None,
    batch_size: shared.BatchSize = 8,
    bit_depth: shared.BitDepth = None,
    device: shared.Device = "auto",
    precision: shared.Precision = "float32",
    as_json: shared.AsJson = False,
) -> None:
    """Learn the two limits (unsure, defect) from good parts and write them to a policy file."""
    from zerodefect.images import find_images
    from zerodefect.inspection.policy import smallest_rate

    files = find_images(good)
    if leave_one_out and reference:
        raise ValueError("--leave-one-out makes the good parts the references; drop --reference")
    inspector = shared.load_inspector(
        method,
        checkpoint=checkpoint,
        backbone=backbone,
        weights=weights,
        device=device,
        image_size=image_size,
        vocabulary=None,
        settings=settings,
        object=object,
        references=reference,
        bit_depth=bit_depth,
        precision=precision,
        tile=tile,
        overlap=overlap,
        keep_aspect=keep_aspect,
        roi=roi,
        ignore=ignore,
    )
    with shared.progress(quiet=as_json) as bar:
        task = bar.add_task("calibrating", total=len(files))
        policy = inspector.calibrate(
            files,
            false_alarms=false_alarms,
            review_rate=review_rate,
            leave_one_out=leave_one_out,
            batch_size=batch_size,
            on_scored=lambda count: bar.advance(task, count),
        )
    policy.save(output)
    if as_json:
        typer.echo(policy.model_dump_json())
        return
    limits = policy.limits
    for note in policy.notes:
        typer.echo(note)
    typer.echo(
        f"defect above {limits.defect:.4f}, unsure above {limits.unsure:.4f}"
        if limits.defect is not None and limits.unsure is not None
        else "too few images for a finite limit"
    )
    n = len(policy.scores)
    typer.echo(f"smallest false-alarm rate that {n} images can prove: {smallest_rate(n):.3g}")
    flag = " and the same good parts as --reference" if leave_one_out else ""
    typer.echo(f"policy: {output}; pass it with --policy{flag}")

"""``zerodefect calibrate``: limits with a guarantee, from good parts only."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zerodefect.cli import shared

if TYPE_CHECKING:
    from zerodefect.inspection.policy import Policy
    from zerodefect.types import Failure


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
    """Learn the two limits (unsure, defect) from good parts and write them to a policy file.

    Exit code 0: the policy is written. 1: nothing could be done. 3: it is written, but some files
    could not be read and do not count.
    """
    from zerodefect.images import find_images

    files = find_images(good)
    if leave_one_out and reference:
        raise ValueError("--leave-one-out makes the good parts the references; drop --reference")
    shared.tell_views(tile, overlap, [*files, *find_images(reference or [])])
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
    failures: list[Failure] = []

    def on_failure(failure: Failure) -> None:
        failures.append(failure)
        shared.say(f"left out: {failure}")

    with shared.progress(quiet=as_json) as bar:
        task = bar.add_task("calibrating", total=len(files))
        policy = inspector.calibrate(
            files,
            false_alarms=false_alarms,
            review_rate=review_rate,
            leave_one_out=leave_one_out,
            batch_size=batch_size,
            on_scored=lambda count: bar.advance(task, count),
            on_failure=on_failure,
        )
    policy.save(output)
    if as_json:
        typer.echo(policy.model_dump_json())
    else:
        _tell(policy, output, leave_one_out)
    if failures:
        noun = "file" if len(failures) == 1 else "files"
        again = "; remove them before they are --reference" if leave_one_out else ""
        shared.say(f"{len(failures)} {noun} could not be read and do not count{again}")
        raise typer.Exit(3)


def _tell(policy: Policy, output: Path, leave_one_out: bool) -> None:
    from zerodefect.inspection.conformal import smallest_rate

    limits = policy.limits
    for note in policy.notes:
        typer.echo(note)
    typer.echo(
        f"defect above {limits.defect:.4f}, unsure above {limits.unsure:.4f}"
        if limits.defect is not None and limits.unsure is not None
        else "too few images for a finite limit"
    )
    n = len(policy.scores)
    images = "1 image" if n == 1 else f"{n} images"
    typer.echo(f"smallest false-alarm rate that {images} can prove: {smallest_rate(n):.3g}")
    flag = " and the same good parts as --reference" if leave_one_out else ""
    typer.echo(f"policy: {output}; pass it with --policy{flag}")

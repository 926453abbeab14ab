"""``zerodefect calibrate``: limits with a guarantee, from good parts only."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from zerodefect.cli.opening import load_inspector, tell_views
from zerodefect.cli.options import (
    AsJson,
    BatchSize,
    DetectorOptions,
    Options,
    PictureOptions,
    ProductOptions,
)
from zerodefect.cli.telling import progress, say

if TYPE_CHECKING:
    from zerodefect.inspection.policy import Policy
    from zerodefect.types import Failure


@dataclass(frozen=True)
class LimitOptions(Options):
    """What the limits guarantee, and from what they are learned."""

    false_alarms: Annotated[
        float | None,
        typer.Option(
            help="Largest share of good parts called defective; default 0.01, or what n allows."
        ),
    ] = None
    review_rate: Annotated[
        float | None,
        typer.Option(help="Largest share of good parts called unsure or worse; default 0.05."),
    ] = None
    leave_one_out: Annotated[
        bool,
        typer.Option(
            "--leave-one-out", help="The good parts are the references, each left out in turn."
        ),
    ] = False


def calibrate(
    good: Annotated[list[Path], typer.Argument(help="Pictures or folders of good parts only.")],
    *,
    product: ProductOptions,
    limits: LimitOptions,
    output: Annotated[Path, typer.Option("--output", "-o", help="Policy file.")] = Path(
        "policy.json"
    ),
    detector: DetectorOptions,
    pictures: PictureOptions,
    batch_size: BatchSize = 8,
    as_json: AsJson = False,
) -> None:
    """Learn the two limits (unsure, defect) from good parts and write them to a policy file.

    Exit code 0: the policy is written. 1: nothing could be done. 3: it is written, but some files
    could not be read and do not count.
    """
    from zerodefect.images import find_images

    files = find_images(good)
    if limits.leave_one_out and product.references:
        raise ValueError("--leave-one-out makes the good parts the references; drop --reference")
    tell_views(pictures, [*files, *find_images(product.references or [])])
    inspector = load_inspector(product, detector, pictures, files)
    failures: list[Failure] = []

    def on_failure(failure: Failure) -> None:
        failures.append(failure)
        say(f"left out: {failure}")

    with progress(quiet=as_json) as bar:
        task = bar.add_task("calibrating", total=len(files))
        policy = inspector.calibrate(
            files,
            **limits.keywords(),
            batch_size=batch_size,
            on_scored=lambda count: bar.advance(task, count),
            on_failure=on_failure,
        )
    policy.save(output)
    if as_json:
        typer.echo(policy.model_dump_json())
    else:
        _tell(policy, output, limits.leave_one_out)
    if failures:
        again = "; remove them before they are --reference" if limits.leave_one_out else ""
        files_failed = f"{len(failures)} file{'s' * (len(failures) != 1)}"
        say(f"{files_failed} could not be read and do not count{again}")
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
    images = f"{n} image{'s' * (n != 1)}"
    typer.echo(f"smallest false-alarm rate that {images} can prove: {smallest_rate(n):.3g}")
    flag = " and the same good parts as --reference" if leave_one_out else ""
    typer.echo(f"policy: {output}; pass it with --policy{flag}")

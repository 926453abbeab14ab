"""``zerodefect calibrate``: limits with a guarantee, from good parts only."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from zerodefect.cli.drawn_damage import measured_power, power_option, power_seconds
from zerodefect.cli.opening import load_inspector, tell_views
from zerodefect.cli.options import (
    AsJson,
    BatchOptions,
    DetectorOptions,
    GoodPaths,
    Options,
    PictureOptions,
    ProductOptions,
    RuleOptions,
    option,
    output_option,
)
from zerodefect.cli.telling import progress, say, tell

if TYPE_CHECKING:
    from zerodefect.inspection.policy import Policy
    from zerodefect.types import Failure


@dataclass(frozen=True)
class RateOptions(Options, panel="Limits"):
    """What the limits guarantee."""

    false_alarms: float | None = option(
        None,
        "Share of good parts called defective, at most, on average; default 0.01, or what n "
        "allows.",
        metavar="SHARE",
    )
    review_rate: float | None = option(
        None, "Share of good parts called unsure or worse, at most; default 0.05.", metavar="SHARE"
    )
    confidence: float | None = option(
        None,
        "Keep --false-alarms with this confidence, such as 0.95, instead of on average.",
        metavar="SHARE",
    )


@dataclass(frozen=True)
class LimitOptions(RateOptions, panel="Limits"):
    """What the limits guarantee, and from what they are learned."""

    leave_one_out: bool = option(
        False, "The good parts are the references, each left out in turn.", "--leave-one-out"
    )


def calibrate(
    good: GoodPaths,
    *,
    product: ProductOptions,
    rules: RuleOptions,
    limits: LimitOptions,
    detector: DetectorOptions,
    pictures: PictureOptions,
    output: Path = output_option(Path("policy.json"), "Policy file.", metavar="FILE"),
    power: str = power_option("off"),
    batch: BatchOptions,
    as_json: AsJson = False,
) -> None:
    """Learn the limits of verdicts from good parts.

    The two limits (unsure, defect) are written to a policy file.


    Exit code 0: the policy is written. 1: nothing could be done. 3: it is written, but some files
    could not be used and do not count.
    """
    from zerodefect.images import find_images

    files, seconds = find_images(good), power_seconds(power)
    if limits.leave_one_out and product.references:
        raise ValueError("--leave-one-out makes the good parts the references; drop --reference")
    tell_views(pictures, [*files, *find_images(product.references or [])])
    inspector = load_inspector(product, detector, pictures, files, rules.vocabulary)
    failures: list[Failure] = []

    def on_failure(failure: Failure) -> None:
        failures.append(failure)
        say(f"left out: {failure}")

    with progress("calibrating", len(files), quiet=as_json) as bar:
        policy = inspector.calibrate(
            files,
            part_by=rules.part_by,
            allow=rules.rules,
            **limits.keywords(),
            **batch.keywords(),
            on_scored=lambda count: bar(advance=count),
            on_failure=on_failure,
        )
    policy.save(output)
    if as_json:
        tell(policy.model_dump_json())
        say(f"policy: {output}")
    else:
        _tell(policy, output, limits.leave_one_out)
    if seconds:
        for sentence in measured_power(inspector, files, seconds, as_json).sentences():
            (say if as_json else tell)(sentence)
    if failures:
        again = "; remove them before they are --reference" if limits.leave_one_out else ""
        files_failed = f"{len(failures)} file{'s' * (len(failures) != 1)}"
        say(f"{files_failed} could not be used and do not count{again}")
        raise typer.Exit(3)


def _tell(policy: Policy, output: Path, leave_one_out: bool) -> None:
    from zerodefect.inspection.conformal import smallest_rate
    from zerodefect.types import told_score

    limits = policy.limits
    for note in policy.told():
        tell(note)
    tell(
        f"defect above {told_score(limits.defect)}, unsure above {told_score(limits.unsure)}"
        if limits.defect is not None and limits.unsure is not None
        else f"too few {policy.unit}s for a finite limit"
    )
    n = len(policy.scores)
    images = f"{n} {policy.unit}{'s' * (n != 1)}"
    sure = f" with {100 * policy.confidence:.4g} % confidence" if policy.confidence else ""
    smallest = smallest_rate(n, policy.confidence)
    tell(f"smallest false-alarm rate that {images} can prove{sure}: {smallest:.3g}")
    flag = " and the same good parts as --reference" if leave_one_out else ""
    tell(f"policy: {output}; pass it with --policy{flag}")

"""``zerodefect calibrate``: limits with a guarantee, from good parts only."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from zerodefect.cli.opening import load_inspector
from zerodefect.cli.options import (
    AsJson,
    BatchOptions,
    DetectorOptions,
    GoodPaths,
    Options,
    PictureOptions,
    ProductOptions,
    option,
    output_option,
)
from zerodefect.cli.telling import progress, say, tell

if TYPE_CHECKING:
    from zerodefect.inspection.inspector import Inspector
    from zerodefect.inspection.policy import Policy
    from zerodefect.types import Failure


@dataclass(frozen=True)
class LimitOptions(Options, panel="Limits"):
    """What the limits guarantee, and from what they are learned."""

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
    leave_one_out: bool = option(
        False, "The good parts are the references, each left out in turn.", "--leave-one-out"
    )


@dataclass(frozen=True)
class KeepOptions(Options, panel="Output"):
    """What is written, and where."""

    output: Path | None = output_option(
        None,
        "Product file NAME.zd, or policy file NAME.json; default: the product's, or policy.json.",
        metavar="FILE",
    )
    keep_pictures: bool = option(
        True, "Keep the good pictures in a product file.", "--pictures/--no-pictures"
    )


def calibrate(
    good: GoodPaths = None,
    *,
    product: ProductOptions,
    renew: bool = option(
        False,
        "With --product: learn all anew from the pictures inside, on present or other weights.",
        "--renew",
        rich_help_panel="Product",
    ),
    limits: LimitOptions,
    detector: DetectorOptions,
    pictures: PictureOptions,
    keep: KeepOptions,
    batch: BatchOptions,
    as_json: AsJson = False,
) -> None:
    """Learn the limits of verdicts from good parts.

    Into a product file (--output screw.zd) goes all that 'inspect --product screw.zd' needs; into a
    policy file (policy.json) the two limits alone. To a product file more good parts can be added:
    --product screw.zd --reference more/.

    Exit code 0: the file is written. 1: nothing could be done. 3: it is written, but some files
    could not be used and do not count.
    """
    from zerodefect.images import find_images

    files = find_images(good or [])
    _check(files, product, renew, limits)
    failures: list[Failure] = []

    def on_failure(failure: Failure) -> None:
        failures.append(failure)
        say(f"left out: {failure}")

    inspector = (
        _renewed(product, detector, pictures, limits)
        if renew
        else load_inspector(_known(product), detector, pictures, files)
    )
    with progress("calibrating", len(files) or None, quiet=as_json) as bar:
        told: dict[str, Any] = {"on_scored": lambda count: bar(advance=count)}
        told |= {"on_failure": on_failure, **batch.keywords()}
        if product.product and not renew:
            policy = _relearned(inspector, product, files, limits, told)
        elif not renew:
            policy = inspector.calibrate(files, **limits.keywords(), **told)
        else:
            policy = inspector.active_policy()
    output = keep.output or product.product or Path("policy.json")
    whole = output.suffix == ".zd" or output == product.product
    if whole:
        inspector.save(output, keep.keep_pictures)
    else:
        policy.save(output)
    if as_json:
        tell(policy.model_dump_json())
        say(f"{'product' if whole else 'policy'}: {output}")
    else:
        _tell(policy, output, whole, limits.leave_one_out)
    if failures:
        alone = limits.leave_one_out and not whole
        again = "; remove them before they are --reference" if alone else ""
        files_failed = f"{len(failures)} file{'s' * (len(failures) != 1)}"
        say(f"{files_failed} could not be used and do not count{again}")
        raise typer.Exit(3)


def _check(
    files: Sequence[Path], product: ProductOptions, renew: bool, limits: LimitOptions
) -> None:
    """Refuse what cannot go together, before anything is loaded.

    Raises:
        ValueError: saying what to drop.
    """
    if limits.leave_one_out and product.references:
        raise ValueError("--leave-one-out makes the good parts the references; drop --reference")
    if renew and not product.product:
        raise ValueError("--renew learns a product anew: name its file (--product FILE)")
    if renew and (files or product.references):
        raise ValueError("--renew learns from the pictures inside: add others afterwards")
    if not files and not product.product:
        raise ValueError("name pictures or folders of good parts, or a product file (--product)")


def _known(product: ProductOptions) -> ProductOptions:
    """Without the references that are to be added to a product file."""
    return dataclasses.replace(product, references=None) if product.product else product


def _renewed(
    product: ProductOptions,
    detector: DetectorOptions,
    pictures: PictureOptions,
    limits: LimitOptions,
) -> Inspector:
    from zerodefect.inspection.load_inspector import renewed

    if any(value not in (None, False) for value in limits.keywords().values()):
        raise ValueError("--renew keeps what the limits were asked for: change that afterwards")
    assert product.product is not None
    options = {**product.keywords(), **detector.keywords(), **pictures.keywords()}
    return renewed(product.product, **options)


def _relearned(
    inspector: Inspector,
    product: ProductOptions,
    files: Sequence[Path],
    limits: LimitOptions,
    told: dict[str, Any],
) -> Policy:
    """Limits from all pictures of a product file and further ones."""
    rates = limits.keywords()
    left_out = rates.pop("leave_one_out")
    if left_out and not inspector.calibration.leave_one_out:
        raise ValueError(
            f"--leave-one-out: the limits of {product.product} come from good parts that are no "
            "references. Calibrate anew with --output"
        )
    return inspector.relearn(product.references, list(files) or None, **rates, **told)


def _tell(policy: Policy, output: Path, whole: bool, leave_one_out: bool) -> None:
    from zerodefect.inspection.conformal import smallest_rate
    from zerodefect.types import told_score

    limits = policy.limits
    for note in policy.notes:
        tell(note)
    tell(
        f"defect above {told_score(limits.defect)}, unsure above {told_score(limits.unsure)}"
        if limits.defect is not None and limits.unsure is not None
        else "too few images for a finite limit"
    )
    n = len(policy.scores)
    images = f"{n} image{'s' * (n != 1)}"
    sure = f" with {100 * policy.confidence:.4g} % confidence" if policy.confidence else ""
    smallest = smallest_rate(n, policy.confidence)
    tell(f"smallest false-alarm rate that {images} can prove{sure}: {smallest:.3g}")
    if whole:
        tell(f"product: {output}; inspect with it: zerodefect inspect PICTURES --product {output}")
        return
    flag = " and the same good parts as --reference" if leave_one_out else ""
    tell(f"policy: {output}; pass it with --policy{flag}")

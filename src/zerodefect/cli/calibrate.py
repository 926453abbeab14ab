"""``zerodefect calibrate``: limits with a guarantee, from good parts only."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from zerodefect.cli.drawn_damage import measured_power, power_option, power_seconds
from zerodefect.cli.opening import load_inspector, teach
from zerodefect.cli.options import (
    AsJson,
    BatchOptions,
    DetectorOptions,
    GoodPaths,
    KindOptions,
    Options,
    ProductOptions,
    RuleOptions,
    option,
    output_option,
)
from zerodefect.cli.picture_options import PictureOptions
from zerodefect.cli.rule_options import ComponentRuleOptions
from zerodefect.cli.telling import LeftOut, progress, say, tell

if TYPE_CHECKING:
    from zerodefect.inspection.inspector import Inspector
    from zerodefect.inspection.policy import Policy


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
    rules: RuleOptions,
    kinds: KindOptions,
    asked: ComponentRuleOptions,
    limits: LimitOptions,
    detector: DetectorOptions,
    pictures: PictureOptions,
    keep: KeepOptions,
    power: str = power_option("off"),
    batch: BatchOptions,
    as_json: AsJson = False,
) -> None:
    """Learn the limits of verdicts from good parts.

    A product file (--output screw.zd) holds all that 'inspect --product screw.zd' needs, a policy
    file (policy.json) the limits alone. To add good parts: --product screw.zd --reference more/.

    Exit code 0: the file is written. 1: nothing could be done. 3: it is written, but some files
    could not be used and do not count.
    """
    from zerodefect.images.part_files import find_parts

    files, seconds = find_parts(good or []), power_seconds(power)
    _check(files, product, renew, limits, rules, asked, seconds)
    failures = LeftOut()
    if renew:
        inspector = _renewed(product, detector, pictures, limits, asked)
    else:
        inspector = load_inspector(_known(product), detector, pictures, files, rules.vocabulary)
        _teach_rules(inspector, asked, files, limits)
    with progress("calibrating", len(files) or None, quiet=as_json) as bar:
        told: dict[str, Any] = {"on_failure": failures.add, **batch.keywords()}
        told["on_scored"] = lambda count: bar(advance=count)
        allow = () if kinds.examples else rules.rules  # rules may name kinds, taught afterwards
        stays = (kinds.examples or asked.given) and not asked.learned()
        if renew or (stays and _as_it_was(files, product, limits)):
            policy = inspector.active_policy()
        elif product.product:
            policy = _relearned(inspector, product, files, limits, allow, told)
        else:
            told |= {"part_by": rules.part_by, "allow": allow, **limits.keywords()}
            policy = inspector.calibrate(files, **told)
    policy = _with_kinds(inspector, policy, kinds, rules)
    finds = _finds(inspector, files, seconds, as_json)
    output, whole = _kept(inspector, policy, product, keep)
    _tell(policy, output, whole, limits.leave_one_out, as_json)
    for sentence in finds:
        (say if as_json else tell)(sentence)
    if failures:
        _tell_failures(len(failures), limits.leave_one_out and not whole)
        raise typer.Exit(3)


def _check_rules(asked: ComponentRuleOptions, product: ProductOptions, rules: RuleOptions) -> None:
    """Refuse rules that are not understood, or cannot be learned.

    Raises:
        ValueError: saying what to drop.
    """
    asked.check(product.product)
    if rules.part_by and asked.learned():
        raise ValueError(
            "--rule as usual is learned from single pictures: state limits, or drop --part-by"
        )


def _teach_rules(
    inspector: Inspector,
    asked: ComponentRuleOptions,
    files: Sequence[Path],
    limits: LimitOptions,
) -> None:
    """Hold pictures to the rules, whose boxes are compared with the references."""
    if asked.given and limits.leave_one_out and not inspector.shots:
        inspector.remember(files)
    asked.teach(inspector)


def _with_kinds(
    inspector: Inspector, policy: Policy, kinds: KindOptions, rules: RuleOptions
) -> Policy:
    """Teach the kinds that examples are given of; the policy with rules that may name them."""
    teach(inspector, kinds)
    if kinds.examples and rules.rules:
        inspector.policy = policy = policy.allowing(rules.rules)
    return policy


def _tell_failures(count: int, again: bool) -> None:
    files = f"{count} file{'s' * (count != 1)}"
    remedy = "; remove them before they are --reference" if again else ""
    say(f"{files} could not be used and do not count{remedy}")


def _finds(
    inspector: Inspector, files: Sequence[Path], seconds: float | None, as_json: bool
) -> Sequence[str]:
    """Sentences on the drawn damage that would be found; none where nobody asked."""
    if not seconds:
        return ()
    curve = measured_power(inspector, files, seconds, as_json)
    inspector.power = curve.as_dict()
    return curve.sentences()


def _kept(
    inspector: Inspector, policy: Policy, product: ProductOptions, keep: KeepOptions
) -> tuple[Path, bool]:
    """The file that is written, and whether it is a product file."""
    output = keep.output or product.product or Path("policy.json")
    whole = output.suffix == ".zd" or output == product.product
    if whole:
        inspector.save(output, keep.keep_pictures)
    else:
        policy.save(output)
        if inspector.taught_kinds:
            say("a policy file holds no kinds: give --kind to inspect, or write a product file")
        if inspector.rule_set:
            say("a policy file holds no rules: give --rule to inspect, or write a product file")
    return output, whole


def _check(
    files: Sequence[Path],
    product: ProductOptions,
    renew: bool,
    limits: LimitOptions,
    rules: RuleOptions,
    asked: ComponentRuleOptions,
    seconds: float | None,
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
    if product.product and rules.part_by:
        raise ValueError("--part-by: the limits of parts are learned anew, without --product")
    if renew and rules.rules:
        raise ValueError("--allow: --renew keeps the product's rules: change them afterwards")
    if seconds and not files:
        raise ValueError("--power draws onto good parts named here: name some, or drop it")
    _check_rules(asked, product, rules)


def _as_it_was(files: Sequence[Path], product: ProductOptions, limits: LimitOptions) -> bool:
    """Whether a product file's limits stay, since nothing is given that changes them."""
    given = [*limits.keywords().values(), product.references, *files]
    return product.product is not None and not any(given)


def _known(product: ProductOptions) -> ProductOptions:
    """Without the references that are to be added to a product file."""
    return dataclasses.replace(product, references=None) if product.product else product


def _renewed(
    product: ProductOptions,
    detector: DetectorOptions,
    pictures: PictureOptions,
    limits: LimitOptions,
    asked: ComponentRuleOptions,
) -> Inspector:
    from zerodefect.inspection.load_inspector import renewed

    if any(value not in (None, False) for value in limits.keywords().values()):
        raise ValueError("--renew keeps what the limits were asked for: change that afterwards")
    assert product.product is not None
    options = {**product.keywords(), **detector.keywords(), **pictures.keywords()}
    return renewed(product.product, **asked.keywords(), **options)


def _relearned(
    inspector: Inspector,
    product: ProductOptions,
    files: Sequence[Path],
    limits: LimitOptions,
    allow: Sequence[str],
    told: dict[str, Any],
) -> Policy:
    """Limits from all pictures of a product file and further ones."""
    rates = {**limits.keywords(), **({"allow": allow} if allow else {})}
    left_out = rates.pop("leave_one_out")
    if left_out and not inspector.calibration.leave_one_out:
        raise ValueError(
            f"--leave-one-out: the limits of {product.product} come from good parts that are no "
            "references. Calibrate anew with --output"
        )
    return inspector.relearn(product.references, list(files) or None, **rates, **told)


def _tell(policy: Policy, output: Path, whole: bool, leave_one_out: bool, as_json: bool) -> None:
    from zerodefect.inspection.conformal import smallest_rate
    from zerodefect.types import told_score

    if as_json:
        tell(policy.model_dump_json())
        say(f"{'product' if whole else 'policy'}: {output}")
        return
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
    if whole:
        tell(f"product: {output}; inspect with it: zerodefect inspect PICTURES --product {output}")
        return
    flag = " and the same good parts as --reference" if leave_one_out else ""
    tell(f"policy: {output}; pass it with --policy{flag}")

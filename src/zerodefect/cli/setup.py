"""``zerodefect setup``: from good parts to a product file in one step."""

from __future__ import annotations

import re
import shlex
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from zerodefect.cli.calibrate import RateOptions
from zerodefect.cli.drawn_damage import measured_power, power_option, power_seconds
from zerodefect.cli.opening import load_inspector, tell_views
from zerodefect.cli.options import (
    DetectorOptions,
    GoodPaths,
    ProductOptions,
    object_option,
    option,
    output_option,
)
from zerodefect.cli.picture_options import PictureOptions
from zerodefect.cli.rule_options import ComponentRuleOptions
from zerodefect.cli.telling import LeftOut, progress, tell

if TYPE_CHECKING:
    from zerodefect.inspection.inspector import Inspector
    from zerodefect.inspection.power_curve import PowerCurve
    from zerodefect.inspection.setting_up import SetUp


def setup(
    good: GoodPaths,
    *,
    object: str | None = object_option(),
    asked: ComponentRuleOptions,
    limits: RateOptions,
    detector: DetectorOptions,
    pictures: PictureOptions,
    output: Path | None = output_option(
        None, "Product file; default: the object's name.zd, with a page beside it.", "NAME.zd"
    ),
    overwrite: bool = option(
        False, "Replace a product file of that name.", "--overwrite", rich_help_panel="Output"
    ),
    power: str = power_option("60s"),
) -> None:
    """Learn a product from good parts, in one step.

    Splits them into references and calibration (few are all references, each left out in turn),
    learns the limits, tries itself on damage drawn onto them, and writes a product file and a page
    that shows what was learned. Look at the page, then inspect.

    Exit code 0: all is written. 1: nothing could be done. 3: it is written, but some files could
    not be used and do not count.
    """
    from zerodefect.images.part_files import find_parts
    from zerodefect.inspection.setting_up import set_up

    files, seconds = find_parts(good or []), power_seconds(power)
    asked.check()
    file, page = _targets(output, object, overwrite)
    if len(files) < 2:
        raise ValueError("name two good parts or more: limits are learned from how they differ")
    tell_views(pictures, files)
    inspector = load_inspector(ProductOptions(object=object), detector, pictures, files)
    failures = LeftOut()
    with progress("learning", len(files)) as bar:
        made = set_up(
            inspector,
            files,
            on_scored=lambda count: bar(advance=count),
            on_failure=failures.add,
            with_boxes=asked.with_boxes(),
            before_limits=(lambda: asked.teach(inspector)) if asked.given else None,
            **limits.keywords(),
        )
    curve = _power(inspector, made, files, seconds)
    inspector.save(file)
    _write_page(page, inspector, made, curve, file)
    _tell(made, curve, file, page)
    if failures:
        raise typer.Exit(3)


def _targets(output: Path | None, name: str | None, overwrite: bool) -> tuple[Path, Path]:
    """The product file and the page that are written.

    Raises:
        ValueError: another ending, or one is there already.
        OSError: nothing can be written there.
    """
    slug = re.sub(r"[^\w]+", "-", (name or "").lower()).strip("-")[:40]
    file = output or Path(f"{slug or 'product'}.zd")
    if file.suffix != ".zd":
        raise ValueError(f"--output {file}: a product file ends in .zd, such as {file.stem}.zd")
    page = file.with_suffix(".html")
    for one in (file, page):
        if one.exists() and not overwrite:
            raise ValueError(
                f"--output {one}: it is there already. Name another, or add --overwrite"
            )
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=file.parent):  # better now than after all the work
        pass
    return file, page


def _power(
    inspector: Inspector, made: SetUp, files: list[Path], seconds: float | None
) -> PowerCurve | None:
    """The drawn damage that would be found; None where nobody asked."""
    if not seconds:
        return None
    curve = measured_power(inspector, list(made.apart) or files, seconds)
    inspector.power = curve.as_dict()
    return curve


def _write_page(
    page: Path, inspector: Inspector, made: SetUp, curve: PowerCurve | None, file: Path
) -> None:
    from zerodefect.reports.report_page import networks_in_words
    from zerodefect.reports.setup_page import write_setup_page
    from zerodefect.version import __version__

    facts = {
        "Method": inspector.detector.info.title,
        "Backbone": networks_in_words(inspector.detector.backbone),
        "References": len(made.references),
        "Good pictures that limits were learned from": len(made.policy.scores),
        "Date": made.policy.created,
        "ZeroDefect": __version__,
    }
    write_setup_page(
        page,
        heading=inspector.object or file.stem,
        facts=facts,
        policy=made.policy.model_dump(mode="json"),
        references=[(Path(one.path).name, one.to_uint8()) for one in made.references],
        curve=curve,
        commands=_next(file),
    )


def _next(file: Path) -> list[tuple[str, str]]:
    """What to type next, and what it does."""
    product = shlex.quote(str(file))
    return [
        (f"zerodefect inspect parts/ --product {product}", "Inspect parts, on any machine:"),
        (f"zerodefect show {product}", "Read its card again:"),
        (
            f"zerodefect calibrate --product {product} --reference more/",
            "Add good parts that it calls defective:",
        ),
    ]


def _tell(made: SetUp, curve: PowerCurve | None, file: Path, page: Path) -> None:
    references, apart = len(made.references), len(made.apart)
    split = f", limits from {apart} others" if apart else ", each left out in turn for the limits"
    tell(f"references: {references} good picture{'s' * (references != 1)}{split}")
    for line in [*made.policy.told(), *(curve.sentences() if curve else ())]:
        tell(line)
    tell(f"product: {file}")
    tell(f"page:    {page}")
    tell(f"next:    {_next(file)[0][0]}")

"""``zerodefect data``: what a data set holds and what is missing; one made of good pictures."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from zerodefect.cli.data_list import data_list
from zerodefect.cli.help_panels import Verb
from zerodefect.cli.options import AsJson, BitDepth, Layout, flattened, option, output_option
from zerodefect.cli.telling import progress, tell

if TYPE_CHECKING:
    from zerodefect.data import Dataset, FileCheck, Problem

app = typer.Typer(
    help="Look at data sets, and make them.", no_args_is_help=True, rich_markup_mode="rich"
)

Damage = Literal["perlin", "procedural", "both", "logical", "points"]

_SHOWN = 3  # files named for each kind of problem
_WITH_PROBLEMS = 3  # exit code


@app.callback()
def data() -> None:
    """Look at data sets, and make them."""


app.command("list", cls=Verb)(data_list)


@app.command(cls=Verb)
@flattened
def check(
    path: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Folder, meta.json, CSV or JSON lines.")
    ],
    layout: Layout = "auto",
    deep: bool = option(False, "Open every picture, too.", "--deep"),
    bit_depth: BitDepth = None,
    as_json: AsJson = False,
) -> None:
    """Explain what a data set holds and what is missing.

    Exit code: 0 if all is well, 3 if there are problems, 1 if it cannot be used.
    """
    from zerodefect.data import check_files, load_dataset

    dataset = load_dataset(path, layout=layout, sizes=False)
    doing = "opening files" if deep else "opening masks"
    with progress(doing, len(dataset), quiet=as_json) as bar:
        files = check_files(
            dataset, masks=True, deep=deep, bit_depth=bit_depth, on_sample=partial(bar, advance=1)
        )
    problems = (*dataset.problems, *files.problems)
    if as_json:
        tell(json.dumps(_facts(dataset, files, problems), indent=2), lines=True)
    else:
        _explain(dataset, files, problems)
    if problems:
        raise typer.Exit(_WITH_PROBLEMS)


@app.command(cls=Verb)
@flattened
def synthesize(
    folder: Annotated[Path, typer.Argument(metavar="GOOD", help="Folder of good pictures.")],
    output: Path = output_option(..., "New or empty folder."),
    count: int = option(100, "Damaged pictures to make.", min=1),
    damage: Damage = option(
        "both",
        "perlin (DRAEM's), procedural (scratches, dents, stains, ...), both, or logical (parts "
        "removed, moved, doubled, resized or taken from another picture); points: dents, holes, "
        "scratches, ... of parts with a cloud, on picture and points alike.",
    ),
    seed: int = option(0, "Of all draws.", min=0),
) -> None:
    """Make a data set of good pictures: some of them are damaged, with masks.

    Half of the pictures are to learn from; the others, good and damaged, to measure on. Figures on
    drawn damage say what a method can find, not how it does on real defects.
    """
    from zerodefect.data.part_synthesis import synthesize_parts
    from zerodefect.data.synthesis import synthesize as made

    with progress("damaging", count) as bar:
        advance = partial(bar, advance=1)
        if damage == "points":
            wrote = synthesize_parts(folder, output, count, seed, advance)
        else:
            wrote = made(folder, output, count, seed, damage, advance)
    what = "parts" if damage == "points" else "pictures"
    tell(f"learn from: {wrote.train} good {what}")
    tell(f"measure on: {wrote.good} good, {wrote.damaged} damaged")
    tell(f"look:       zerodefect data check {output} --layout mvtec")


@app.command(cls=Verb)
@flattened
def views(
    folder: Annotated[Path, typer.Argument(metavar="PARTS", help="Folder of parts with clouds.")],
    output: Path = output_option(..., "New or empty folder."),
    turn: list[str] | None = option(
        None,
        "Degrees about the upright and the level axis, -90 to 90; repeatable. Default: straight, "
        "and 30 to each of four sides.",
        "--turn",
        metavar="YAW,PITCH",
    ),
    width: float | None = option(
        None, "What a view covers, in the clouds' unit; default 1.5 times the cloud.", min=0
    ),
) -> None:
    """Draw parts with a point cloud from several sides, a picture for each.

    The surface's direction is drawn as colours, as --view normals does it, without the ground. All
    pictures of a part are then inspected as one part, with one verdict.
    """
    from zerodefect.data.part_views import PART_OF_VIEW, USUAL_TURNS, parsed_turn, write_views
    from zerodefect.types import Failure

    turns = [parsed_turn(text) for text in turn] if turn else USUAL_TURNS
    made, failed = 0, 0
    for one in write_views(folder, output, turns, width):
        if isinstance(one, Failure):
            failed += 1
            tell(str(one), err=True)
        else:
            made += 1
    tell(f"parts: {made}, {len(turns)} views each" + (f"; failed: {failed}" if failed else ""))
    tell(f"use:   zerodefect inspect {output} --part-by '{PART_OF_VIEW}'")
    if failed:
        raise typer.Exit(_WITH_PROBLEMS)


def _facts(dataset: Dataset, files: FileCheck, problems: tuple[Problem, ...]) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "name": dataset.name,
        "path": str(dataset.root),
        "layout": dataset.layout,
        "reason": dataset.reason,
        "fingerprint": dataset.fingerprint(),
        "products": dataset.products,
        "images": len(dataset),
        "masks": sum(bool(sample.mask) for sample in dataset),
        "table": [asdict(row) for row in dataset.split_table()],
        "sizes": [
            {"width": width, "height": height, "images": count}
            for (width, height), count in sorted(files.sizes.items())
        ],
        "bit_depths": {product: asdict(depth) for product, depth in files.depths.items()},
        "notes": dataset.notes,
        "problems": [asdict(problem) for problem in problems],
    }


def _explain(dataset: Dataset, files: FileCheck, problems: tuple[Problem, ...]) -> None:
    from zerodefect.data import format_table

    masks = sum(bool(sample.mask) for sample in dataset)
    tell(f"data set:  {dataset.name} ({dataset.root})")
    tell(f"layout:    {dataset.layout}: {dataset.reason}")
    tell(f"products:  {len(dataset.products)}")
    tell(f"pictures:  {len(dataset)}, {masks} with mask")
    tell(f"sizes:     {_sizes(files)}")
    for product, depth in files.depths.items():
        tell(f"bits:      {product}: {depth}")
    tell("")
    tell(format_table(dataset.split_table()), lines=True)
    if dataset.notes:
        tell("\nto know:", lines=True)
    for note in dataset.notes:
        tell(f"  {note}")
    errors = sum(problem.severity == "error" for problem in problems)
    if not problems:
        tell("\nno problems found", lines=True)
        return
    counts = {"error": errors, "warning": len(problems) - errors}
    said = [f"{n} {severity}" + "s" * (n != 1) for severity, n in counts.items()]
    tell(f"\n{', '.join(said)}:", lines=True)
    for line in _grouped(problems):
        tell(f"  {line}")


def _sizes(files: FileCheck) -> str:
    """Say how large the pictures are: the one size, or how far they differ."""
    if not files.sizes:
        return "no picture could be read"
    if len(files.sizes) == 1:
        ((width, height),) = files.sizes
        return f"all {width} x {height} pixels"
    smallest, *_, largest = sorted(files.sizes, key=lambda size: size[0] * size[1])
    return (
        f"{len(files.sizes)} different, {smallest[0]} x {smallest[1]} to "
        f"{largest[0]} x {largest[1]} pixels"
    )


def _grouped(problems: tuple[Problem, ...]) -> list[str]:
    """One line for each kind of problem, errors first, with the first few files under it."""
    from zerodefect.data import grouped

    lines = []
    for (severity, reason, remedy), names in grouped(problems).items():
        lines.append(f"{severity}: {reason}. {remedy}")
        lines += ["    " + name.replace("\n", "\\n") for name in names[:_SHOWN]]
        if len(names) > _SHOWN:
            lines.append(f"    and {len(names) - _SHOWN} more (--json lists all)")
    return lines

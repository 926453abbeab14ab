"""``zerodefect data check``: what a data set holds, and what is missing."""

from __future__ import annotations

import json
from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zerodefect.cli.options import AsJson, BitDepth, Layout
from zerodefect.cli.telling import progress

if TYPE_CHECKING:
    from zerodefect.data import Dataset, FileCheck, Problem

app = typer.Typer(help="Look at data sets.", no_args_is_help=True)

_SHOWN = 3  # files named for each kind of problem
_WITH_PROBLEMS = 3  # exit code


@app.callback()
def data() -> None:
    """Look at data sets."""


@app.command()
def check(
    path: Annotated[Path, typer.Argument(help="Folder, meta.json, or CSV/JSON-lines table.")],
    layout: Layout = "auto",
    deep: Annotated[bool, typer.Option("--deep", help="Open every picture and mask.")] = False,
    bit_depth: BitDepth = None,
    as_json: AsJson = False,
) -> None:
    """Explain what a data set holds and what is missing.

    Exit code: 0 if all is well, 3 if there are problems, 1 if it cannot be used.
    """
    from zerodefect.data import check_files, load_dataset

    dataset = load_dataset(path, layout=layout, sizes=False)
    with progress(quiet=as_json) as bar:
        task = bar.add_task("opening files" if deep else "reading sizes", total=len(dataset))
        advance = partial(bar.advance, task)
        files = check_files(dataset, deep=deep, bit_depth=bit_depth, on_sample=advance)
    problems = (*dataset.problems, *files.problems)
    if as_json:
        typer.echo(json.dumps(_facts(dataset, files, problems), indent=2))
    else:
        _explain(dataset, files, problems)
    if problems:
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
    typer.echo(f"data set:  {dataset.name} ({dataset.root})")
    typer.echo(f"layout:    {dataset.layout}: {dataset.reason}")
    typer.echo(f"products:  {len(dataset.products)}")
    typer.echo(f"pictures:  {len(dataset)}, {masks} with mask")
    typer.echo(f"sizes:     {_sizes(files)}")
    for product, depth in files.depths.items():
        typer.echo(f"bits:      {product}: {depth}")
    typer.echo(f"\n{format_table(dataset.split_table())}")
    if dataset.notes:
        typer.echo("\nto know:")
    for note in dataset.notes:
        typer.echo(f"  {note}")
    errors = sum(problem.severity == "error" for problem in problems)
    if not problems:
        typer.echo("\nno problems found")
        return
    counts = {"error": errors, "warning": len(problems) - errors}
    said = [f"{n} {severity}" + "s" * (n != 1) for severity, n in counts.items()]
    typer.echo(f"\n{', '.join(said)}:")
    for line in _grouped(problems):
        typer.echo(f"  {line}")


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
    groups: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for problem in sorted(problems, key=lambda problem: problem.severity):
        groups[problem.severity, problem.reason, problem.remedy].append(problem.file)
    lines = []
    for (severity, reason, remedy), names in groups.items():
        lines.append(f"{severity}: {reason}. {remedy}")
        lines += [f"    {name}" for name in names[:_SHOWN]]
        if len(names) > _SHOWN:
            lines.append(f"    and {len(names) - _SHOWN} more (--json lists all)")
    return lines

"""``zerodefect marks``: the same mark on several pictures of a finished run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from zerodefect.cli.options import AsJson, BatchOptions
from zerodefect.cli.telling import say, tell

_Run = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished run.")]


def marks(run: _Run, *, batch: BatchOptions, as_json: AsJson = False) -> None:
    """Find the same mark on several pictures of a run.

    Of any method's run, from its regions and its pictures. Writes repeated.json and the report
    anew.

    Exit code 0: searched. 1: the run lacks what it takes.
    """
    from zerodefect.engines.finished_runs import mark_finished_run

    def told(count: int) -> None:
        say(f"{count} of its pictures are no longer where the run found them, and are left out")

    found = mark_finished_run(run, on_missing=told, **batch.keywords())
    if as_json:
        tell(json.dumps([mark.as_dict() for mark in found.marks]))
        return
    for mark in found.marks:
        tell(mark.sentence())
    if not found.marks:
        tell(f"no mark repeats ({found.with_regions} pictures have regions)")
    elif found.report:
        tell(f"report: {found.report}")

"""What a verb tells people while it works: remarks and progress, on stderr."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from rich.progress import Progress


def say(text: str) -> None:
    """A remark for people: to stderr, so that stdout stays data."""
    typer.echo(text, err=True)


@contextmanager
def progress(quiet: bool = False) -> Iterator[Progress]:
    """A progress bar on stderr; silent when that is not a terminal."""
    from rich import progress as shown
    from rich.console import Console

    columns = (
        shown.TextColumn("{task.description}"),
        shown.BarColumn(),
        shown.MofNCompleteColumn(),
        shown.TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    hidden = quiet or not sys.stderr.isatty()
    with shown.Progress(*columns, console=console, disable=hidden, transient=True) as bar:
        yield bar

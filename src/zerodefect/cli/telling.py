"""What a verb tells people while it works: remarks and progress, on stderr."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import typer


def say(text: str) -> None:
    """A remark for people: to stderr, so that stdout stays data."""
    typer.echo(plain(text), err=True)


def plain(text: str) -> str:
    """Text for a terminal: control characters, as names of files may have them, are spelled out."""
    shown = (c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)
    return "".join(shown)


def told_size(sizes: Any) -> str:
    """Size of a detector's input in words, of several by name."""
    if isinstance(sizes, Mapping):
        return ", ".join(f"{name} {told_size(size)}" for name, size in sizes.items())
    return f"{sizes[1]} x {sizes[0]} pixels"


class Remarks(logging.Handler):
    """What the package's logger has to say, as remarks."""

    def emit(self, record: logging.LogRecord) -> None:
        """Say it."""
        say(record.getMessage())


def listen() -> None:
    """Hear the package's logger from now on."""
    logger = logging.getLogger("zerodefect")
    logger.setLevel(logging.INFO)
    if not any(isinstance(handler, Remarks) for handler in logger.handlers):
        logger.addHandler(Remarks())


@contextmanager
def progress(
    description: str, total: int | None = None, quiet: bool = False
) -> Iterator[Callable[..., None]]:
    """A progress bar on stderr, as what updates it; silent when that is not a terminal."""
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
        yield partial(bar.update, bar.add_task(description, total=total))

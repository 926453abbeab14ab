"""What a verb tells people while it works: remarks and progress, on stderr."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from rich.progress import Progress


def say(text: str) -> None:
    """A remark for people: to stderr, so that stdout stays data."""
    typer.echo("\n".join(map(printable, text.split("\n"))), err=True)


def printable(text: str) -> str:
    """A text, such as a file's name, without characters that would command a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


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

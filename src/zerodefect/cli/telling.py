"""What a verb tells people while it works: remarks and progress, on stderr."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import typer

from zerodefect.types import Failure, printable


class LeftOut(list[Failure]):
    """Files that could not be used, each told as it comes (``on_failure=left_out.add``)."""

    def add(self, failure: Failure) -> None:
        """One more."""
        self.append(failure)
        say(f"left out: {failure}")


def tell(text: object, *, lines: bool = False, err: bool = False) -> None:
    """Print what a verb was asked for, on stdout; every verb prints through here.

    Names of files hold anything: what would act on a terminal is shown as an escape. JSON keeps its
    meaning, for these are JSON's own escapes.

    Args:
        text: one line.
        lines: whether it is several.
        err: to stderr instead.
    """
    typer.echo(printable(text, lines=lines), err=err)


def say(text: object, *, lines: bool = False) -> None:
    """A remark for people: to stderr, so that stdout stays data."""
    tell(text, lines=lines, err=True)


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
        shown.TextColumn("{task.description}", markup=False),
        shown.BarColumn(),
        shown.MofNCompleteColumn(),
        shown.TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    hidden = quiet or not sys.stderr.isatty()
    with shown.Progress(*columns, console=console, disable=hidden, transient=True) as bar:
        yield partial(bar.update, bar.add_task(description, total=total))

"""The command line: one file per verb, heavy imports inside the verbs."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import typer
from typer.core import TyperGroup

from zerodefect.cli import (
    backbones,
    cache,
    calibrate,
    data,
    datasets,
    demo,
    doctor,
    evaluate,
    import_,
    inspect,
    methods,
    pretrain,
    train,
)
from zerodefect.cli.options import flattened
from zerodefect.cli.telling import listen, say, tell
from zerodefect.types import printable


class _Verbs(TyperGroup):
    """All verbs; what they say of a command line that cannot be read acts on no terminal."""

    def invoke(self, ctx: Any) -> Any:
        """Run the verb that was named."""
        try:
            return super().invoke(ctx)
        except Exception as error:
            if isinstance(said := getattr(error, "message", None), str):
                error.message = printable(said)  # type: ignore[attr-defined]
            raise


app = typer.Typer(
    name="zerodefect",
    cls=_Verbs,
    help="Find defects on products that nobody trained on.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

_INTERRUPTED = 130
_TERMINATED = 143  # 128 + SIGTERM, as a shell has it
_PIPE_CLOSED = 141  # what a shell sees of tools that end because nobody reads them: 128 + SIGPIPE


def _version(asked: bool) -> None:
    if asked:
        from zerodefect.version import __version__

        tell(f"zerodefect {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version and exit."
    ),
) -> None:
    """Find defects on products that nobody trained on."""
    listen()


_VERBS: dict[str, Callable[..., None]] = {
    "inspect": inspect.inspect,
    "calibrate": calibrate.calibrate,
    "evaluate": evaluate.evaluate,
    "train": train.train,
    "import": import_.import_,
    "pretrain": pretrain.pretrain,
    "methods": methods.methods,
    "datasets": datasets.datasets,
    "backbones": backbones.backbones,
    "cache": cache.cache,
    "doctor": doctor.doctor,
    "demo": demo.demo,
}
for _name, _verb in _VERBS.items():
    app.command(_name)(flattened(_verb))
app.add_typer(data.app, name="data")


def main() -> None:
    """Run the command line; an expected error is one line on stderr and exit code 1."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a file's name may be no text in any encoding
            stream.reconfigure(errors="backslashreplace")
    try:
        with _ended_by_sigterm():
            app()
    except SystemExit as ended:
        if _pipe_closed(ended):
            _drop_output()
            sys.exit(_PIPE_CLOSED)
        if ended.code in (_INTERRUPTED, _TERMINATED):  # the first is what typer makes of Ctrl-C
            say("interrupted; inspect, evaluate, train and pretrain go on when started again")
        raise
    except Exception as error:
        from zerodefect.cli.errors import expected, told

        if not expected(error):
            raise
        say(f"error: {told(error)}", lines=True)
        sys.exit(1)


@contextlib.contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Let SIGTERM end the command as Ctrl-C does: files are closed, and the run can go on."""

    def end(number: int, frame: object) -> None:
        raise SystemExit(_TERMINATED)

    if threading.current_thread() is not threading.main_thread():  # which alone hears signals
        yield
        return
    former = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former)


def _pipe_closed(error: BaseException | None) -> bool:
    """Whether the command ended because its reader did, as in ``zerodefect ... | head``."""
    while error is not None:
        if isinstance(error, BrokenPipeError):
            return True
        error = error.__context__
    return False


def _drop_output() -> None:
    """Let what is still buffered go nowhere, so that nothing complains when the process ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # a stream that is no file
            os.dup2(nowhere, stream.fileno())

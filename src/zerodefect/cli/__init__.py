"""The command line: one file per verb, heavy imports inside the verbs."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Callable

import typer

from zerodefect.cli import (
    backbones,
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
from zerodefect.cli.telling import listen, say

app = typer.Typer(
    name="zerodefect",
    help="Find defects on products that nobody trained on.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

_INTERRUPTED = 130
_PIPE_CLOSED = 141  # what a shell sees of tools that end because nobody reads them: 128 + SIGPIPE


def _version(asked: bool) -> None:
    if asked:
        from zerodefect.version import __version__

        typer.echo(f"zerodefect {__version__}")
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
        app()
    except SystemExit as ended:
        if _pipe_closed(ended):
            _drop_output()
            sys.exit(_PIPE_CLOSED)
        if ended.code == _INTERRUPTED:  # what typer makes of Ctrl-C
            typer.echo(
                "interrupted; inspect, train and pretrain go on when started again", err=True
            )
        raise
    except Exception as error:
        from zerodefect.cli.errors import expected

        if not expected(error):
            raise
        say(f"error: {error}")
        sys.exit(1)


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

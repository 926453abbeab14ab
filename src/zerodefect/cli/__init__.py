"""The command line: one file per verb, heavy imports inside the verbs."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator

import typer

from zerodefect.cli import (
    ask,
    backbones,
    cache,
    calibrate,
    data,
    data_list,
    demo,
    doctor,
    evaluate,
    import_,
    inspect,
    marks,
    methods,
    named_components,
    pretrain,
    setup,
    show,
    train,
)
from zerodefect.cli.help_panels import COMPLETION, Verb, Verbs
from zerodefect.cli.options import flattened
from zerodefect.cli.telling import listen, say, tell

app = typer.Typer(
    name="zerodefect",
    cls=Verbs,
    help="Find defects on products that nobody trained on.",
    epilog=COMPLETION,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
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


_METHODS = "Methods and data"
_VERBS: dict[str, dict[str, Callable[..., None]]] = {
    "Inspect": {
        "setup": setup.setup,
        "inspect": inspect.inspect,
        "ask": ask.ask,
        "calibrate": calibrate.calibrate,
        "components": named_components.components,
        "show": show.show,
        "marks": marks.marks,
        "demo": demo.demo,
    },
    _METHODS: {
        "methods": methods.methods,
        "backbones": backbones.backbones,
        "evaluate": evaluate.evaluate,
        "train": train.train,
    },
    "For developers": {
        "doctor": doctor.doctor,
        "cache": cache.cache,
        "import": import_.import_,
        "pretrain": pretrain.pretrain,
    },
}
for _panel, _verbs in _VERBS.items():
    for _name, _verb in _verbs.items():
        app.command(_name, cls=Verb, rich_help_panel=_panel)(flattened(_verb))
app.add_typer(data.app, name="data", rich_help_panel=_METHODS)
app.command("datasets", cls=Verb, hidden=True)(
    data_list.data_list
)  # the former name of "data list"


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

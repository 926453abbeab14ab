"""The command line: one file per verb, heavy imports inside the verbs."""

from __future__ import annotations

import io
import sys

import typer

from zerodefect.cli import (
    backbones,
    calibrate,
    data,
    demo,
    doctor,
    evaluate,
    import_,
    inspect,
    methods,
    pretrain,
    train,
)

app = typer.Typer(
    name="zerodefect",
    help="Find defects on products that nobody trained on.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

_INTERRUPTED = 130


def _version(asked: bool) -> None:
    if asked:
        from zerodefect import __version__

        typer.echo(f"zerodefect {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version and exit."
    ),
) -> None:
    """Find defects on products that nobody trained on."""


app.command("inspect")(inspect.inspect)
app.command("calibrate")(calibrate.calibrate)
app.command("evaluate")(evaluate.evaluate)
app.command("train")(train.train)
app.command("import")(import_.import_)
app.command("pretrain")(pretrain.pretrain)
app.command("methods")(methods.methods)
app.command("backbones")(backbones.backbones)
app.command("doctor")(doctor.doctor)
app.command("demo")(demo.demo)
app.add_typer(data.app, name="data")


def main() -> None:
    """Run the command line; an expected error is one line on stderr and exit code 1."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a file's name may be no text in any encoding
            stream.reconfigure(errors="backslashreplace")
    try:
        app()
    except SystemExit as ended:
        if ended.code == _INTERRUPTED:  # what typer makes of Ctrl-C
            typer.echo(
                "interrupted; inspect, train and pretrain go on when started again", err=True
            )
        raise
    except Exception as error:
        from zerodefect.cli.shared import expected

        if not expected(error):
            raise
        typer.echo(f"error: {error}", err=True)
        sys.exit(1)

"""``zerodefect methods``: what there is, from which paper, proven how."""

from __future__ import annotations

import dataclasses
import json

import typer

from zerodefect.cli import shared


def methods(as_json: shared.AsJson = False) -> None:
    """List the methods: what each needs, its paper, licence, parity and published figures."""
    from zerodefect.methods import get, names

    infos = [get(name).info for name in names()]
    if as_json:
        typer.echo(json.dumps([dataclasses.asdict(info) for info in infos], indent=2))
        return
    for info in infos:
        typer.echo(f"{info.name}: {info.title} ({info.school})")
        typer.echo(f"  learns normality from: {', '.join(info.knows_from)}")
        typer.echo(f"  paper: {info.paper}")
        typer.echo(f"  authors' code: {info.code_licence}")
        typer.echo(f"  numbers proven against: {info.parity}")
        for figure in info.figures:
            typer.echo(
                f"  published: {figure.data} {figure.setting} {figure.metric} {figure.value} "
                f"({figure.source})"
            )

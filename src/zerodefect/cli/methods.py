"""``zerodefect methods``: what there is, from which paper, proven how."""

from __future__ import annotations

import dataclasses
import json
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zerodefect.cli.options import AsJson
from zerodefect.cli.telling import tell

if TYPE_CHECKING:
    from zerodefect.detector.contract import Detector
    from zerodefect.detector.facts import Figure, MethodInfo

_COLUMNS = 80
_LABEL = 14  # column at which what is said of a method begins
_SHOWN = 2  # data sets whose figures stand in the list of all methods

_KNOWLEDGE = {
    "words": "the product's name",
    "references": "a few pictures of good parts",
    "set": "the other pictures of the batch",
    "training": "labelled defects of other products",
    "good": "training on pictures of good parts",
}
_COMPLETION = (
    "a completion of ours: what is public does not say everything, so this is not the authors' "
    "system, and their figures are not its figures"
)


def methods(
    name: Annotated[
        str | None, typer.Argument(help="One method, with its options and all its figures.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the methods: what each learns from, paper, licence, parity, published figures."""
    from zerodefect.methods import get, names

    if name is None:
        entries = [get(each) for each in names()]
        if as_json:
            tell(json.dumps([dataclasses.asdict(e.info) for e in entries], indent=2), lines=True)
            return
        tell("\n\n".join("\n".join(_summary(entry.info)) for entry in entries), lines=True)
        tell(
            "\nOne method with its options and all its figures: zerodefect methods NAME", lines=True
        )
        return
    entry = get(name)
    if as_json:
        tell(
            json.dumps({**dataclasses.asdict(entry.info), **_settings(entry)}, indent=2), lines=True
        )
        return
    tell("\n".join(_details(entry)), lines=True)


# --- text ----------------------------------------------------------------------------------------


def _summary(info: MethodInfo) -> Iterator[str]:
    yield from _head(info)
    yield from _row("learns from", ", ".join(info.knows_from))
    yield from _facts(info)
    yield from _published(info, _SHOWN)


def _details(entry: type[Detector]) -> Iterator[str]:
    info, settings = entry.info, _settings(entry)
    yield from _head(info)
    for number, knowledge in enumerate(info.knows_from):
        label = "" if number else "learns from"
        yield from _row(label, f"{knowledge} ({_KNOWLEDGE[knowledge]})")
    yield from _facts(info)
    yield from _published(info, len(info.figures))
    if settings["recipe"]:
        yield from _pairs("training", settings["recipe"])
    yield from _pairs("options", settings["options"])
    yield from _row("", "Change one with --set NAME=VALUE (training: see zerodefect train --help).")


def _head(info: MethodInfo) -> Iterator[str]:
    yield f"{info.name}: {info.title}"
    if info.completion:
        yield from _row("note", _COMPLETION)


def _facts(info: MethodInfo) -> Iterator[str]:
    yield from _row("school", info.school)
    yield from _row("paper", info.paper)
    yield from _row("authors' code", info.code_licence)
    yield from _row("proven against", info.parity)


def _published(info: MethodInfo, shown: int) -> Iterator[str]:
    """Figures of the first ``shown`` data sets, a line for each set and setting; the source."""
    if not info.figures:
        yield from _row("published", "no figure whose source we could check")
        return
    sets = list(dict.fromkeys(figure.data for figure in info.figures))
    kept = [figure for figure in info.figures if figure.data in sets[:shown]]
    label = "published"
    for source, figures in groupby(kept, lambda figure: figure.source):
        for text in _lines(figures):
            yield from _row(label, text)
            label = ""
        yield from _row(label, f"source: {source}")
    if len(sets) > shown:
        more = len(sets) - shown
        yield from _row(
            "", f"{more} more data set{'s' * (more > 1)}: zerodefect methods {info.name}"
        )


def _lines(figures: Iterable[Figure]) -> Iterator[str]:
    for (data, setting), some in groupby(figures, lambda figure: (figure.data, figure.setting)):
        values = ", ".join(f"{figure.metric} {figure.value:.1f}" for figure in some)
        yield f"{data}, {setting}: {values}"


def _pairs(label: str, values: dict[str, Any]) -> Iterator[str]:
    for key, value in values.items():
        text = json.dumps(value, ensure_ascii=False)
        yield from _row(label, f"{key} = {text if len(text) <= _COLUMNS else _shortened(value)}")
        label = ""


def _shortened(value: Any) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"{len(value)} entries, {json.dumps(value[0], ensure_ascii=False)}, ..."
    return json.dumps(value, ensure_ascii=False)[: _COLUMNS - 3] + "..."


def _row(label: str, text: str) -> Iterator[str]:
    indent = " " * (_LABEL + 4)
    first = f"  {label:{_LABEL}}  "
    yield from textwrap.wrap(
        text, _COLUMNS, initial_indent=first, subsequent_indent=indent, break_on_hyphens=False
    )


# --- facts ---------------------------------------------------------------------------------------


def _settings(entry: type[Detector]) -> dict[str, Any]:
    """Defaults of the method's options and, if it is trained, of its training."""
    recipe = entry.recipe
    return {
        "options": _defaults(entry.Config()),
        "recipe": _defaults(recipe) if recipe else None,
    }


def _defaults(record: Any) -> dict[str, Any]:
    # through JSON, so that tuples are lists wherever they stand
    plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(record), default=str))
    return plain

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
        str | None,
        typer.Argument(metavar="NAME", help="One method, or a+b, with options and all figures."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the methods.

    What each learns from, its paper, licence, parity and published figures.
    """
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
    entries = [get(part) for part in name.split("+")]
    if as_json:
        told = [{**dataclasses.asdict(each.info), **_settings(each)} for each in entries]
        tell(json.dumps(told if len(told) > 1 else told[0], indent=2), lines=True)
        return
    tell("\n\n".join("\n".join(_details(each)) for each in entries), lines=True)


# --- text ----------------------------------------------------------------------------------------


def _summary(info: MethodInfo, whole: bool = False) -> Iterator[str]:
    """As in the list of all methods; the ``whole`` of it explains more and has all figures."""
    yield f"{info.name}: {info.title}"
    if info.completion:
        yield from _rows("note", [_COMPLETION])
    if info.experimental:
        yield from _rows("experimental", [info.experimental])
    learns = [f"{one} ({_KNOWLEDGE[one]})" for one in info.knows_from]
    yield from _rows("learns from", learns if whole else [", ".join(info.knows_from)])
    yield from _rows("school", [info.school])
    yield from _rows("paper", [info.paper])
    yield from _rows("authors' code", [info.code_licence])
    yield from _rows("proven against", [info.parity])
    yield from _rows("published", _published(info, len(info.figures) if whole else _SHOWN))


def _details(entry: type[Detector]) -> Iterator[str]:
    settings = _settings(entry)
    yield from _summary(entry.info, whole=True)
    yield from _rows("training", _pairs(settings["recipe"] or {}))
    changed = "Change one with --set NAME=VALUE (training: see zerodefect train --help)."
    yield from _rows("options", [*_pairs(settings["options"]), changed])


def _published(info: MethodInfo, shown: int) -> Iterator[str]:
    """Figures of the first ``shown`` data sets, a line for each set and setting; the source."""
    if not info.figures:
        yield "no figure whose source we could check"
    sets = list(dict.fromkeys(figure.data for figure in info.figures))
    kept = [figure for figure in info.figures if figure.data in sets[:shown]]
    for source, figures in groupby(kept, lambda figure: figure.source):
        yield from _lines(figures)
        yield f"source: {source}"
    if more := len(sets[shown:]):
        yield f"{more} more data set{'s' * (more > 1)}: zerodefect methods {info.name}"


def _lines(figures: Iterable[Figure]) -> Iterator[str]:
    for (data, setting), some in groupby(figures, lambda figure: (figure.data, figure.setting)):
        values = ", ".join(f"{figure.metric} {figure.value:.1f}" for figure in some)
        yield f"{data}, {setting}: {values}"


def _pairs(values: dict[str, Any]) -> Iterator[str]:
    for key, value in values.items():
        text = json.dumps(value, ensure_ascii=False)
        yield f"{key} = {text if len(text) <= _COLUMNS else _shortened(value)}"


def _shortened(value: Any) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"{len(value)} entries, {json.dumps(value[0], ensure_ascii=False)}, ..."
    return json.dumps(value, ensure_ascii=False)[: _COLUMNS - 3] + "..."


def _rows(label: str, texts: Iterable[str]) -> Iterator[str]:
    """Texts one below the other, the first one behind the label."""
    indent = " " * (_LABEL + 4)
    for text in texts:
        first = f"  {label:{_LABEL}}  "
        yield from textwrap.wrap(
            text, _COLUMNS, initial_indent=first, subsequent_indent=indent, break_on_hyphens=False
        )
        label = ""


# --- facts ---------------------------------------------------------------------------------------


def _settings(entry: type[Detector]) -> dict[str, Any]:
    """Defaults of the method's options and, if it is trained, of its training."""
    recipe = entry.recipe
    return {"options": _defaults(entry.Config()), "recipe": _defaults(recipe) if recipe else None}


def _defaults(record: Any) -> dict[str, Any]:
    # through JSON, so that tuples are lists wherever they stand
    plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(record), default=str))
    return plain

"""How a user says what a component looks like: example boxes, named clusters, words."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from zerodefect.inspection.rules.rule_language import RuleError
from zerodefect.inspection.rules.rule_reader import component_name

FORMS: Final = (
    "'label=good/01.png:120,40,80,30' (a box: left, top, width, height in pixels), "
    "'liquid=cluster 3' (of zerodefect components; several as 'cluster 3+5'), or "
    "'cap=words bottle cap'"
)
_BOX = re.compile(r"(?P<file>.+):\s*(?P<box>\d{1,6}(?:\s*,\s*\d{1,6}){3})\s*")
_CLUSTERS = re.compile(r"clusters?\s+(?P<numbers>\d{1,4}(?:\s*[+,]\s*\d{1,4})*)\s*", re.IGNORECASE)
_WORDS = re.compile(r"words?(?:\s+(?P<words>\S.*))?", re.IGNORECASE)


class ComponentError(ValueError):
    """A component that cannot be found; the message names it, the reason and what to give."""


@dataclass(frozen=True)
class ComponentSource:
    """What a component looks like; ``str`` gives text that parses to the same.

    Attributes:
        name: of the component, for one of it.
        file, box: a picture, and ``(x, y, width, height)`` of an example in it, in its pixels.
        clusters: numbers of the clusters that it consists of, from 1.
        words: that it is looked for by.
    """

    name: str
    file: str | None = None
    box: tuple[int, int, int, int] | None = None
    clusters: tuple[int, ...] = ()
    words: str | None = None

    @classmethod
    def parse(cls, text: str) -> ComponentSource:
        """Read ``NAME=FILE:x,y,w,h``, ``NAME=cluster 3+5`` or ``NAME=words ...``.

        Raises:
            ComponentError: it is not understood.
        """
        named, separator, told = text.partition("=")
        if not separator or not told.strip():
            raise ComponentError(f"component {text!r} is not understood. Write {FORMS}")
        try:
            name = component_name(named)
        except RuleError as error:
            reason = f"{error.reason}. {error.remedy}"
            raise ComponentError(f"component {text!r}: {reason}") from None
        told = told.strip()
        if found := _CLUSTERS.fullmatch(told):
            numbers = tuple(int(number) for number in re.findall(r"\d+", found["numbers"]))
            if 0 in numbers:
                raise ComponentError(f"component {text!r}: clusters are counted from 1")
            return cls(name, clusters=tuple(dict.fromkeys(numbers)))
        if found := _BOX.fullmatch(told):
            x, y, width, height = (int(number) for number in found["box"].split(","))
            if not width or not height:
                raise ComponentError(f"component {text!r}: the box is empty. Write {FORMS}")
            return cls(name, found["file"], (x, y, width, height))
        if found := _WORDS.fullmatch(told):
            return cls(name, words=" ".join((found["words"] or name).split()))
        raise ComponentError(f"component {text!r} is not understood. Write {FORMS}")

    def __str__(self) -> str:
        if self.box is not None:
            return f"{self.name}={self.file}:{','.join(map(str, self.box))}"
        if self.clusters:
            return f"{self.name}=cluster {'+'.join(map(str, self.clusters))}"
        return f"{self.name}=words {self.words}"


def parsed_sources(given: Iterable[str | ComponentSource]) -> tuple[ComponentSource, ...]:
    """Sources of components, each once.

    Raises:
        ComponentError: one is not understood, or a component is told in two ways.
    """
    found = [
        one if isinstance(one, ComponentSource) else ComponentSource.parse(one) for one in given
    ]
    forms: dict[str, tuple[bool, bool]] = {}
    for one in found:
        form = bool(one.box), bool(one.clusters)
        if forms.setdefault(one.name, form) != form:
            raise ComponentError(
                f"component {one.name!r} is told in two ways: give boxes, clusters or words"
            )
    return tuple(dict.fromkeys(found))

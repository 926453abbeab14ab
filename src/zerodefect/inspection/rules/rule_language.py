"""Rules on the components of a product, as users type them.

    exactly 2 screws                      at least one label, else unsure
    number of screws as usual             area of label between 3 % and 6 %
    fill level between 0.6 and 0.8        level of liquid in bottle as usual
    position of label as usual            position of label within 0.05 of 0.5, 0.3
    horizontal position of cap between 0.4 and 0.6
    label inside bottle                   cable left of plug
    cap not touching label                label above barcode

The grammar, with words in any case, articles and "is" left out::

    rule      = statement [[","] ("else" | "otherwise") ("defect" | "unsure")]
    statement = count NAMES | quantity condition | NAME ["not"] relation NAME
    count     = ["exactly"] N | "at least" N | "at most" N | "more than" N | "fewer than" N | "no"
              | "between" N "and" N | N "to" N
    quantity  = ("number" | "area" | ["horizontal" | "vertical"] "position") "of" NAME
              | "level of" NAME ["in" NAME] | NAME "level" ["in" NAME]
    condition = "between" X "and" X | "at least" X | "at most" X | "above" X | "below" X
              | "as usual"
              | "within" X "of" X "," X                                         (of a position)
    relation  = "inside" | "outside" | "left of" | "right of" | "above" | "below" | "touching"

"fill level" is the level of liquid. Numbers may be words. Areas are percent of the inspected area;
levels and positions are shares of the container or picture, or percent of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, get_args

from zerodefect.images.decode import InputError
from zerodefect.inspection.rules.rule_words import plural
from zerodefect.types import printable

Quantity = Literal[
    "number", "area", "level", "position", "horizontal position", "vertical position"
]
Relation = Literal["inside", "left of", "right of", "above", "below", "touching"]
Otherwise = Literal["defect", "unsure"]

LIQUID: Final = "liquid"
"""The component that "fill level" speaks of."""

QUANTITIES: Final = get_args(Quantity)
LONGEST: Final = 200
"""Characters of a rule."""
PLACES: Final = 10
"""Decimals that a number keeps."""


class RuleError(InputError):
    """A rule that is not understood; the message points at the word and lists what is allowed.

    Attributes:
        text: the rule as it was typed.
        start, end: place of the word in it.
        allowed: what could stand there.
    """

    def __init__(self, text: str, start: int, end: int, reason: str, allowed: str) -> None:
        shown = "".join(sign if sign.isprintable() else " " for sign in text[:LONGEST])
        super().__init__(f"rule {shown!r}", printable(reason), f"Allowed here: {allowed}")
        self.text, self.start, self.end, self.allowed = text, start, end, allowed
        self._shown = shown

    def __str__(self) -> str:
        """Rule and reason, the place in the rule, and what may stand there."""
        mark = " " * self.start + "^" * max(1, self.end - self.start)
        return f"{self.path}: {self.reason}\n  {self._shown}\n  {mark}\n{self.remedy}"


@dataclass(frozen=True)
class ComponentRule:
    """What is asked of a picture's components; ``str`` gives text that parses to the same rule.

    Attributes:
        what: quantity that is measured, or relation that is to hold.
        subject: name of the component, for one of it.
        other: that it is compared with, or the container of a level.
        low, high: least and largest value that is kept; areas in percent, levels and positions in
            [0, 1]. Of a position ``high`` is the largest distance from ``point``.
        point: ``(x, y)`` in [0, 1], from the upper left.
        usual: the limits are those that good pictures show.
        negated: the relation is not to hold.
        otherwise: the least verdict on a picture that breaks the rule.
    """

    what: Quantity | Relation
    subject: str
    other: str | None = None
    low: float | None = None
    high: float | None = None
    point: tuple[float, float] | None = None
    usual: bool = False
    negated: bool = False
    otherwise: Otherwise = "defect"

    @property
    def measures(self) -> bool:
        """Whether a quantity is measured; else it is a relation."""
        return self.what in QUANTITIES

    @property
    def names(self) -> tuple[str, ...]:
        """The components that it speaks of."""
        return (self.subject,) if self.other is None else (self.subject, self.other)

    def __str__(self) -> str:
        told = self._statement()
        return told if self.otherwise == "defect" else f"{told}, else {self.otherwise}"

    def _statement(self) -> str:
        if not self.measures:
            return f"{self.subject} {'not ' * self.negated}{self.what} {self.other}"
        if self.what == "number" and not self.usual:
            return self._count()
        many = many_of(self.subject) if self.what == "number" else self.subject
        inside = f" in {self.other}" if self.other else ""
        return f"{self.what} of {many}{inside} {self._condition()}"

    def _count(self) -> str:
        low, high = self.low, self.high
        if low == high and low is not None:
            return f"exactly {written(low)} {_as_many(self.subject, low)}"
        if low is None or high is None:
            number = high if low is None else low
            assert number is not None
            most = "at most" if low is None else "at least"
            return f"{most} {written(number)} {_as_many(self.subject, number)}"
        return f"between {written(low)} and {written(high)} {many_of(self.subject)}"

    def _condition(self) -> str:
        if self.usual:
            return "as usual"
        unit = " %" if self.what == "area" else ""
        if self.point is not None:
            x, y = map(written, self.point)
            return f"within {written(self.high or 0.0)} of {x}, {y}"
        if self.low is None:
            return f"at most {written(self.high or 0.0)}{unit}"
        if self.high is None:
            return f"at least {written(self.low)}{unit}"
        return f"between {written(self.low)}{unit} and {written(self.high)}{unit}"


def many_of(name: str) -> str:
    """The name for many of a component."""
    *words, last = name.split()
    return " ".join([*words, plural(last)])


def _as_many(name: str, number: float) -> str:
    return name if number == 1 else many_of(name)


def written(value: float) -> str:
    """A number in full, without superfluous zeros."""
    return f"{value:.{PLACES}f}".rstrip("0").rstrip(".")

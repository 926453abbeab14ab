"""Reads the rules that users type, word by word; see ``rule_language`` for the grammar."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, replace
from typing import Final, get_args

from zerodefect.inspection.rules.rule_language import (
    LIQUID,
    LONGEST,
    PLACES,
    QUANTITIES,
    ComponentRule,
    Otherwise,
    Quantity,
    Relation,
    RuleError,
    written,
)
from zerodefect.inspection.rules.rule_words import (
    ARTICLES,
    KEYWORDS,
    WORD,
    number_in_words,
    singular,
)

_COUNTS: Final = ("exactly", "at", "more", "fewer", "less", "no", "between")
_MOST_WORDS = 6  # of a name
_TOKEN = re.compile(rf"\d{{1,6}}(?:\.\d{{1,10}})?|\.\d{{1,10}}|[%,]|{WORD.pattern}")
_NUMBER = re.compile(r"[\d.]+")


def parse_rule(text: str) -> ComponentRule:
    """The rule that a text says.

    Raises:
        RuleError: it is not understood.
    """
    return _Reader(text).rule()


def component_name(text: str) -> str:
    """A component's name as rules say it: small letters, one thing, single spaces.

    Raises:
        RuleError: it is no name, or holds a word with a meaning of its own.
    """
    reader = _Reader(text)
    name = reader.name("a component's name")
    reader.end()
    return name


@dataclass(frozen=True)
class _Token:
    text: str  # small letters
    start: int
    end: int


@dataclass(frozen=True)
class _Scale:
    """Which numbers may stand somewhere.

    ``percent`` is where they count percent; elsewhere a percent sign means hundredths.
    """

    whole: bool = False
    percent: bool = False
    most: float = 1e6


_COUNTED = _Scale(whole=True)
_SHARE = _Scale(most=1.0)
_PERCENT = _Scale(percent=True, most=100.0)


class _Reader:
    """Reads a rule word by word."""

    def __init__(self, text: str) -> None:
        self.text = text
        if len(text) > LONGEST:
            raise RuleError(text, 0, 0, f"longer than {LONGEST} characters", "a shorter rule")
        self.tokens = list(self._tokens())
        self.at = 0

    def _tokens(self) -> list[_Token]:
        found, place = [], 0
        while place < len(self.text):
            if self.text[place].isspace():
                place += 1
                continue
            match = _TOKEN.match(self.text, place)
            end = match.end() if match else place + 1
            folded = unicodedata.normalize("NFC", self.text[place:end].casefold())
            known = match and _TOKEN.fullmatch(folded)
            if not known or unicodedata.normalize("NFC", folded.casefold()) != folded:
                reason = f"{self.text[place:end]!r} cannot be read"
                raise RuleError(self.text, place, end, reason, "words, numbers, % and a comma")
            found.append(_Token(folded, place, end))
            place = end
        return found

    # --- words ----------------------------------------------------------------------------------

    def peek(self) -> str:
        """The next word; empty at the end."""
        return self.tokens[self.at].text if self.at < len(self.tokens) else ""

    def take(self, *words: str) -> bool:
        """Go on over these words if they come next."""
        coming = tuple(token.text for token in self.tokens[self.at : self.at + len(words)])
        if coming != words:
            return False
        self.at += len(words)
        return True

    def fail(self, allowed: str, reason: str = "", back: int = 0) -> RuleError:
        """The error that points at the next word, or one so many before it."""
        place = self.at - back
        if place >= len(self.tokens):
            end = len(self.text.rstrip())
            return RuleError(self.text, end, end + 1, reason or "something is missing", allowed)
        token = self.tokens[place]
        shown = self.text[token.start : token.end]
        reason = reason or f"{shown!r} is not understood here"
        return RuleError(self.text, token.start, token.end, reason, allowed)

    def need(self, word: str) -> None:
        """Go on over this word."""
        if not self.take(word):
            raise self.fail(repr(word))

    def end(self) -> None:
        """Make sure that nothing follows."""
        if self.at < len(self.tokens):
            raise self.fail("the end of the rule, or ', else unsure'")

    def name(self, what: str = "the name of a component") -> str:
        """A component's name, for one of it."""
        while self.peek() in ARTICLES or self.peek() in ("a", "an"):
            self.at += 1
        words: list[str] = []
        while WORD.fullmatch(self.peek()) and self.peek() not in KEYWORDS:
            words.append(self.peek())
            self.at += 1
        if not words:
            taken = self.peek() in KEYWORDS
            reason = f"{self.peek()!r} has a meaning of its own and names no component"
            raise self.fail(f"{what}, such as screw", reason if taken else "")
        words[-1] = singular(words[-1])
        if words[-1] in KEYWORDS:
            raise self.fail(f"{what}, such as screw", f"{words[-1]!r} names no component", back=1)
        if len(words) > _MOST_WORDS:
            raise self.fail(f"{what} of up to {_MOST_WORDS} words", "the name is too long", back=1)
        return " ".join(words)

    def number(self, scale: _Scale) -> float:
        """A number that may stand there."""
        begin, word = self.at, self.peek()
        what = "a whole number, such as 2 or two" if scale.whole else "a number"
        written = bool(_NUMBER.fullmatch(word))
        said = None if written else number_in_words(word)
        if not written and said is None:
            raise self.fail(what)
        value = float(word) if written else float(said or 0)
        if scale.whole and value != int(value):
            raise self.fail(what, f"{word} is no whole number")
        self.at += 1
        signed = not scale.whole and (self.take("%") or self.take("percent"))
        if signed and not scale.percent:
            value = round(value / 100, PLACES)
        if value > scale.most:
            reason, back = f"{value:g} is too large", self.at - begin
            raise self.fail(f"a number from 0 to {scale.most:g}", reason, back=back)
        return value

    # --- statements -----------------------------------------------------------------------------

    def rule(self) -> ComponentRule:
        """All of the text."""
        if not self.tokens:
            raise self.fail("a rule, such as 'exactly 2 screws'", "it is empty")
        stated = self.statement()
        comma = self.take(",")
        if self.take("else") or self.take("otherwise"):
            for verdict in get_args(Otherwise):
                if self.take(verdict):
                    stated = replace(stated, otherwise=verdict)
                    break
            else:
                raise self.fail("'defect' or 'unsure'")
        elif comma:
            raise self.fail("'else unsure'")
        self.end()
        return stated

    def statement(self) -> ComponentRule:
        """What comes before ``else``."""
        first = self.peek()
        number = bool(_NUMBER.fullmatch(first)) or number_in_words(first) is not None
        if first in _COUNTS or (number and first not in ("a", "an")):  # which may be articles
            return self.counted()
        if self.take("fill"):
            self.need("level")
            return self.measured("level", LIQUID)
        if self.take("count"):
            self.need("of")
            return self.measured("number", self.name())
        for quantity in QUANTITIES:
            if self.take(*quantity.split()):
                self.need("of")
                return self.measured(quantity, self.name())
        subject = self.name("a number, a quantity such as 'area of', or the name of a component")
        if self.take("level"):
            return self.measured("level", subject)
        return self.related(subject)

    def counted(self) -> ComponentRule:
        """How many there are to be."""
        low: float | None
        high: float | None
        if self.take("no"):
            low = high = 0
        elif self.take("at"):
            low, high = self.bound(_COUNTED)
        elif self.take("more"):
            self.need("than")
            low, high = self.number(_COUNTED) + 1, None
        elif self.take("fewer") or self.take("less"):
            self.need("than")
            value = self.number(_COUNTED)
            if value == 0:
                raise self.fail("a whole number from 1", "fewer than 0 cannot be", back=1)
            low, high = None, value - 1
        elif self.take("between"):
            low, high = self.span(_COUNTED)
        else:
            exact = self.take("exactly")
            low = high = self.number(_COUNTED)
            if not exact and self.take("to"):
                high = self.upper(low, _COUNTED)
        return ComponentRule("number", self.name(), low=low, high=high)

    def bound(self, scale: _Scale) -> tuple[float | None, float | None]:
        """What follows ``at``."""
        if self.take("least"):
            return self.number(scale), None
        if self.take("most"):
            return None, self.number(scale)
        raise self.fail("'least' or 'most'")

    def span(self, scale: _Scale) -> tuple[float, float]:
        """What follows ``between``."""
        low = self.number(scale)
        self.need("and")
        return low, self.upper(low, scale)

    def upper(self, low: float, scale: _Scale) -> float:
        """The larger one of two numbers."""
        high = self.number(scale)
        if high < low:
            reason = f"{written(high)} is less than {written(low)}"
            raise self.fail("the smaller number first", reason, back=1)
        return high

    def measured(self, what: Quantity, subject: str) -> ComponentRule:
        """The container and the condition of a quantity."""
        other = None
        if what == "level" and (self.take("in") or self.take("inside") or self.take("of")):
            other = self.name()
            self._differ(subject, other)
        _ = self.take("is") or self.take("are") or self.take("must", "be")
        rule = ComponentRule(what, subject, other)
        if self.take("as"):
            self.need("usual")
            return replace(rule, usual=True)
        if what == "position":
            return self.near(rule)
        scale = {"number": _COUNTED, "area": _PERCENT}.get(what, _SHARE)
        low, high = self.limits(scale)
        return replace(rule, low=low, high=high)

    def limits(self, scale: _Scale) -> tuple[float | None, float | None]:
        """The condition of a quantity that is a number."""
        if self.take("between"):
            return self.span(scale)
        if self.take("at"):
            return self.bound(scale)
        if self.take("above") or self.take("over"):
            return self.number(scale), None
        if self.take("below") or self.take("under"):
            return None, self.number(scale)
        if scale.whole and self.take("exactly"):
            value = self.number(scale)
            return value, value
        raise self.fail("'between A and B', 'at least A', 'at most A' or 'as usual'")

    def near(self, rule: ComponentRule) -> ComponentRule:
        """The condition of a position."""
        if not self.take("within"):
            raise self.fail("'as usual' or 'within 0.05 of 0.5, 0.3'")
        distance = self.number(_SHARE)
        self.need("of")
        x = self.number(_SHARE)
        self.need(",")
        return replace(rule, high=distance, point=(x, self.number(_SHARE)))

    def related(self, subject: str) -> ComponentRule:
        """How a component is to lie to another."""
        _ = self.take("is") or self.take("are") or self.take("must", "be")
        negated = self.take("not")
        what = self.relation()
        if what is None:
            raise self.fail(
                "'inside', 'outside', 'left of', 'right of', 'above', 'below', 'touching', each "
                "with 'not' before it if need be, or 'level'"
            )
        outside = what == "outside"
        other = self.name()
        self._differ(subject, other)
        kept: Relation = "inside" if outside else what  # type: ignore[assignment]
        return ComponentRule(kept, subject, other, negated=negated != outside)

    def relation(self) -> str | None:
        """The relation that comes next, if one does."""
        for side in ("left", "right"):
            if self.take(side) or self.take("to", "the", side):
                self.need("of")
                return f"{side} of"
        ways = {
            **{"inside": "inside", "in": "inside", "outside": "outside"},
            **{"above": "above", "over": "above", "below": "below", "under": "below"},
            **{"touching": "touching", "touches": "touching", "touch": "touching"},
        }
        found = ways.get(self.peek())
        if found:
            self.at += 1
        if found in ("inside", "outside"):
            self.take("of")
        return found

    def _differ(self, subject: str, other: str) -> None:
        if subject == other:
            raise self.fail("another component", f"{other!r} is compared with itself", back=1)

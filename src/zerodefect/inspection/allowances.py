"""Which regions a user allows: by area, by number, by kind.

A rule is written ``[KIND:]LIMIT`` or ``[KIND:]LIMIT,LIMIT``, where a limit is one of

* ``area<50`` or ``area<50px``: pixels of the picture;
* ``area<0.1%``: percent of the inspected area;
* ``count<=2``: regions of the picture.

``stain:area<50`` allows any number of stains below 50 pixels, ``count<=2`` up to two regions of any
size and kind, ``stain:area<50,count<=2`` up to two stains below 50 pixels. Rules with a number look
at what the rules without one leave over, each for itself: with more regions than its number a rule
allows none of them. The order of rules is of no importance.

A picture whose regions are all allowed, and that has one at least, is called what a picture with
a score below all limits is called. So a rule only ever takes a "defect" or "unsure" back: no good
part is called defective that was not before, and the guaranteed rates stay true. Scores and
p-values are the detector's and stay as they are.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from pydantic import BaseModel, ConfigDict, field_validator

from zerodefect.inspection.conformal import PolicyError
from zerodefect.types import Region

NOTHING = "none"  # a rule that allows nothing, to take back what a policy allows
UNNAMED = "unknown"  # no kind: what a detector cannot name is matched by no rule of a kind

_LIMIT = re.compile(
    r"\s*(area)\s*<\s*(\d{1,9}(?:\.\d{1,9})?)\s*(px|%|)\s*|\s*(count)\s*<=\s*(\d{1,9})\s*"
)


@dataclass(frozen=True)
class Rule:
    """What is allowed.

    Attributes:
        kind: of the regions; None for any, those included whose kind is not known.
        area: regions below it, in pixels or percent; infinite for any.
        percent: whether the area is in percent of the inspected area.
        count: up to so many of them; None for any number.
    """

    kind: str | None = None
    area: float = math.inf
    percent: bool = False
    count: int | None = None

    @classmethod
    def parse(cls, text: str) -> Rule:
        """The rule that a text names.

        Raises:
            PolicyError: it is not understood; the message says what may be written.
        """
        named, colon, limits = text.rpartition(":")
        kind = named.strip() or None
        if (colon and kind is None) or (kind or "").casefold() == UNNAMED:
            raise PolicyError(
                f"allowance {text!r} names no kind of defect. Write one of the vocabulary, or a "
                "rule without a kind (area<50), which is for regions of any kind, unknown ones too."
            )
        found = [_limit(limit) for limit in limits.split(",")]
        given = {name: value for name, value in found if value[0] > 0}
        if len(given) < len(found):
            raise PolicyError(
                f"allowance {text!r} is not understood. Write area<50 (pixels), area<0.1% (of the "
                "inspected area) or count<=2 (regions), or two of them with a comma, each once and "
                "above 0; for one kind of defect with the kind in front: stain:area<50."
            )
        area, percent = given.get("area", (math.inf, False))
        return cls(kind, area, percent, int(given["count"][0]) if "count" in given else None)

    def __str__(self) -> str:
        """The rule as it is written."""
        unit = "%" if self.percent else "px"
        area = [] if self.area == math.inf else [f"area<{self.area:.12g}{unit}"]
        count = [] if self.count is None else [f"count<={self.count}"]
        return f"{self.kind}:" * bool(self.kind) + ",".join(area + count)

    def matches(self, region: Region) -> bool:
        """Whether a region is of the rule's kind and area."""
        area = region.area_percent if self.percent else region.area
        return area < self.area and self.kind in (None, region.kind)

    def told(self) -> str:
        """The rule in words."""
        name = self.kind or "region"
        if self.count is None:
            return f"any {name}{self._below()}"
        what = name if self.count == 1 else f"{_plural(name)}, each"
        below = self._below()
        return f"up to {self.count} {what if below else what.removesuffix(', each')}{below}"

    def told_of(self, found: int) -> str:
        """Say that it allows so many regions."""
        name, below = self.kind or "region", self._below()
        what = f"1 {name}" if found == 1 else f"{found} {_plural(name)}"
        if below:
            what += f",{below}," if found == 1 else f", each{below},"
        most = "" if self.count is None else f" (up to {self.count})"
        return f"{what} {'is' if found == 1 else 'are'} allowed{most}"

    def _below(self) -> str:
        if self.area == math.inf:
            return ""
        return f" below {self.area:.12g} {'% of the inspected area' if self.percent else 'pixels'}"


class Allowances(BaseModel):
    """The rules of a policy; its own section of the file, in the texts that users write.

    Fields that a later version adds are passed over: less is allowed then, never more.

    Attributes:
        version: of the section; a later one is refused.
        rules: as ``Rule`` reads them.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    version: Literal[1] = 1
    rules: tuple[str, ...] = ()

    @field_validator("rules")
    @classmethod
    def _understood(cls, rules: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(str(Rule.parse(rule)) for rule in rules))

    @classmethod
    def of(cls, rules: Iterable[str]) -> Allowances | None:
        """The allowances that a user names; None where nothing is allowed.

        Args:
            rules: see above; or ``none``, alone.

        Raises:
            PolicyError: a rule that is not understood.
        """
        given = [rule.strip() for rule in rules]
        if NOTHING in given:
            if len(given) > 1:
                raise PolicyError("'none' allows nothing: give it alone, or leave it out.")
            return None
        parsed = [str(Rule.parse(rule)) for rule in given]
        return cls(rules=tuple(parsed)) if parsed else None

    @property
    def parsed(self) -> tuple[Rule, ...]:
        """The rules."""
        return tuple(map(Rule.parse, self.rules))

    def check(self, kinds: Sequence[str], has_maps: bool = True) -> None:
        """Make sure that a detector can follow the rules.

        Raises:
            PolicyError: it gives no maps, or tells a kind that is named not apart.
        """
        if not has_maps:
            raise PolicyError(
                "the method gives no maps, so that there is no region to allow. Leave the "
                "allowances out (--allow none), or use a method with maps."
            )
        for rule in self.parsed:
            if rule.kind is not None and rule.kind not in kinds:
                known = f"it knows: {', '.join(kinds)}" if kinds else "it tells no kinds apart"
                raise PolicyError(
                    f"allowance {str(rule)!r}: this detector knows no kind {rule.kind!r}; {known}. "
                    "Correct the rule, name the kind in --vocabulary, or write a rule without a "
                    "kind."
                )

    def marked(self, regions: Sequence[Region]) -> tuple[Region, ...]:
        """The regions, each with the rule that allows it, if one does."""
        numbered = [rule for rule in self.parsed if rule.count is not None]
        free = [rule for rule in self.parsed if rule.count is None]
        marks = [_first(free, region) for region in regions]
        left = [region for region, mark in zip(regions, marks, strict=True) if mark is None]
        kept = [rule for rule in numbered if sum(map(rule.matches, left)) <= (rule.count or 0)]
        return tuple(
            replace(region, allowed=mark or _first(kept, region))
            for region, mark in zip(regions, marks, strict=True)
        )

    def sentence(self) -> str:
        """What is allowed, for people."""
        rules = "; ".join(rule.told() for rule in self.parsed)
        return (
            f"Allowed: {rules}. Where nothing else stands out a picture is good by this rule, "
            "whatever its score."
        )


def allowed_in_words(regions: Sequence[Region]) -> str:
    """Say which regions are allowed: ``3 stains, each below 50 pixels, are allowed``.

    Args:
        regions: as ``Allowances.marked`` gives them, one at least.
    """
    by_rule: dict[str, int] = {}
    for region in regions:
        if region.allowed is not None:
            by_rule[region.allowed] = by_rule.get(region.allowed, 0) + 1
    told = [Rule.parse(rule).told_of(n) for rule, n in by_rule.items()]
    rest = [region for region in regions if region.allowed is None]
    if len(rest) == 1:
        told.append(f"1 {rest[0].kind or 'region'} of {rest[0].area} pixels is not")
    elif rest:
        largest = max(region.area for region in rest)
        told.append(f"{len(rest)} regions of up to {largest} pixels are not")
    return "; ".join(told)


def all_allowed(regions: Sequence[Region]) -> bool:
    """Whether something stands out and all of it is allowed."""
    return bool(regions) and all(region.allowed is not None for region in regions)


def _limit(text: str) -> tuple[str, tuple[float, bool]]:
    """Name of a limit, its number and whether that is in percent; 0 where it is not understood."""
    found = _LIMIT.fullmatch(text)
    if not found:
        return "", (0, False)
    area, size, unit, count, number = found.groups()
    return area or count, (float(size or number), unit == "%")


def _first(rules: Iterable[Rule], region: Region) -> str | None:
    return next((str(rule) for rule in rules if rule.matches(region)), None)


def _plural(word: str) -> str:
    if word.endswith(("s", "x", "z", "ch", "sh")):
        return f"{word}es"
    return f"{word[:-1]}ies" if re.search("[^aeiou]y$", word) else f"{word}s"

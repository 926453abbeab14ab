"""The rules of a product with all that they take: components, learned limits, what came of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from pydantic import ValidationError

from zerodefect.detector.contract import PatchFeatures
from zerodefect.images import Picture
from zerodefect.inspection.rules.component_model import ComponentModel, patch_rows
from zerodefect.inspection.rules.component_parts import (
    Seen,
    SeenComponent,
    seen_component,
    seen_words,
)
from zerodefect.inspection.rules.component_sources import (
    FORMS,
    ComponentError,
    ComponentSource,
    parsed_sources,
)
from zerodefect.inspection.rules.rule_language import ComponentRule
from zerodefect.inspection.rules.rule_limits import SharedRates, learn_rule, limits_of, two_sided_p
from zerodefect.inspection.rules.rule_measures import (
    Limits,
    Measured,
    Truth,
    Value,
    measured,
    numbers_of,
    stated_limits,
)
from zerodefect.inspection.rules.rule_reader import parse_rule
from zerodefect.inspection.rules.rule_records import (
    ComponentRecord,
    LearnedRule,
    RuleRecord,
    RuleSection,
)
from zerodefect.types import Verdict

NOTHING = "none"  # a rule that takes those of a product back

_PROMISE, _THE_RULE = "Rules as usual, from", " the rule '"  # by which notes of rules are known

_BY_LOOK = " The model does not know {} by these words: draw boxes, or name clusters, instead."


@dataclass(frozen=True)
class RuleSet:
    """The rules of a product.

    Attributes:
        rules: what is asked of every picture.
        sources: how each component was told.
        model: what components by boxes or clusters look like; None where words name them all.
        learned: of the rules that hold as usual, once there were good pictures to learn from.
        rate, guaranteed: as of ``RuleSection``.
    """

    rules: tuple[ComponentRule, ...]
    sources: tuple[ComponentSource, ...]
    model: ComponentModel | None = None
    learned: Mapping[str, LearnedRule] = field(default_factory=dict)
    rate: float | None = None
    guaranteed: bool = False

    def check(self) -> None:
        """Make sure that every component is known.

        Raises:
            ComponentError: a rule names one that was not told.
        """
        known = list(dict.fromkeys(one.name for one in self.sources))
        for rule in self.rules:
            for name in rule.names:
                if name not in known:
                    there = f"known: {', '.join(known)}" if known else "no component was told"
                    raise ComponentError(
                        f"rule '{rule}' names the component {name!r}, which is not known "
                        f"({there}). Correct the rule, or tell what it looks like: {FORMS}"
                    )

    @property
    def words(self) -> dict[str, str]:
        """Words of the components that are looked for by them."""
        return {one.name: one.words for one in self.sources if one.words is not None}

    @property
    def unlearned(self) -> tuple[ComponentRule, ...]:
        """Rules that hold as usual, and nobody knows yet what is."""
        return tuple(r for r in self.rules if r.usual and str(r) not in self.learned)

    def told(self) -> str:
        """What is asked of every picture, in words."""
        names = ", ".join(dict.fromkeys(one.name for one in self.sources))
        rules = ", ".join(f"'{one}'" for one in self.rules) or "none yet"
        return f"rules: {rules}, on the components {names}"

    # --- one picture ----------------------------------------------------------------------------

    def see(
        self,
        picture: Picture,
        features: Sequence[PatchFeatures],
        area: np.ndarray | None,
        word_maps: Mapping[str, np.ndarray],
    ) -> Seen:
        """Where the components lie.

        Args:
            picture: as it was shown.
            features: of its patches, see ``patch_rows``; need not be there where ``model`` is not.
            area: ``(H, W)`` bool, what counts; None for all of it.
            word_maps: of components by words, see ``seen_words``.
        """
        size = picture.height, picture.width
        found: dict[str, SeenComponent] = {}
        if self.model is not None:
            margins = self.model.margins(patch_rows(features, picture))
            usual = self.model.usual.tolist()
            for name, margin, own in zip(self.model.names, margins, usual, strict=True):
                found[name] = seen_component(name, margin, own, size, area)
        return found | {name: seen_words(name, m, size, area) for name, m in word_maps.items()}

    def usual_values(self, seen: Seen) -> list[Value | None]:
        """Of every rule that holds as usual, its value on a good picture."""
        return [measured(rule, seen).sure for rule in self.rules if rule.usual]

    def stated_truths(self, seen: Seen) -> list[Truth]:
        """Of every rule with limits of its own, whether a picture keeps it."""
        stated = [rule for rule in self.rules if not rule.usual]
        return [measured(rule, seen).truth(stated_limits(rule)) for rule in stated]

    def judge(self, seen: Seen) -> tuple[tuple[RuleRecord, ...], tuple[ComponentRecord, ...]]:
        """What comes of the rules on a picture, and the parts of its components."""
        parts = [(name, part) for name, one in seen.items() for part in one.parts]
        places = {id(part): place for place, (_, part) in enumerate(parts)}
        records = []
        for rule in self.rules:
            found = measured(rule, seen)
            evidence = tuple(places[id(part)] for _, part in found.parts)
            records.append(self._record(rule, found, evidence))
        return tuple(records), tuple(ComponentRecord.of(*one) for one in parts)

    def _record(
        self, rule: ComponentRule, found: Measured, evidence: tuple[int, ...]
    ) -> RuleRecord:
        learned = self.learned.get(str(rule)) if rule.usual else None
        limits = learned.limits if learned else stated_limits(rule)
        truth = found.truth(limits)
        verdicts: dict[Truth, Verdict] = {"kept": "good", "uncertain": "unsure"}
        p = two_sided_p(learned, found.sure) if learned and not found.unseen else None
        return RuleRecord(
            rule=str(rule),
            truth=truth,
            verdict=verdicts.get(truth, rule.otherwise),
            value=_rounded(found.sure),
            value_with_doubtful=_rounded(found.all),
            limits=limits,
            p_value=p,
            confidence=None if found.confidence is None else round(found.confidence, 4),
            told=_told(rule, found, truth, limits, p),
            components=evidence,
        )

    # --- files ----------------------------------------------------------------------------------

    def section(self) -> RuleSection:
        """What a product file keeps besides the model."""
        return RuleSection(
            rules=tuple(map(str, self.rules)),
            components=tuple(map(str, self.sources)),
            learned=tuple(self.learned.values()),
            rate=self.rate,
            guaranteed=self.guaranteed,
        )

    @classmethod
    def from_bytes(cls, section: bytes, model: bytes | None, path: str) -> RuleSet:
        """Read ``rules.json`` and the model of a product file.

        Raises:
            ComponentError: they cannot be used; ``path`` is for the message.
        """
        looks = None if model is None else ComponentModel.from_bytes(model, path)
        try:
            told = RuleSection.model_validate(json.loads(section))
            rules = tuple(map(parse_rule, told.rules))
            sources = tuple(map(ComponentSource.parse, told.components))
            learned = {one.rule: one for one in map(_usable, told.learned)}
            made = cls(rules, sources, looks, learned, told.rate, told.guaranteed)
            made.check()
        except (ValidationError, ValueError, RecursionError) as error:
            reason = " ".join(str(error).split())
            raise ComponentError(f"{path}: its rules cannot be used ({reason})") from None
        lacking = {one.name for one in sources if not one.words} - set(looks.names if looks else ())
        if lacking:
            raise ComponentError(
                f"{path}: what the component {min(lacking)!r} looks like is not there"
            )
        return made

    def facts(self) -> dict[str, Any]:
        """For a run's manifest: another rule is another run."""
        looks = {} if self.model is None else {"model": _digest(self.model.to_bytes())}
        return {**self.section().model_dump(mode="json"), **looks}


def asked_rules(
    before: RuleSet | None,
    rules: str | Iterable[str | ComponentRule],
    components: str | Iterable[str | ComponentSource] = (),
) -> RuleSet | None:
    """The rules in force once some are given besides those before; nothing is loaded or read.

    Args:
        before: rules in force.
        rules, components: as of ``Ruled.teach_rules``.

    Returns:
        Without a model where components are told anew; None where nothing is left.

    Raises:
        RuleError: a rule is not understood.
        ComponentError: a component is not understood, or a rule names one that was not told.
    """
    asked = list(several(rules))
    parsed = [parse_rule(str(one)) for one in asked if one != NOTHING]
    sources = parsed_sources(several(components))
    if NOTHING in asked and not (parsed or sources):
        return None
    kept = () if before is None or NOTHING in asked else before.rules
    every = tuple(dict.fromkeys([*kept, *parsed]))
    made = RuleSet(every, sources) if before is None or sources else replace(before, rules=every)
    made.check()
    return made


def several(given: str | Iterable[Any]) -> Iterable[Any]:
    """One text, or many."""
    return [given] if isinstance(given, str) else given


def _usable(learned: LearnedRule) -> LearnedRule:
    """What was learned, if it is of its rule.

    Raises:
        ValueError: it is not, or something of it is missing.
    """
    numbers = numbers_of(parse_rule(learned.rule))
    whole = all(low is not None and high is not None for low, high in learned.limits)
    there = all(learned.values) and learned.missing >= 0
    if not (whole and there and len(learned.limits) == len(learned.values) == numbers):
        raise ValueError(f"the limits of {learned.rule!r} are not whole")
    return learned


def learned_rules(
    rules: RuleSet, values: Sequence[Sequence[Value | None]], rates: SharedRates
) -> dict[str, LearnedRule]:
    """Limits of all rules that hold as usual, from their values on each good picture."""
    usual = [rule for rule in rules.rules if rule.usual]
    return {
        str(rule): learn_rule(rule, [one[place] for one in values], rates)
        for place, rule in enumerate(usual)
    }


def on_good_in_words(rules: RuleSet, truths: Sequence[Sequence[Truth]]) -> Iterator[str]:
    """Which rules with limits of their own good pictures do not keep, and how many of them."""
    n = len(truths)
    for place, rule in enumerate(rule for rule in rules.rules if not rule.usual):
        found = [one[place] for one in truths]
        counts = [(found.count("broken"), "break"), (found.count("uncertain"), "leave uncertain")]
        told = " and ".join(f"{count} {what}" for count, what in counts if count)
        if told:
            words = [name for name in rule.names if name in rules.words]
            unseen = bool(words) and 2 * found.count("uncertain") > n
            remedy = _BY_LOOK.format(" and ".join(map(repr, words))) if unseen else ""
            yield f"Of {n} good image{'s' * (n != 1)} {told}{_THE_RULE}{rule}'.{remedy}"


def without_rules(notes: Iterable[str]) -> tuple[str, ...]:
    """Notes of a policy without what was said of rules on good pictures, and promised of them."""
    return tuple(one for one in notes if not (one.startswith(_PROMISE) or _THE_RULE in one))


def promise_of_rules(rules: RuleSet, n: int, of_score: float | None, proven: bool) -> str:
    """A sentence on what learned limits and score keep together."""
    count = limits_of(rules.rules)
    told = ", ".join(
        f"'{one.rule}' {' and '.join(_range(*own) for own in one.limits)}"
        for one in rules.learned.values()
    )
    start = f"{_PROMISE} {n} good image{'s' * (n != 1)}: {told}."
    total = min(1.0, (of_score or 0.0) + (rules.rate or 0.0))
    share = f"{100 * total:.3g} %"
    if not proven:
        return (
            f"{start} About {share} of good images should be called defective by score and rules "
            "together; this is not guaranteed, since the components were learned from the same "
            "images, or each was left out in turn."
        )
    return (
        f"{start} On average over calibrations at most {share} of good images are called defective "
        f"by the score and the {count} limits of rules together."
    )


def broken_in_words(records: Iterable[RuleRecord]) -> str | None:
    """Which rules are not kept, for people; None where all are."""
    told = [
        f"{'Broken' if one.truth == 'broken' else 'Uncertain'}: {one.told}."
        for one in records
        if one.truth != "kept"
    ]
    return " ".join(told) or None


def _told(
    rule: ComponentRule, found: Measured, truth: Truth, limits: Limits, p: float | None
) -> str:
    """``exactly 2 screws: 1 found``."""
    usual = ""
    if rule.usual:
        usual = f", usual {' and '.join(_range(*own) for own in limits)}"
        usual += "" if p is None else f" (p = {p:.3g})"
    if found.unseen:
        return f"{rule}: {found.unseen}"
    value = found.all if found.sure is None else found.sure
    if value is None:
        absent = [name for name in rule.names if not any(own == name for own, _ in found.parts)]
        return f"{rule}: {' and '.join(absent)} not found{usual}"
    told = f"{rule}: {_value_in_words(rule, value)}"
    if truth == "uncertain" and found.sure is None:
        told += ", of parts that are doubtful"
    elif truth == "uncertain" and found.all is not None:
        told += f", with doubtful parts {_value_in_words(rule, found.all)}"
    return told + usual


def _value_in_words(rule: ComponentRule, value: Value) -> str:
    first = value[0]
    ways = {
        "number": f"{first:g} found",
        "area": f"{first:.3g} %",
        "inside": f"{100 * first:.3g} % inside",
        "touching": f"gap {100 * first:.2g} % of the picture's longer side",
    }
    if rule.what in ways:
        return ways[rule.what]
    if rule.what in ("left of", "right of", "above", "below"):
        side = "width" if rule.what in ("left of", "right of") else "height"
        return f"distance {100 * first:.3g} % of the picture's {side}"
    if rule.point is not None:
        return f"{first:.3g} away"
    return f"{', '.join(f'{one:.3g}' for one in value)}"


def _range(low: float | None, high: float | None) -> str:
    if low is not None and low == high:
        return f"{low:.3g}"
    if low is None or high is None:
        return "not known yet" if low is high else f"{low or high:.3g}"
    return f"{low:.3g} to {high:.3g}"


def _rounded(value: Value | None) -> Value | None:
    return None if value is None else tuple(round(one, 6) for one in value)


def _digest(data: bytes) -> str:
    import hashlib

    return hashlib.sha256(data).hexdigest()[:16]

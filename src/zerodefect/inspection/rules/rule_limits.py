"""Limits of measured values from good pictures, with the guarantee of ``conformal``.

A rule such as "fill level as usual" has a lower and an upper limit for each number that it
measures. Each limit is the k-th smallest (largest) value of n good pictures, with
k = floor(a (n + 1)), so that a further good picture lies beyond it with probability at most a.

**Several limits** share what false alarms are allowed: with m limits of rules and the one of the
score, each gets a / (m + 1), and by the union bound (Bonferroni) all together call at most a of
good pictures defective, whatever the values have to do with each other. With a confidence c each
limit has 1 - (1 - c) / (m + 1).

A component that is not found in a picture counts as a value below all others, among the good
pictures as in any further one.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from zerodefect.inspection.calibration import DEFAULT_FALSE_ALARMS
from zerodefect.inspection.conformal import (
    CalibrationError,
    average_rate,
    conformal_limit,
    needed_images,
    smallest_rate,
)
from zerodefect.inspection.rules.rule_language import ComponentRule
from zerodefect.inspection.rules.rule_measures import Value, numbers_of
from zerodefect.inspection.rules.rule_records import LearnedRule


def limits_of(rules: Sequence[ComponentRule]) -> int:
    """How many limits rules learn from good pictures."""
    return sum(2 * numbers_of(rule) for rule in rules if rule.usual)


@dataclass(frozen=True)
class SharedRates:
    """What of the false alarms each limit may cause.

    Attributes:
        limits: of learned rules.
        false_alarms: of all together, or None: what is usual for each.
        confidence: of all together, or None.
    """

    limits: int
    false_alarms: float | None = None
    confidence: float | None = None

    @property
    def own_confidence(self) -> float | None:
        """With which each limit keeps its rate."""
        if self.confidence is None or not 0 < self.confidence < 1:
            return self.confidence
        return 1 - (1 - self.confidence) / (self.limits + 1)

    @property
    def own_rate(self) -> float | None:
        """Rate of each limit; None: what is usual."""
        asked = self.false_alarms
        return None if asked is None else asked / (self.limits + 1)

    def of_score(self, rates: dict[str, Any]) -> dict[str, Any]:
        """Rates as ``calibration.calibrate`` takes them, for the score alone."""
        if not self.limits:
            return rates
        return {**rates, "false_alarms": self.own_rate, "confidence": self.own_confidence}

    def of_limit(self, n: int) -> float:
        """Rate that each limit keeps with n good pictures.

        Raises:
            CalibrationError: so few pictures cannot guarantee what was asked for.
        """
        least = smallest_rate(n, self.own_confidence)
        if self.own_rate is None:
            return max(DEFAULT_FALSE_ALARMS, least)
        if self.own_rate < least - 1e-12:
            needed = needed_images(self.own_rate, self.own_confidence)
            raise CalibrationError(
                f"a false-alarm rate of {self.false_alarms:g}, shared by the score and "
                f"{self.limits} limits of rules, cannot be guaranteed with {n} good images: the "
                f"smallest provable rate is {least * (self.limits + 1):.4g}. Give at least "
                f"{needed} good images, leave rules out, or ask for a larger rate."
            )
        return self.own_rate

    def together(self, n: int) -> float:
        """Rate that the learned limits keep together, on average, beside the score."""
        own = self.of_limit(n)
        if self.own_confidence is not None:
            own = average_rate(own, n, self.own_confidence)
        return min(1.0, own * self.limits)


def learn_rule(
    rule: ComponentRule, found: Sequence[Value | None], rates: SharedRates
) -> LearnedRule:
    """The limits of a rule that is as usual.

    Args:
        rule: that is.
        found: its value on each good picture; None where the component was not found.
        rates: what may be called broken.

    Raises:
        CalibrationError: too few pictures, or too few that show the component.
    """
    n, missing = len(found), sum(value is None for value in found)
    if not n:
        raise CalibrationError("no good image to learn from. Give at least one.")
    rate = rates.of_limit(n)
    there = [value for value in found if value is not None]
    limits, values = [], []
    for place in range(numbers_of(rule)):
        own = sorted(value[place] for value in there)
        low = _lowest(own, missing, rate, rates.own_confidence)
        if low is None or not math.isfinite(low):
            raise CalibrationError(
                f"rule '{rule}': {rule.subject!r} was not found with confidence in {missing} of "
                f"{n} good images. Draw boxes on more examples of it, or name other clusters."
            )
        everything = [*own, *[-math.inf] * missing]
        high = conformal_limit(everything, rate, rates.own_confidence)
        limits.append((low, high))
        values.append(tuple(own))
    return LearnedRule(rule=str(rule), limits=tuple(limits), values=tuple(values), missing=missing)


def _lowest(
    own: Sequence[float], missing: int, rate: float, confidence: float | None
) -> float | None:
    turned = [*(-value for value in own), *[math.inf] * missing]
    limit = conformal_limit(turned, rate, confidence)
    return None if limit is None else -limit


def two_sided_p(learned: LearnedRule, value: Value | None) -> float:
    """Conformal p-value in (0, 1] of a value among those of good pictures, two-sided.

    Of several numbers it is the smallest, times their number (Bonferroni).
    """
    n = learned.missing + len(learned.values[0])
    found = []
    for place, own in enumerate(learned.values):
        if value is None:
            found.append(2 * (1 + learned.missing) / (n + 1))
            continue
        below = learned.missing + bisect_right(own, value[place])
        above = len(own) - bisect_left(own, value[place])
        found.append(2 * (1 + min(below, above)) / (n + 1))
    return min(1.0, min(found) * len(found))

"""The verdict on a part of several pictures, from what is known of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from zerodefect.inspection.explain import TRANSDUCTIVE, evidence
from zerodefect.inspection.inspected import Inspection
from zerodefect.inspection.policy import Policy
from zerodefect.inspection.rules.rule_records import RuleRecord
from zerodefect.inspection.rules.rule_set import broken_in_words
from zerodefect.types import Failure, Verdict, printable, told_score

_WORST: Final = ("good", "unsure", "defect")
_SHOWN = 3  # reasons in a sentence


@dataclass(frozen=True)
class Outcome:
    """What the verdict on a part needs of one of its pictures.

    Attributes:
        image: the picture's name.
        verdict, score: None where it could not be inspected.
        reason: why it cannot be judged, or not be inspected.
        allowed: what rules allow of it, where its verdict rests on them.
        transductive: whether the score depends on other pictures of the run.
        rules: which rules on components it does not keep, in words.
    """

    image: str
    verdict: Verdict | None = None
    score: float | None = None
    reason: str | None = None
    allowed: str | None = None
    transductive: bool | None = False
    rules: str | None = None

    @classmethod
    def of(cls, found: Inspection | Failure | Mapping[str, Any]) -> Outcome:
        """Of an inspection, a failure, or the record of either."""
        names = ("verdict", "score", "reason", "allowed", "transductive")
        if isinstance(found, Mapping):
            told = {name: found.get(name) for name in names}
            rules = [RuleRecord.model_validate(one) for one in found.get("rules") or ()]
            return cls(found["image"], **told, rules=broken_in_words(rules))
        told = {name: getattr(found, name, None) for name in names}
        return cls(found.image, **told, rules=broken_in_words(getattr(found, "rules", ())))


@dataclass(frozen=True)
class PartInspection:
    """Outcome for one part.

    Attributes:
        part: its name.
        outcomes: of its pictures, in short.
        verdict: the worst of its pictures'. Where one cannot be read, or their number is not that
            of the good parts, it is never good; "defect" only where that would hold with all
            pictures, too.
        calibrated: whether the verdict rests on limits learned from good parts.
        score: the highest of its pictures; None where none could be inspected.
        p_value: conformal p-value of the score under "this is a good part"; None without
            calibration, and for a part of more pictures than good parts have.
        decisive: name of the picture that the verdict rests on.
        explanation: a few plain sentences: why this verdict.
        reason: what keeps it from being good whatever its scores; None: nothing.
        pictures: outcomes of its pictures, where they are at hand.
    """

    part: str
    outcomes: tuple[Outcome, ...]
    verdict: Verdict
    calibrated: bool
    score: float | None
    p_value: float | None
    decisive: str | None
    explanation: str
    reason: str | None
    pictures: tuple[Inspection | Failure, ...] = ()

    @property
    def images(self) -> tuple[str, ...]:
        """Names of its pictures."""
        return tuple(one.image for one in self.outcomes)

    @property
    def transductive(self) -> bool:
        """Whether the verdict depends on other pictures of the run."""
        return any(one.transductive for one in self.outcomes)

    def __str__(self) -> str:
        """One line: part, verdict, score, number of pictures."""
        caution = "" if self.calibrated else " (uncalibrated)"
        why = f" ({self.reason})" if self.reason else ""
        score = "no score" if self.score is None else f"score {told_score(self.score)}"
        told = f"{self.part}: {self.verdict}{caution}{why}, {score}, {len(self.images)} pictures"
        return printable(told)


def judge_part(
    part: str,
    outcomes: Sequence[Outcome],
    policy: Policy,
    pictures: Sequence[Inspection | Failure] = (),
) -> PartInspection:
    """The part's verdict: the worst of its pictures', and "good" of whole parts alone.

    Args:
        part: its name.
        outcomes: of all its pictures.
        policy: limits in force, learned from parts or provisional.
        pictures: kept in the result.
    """
    judged = [one for one in outcomes if one.verdict is not None and one.score is not None]
    worst = max(judged, key=_badness, default=None)
    highest = max((one.score for one in judged if one.score is not None), default=None)
    unlike = policy.parts.unlike(len(outcomes)) if policy.parts else None
    reasons = [*([unlike] if unlike else []), *_reasons(outcomes)]
    verdict: Verdict = "unsure" if worst is None or worst.verdict is None else worst.verdict
    # more pictures than good parts have reach a limit more often than was proven
    proven = not unlike or (policy.parts and len(outcomes) < policy.parts.fewest())
    if reasons and (verdict == "good" or not proven):
        verdict = "unsure"
    return PartInspection(
        part=part,
        outcomes=tuple(outcomes),
        verdict=verdict,
        calibrated=policy.calibrated,
        score=highest,
        p_value=policy.p_value(highest) if highest is not None and proven else None,
        decisive=worst.image if worst else None,
        explanation=_explanation(verdict, worst, outcomes, policy, reasons),
        reason="; ".join(reasons) or None,
        pictures=tuple(pictures),
    )


def _badness(one: Outcome) -> tuple[int, float]:
    return _WORST.index(one.verdict or "good"), one.score or 0.0


def _reasons(outcomes: Sequence[Outcome]) -> list[str]:
    """Why pictures leave a part undecided."""
    unread = [one for one in outcomes if one.verdict is None]
    unjudged = [one for one in outcomes if one.verdict is not None and one.reason]
    told = [f"{one.image} could not be inspected ({one.reason})" for one in unread]
    told += [f"{one.image}: {one.reason}" for one in unjudged]
    more = len(told) - _SHOWN
    return told if more <= 0 else [*told[:_SHOWN], f"{more} more pictures"]


def _explanation(
    verdict: Verdict,
    worst: Outcome | None,
    outcomes: Sequence[Outcome],
    policy: Policy,
    reasons: Sequence[str],
) -> str:
    count = len(outcomes)
    start = f"Unsure, whatever the scores: {'; '.join(reasons)}. " if verdict == "unsure" else ""
    start = start if reasons else ""
    if worst is None or worst.score is None:
        return start.strip()
    of = "The only picture" if count == 1 else f"Decisive of {count} pictures"
    told = f"{of}: {worst.image}."
    if worst.reason is None:
        told += f" {evidence(policy.verdict(worst.score), worst.score, policy)}"
    if worst.rules:
        told += f" {worst.rules}"
    if worst.allowed:
        told += f" It is called {worst.verdict} by rule: {worst.allowed}."
    if reasons and verdict != "unsure":
        told += f" Besides, {'; '.join(reasons)}."
    if any(one.transductive for one in outcomes):
        told += f" {TRANSDUCTIVE}"
    return f"{start}{told}"

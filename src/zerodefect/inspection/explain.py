"""Why an image got its verdict, in one or two plain sentences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from zerodefect.inspection.allowances import allowed_in_words
from zerodefect.inspection.explanation import Explanation
from zerodefect.inspection.policy import Policy
from zerodefect.types import Count, Region, Verdict, told_score

TRANSDUCTIVE = "Transductive: compared with the other pictures of its batch."
"""Ends an explanation where the score depends on other pictures of the run."""


def explained(
    verdict: Verdict,
    score: float,
    policy: Policy,
    regions: Sequence[Region],
    size: tuple[int, int],
    reason: str | None,
    counts: Sequence[Count],
    *,
    after: str = "",
) -> Explanation:
    """The record of what the verdict rests on: the sentence, and of the strongest region the rest.

    Args:
        verdict, score, policy, regions, size, reason, counts: as of ``explain``.
        after: ends the sentence.
    """
    return Explanation(
        location=place(regions[0].box, size) if regions else None,
        kind=regions[0].kind if regions else None,
        why=explain(verdict, score, policy, regions, size, reason, counts) + after,
        verdict=verdict,
    )


def explain(
    verdict: Verdict,
    score: float,
    policy: Policy,
    regions: Sequence[Region],
    size: tuple[int, int],
    reason: str | None = None,
    counts: Sequence[Count] = (),
) -> str:
    """Say what the verdict rests on and, where the method gives maps, what stands out where.

    Args:
        verdict: of the image.
        score: raw image score.
        policy: limits in force.
        regions: of the image, highest score first.
        size: ``(height, width)`` of the image, for the place in words.
        reason: why the picture cannot be judged, whatever its score; None if it can.
        counts: how many defects of each kind.
    """
    if reason is not None:
        return f"Unsure, whatever the score ({told_score(score)}): {reason}."
    by_score = policy.verdict(score)
    told = evidence(by_score, score, policy)
    if by_score != "good" and any(region.allowed for region in regions):
        told = _by_rule(told, regions, verdict, verdict != by_score)
    if policy.region_limit is None:
        return told
    return " ".join([told, _places(regions, size), *_number(counts, len(regions))])


def _by_rule(score: str, regions: Sequence[Region], verdict: Verdict, decides: bool) -> str:
    """What is allowed, and what that makes of the verdict, before what the score says."""
    told = allowed_in_words(regions)
    if decides:
        told += f"; nothing else stands out: {verdict} by this rule, not by the score"
    return f"{told}. {score}"


def evidence(verdict: Verdict, score: float, policy: Policy) -> str:
    """Say what a score's verdict rests on."""
    if not policy.calibrated:
        return _provisional(verdict, score, policy)
    n, unit = len(policy.scores), policy.unit
    reached = sum(s >= score for s in policy.scores)
    rank = {0: "none", n: "all"}.get(reached, str(reached))
    limit = {"defect": policy.limits.defect, "unsure": policy.limits.unsure}.get(verdict)
    if limit is not None:
        stands = f"is above the limit {told_score(limit)} for {verdict}"
    elif verdict == "good":
        stands = "is within what good parts show"
    else:
        stands = "cannot be judged: the policy has no such limit"
    return (
        f"Score {told_score(score)} {stands}: {rank} of {n} good {unit}s scored as high "
        f"(p = {policy.p_value(score):.3g})."
    )


def _provisional(verdict: Verdict, score: float, policy: Policy) -> str:
    limits = policy.limits
    limit = limits.defect if verdict == "defect" else limits.unsure
    if limit is None:
        return f"Score {told_score(score)}; without good parts no verdict can be given."
    side = "above" if score > limit else "not above"
    return (
        f"Score {told_score(score)} is {side} the provisional limit {told_score(limit)} "
        "(not calibrated on good parts)."
    )


def _places(regions: Sequence[Region], size: tuple[int, int]) -> str:
    if not regions:
        return "No single region stands out."
    first = regions[0]
    what = f"most likely {first.kind}" if first.kind else "an anomaly"
    return (
        f"{'One region stands' if len(regions) == 1 else f'{len(regions)} regions stand'} out; "
        f"the strongest, {what}, lies {place(first.box, size)} and covers "
        f"{_percent(first.area_percent)} of the image."
    )


def _number(counts: Sequence[Count], regions: int) -> Iterator[str]:
    """How many defects that are, where it is not simply the number of regions."""
    exact = all(one.low == one.count == one.high for one in counts)
    if not counts or (exact and sum(one.count for one in counts) == regions):
        return
    yield f"Counted: {', '.join(map(str, counts))}."


def _percent(value: float) -> str:
    return f"{value:.0f} %" if value >= 10 else f"{value:.2g} %"


def place(box: tuple[int, int, int, int], size: tuple[int, int]) -> str:
    """Where a box ``(x, y, width, height)`` lies in an image ``(height, width)``, in words."""
    x, y, width, height = box
    row, column = int(3 * (y + height / 2) / size[0]), int(3 * (x + width / 2) / size[1])
    words = (
        ("in the upper left", "in the upper middle", "in the upper right"),
        ("on the left", "in the centre", "on the right"),
        ("in the lower left", "in the lower middle", "in the lower right"),
    )
    return words[min(row, 2)][min(column, 2)]

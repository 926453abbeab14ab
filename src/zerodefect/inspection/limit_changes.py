"""Limits of a policy that a user replaces or edits, and what they still promise."""

from __future__ import annotations

import bisect
import math
from typing import TYPE_CHECKING, Any

from zerodefect.inspection.conformal import (
    LEARNED,
    SET_REMEDY,
    PolicyError,
    check_provable,
    conformal_limit,
)

if TYPE_CHECKING:
    from zerodefect.inspection.policy import Policy

_NEARLY_ALL = 1 - 1e-9  # rates lie below 1


def with_threshold(policy: Policy, text: str) -> Policy:
    """See ``Policy.with_threshold``."""
    text = text.strip()
    try:
        if text.startswith("rate:"):
            return _with_rate(policy, float(text[5:]), text)
        if text.startswith("q:"):
            return _with_quantile(policy, float(text[2:]), text)
        if text.startswith("x"):
            return _with_factor(policy, float(text[1:]), text)
        if text.endswith("%"):
            return _with_factor(policy, float(text[:-1]) / 100.0, text)
        return _with_limit(policy, float(text), None, text)
    except PolicyError:
        raise
    except ValueError:
        raise PolicyError(
            f"threshold {text!r} is not understood. Write a raw score (0.62), a false-alarm "
            "rate (rate:0.02), a quantile of the good scores (q:0.99), or a share of the "
            "present limit (x1.05 or 105%)."
        ) from None


def is_score(text: str) -> bool:
    """Whether a threshold is a raw score."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def with_proven_rates(policy: Policy) -> Policy:
    """Take back the rates that a limit lowered by hand no longer keeps."""
    if not policy.calibrated:
        return policy
    changes: dict[str, Any] = {}
    notes = policy.notes
    review = policy.review_rate
    proven = conformal_limit(policy.map_maxima, review) if review else None
    if proven is not None and policy.region_limit is not None and policy.region_limit < proven:
        note = "The region limit was edited: how many good images show regions is not known."
        notes = (*notes, note)
    limits = {
        "false_alarms": (policy.limits.defect, policy.false_alarms),
        "review_rate": (policy.limits.unsure, review and review - _of_frames(policy)),
    }
    lost = [name for name, pair in limits.items() if _breaks(policy.scores, *pair)]
    if lost:
        note = "A limit or rate was edited by hand: its false-alarm rate is not guaranteed."
        notes = (*_without_promise(notes), note)
        changes = {**dict.fromkeys(lost), "guaranteed": False}
    return policy.model_copy(update={**changes, "notes": notes})


def _of_frames(policy: Policy) -> float:
    """Share of the review rate that good images with odd frames take."""
    return policy.frames.outside / (len(policy.scores) + 1) if policy.frames else 0.0


def _breaks(scores: tuple[float, ...], limit: float | None, rate: float | None) -> bool:
    if limit is None or rate is None:
        return False
    proven = conformal_limit(scores, rate) if rate > 0 else None
    return proven is None or limit < proven


def _with_rate(policy: Policy, rate: float, text: str) -> Policy:
    scores = _good_scores(policy, text)
    check_provable(rate, len(scores), "false-alarm rate", unit=policy.unit)
    return _with_limit(policy, conformal_limit(scores, rate), rate, text)


def _with_quantile(policy: Policy, quantile: float, text: str) -> Policy:
    if not 0 <= quantile <= 1:
        raise PolicyError(f"threshold {text!r}: a quantile lies between 0 and 1.")
    n = len(_good_scores(policy, text))
    # The upper of the two neighbouring scores. Its rank does not depend on the scores, so
    # the conformal guarantee holds at this rank's rate.
    index = math.ceil(quantile * (n - 1) - 1e-9)
    return _with_rate(policy, (n - index) / (n + 1), text)


def _with_factor(policy: Policy, factor: float, text: str) -> Policy:
    limit = policy.limits.defect
    if limit is None or limit <= 0:
        raise PolicyError(
            f"threshold {text!r} is relative to the defect limit, which is {limit} here: "
            "a share of it has no meaning. Give a raw score instead."
        )
    if not factor > 0:
        raise PolicyError(f"threshold {text!r}: the factor must be positive.")
    # A higher limit raises no more alarms than the one that was proven.
    rate = policy.false_alarms if factor >= 1 else None
    return _with_limit(policy, limit * factor, rate, text)


def _with_limit(policy: Policy, limit: float | None, rate: float | None, text: str) -> Policy:
    unsure, review = policy.limits.unsure, policy.review_rate
    if not policy.calibrated:
        unsure = limit  # nothing was learned that could tell unsure from good
    elif unsure is not None and limit is not None:
        unsure = min(unsure, limit)
    if unsure != policy.limits.unsure:  # the two limits are one now
        review = None if rate is None else min(rate + _of_frames(policy), _NEARLY_ALL)
    note = f"Defect limit replaced by {text!r}."
    if policy.calibrated and limit is not None:
        above = len(policy.scores) - bisect.bisect_right(policy.scores, limit)
        note += f" {above} of the {len(policy.scores)} good {policy.unit}s lie above it."
    return policy.model_copy(
        update={
            "limits": type(policy.limits)(unsure=unsure, defect=limit),
            "guaranteed": policy.guaranteed and rate is not None,
            "false_alarms": rate,
            "review_rate": review,
            "notes": (*_without_promise(policy.notes), note),
        }
    )


def _good_scores(policy: Policy, text: str) -> tuple[float, ...]:
    if not policy.calibrated:
        remedy = "Run 'zerodefect calibrate' on good parts, or give a raw score."
        if SET_REMEDY in policy.notes:
            remedy = f"Give a raw score. {SET_REMEDY}"
        raise PolicyError(
            f"threshold {text!r} needs the scores of good images, and this run is not "
            f"calibrated. {remedy}"
        )
    return policy.scores


def _without_promise(notes: tuple[str, ...]) -> tuple[str, ...]:
    """The notes, with the statement of what is proven cut down to where limits come from."""
    return tuple(note.split(". ")[0] + "." if note.startswith(LEARNED) else note for note in notes)

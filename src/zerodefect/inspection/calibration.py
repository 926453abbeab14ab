"""Learning a policy from good images."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from zerodefect.inspection.conformal import (
    LEARNED,
    CalibrationError,
    average_rate,
    check_provable,
    conformal_limit,
    promise,
    smallest_rate,
)
from zerodefect.inspection.frames import Frame, FrameRange, learn_range
from zerodefect.inspection.policy import Form, Limits, Policy

DEFAULT_FALSE_ALARMS = 0.01
DEFAULT_REVIEW_RATE = 0.05
_FEW_POINTS = ", and so are parts of which far fewer points were measured"


def calibrate(
    scores: Iterable[float],
    map_maxima: Iterable[float] = (),
    *,
    form: Literal["split", "leave-one-out"] = "split",
    false_alarms: float | None = None,
    review_rate: float | None = None,
    confidence: float | None = None,
    monotone: bool = False,
    map_range: tuple[float, float] | None = None,
    frames: Sequence[Frame] = (),
    notes: Sequence[str] = (),
    **whose: Any,
) -> Policy:
    """Learn the limits from good images.

    Args:
        scores: raw image scores of n >= 1 good images.
        map_maxima: highest raw map value of the same images; none for a method without maps.
        form: "split": the detector never saw these images; "leave-one-out": each was scored with
            the others as references.
        false_alarms: guaranteed share of good images called "defect", on average over sets of good
            images. None: 1 %, or the smallest provable one if that is larger.
        review_rate: guaranteed share of good images called "unsure" or "defect", those for their
            frame included, and of good images that show any region; on average. None: 5 %, or what
            ``false_alarms``, ``frames`` and n make of it.
        confidence: in (0, 1), with which ``false_alarms`` holds by these limits; None: on average.
        monotone: scores and maps can only fall when a reference is added (see ``conformal``).
        map_range: lowest and highest value that a map can take, if known; colours stay inside.
        frames: light and focus of the same images; without them no range of these is learned.
        notes: put in front of the policy's own notes.
        whose: ``method``, ``fingerprint``, ``object``, ``made_with``, ``parts``, as in ``Policy``.

    Raises:
        CalibrationError: no scores, a score that is not finite, a rate that n images cannot
            guarantee (it says what they can), or a confidence for the leave-one-out form.
    """
    good, maxima = _checked(scores, map_maxima)
    n, unit = len(good), "part" if whose.get("parts") else "image"
    alarms, defect = _defect_limit(good, form, false_alarms, confidence, unit)
    seen, odd = learn_range(frames)
    review = _provable_review(review_rate, alarms, n, odd, unit)
    left = review - len(odd) / (n + 1)  # of the rate, for scores and maps
    region_limit = conformal_limit(maxima, left)
    made = Policy(
        form=form,
        guaranteed=form == "split" or monotone,
        false_alarms=alarms,
        review_rate=review,
        confidence=confidence,
        scores=tuple(good),
        map_maxima=tuple(maxima),
        limits=Limits(unsure=conformal_limit(good, left), defect=defect),
        region_limit=region_limit,
        colour_range=_colour_range(maxima, region_limit, map_range),
        frames=seen,
        **whose,
    )
    notes = (*notes, _statement(made), *_of_frames(seen, odd, unit))
    return made.model_copy(update={"notes": notes})


def _checked(
    scores: Iterable[float], map_maxima: Iterable[float]
) -> tuple[list[float], list[float]]:
    """Scores and maxima, each ascending."""
    good, maxima = sorted(map(float, scores)), sorted(map(float, map_maxima))
    if not good:
        raise CalibrationError("no good image to learn from. Give at least one.")
    for name, numbers in (("scores", good), ("map maxima", maxima)):
        if not all(map(math.isfinite, numbers)):
            raise CalibrationError(f"the {name} of the good images hold NaN or infinity.")
    if maxima and len(maxima) != len(good):
        raise CalibrationError(f"{len(good)} scores but {len(maxima)} map maxima.")
    return good, maxima


def _defect_limit(
    good: Sequence[float],
    form: Form,
    false_alarms: float | None,
    confidence: float | None,
    unit: str,
) -> tuple[float, float | None]:
    """False-alarm rate on average, as asked for or a usual one, and the limit that keeps it."""
    if confidence is not None and form != "split":
        raise CalibrationError(
            "a confidence is not proven where good images are references, each left out in turn. "
            "Calibrate on good images that are not references."
        )
    n = len(good)
    if false_alarms is None:
        usual = smallest_rate(n, confidence) if confidence is None or 0 < confidence < 1 else 0.0
        false_alarms = max(DEFAULT_FALSE_ALARMS, usual)
    check_provable(false_alarms, n, "false-alarm rate", confidence, unit)
    limit = conformal_limit(good, false_alarms, confidence)
    kept = false_alarms if confidence is None else average_rate(false_alarms, n, confidence)
    return kept, limit


def _provable_review(
    review_rate: float | None, false_alarms: float, n: int, odd: Sequence[str], unit: str
) -> float:
    """The same of the review rate, which must bear the false alarms and every odd good image."""
    share = len(odd) / (n + 1)
    if review_rate is None:
        return max(DEFAULT_REVIEW_RATE, false_alarms + share, smallest_rate(n) + share)
    check_provable(review_rate, n, "review rate", unit=unit)
    if review_rate < false_alarms:
        raise CalibrationError(
            f"the review rate {review_rate:g} lies below the false-alarm rate {false_alarms:g}, "
            "but every defect counts as reviewed. Raise the one or lower the other."
        )
    needed = max(false_alarms, smallest_rate(n)) + share
    if odd and review_rate < needed - 1e-9:
        raise CalibrationError(
            f"a review rate of {review_rate:g} cannot be guaranteed: {len(odd)} of the {n} good "
            f"{unit}s lie outside what the others show ({'; '.join(odd)}). Take out what is no "
            f"picture of a good part, or ask for a review rate of {needed:.4g}."
        )
    return review_rate


def _of_frames(seen: FrameRange | None, odd: Sequence[str], unit: str) -> list[str]:
    """Say in words what the good images' light and focus decide."""
    if seen is None:
        return []
    text = (
        "Pictures far darker, brighter, flatter or less sharp than the good images are unsure"
        f"{_FEW_POINTS if seen.points is not None else ''}; the review rate counts them in."
    )
    return [
        f"{text} Of the good {unit}s {len(odd)} lie outside what the others show: {'; '.join(odd)}."
        if odd
        else text
    ]


def _statement(policy: Policy) -> str:
    """Say in words what the calibration proves."""
    n, rate, unit = len(policy.scores), policy.false_alarms or 0.0, policy.unit
    how = "" if policy.form == "split" else ", each scored with the others as references"
    how = policy.parts.told() if policy.parts else how
    text = f"{LEARNED} {n} good {unit}{'s' * (n > 1)}{how}. "
    if policy.guaranteed:
        likes = f"good {unit}s like these"
        return text + promise(rate, n, policy.form, policy.confidence, likes, "defective")
    return text + (
        f"About {100 * rate:.3g} % of good images like these should be called defective, but this "
        "is not guaranteed: with this method adding references may raise scores. Calibrate on good "
        "images that are not references for a guarantee."
    )


def _colour_range(
    map_maxima: Sequence[float], region_limit: float | None, map_range: tuple[float, float] | None
) -> tuple[float, float] | None:
    """From the good images' median to as far above the region limit as the median lies below.

    The upper end is at most the highest value that a map can take, if that lies above the limit.
    """
    if region_limit is None:
        return None
    median = statistics.median(map_maxima)
    # Few or equal maxima put the median onto the limit, or above it: any width will do then.
    tiny = 1e-3 * abs(region_limit) or 1e-3
    half = region_limit - median
    if half < tiny:
        half = max(max(map_maxima) - median, 50 * tiny)
    high = region_limit + half
    if map_range and region_limit < map_range[1] < high:
        high = map_range[1]
    return region_limit - half, high

"""Learning a policy from good images."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from typing import Literal

from zerodefect.inspection.conformal import (
    CalibrationError,
    check_provable,
    conformal_limit,
    smallest_rate,
)
from zerodefect.inspection.policy import LEARNED, Form, Limits, Policy

DEFAULT_FALSE_ALARMS = 0.01
DEFAULT_REVIEW_RATE = 0.05


def calibrate(
    scores: Iterable[float],
    map_maxima: Iterable[float] = (),
    *,
    method: str,
    fingerprint: str,
    object: str | None,
    form: Literal["split", "leave-one-out"] = "split",
    false_alarms: float | None = None,
    review_rate: float | None = None,
    monotone: bool = False,
    map_range: tuple[float, float] | None = None,
    notes: Sequence[str] = (),
) -> Policy:
    """Learn the limits from good images.

    Args:
        scores: raw image scores of n >= 1 good images.
        map_maxima: highest raw map value of the same images; none for a method without maps.
        method, fingerprint, object: whose limits these are, as in ``Policy``.
        form: "split": the detector never saw these images; "leave-one-out": each was scored with
            the others as references.
        false_alarms: guaranteed share of good images called "defect". None: 1 %, or the smallest
            provable one if that is larger.
        review_rate: guaranteed share of good images called "unsure" or "defect", and of good
            images that show any region. None: 5 %, or what ``false_alarms`` and n make of it.
        monotone: the detector's scores and maps can only fall when a reference is added (matters
            for "leave-one-out" only; see ``conformal``).
        map_range: lowest and highest value that a map can take, if known; colours stay inside.
        notes: put in front of the policy's own notes.

    Raises:
        CalibrationError: no scores, a score that is not finite, or a rate that n images cannot
            guarantee; the message says what they can, and how many the rate needs.
    """
    good, maxima = _checked(scores, map_maxima)
    false_alarms, review_rate = _provable(false_alarms, review_rate, len(good))
    region_limit = conformal_limit(maxima, review_rate)
    guaranteed = form == "split" or monotone
    return Policy(
        method=method,
        fingerprint=fingerprint,
        object=object,
        form=form,
        guaranteed=guaranteed,
        false_alarms=false_alarms,
        review_rate=review_rate,
        scores=tuple(good),
        map_maxima=tuple(maxima),
        limits=Limits(
            unsure=conformal_limit(good, review_rate), defect=conformal_limit(good, false_alarms)
        ),
        region_limit=region_limit,
        colour_range=_colour_range(maxima, region_limit, map_range),
        notes=(*notes, _statement(len(good), form, false_alarms, guaranteed)),
    )


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


def _provable(false_alarms: float | None, review_rate: float | None, n: int) -> tuple[float, float]:
    """Fill in the rates that were not asked for; both can be guaranteed with ``n`` images."""
    if false_alarms is None:
        false_alarms = max(DEFAULT_FALSE_ALARMS, smallest_rate(n))
    check_provable(false_alarms, n, "false-alarm rate")
    if review_rate is None:
        review_rate = max(DEFAULT_REVIEW_RATE, false_alarms, smallest_rate(n))
    check_provable(review_rate, n, "review rate")
    if review_rate < false_alarms:
        raise CalibrationError(
            f"the review rate {review_rate:g} lies below the false-alarm rate {false_alarms:g}, "
            "but every defect counts as reviewed. Raise the one or lower the other."
        )
    return false_alarms, review_rate


def _statement(n: int, form: Form, rate: float, guaranteed: bool) -> str:
    """Say in words what the calibration proves."""
    how = "" if form == "split" else ", each scored with the others as references"
    images = "1 good image" if n == 1 else f"{n} good images"
    text = f"{LEARNED} {images}{how}. "
    share = f"{100 * rate:.3g} %"
    if guaranteed:
        return text + f"At most {share} of good images like these are called defective."
    return text + (
        f"About {share} of good images like these should be called defective, but this is not "
        "guaranteed: with this method adding references may raise scores. Calibrate on good "
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

"""When is a score a defect? Limits learned from good images, with a guaranteed false-alarm rate.

**The rule.** Let s_1..s_n be the scores of n good images. The conformal p-value of a new score s
is p = (1 + #{s_i >= s}) / (n + 1), and "defect" is said when p <= alpha. This is the same as
s > (the k-th largest s_i) with k = floor(alpha (n + 1)), which is the limit that a policy stores.

**The guarantee, split form.** If the new image is good too, and all n + 1 images are exchangeable
(drawn alike, in no particular order), its rank among them is uniform, ties counted against an
alarm; so P(p <= alpha) <= alpha, for every n, every detector and every distribution (Vovk,
Gammerman & Shafer, "Algorithmic Learning in a Random World", 2005; Angelopoulos & Bates, "A Gentle
Introduction to Conformal Prediction", 2021). Below 1/(n + 1) nothing can be proven.

**On average, and with confidence.** That rate is an average over sets of good images; a single set
may be unlucky. If its images are drawn independently, the share of good images above the k-th
largest of n scores is itself random, Beta(k, n + 1 - k) for scores without ties and smaller with
ties (Vovk, "Conditional validity of inductive conformal predictors", ACML 2012). So at a limit of
rank k the rate is, with confidence c, at most the c-quantile of that distribution; and a limit that
keeps a rate with confidence has the largest k whose quantile is within the rate. This is proven for
the split form alone.

**The guarantee, leave-one-out form.** With few images each one is scored with the n - 1 others as
references, a new image with all n. Suppose that adding a reference can only lower a score (nearest
neighbour in a memory without subsampling: WinCLIP+). Full conformal prediction, which is exact,
would score image i against the others *and the new image*: a score a_i <= s_i. Hence
#{s_i >= s} >= #{a_i >= s}: counting with the s_i only raises the p-value, and the guarantee stays.
For other detectors no bound holds in general, as new images see a memory that no calibration image
saw. (The bound 2 alpha of the jackknife+, Barber, Candes, Ramdas & Tibshirani, Annals of
Statistics 2021, needs the new image scored once with each image left out.) The policy says so.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from typing import Final

import numpy as np
from scipy.special import betainc, betaincinv

REMEDY = (  # what makes real verdicts of provisional ones
    "For verdicts that hold show it good parts: --reference good/, or limits from 'zerodefect "
    "calibrate good/'."
)
SET_REMEDY = (  # the same where scores hold for one set of pictures alone
    "For verdicts that hold show it good parts in the same set: --batch --reference good/, or take "
    "a method that needs no set: zerodefect setup good/."
)
USUAL_CONFIDENCE = 0.9  # of the rate that is told beside the average

LEARNED: Final = "Limits learned from"
"""How the note begins that says what limits rest on, and promises what they keep."""


class PolicyError(ValueError):
    """A policy file or a threshold cannot be used; the message names reason and remedy."""


class CalibrationError(PolicyError):
    """The good images do not support the limits that were asked for."""


def smallest_rate(n: int, confidence: float | None = None) -> float:
    """Smallest false-alarm rate that ``n`` good images can guarantee: 1 / (n + 1) on average.

    With a confidence c in (0, 1): 1 - (1 - c) ** (1 / n).
    """
    return 1.0 / (n + 1) if confidence is None else -math.expm1(math.log1p(-confidence) / n)


def needed_images(rate: float, confidence: float | None = None) -> int:
    """Smallest number of good images that can guarantee the false-alarm rate ``rate``.

    Args:
        rate: in (0, 1).
        confidence: with which it is to hold; None: on average.

    Raises:
        CalibrationError: rate or confidence are not between 0 and 1.
    """
    _check_rate(rate, "rate")
    if confidence is None:
        n = max(1, math.ceil(1.0 / rate) - 2)
    else:
        _check_rate(confidence, "confidence")
        n = max(1, math.ceil(math.log1p(-confidence) / math.log1p(-rate)) - 1)
    while _rank(rate, n, confidence) < 1:
        n += 1
    return n


def check_provable(
    rate: float, n: int, name: str, confidence: float | None = None, unit: str = "image"
) -> None:
    """Make sure that ``n`` good images can guarantee a rate; ``name`` is the rate's, for the error.

    ``unit`` is what was counted: an image, or a part of several.

    Raises:
        CalibrationError: they cannot, or rate or confidence are not in (0, 1).
    """
    _check_rate(rate, name)
    if confidence is not None:
        _check_rate(confidence, "confidence")
    if _rank(rate, n, confidence) < 1:
        sure = f" with {100 * confidence:g} % confidence" if confidence else ""
        images = f"{n} good {unit}{'s' if n > 1 else ''}"
        raise CalibrationError(
            f"a {name} of {rate:g} cannot be guaranteed{sure} with {images}: the smallest provable "
            f"rate is {smallest_rate(n, confidence):.4g}. Give at least "
            f"{needed_images(rate, confidence)} good {unit}s, or ask for a larger rate."
        )


def conformal_limit(
    scores: Sequence[float], rate: float, confidence: float | None = None
) -> float | None:
    """Limit that a new good score exceeds with probability at most ``rate``, in (0, 1).

    The k-th largest score with k = floor(rate (n + 1)), or the k of ``confidence`` (see above).
    None where k < 1: no finite limit can be proven with so few images.
    """
    _check_rate(rate, "rate")
    rank = _rank(rate, len(scores), confidence)
    return sorted(scores)[-rank] if rank >= 1 else None


def average_rate(rate: float, n: int, confidence: float) -> float:
    """Rate on average at the limit that keeps ``rate`` with a confidence."""
    return _rank(rate, n, confidence) / (n + 1)


def confident_rate(rate: float, n: int, confidence: float = USUAL_CONFIDENCE) -> float:
    """Rate that holds with a confidence at the limit that keeps ``rate`` on average; 1 for none."""
    rank = _rank(rate, n)
    return float(betaincinv(rank, n + 1 - rank, confidence)) if rank >= 1 else 1.0


def promise(
    rate: float, n: int, form: str | None, confidence: float | None, images: str, called: str
) -> str:
    """A sentence on a guaranteed false-alarm rate: on average, and with confidence.

    Args:
        rate: on average.
        n: good images that the limit was learned from.
        form: of the calibration; no confidence is proven for any but "split".
        confidence: that was asked for, or None.
        images, called: what the rate is a share of, and what they are called.
    """
    average = f"on average over calibrations at most {100 * rate:.3g} %"
    if form != "split":
        return f"O{average[1:]} of {images} are called {called}."
    used = confidence or USUAL_CONFIDENCE
    sure = f"ith {100 * used:.4g} % confidence at most {100 * confident_rate(rate, n, used):.3g} %"
    if confidence is None:
        return f"O{average[1:]} of {images} are called {called}; w{sure} by these limits."
    return f"W{sure} of {images} are called {called} by these limits; {average}."


def p_value(ascending: Sequence[float], score: float) -> float:
    """Conformal p-value in (0, 1] of ``score`` among the scores of good images, ascending.

    Raises:
        ValueError: the score is NaN.
    """
    if math.isnan(score):
        raise ValueError("the score is NaN")
    n = len(ascending)
    return (1 + n - bisect.bisect_left(ascending, score)) / (n + 1)


def _rank(rate: float, n: int, confidence: float | None = None) -> int:
    """k = floor(rate (n + 1)), at most n, or the largest k of a confidence; 0: nothing provable."""
    if confidence is not None:
        ranks = np.arange(1, n + 1)
        return int(np.count_nonzero(betainc(ranks, n + 1 - ranks, rate) >= confidence - 1e-9))
    # The allowance makes 0.29 * 100 = 28.999999999999996 count as 29.
    return min(math.floor(rate * (n + 1) + 1e-9), n)


def _check_rate(rate: float, name: str) -> None:
    if not 0 < rate < 1:
        raise CalibrationError(f"the {name} must lie between 0 and 1, got {rate:g}.")

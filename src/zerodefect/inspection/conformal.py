"""When is a score a defect? Limits learned from good images, with a guaranteed false-alarm rate.

**The rule.** Let s_1..s_n be the scores of n good images. The conformal p-value of a new score s
is p = (1 + #{s_i >= s}) / (n + 1), and "defect" is said when p <= alpha. This is the same as
s > (the k-th largest s_i) with k = floor(alpha (n + 1)), which is the limit that a policy stores.

**The guarantee, split form.** If the new image is good too, and all n + 1 images are exchangeable
(drawn alike, in no particular order), its rank among them is uniform, ties counted against an
alarm; so P(p <= alpha) <= alpha, for every n, every detector and every distribution (Vovk,
Gammerman & Shafer, "Algorithmic Learning in a Random World", 2005; Angelopoulos & Bates, "A Gentle
Introduction to Conformal Prediction", 2021). It holds on average over sets of good images, not
for each single set. Below 1/(n + 1) nothing can be proven.

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


class PolicyError(ValueError):
    """A policy file or a threshold cannot be used; the message names reason and remedy."""


class CalibrationError(PolicyError):
    """The good images do not support the limits that were asked for."""


def smallest_rate(n: int) -> float:
    """Smallest false-alarm rate that ``n`` good images can guarantee: 1 / (n + 1)."""
    return 1.0 / (n + 1)


def needed_images(rate: float) -> int:
    """Smallest number of good images that can guarantee the false-alarm rate ``rate``.

    Raises:
        CalibrationError: the rate is not between 0 and 1.
    """
    _check_rate(rate, "rate")
    n = max(1, math.ceil(1.0 / rate) - 2)
    while _rank(rate, n) < 1:
        n += 1
    return n


def check_provable(rate: float, n: int, name: str) -> None:
    """Make sure that ``n`` good images can guarantee a rate; ``name`` is the rate's, for the error.

    Raises:
        CalibrationError: they cannot, or the rate is not in (0, 1).
    """
    _check_rate(rate, name)
    if _rank(rate, n) < 1:
        raise CalibrationError(
            f"a {name} of {rate:g} cannot be guaranteed with {n} good "
            f"image{'s' if n > 1 else ''}: the smallest provable rate is {smallest_rate(n):.4g}. "
            f"Give at least {needed_images(rate)} good images, or ask for a larger rate."
        )


def conformal_limit(scores: Sequence[float], rate: float) -> float | None:
    """Limit that a new good score exceeds with probability at most ``rate``, in (0, 1).

    The k-th largest score with k = floor(rate (n + 1)), or None where k < 1: no finite limit can be
    proven with so few images.
    """
    _check_rate(rate, "rate")
    rank = _rank(rate, len(scores))
    return sorted(scores)[-rank] if rank >= 1 else None


def p_value(ascending: Sequence[float], score: float) -> float:
    """Conformal p-value in (0, 1] of ``score`` among the scores of good images, ascending.

    Raises:
        ValueError: the score is NaN.
    """
    if math.isnan(score):
        raise ValueError("the score is NaN")
    n = len(ascending)
    return (1 + n - bisect.bisect_left(ascending, score)) / (n + 1)


def _rank(rate: float, n: int) -> int:
    """k = floor(rate (n + 1)), at most n; 0 where no limit is provable."""
    # The allowance makes 0.29 * 100 = 28.999999999999996 count as 29.
    return min(math.floor(rate * (n + 1) + 1e-9), n)


def _check_rate(rate: float, name: str) -> None:
    if not 0 < rate < 1:
        raise CalibrationError(f"the {name} must lie between 0 and 1, got {rate:g}.")

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
import json
import math
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from zerodefect.files import atomic_write
from zerodefect.types import Verdict
from zerodefect.version import __version__

FORMAT: Final = "zerodefect-policy"
VERSION: Final = 1
DEFAULT_FALSE_ALARMS = 0.01
DEFAULT_REVIEW_RATE = 0.05

Form = Literal["split", "leave-one-out", "none"]


class PolicyError(ValueError):
    """A policy file or a threshold cannot be used; the message names reason and remedy."""


class PolicyMismatch(PolicyError):  # noqa: N818 - says what it is
    """The policy was learned for another detector or product."""


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
    """Limit that a new good score exceeds with probability at most ``rate``.

    Args:
        scores: scores of good images, in any order.
        rate: in (0, 1).

    Returns:
        The k-th largest score with k = floor(rate (n + 1)), or None where k < 1: no finite limit
        can be proven with so few images.
    """
    _check_rate(rate, "rate")
    rank = _rank(rate, len(scores))
    return sorted(scores)[-rank] if rank >= 1 else None


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


_LEARNED = "Limits learned from"


class Limits(BaseModel):
    """Two limits on the raw image score; a score above the limit has the verdict of its name.

    Attributes:
        unsure: None: no limit can be proven, so no image is called good.
        defect: None: no limit can be proven, so no image is called defective.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)

    unsure: float | None
    defect: float | None


class Policy(BaseModel):
    """How scores become verdicts, p-values, regions and colours; a plain JSON file on disk.

    The file may be edited by hand: verdicts follow ``limits``, p-values follow ``scores``. A rate
    that a lowered limit no longer keeps is taken back when the file is loaded.

    Attributes:
        method: name of the method whose scores these are.
        fingerprint: the detector's weights, prompts and settings in one string.
        object: product name, or None.
        form: how the good images were scored; "none" marks a provisional, uncalibrated policy.
        guaranteed: whether the stated rates are proven for good images like those calibrated on.
        false_alarms: largest share of good images with the verdict "defect"; None if not known.
        review_rate: largest share of good images with the verdict "unsure" or "defect".
        scores: raw image scores of the good images, ascending.
        map_maxima: highest map value of each good image, ascending.
        limits: raw image scores above which the verdict is "unsure" and "defect".
        region_limit: raw map value above which a pixel belongs to a region.
        colour_range: raw map values at the two ends of the colour scale.
        created: ISO 8601 time in UTC.
        zerodefect: version of the program that wrote the policy.
        notes: what the reader should know about the limits.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    format: Literal["zerodefect-policy"] = FORMAT
    version: Literal[1] = VERSION
    method: str
    fingerprint: str
    object: str | None = None
    form: Form
    guaranteed: bool = False
    false_alarms: float | None = Field(default=None, gt=0, lt=1)
    review_rate: float | None = Field(default=None, gt=0, lt=1)
    scores: tuple[float, ...] = ()
    map_maxima: tuple[float, ...] = ()
    limits: Limits
    region_limit: float
    colour_range: tuple[float, float]
    created: str = Field(default_factory=_now)
    zerodefect: str = __version__
    notes: tuple[str, ...] = ()

    @field_validator("scores", "map_maxima")
    @classmethod
    def _ascending(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        return tuple(sorted(values))

    @model_validator(mode="after")
    def _consistent(self) -> Policy:
        unsure, defect = self.limits.unsure, self.limits.defect
        if unsure is not None and defect is not None and unsure > defect:
            raise ValueError(f"limits.unsure ({unsure}) lies above limits.defect ({defect})")
        if not self.colour_range[0] < self.colour_range[1]:
            raise ValueError(f"colour_range {list(self.colour_range)} does not rise")
        if self.calibrated and not (self.scores and self.map_maxima):
            raise ValueError(f"form {self.form!r} needs scores and map_maxima of good images")
        if len(self.scores) != len(self.map_maxima):
            raise ValueError(
                f"{len(self.scores)} scores but {len(self.map_maxima)} map_maxima; they come in "
                "pairs, one of each per good image"
            )
        if self.guaranteed and not self.calibrated:
            raise ValueError("guaranteed is true, but form 'none' proves nothing")
        return self

    @classmethod
    def provisional(
        cls,
        *,
        method: str,
        fingerprint: str,
        object: str | None,
        neutral: float | None,
        map_range: tuple[float, float],
        region_limit: float,
    ) -> Policy:
        """Make the policy of an uncalibrated run; its verdicts are provisional.

        Args:
            method: name of the method.
            fingerprint: of the detector.
            object: product name, or None.
            neutral: raw image score at which the detector leans neither way; above it the verdict
                is "defect", else "good". None: the detector knows none, the verdict is always
                "unsure".
            map_range: raw map values at the two ends of the colour scale.
            region_limit: raw map value above which a pixel belongs to a region.
        """
        note = "Not calibrated: verdicts and regions are provisional."
        return cls(
            method=method,
            fingerprint=fingerprint,
            object=object,
            form="none",
            limits=Limits(unsure=neutral, defect=neutral),
            region_limit=region_limit,
            colour_range=map_range,
            notes=(note,),
        )

    @property
    def calibrated(self) -> bool:
        """Whether the limits were learned from good images."""
        return self.form != "none"

    def verdict(self, score: float) -> Verdict:
        """Judge a raw image score by the limits.

        Raises:
            ValueError: the score is NaN.
        """
        _check_number(score)
        if self.limits.defect is not None and score > self.limits.defect:
            return "defect"
        if self.limits.unsure is None or score > self.limits.unsure:
            return "unsure"
        return "good"

    def p_value(self, score: float) -> float | None:
        """Conformal p-value in (0, 1] of "this is a good part", or None without calibration.

        Raises:
            ValueError: the score is NaN.
        """
        return _p_value(self.scores, score) if self.calibrated else None

    def region_p_value(self, score: float) -> float | None:
        """Conformal p-value in (0, 1] of a raw map value against the good images' maxima.

        Raises:
            ValueError: the score is NaN.
        """
        return _p_value(self.map_maxima, score) if self.calibrated else None

    def with_threshold(self, text: str) -> Policy:
        """Replace the defect limit; the limit for "unsure" is lowered with it where needed.

        Args:
            text: ``"0.62"`` a raw score; ``"rate:0.02"`` a guaranteed false-alarm rate;
                ``"q:0.99"`` a quantile of the good images' scores; ``"x1.05"`` or ``"105%"``
                relative to the present defect limit.

        Raises:
            PolicyError: the text is not understood or does not fit this policy.
            CalibrationError: the rate cannot be guaranteed with so few images.
        """
        text = text.strip()
        try:
            if text.startswith("rate:"):
                return self._with_rate(float(text[5:]), text)
            if text.startswith("q:"):
                return self._with_quantile(float(text[2:]), text)
            if text.startswith("x"):
                return self._with_factor(float(text[1:]), text)
            if text.endswith("%"):
                return self._with_factor(float(text[:-1]) / 100.0, text)
            return self._with_limit(float(text), None, text)
        except PolicyError:
            raise
        except ValueError:
            raise PolicyError(
                f"threshold {text!r} is not understood. Write a raw score (0.62), a false-alarm "
                "rate (rate:0.02), a quantile of the good scores (q:0.99), or a share of the "
                "present limit (x1.05 or 105%)."
            ) from None

    def save(self, path: str | Path) -> None:
        """Write the policy as JSON; a file of that name is replaced in one step.

        Raises:
            StoreError: the operating system refused to write.
        """
        text = json.dumps(self.model_dump(mode="json"), indent=2, allow_nan=False)
        with atomic_write(Path(path)) as file:
            file.write(text.encode() + b"\n")

    @classmethod
    def load(cls, path: str | Path) -> Policy:
        """Read a policy file.

        Raises:
            PolicyError: the file is missing, damaged, of another kind or of a newer version; the
                message names file, reason and remedy.
        """
        remedy = "Run 'zerodefect calibrate' again or give another policy file."
        try:
            # Editors on Windows put a byte order mark in front.
            data = json.loads(Path(path).read_text("utf-8-sig"), parse_constant=_refuse_constant)
        except OSError as error:
            raise PolicyError(f"{path}: cannot be read ({error.strerror}). {remedy}") from error
        except (ValueError, RecursionError) as error:
            raise PolicyError(f"{path}: not valid JSON, or cut off ({error}). {remedy}") from error
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise PolicyError(f"{path}: not a ZeroDefect policy. {remedy}")
        version = data.get("version")
        if isinstance(version, int) and version > VERSION:
            raise PolicyError(
                f"{path}: written in policy version {version}, this program reads up to version "
                f"{VERSION}. Update ZeroDefect, or calibrate again with this version."
            )
        try:
            return cls.model_validate(data)._with_proven_rates()
        except ValidationError as error:
            raise PolicyError(
                f"{path}: {_first_reason(error)}. Correct it, or: {remedy}"
            ) from error

    def check(self, method: str, fingerprint: str, object: str | None) -> None:
        """Make sure that the policy belongs to this detector and product.

        Raises:
            PolicyMismatch: it does not; the message names every difference and the remedy.
        """
        pairs = {
            "method": (self.method, method),
            "object": (self.object, object),
            "detector (weights, prompts or settings)": (self.fingerprint, fingerprint),
        }
        different = [
            f"{name}: {then!r} when calibrated, {now!r} now"
            for name, (then, now) in pairs.items()
            if then != now
        ]
        if different:
            raise PolicyMismatch(
                f"the policy does not fit this run: {'; '.join(different)}. Scores of different "
                "detectors do not compare: use the options the policy was calibrated with, or run "
                "'zerodefect calibrate' with the present ones."
            )

    def _with_proven_rates(self) -> Policy:
        """Take back the rates that a limit lowered by hand no longer keeps."""
        if not self.calibrated:
            return self
        pairs = {
            "false_alarms": (self.limits.defect, self.false_alarms),
            "review_rate": (self.limits.unsure, self.review_rate),
        }
        lost = {name: None for name, (limit, rate) in pairs.items() if self._breaks(limit, rate)}
        proven = conformal_limit(self.map_maxima, self.review_rate) if self.review_rate else None
        if proven is not None and self.region_limit < proven:
            note = "The region limit was edited: how many good images show regions is not known."
            return self.model_copy(update={"notes": (*self.notes, note)})._without(lost)
        return self._without(lost)

    def _without(self, lost: dict[str, None]) -> Policy:
        if not lost:
            return self
        note = "A limit or rate was edited by hand: its false-alarm rate is not guaranteed."
        notes = (*self._notes_without_promise(), note)
        return self.model_copy(update={**lost, "guaranteed": False, "notes": notes})

    def _notes_without_promise(self) -> tuple[str, ...]:
        """The notes, with the statement of what is proven cut down to where limits come from."""
        return tuple(
            note.split(". ")[0] + "." if note.startswith(_LEARNED) else note for note in self.notes
        )

    def _breaks(self, limit: float | None, rate: float | None) -> bool:
        if limit is None or rate is None:
            return False
        proven = conformal_limit(self.scores, rate)
        return proven is None or limit < proven

    def _with_rate(self, rate: float, text: str) -> Policy:
        scores = self._good_scores(text)
        check_provable(rate, len(scores), "false-alarm rate")
        return self._with_limit(conformal_limit(scores, rate), rate, text)

    def _with_quantile(self, quantile: float, text: str) -> Policy:
        if not 0 <= quantile <= 1:
            raise PolicyError(f"threshold {text!r}: a quantile lies between 0 and 1.")
        scores = self._good_scores(text)
        # The upper of the two neighbouring scores. Its rank does not depend on the scores, so
        # the conformal guarantee holds at this rank's rate.
        index = math.ceil(quantile * (len(scores) - 1) - 1e-9)
        rate = (len(scores) - index) / (len(scores) + 1)
        return self._with_limit(scores[index], rate, text)

    def _with_factor(self, factor: float, text: str) -> Policy:
        limit = self.limits.defect
        if limit is None or limit <= 0:
            raise PolicyError(
                f"threshold {text!r} is relative to the defect limit, which is {limit} here: "
                "a share of it has no meaning. Give a raw score instead."
            )
        if not factor > 0:
            raise PolicyError(f"threshold {text!r}: the factor must be positive.")
        # A higher limit raises no more alarms than the one that was proven.
        return self._with_limit(limit * factor, self.false_alarms if factor >= 1 else None, text)

    def _with_limit(self, limit: float | None, rate: float | None, text: str) -> Policy:
        unsure = self.limits.unsure
        if not self.calibrated:
            unsure = limit  # nothing was learned that could tell unsure from good
        elif unsure is not None and limit is not None:
            unsure = min(unsure, limit)
        review = self.review_rate
        if unsure != self.limits.unsure:  # the two limits are one now
            review = rate
        note = f"Defect limit replaced by {text!r}."
        if self.calibrated and limit is not None:
            above = len(self.scores) - bisect.bisect_right(self.scores, limit)
            note += f" {above} of the {len(self.scores)} good images lie above it."
        return self.model_copy(
            update={
                "limits": Limits(unsure=unsure, defect=limit),
                "guaranteed": self.guaranteed and rate is not None,
                "false_alarms": rate,
                "review_rate": review,
                "notes": (*self._notes_without_promise(), note),
            }
        )

    def _good_scores(self, text: str) -> tuple[float, ...]:
        if not self.calibrated:
            raise PolicyError(
                f"threshold {text!r} needs the scores of good images, and this run is not "
                "calibrated. Run 'zerodefect calibrate' on good parts, or give a raw score."
            )
        return self.scores


def calibrate(
    scores: Iterable[float],
    map_maxima: Iterable[float],
    *,
    method: str,
    fingerprint: str,
    object: str | None,
    form: Literal["split", "leave-one-out"] = "split",
    false_alarms: float | None = None,
    review_rate: float | None = None,
    monotone: bool = False,
    map_range: tuple[float, float] = (-math.inf, math.inf),
    notes: Sequence[str] = (),
) -> Policy:
    """Learn the limits from good images.

    Args:
        scores: raw image scores of n >= 1 good images.
        map_maxima: highest raw map value of the same images.
        method: name of the method.
        fingerprint: of the detector, as it will be used.
        object: product name, or None.
        form: "split": the detector never saw these images; "leave-one-out": each was scored with
            the others as references.
        false_alarms: guaranteed share of good images called "defect". None: 1 %, or the smallest
            provable one if that is larger.
        review_rate: guaranteed share of good images called "unsure" or "defect", and of good
            images that show any region. None: 5 %, or what ``false_alarms`` and n make of it.
        monotone: the detector's scores and maps can only fall when a reference is added (matters
            for "leave-one-out" only; see the module's text).
        map_range: lowest and highest value that a map can take; colours stay inside.
        notes: put in front of the policy's own notes.

    Raises:
        CalibrationError: no scores, a score that is not finite, or a rate that n images cannot
            guarantee; the message says what they can, and how many the rate needs.
    """
    scores, map_maxima = _checked(scores, "scores"), _checked(map_maxima, "map maxima")
    n = len(scores)
    if len(map_maxima) != n:
        raise CalibrationError(f"{n} scores but {len(map_maxima)} map maxima.")
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
    region_limit = conformal_limit(map_maxima, review_rate)
    assert region_limit is not None  # the review rate was checked to be provable
    guaranteed = form == "split" or monotone
    return Policy(
        method=method,
        fingerprint=fingerprint,
        object=object,
        form=form,
        guaranteed=guaranteed,
        false_alarms=false_alarms,
        review_rate=review_rate,
        scores=tuple(scores),
        map_maxima=tuple(map_maxima),
        limits=Limits(
            unsure=conformal_limit(scores, review_rate),
            defect=conformal_limit(scores, false_alarms),
        ),
        region_limit=region_limit,
        colour_range=_colour_range(map_maxima, region_limit, map_range),
        notes=(*notes, _statement(n, form, false_alarms, guaranteed)),
    )


def _statement(n: int, form: Form, rate: float, guaranteed: bool) -> str:
    """Say in words what the calibration proves."""
    how = "" if form == "split" else ", each scored with the others as references"
    images = "1 good image" if n == 1 else f"{n} good images"
    text = f"{_LEARNED} {images}{how}. "
    share = f"{100 * rate:.3g} %"
    if guaranteed:
        return text + f"At most {share} of good images like these are called defective."
    return text + (
        f"About {share} of good images like these should be called defective, but this is not "
        "guaranteed: with this method adding references may raise scores. Calibrate on good "
        "images that are not references for a guarantee."
    )


def _colour_range(
    map_maxima: Sequence[float], region_limit: float, map_range: tuple[float, float]
) -> tuple[float, float]:
    """From the good images' median to as far above the region limit as the median lies below.

    The upper end is at most the highest value that a map can take, if that lies above the limit.
    """
    ordered = sorted(map_maxima)
    middle = len(ordered) // 2
    median = 0.5 * (ordered[middle] + ordered[~middle])
    # Few or equal maxima put the median onto the limit, or above it: any width will do then.
    tiny = 1e-3 * abs(region_limit) or 1e-3
    half = region_limit - median
    if half < tiny:
        half = max(ordered[-1] - median, 50 * tiny)
    high = region_limit + half
    if region_limit < map_range[1] < high:
        high = map_range[1]
    return region_limit - half, high


def _rank(rate: float, n: int) -> int:
    """k = floor(rate (n + 1)), at most n; 0 where no limit is provable."""
    # The allowance makes 0.29 * 100 = 28.999999999999996 count as 29.
    return min(math.floor(rate * (n + 1) + 1e-9), n)


def _p_value(ascending: Sequence[float], score: float) -> float:
    _check_number(score)
    n = len(ascending)
    return (1 + n - bisect.bisect_left(ascending, score)) / (n + 1)


def _checked(values: Iterable[float], name: str) -> list[float]:
    numbers = sorted(float(value) for value in values)
    if not numbers:
        raise CalibrationError("no good image to learn from. Give at least one.")
    if not all(math.isfinite(number) for number in numbers):
        raise CalibrationError(f"the {name} of the good images hold NaN or infinity.")
    return numbers


def _check_rate(rate: float, name: str) -> None:
    if not 0 < rate < 1:
        raise CalibrationError(f"the {name} must lie between 0 and 1, got {rate:g}.")


def _check_number(score: float) -> None:
    if math.isnan(score):
        raise ValueError("the score is NaN")


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number")


def _first_reason(error: ValidationError) -> str:
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    reason = first["msg"].removeprefix("Value error, ")
    return f"{place}: {reason}" if place else reason

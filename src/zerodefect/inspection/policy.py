"""A policy: the limits in force, what they were learned from, and the file that carries both."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)

from zerodefect.files import atomic_write
from zerodefect.inspection.allowances import Allowances, all_allowed
from zerodefect.inspection.conformal import (
    REMEDY,
    USUAL_CONFIDENCE,
    PolicyError,
    confident_rate,
    p_value,
)
from zerodefect.inspection.frames import FrameRange
from zerodefect.inspection.limit_changes import with_proven_rates, with_threshold
from zerodefect.inspection.made_with import what_differs
from zerodefect.inspection.part_pictures import Parts
from zerodefect.types import Region, Verdict
from zerodefect.version import __version__

FORMAT: Final = "zerodefect-policy"
VERSION: Final = 1

_REMEDY = "Run 'zerodefect calibrate' again or give another policy file."

Form = Literal["split", "leave-one-out", "none"]

# not in the first files: left out where nothing is known
_LATER = ("confidence", "frames", "made_with", "allowances", "parts")


class PolicyMismatch(PolicyError):  # noqa: N818 - says what it is
    """The policy was learned for another detector or product."""


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

    A section of the file (an object) has a version of its own. What a later program adds to it, or
    beside it as a section with a version, is passed over; a section in a later version is refused.

    The file may be edited by hand: verdicts follow ``limits``, p-values follow ``scores``. A rate
    that a lowered limit no longer keeps is taken back when the file is loaded. Scores that are NaN
    get no verdict and no p-value, but a ValueError.

    Attributes:
        method: name of the method whose scores these are.
        fingerprint: the detector's weights, prompts and settings in one string.
        object: product name, or None.
        bit_depth: bits that 16-bit pictures use; None where there was none.
        form: how the good images were scored; "none" marks a provisional, uncalibrated policy.
        guaranteed: whether the stated rates are proven for good images like those calibrated on.
        false_alarms: largest share of good images with the verdict "defect", on average over
            calibrations; None if not known.
        review_rate: largest share of good images with the verdict "unsure" or "defect", on average,
            whether for their score or their frame.
        confidence: with which ``confident_rate`` was asked for; None if it was not.
        scores: raw image scores of the good images, ascending.
        map_maxima: highest map value of each good image, ascending; empty without maps.
        limits: raw image scores above which the verdict is "unsure" and "defect".
        region_limit: raw map value above which a pixel belongs to a region; None without maps.
        colour_range: raw map values at the two ends of the colour scale; None without maps.
        frames: light and focus outside which a picture is "unsure"; None where none was learned.
        made_with: what decided the scores, to say what differs where the policy does not fit.
        allowances: regions that the user allows; None: none.
        parts: of parts with several pictures: scores, maxima and rates are then those of parts, not
            of images. None: each image stands for itself.
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
    bit_depth: int | None = Field(default=None, ge=8, le=16)
    form: Form
    guaranteed: bool = False
    false_alarms: float | None = Field(default=None, gt=0, lt=1)
    review_rate: float | None = Field(default=None, gt=0, lt=1)
    confidence: float | None = Field(default=None, gt=0, lt=1)
    scores: tuple[float, ...] = ()
    map_maxima: tuple[float, ...] = ()
    limits: Limits
    region_limit: float | None
    colour_range: tuple[float, float] | None
    frames: FrameRange | None = None
    made_with: dict[str, Any] | None = None
    allowances: Allowances | None = None
    parts: Parts | None = None
    created: str = Field(
        default_factory=lambda: datetime.now(timezone.utc).isoformat(timespec="seconds")
    )
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
        if self.colour_range and not self.colour_range[0] < self.colour_range[1]:
            raise ValueError(f"colour_range {list(self.colour_range)} does not rise")
        if self.calibrated and not self.scores:
            raise ValueError(f"form {self.form!r} needs scores of good images")
        if self.map_maxima and len(self.scores) != len(self.map_maxima):
            raise ValueError(
                f"{len(self.scores)} scores but {len(self.map_maxima)} map_maxima; they come in "
                "pairs, one of each per good image"
            )
        maps = [self.region_limit is not None, self.colour_range is not None]
        if self.calibrated:
            maps.append(bool(self.map_maxima))
        if any(maps) and not all(maps):
            raise ValueError(
                "map_maxima, region_limit and colour_range come together; a method without maps "
                "has none of them"
            )
        if self.parts and sum(self.parts.pictures.values()) != len(self.scores):
            raise ValueError(f"parts.pictures does not count the {len(self.scores)} scored parts")
        if self.guaranteed and not self.calibrated:
            raise ValueError("guaranteed is true, but form 'none' proves nothing")
        return self

    @model_serializer(mode="wrap")
    def _as_first_files(self, told: SerializerFunctionWrapHandler) -> dict[str, Any]:
        data = told(self)
        return {k: v for k, v in data.items() if k not in _LATER or v is not None}

    @classmethod
    def provisional(
        cls,
        *,
        method: str,
        fingerprint: str,
        object: str | None,
        neutral: float | None,
        map_range: tuple[float, float] | None,
        region_limit: float | None,
        remedy: str = REMEDY,
    ) -> Policy:
        """Make the policy of an uncalibrated run; its verdicts are provisional.

        Args:
            method, fingerprint, object: as in ``Policy``.
            neutral: raw image score at which the detector leans neither way; above it the verdict
                is "defect", else "good". None: the detector knows none, the verdict is always
                "unsure".
            map_range, region_limit: ``colour_range`` and ``region_limit`` of ``Policy``.
            remedy: what makes real verdicts of provisional ones.
        """
        return cls(
            method=method,
            fingerprint=fingerprint,
            object=object,
            form="none",
            limits=Limits(unsure=neutral, defect=neutral),
            region_limit=region_limit,
            colour_range=map_range,
            notes=("Not calibrated: verdicts and regions are provisional.", remedy),
        )

    @property
    def unit(self) -> str:
        """What was scored: an "image", or a "part" of several."""
        return "part" if self.parts else "image"

    def told(self) -> tuple[str, ...]:
        """What the reader should know: the notes, and what is allowed."""
        return (*self.notes, *([self.allowances.sentence()] if self.allowances else []))

    @property
    def calibrated(self) -> bool:
        """Whether the limits were learned from good images."""
        return self.form != "none"

    @property
    def confident_rate(self) -> float | None:
        """Largest share of good images called "defect" that holds with ``confidence`` (or 90 %).

        None where it is not proven: other forms than "split", limits set by hand.
        """
        if not self.guaranteed or self.form != "split" or self.false_alarms is None:
            return None
        confidence = self.confidence or USUAL_CONFIDENCE
        return confident_rate(self.false_alarms, len(self.scores), confidence)

    def verdict(self, score: float, regions: Sequence[Region] = ()) -> Verdict:
        """Judge a raw image score by the limits.

        Args:
            score: of the image.
            regions: of the image, as ``marked`` gives them: where all are allowed the verdict is
                that of the lowest score.
        """
        if math.isnan(score):
            raise ValueError("the score is NaN")
        if all_allowed(regions):
            score = -math.inf
        if self.limits.defect is not None and score > self.limits.defect:
            return "defect"
        if self.limits.unsure is None or score > self.limits.unsure:
            return "unsure"
        return "good"

    def p_value(self, score: float) -> float | None:
        """Conformal p-value in (0, 1] of "this is a good part", or None without calibration."""
        return p_value(self.scores, score) if self.calibrated else None

    def region_p_value(self, score: float) -> float | None:
        """Conformal p-value in (0, 1] of a raw map value against the good images' maxima.

        None without calibration, and for a method without maps.
        """
        return p_value(self.map_maxima, score) if self.calibrated and self.map_maxima else None

    def marked(self, regions: Sequence[Region]) -> tuple[Region, ...]:
        """The regions of an image, each with the rule that allows it, if one does."""
        return self.allowances.marked(regions) if self.allowances else tuple(regions)

    def allowing(self, rules: Iterable[str]) -> Policy:
        """The same policy with other allowances in place of its own.

        Args:
            rules: as in ``allowances``; the rule ``none`` takes all back.

        Raises:
            PolicyError: a rule that is not understood.
        """
        return self.model_copy(update={"allowances": Allowances.of(rules)})

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
        return with_threshold(self, text)

    def save(self, path: str | Path) -> None:
        """Write the policy as JSON; a file of that name is replaced in one step.

        Raises:
            StoreError: the operating system refused to write.
        """
        with atomic_write(Path(path)) as file:
            file.write(self.to_bytes() + b"\n")

    def to_bytes(self) -> bytes:
        """As JSON."""
        return json.dumps(self.model_dump(mode="json"), indent=2, allow_nan=False).encode()

    @classmethod
    def load(cls, path: str | Path) -> Policy:
        """Read a policy file.

        Raises:
            PolicyError: the file is missing, damaged, of another kind or of a newer version; the
                message names file, reason and remedy.
        """
        try:
            data = Path(path).read_bytes()
        except OSError as error:
            raise PolicyError(f"{path}: cannot be read ({error.strerror}). {_REMEDY}") from error
        return cls.from_bytes(data, path)

    @classmethod
    def from_bytes(cls, text: bytes, path: str | Path) -> Policy:
        """Read what ``to_bytes`` gives; ``path`` and errors as of ``load``."""
        remedy = _REMEDY
        try:
            # Editors on Windows put a byte order mark in front.
            data = json.loads(text.decode("utf-8-sig"), parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            raise PolicyError(f"{path}: not valid JSON, or cut off ({error}). {remedy}") from error
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise PolicyError(f"{path}: not a ZeroDefect policy. {remedy}")
        sections = {name: value for name, value in data.items() if isinstance(value, dict)}
        later = [n for n in sections if n not in cls.model_fields and "version" in sections[n]]
        for name, section in {"policy": data, **sections}.items():
            version = section.get("version")
            if isinstance(version, int) and version > VERSION and name not in later:
                raise PolicyError(
                    f"{path}: written in {name} version {version}, this program reads up to "
                    f"version {VERSION}. Update ZeroDefect, or calibrate again with this version."
                )
        known = {name: value for name, value in data.items() if name not in later}
        try:
            # versions that do not name a bit depth read 16-bit pictures as they were
            policy = cls.model_validate({"bit_depth": 16, **known})
        except ValidationError as error:
            raise PolicyError(
                f"{path}: {_first_reason(error)}. Correct it, or: {remedy}"
            ) from error
        told = [f"Of a later version of ZeroDefect, and not used: {', '.join(later)}."]
        notes = (*policy.notes, *(told if later else ()))
        return with_proven_rates(policy.model_copy(update={"notes": notes}))

    def check(
        self,
        method: str,
        fingerprint: str,
        object: str | None,
        made_with: Mapping[str, Any] | None = None,
        bit_depth: int | None = None,
    ) -> None:
        """Make sure that the policy belongs to this detector and product.

        Args are of the present run. Bit depths are compared where both are known.

        Raises:
            PolicyMismatch: it does not; the message names every difference and the remedy.
        """
        facts: tuple[tuple[str, Any, Any], ...] = (
            ("method", self.method, method),
            ("object", self.object, object),
        )
        if None not in (self.bit_depth, bit_depth):
            facts += (("bit depth (--bit-depth)", self.bit_depth, bit_depth),)
        different = [f"{n}: {a!r} when calibrated, {b!r} now" for n, a, b in facts if a != b]
        if self.fingerprint != fingerprint:
            both = f"{self.fingerprint!r} when calibrated, {fingerprint!r} now"
            unknown = f"detector (weights, prompts or settings): {both}"
            different += self._what_differs(made_with or {}) or [unknown] * (not different)
        if different:
            raise PolicyMismatch(
                f"the policy does not fit this run: {'; '.join(different)}. Scores of different "
                "detectors do not compare: use the options the policy was calibrated with, or run "
                "'zerodefect calibrate' with the present ones."
            )

    def _what_differs(self, now: Mapping[str, Any]) -> list[str]:
        # of former files only those tell of references that left them out in turn
        left_out = {"references": len(self.scores)} if self.form == "leave-one-out" else None
        before = self.made_with or left_out
        return what_differs(before, now) if before and now else []


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number")


def _first_reason(error: ValidationError) -> str:
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    reason = first["msg"].removeprefix("Value error, ")
    return f"{place}: {reason}" if place else reason

"""What share of drawn damage was found, by kind, size and contrast; and how it is told."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from scipy.special import betaincinv

FORMAT: Final = "zerodefect-power"
VERSION: Final = 1

CONFIDENCE: Final = 0.9
"""Of the intervals that stand beside shares."""

Origin = Literal["held out", "left out", "mirrored"]

_ORIGINS: dict[Origin, str] = {
    "held out": "that are no references",
    "left out": "that are references, each left out of the memory when it was drawn on",
    "mirrored": "that are the mirror images of the only reference",
}
_NAMES = {  # of one, of several, and what their size is
    "scratch": ("scratch", "scratches", "wide"),
    "crack": ("crack", "cracks", "wide"),
    "stain": ("stain", "stains", "across"),
    "contamination": ("particle", "particles", "across"),
}
_MOSTLY, _HALF = 0.9, 0.5
_ENOUGH = 5  # pictures from which on a sentence speaks of a cell


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Share(_Frozen):
    """How many of those drawn were found.

    Attributes:
        drawn, found: pictures.
    """

    drawn: int = Field(default=0, ge=0)
    found: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _consistent(self) -> Share:
        if self.found > self.drawn:
            raise ValueError(f"{self.found} found of {self.drawn} drawn")
        return self

    @property
    def share(self) -> float | None:
        """In [0, 1]; None where nothing was drawn."""
        return self.found / self.drawn if self.drawn else None

    @property
    def interval(self) -> tuple[float, float]:
        """Where the share lies with ``CONFIDENCE`` (Clopper and Pearson, Biometrika 1934).

        Exact for pictures drawn independently; all of [0, 1] where nothing was drawn.
        """
        k, n, tail = self.found, self.drawn, (1 - CONFIDENCE) / 2
        low = float(betaincinv(k, n - k + 1, tail)) if k else 0.0
        high = float(betaincinv(k + 1, n - k, 1 - tail)) if k < n else 1.0
        return low, high


class Cell(Share):
    """A share, and of which damage.

    Attributes:
        kind: of ``SIZED_KINDS``.
        size: pixels of the user's picture, see ``sized_damage``.
        contrast: percent of the grey range, against the surface that it lies on.
    """

    kind: str
    size: int = Field(gt=0)
    contrast: float = Field(gt=0, lt=100)

    def told(self) -> str:
        """The share with its numbers and interval, in one cell of a table."""
        if self.share is None:
            return "not measured"
        low, high = self.interval
        return (
            f"{100 * self.share:.0f} % ({self.found} of {self.drawn}; "
            f"{100 * low:.0f}-{100 * high:.0f} %)"
        )


class PowerCurve(_Frozen):
    """Which share of drawn damage an inspector found at its limits.

    *Found* means: the verdict is not good, and a region meets the damage; of a method without maps
    the verdict alone counts (``located`` is false).

    Attributes:
        method, fingerprint, object: of the inspector.
        calibrated: whether its limits were learned from good pictures.
        unsure_limit, region_limit: raw limits by which it was found or not.
        pictures: good pictures that damage was drawn on.
        origin: which they were: never as the memory holds them.
        located: whether regions had to meet the damage.
        cells: of the whole design; ``drawn`` is 0 where time did not suffice.
        undamaged: good pictures as they are, and how many of them were not called good.
        seconds: allowed time.
        seed: of all draws.
    """

    format: Literal["zerodefect-power"] = FORMAT
    version: Literal[1] = VERSION
    method: str
    fingerprint: str
    object: str | None = None
    calibrated: bool
    unsure_limit: float | None
    region_limit: float | None
    pictures: int = Field(ge=1)
    origin: Origin
    located: bool
    cells: tuple[Cell, ...]
    undamaged: Share
    seconds: float = Field(ge=0)
    seed: int = Field(ge=0)

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return self.model_dump(mode="json")

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> PowerCurve:
        """The curve of ``as_dict``.

        Raises:
            ValueError: it is none, damaged, or of a newer version; one line.
        """
        remedy = "Measure it again (zerodefect calibrate --power 60s)"
        if not isinstance(data, Mapping) or data.get("format") != FORMAT:
            raise ValueError(f"not a power curve. {remedy}")
        version = data.get("version")
        if isinstance(version, int) and version > VERSION:
            raise ValueError(
                f"a power curve of version {version}, this program reads up to {VERSION}. Update "
                "ZeroDefect"
            )
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            place = ".".join(map(str, first["loc"])) or "power curve"
            raise ValueError(f"a damaged power curve: {place}: {first['msg']}. {remedy}") from None

    def fits(self, fingerprint: str, unsure: float | None, region_limit: float | None) -> bool:
        """Whether it was measured with this detector at these limits; others find other shares."""
        measured = (self.fingerprint, self.unsure_limit, self.region_limit)
        return measured == (fingerprint, unsure, region_limit)

    @property
    def drawn(self) -> int:
        """Damaged pictures that were judged."""
        return sum(cell.drawn for cell in self.cells)

    @property
    def contrasts(self) -> tuple[float, ...]:
        """Of the design, ascending."""
        return tuple(sorted({cell.contrast for cell in self.cells}))

    def rows(self) -> Iterator[tuple[str, int, tuple[Cell, ...]]]:
        """Plain name of the kind, size and a cell for each of ``contrasts``."""
        order = {place: None for cell in self.cells for place in [(cell.kind, cell.size)]}
        cells = {(cell.kind, cell.size, cell.contrast): cell for cell in self.cells}
        for kind, size in order:
            yield _one(kind), size, tuple(cells[kind, size, one] for one in self.contrasts)

    def table(self) -> list[list[str]]:
        """Rows of text, the first of them the heading: kind, size, a column per contrast."""
        heading = ["damage", "size", *(f"{one:g} % contrast" for one in self.contrasts)]
        return [heading] + [
            [kind, f"{size} px", *(cell.told() for cell in cells)]
            for kind, size, cells in self.rows()
        ]

    def sentences(self) -> list[str]:
        """What was done, then per kind and contrast which sizes were found."""
        if not self.drawn:
            return [
                "Which damage would be found was not measured: the time allowed "
                f"({self.seconds:g} s) was over before the first picture."
            ]
        return [self._what_was_done(), *self._of_kinds(), *self._not_measured()]

    def _of_kinds(self) -> Iterator[str]:
        for kind in dict.fromkeys(cell.kind for cell in self.cells):
            for contrast in self.contrasts:
                own = [c for c in self.cells if (c.kind, c.contrast) == (kind, contrast)]
                if measured := [cell for cell in own if cell.drawn]:
                    yield _of_sizes(kind, contrast, measured)

    def _not_measured(self) -> Iterator[str]:
        missing: dict[tuple[str, ...], list[str]] = {}
        for contrast in self.contrasts:
            measured = {c.kind for c in self.cells if c.contrast == contrast and c.drawn}
            rest = dict.fromkeys(cell.kind for cell in self.cells if cell.kind not in measured)
            if rest:
                missing.setdefault(tuple(rest), []).append(f"{contrast:g} %")
        for kinds, contrasts in missing.items():
            names = _listed([_several(kind) for kind in kinds])
            yield f"Not measured, for lack of time: {names} of {_listed(contrasts)} contrast."

    def _what_was_done(self) -> str:
        pictures = f"{self.pictures} good picture{'s' * (self.pictures != 1)}"
        found = "the verdict is not good" + (" and a region meets it" if self.located else "")
        limits = "" if self.calibrated else " by provisional limits"
        text = (
            f"Damage was drawn {self.drawn:,} times onto {pictures} {_ORIGINS[self.origin]}; it "
            f"counts as found where {found}{limits}. Drawn damage is not real damage."
        )
        if not self.undamaged.drawn:
            return text
        n, alarms = self.undamaged.drawn, self.undamaged.found
        return f"{text} Undamaged, {alarms} of {n} were not called good."


def _of_sizes(kind: str, contrast: float, measured: list[Cell]) -> str:
    """One sentence: the smallest sizes found in nine and in five of ten, and what was not seen."""
    across = _NAMES[kind][2] if kind in _NAMES else "large"
    begin = f"{_several(kind).capitalize()} of {contrast:g} % contrast: "
    cells = sorted((c for c in measured if c.drawn >= _ENOUGH), key=lambda cell: cell.size)
    if not cells:
        drawn, found = sum(c.drawn for c in measured), sum(c.found for c in measured)
        return f"{begin}too few pictures to tell ({found} of {drawn} found)."
    parts = []
    for share in (_MOSTLY, _HALF):
        first = _smallest(cells, share)
        if first is not None:
            percent = f"at least {100 * share:.0f} % found"
            parts.append(f"{percent} from {first.size} px {across} on ({_numbers(first)})")
            cells = [cell for cell in cells if cell.size < first.size]
    seen = any(cell.found for cell in cells)
    if cells:
        what = "fewer found" if seen else "not seen"
        parts.append(f"{what} up to {cells[-1].size} px ({_numbers(cells[-1])})")
    return begin + "; ".join(parts) + "."


def _smallest(cells: list[Cell], share: float) -> Cell | None:
    """The smallest size from which on all sizes reach a share."""
    first = None
    for cell in reversed(cells):
        if (cell.share or 0.0) < share:
            break
        first = cell
    return first


def _numbers(cell: Cell) -> str:
    return f"{cell.found} of {cell.drawn}"


def _listed(words: list[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if words[1:] else words)


def _one(kind: str) -> str:
    return _NAMES[kind][0] if kind in _NAMES else kind


def _several(kind: str) -> str:
    return _NAMES[kind][1] if kind in _NAMES else kind

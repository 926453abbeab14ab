"""Names of the methods and what is to be known of each before it is built."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

if TYPE_CHECKING:
    from zerodefect.backbones.clip_weights import Backbone
    from zerodefect.detector.contract import Detector

Knowledge = Literal["words", "references", "set", "training"]


@dataclass(frozen=True)
class Figure:
    """One published figure, never ours.

    Attributes:
        data: data set.
        setting: "0-shot", "1-shot", ...
        metric: "image AUROC", "pixel AUROC", ...
        value: in percent.
        source: where it was published.
    """

    data: str
    setting: str
    metric: str
    value: float
    source: str


def published_table(
    source: str, setting: str, metrics: Sequence[str], values: Mapping[str, Sequence[float]]
) -> tuple[Figure, ...]:
    """Figures of a published table: per data set one value for each of ``metrics``."""
    return tuple(
        Figure(data, setting, metric, value, source)
        for data, row in values.items()
        for metric, value in zip(metrics, row, strict=True)
    )


@dataclass(frozen=True)
class MethodInfo:
    """Facts about a method.

    Attributes:
        name: registered name.
        title: as the paper calls it.
        school: stream of the field (prompt, adapter, assembly, baseline, other).
        knows_from: what it can learn normality from.
        paper: citation with arXiv number or venue.
        code_licence: licence of the authors' code, or what there is instead.
        parity: which implementation our numbers are proven against.
        figures: published figures with their source.
        completion: whether parts are ours because what is public does not say them.
    """

    name: str
    title: str
    school: str
    knows_from: tuple[Knowledge, ...]
    paper: str
    code_licence: str
    parity: str
    figures: tuple[Figure, ...] = ()
    completion: bool = False


@dataclass(frozen=True)
class Entry:
    """A registered class with its facts."""

    info: MethodInfo
    detector: type[Detector]


_ENTRIES: dict[str, Entry] = {}
_D = TypeVar("_D", bound="type[Detector]")


def register(info: MethodInfo) -> Callable[[_D], _D]:
    """Class decorator: make a detector known under ``info.name``.

    Raises:
        ValueError: another class has that name already.
    """

    def decorate(detector: _D) -> _D:
        known = _ENTRIES.get(info.name)
        if known and known.detector.__qualname__ != detector.__qualname__:
            raise ValueError(f"two methods are named {info.name!r}")
        detector.info = info
        _ENTRIES[info.name] = Entry(info, detector)
        return detector

    return decorate


def names() -> list[str]:
    """All registered names, sorted."""
    return sorted(_ENTRIES)


def get(name: str) -> Entry:
    """Look a method up.

    Raises:
        ValueError: no method has that name; similar names are suggested.
    """
    if name not in _ENTRIES:
        close = difflib.get_close_matches(name.lower(), _ENTRIES, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"unknown method {name!r}.{hint} Known: {', '.join(names())}")
    return _ENTRIES[name]


def create(name: str, backbone: Backbone, **options: Any) -> Detector:
    """Build a method on a backbone; options are fields of its configuration.

    Raises:
        ValueError: unknown method or option, or a value the method refuses.
    """
    return get(name).detector.build(backbone, **options)

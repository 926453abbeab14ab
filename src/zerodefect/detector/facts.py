"""What is to be known of a method before it is built."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Source = Literal["words", "references", "set", "training", "good"]
"""Where normality is known from: the product's name; a few or many normal images; the other images
of a set; other products' labelled defects; normal images that the method is trained on."""

BackboneKind = Literal["clip", "features", "vit", "segmenter", "grounder", "chat"]
"""Two towers; layers of any network (convolutional where none is named); those of a ViT; points and
boxes to masks (``backbones/segmenter.py``); phrases to boxes (``backbones/grounder.py``); pictures
and questions to answers (``backbones/chat_model.py``)."""

JOIN = "+"
"""Between the names of methods that judge together."""


@dataclass(frozen=True)
class Thorough:
    """What a method does with several times the time of its usual setting.

    Attributes:
        larger: side of the input over the usual one.
        options: hyper-parameters that change, made of the usual ones.
    """

    larger: float
    options: Callable[[Any], dict[str, Any]]


@dataclass(frozen=True)
class Figure:
    """One published figure, never ours."""

    data: str  # data set
    setting: str  # "0-shot", "1-shot", ...
    metric: str  # "image AUROC", "pixel AUROC", ...
    value: float  # in percent
    source: str  # where it was published


def published_table(
    source: str, setting: str, metrics: Sequence[str], values: Mapping[str, Sequence[float | None]]
) -> tuple[Figure, ...]:
    """Figures of a published table: per data set one value, or None, for each of ``metrics``."""
    return tuple(
        Figure(data, setting, metric, value, source)
        for data, row in values.items()
        for metric, value in zip(metrics, row, strict=True)
        if value is not None
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
        experimental: of a method of which next to nothing is public, what that is and what is ours;
            it may change or go. Empty for all others.
        optional: sources that it can do without.
        backbones: pretrained networks that it is built on, by name, in the order in which its
            constructor takes them.
        spare: those of them that it can do without: it has them where they are named.
        judging: those of them that only judging asks: what is learned does not hang on them, and
            training and the authors' files are read without them.
    """

    name: str
    title: str
    school: str
    knows_from: tuple[Source, ...]
    paper: str
    code_licence: str
    parity: str
    figures: tuple[Figure, ...] = ()
    completion: bool = False
    experimental: str = ""
    optional: tuple[Source, ...] = ()
    backbones: Mapping[str, BackboneKind] = field(default_factory=lambda: {"clip": "clip"})
    spare: tuple[str, ...] = ()
    judging: tuple[str, ...] = ()

    @property
    def needs(self) -> tuple[Source, ...]:
        """Sources without which it says nothing."""
        return tuple(source for source in self.knows_from if source not in self.optional)

    @property
    def networks(self) -> tuple[str, ...]:
        """Names of the networks that it is always built on, and that learned values hang on."""
        beside = (*self.spare, *self.judging)
        return tuple(name for name in self.backbones if name not in beside)

    @property
    def trained(self) -> bool:
        """Whether it has learned values, which come from a checkpoint."""
        return not {"training", "good"}.isdisjoint(self.knows_from)


def joint_info(parts: Sequence[MethodInfo]) -> MethodInfo:
    """Facts of a combination. Parts that need references are silent without, if others speak."""
    sources = dict.fromkeys(source for info in parts for source in info.knows_from)
    needed = {source for info in parts for source in info.needs} - {"references"}
    if all("references" in info.needs for info in parts):
        needed.add("references")
    return MethodInfo(
        name=JOIN.join(info.name for info in parts),
        title=" and ".join(info.title for info in parts),
        school="combination",
        knows_from=tuple(sources),
        optional=tuple(source for source in sources if source not in needed),
        paper="; ".join(info.paper for info in parts),
        code_licence="; ".join(dict.fromkeys(info.code_licence for info in parts)),
        parity="each part by itself; the combination is ours",
        backbones={
            f"{info.name}.{part}": kind for info in parts for part, kind in info.backbones.items()
        },
    )

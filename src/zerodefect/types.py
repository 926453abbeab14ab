"""The few plain records that travel between rooms. This file imports nothing of the project."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    import torch

    Inputs = torch.Tensor | Mapping[str, torch.Tensor]
    """Prepared images ``(B, 3, H, W)``; by name where a detector takes several of a picture."""

Verdict = Literal["good", "unsure", "defect"]


def told_score(score: float) -> str:
    """A score for people: four decimals, of small ones as many as make three digits."""
    if score == 0 or not abs(score) < 0.01:
        return f"{score:.4f}"
    return (
        f"{score:.{2 - math.floor(math.log10(abs(score)))}f}"
        if abs(score) > 1e-9
        else f"{score:.3g}"
    )


def told_size(sizes: Any) -> str:
    """``(height, width)`` in words, of several by name."""
    if hasattr(sizes, "items"):
        return ", ".join(f"{name} {told_size(size)}" for name, size in sizes.items())
    return f"{sizes[1]} x {sizes[0]} pixels"


# Control characters, separators of lines, signs that turn the direction of writing around, and
# halves of characters, which stand for bytes of a name that are no text.
_ACTING = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]"
)


def printable(text: object, *, lines: bool = False) -> str:
    """Text for a terminal or a page: what could act on it, or fake a line, stands as ``\\u001b``.

    The names of files hold anything. Letters of all scripts and emoji stay.

    Args:
        text: anything with words; its ``str`` is shown.
        lines: whether the text may run over several lines.
    """
    kept = "\n" if lines else ""
    return _ACTING.sub(lambda m: m[0] if m[0] == kept else f"\\u{ord(m[0]):04x}", str(text))


@dataclass(frozen=True)
class Prediction:
    """What a detector says of one batch of images; raw, never rescaled per image.

    Attributes:
        score: ``(B,)`` image anomaly score; higher is more anomalous. The detector documents
            its range.
        map: ``(B, H, W)`` anomaly map at the network's input size, higher is more anomalous; None
            where the method does not say where.
        type_map: ``(B, T, H, W)`` score per defect kind and pixel, where the method can tell kinds
            apart; over the T axis it is a distribution (non-negative, sums to one).
        answer: what the model says of each of the B images, one sentence each, where it has words.
        embedding: ``(B, D)`` of the whole images, where a set-level step compares those.
    """

    score: torch.Tensor
    map: torch.Tensor | None
    type_map: torch.Tensor | None = None
    answer: tuple[str, ...] | None = None
    embedding: torch.Tensor | None = None


@dataclass(frozen=True)
class TrainingBatch:
    """Labelled images that a trainable method learns from, as the training engine hands them over.

    Attributes:
        images: ``(B, 3, H, W)``, prepared as the detector's ``inputs`` say; several by name.
        masks: ``(B, H, W)`` float32, 1 where anomalous and 0 elsewhere, at the first input's size.
        labels: ``(B,)`` int64, 1 for images with a defect, 0 for good ones.
        objects: product name of each image.
        generator: source of every random draw of the loss, on the CPU.
        references: good pictures of each image's product, ``(B, K, 3, H, W)`` or several by name;
            None unless the recipe asks for K of them.
        kinds: of the defect of each image, as its data set calls it; empty where it has none or
            it is not known. No entry at all says nothing of any image.
    """

    images: Any
    masks: torch.Tensor
    labels: torch.Tensor
    objects: tuple[str, ...]
    generator: torch.Generator
    references: Any = None
    kinds: tuple[str, ...] = ()


@dataclass(frozen=True)
class Region:
    """One connected anomalous area of one image, in pixels of the original image.

    Attributes:
        box: ``(x, y, width, height)`` of the smallest upright rectangle, COCO convention.
        mask: boolean array ``(height, width)`` inside the box.
        polygons: outer outlines as flat lists ``[x0, y0, x1, y1, ...]`` (COCO), one or more.
        area: pixels in the mask.
        area_percent: area in percent of the inspected area of the image.
        score: highest raw map value inside the region.
        p_value: share of good images whose highest map value reaches ``score`` (conformal,
            finite-sample), or None without calibration.
        kind: name of the defect kind from the vocabulary, or None where the method cannot tell.
        kind_score: share in [0, 1] that the kind has among all kinds of the vocabulary.
        allowed: the user's rule that allows the region, as it is written; None: none does.
    """

    box: tuple[int, int, int, int]
    mask: np.ndarray
    polygons: tuple[tuple[float, ...], ...]
    area: int
    area_percent: float
    score: float
    p_value: float | None = None
    kind: str | None = None
    kind_score: float | None = None
    allowed: str | None = None


@dataclass(frozen=True)
class Count:
    """How many defects of one kind an image shows, touching ones apart and broken lines joined.

    Attributes:
        kind: name, or None for those whose kind is not known.
        count: the likeliest number; 1 or more.
        low, high: how few and how many they are at other limits; no rate is promised.
    """

    kind: str | None
    count: int
    low: int
    high: int

    def __str__(self) -> str:
        """``3 x scratch (2 to 4)``; the interval where it says more than the number."""
        what = f"{self.count} x {self.kind or 'anomaly'}"
        return what if self.low == self.high else f"{what} ({self.low} to {self.high})"


@dataclass(frozen=True)
class Failure:
    """One file that could not be inspected; the rest of the job goes on.

    Attributes:
        image: path as the user named it.
        reason: what is wrong, in words.
        remedy: what the user can do about it.
    """

    image: str
    reason: str
    remedy: str

    def to_dict(self) -> dict[str, str]:
        """Its fields, as ``Inspection.to_dict`` gives those of an inspection."""
        told = {"reason": self.reason, "remedy": self.remedy}
        return {"image": self.image, "status": "failed", **told}

    def __str__(self) -> str:
        """One line: file, reason, remedy."""
        return f"{printable(self.image)}: {self.reason}. {self.remedy}"

"""What every pretrained network tells of itself, and the grid of its patches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from torch import Tensor

from zerodefect.images import Preprocess


def whole_patches(side: float, patch: int) -> int:
    """The nearest side that is a whole number of patches, at least one; pixels."""
    return max(1, round(side / patch)) * patch


def patch_grid(pixels: Tensor, patch: int) -> tuple[int, int]:
    """Rows and columns of patches of ``(B, 3, H, W)``.

    Raises:
        ValueError: the patch size does not divide the height or width.
    """
    height, width = pixels.shape[-2:]
    if height % patch or width % patch or not height or not width:
        nearest = "x".join(str(whole_patches(side, patch)) for side in (height, width))
        raise ValueError(
            f"input of {height}x{width} px: both sides must be multiples of the patch size {patch} "
            f"(the nearest are {nearest})"
        )
    return height // patch, width // patch


class Backbone(Protocol):
    """A pretrained network with what must travel with its weights."""

    @property
    def name(self) -> str:
        """As the user would name it again."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the weights file, hexadecimal."""

    @property
    def preprocess(self) -> Preprocess:
        """Input size, mean, standard deviation and interpolation of the weights."""

    @property
    def stride(self) -> int:
        """Pixels between neighbouring features; both sides of an input are multiples of it."""

    @property
    def width(self) -> int:
        """Channels of its features."""

    @property
    def precision(self) -> str:
        """Of its weights, as torch names it: ``float32``, ``bfloat16``."""

    @property
    def activation(self) -> str | None:
        """That it runs with, where files of learned values hang on it."""


def network_facts(backbone: Backbone) -> dict[str, Any]:
    """Which weights these are, for whoever has to find them again; plain data.

    ``licence`` and ``file`` are None where the backbone does not tell them.
    """
    licence, file = getattr(backbone, "licence", None), getattr(backbone, "file", None)
    return {
        "name": backbone.name,
        "sha256": backbone.fingerprint,
        "licence": licence,
        "file": None if file is None else str(file),
    }


class LayeredBackbone(Backbone, Protocol):
    """A backbone whose layers are read as maps, whatever it is made of."""

    @property
    def layers(self) -> Mapping[str, int]:
        """Its layers by name, first to last, with the pixels between neighbouring features."""

    def maps(self, pixels: Tensor, names: Sequence[str]) -> list[Tensor]:
        """Outputs of layers.

        Args:
            pixels: ``(B, 3, H, W)``, prepared as ``preprocess`` says; the strides of the layers
                divide H and W.
            names: of ``layers``, in any order.

        Returns:
            One ``(B, C, H / stride, W / stride)`` float32 for each name, in the order of ``names``.
        """


def layers_at(backbone: LayeredBackbone, strides: Sequence[int]) -> tuple[str, ...]:
    """Names of the layers where a method reads a residual network at these strides.

    4, 8, 16 and 32 are the ends of its four stages. Of a network with one stride throughout, such
    as a ViT, they are the blocks at a quarter, half, three quarters and the end of its depth.

    Raises:
        ValueError: no layer with such a stride.
    """
    last = {stride: name for name, stride in backbone.layers.items()}
    if len(last) == 1:
        names, quarters = list(backbone.layers), {4: 1, 8: 2, 16: 3, 32: 4}
        depths = [max(1, (2 * quarters[s] * len(names) + 4) // 8) for s in strides]
        return tuple(dict.fromkeys(names[depth - 1] for depth in depths))
    missing = [stride for stride in strides if stride not in last]
    if missing:
        has = ", ".join(f"{name} ({stride})" for name, stride in backbone.layers.items())
        raise ValueError(
            f"{backbone.name} has no layer of stride {missing[0]}; name layers (--set layers=...): "
            f"it has {has}"
        )
    return tuple(last[stride] for stride in strides)


def check_layers(backbone: LayeredBackbone, names: Sequence[str]) -> None:
    """Make sure that a backbone has such layers.

    Raises:
        ValueError: a name that it does not have.
    """
    unknown = [name for name in names if name not in backbone.layers]
    if unknown:
        has = ", ".join(backbone.layers)
        raise ValueError(f"{backbone.name} has no layer {unknown[0]!r}; it has: {has}")

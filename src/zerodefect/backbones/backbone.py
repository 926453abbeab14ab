"""What every pretrained network tells of itself, and the grid of its patches."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from zerodefect.images import Preprocess


def patch_grid(pixels: Tensor, patch: int) -> tuple[int, int]:
    """Rows and columns of patches of ``(B, 3, H, W)``.

    Raises:
        ValueError: the patch size does not divide the height or width.
    """
    height, width = pixels.shape[-2:]
    if height % patch or width % patch or not height or not width:
        nearest = "x".join(str(max(1, round(side / patch)) * patch) for side in (height, width))
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

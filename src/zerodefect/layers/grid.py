"""The grid of patches that an input is cut into, and the way from their values to a map."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from zerodefect.layers.similarity import upsample


@dataclass(frozen=True)
class Grid:
    """Patches of an input, row by row."""

    rows: int  # of patches
    columns: int
    size: tuple[int, int]  # (height, width) of the input in pixels, which maps are brought to

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.rows, self.columns

    def fold(self, values: Tensor) -> Tensor:
        """Patch values ``(..., N)`` in rows and columns: ``(..., h, w)``."""
        return values.unflatten(-1, self.shape)

    def upsample(self, maps: Tensor, *, align_corners: bool = False) -> Tensor:
        """``(B, h, w)`` or ``(B, T, h, w)`` of any resolution, bilinear at the input's size."""
        return upsample(maps, self.size, align_corners=align_corners)

    def map(self, values: Tensor, *, align_corners: bool = False) -> Tensor:
        """Patch values ``(B, N)`` or ``(B, T, N)`` as maps ``(B, H, W)`` or ``(B, T, H, W)``."""
        return self.upsample(self.fold(values), align_corners=align_corners)

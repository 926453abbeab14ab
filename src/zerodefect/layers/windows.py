"""Windows over a patch grid and the aggregation of their scores (WinCLIP, section 4.1 there)."""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor


def count_windows(grid: tuple[int, int], side: int) -> tuple[int, int]:
    """Rows and columns of top-left corners for square windows of ``side`` patches, stride 1.

    Raises:
        ValueError: the window is larger than the grid.
    """
    rows, columns = grid[0] - side + 1, grid[1] - side + 1
    if side < 1 or rows < 1 or columns < 1:
        raise ValueError(f"no {side}x{side} window fits a grid of {grid[0]}x{grid[1]} patches")
    return rows, columns


@lru_cache(maxsize=32)
def window_patches(grid: tuple[int, int], side: int) -> Tensor:
    """Patch indices of every window, row-major over top-left corners: ``(n, side^2)`` int64."""
    rows, columns = count_windows(grid, side)
    index = torch.arange(grid[0] * grid[1]).reshape(grid)
    corners = index.unfold(0, side, 1).unfold(1, side, 1)
    return corners.reshape(rows * columns, side * side)


def spread(values: Tensor, grid: tuple[int, int], side: int) -> Tensor:
    """Sum, per patch, of the values of the windows that cover it: ``(..., n) -> (..., h, w)``."""
    maps = values.unflatten(-1, count_windows(grid, side))
    flat = maps.reshape(-1, 1, *maps.shape[-2:])
    kernel = torch.ones(1, 1, side, side, dtype=values.dtype, device=values.device)
    return F.conv_transpose2d(flat, kernel).reshape(*maps.shape[:-2], *grid)


def harmonic_windows(scores: Tensor, grid: tuple[int, int], side: int) -> Tensor:
    """Harmonic mean, per patch, of the scores of the windows that cover it.

    ``(B, n)`` non-negative ``-> (B, h, w)``; a score of zero pulls its patches to zero.
    """
    cover = spread(torch.ones_like(scores[:1]), grid, side)
    mean = cover / spread(1 / scores, grid, side)
    return mean.nan_to_num(nan=0.0, posinf=0.0)

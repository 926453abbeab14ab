"""Windows over a patch grid and the aggregation of their scores.

Small ones at every place (WinCLIP, section 4.1 there), and large ones that cover the grid (LECLIP).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

Place = tuple[slice, slice]
"""Rows and columns of patches that a window covers."""

# Tokens that enter a tower at once: bounds memory, and is large enough to be fast.
_TOKENS_CPU, _TOKENS_GPU = 1024, 16384


def windows_at_once(tokens: int, device: torch.device) -> int:
    """How many windows of so many tokens enter a tower together; at least one."""
    return max(1, (_TOKENS_CPU if device.type == "cpu" else _TOKENS_GPU) // tokens)


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


def covering_windows(
    grid: tuple[int, int], side: tuple[int, int], stride: tuple[int, int]
) -> list[Place]:
    """Windows of ``side`` patches every ``stride`` ones, row by row; the last ends with the grid.

    Raises:
        ValueError: a window is larger than the grid, or the stride than a window, which would leave
            patches between them.
    """
    starts = []
    for length, one, step in zip(grid, side, stride, strict=True):
        if not 1 <= step <= one <= length:
            raise ValueError(
                f"windows of {one} patches every {step} do not cover {length}: choose a side of at "
                f"most {length} and a stride of at most the side"
            )
        starts.append([*range(0, length - one, step), length - one])
    return [
        (slice(top, top + side[0]), slice(left, left + side[1])) for top, left in product(*starts)
    ]


def mean_of_windows(
    maps: Sequence[Tensor], places: Sequence[Place], shape: Sequence[int]
) -> Tensor:
    """Mean, per patch, of the windows that cover it.

    ``(B, rows, columns)`` per window, of its place, ``-> (B, h, w)``; ``shape`` is the grid's.
    """
    total = maps[0].new_zeros(len(maps[0]), *shape)
    cover = maps[0].new_zeros(*shape)
    for values, (rows, columns) in zip(maps, places, strict=True):
        total[:, rows, columns] += values
        cover[rows, columns] += 1
    return total / cover

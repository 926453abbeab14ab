"""Means over the neighbours of each patch."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Border = Literal["zeros", "replicate", "reflect"]


def neighbourhood_mean(maps: Tensor, side: int, border: Border) -> Tensor:
    """Mean of each ``side x side`` neighbourhood, stride 1, on grids of any size.

    Args:
        maps: ``(B, C, h, w)``.
        side: odd number of patches; 1 returns the maps unchanged.
        border: what lies outside: ``zeros``, which count in the mean (CoPS), the nearest patch
            (AnoVL), or the patches mirrored at the outermost one (AFR-CLIP).

    Returns:
        ``(B, C, h, w)``.

    Raises:
        ValueError: an even or non-positive side, or an unknown border.
    """
    if side < 1 or side % 2 == 0:
        raise ValueError(f"a neighbourhood needs an odd side of at least 1 patch, got {side}")
    if border not in ("zeros", "replicate", "reflect"):
        raise ValueError(f"border is zeros, replicate or reflect, not {border!r}")
    if side == 1:
        return maps
    reach = side // 2
    if border == "zeros":
        return F.avg_pool2d(maps, side, stride=1, padding=reach)
    for axis in (2, 3):
        index = _outward(maps.shape[axis], reach, border).to(maps.device)
        maps = maps.index_select(axis, index)
    return F.avg_pool2d(maps, side, stride=1)


def patch_mean(patches: Tensor, grid: tuple[int, int], side: int, border: Border) -> Tensor:
    """``neighbourhood_mean`` of row-major patch features ``(B, N, D)``, same shape."""
    maps = patches.transpose(1, 2).unflatten(2, grid)  # (B, D, h, w)
    return neighbourhood_mean(maps, side, border).flatten(2).transpose(1, 2)


def _outward(length: int, reach: int, border: Border) -> Tensor:
    """Indices of a line continued by ``reach`` on both ends, however short it is."""
    index = torch.arange(-reach, length + reach)
    if border == "replicate":
        return index.clamp(0, length - 1)
    period = max(2 * (length - 1), 1)
    index = index.remainder(period)
    return torch.minimum(index, period - index)

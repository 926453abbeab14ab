"""Gaussian smoothing of anomaly maps, and means over the neighbours of each patch."""

from __future__ import annotations

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

Border = Literal["zeros", "absent", "replicate", "reflect"]


def gaussian_smooth(
    maps: Tensor, sigma: float, *, edge_twice: bool = True, radius: int | None = None
) -> Tensor:
    """Gaussian filter, equal to ``scipy.ndimage.gaussian_filter(map, sigma)`` per map.

    Args:
        maps: ``(..., H, W)``.
        sigma: standard deviation in pixels; 0 returns the maps unchanged.
        edge_twice: whether the mirror image beyond the border repeats the edge pixel, as SciPy's
            does, or begins behind it, as PyTorch's ``reflect``.
        radius: pixels on either side that count; by default as many as in SciPy's.

    Returns:
        ``(..., H, W)`` in the same precision.

    Raises:
        ValueError: sigma is negative or not finite.
    """
    if not 0 <= sigma < float("inf"):
        raise ValueError(f"sigma must be a finite number >= 0, got {sigma}")
    if sigma == 0:
        return maps
    radius = int(4 * sigma + 0.5) if radius is None else radius  # where scipy cuts it off
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float64, device=maps.device)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = (kernel / kernel.sum()).to(maps.dtype)
    flat = maps.reshape(-1, 1, *maps.shape[-2:])
    for axis in (2, 3):
        length = flat.shape[axis]
        period = 2 * length if edge_twice else max(2 * length - 2, 1)
        index = torch.arange(-radius, length + radius, device=maps.device).remainder(period)
        index = torch.minimum(index, period - index - int(edge_twice))  # mirrored
        shape = (1, 1, -1, 1) if axis == 2 else (1, 1, 1, -1)
        flat = F.conv2d(flat.index_select(axis, index), kernel.reshape(shape))
    return flat.reshape(maps.shape)


def neighbourhood_mean(maps: Tensor, side: int, border: Border) -> Tensor:
    """Mean of each ``side x side`` neighbourhood, stride 1, on grids of any size.

    Args:
        maps: ``(B, C, h, w)``.
        side: odd number of patches; 1 returns the maps unchanged.
        border: what lies outside: ``zeros``, which count in the mean (CoPS), nothing (``absent``,
            PA-CLIP), the nearest patch (AnoVL), or the patches mirrored at the outermost one
            (AFR-CLIP).

    Returns:
        ``(B, C, h, w)``.

    Raises:
        ValueError: an even or non-positive side, or an unknown border.
    """
    if side < 1 or side % 2 == 0:
        raise ValueError(f"a neighbourhood needs an odd side of at least 1 patch, got {side}")
    if border not in get_args(Border):
        raise ValueError(f"border is zeros, absent, replicate or reflect, not {border!r}")
    if side == 1:
        return maps
    reach = side // 2
    if border in ("zeros", "absent"):
        counted = border == "zeros"
        return F.avg_pool2d(maps, side, 1, reach, count_include_pad=counted)
    if border == "replicate":
        return F.avg_pool2d(F.pad(maps, (reach,) * 4, mode="replicate"), side, stride=1)
    for axis in (2, 3):  # also over lines shorter than the neighbourhood
        last = maps.shape[axis] - 1
        index = torch.arange(-reach, last + reach + 1, device=maps.device)
        index = index.remainder(max(2 * last, 1))
        maps = maps.index_select(axis, torch.minimum(index, 2 * last - index).clamp(0, last))
    return F.avg_pool2d(maps, side, stride=1)


def patch_mean(patches: Tensor, grid: tuple[int, int], side: int, border: Border) -> Tensor:
    """``neighbourhood_mean`` of row-major patch features ``(B, N, D)``, same shape."""
    maps = patches.transpose(1, 2).unflatten(2, grid)  # (B, D, h, w)
    return neighbourhood_mean(maps, side, border).flatten(2).transpose(1, 2)


def patch_gaussian(patches: Tensor, grid: tuple[int, int], side: int, sigma: float) -> Tensor:
    """Gaussian mean of the ``side x side`` patches around each, of features ``(B, N, D)``.

    The weights sum to one over the whole neighbourhood, and what lies outside the grid counts as
    zeros (AF-CLIP).

    Raises:
        ValueError: an even or non-positive side.
    """
    if side < 1 or side % 2 == 0:
        raise ValueError(f"a neighbourhood needs an odd side of at least 1 patch, got {side}")
    if side == 1:
        return patches
    rows, columns = (_band(count, side // 2, sigma).to(patches) for count in grid)
    maps = (rows @ patches.unflatten(1, grid).flatten(2)).unflatten(2, (grid[1], -1))
    return (columns @ maps).flatten(1, 2)


def _band(count: int, reach: int, sigma: float) -> Tensor:
    """The filter along one axis as a matrix ``(count, count)``."""
    places = torch.arange(count, dtype=torch.float64)
    offsets = places[:, None] - places
    weights = torch.exp(-0.5 * (offsets / sigma) ** 2).where(offsets.abs() <= reach, 0.0)
    inside = torch.arange(-reach, reach + 1, dtype=torch.float64)
    return weights / torch.exp(-0.5 * (inside / sigma) ** 2).sum()

"""Gaussian smoothing of anomaly maps."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def gaussian_smooth(maps: Tensor, sigma: float, truncate: float = 4.0) -> Tensor:
    """Gaussian filter, equal to ``scipy.ndimage.gaussian_filter(map, sigma)`` per map.

    Args:
        maps: ``(..., H, W)``.
        sigma: standard deviation in pixels; 0 returns the maps unchanged.
        truncate: the kernel ends at this many standard deviations.

    Returns:
        ``(..., H, W)`` in the same precision.

    Raises:
        ValueError: sigma is negative or not finite.
    """
    if not 0 <= sigma < float("inf"):
        raise ValueError(f"sigma must be a finite number >= 0, got {sigma}")
    if sigma == 0:
        return maps
    radius = int(truncate * sigma + 0.5)
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float64, device=maps.device)
    kernel = torch.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = (kernel / kernel.sum()).to(maps.dtype)
    flat = maps.reshape(-1, 1, *maps.shape[-2:])
    for axis in (2, 3):
        index = _mirrored(flat.shape[axis], radius).to(maps.device)
        shape = (1, 1, -1, 1) if axis == 2 else (1, 1, 1, -1)
        flat = F.conv2d(flat.index_select(axis, index), kernel.reshape(shape))
    return flat.reshape(maps.shape)


def _mirrored(length: int, radius: int) -> Tensor:
    """Indices of a line mirrored at its edges, edge pixel repeated (scipy's 'reflect')."""
    index = torch.arange(-radius, length + radius).remainder(2 * length)
    return torch.where(index < length, index, 2 * length - 1 - index)

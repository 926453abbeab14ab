"""Structural similarity of pictures (Wang et al., IEEE TIP 2004), place by place."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

_SIDE, _SIGMA = 11, 1.5


def ssim_map(
    one: Tensor,
    other: Tensor,
    border: Literal["zeros", "reflect"] = "zeros",
    span: float | Tensor = 1.0,
) -> Tensor:
    """SSIM in a Gaussian window of 11 x 11 with a deviation of 1.5, computed in float32.

    Args:
        one, other: ``(B, C, H, W)``; for ``reflect`` the sides are at least 6.
        border: what lies outside.
        span: dynamic range of the values; a number, or ``(B, 1, 1, 1)``.

    Returns:
        ``(B, C, H, W)`` in [-1, 1].
    """
    with torch.autocast(one.device.type, enabled=False):
        x, y = one.float(), other.float()
        mean_x, mean_y = _windowed(x, border), _windowed(y, border)
        xx, yy, xy = mean_x * mean_x, mean_y * mean_y, mean_x * mean_y
        var_x, var_y = _windowed(x * x, border) - xx, _windowed(y * y, border) - yy
        covariance = _windowed(x * y, border) - xy
        c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
        above = (2 * xy + c1) * (2 * covariance + c2)
        return above / ((xx + yy + c1) * (var_x + var_y + c2))


def _windowed(values: Tensor, border: str) -> Tensor:
    offsets = torch.arange(_SIDE, device=values.device, dtype=torch.float32) - _SIDE // 2
    weights = torch.exp(-offsets.square() / (2 * _SIGMA**2))
    weights = weights / weights.sum()
    flat = values.reshape(-1, 1, *values.shape[-2:])
    how = "constant" if border == "zeros" else "reflect"
    flat = F.pad(flat, (_SIDE // 2,) * 4, mode=how)
    rows = F.conv2d(flat, weights.view(1, 1, -1, 1))
    return F.conv2d(rows, weights.view(1, 1, 1, -1)).view(values.shape)

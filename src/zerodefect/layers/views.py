"""Several views of one picture, over which an image score is averaged (AnoVL)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

ANGLES = tuple(math.pi * n / 16 for n in (-4, -3, -2, -1, 1, 2, 3, 4))
SHIFTS = tuple((a * s, b * s) for s in (0.2, 0.1) for a, b in ((1, 1), (-1, 1), (-1, -1), (1, -1)))
GREY = (0.299, 0.587, 0.114)


def anovl_views(images: Tensor) -> list[Tensor]:
    """The 22 views of AnoVL (arXiv 2308.15939, code) of normalised pictures.

    The pictures themselves, turned by the eight ``ANGLES``, moved by the eight ``SHIFTS`` (in half
    pictures), mirrored left to right, in grey, and turned by one, two and three quarters counter-
    clockwise. What comes in at the border is the mirrored picture. All are ``(B, 3, H, W)`` but two
    of the quarter turns, ``(B, 3, W, H)``.
    """
    turned = [
        _warp(images, [[math.cos(t), -math.sin(t), 0.0], [math.sin(t), math.cos(t), 0.0]])
        for t in ANGLES
    ]
    moved = [_warp(images, [[1.0, 0.0, a], [0.0, 1.0, b]]) for a, b in SHIFTS]
    weights = torch.tensor(GREY, dtype=images.dtype, device=images.device).view(3, 1, 1)
    grey = (images * weights).sum(1, keepdim=True).expand_as(images)
    quarters = [images.rot90(n, (2, 3)) for n in (1, 2, 3)]
    return [images, *turned, *moved, images.flip(3), grey, *quarters]


def _warp(images: Tensor, matrix: list[list[float]]) -> Tensor:
    theta = torch.tensor([matrix], dtype=images.dtype, device=images.device)
    grid = F.affine_grid(theta, [1, *images.shape[1:]], align_corners=True)
    grid = grid.expand(len(images), -1, -1, -1)
    return F.grid_sample(images, grid, padding_mode="reflection", align_corners=True)

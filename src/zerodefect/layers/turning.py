"""Pictures turned about their middle."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor


def rotated(
    images: Tensor, degrees: float, outside: Literal["reflection", "border"] = "reflection"
) -> Tensor:
    """``(B, C, H, W)`` counter-clockwise about ``(W / 2, H / 2)``, of the same size.

    ``outside`` says what comes in: the picture mirrored at its outermost pixels, or these pixels.
    """
    height, width = images.shape[-2:]
    turn = math.radians(degrees)
    y = torch.arange(height, device=images.device)[:, None] - height / 2
    x = torch.arange(width, device=images.device)[None] - width / 2
    source_x = math.cos(turn) * x - math.sin(turn) * y + width / 2
    source_y = math.sin(turn) * x + math.cos(turn) * y + height / 2
    span = [2 / max(side - 1, 1) for side in (width, height)]
    places = torch.stack([source_x * span[0] - 1, source_y * span[1] - 1], dim=2)
    places = places.expand(len(images), -1, -1, -1).to(images.dtype)
    return F.grid_sample(images, places, padding_mode=outside, align_corners=True)

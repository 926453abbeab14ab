"""Edits of edge maps that make a logical anomaly of a normal picture.

LogicAL (Zhao, CVPR workshops 2024, arXiv 2405.06875), equations as public notes of the paper report
them. Edge maps lie in [0, 1]; 1 is no edge, 0 an edge. Symbols: M the region (1 inside), E_j the
edges of the picture, E_i (augmented) those of another normal picture of the class.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def remove_edges(E_j: Tensor, M: Tensor) -> Tensor:
    """No edge inside the region: ``M + (1 - M) E_j``."""
    return M + (1 - M) * E_j


def replace_edges(E_j: Tensor, E_i: Tensor, M: Tensor) -> Tensor:
    """The other picture's edges inside: ``M E_i + (1 - M) E_j``."""
    return M * E_i + (1 - M) * E_j


def merge_edges(E_j: Tensor, E_i: Tensor, M: Tensor) -> Tensor:
    """Both pictures' edges inside: ``M (E_i + E_j - 1) + (1 - M) E_j``, clipped to [0, 1].

    The clip is ours: where two edges meet the sum is -1.
    """
    return (M * (E_i + E_j - 1) + (1 - M) * E_j).clamp(0, 1)


def edge_map(images: Tensor) -> Tensor:
    """Edges where no edge network is at hand: 1 - the Sobel magnitude, scaled by its largest.

    Args:
        images: ``(B, 3, H, W)``.

    Returns:
        ``(B, H, W)`` in [0, 1]; ones where a picture has no edge.
    """
    grey = F.pad(images.mean(1, keepdim=True), (1, 1, 1, 1), mode="replicate")
    kernel = images.new_tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]])
    both = F.conv2d(grey, torch.stack([kernel, kernel.T])[:, None])  # (B, 2, H, W)
    size = both.norm(dim=1)
    return 1 - size / size.amax((1, 2), keepdim=True).clamp(min=1e-12)

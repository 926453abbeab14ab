"""Whether the components of a picture are those of good ones, one by one.

LogSAD (Zhang et al., CVPR 2025), scores of composition and matching.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from zerodefect.layers.components import Components


def class_histogram(labels: Tensor, classes: int) -> Tensor:
    """How often each class occurs in a map of labels, of unit length: ``(K,)`` float64."""
    counts = torch.bincount(labels.flatten(), minlength=classes).double()
    return F.normalize(counts, dim=0)


def composition_score(h: Tensor, references: Tensor) -> Tensor:
    """1 - the largest product of ``(K,)`` with references ``(n, K)``: a scalar in [0, 1]."""
    return 1 - (references @ h).max()


def instance_masks(found: Components, grid: tuple[int, int]) -> Tensor:
    """Components on a grid of tokens, by the nearest pixel; those that vanish there are dropped.

    Returns:
        ``(n, h * w)`` bool.
    """
    if not len(found):
        return torch.zeros(0, grid[0] * grid[1], dtype=torch.bool, device=found.labels.device)
    small = F.interpolate(found.masks[:, None].float(), grid, mode="nearest").flatten(1) > 0
    return small[small.any(1)]


def instance_features(masks: Tensor, tokens: Tensor, blocks: Sequence[int]) -> list[Tensor]:
    """Mean tokens of instances, of each block of channels: unit length ``(n, C)``.

    Args:
        masks: ``(n, L)`` bool, none of them empty.
        tokens: ``(L, sum of blocks)``.
        blocks: channels of each layer.
    """
    share = masks.to(tokens.dtype) / masks.sum(1, keepdim=True)
    return [F.normalize(each, dim=1) for each in (share @ tokens).split(list(blocks), 1)]


def matching_score(found: Sequence[Tensor], references: Sequence[Tensor]) -> Tensor:
    """Mean cost of the best assignment of instances to those of references; a scalar in [0, 2].

    ``1 - cos`` for each pair, by the Hungarian method, over the smaller of both numbers, averaged
    over layers. Where there is none on either side it is 1.

    Args:
        found: per layer ``(n, C)``, unit length.
        references: per layer ``(m, C)``, of all references together.
    """
    n, m = len(found[0]), len(references[0])
    if not n or not m:
        return found[0].new_ones(())
    costs = [1 - a @ b.T for a, b in zip(found, references, strict=True)]
    means = []
    for cost in costs:
        rows, columns = linear_sum_assignment(cost.cpu().numpy())
        means.append(cost[rows, columns].sum() / min(n, m))
    return torch.stack(means).mean()


def nearest_tokens(tokens: Tensor, references: Tensor, blocks: Sequence[int]) -> Tensor:
    """Structural distance ``(L,)``: mean over blocks of 1 - the largest cosine.

    Args:
        tokens: ``(L, sum of blocks)``.
        references: ``(M, sum of blocks)``.
        blocks: channels of each layer.
    """
    pairs = zip(tokens.split(list(blocks), 1), references.split(list(blocks), 1), strict=True)
    near = [(F.normalize(a, dim=1) @ F.normalize(b, dim=1).T).amax(1) for a, b in pairs]
    return torch.stack([1 - each for each in near]).mean(0)


def fused(scores: Sequence[Tensor], statistics: Sequence[tuple[float, float]]) -> Tensor:
    """Sigmoid of the largest of the standardised scores.

    Args:
        scores: of one picture or several, of equal shapes.
        statistics: mean and unbiased deviation of each on good pictures.
    """
    z = [(s - mean) / max(std, 1e-12) for s, (mean, std) in zip(scores, statistics, strict=True)]
    return torch.stack(z).amax(0).sigmoid()

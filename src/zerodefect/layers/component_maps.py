"""Which component every place of a picture belongs to: clusters, words and segments.

LogSAD (Zhang et al., CVPR 2025): tokens of a picture take the nearest of centres that references
gave, clusters are named by the words that they resemble, and segments make the borders sharp.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from zerodefect.layers.clustering import kmeans
from zerodefect.layers.components import components, without_small

_MOST = 3000  # tokens that are clustered; their inner products are held at once
_SMALL = 8  # cells of a cluster's part, at most, that do not count when it is named
_SLIVER = 32  # pixels of a segment's part, at most, that become background


def finer_tokens(tokens: Tensor, grid: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Tokens ``(B, N, C)`` of a grid at another one, bilinear between corner tokens, unit length.

    Returns:
        ``(B, H * W, C)``.
    """
    maps = tokens.mT.unflatten(2, grid).float()
    maps = F.interpolate(maps, size, mode="bilinear", align_corners=True)
    return F.normalize(maps.flatten(2).mT, dim=2)


def cluster_centres(tokens: Tensor, clusters: int, seed: int) -> Tensor:
    """Centres ``(k, C)`` of the tokens ``(n, C)`` of references; k may be less.

    Of more than 3000 tokens so many are drawn; the same ones for the same seed.

    Raises:
        ValueError: see ``clustering.kmeans``.
    """
    draws = torch.Generator().manual_seed(seed)
    if len(tokens) > _MOST:
        some = torch.randperm(len(tokens), generator=draws)[:_MOST]
        tokens = tokens[some.sort().values.to(tokens.device)]
    labels = kmeans(tokens, clusters, draws)
    return torch.stack([tokens[labels == each].mean(0) for each in labels.unique()])


def nearest_centre(tokens: Tensor, centres: Tensor) -> Tensor:
    """Number of the nearest centre ``(..., n)`` int64 of ``(..., n, C)``, by Euclidean distance."""
    return torch.cdist(tokens, centres.expand(*tokens.shape[:-2], *centres.shape)).argmin(-1)


def centre_shares(tokens: Tensor, centres: Tensor, softness: float) -> Tensor:
    """How far tokens ``(..., n, C)`` belong to each of ``(k, C)``: ``(..., n, k)``, summing to one.

    The softmax of squared distances over ``-softness``: what lies between two components belongs to
    both, so that rounding never moves a place from one to the other.
    """
    squared = (centres * centres).sum(1) - 2 * tokens @ centres.T
    return (-squared / softness).softmax(-1)


def named_clusters(
    clusters: Tensor, count: int, P: Tensor, queries: Tensor, least: Sequence[float]
) -> Tensor:
    """Classes ``(h, w)`` of the clusters of a picture, by the words that they are most like.

    A cluster's joint-space token is the mean over its places, but for parts of at most 8 of them.

    Args:
        clusters: ``(h, w)`` int64, less than ``count``.
        count: of clusters.
        P: ``(h * w, D)`` unit tokens in the space of texts.
        queries: ``(K, D)`` unit features of the classes; the last one is the background.
        least: what the product with the best query must exceed, for each class.
    """
    background = len(queries) - 1
    named = torch.full_like(clusters, background)
    for number in range(count):
        own = clusters == number
        large = without_small(own, _SMALL + 1)
        if not large.any():
            continue
        likeness = queries @ P[large.flatten()].mean(0)
        best = int(likeness.argmax())
        if likeness[best] > least[best]:
            named[own] = best
    return named


def painted(segments: Tensor) -> Tensor:
    """Numbers ``(H, W)`` int64 of segments ``(n, H, W)``, the largest below; 0 where there is none.

    Number i is the i-th largest one.
    """
    order = segments.bool().sum((1, 2)).argsort(descending=True, stable=True)
    numbers = torch.zeros(segments.shape[1:], dtype=torch.long, device=segments.device)
    for number, row in enumerate(order.tolist(), start=1):
        numbers[segments[row].bool()] = number
    return numbers


def sharpened(labels: Tensor, segments: Tensor) -> Tensor:
    """Classes ``(H, W)`` where every segment has the class that most of it has.

    Args:
        labels: ``(h, w)`` int64, resized to the segments' size by the nearest.
        segments: ``(H, W)`` int64 numbers, as ``painted`` gives them; what no segment covers is
            one, too.
    """
    size = segments.shape
    large = F.interpolate(labels[None, None].float(), size, mode="nearest")[0, 0].long()
    classes = int(labels.max()) + 1
    counts = torch.zeros(int(segments.max()) + 1, classes, device=labels.device)
    counts.index_put_(
        (segments.flatten(), large.flatten()),
        torch.ones(large.numel(), device=labels.device),
        accumulate=True,
    )
    return counts.argmax(1)[segments]


def without_slivers(labels: Tensor, background: int) -> Tensor:
    """The map ``(H, W)`` whose foreground parts of at most 32 pixels became background."""
    kept = components(labels != background, _SLIVER + 1).labels > 0
    return labels.where(kept, torch.full_like(labels, background))

"""k-means of few points, reproducible on every device."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

_ROUNDS = 300  # of Lloyd's algorithm, at most
_TOLERANCE = 1e-4  # it stops when the centres moved by less than this share of the variance


@torch.no_grad()
def kmeans(points: Tensor, clusters: int, generator: torch.Generator) -> Tensor:
    """Assign points to clusters: k-means++ start, then Lloyd's iterations.

    The start is the greedy form of Arthur & Vassilvitskii (2007): of ``2 + log k`` candidates drawn
    by squared distance, the one that lowers the sum of squares most. Everything runs on the CPU in
    float64, so that devices agree.

    Args:
        points: ``(n, d)``.
        clusters: how many to look for; with fewer distinct points there are fewer.
        generator: source of the draws, on the CPU.

    Returns:
        ``(n,)`` int64 labels on the device of the points; a label may be unused.

    Raises:
        ValueError: no point, no cluster, or values that are not finite.
    """
    if not len(points) or clusters < 1:
        raise ValueError(f"{clusters} clusters of {len(points)} points: both must be at least 1")
    x = points.detach().cpu().double()
    if not x.isfinite().all():
        raise ValueError("points to cluster are not finite; check the input image and the weights")
    # Every centre is a weighted mean of the points, so all distances follow from the points' inner
    # products, and the dimension d does not matter any more.
    x = x - x.mean(dim=0)
    products = x @ x.T  # (n, n)
    enough = _TOLERANCE * float(products.diagonal().mean()) / x.shape[1]
    first = _start(products, min(clusters, len(x)), generator)
    centres = F.one_hot(torch.tensor(first), len(x)).double()  # (k, n) weights of the points
    labels = _distances(products, centres).argmin(dim=1)
    for _ in range(_ROUNDS):
        moved = _means(products, labels, centres)
        change = moved - centres
        shift = float(((change @ products) * change).sum())  # squared, of all centres together
        centres = moved
        before, labels = labels, _distances(products, centres).argmin(dim=1)
        if shift <= enough or torch.equal(before, labels):
            break
    return labels.to(points.device)


def _start(products: Tensor, clusters: int, generator: torch.Generator) -> list[int]:
    """Rows that the centres start from."""
    between = _squared(products, products, products.diagonal())  # of each two points
    same = 1e-12 * float(between.max())  # equal points, up to rounding
    chosen = [int(torch.randint(len(products), (1,), generator=generator))]
    nearest = between[chosen[0]]  # (n,) squared distance to the nearest centre
    trials = 2 + int(math.log(clusters))
    while len(chosen) < clusters and nearest.max() > same:
        drawn = torch.multinomial(nearest, trials, replacement=True, generator=generator)
        left = torch.minimum(nearest, between[drawn])  # (trials, n)
        best = int(left.sum(dim=1).argmin())
        chosen.append(int(drawn[best]))
        nearest = left[best]
    return chosen


def _distances(products: Tensor, centres: Tensor) -> Tensor:
    """Squared distances ``(n, k)`` of the points to centres given by their weights ``(k, n)``."""
    mixed = centres @ products  # (k, n)
    return _squared(products, mixed, (mixed * centres).sum(dim=1))


def _squared(products: Tensor, mixed: Tensor, lengths: Tensor) -> Tensor:
    """Squared distances ``(n, k)`` of the points to others.

    ``mixed (k, n)`` are the inner products of these with the points, ``lengths (k,)`` their own.
    """
    return (products.diagonal()[:, None] - 2 * mixed.T + lengths).clamp(min=0)


def _means(products: Tensor, labels: Tensor, centres: Tensor) -> Tensor:
    """Weights of each cluster's mean; an empty cluster takes over the worst-placed point."""
    members = F.one_hot(labels, len(centres)).T.to(products.dtype)  # (k, n)
    counts = members.sum(dim=1)
    means = members / counts.clamp(min=1)[:, None]
    empty = (counts == 0).nonzero()[:, 0]
    if len(empty):
        off = _distances(products, means)[torch.arange(len(labels)), labels]
        means[empty] = F.one_hot(off.topk(len(empty)).indices, len(labels)).to(means.dtype)
    return means

"""k-means of few points, reproducible on every device."""

from __future__ import annotations

import math

import torch
from torch import Tensor


@torch.no_grad()
def kmeans(
    points: Tensor,
    clusters: int,
    generator: torch.Generator,
    iterations: int = 300,
    tolerance: float = 1e-4,
) -> Tensor:
    """Assign points to clusters: k-means++ start, then Lloyd's iterations.

    The start is the greedy form of Arthur & Vassilvitskii (2007): of ``2 + log k`` candidates drawn
    by squared distance, the one that lowers the sum of squares most. Everything runs on the CPU in
    float64, so that devices agree.

    Args:
        points: ``(n, d)``.
        clusters: how many to look for; with fewer distinct points there are fewer.
        generator: source of the draws, on the CPU.
        iterations: most rounds of Lloyd's algorithm.
        tolerance: stop when the centres moved by less than this share of the points' variance.

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
    centres = x[_start(x, min(clusters, len(x)), generator)]
    enough = tolerance * float(x.var(dim=0, correction=0).mean())
    labels = _distances(x, centres).argmin(dim=1)
    for _ in range(iterations):
        moved = _means(x, labels, centres)
        shift = float((moved - centres).square().sum())
        centres = moved
        before, labels = labels, _distances(x, centres).argmin(dim=1)
        if shift <= enough or torch.equal(before, labels):
            break
    return labels.to(points.device)


def _start(x: Tensor, clusters: int, generator: torch.Generator) -> list[int]:
    """Rows that the centres start from."""
    chosen = [int(torch.randint(len(x), (1,), generator=generator))]
    nearest = _distances(x, x[chosen])[:, 0]  # (n,) squared distance to the nearest centre
    trials = 2 + int(math.log(clusters))
    while len(chosen) < clusters and nearest.max() > 0:
        drawn = torch.multinomial(nearest, trials, replacement=True, generator=generator)
        left = torch.minimum(nearest, _distances(x[drawn], x))  # (trials, n)
        best = int(left.sum(dim=1).argmin())
        chosen.append(int(drawn[best]))
        nearest = left[best]
    return chosen


def _distances(a: Tensor, b: Tensor) -> Tensor:
    """Squared distances, ``(n, d), (m, d) -> (n, m)``; equal points are at exactly 0."""
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist").square()


def _means(x: Tensor, labels: Tensor, centres: Tensor) -> Tensor:
    """Mean of each cluster's points; an empty cluster takes over the worst-placed point."""
    counts = labels.bincount(minlength=len(centres))
    sums = torch.zeros_like(centres).index_add_(0, labels, x)
    means = sums / counts.clamp(min=1)[:, None]
    empty = (counts == 0).nonzero()[:, 0]
    if len(empty):
        off = (x - means[labels]).square().sum(dim=1)
        means[empty] = x[off.topk(len(empty)).indices]
    return means

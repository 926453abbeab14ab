"""Coresets: the few of many features that stand for all of them."""

from __future__ import annotations

import torch
from torch import Tensor

_BLOCK = 8192  # rows that are compared with each other: the cost is linear beyond it
_WIDTH = 128  # of the random projection in which distances are taken


def farthest_points(
    features: Tensor, count: int, start: int = 0, reached: Tensor | None = None
) -> Tensor:
    """Greedy k-centre: each chosen row is the one farthest from all chosen before.

    Sener and Savarese, ICLR 2018, algorithm 1; ties go to the lowest row, and no row is
    chosen twice.

    Args:
        features: ``(n, W)``, compared by Euclidean distance.
        count: rows to choose, at most ``n``.
        start: the first one.
        reached: ``(n,)`` distance to what counts as chosen already, instead of ``start``.

    Returns:
        ``(count,)`` int64 rows in the order of choice.
    """
    squares = features.square().sum(dim=1)
    chosen = torch.empty(count, dtype=torch.long, device=features.device)
    if reached is None:
        nearest = features.new_full((len(features),), torch.inf)
        row = torch.tensor(start, device=features.device)
    else:
        nearest = reached.square()
        row = nearest.argmax()
    for place in range(count):
        chosen[place] = row
        # as a product: a third of the traffic of differences, which is what this costs
        distance = torch.addmv(squares, features, features[row], alpha=-2) + squares[row]
        distance[row] = -1  # never again, also where all that is left equals a chosen one
        nearest = torch.minimum(nearest, distance)
        row = nearest.argmax()
    return chosen


def thinned(features: Tensor, keep: int) -> Tensor:
    """Rows of a large set that stand for all: ``farthest_points`` block by block.

    ``(n, W) -> (keep,)`` int64 rows, ascending; every block of neighbouring rows gives its share.
    """
    if features.shape[1] > _WIDTH:
        draws = torch.Generator().manual_seed(0)
        shape = (features.shape[1], _WIDTH)
        features = features @ torch.randn(shape, generator=draws).to(features)
    rows, first = [], 0
    for block in features.split(_BLOCK):
        last = first + len(block)
        count = keep * last // len(features) - keep * first // len(features)
        rows.append(farthest_points(block.float(), count).sort().values + first)
        first = last
    return torch.cat(rows)

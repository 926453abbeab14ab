"""Coresets: the few of many features that stand for all of them."""

from __future__ import annotations

import torch
from torch import Tensor

_BLOCK = 8192  # rows that are compared with each other: the cost is linear beyond it
_POOL = 512  # of the farthest rows, which are compared with each other; more take longer
_CELLS = 2**20  # of the distances that are held at once
_WIDTH = 128  # of the random projection in which distances are taken


def farthest_points(
    features: Tensor, count: int, start: int = 0, reached: Tensor | None = None
) -> Tensor:
    """Greedy k-centre: each chosen row is the one farthest from all chosen before.

    Sener and Savarese, ICLR 2018, algorithm 1; ties go to the lowest row, and no row is
    chosen twice. A choice only ever lowers distances, so the farthest rows of all are compared
    with each other alone, in float64, until they lie no farther than a row outside of them may;
    then one matrix product tells all rows what was chosen. The order is that of float64.

    Args:
        features: ``(n, W)``, compared by Euclidean distance.
        count: rows to choose, at most ``n``.
        start: the first one.
        reached: ``(n,)`` distance to what counts as chosen already, instead of ``start``.

    Returns:
        ``(count,)`` int64 rows in the order of choice.
    """
    chosen = torch.empty(count, dtype=torch.long, device=features.device)
    if not count:
        return chosen
    known = features.new_full((len(features),), torch.inf) if reached is None else reached.square()
    centred = features - features.mean(dim=0)  # the products below round less
    squares = centred.square().sum(dim=1)
    nearest, done = known.clone(), 0
    if reached is None:
        chosen[0], done = start, 1
        _approach(nearest, centred, squares, chosen[:1])
    rounding = 8 * torch.finfo(features.dtype).eps
    while done < count:
        margin = max(rounding * float(torch.maximum(squares, nearest).max()), 1e-30)
        pool, floor = _farthest(nearest, margin)
        before, done = done, _choose(chosen, done, features, known, pool, floor)
        _approach(nearest, centred, squares, chosen[before:done])
    return chosen


def _farthest(nearest: Tensor, margin: float) -> tuple[Tensor, float]:
    """Ascending rows ``(m,)``, ``_POOL`` at most, and what no other row lies beyond.

    Squared distances ``(n,)`` are known to within the margin. Where too many are as far as the
    farthest one, rows are the first of those.
    """
    floor, top = -torch.inf, float(nearest.max())
    if len(nearest) > _POOL:
        floor = float(nearest.kthvalue(len(nearest) - _POOL).values) + margin
    if top <= floor:
        floor = top - margin
    return (nearest > floor).nonzero()[:_POOL, 0], floor


def _choose(
    chosen: Tensor, done: int, features: Tensor, known: Tensor, pool: Tensor, floor: float
) -> int:
    """Choose among the pool as long as one lies beyond the floor; how many are chosen now."""
    own, before = features[pool].double(), done
    squares = own.square().sum(dim=1)
    nearest = known[pool].double()
    if done:
        others = features[chosen[:done]].double()
        product = torch.addmm(others.square().sum(dim=1), own, others.T, alpha=-2)
        nearest = torch.minimum(nearest, (product.amin(dim=1) + squares).clamp(min=0))
    distance = torch.empty_like(nearest)
    while done < len(chosen):
        place = int(nearest.argmax())
        if done > before and float(nearest[place]) <= floor:
            break
        chosen[done] = pool[place]
        done += 1
        torch.addmv(squares, own, own[place], alpha=-2, out=distance)
        torch.minimum(nearest, distance.add_(squares[place]).clamp_(min=0), out=nearest)
        nearest[place] = -torch.inf  # never again, also where all that is left equals it
    return done


def _approach(nearest: Tensor, features: Tensor, squares: Tensor, chosen: Tensor) -> None:
    """Lower squared distances ``(n,)`` in place to those to the chosen rows; theirs are gone."""
    others, own = features[chosen].T, squares[chosen]
    step = max(1, _CELLS // len(chosen))
    parts = (each.split(step) for each in (nearest, features, squares))
    for known, block, square in zip(*parts, strict=True):
        distance = torch.addmm(own, block, others, alpha=-2).amin(dim=1).add_(square)
        torch.minimum(known, distance.clamp_(min=0), out=known)
    nearest[chosen] = -torch.inf


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

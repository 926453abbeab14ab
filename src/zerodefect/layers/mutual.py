"""Distances of the patches of each picture to every other picture of a set, each pair once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

HELD_BYTES = 2**29
"""Features that are held at once while the others pass by."""

_ROUNDING = 16  # of a product of unit vectors, in units of the precision
_PRODUCT_CELLS = 2**23  # of the similarities that are held at once


def mutual_distances(
    features: Iterable[Tensor],
    keep: Sequence[Tensor] | None = None,
    *,
    count: int | None = None,
    half: bool = False,
    held_bytes: int = HELD_BYTES,
) -> list[Tensor]:
    """How far each patch of each picture is from the nearest patch of each other picture.

    One product of two pictures' patches gives both sides: its highest values along the rows and
    along the columns. Only those become distances. Pictures are held until ``held_bytes`` are
    taken, and all behind them go by; so the features are gone through once for every ``held_bytes``
    of them, and neither they nor their similarities are ever held whole.

    Args:
        features: unit vectors ``(B, L, C)``, batch by batch; L may differ between batches. They can
            be gone through again and again.
        keep: per picture ``(L,)`` bool, which patches others are compared with; None for all.
        count: of the pictures, where it is known; else they are gone through once more.
        half: find the nearest patch in bfloat16, and measure how far it is in float32. Faster where
            the processor multiplies bfloat16, and never less than the true distance.
        held_bytes: of features that are held at once.

    Returns:
        Per picture ``(L, N)`` distances in [0, 2], as precise as the features; infinite for the
        picture itself and for those that keep no patch.
    """
    N = sum(map(len, features)) if count is None else count
    found: list[Tensor] = []
    start = 0
    while start < N:
        held: list[_Block] = []
        taken, full = 0, False
        for number, row in enumerate(row for batch in features for row in batch):
            if start == 0:
                found.append(row.new_full((len(row), N), torch.inf))
            if number < start:
                continue
            z = row.contiguous()  # its rows are gathered
            for block in held:
                kept = keep and ([keep[j] for j in block.pictures], keep[number])
                pairs = _both_sides(z, block, kept or None, half)
                for j, (own, other) in zip(block.pictures, pairs, strict=True):
                    found[number][:, j], found[j][:, number] = own, other
            full = full or (bool(held) and taken + z.nbytes > held_bytes)
            if not full:
                taken += z.nbytes
                if not held or not held[-1].takes(z):
                    held.append(_Block())
                held[-1].add(z, number, half)
        start = held[-1].pictures[-1] + 1
    return found


class _Block:
    """Pictures that lie behind each other in memory, and are compared with another one at once.

    Attributes:
        pictures: their numbers.
        lengths: patches of each.
        rows: all of their patches, ``(M, C)``.
        half: the same in bfloat16, where the nearest one is looked for in it.
    """

    def __init__(self) -> None:
        self.pictures: list[int] = []
        self.lengths: list[int] = []
        self.rows = self.half = torch.empty(0)

    def takes(self, z: Tensor) -> bool:
        """Whether the product of all with ``z`` stays within bounds."""
        return (len(self.rows) + len(z)) * len(z) <= _PRODUCT_CELLS

    def add(self, z: Tensor, number: int, half: bool) -> None:
        """One more picture ``(L, C)``."""
        self.rows = torch.cat([self.rows, z]) if self.pictures else z
        if half:
            small = z.bfloat16()
            self.half = torch.cat([self.half, small]) if self.pictures else small
        self.pictures.append(number)
        self.lengths.append(len(z))


def _both_sides(
    z: Tensor, block: _Block, keep: tuple[Sequence[Tensor], Tensor] | None, half: bool
) -> Iterable[tuple[Tensor, Tensor]]:
    """Per picture of a block the distances of the patches of ``z (L, C)``, and those of its own."""
    G = z.bfloat16() @ block.half.T if half else z @ block.rows.T
    parts = zip(block.rows.split(block.lengths), G.split(block.lengths, 1), strict=True)
    for number, (y, g) in enumerate(parts):
        kept, own = (None, None) if keep is None else (keep[0][number], keep[1])
        yield _nearest(g, z, y, kept, half), _nearest(g.T, y, z, own, half)


def _nearest(g: Tensor, z: Tensor, y: Tensor, kept: Tensor | None, half: bool) -> Tensor:
    """Distance of each of ``z (L, C)`` to the nearest of ``y (M, C)``; ``g (L, M)``: cosines."""
    if kept is not None and not bool(kept.all()):
        if not bool(kept.any()):
            return z.new_full((len(z),), torch.inf)
        g, y = g[:, kept], y[kept]
    top = torch.linalg.vecdot(z, y[g.max(1).indices]) if half else g.amax(1)
    squared = 2 - 2 * top
    # a product of unit vectors is not more precise than this: copies are at no distance
    nothing = _ROUNDING * torch.finfo(squared.dtype).eps
    return squared.masked_fill(squared < nothing, 0).sqrt()


def mean_of_nearest(
    distances: Tensor, share: float, least: float = 0.0, *, own: int | None = None
) -> Tensor:
    """Mean distance ``(L,)`` float64 to the nearest share of the other pictures.

    Args:
        distances: ``(L, N)``; pictures that are infinitely far for all do not count.
        share: of the n pictures that count; ``int(share * n)`` of them are averaged, one at least.
        least: share of the nearest that are passed over.
        own: column that does not count, whatever stands there.

    Raises:
        ValueError: no picture counts.
    """
    d = distances.double()
    if own is not None:
        d = torch.cat([d[:, :own], d[:, own + 1 :]], dim=1)
    d = d[:, d.isfinite().all(0)]
    n = d.shape[1]
    if not n:
        raise ValueError("no other picture of the set to compare with")
    low = min(int(least * n), n - 1)
    high = max(low + 1, int(share * n))
    return d.topk(high, dim=1, largest=False).values[:, low:].mean(1)


def coarser(keep: Tensor, fine: tuple[int, int], coarse: tuple[int, int]) -> Tensor:
    """Patches ``(L,)`` bool of another grid: those of which most is kept."""
    if fine == coarse:
        return keep
    shares = F.adaptive_avg_pool2d(keep.float().view(1, 1, *fine), coarse)
    return shares.flatten() > 0.5


def finer(d: Tensor, fine: tuple[int, int], coarse: tuple[int, int]) -> Tensor:
    """Distances ``(L, N)`` of one picture at another grid."""
    if fine == coarse:
        return d
    absent = d.isinf().all(0)  # whole columns
    maps = d.masked_fill(absent, 0).T.unflatten(1, coarse)[None]
    maps = F.interpolate(maps, fine, mode="bilinear")[0].flatten(1).T
    return maps.masked_fill(absent, torch.inf)


class Remade:
    """Batches made of others whenever they are gone through: they are not held.

    Args:
        batches: that can be gone through again and again.
        make: of one of them.
    """

    def __init__(self, batches: Iterable[Any], make: Callable[[Any], Tensor]) -> None:
        self.batches, self.make = batches, make

    def __iter__(self) -> Any:
        return map(self.make, self.batches)

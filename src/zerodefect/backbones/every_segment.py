"""Everything that a segmenter finds in a picture: its answers to a grid of points."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from zerodefect.backbones.segmenter import Prompts, Segmenter

_POINTS = 16  # a side of the grid of points
_SURE = 0.7  # quality that an answer must have
_SHARES = (0.001, 0.95)  # of the picture that a segment takes
_SAME = 0.7  # overlap by union from which two answers are one


def every_segment(
    segmenter: Segmenter, embedded: Sequence[Tensor], row: int, size: tuple[int, int]
) -> Tensor:
    """Segments ``(n, H, W)`` bool of one picture, the surest first; they may overlap.

    Args:
        segmenter: answers each point with three masks, of which the surest counts.
        embedded: what its ``embed`` gave.
        row: number of the picture in it.
        size: ``(H, W)`` of the segments, in pixels.
    """
    at = (torch.arange(_POINTS, device=embedded[0].device) + 0.5) / _POINTS
    points = torch.stack(torch.meshgrid(at, at, indexing="xy"), dim=2).view(-1, 1, 2)
    found = segmenter.masks(embedded, row, Prompts(points=points), several=True)
    quality, which = found.quality.max(1)
    masks = found.at(size)[torch.arange(len(which), device=which.device), which]
    share = masks.float().mean((1, 2))
    taken = (quality >= _SURE) & (share >= _SHARES[0]) & (share <= _SHARES[1])
    order = quality[taken].argsort(descending=True, stable=True)
    kept: list[Tensor] = []
    for mask in masks[taken][order]:
        if all(float((mask & k).sum()) < _SAME * float((mask | k).sum()) for k in kept):
            kept.append(mask)
    return torch.stack(kept) if kept else masks[:0]

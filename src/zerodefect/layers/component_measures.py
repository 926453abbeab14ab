"""What can be measured of the components of a picture: how much, where, up to where, how many."""

from __future__ import annotations

import torch
from torch import Tensor

from zerodefect.layers.components import components

MEASURES = ("area", "y", "x", "top", "bottom", "left", "right", "parts")
_TAIL = 0.05  # of a component that may lie beyond its ends
_SMALL = 0.002  # of the picture: parts below it do not count
_NEAREST = 8  # good pictures that a picture is compared with, at most
_NOTHING = 0.02  # deviation that is always allowed, of shares of the picture


def component_measures(labels: Tensor, count: int) -> Tensor:
    """Measures of every component of maps of labels.

    Args:
        labels: ``(n, h, w)`` int64, less than ``count``.
        count: K.

    Returns:
        ``(n, K, 8)`` float32, see ``MEASURES``: area, centre and ends as shares of the picture,
        of its height and of its width, and a tenth of the number of parts. All are 0 where there
        is none of a component.
    """
    n, h, w = labels.shape
    y = (torch.arange(h, device=labels.device) + 0.5) / h
    x = (torch.arange(w, device=labels.device) + 0.5) / w
    found = torch.zeros(n, count, len(MEASURES), device=labels.device)
    for k in range(count):
        mask = (labels == k).float()
        area = mask.sum((1, 2))
        down, across = mask.sum(2) / area[:, None], mask.sum(1) / area[:, None]
        ends = [_end(shares, tail) for shares in (down, across) for tail in (_TAIL, 1 - _TAIL)]
        parts = [len(components(one > 0, max(1, round(_SMALL * h * w)))) for one in mask]
        number = torch.tensor(parts, device=labels.device) / 10
        own = [area / (h * w), (down * y).sum(1), (across * x).sum(1), *ends, number]
        found[:, k] = torch.stack(own, 1)
    return found.nan_to_num(0.0)


def _end(shares: Tensor, tail: float) -> Tensor:
    """Place ``(n,)`` in [0, 1] up to which so much of each row's sum lies."""
    return (shares.cumsum(1) < tail).float().mean(1)


def measured_oddness(own: Tensor, good: Tensor) -> Tensor:
    """How far measures lie off those of the good pictures that they are most like: ``(n,)``.

    Products may have variants, so that the nearest eight good pictures count and not all: the
    largest deviation from their median, in their standard deviations plus two hundredths.

    Args:
        own: ``(n, K, M)``.
        good: ``(m, K, M)``.
    """
    a, b = own.flatten(1), good.flatten(1)
    near = torch.cdist(a, b).topk(min(_NEAREST, len(b)), dim=1, largest=False).indices
    like = b[near]  # (n, k, K * M)
    spread = like.std(1) if like.shape[1] > 1 else torch.zeros_like(a)
    return ((a - like.median(1).values).abs() / (spread + _NOTHING)).amax(1)

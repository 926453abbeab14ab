"""Histograms of component labels in windows, and how unusual they are.

CSAD (Hsieh and Lai, BMVC 2024), section on patch histograms: a picture of which every place has the
class of a component is described by how often each class occurs in each window. Symbols: h a
histogram, mu and S mean and pseudo-inverse covariance of those of good pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

_FEW = 10  # pictures below which only variances are estimated (ours)
_ADDED = 1e-4  # to those (ours)
_CUTOFF = 1e-15  # of singular values, relative to the largest: NumPy's
_INNER = (0.2, 0.8)  # quantiles between which scores make the scale


def window_starts(size: int, side: int, overlap: float = 0.0) -> list[int]:
    """First pixels of windows along a line; a last one is aligned to the end.

    Raises:
        ValueError: a window longer than the line, or an overlap outside [0, 1).
    """
    if not 1 <= side <= size or not 0 <= overlap < 1:
        raise ValueError(f"windows of {side} px, overlapping by {overlap}, on a line of {size} px")
    step = max(1, side - int(side * overlap))
    starts = list(range(0, size - side + 1, step))
    return starts if starts[-1] == size - side else [*starts, size - side]


def window_histograms(labels: Tensor, classes: int, side: int, overlap: float = 0.0) -> Tensor:
    """Shares of the classes in square windows, one column of windows after the other.

    Args:
        labels: ``(n, h, w)`` int64 in [0, classes); 0 is the background, whose share stays 0.
        classes: K, the background included.
        side: of a window, in pixels.
        overlap: of neighbouring windows, as a share of the side.

    Returns:
        ``(n, windows * K)`` float64 in [0, 1].

    Raises:
        ValueError: windows that do not fit, or a label that is no class.
    """
    if labels.numel() and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise ValueError(f"labels {int(labels.min())}..{int(labels.max())} of {classes} classes")
    members = F.one_hot(labels.long(), classes).movedim(-1, 1)
    return window_shares(members.double(), side, overlap)


def window_shares(members: Tensor, side: int, overlap: float = 0.0) -> Tensor:
    """``window_histograms`` of places that may belong to several classes by shares.

    Args:
        members: ``(n, K, h, w)``, over the classes they sum to one.
        side, overlap: as of ``window_histograms``.
    """
    h, w = members.shape[-2:]
    shares = []
    for x in window_starts(w, side, overlap):
        for y in window_starts(h, side, overlap):
            share = members[:, :, y : y + side, x : x + side].double().mean((2, 3))
            share[:, 0] = 0
            shares.append(share)
    return torch.cat(shares, 1)


@dataclass(frozen=True)
class HistogramGaussian:
    """Mean ``(d,)`` and pseudo-inverse covariance ``(d, d)`` of good histograms, float64."""

    mean: Tensor
    inverse: Tensor

    @classmethod
    def of(cls, histograms: Tensor) -> HistogramGaussian:
        """Of good pictures' ``(n, d)``; of fewer than ten, variances alone plus 1e-4.

        Raises:
            ValueError: no histogram.
        """
        if not len(histograms):
            raise ValueError("no histogram of a good picture to compare with")
        h = histograms.double()
        mean = h.mean(0)
        if len(h) < _FEW:
            variance = h.var(0) if len(h) > 1 else torch.zeros_like(mean)
            return cls(mean, torch.diag(1 / (variance + _ADDED)))
        S = np.linalg.pinv(np.cov(h.cpu().numpy().T).reshape(len(mean), -1), rcond=_CUTOFF)
        return cls(mean, torch.from_numpy(S).to(h.device))

    def distance(self, histograms: Tensor) -> Tensor:
        """Mahalanobis distance ``(n,)`` of ``(n, d)``; the Euclidean one where it is no number.

        Rounding may leave a pseudo-inverse with directions in which squares are negative.
        """
        x = histograms.double() - self.mean
        squared = torch.einsum("ni,ij,nj->n", x, self.inverse, x)
        return torch.where(squared >= 0, squared.clamp(min=0).sqrt(), x.norm(dim=1))


@dataclass(frozen=True)
class InnerScale:
    """Mean and (biased) deviation of the scores strictly between their 20 % and 80 % quantiles."""

    mean: float
    deviation: float

    @classmethod
    def of(cls, scores: Tensor) -> InnerScale:
        """Of scores ``(n,)`` of good pictures; of all, where none lies strictly between.

        Raises:
            ValueError: no score.
        """
        if not len(scores):
            raise ValueError("no score of a good picture to scale by")
        s = scores.double()
        low, high = (torch.quantile(s, q) for q in _INNER)
        inner = s[(s > low) & (s < high)]
        inner = inner if len(inner) else s
        return cls(float(inner.mean()), float(inner.std(unbiased=False)))

    def scaled(self, scores: Tensor) -> Tensor:
        """Centred, and divided by the deviation if that is not zero."""
        return (scores - self.mean) / (self.deviation or 1.0)


def left_out_distances(histograms: Tensor) -> Tensor:
    """Distance ``(n,)`` of each of ``(n, d)`` to the Gaussian of all others; of one: zero."""
    n = len(histograms)
    if n < 2:
        return histograms.new_zeros(n, dtype=torch.float64)
    rows = torch.arange(n, device=histograms.device)
    return torch.cat(
        [HistogramGaussian.of(histograms[rows != i]).distance(histograms[i : i + 1]) for i in rows]
    )


def joint_score(distances: Sequence[Tensor], scales: Sequence[InnerScale]) -> Tensor:
    """Sum of the detectors' scaled distances ``(n,)``."""
    scaled = [scale.scaled(d) for d, scale in zip(distances, scales, strict=True)]
    return torch.stack(scaled).sum(0)

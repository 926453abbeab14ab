"""Cosine similarities between image and text features, and the probabilities made of them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def cosine(features: Tensor, texts: Tensor) -> Tensor:
    """Cosine similarity of ``features (..., D)`` with each of ``texts (T, D)``: ``(..., T)``."""
    return F.normalize(features, dim=-1) @ F.normalize(texts, dim=-1).T


def inner_products(features: Tensor, texts: Tensor) -> Tensor:
    """``(..., N, D), (..., T, D) -> (..., N, T)`` in float32, also where autocast is on.

    Similarities of unit vectors are multiplied by up to 100 before a softmax: eight bits would
    leave steps of a quarter there.
    """
    with torch.autocast(features.device.type, enabled=False):
        return features.float() @ texts.float().mT


def text_probabilities(features: Tensor, texts: Tensor, temperature: float) -> Tensor:
    """Softmax over the texts of ``cosine / temperature``: ``(..., D), (T, D) -> (..., T)``.

    Computed in float32 whatever the precision of the features: an underflowing probability would
    break harmonic means.
    """
    return (cosine(features.float(), texts.float()) / temperature).softmax(dim=-1)


def anomaly_probability(features: Tensor, texts: Tensor, temperature: float) -> Tensor:
    """Probability of the anomalous of two texts, normal and anomalous: ``(..., D) -> (...)``."""
    if texts.shape[0] != 2:
        raise ValueError(f"expected a normal and an anomalous text feature, got {texts.shape[0]}")
    return text_probabilities(features, texts, temperature)[..., 1]


def upsample(maps: Tensor, size: tuple[int, int], *, align_corners: bool = False) -> Tensor:
    """Bilinear: ``(B, h, w)`` or ``(B, T, h, w)`` -> ``(..., *size)`` float32.

    ``align_corners`` puts the corner values onto the corner pixels, as many official codes do,
    instead of half a patch inside. Maps that have the size already are given back as they are.
    """
    if maps.shape[-2:] == size:
        return maps.float()
    channels = (maps if maps.dim() == 4 else maps[:, None]).float()
    resized = F.interpolate(channels, size, mode="bilinear", align_corners=align_corners)
    return resized if maps.dim() == 4 else resized[:, 0]


def highest_mean(maps: Tensor, share: float) -> Tensor:
    """Mean of the highest share of each map's values, of one at least: ``(B, ...) -> (B,)``."""
    values = maps.flatten(1)
    return values.topk(max(1, round(share * values.shape[1])), dim=1).values.mean(dim=1)


def peak_and_spread(maps: Tensor, share: float) -> Tensor:
    """Half the highest value, which shows small damage, and half ``highest_mean``: ``(B,)``."""
    return (highest_mean(maps, 0) + highest_mean(maps, share)) / 2


def two_class(difference: Tensor) -> Tensor:
    """Softmax of two logits from their difference (second - first), ``(B, ...) -> (B, 2, ...)``.

    A linear step before the softmax, such as ``upsample``, then has one channel to do, not two.
    """
    return torch.stack([(-difference).sigmoid(), difference.sigmoid()], dim=1)


def harmonic_mean(maps: list[Tensor]) -> Tensor:
    """Element-wise harmonic mean of equally shaped positive maps."""
    return len(maps) / torch.stack([1 / m for m in maps]).sum(0)

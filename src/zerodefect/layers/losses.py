"""Losses that the trainable methods share; all take probabilities, explicit ``(B, ...)`` shapes.

The field's code squeezes singleton axes and so mistakes a batch of one for rows of an image; these
keep the batch axis, which changes nothing for larger batches.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def focal_loss(probabilities: Tensor, masks: Tensor) -> Tensor:
    """Focal loss (Lin et al., ICCV 2017) of two-class probabilities, mean over all pixels.

    ``-(1 - pt)^2 log pt`` with ``pt = sum_c clamp(onehot_c, s, 1 - s) p_c + s`` and s = 1e-5, the
    form that AnomalyCLIP, AdaCLIP, VCP-CLIP and their kin use.

    Args:
        probabilities: ``(B, 2, H, W)``, normal and anomalous.
        masks: ``(B, H, W)``, 1 where anomalous.
    """
    smooth = 1e-5
    anomalous = masks.to(probabilities.dtype).clamp(smooth, 1 - smooth)
    normal = (1 - masks.to(probabilities.dtype)).clamp(smooth, 1 - smooth)
    pt = normal * probabilities[:, 0] + anomalous * probabilities[:, 1] + smooth
    return (-((1 - pt) ** 2.0) * pt.log()).mean()


def dice_loss(probability: Tensor, masks: Tensor) -> Tensor:
    """``1 - mean_b (2 sum p m + 1) / (sum p + sum m + 1)``, sums over each image.

    Args:
        probability: ``(B, H, W)`` of the class that ``masks`` marks.
        masks: ``(B, H, W)``, 1 inside.
    """
    p, m = probability.flatten(1), masks.to(probability.dtype).flatten(1)
    return 1 - ((2 * (p * m).sum(1) + 1) / (p.sum(1) + m.sum(1) + 1)).mean()


def map_losses(maps: Sequence[Tensor], masks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Focal loss, and Dice losses of anomalous and normal, each summed over the taps' maps.

    Arguments as of ``focal_loss``, one ``(B, 2, H, W)`` per tap.
    """
    focal = torch.stack([focal_loss(p, masks) for p in maps]).sum()
    anomalous = torch.stack([dice_loss(p[:, 1], masks) for p in maps]).sum()
    normal = torch.stack([dice_loss(p[:, 0], 1 - masks) for p in maps]).sum()
    return focal, anomalous, normal


def map_terms(
    maps: Sequence[Tensor], masks: Tensor, weight: float | Tensor = 1.0
) -> dict[str, Tensor]:
    """``map_losses`` by their usual names, each times ``weight``."""
    names = ("focal", "dice_abnormal", "dice_normal")
    return {n: weight * loss for n, loss in zip(names, map_losses(maps, masks), strict=True)}

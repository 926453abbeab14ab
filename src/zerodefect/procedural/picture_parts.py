"""Regions of a photograph that stand for parts of a product, found without any network.

``coloured_parts`` are places of one colour that hang together; ``random_regions`` mean nothing
(LogicAL, arXiv 2405.06875, calls both kinds of region semantic and semantic-agnostic).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

from zerodefect.layers.component_maps import cluster_centres, nearest_centre
from zerodefect.layers.components import components, eroded
from zerodefect.procedural.draws import Draws

_COLOURS = (3, 5, 8)  # clusters of colours, coarse to fine
_CLUSTERED = 1000  # pixels, at most, whose colours are clustered
_SEEN = 160  # pixels of the longer side at which parts are told apart
_SHARES = (0.003, 0.35)  # of the picture that a part takes
_SOLID = 0.45  # of its box that a part fills, and of itself that is left when it is eroded
_SAME = 0.7  # overlap by union from which two parts are one
_AREAS = (0.01, 0.08)  # of the picture that each random shape takes
_ASPECTS = (0.3, 3.3)


def coloured_parts(image: Tensor, seed: int = 0) -> Tensor:
    """Connected places of one colour, their holes filled: parts, as far as colour tells them.

    Args:
        image: ``(3, H, W)`` in [0, 1].
        seed: of the clustering of colours.

    Returns:
        ``(n, H, W)`` bool, the largest first; they may overlap, since colours are told apart
        coarsely and finely. Each takes between 0.3 and 35 % of the picture; what is thin or fills
        a border of the picture is none. There may be none.
    """
    height, width = image.shape[-2:]
    small = _resized(image, _SEEN / max(height, width))
    few = _resized(image, math.sqrt(_CLUSTERED / (height * width))).flatten(1).T
    found: list[Tensor] = []
    for colours in _COLOURS:
        centres = cluster_centres(few, colours, seed)
        labels = nearest_centre(small.flatten(1).T, centres).view(small.shape[-2:])
        for mask in _parts_of(labels, len(centres)):
            if all(_overlap(mask, other) < _SAME for other in found):
                found.append(mask)
    if not found:
        return torch.zeros(0, height, width, dtype=torch.bool, device=image.device)
    masks = torch.stack(found)
    masks = masks[masks.sum((1, 2)).argsort(descending=True, stable=True)]
    return F.interpolate(masks[:, None].float(), (height, width), mode="nearest")[:, 0] > 0


def _parts_of(labels: Tensor, count: int) -> list[Tensor]:
    """Connected places of each cluster that are compact enough to be something."""
    found, least = [], max(4, int(_SHARES[0] * labels.numel()))
    for number in range(count):
        own = components(labels == number, least)
        for mask, box in zip(own.masks, own.boxes.tolist(), strict=True):
            filled = torch.from_numpy(ndimage.binary_fill_holes(mask.cpu().numpy())).to(mask.device)
            area, (left, top, right, bottom) = float(filled.sum()), box
            solid = area >= _SOLID * (right - left) * (bottom - top)
            solid &= float(eroded(filled).sum()) >= _SOLID * area
            if area <= _SHARES[1] * labels.numel() and solid and not _fills_border(filled):
                found.append(filled)
    return found


def _overlap(one: Tensor, other: Tensor) -> float:
    return float((one & other).sum()) / float((one | other).sum())


def _resized(image: Tensor, share: float) -> Tensor:
    if share >= 1:
        return image
    size = [max(1, round(side * share)) for side in image.shape[-2:]]
    return F.interpolate(image[None], size, mode="bilinear", antialias=True)[0]


def _fills_border(mask: Tensor) -> bool:
    sides = (mask[0], mask[-1], mask[:, 0], mask[:, -1])
    return any(float(side.float().mean()) > 0.5 for side in sides)


def random_regions(draws: Draws, size: tuple[int, int]) -> Tensor:
    """Three ellipses or rectangles joined, for each picture: ``(B, H, W)`` bool.

    Each takes 1 to 8 % of the picture and is 0.3 to 3.3 times as wide as high.
    """
    height, width = size
    y = ((torch.arange(height, device=draws.device) + 0.5) / height)[None, :, None]
    x = ((torch.arange(width, device=draws.device) + 0.5) / width)[None, None]
    joined = torch.zeros(len(draws), height, width, dtype=torch.bool, device=draws.device)
    for number in range(3):
        own = draws.under(f"region{number}")
        area, aspect = own.uniform("area", *_AREAS), own.log_uniform("aspect", *_ASPECTS)
        aspect = aspect * height / width  # of shares of the sides, not of pixels
        round_ = own.chance("round", 0.5)
        fill = torch.where(round_, torch.tensor(math.pi / 4), torch.tensor(1.0)).to(draws.device)
        w, h = (area / fill * aspect).sqrt(), (area / fill / aspect).sqrt()
        cx, cy = own.uniform("x"), own.uniform("y")
        u = (2 * (x - cx[:, None, None]) / w[:, None, None]).abs()
        v = (2 * (y - cy[:, None, None]) / h[:, None, None]).abs()
        inside = torch.where(round_[:, None, None], u.square() + v.square() <= 1, u.maximum(v) <= 1)
        joined |= inside
    return joined

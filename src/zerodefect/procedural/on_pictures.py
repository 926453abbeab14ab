"""Damage on good pictures of real products: what a method learns from where there are only those.

``perlin`` is DRAEM's, ``procedural`` the kinds that the project draws over its own products, laid
over the picture's product. Both are drawn at the picture's size, or smaller and enlarged.
``logical`` edits parts (``part_edits.py``): those edits that need no other picture.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from zerodefect.procedural.damage_kinds import LAID
from zerodefect.procedural.draws import Draws, Field, by_name, column
from zerodefect.procedural.part_edits import edit_picture
from zerodefect.procedural.perlin import colourless, perlin_damage
from zerodefect.procedural.pictures import visible
from zerodefect.procedural.scene import Scene, damage_spots

DamageSort = Literal["perlin", "procedural", "both", "logical"]

_MOST_SIDE = 512  # pixels at which damage is drawn; larger pictures get it enlarged
_APART = 0.12  # colour distance from the border's at which a pixel belongs to a product
_CLEAR = 0.7  # how much more of a product's pixels than of its ground's stand out; textures: 0.4
_SHARES = (0.05, 0.9)  # of the picture that a product on a plain ground takes


@dataclass(frozen=True)
class DamagedPictures:
    """Pictures with the truth about them.

    Attributes:
        images: ``(B, 3, H, W)`` in the range of those given.
        masks: ``(B, H, W)`` bool, what counts as damaged; empty where nothing is left to see.
        kinds: ``perlin``, a name of ``DEFECT_KINDS``, or kind and edit of ``part_edits.py``, such
            as ``logical move``, of each picture; ``none`` where no part could be edited.
    """

    images: Tensor
    masks: Tensor
    kinds: list[str]


def drawn_from(generator: torch.Generator, count: int, device: torch.device | str) -> Draws:
    """Draws for ``count`` pictures that come from a generator on the CPU, one number for each."""
    numbers = torch.randint(2**62, (count,), generator=generator).numpy().astype(np.uint64)
    return Draws(0, numbers, torch.device(device))


@torch.no_grad()
def damage_pictures(images: Tensor, draws: Draws, sort: DamageSort = "perlin") -> DamagedPictures:
    """Damage every picture; what is drawn on one does not depend on the others of its batch.

    Args:
        images: ``(B, 3, H, W)`` good pictures in [0, 1].
        draws: of as many pictures, on their device.
        sort: which damage; ``both`` tosses a coin between the first two.
    """
    if sort == "logical":
        return _edited(images, draws)
    height, width = images.shape[-2:]
    share = min(1.0, _MOST_SIDE / max(height, width))
    size = (max(1, round(height * share)), max(1, round(width * share)))
    small = F.interpolate(images, size, mode="bilinear", antialias=True) if share < 1 else images
    chances = {"perlin": float(sort != "procedural"), "procedural": float(sort != "perlin")}
    changed, masks = small.clone(), torch.zeros_like(small[:, 0], dtype=torch.bool)
    kinds = draws.weighted("sort", chances)
    for name, rows in by_name(list(kinds), images.device):
        if name == "perlin":
            changed[rows], masks[rows] = perlin_damage(small[rows], draws.rows(rows))
            continue
        changed[rows], masks[rows], own = _laid(small[rows], draws.rows(rows))
        for row, kind in zip(rows.tolist(), own, strict=True):
            kinds[row] = kind
    if share < 1:
        step = F.interpolate(changed - small, (height, width), mode="bilinear")
        masks = F.interpolate(masks[:, None].float(), (height, width))[:, 0] > 0
        changed = (images + step).clamp(0, 1)
    return DamagedPictures(changed, masks, kinds)


def _edited(images: Tensor, draws: Draws) -> DamagedPictures:
    changed, masks = images.clone(), torch.zeros_like(images[:, 0], dtype=torch.bool)
    kinds = ["none"] * len(images)
    for row, image in enumerate(images):
        own = draws.rows(torch.tensor([row], device=images.device))
        try:
            made = edit_picture(image, own)
        except ValueError:  # nothing on it that could be edited
            continue
        changed[row], masks[row], kinds[row] = made.image, made.mask, f"{made.kind} {made.edit}"
    return DamagedPictures(changed, masks, kinds)


def _laid(images: Tensor, draws: Draws) -> tuple[Tensor, Tensor, list[str]]:
    """The kinds that are laid over products, on a square plane that the picture fills."""
    height, width = images.shape[-2:]
    plane = Field(max(height, width), images.device)
    square = F.interpolate(images, (plane.size,) * 2, mode="bilinear", align_corners=False)
    scene, distance = photographed(square, draws, plane)
    kinds = draws.weighted("kind", dict.fromkeys(LAID, 1.0))
    step, masks = torch.zeros_like(square), torch.zeros_like(square[:, 0], dtype=torch.bool)
    strong = torch.full((len(draws),), 9.0, device=images.device)
    for kind, rows in by_name(kinds, images.device):
        own = scene.rows(rows)
        damage = LAID[kind](draws.rows(rows), own)
        alpha, masks[rows] = visible(damage, own.clean, distance[rows] < 0.5, strong[rows])
        step[rows] = (damage.target - own.clean) * alpha[:, None]
    if height != width:
        step = F.interpolate(step, (height, width), mode="bilinear", align_corners=False)
        masks = F.interpolate(masks[:, None].float(), (height, width))[:, 0] > 0
    return (images + step).clamp(0, 1), masks, kinds


def product_distance(images: Tensor, plane: Field) -> tuple[Tensor, Tensor]:
    """About the distance to the product's border, and the colour of the picture's border.

    A product is told from a plain ground by that colour. Where nothing or nearly everything stands
    out, or what does lies all over, as in a texture, the whole picture is the product.

    Args:
        images: ``(B, 3, S, S)`` in [0, 1].
        plane: of S pixels a side.

    Returns:
        ``(B, S, S)``, negative on the product, in units of the plane, and ``(B, 3, 1, 1)``.
    """
    edge = torch.cat([images[..., 0, :], images[..., -1, :], images[..., 0], images[..., -1]], -1)
    ground = edge.median(-1).values[..., None, None]
    apart = ((images - ground).abs().amax(1) > _APART).float()
    side = _near(plane)
    near = F.avg_pool2d(apart[:, None], side, 1, side // 2)[:, 0]
    on = (near > 0.5).float()
    share, far = on.mean((1, 2)), apart.sum((1, 2))
    inside = (apart * on).sum((1, 2))
    outside = (far - inside) / (1 - on).sum((1, 2)).clamp_min(1)
    clear = inside / on.sum((1, 2)).clamp_min(1) - outside > _CLEAR
    whole = ~clear | (share < _SHARES[0]) | (share > _SHARES[1])
    return torch.where(column(whole), -20.0, 20 * (0.5 - near)), ground


def _near(plane: Field) -> int:
    """Pixels of about 8 units, an odd number."""
    return 2 * max(1, plane.size // 32) + 1


def photographed(images: Tensor, draws: Draws, plane: Field) -> tuple[Scene, Tensor]:
    """What damage has to know of photographs, and the distance that ``product_distance`` gives.

    Args:
        images: ``(B, 3, S, S)`` in [0, 1].
        draws: decide where damage lies, and the direction of a grain.
        plane: of S pixels a side.

    Returns:
        The scene and ``(B, S, S)``, negative on the product, in units of the plane.
    """
    distance, ground = product_distance(images, plane)
    side = _near(plane)
    on = (distance < 0)[:, None].float()
    area = on.sum((1, 2, 3)).clamp_min(1)
    colour = (images * on).sum((2, 3)) / area[:, None]
    level = colour.mean(1)
    grey = images.mean(1, keepdim=True)
    smooth = F.avg_pool2d(grey, side, 1, side // 2, count_include_pad=False)
    contrast = (((grey - smooth).square() * on).sum((1, 2, 3)) / area).sqrt()
    centre, border = damage_spots(draws, distance, plane)
    scene = Scene(
        plane=plane,
        clean=images,
        background=ground.expand_as(images).clone(),
        level=level,
        colour=colour,
        contrast=contrast,
        grain=draws.uniform("grain", 0, math.pi),
        grey=colourless(images),
        centre=centre,
        border=border,
    )
    return scene, distance

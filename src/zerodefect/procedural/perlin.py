"""DRAEM's damage (Zavrtanik et al., ICCV 2021): another texture shows where Perlin noise is high.

Symbols: I the good picture, M the mask, A the other texture, beta what of I still shows through.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from zerodefect.procedural.draws import NOISES, Draws, Field, by_name, column, smoothstep

_MOST = 5  # the finest lattice has 2 ** 5 cells a side
_THRESHOLD = 0.5
_GREY = 0.03  # mean difference of the channels
_MOST_SEEN = 0.8  # of the good picture, at most, in damaged places


def perlin_noise(unit: Tensor, size: tuple[int, int]) -> Tensor:
    """Perlin's gradient noise with the fade 6 t^5 - 15 t^4 + 10 t^3, times the root of two.

    Args:
        unit: ``(sy + 1, sx + 1)`` directions of the lattice's gradients in turns, in [0, 1).
        size: ``(H, W)``; the lattice spans the next powers of two, of which this is cut out.

    Returns:
        ``(H, W)``, mostly in [-1, 1].
    """
    cells = [side - 1 for side in unit.shape]
    angle = 2 * math.pi * unit
    gradients = torch.stack([torch.cos(angle), torch.sin(angle)], -1)
    corners, shares = [], []
    for count, side in zip(cells, size, strict=True):
        whole = 1 << (side - 1).bit_length()
        place = torch.arange(side, device=unit.device, dtype=torch.float64) * count / whole
        corners.append(place.floor().long())
        shares.append((place - place.floor()).to(unit.dtype))
    (rows, columns), (y, x) = corners, shares
    y, x = y[:, None], x[None]

    def product(down: int, right: int) -> Tensor:
        at = gradients[(rows + down)[:, None], (columns + right)[None]]  # (H, W, 2)
        return at[..., 0] * (y - down) + at[..., 1] * (x - right)

    fade_y, fade_x = (t**3 * (t * (6 * t - 15) + 10) for t in (y, x))
    left = torch.lerp(product(0, 0), product(1, 0), fade_y)
    right = torch.lerp(product(0, 1), product(1, 1), fade_y)
    return math.sqrt(2) * torch.lerp(left, right, fade_x)


def turned_pictures(pictures: Tensor, radians: Tensor) -> Tensor:
    """``(B, C, H, W)`` turned about their centres by ``(B,)``; zero comes in from outside."""
    height, width = pictures.shape[-2:]
    cos, sin, none = torch.cos(radians), torch.sin(radians), torch.zeros_like(radians)
    # in units of half a side, which differ where the picture is not square
    first = torch.stack([cos, -sin * (height / width), none], -1)
    second = torch.stack([sin * (width / height), cos, none], -1)
    turn = torch.stack([first, second], 1).to(pictures.dtype)
    grid = F.affine_grid(turn, list(pictures.shape), align_corners=False)
    return F.grid_sample(pictures, grid, align_corners=False)


def perlin_masks(draws: Draws, size: tuple[int, int]) -> Tensor:
    """``(B, H, W)`` bool: where noise of a random scale, turned at random, is above 0.5."""
    down, across = (draws.integers(f"perlin.{way}", _MOST + 1) for way in ("down", "across"))
    lattice = draws.uniforms("perlin.lattice", (2**_MOST + 1) ** 2)
    noises = []
    for unit, a, b in zip(lattice, down.tolist(), across.tolist(), strict=True):
        shape = (2**a + 1, 2**b + 1)
        noises.append(perlin_noise(unit[: shape[0] * shape[1]].view(shape), size))
    angle = draws.uniform("perlin.angle", -math.pi / 2, math.pi / 2)
    return turned_pictures(torch.stack(noises)[:, None], angle)[:, 0] > _THRESHOLD


def textures(draws: Draws, size: tuple[int, int], grey: Tensor) -> Tensor:
    """``(B, 3, H, W)`` in [0, 1]: spots, stripes, clouds and grain in random colours.

    They stand where the paper takes photographs of textures, which the project does not have.
    ``grey (B,)`` are those without colour.
    """
    plane = Field(max(size), draws.device)
    tones = []
    for layer in ("ground", "detail"):
        own = draws.under(f"texture/{layer}")
        scale, stretch = own.log_uniform("scale", 0.2, 6.0), own.log_uniform("stretch", 0.7, 12.0)
        read = plane.turned(own.uniform("angle", 0, math.pi))
        tone = torch.zeros(len(own), plane.size, plane.size, device=draws.device)
        names = own.weighted("noise", dict.fromkeys(NOISES, 1.0))
        for noise, rows in by_name(names, draws.device):
            at = (read[0][rows], read[1][rows])
            how = (scale[rows], stretch[rows], at)
            tone[rows] = plane.noise(own.rows(rows), "tone", noise, *how)
        soft = column(own.log_uniform("soft", 0.05, 2.5))
        tones.append(smoothstep(-soft, soft, tone - column(own.uniform("level", -0.8, 0.8))))
    ground, detail = (tone[:, None, : size[0], : size[1]] for tone in tones)
    colours = draws.uniforms("texture/colours", 9).view(-1, 3, 3)
    colours = torch.where(grey[:, None, None], colours.mean(2, keepdim=True), colours)
    dark, bright, spots = colours[..., None, None].unbind(1)
    texture = dark + (bright - dark) * ground
    return texture + (spots - texture) * detail * column(draws.uniform("texture/amount"))[:, None]


def perlin_damage(images: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
    """``I (1 - M) + (1 - beta) A M + beta I M`` and M, with beta uniform in [0, 0.8).

    What is laid on pictures without colour has none either: it would be told by that alone.

    Args:
        images: ``(B, 3, H, W)`` good pictures in [0, 1].
        draws: of as many pictures.

    Returns:
        ``(B, 3, H, W)`` pictures and ``(B, H, W)`` bool masks; a mask may be empty.
    """
    size = (images.shape[-2], images.shape[-1])
    masks = perlin_masks(draws, size)
    beta = draws.uniform("beta", 0, _MOST_SEEN)
    return blended(images, masks, textures(draws, size, colourless(images)), beta), masks


def colourless(images: Tensor) -> Tensor:
    """``(B,)`` bool: pictures ``(B, 3, H, W)`` whose channels hardly differ."""
    return (images.amax(1) - images.amin(1)).mean((1, 2)) < _GREY


def blended(images: Tensor, M: Tensor, A: Tensor, beta: Tensor) -> Tensor:
    """The picture with the texture in it; ``beta (B,)``, the others as in ``perlin_damage``."""
    m, b = M[:, None].to(images.dtype), beta[:, None, None, None]
    return images * (1 - m) + (1 - b) * A * m + b * images * m

"""Augmentations of the papers: images and masks changed together, by draws of their own."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from zerodefect.images import CLIP_MEAN

Augmentation = Callable[[Tensor, Tensor, torch.Generator], tuple[Tensor, Tensor]]


def vcp(image: Tensor, mask: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """VCP-CLIP's list: each step with probability one half.

    Rotation by up to 30 degrees, rotation by a multiple of 90, brightness and contrast by up to
    0.2, Gaussian noise with a variance of 10 to 50 (of 8-bit values), and one of box blur, colour
    jitter by up to 0.2 and Gaussian blur. Ranges that the paper does not give are the usual
    defaults; everything works at the network's input size.

    Args:
        image: ``(3, H, W)`` in [0, 1].
        mask: ``(H, W)`` of 0 and 1.
        generator: of the draws.
    """

    def draw(low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=generator))

    def half() -> bool:
        return draw(0, 1) < 0.5

    if half():
        image, mask = rotate(image, mask, draw(-30, 30))
    if half():
        image, mask = quarter_turns(image, mask, int(draw(0, 4)))
    if half():
        image = image * draw(0.8, 1.2) + draw(-0.2, 0.2)
    if half():
        deviation = math.sqrt(draw(10, 50)) / 255
        image = image + deviation * torch.randn(image.shape, generator=generator)
    image = image.clamp(0, 1)
    if half():
        chosen = int(draw(0, 3))
        if chosen == 0:
            image = blur(image, torch.full((3,), 1 / 3))
        elif chosen == 1:
            image = jitter(image, *(draw(-0.2, 0.2) for _ in range(3)))
        else:
            offsets = torch.arange(-3, 4, dtype=torch.float32)
            weights = (-(offsets**2) / (2 * draw(0.5, 1.4) ** 2)).exp()
            image = blur(image, weights / weights.sum())
    return image.clamp(0, 1), mask


def aa(image: Tensor, mask: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """AA-CLIP's steps that move: each with probability one half; arguments as of ``vcp``.

    Rotation by up to 30 degrees, translation by up to 15 % of the sides, and both flips. All are
    one nearest-neighbour sampling; outside lies CLIP's mean colour, which normalised pixels have
    at zero.
    """

    def draw(most: float) -> float:
        chance, place = torch.rand(2, generator=generator).tolist()
        return most * (2 * place - 1) if chance < 0.5 else 0.0

    degrees, right, down = draw(30), draw(0.15), draw(0.15)
    grid = _affine(mask.shape, degrees, right, down)
    moved = partial(F.grid_sample, grid=grid, mode="nearest", align_corners=False)
    mean = torch.tensor(CLIP_MEAN).view(3, 1, 1)
    image, mask = moved((image - mean)[None])[0] + mean, moved(mask[None, None])[0, 0]
    axes = [axis for axis in (-1, -2) if float(torch.rand((), generator=generator)) < 0.5]
    return image.flip(axes), mask.flip(axes)


def aa_colours(image: Tensor, mask: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """``aa`` after brightness, contrast and saturation, each changed by up to half (p 0.7)."""
    chance, place = torch.rand(2, 3, generator=generator).tolist()
    changes = [place[i] - 0.5 if chance[i] < 0.7 else 0.0 for i in range(3)]
    return aa(jitter(image, *changes).clamp(0, 1), mask, generator)


def _affine(size: tuple[int, ...], degrees: float, right: float = 0, down: float = 0) -> Tensor:
    """Where each pixel comes from, ``(1, H, W, 2)``: turned about the centre, moved by shares."""
    height, width = size
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    # in units of half a side, which differ where the picture is not square
    rows = [cos, -sin * height / width, -2 * right], [sin * width / height, cos, -2 * down]
    return F.affine_grid(torch.tensor([rows]), [1, 1, height, width], align_corners=False)


def rotate(image: Tensor, mask: Tensor, degrees: float) -> tuple[Tensor, Tensor]:
    """Turn about the centre; what comes in from outside is mirrored, in image and mask alike."""
    grid = _affine(mask.shape, degrees)
    turned = partial(F.grid_sample, grid=grid, padding_mode="reflection", align_corners=False)
    image = turned(image[None], mode="bilinear")[0]
    return image, turned(mask[None, None], mode="nearest")[0, 0]


def quarter_turns(image: Tensor, mask: Tensor, turns: int) -> tuple[Tensor, Tensor]:
    """Turn by 90 degrees ``turns`` times; by 180 where a picture that is not square would tip."""
    if mask.shape[0] != mask.shape[1]:
        turns = 2 * (turns % 2)
    return image.rot90(turns, (1, 2)), mask.rot90(turns, (0, 1))


def blur(image: Tensor, weights: Tensor) -> Tensor:
    """Convolve both axes of ``(3, H, W)`` with an odd number of weights, borders mirrored."""
    reach = len(weights) // 2
    padded = F.pad(image[:, None], (reach,) * 4, mode="reflect")
    rows = F.conv2d(padded, weights.view(1, 1, -1, 1))
    return F.conv2d(rows, weights.view(1, 1, 1, -1))[:, 0]


def jitter(image: Tensor, brightness: float, contrast: float, saturation: float) -> Tensor:
    """Scale by ``1 + brightness``, about the mean by ``1 + contrast``, about grey by the third."""
    image = image * (1 + brightness)
    mean = image.mean()
    image = mean + (image - mean) * (1 + contrast)
    grey = image.mean(0, keepdim=True)
    return grey + (image - grey) * (1 + saturation)


AUGMENTATIONS: dict[str, Augmentation | None] = {
    "none": None,
    "vcp": vcp,
    "aa": aa,
    "aa_colours": aa_colours,
}
"""By the name that a recipe states."""

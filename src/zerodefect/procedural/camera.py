"""Light and camera: everything that changes a picture without being damage."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from zerodefect.procedural.draws import Draws, Field, column, smoothstep


def lighting(draws: Draws, plane: Field, harshness: float) -> tuple[Tensor, Tensor]:
    """Uneven light: ``(B, S, S)`` factor and ``(B, S, S)`` reflection to add.

    ``harshness`` 0 is a light tent, 1 what careless lines have.
    """
    x, y = plane.xy
    u, _ = plane.turned(draws.uniform("light.angle", 0, 2 * math.pi))
    slope = column(draws.uniform("light.slope", -0.5, 0.5) * draws.uniform("light.sloped"))
    cloud = plane.noise(draws, "light.cloud", "smooth", draws.log_uniform("light.scale", 0.1, 0.6))
    patchy = column(draws.uniform("light.patchy", 0, 0.14) * draws.chance("light.cloudy", 0.5))
    corner = column(draws.uniform("light.corner", 0, 0.45) * draws.chance("light.vignette", 0.4))
    factor = 1 + harshness * (
        slope * u / 64 + patchy * cloud - corner * (x * x + y * y) / (2 * 64 * 64)
    )
    v, _ = plane.turned(draws.uniform("shadow.angle", 0, 2 * math.pi))
    edge = column(draws.uniform("shadow.place", -50, 50))
    width = column(draws.log_uniform("shadow.width", 12, 80))
    shade = column(draws.uniform("shadow.depth", 0.1, 0.5) * draws.chance("shadow.there", 0.2))
    factor = factor * (1 - harshness * shade * smoothstep(edge, edge + width, v))
    shine = torch.zeros_like(factor)
    for part in ("", "band."):  # a highlight, and a long reflection such as a lamp's tube
        at = draws.chance(f"{part}glare.there", 0.12 if part else 0.35).nonzero()[:, 0]
        if not len(at):
            continue
        own = draws.rows(at)
        along, across = plane.turned(own.uniform(f"{part}glare.angle", 0, math.pi))
        wide = column(own.log_uniform(f"{part}glare.wide", *((3, 14) if part else (8, 40))))
        long = column(own.log_uniform(f"{part}glare.long", *((60, 500) if part else (10, 200))))
        place = own.uniforms(f"{part}glare.place", 2, -64, 64)
        away = ((across - column(place[:, 0])) / wide) ** 2
        away = away + ((along - column(place[:, 1])) / long) ** 2
        bright = column(own.log_uniform(f"{part}glare.bright", 0.05, 0.6))
        shine[at] += bright * torch.exp(-away)
    return factor.clamp_min(0.15), harshness * shine.clamp_max(1)


def cosines(side: int) -> Tensor:
    """``(side, side)`` orthonormal DCT-II matrix, float64."""
    n = torch.arange(side, dtype=torch.float64)
    matrix = torch.cos(math.pi * (2 * n[None] + 1) * n[:, None] / (2 * side)) * (2 / side) ** 0.5
    matrix[0] /= math.sqrt(2)
    return matrix


def _blocked(image: Tensor, step: Tensor) -> Tensor:
    """Round the cosine coefficients of 8x8 blocks, coarser at high frequency, as JPEG does."""
    count, channels, height, width = image.shape
    dct = cosines(8).to(image)
    blocks = image.view(count, channels, height // 8, 8, width // 8, 8).transpose(3, 4)
    order = torch.arange(8, device=image.device, dtype=torch.float32)
    table = step[:, None, None, None, None, None] * (1 + 0.6 * (order[:, None] + order[None]))
    coefficients = dct @ blocks @ dct.T
    rounded = torch.round(coefficients / table) * table
    return (dct.T @ rounded @ dct).transpose(3, 4).reshape(count, channels, height, width)


def _blurred(image: Tensor) -> Tensor:
    """Binomial 5x5 blur, standard deviation one pixel."""
    weights = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)
    for axis, pad in ((3, (2, 2, 0, 0)), (2, (0, 0, 2, 2))):
        padded, length = F.pad(image, pad, mode="replicate"), image.shape[axis]
        image = weights[0] * padded.narrow(axis, 0, length)
        for i, weight in enumerate(weights[1:], 1):
            image.add_(padded.narrow(axis, i, length), alpha=weight)
    return image


def exposed(draws: Draws, plane: Field, light: Tensor, harshness: float) -> Tensor:
    """What the camera stores of ``light (B, 3, S, S)``: in [0, 1], rounded to 8 bits.

    ``harshness`` 0 is a good camera, 1 what careless lines have.
    """
    at = draws.chance("camera.blurred", 0.6).nonzero()[:, 0]
    if len(at):
        share = draws.rows(at).uniform("camera.blur") * harshness
        sharp = light[at]
        light = light.index_copy(0, at, torch.lerp(sharp, _blurred(sharp), share.view(-1, 1, 1, 1)))
    gain = 1 + harshness * draws.uniform("camera.gain", -0.35, 0.2)
    lift = harshness * draws.uniform("camera.lift", -0.06, 0.1)
    light = light * gain[:, None, None, None] + lift[:, None, None, None]
    sigma = draws.log_uniform("camera.noise", 0.002, 0.035) * max(harshness, 0.2)
    noise = plane.noise(draws, "camera.noise", "white", 1 / plane.step)  # a value per pixel
    light = light + (column(sigma) * noise)[:, None]
    packed = draws.chance("camera.jpeg", 0.25 * harshness).nonzero()[:, 0]
    if len(packed) and plane.size % 8 == 0:
        step = draws.rows(packed).log_uniform("camera.step", 0.01, 0.08)
        light[packed] = _blocked(light[packed].contiguous(), step)
    return torch.round(light.clamp(0, 1) * 255) / 255

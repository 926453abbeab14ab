"""Surfaces: what an undamaged material looks like close up."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from zerodefect.procedural.draws import Draws, Field, column, smoothstep

Painter = Callable[[Draws, Draws, Field], Tensor]
"""(identity, picture, plane) -> ``(B, S, S)`` tone of about zero mean and unit size.

``identity`` says what the material is (how coarse, which way the grain runs) and is the same for
all pictures of one product; ``picture`` says where on the material this picture was taken.
"""


def grain_angle(identity: Draws, picture: Draws) -> Tensor:
    """``(B,)`` direction of the grain: upright or level in six of ten products, as parts lie."""
    free = identity.uniform("grain.angle", 0, math.pi)
    upright = torch.where(identity.chance("grain.upright", 0.5), math.pi / 2, 0.0)
    angle = torch.where(identity.chance("grain.free", 0.4), free, upright)
    return angle + picture.uniform("grain.jitter", -0.04, 0.04)


def _fractal(identity: Draws, picture: Draws, plane: Field) -> Tensor:
    scale = identity.log_uniform("fractal.scale", 0.3, 2.0)
    coarse = plane.noise(picture, "fractal.coarse", "cloud", scale)
    fine = plane.noise(picture, "fractal.fine", "pink", scale)
    share = column(identity.uniform("fractal.share"))
    return share * coarse + (1 - share) * fine


def _brushed(identity: Draws, picture: Draws, plane: Field) -> Tensor:
    at = plane.turned(grain_angle(identity, picture))
    stretch = identity.log_uniform("brushed.stretch", 15, 120)
    fine = plane.noise(picture, "brushed.fine", "white", 1.0, stretch, at)
    coarse = plane.noise(picture, "brushed.coarse", "pink", 0.5, stretch * 1.5, at)
    return 0.7 * fine + column(identity.uniform("brushed.coarse", 0.1, 0.8)) * coarse


def _ground(identity: Draws, picture: Draws, plane: Field) -> Tensor:
    at = plane.turned(grain_angle(identity, picture))
    stretch = identity.log_uniform("ground.stretch", 3, 12)
    short = plane.noise(picture, "ground.short", "rough", 1.0, stretch, at)
    return short + 0.4 * plane.noise(picture, "ground.fine", "white", 1.0)


def _cast(identity: Draws, picture: Draws, plane: Field) -> Tensor:
    scale = identity.log_uniform("cast.scale", 0.8, 2.0)
    lumps = plane.noise(picture, "cast.lumps", "grains", scale)
    shade = plane.noise(picture, "cast.shade", "cloud", 0.7)
    fine = plane.noise(picture, "cast.fine", "rough", 1.0)
    return 0.6 * lumps + 0.5 * shade + 0.5 * fine


def _warped(picture: Draws, plane: Field, angle: Tensor, amount: Tensor) -> tuple:
    """Turned coordinates that wander a little, as real threads and grains do."""
    u, v = plane.turned(angle)
    off_u, off_v = (plane.noise(picture, f"warp.{way}", "smooth", 0.6) for way in "uv")
    return u + column(amount) * off_u, v + column(amount) * off_v


def _weave(identity: Draws, picture: Draws, plane: Field) -> Tensor:
    angle = grain_angle(identity, picture)
    u, v = _warped(picture, plane, angle, identity.uniform("weave.bend", 0.2, 1.5))
    period = identity.log_uniform("weave.period", 4, 14)
    rate_u = column(math.pi / period)
    rate_v = column(math.pi / (period * identity.uniform("weave.ratio", 0.8, 1.25)))
    over = 0.5 + 0.5 * torch.tanh(3 * torch.sin(u * rate_u) * torch.sin(v * rate_v))
    threads = over * torch.cos(2 * u * rate_u) + (1 - over) * torch.cos(2 * v * rate_v)
    fuzz = plane.noise(picture, "weave.fuzz", "rough", 1.0)
    return 0.9 * threads + column(identity.uniform("weave.fuzz", 0.1, 0.6)) * fuzz


def _leather(identity: Draws, picture: Draws, plane: Field) -> Tensor:
    scale = identity.log_uniform("leather.scale", 0.7, 2.5)
    folds = plane.noise(picture, "leather.a", "cells", scale).abs()
    folds = torch.minimum(folds, plane.noise(picture, "leather.b", "cells", scale).abs() + 0.1)
    fine = plane.noise(picture, "leather.fine", "rough", 1.0)
    return 1.6 * (smoothstep(0.0, 0.6, folds) - 0.7) + 0.3 * fine


def _wood(identity: Draws, picture: Draws, plane: Field) -> Tensor:
    at = plane.turned(grain_angle(identity, picture))
    bend = plane.noise(picture, "wood.bend", "smooth", 0.35, 3.0, at)
    period = identity.log_uniform("wood.period", 4, 22)
    wander = column(identity.uniform("wood.wander", 2, 9))
    rings = torch.sin((at[1] + wander * bend) * column(2 * math.pi / period))
    pores = plane.noise(picture, "wood.pores", "rough", 1.0, 14.0, at)
    return 0.7 * rings + 0.5 * pores


def _stone(identity: Draws, picture: Draws, plane: Field) -> Tensor:
    scale = identity.log_uniform("stone.scale", 0.8, 2.5)
    spots = plane.noise(picture, "stone.spots", "grains", scale)
    dots = plane.noise(picture, "stone.dots", "rough", 1.0)
    threshold = column(identity.uniform("stone.threshold", 0.2, 1.2))
    return 1.3 * (smoothstep(threshold, threshold + 0.6, spots) - 0.2) + 0.5 * dots


def _granules(identity: Draws, picture: Draws, plane: Field) -> Tensor:
    scale = identity.log_uniform("granules.scale", 0.6, 2.2)
    grains = plane.noise(picture, "granules.a", "grains", scale)
    shade = plane.noise(picture, "granules.b", "grains", scale * 1.6)
    return torch.tanh(1.5 * grains) * 0.9 + 0.35 * shade


def _tiles(identity: Draws, picture: Draws, plane: Field) -> Tensor:
    u, v = plane.turned(grain_angle(identity, picture))
    period = column(identity.log_uniform("tiles.period", 18, 70))
    u = u + column(picture.uniform("tiles.u", 0, 70))
    v = v + column(picture.uniform("tiles.v", 0, 70))
    width = column(identity.uniform("tiles.width", 0.5, 2.5))
    # how far the nearest joint is
    joint = torch.minimum(*((x / period - torch.round(x / period)).abs() * period for x in (u, v)))
    lines = 1 - smoothstep(width, width + 1.2, joint)
    sign = column(torch.where(identity.chance("tiles.bright", 0.35), 1.0, -1.0))
    fine = plane.noise(picture, "tiles.fine", "pink", 1.0)
    return 2.0 * sign * lines + 0.35 * fine


def _stripes(identity: Draws, picture: Draws, plane: Field) -> Tensor:
    _, v = plane.turned(grain_angle(identity, picture))
    rate = column(2 * math.pi / identity.log_uniform("stripes.period", 4, 40))
    sharp = column(identity.log_uniform("stripes.sharp", 0.5, 8))
    wave = torch.sin(v * rate + column(picture.uniform("stripes.phase", 0, 6.28)))
    fine = plane.noise(picture, "stripes.fine", "rough", 1.0)
    return torch.tanh(sharp * wave) + 0.25 * fine


def _mesh(identity: Draws, picture: Draws, plane: Field) -> Tensor:
    u, v = plane.turned(grain_angle(identity, picture))
    rate = column(math.pi / identity.log_uniform("mesh.period", 5, 16))
    bars = torch.maximum(torch.cos(u * rate).abs(), torch.cos(v * rate).abs())
    edge = column(identity.uniform("mesh.edge", 0.55, 0.85))
    fine = plane.noise(picture, "mesh.fine", "rough", 1.0)
    return 1.6 * (smoothstep(edge - 0.15, edge + 0.15, bars) - 0.6) + 0.25 * fine


def _paper(identity: Draws, picture: Draws, plane: Field) -> Tensor:
    scale = identity.log_uniform("paper.scale", 0.5, 1)
    fibres = plane.noise(picture, "paper.fibres", "rough", scale)
    return 0.4 * fibres + 0.3 * plane.noise(picture, "paper.cloud", "cloud", 1.0)


def _plain(identity: Draws, picture: Draws, plane: Field) -> Tensor:
    scale = identity.log_uniform("plain.scale", 0.1, 0.5)
    return 0.4 * plane.noise(picture, "plain", "smooth", scale)


def _rolled(identity: Draws, picture: Draws, plane: Field) -> Tensor:
    """Hot-rolled steel: noisy, with short strokes along the grain and clouds of scale."""
    at = plane.turned(grain_angle(identity, picture))
    stretch = identity.log_uniform("rolled.stretch", 1.5, 8)
    strokes = plane.noise(picture, "rolled.strokes", "rough", 1.2, stretch, at)
    speckle = plane.noise(picture, "rolled.speckle", "white", 1.3)
    clouds = plane.noise(picture, "rolled.clouds", "cloud", 0.8, 2.0, at)
    share = column(identity.uniform("rolled.share", 0.1, 0.7))
    return 0.6 * strokes + 0.6 * speckle + share * clouds


def _glass(identity: Draws, picture: Draws, plane: Field) -> Tensor:
    """Film or glass: smooth gradients and soft parallel reflections."""
    u, _ = plane.turned(identity.uniform("glass.angle", 0, math.pi))
    slope = column(identity.uniform("glass.slope", -1.5, 1.5)) * u / 64
    rate = column(2 * math.pi / identity.log_uniform("glass.period", 30, 150))
    wave = torch.sin(u * rate + column(picture.uniform("glass.phase", 0, 6.28)))
    bands = column(identity.uniform("glass.bands", 0, 0.8)) * wave.clamp_min(0) ** 3
    return slope + bands + 0.2 * plane.noise(picture, "glass.haze", "smooth", 0.5)


SURFACES: dict[str, Painter] = {
    "fractal": _fractal, "brushed": _brushed, "ground": _ground, "cast": _cast, "weave": _weave,
    "leather": _leather, "wood": _wood, "stone": _stone, "granules": _granules, "tiles": _tiles,
    "stripes": _stripes, "mesh": _mesh, "paper": _paper, "rolled": _rolled, "glass": _glass,
    "plain": _plain,
}  # fmt: skip
SURFACE_WEIGHTS = {
    "fractal": 2.0, "brushed": 2.5, "ground": 2.0, "cast": 1.5, "rolled": 2.5, "paper": 1.5,
    "plain": 2.0,
}  # fmt: skip
"""How much more often than once a surface is drawn; metal and plain parts are what lines make."""

"""Damage: where it covers the product and what is seen there instead."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from zerodefect.data.procedural.draws import Draws, Field, column, smoothstep

DEFECT_KINDS = (
    "scratch",
    "crack",
    "hole",
    "stain",
    "contamination",
    "break",
    "discolouration",
    "dent",
    "uneven surface",
    "fray",
)
"""Canonical names of the kinds that are drawn; ``kind`` is a position in this tuple."""


@dataclass(frozen=True)
class Scene:
    """An undamaged batch, as far as damage has to know it.

    Attributes:
        plane: the picture plane.
        clean: ``(B, 3, S, S)`` reflectance in [0, 1].
        background: ``(B, 3, S, S)`` what lies behind the product.
        level: ``(B,)`` mean brightness of the product.
        contrast: ``(B,)`` standard deviation of its texture.
        grain: ``(B,)`` direction of its grain in radians.
        grey: ``(B,)`` bool, pictures without colour.
        centre: ``(B, 2)`` a point on the product, in units of the plane.
        border: ``(B, 2)`` a point on its border (or on the picture's).
    """

    plane: Field
    clean: torch.Tensor
    background: torch.Tensor
    level: torch.Tensor
    contrast: torch.Tensor
    grain: torch.Tensor
    grey: torch.Tensor
    centre: torch.Tensor
    border: torch.Tensor

    def turned(self, angle: torch.Tensor, centre: torch.Tensor) -> tuple:
        """``(B, S, S)`` coordinates along and across ``angle``, zero at ``centre``."""
        x, y = self.plane.xy
        x, y = x - column(centre[:, 0]), y - column(centre[:, 1])
        cos, sin = (
            column(torch.cos(angle.double()).float()),
            column(torch.sin(angle.double()).float()),
        )
        return x * cos + y * sin, y * cos - x * sin


@dataclass(frozen=True)
class Damage:
    """One damage to each picture of a batch.

    Attributes:
        alpha: ``(B, S, S)`` opacity in [0, 1].
        target: ``(B, 3, S, S)`` what shows at opacity one.
        cover: ``(B, S, S)`` bool, the pixels that count as damaged.
    """

    alpha: torch.Tensor
    target: torch.Tensor
    cover: torch.Tensor


def _planes(values: torch.Tensor) -> torch.Tensor:
    """``(B,)`` or ``(B, S, S)`` to meet a ``(B, 3, S, S)`` picture."""
    return values[:, None, None, None] if values.ndim == 1 else values[:, None]


def _shifted(
    draws: Draws, scene: Scene, *, low: float, high: float, over: float, dark: float
) -> torch.Tensor:
    """The clean picture made darker or brighter by a visible step.

    Args:
        draws: decides direction and strength.
        scene: the clean picture.
        low: least strength, as a share of the way to black or white.
        high: greatest strength.
        over: least step as a multiple of the texture's contrast, so that damage can be seen.
        dark: share of darkening on a ground of middle brightness.
    """
    ground = scene.level.clamp(0.05, 0.95)
    likely = dark * smoothstep(0.08, 0.3, ground) + (1 - dark) * smoothstep(0.75, 0.92, ground)
    darken = draws.uniform("shift.way") < likely
    strength = draws.log_uniform("shift.strength", low, high)
    room = torch.where(darken, ground, 1 - ground)
    strength = torch.maximum(strength, over * scene.contrast / room).clamp(max=0.96)
    step = _planes(strength)
    darker, brighter = scene.clean * (1 - step), scene.clean + (1 - scene.clean) * step
    return torch.where(_planes(darken), darker, brighter)


def _blob(
    draws: Draws,
    scene: Scene,
    centre: torch.Tensor,
    radius: torch.Tensor,
    *,
    rough: tuple[float, float] = (0.1, 0.5),
    long: torch.Tensor | float = 1.0,
    angle: torch.Tensor | None = None,
) -> torch.Tensor:
    """``(B, S, S)`` height of an irregular patch: positive inside, about one in its middle."""
    turn = draws.uniform("blob.angle", 0, math.pi) if angle is None else angle
    u, v = scene.turned(turn, centre)
    long = column(long) if isinstance(long, torch.Tensor) else long
    squash = column(draws.uniform("blob.squash", 0.7, 1.4))
    away = torch.hypot(u / (long * squash), v * squash) / column(radius)
    detail = (10.0 / radius).clamp(0.25, 2.0)
    edge = scene.plane.noise(draws, "blob.edge", "cloud", detail, _half_stretch(long), (u, v))
    return 1 - away + column(draws.uniform("blob.rough", *rough)) * edge


def _half_stretch(long: torch.Tensor | float) -> torch.Tensor | float:
    """Stretch of the outline's roughness: half way between round and the patch's own."""
    return long.view(-1).sqrt() if isinstance(long, torch.Tensor) else long


def _edge(draws: Draws, height: torch.Tensor) -> torch.Tensor:
    """Opacity from height, with a hard to soft edge."""
    soft = column(draws.log_uniform("edge.soft", 0.05, 0.8))
    return smoothstep(torch.zeros_like(soft), soft, height)


def _fading(draws: Draws, scene: Scene, u: torch.Tensor) -> torch.Tensor:
    """A line's strength along its course, in [0.35, 1]."""
    along = (u, torch.zeros_like(u))
    return (0.75 + 0.25 * scene.plane.noise(draws, "fading", "pink", 0.8, 1.0, along)).clamp(
        0.35, 1
    )


def _line(distance: torch.Tensor, width: torch.Tensor) -> torch.Tensor:
    """Opacity of a line: full within half its width, gone about a unit further out."""
    return (column(width) / 2 + 0.6 - distance).clamp(0, 1)


def _scratch(draws: Draws, scene: Scene) -> Damage:
    free = draws.chance("scratch.free", 0.65)
    along_grain = scene.grain + draws.uniform("scratch.off", -0.12, 0.12)
    angle = torch.where(free, draws.uniform("scratch.angle", 0, math.pi), along_grain)
    u, v = scene.turned(angle, scene.centre)
    half = draws.log_uniform("scratch.half", 6, 90)
    v = v - column(draws.uniform("scratch.bend", -0.3, 0.3) / half) * u * u
    v = v - 0.6 * scene.plane.noise(draws, "scratch.wave", "smooth", 0.5, 1.0, (u, 0 * u))
    width = draws.log_uniform("scratch.width", 0.8, 3.5)
    wide = draws.chance("scratch.wide", 0.15)
    width = width * torch.where(wide, 3.0, 1.0)
    ends = 1 - smoothstep(column(half * 0.8), column(half), u.abs())
    alpha = _line(v.abs(), width) * ends
    for number in range(2):
        more = draws.under(f"companion{number}")
        there = column(more.chance("there", 0.3).float())
        offset = column(more.uniform("offset", 2, 12) * (1 - 2 * number))
        begin = column(more.uniform("begin", -0.7, 0.7) * half)
        reach = column(half * more.uniform("reach", 0.2, 0.8))
        ends = 1 - smoothstep(reach * 0.8, reach, (u - begin).abs())
        alpha = torch.maximum(alpha, there * _line((v - offset).abs(), width * 0.7) * ends)
    streaks = scene.plane.noise(draws, "scratch.streaks", "white", 1.0, 30.0, (u, v))
    shade = torch.where(column(wide), (0.7 + 0.4 * streaks).clamp(0.2, 1), 1.0)
    target = _shifted(draws, scene, low=0.15, high=0.8, over=2.2, dark=0.45)
    return Damage(alpha * shade * _fading(draws, scene, u), target, alpha > 0.4)


def _slope(plane: Field, field: torch.Tensor) -> torch.Tensor:
    """``(B, S, S)`` length of the gradient, per unit of the plane."""
    step = 128.0 / plane.size
    dy, dx = torch.gradient(field, spacing=step, dim=(1, 2))
    return torch.hypot(dx, dy)


def _crack(draws: Draws, scene: Scene) -> Damage:
    width = draws.log_uniform("crack.width", 0.8, 2.6)
    half = draws.log_uniform("crack.half", 8, 60)
    angle = draws.uniform("crack.angle", 0, math.pi)
    alpha = torch.zeros_like(scene.clean[:, 0])
    for number, likely in enumerate((1.0, 0.45, 0.25)):
        arm = draws.under(f"arm{number}")
        u, v = scene.turned(angle + number * arm.uniform("fork", 0.4, 2.6), scene.centre)
        jag = arm.log_uniform("jag", 1.0, 4.5)
        scale = arm.log_uniform("scale", 0.6, 1.6)
        wander = scene.plane.noise(arm, "wander", "cloud", scale, 1.0, (u, v))
        middle = scene.plane.size // 2
        height = v + column(jag) * (wander - wander[:, middle : middle + 1, middle : middle + 1])
        away = height.abs() / _slope(scene.plane, height).clamp(1.0, 6.0)
        reach = column(half * (1.0 if number == 0 else 0.6))
        course = u.abs() if number == 0 else torch.where(u < 0, 4 * reach, u)
        thin = 1 - 0.5 * smoothstep(0.0, 1.0, course / reach)
        ends = (1 - smoothstep(reach * 0.85, reach, course)) * (v.abs() < 3.5 * column(jag) + 2)
        there = column(arm.chance("there", likely).float())
        line = (column(width) / 2 * thin + 0.6 - away).clamp(0, 1)
        alpha = torch.maximum(alpha, there * line * ends)
    target = _shifted(draws, scene, low=0.25, high=0.9, over=2.4, dark=0.85)
    return Damage(alpha, target, alpha > 0.4)


def _hole(draws: Draws, scene: Scene) -> Damage:
    radius = draws.log_uniform("hole.radius", 1.5, 13)
    alpha = torch.zeros_like(scene.clean[:, 0])
    rim = torch.zeros_like(alpha)
    for number in range(4):
        part = draws.under(f"hole{number}")
        there = column(part.chance("there", 1.0 if number == 0 else 0.18).float())
        shift = part.uniforms("shift", 2, -30, 30) * (number > 0)
        size = radius * (1.0 if number == 0 else part.uniform("size", 0.4, 1.1))
        height = _blob(part, scene, scene.centre + shift, size.clamp_min(1.2), rough=(0.05, 0.3))
        soft = column((1.2 / size).clamp(0.08, 1.0))
        inside = smoothstep(-soft * 0.3, soft * 0.7, height)
        alpha = torch.maximum(alpha, there * inside)
        rim = torch.maximum(rim, there * smoothstep(-2.2 * soft, -0.3 * soft, height))
    target = _shifted(draws, scene, low=0.35, high=0.95, over=2.4, dark=0.88)
    shine = column(draws.chance("hole.rim", 0.25) * draws.uniform("hole.shine", 0.1, 0.4))
    target = torch.where(
        _planes(alpha) > 0.3, target, (scene.clean + 0.6 * _planes(shine)).clamp(0, 1)
    )
    opacity = torch.maximum(alpha, rim * (shine > 0))
    return Damage(opacity, target, alpha > 0.35)


def _stain(draws: Draws, scene: Scene) -> Damage:
    radius = draws.log_uniform("stain.radius", 3, 32)
    streak = draws.chance("stain.streak", 0.35)
    long = torch.where(streak, draws.uniform("stain.long", 2.5, 8), 1.0)
    radius = torch.where(streak, radius * 0.45, radius).clamp_min(1.5)
    angle = torch.where(streak, scene.grain, draws.uniform("stain.angle", 0, math.pi))
    height = _blob(draws, scene, scene.centre, radius, rough=(0.2, 0.7), long=long, angle=angle)
    for number in range(2):
        more = draws.under(f"spot{number}")
        there = column(more.chance("there", 0.3).float() * 4 - 4)
        centre = scene.centre + more.uniforms("shift", 2, -40, 40)
        size = (radius * more.uniform("size", 0.3, 0.9)).clamp_min(1.5)
        spot = _blob(more, scene, centre, size, rough=(0.2, 0.7), long=long, angle=angle)
        height = torch.maximum(height, spot + there)
    alpha = _edge(draws, height)
    ring = alpha * (1 - 0.8 * smoothstep(0.15, 0.5, height))
    dried = column(draws.chance("stain.dried", 0.2))
    target = _shifted(draws, scene, low=0.08, high=0.6, over=1.0, dark=0.75)
    return Damage(torch.where(dried, ring, alpha), target, alpha > 0.35)


def _paint(draws: Draws, scene: Scene) -> torch.Tensor:
    """``(B, 3)`` colour of foreign matter: its brightness is well off the product's."""
    offset = draws.uniform("paint.offset", 0.18, 0.7)
    up = (draws.uniform("paint.up") > 0.25 + 0.6 * scene.level).float() * 2 - 1
    value = scene.level + up * torch.maximum(offset, 2.0 * scene.contrast)
    value = torch.where((value < 0) | (value > 1), scene.level - up * offset, value)
    tint = draws.uniforms("paint.tint", 3, -0.2, 0.2) * (~scene.grey)[:, None]
    return (value[:, None] + tint).clamp(0.01, 0.99)


def _contamination(draws: Draws, scene: Scene) -> Damage:
    mode = column(draws.uniform("dirt.mode"))
    radius = draws.log_uniform("dirt.radius", 2.0, 18)
    lump = smoothstep(0.0, 0.15, _blob(draws, scene, scene.centre, radius, rough=(0.1, 0.5)))
    cloud = _blob(draws.under("cloud"), scene, scene.centre, radius + 10, rough=(0.3, 0.6))
    grains = scene.plane.noise(draws, "dirt.grains", "grains", draws.uniform("dirt.fine", 0.8, 2))
    specks = smoothstep(0.9, 1.3, grains) * (cloud > 0)
    u, v = scene.turned(draws.uniform("hair.angle", 0, math.pi), scene.centre)
    curl = scene.plane.noise(draws, "hair.curl", "smooth", 0.8, 1.0, (u, v))
    at_centre = (u.abs() + v.abs()).flatten(1).argmin(1)
    curl = curl - column(curl.flatten(1).gather(1, at_centre[:, None])[:, 0])
    height = v + column(draws.uniform("hair.bend", 4, 16)) * curl
    away = height.abs() / _slope(scene.plane, height).clamp(1.0, 6.0)
    reach = column(draws.log_uniform("hair.reach", 8, 40))
    hair = (1.1 - away).clamp(0, 1) * (torch.hypot(u, v) < reach)
    alpha = torch.where(mode < 0.45, lump, torch.where(mode < 0.75, specks, hair))
    # Grains that the noise did not place under the centre would leave nothing to see.
    alpha = torch.maximum(alpha, smoothstep(0.0, 0.3, 1 - torch.hypot(u, v) / 1.8) * (mode < 0.75))
    grit = 0.07 * scene.plane.noise(draws, "dirt.grit", "pink", 1.5)
    return Damage(
        alpha, (_paint(draws, scene)[:, :, None, None] + grit[:, None]).clamp(0, 1), alpha > 0.4
    )


def _break(draws: Draws, scene: Scene) -> Damage:
    at_edge = draws.chance("break.edge", 0.7)
    centre = torch.where(at_edge[:, None], scene.border, scene.centre)
    radius = draws.log_uniform("break.radius", 3.5, 26)
    height = _blob(draws, scene, centre, radius, rough=(0.25, 0.7))
    facets = scene.plane.noise(
        draws, "break.facets", "cells", draws.uniform("break.scale", 0.5, 1.5)
    )
    alpha = smoothstep(0.0, 0.1, height + 0.15 * torch.tanh(3 * facets))
    rough = scene.plane.noise(draws, "break.rough", "rough", 0.8)
    tone = _shifted(draws, scene, low=0.2, high=0.9, over=2.0, dark=0.75)
    shade = column(draws.uniform("break.shade", 0.02, 0.14)) * (
        0.7 * torch.tanh(2 * facets) + 0.6 * rough
    )
    fracture = (tone + _planes(shade)).clamp(0, 1)
    gone = at_edge & draws.chance("break.gone", 0.5)
    gone = gone & ((scene.background.mean((1, 2, 3)) - scene.level).abs() > 0.12)
    return Damage(alpha, torch.where(_planes(gone), scene.background, fracture), alpha > 0.4)


def _discolouration(draws: Draws, scene: Scene) -> Damage:
    radius = draws.log_uniform("colour.radius", 6, 50)
    height = _blob(draws, scene, scene.centre, radius, rough=(0.15, 0.6))
    alpha = smoothstep(0.0, column(draws.uniform("colour.soft", 0.2, 1.0)), height)
    tinted = (~scene.grey) & draws.chance("colour.tinted", 0.7)
    tint = 1 + draws.uniforms("colour.tint", 3, -0.45, 0.45) * tinted[:, None]
    tone = _shifted(draws, scene, low=0.08, high=0.45, over=0.7, dark=0.55)
    target = torch.where(_planes(tinted), scene.clean * tint[:, :, None, None], tone)
    return Damage(alpha, target.clamp(0, 1), alpha > 0.3)


def _dent(draws: Draws, scene: Scene) -> Damage:
    radius = column(draws.log_uniform("dent.radius", 4, 24))
    u, v = scene.turned(draws.uniform("dent.light", 0, 2 * math.pi), scene.centre)
    squash = column(draws.uniform("dent.squash", 0.6, 1.6))
    bowl = torch.exp(-((u / radius * squash) ** 2) - (v / (radius * squash)) ** 2)
    shading = 2.3 * (u / radius * squash) * bowl  # slope towards the light, peaks near one
    strength = draws.log_uniform("dent.strength", 0.12, 0.6)
    strength = torch.maximum(strength, 1.3 * scene.contrast / scene.level.clamp_min(0.1)).clamp(
        max=0.8
    )
    floor = column(draws.uniform("dent.floor", 0, 0.3))
    target = scene.clean * _planes(1 + column(strength) * (shading - floor * bowl))
    glint = _planes(column(strength * 0.25) * shading.clamp_min(0))  # seen on dark ground too
    return Damage(torch.ones_like(bowl), (target + glint).clamp(0, 1), bowl > 0.3)


def _uneven(draws: Draws, scene: Scene) -> Damage:
    radius = draws.uniform("uneven.radius", 16, 58)
    height = _blob(draws, scene, scene.centre, radius, rough=(0.2, 0.5))
    alpha = smoothstep(0.0, column(draws.uniform("uneven.soft", 0.3, 1.0)), height)
    at = scene.turned(scene.grain + draws.uniform("uneven.turn", -0.3, 0.3), scene.centre)
    stretch = draws.log_uniform("uneven.stretch", 1, 8)
    scale = draws.log_uniform("uneven.scale", 0.3, 1.3)
    waves = scene.plane.noise(draws, "uneven.waves", "cells", scale, stretch, at)
    rough = scene.plane.noise(draws, "uneven.rough", "pink", scale, stretch, at)
    pick = column(draws.uniform("uneven.pick"))
    relief = pick * torch.tanh(waves) + (1 - pick) * rough
    strength = draws.log_uniform("uneven.strength", 0.05, 0.3) * scene.level.clamp_min(0.2)
    strength = torch.maximum(strength, 0.7 * scene.contrast).clamp(max=0.3)
    tone = column(draws.uniform("uneven.tone", -1.2, 1.2))
    target = (scene.clean + _planes(column(strength) * (relief + tone))).clamp(0, 1)
    return Damage(alpha, target, alpha > 0.3)


def _fray(draws: Draws, scene: Scene) -> Damage:
    at_edge = draws.chance("fray.edge", 0.5)
    centre = torch.where(at_edge[:, None], scene.border, scene.centre)
    angle = scene.grain + math.pi / 2 * draws.chance("fray.across", 0.5)
    u, v = scene.turned(angle + draws.uniform("fray.turn", -0.2, 0.2), centre)
    half = column(draws.log_uniform("fray.half", 6, 40))
    deep = column(draws.log_uniform("fray.deep", 3, 15))
    ragged = scene.plane.noise(draws, "fray.ragged", "pink", 1.0, 1.0, (u, v * 0.15))
    away = torch.maximum(u.abs() / half, v.abs() / deep - 0.35 * ragged)
    band = 1 - smoothstep(0.75, 1.1, away)
    bend = scene.plane.noise(draws, "fray.bend", "smooth", 0.8)
    threads = scene.plane.noise(
        draws, "fray.threads", "rough", 1.0, 6.0, (v + 2 * bend, u + 3 * bend)
    )
    strands = smoothstep(-0.3, 0.9, threads)
    dark = _shifted(draws, scene, low=0.25, high=0.85, over=2.0, dark=0.65)
    light = _shifted(draws.under("light"), scene, low=0.15, high=0.6, over=1.5, dark=0.3)
    target = dark + (light - dark) * _planes(smoothstep(0.2, 1.2, -threads))
    return Damage(band * (0.35 + 0.65 * strands), target, band > 0.4)


_DRAWN: tuple[Callable[[Draws, Scene], Damage], ...] = (
    _scratch,
    _crack,
    _hole,
    _stain,
    _contamination,
    _break,
    _discolouration,
    _dent,
    _uneven,
    _fray,
)


def draw_damage(kind: int, draws: Draws, scene: Scene) -> Damage:
    """Damage of one kind on every picture of the scene; ``kind`` indexes ``DEFECT_KINDS``."""
    return _DRAWN[kind](draws, scene)

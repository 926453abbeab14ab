"""Damage: where it covers the product and what is seen there instead."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from zerodefect.procedural.draws import Draws, Field, column, smoothstep

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
    "missing part",
    "extra part",
    "misplaced part",
    "bent",
    "print error",
    "burn",
    "bubble",
)
"""Canonical names of the kinds that are drawn; ``kind`` is a position in this tuple."""
BUILD_KINDS = ("missing part", "extra part", "misplaced part", "bent", "print error")
"""Kinds of a product built wrongly: the whole product is drawn anew, nothing is laid over it."""


@dataclass(frozen=True)
class Scene:
    """An undamaged batch, as far as damage has to know it.

    Attributes:
        plane: the picture plane.
        clean: ``(B, 3, S, S)`` reflectance in [0, 1].
        background: ``(B, 3, S, S)`` what lies behind the product.
        level: ``(B,)`` mean brightness of the product.
        colour: ``(B, 3)`` its mean colour.
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
    colour: torch.Tensor
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


@dataclass(frozen=True)
class _Group:
    """Where the instances of one damage lie.

    Attributes:
        centres: ``(B, N, 2)``; the first is where the damage was asked for.
        sizes: ``(B, N)`` relative sizes, the first 1, absent ones about 0.
    """

    centres: torch.Tensor
    sizes: torch.Tensor


def _group(
    draws: Draws,
    centre: torch.Tensor,
    *,
    several: float = 0.5,
    along: torch.Tensor | None = None,
    most: int = 8,
) -> _Group:
    """One instance, or a cluster or scatter of up to eight.

    Args:
        draws: decides number and places.
        centre: ``(B, 2)`` place of the first.
        several: probability of more than one.
        along: ``(B,)`` direction in which they are strung out, if any.
        most: greatest number.
    """
    count = 2 + torch.floor(draws.uniform("group.count") * (most - 1))
    count = torch.where(draws.chance("group.several", several), count, 1.0)
    sizes = torch.exp(draws.uniforms("group.sizes", most, -1.1, 0.2))
    sizes[:, 0] = 1
    sizes = torch.where(torch.arange(most, device=sizes.device) < count[:, None], sizes, 1e-3)
    spread = draws.log_uniform("group.spread", 10, 75)[:, None]
    shift = draws.uniforms("group.shift", 2 * most, -1, 1).view(-1, most, 2) * spread[..., None]
    if along is not None:
        flat = draws.uniform("group.flat", 0.1, 1.0)[:, None]
        cos, sin = torch.cos(along)[:, None], torch.sin(along)[:, None]
        u, v = shift[..., 0], shift[..., 1] * flat
        shift = torch.stack([u * cos - v * sin, u * sin + v * cos], 2)
    shift[:, 0] = 0
    return _Group(centre[:, None] + shift, sizes)


def _blobs(
    draws: Draws,
    scene: Scene,
    group: _Group,
    radius: torch.Tensor,
    *,
    rough: tuple[float, float] = (0.1, 0.5),
    long: torch.Tensor | float = 1.0,
    angle: torch.Tensor | None = None,
) -> torch.Tensor:
    """``(B, S, S)`` height of irregular patches: positive inside, about one in their middles."""
    turn = draws.uniform("blob.angle", 0, math.pi) if angle is None else angle
    cos, sin = torch.cos(turn)[:, None], torch.sin(turn)[:, None]
    u, v = scene.turned(turn, torch.zeros_like(group.centres[:, 0]))
    cx, cy = group.centres[..., 0], group.centres[..., 1]
    cu, cv = cx * cos + cy * sin, cy * cos - cx * sin
    stretch = column(long) if isinstance(long, torch.Tensor) else long
    squash = column(draws.uniform("blob.squash", 0.7, 1.4))
    du, dv = u / (stretch * squash), v * squash
    shrink = (stretch * squash).view(-1, 1) if isinstance(stretch, torch.Tensor) else squash[:, 0]
    cu, cv = cu / shrink, cv * squash[:, 0]
    sizes = group.sizes * radius[:, None]
    away = (
        torch.hypot(du[:, None] - cu[..., None, None], dv[:, None] - cv[..., None, None])
        / sizes[..., None, None]
    ).amin(1)
    detail = (10.0 / radius).clamp(0.25, 2.0)
    half = long.sqrt() if isinstance(long, torch.Tensor) else long  # half way to the patch's own
    edge = scene.plane.noise(draws, "blob.edge", "cloud", detail, half, (u, v))
    return 1 - away + column(draws.uniform("blob.rough", *rough)) * edge


def _or_strip(draws: Draws, scene: Scene, height: torch.Tensor, *, likely: float) -> torch.Tensor:
    """Some patches become strips, panels or whole ends of the product with nearly straight sides.

    What a tool left out or did twice, where a liquid stood or a cover lay, ends in a line along or
    across the grain and often runs on to the product's border.

    Args:
        draws: decides which patches, and how wide and long they are.
        scene: the clean picture.
        height: ``(B, S, S)`` of the patches, positive inside and about one in their middles.
        likely: probability of a strip.
    """
    strip = draws.under("strip")
    across = math.pi / 2 * strip.chance("across", 0.5)
    u, v = scene.turned(scene.grain + across + strip.uniform("turn", -0.1, 0.1), scene.centre)
    wide = column(strip.log_uniform("wide", 6, 60))
    through = strip.chance("through", 0.55)
    long = column(torch.where(through, 400.0, strip.log_uniform("long", 12, 80)))
    edge = scene.plane.noise(strip, "edge", "cloud", 0.8)
    wavy = column(strip.uniform("wavy", 0.5, 5)) * edge
    inside = torch.minimum(1 - (v.abs() - wavy) / wide, 1 - (u.abs() - wavy) / long)
    return torch.where(column(strip.chance("there", likely)), inside, height)


def _extent(draws: Draws, name: str, low: float, high: float) -> torch.Tensor:
    """``(B,)`` size in [low, high): small ones and large ones are equally frequent."""
    large = draws.uniform(f"{name}.large", 0.4 * high, high)
    small = draws.log_uniform(name, low, high)
    return torch.where(draws.chance(f"{name}.is_large", 0.4), large, small)


def _one(centre: torch.Tensor) -> _Group:
    """A single instance."""
    return _Group(centre[:, None], torch.ones_like(centre[:, :1]))


def _retextured(draws: Draws, scene: Scene, target: torch.Tensor) -> torch.Tensor:
    """A changed surface with a texture of its own: finer, coarser, noisier or smoother."""
    mean = scene.colour[:, :, None, None]
    keep = _planes(torch.where(draws.chance("own.kept", 0.5), 1.0, draws.uniform("own.keep", 0, 2)))
    changed = (target + (keep - 1) * (scene.clean - mean)).clamp(0, 1)
    scale, stretch = draws.log_uniform("own.scale", 0.4, 2.5), draws.log_uniform("own.long", 1, 6)
    at = scene.turned(scene.grain, scene.centre)
    noise = scene.plane.noise(draws, "own.noise", "rough", scale, stretch, at)
    rough = draws.log_uniform("own.rough", 0.01, 0.12) * draws.chance("own.noisy", 0.5)
    return (changed + _planes(column(rough * scene.level.sqrt()) * noise)).clamp(0, 1)


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
    """Fine lines, alone or side by side, or a band right across; whole, fading or dashed."""
    band = draws.chance("scratch.band", 0.4)
    free = draws.chance("scratch.free", 0.55)
    along_grain = scene.grain + draws.uniform("scratch.off", -0.06, 0.06)
    free = free & ~(band & draws.chance("scratch.straight", 0.6))
    angle = torch.where(free, draws.uniform("scratch.angle", 0, math.pi), along_grain)
    u, v = scene.turned(angle, scene.centre)
    across = draws.chance("scratch.across", 0.65) & band
    half = draws.log_uniform("scratch.half", 6, 90)
    half = torch.where(across, 300.0, torch.where(band, half.clamp_min(18), half))
    bend = 0.3 * draws.uniform("scratch.bend", -1, 1) ** 3 / half.clamp_max(90) * ~band
    v = v - column(bend) * u * u
    wave = column(torch.where(band, 0.15, 0.6))
    v = v - wave * scene.plane.noise(draws, "scratch.wave", "smooth", 0.5, 1.0, (u, 0 * u))
    width = torch.where(
        band, draws.log_uniform("scratch.broad", 2, 12), draws.log_uniform("scratch.width", 0.8, 3)
    )
    most = 6
    more = draws.chance("scratch.more", 0.55)
    count = 1 + more * torch.floor(draws.uniform("scratch.count", 1, most - 0.01))
    gap = draws.log_uniform("scratch.gap", 2, 16) + torch.where(band, 0.6 * width, 0.0)
    offsets = draws.uniforms("scratch.offsets", most, -0.5, 0.5) * (gap * count)[:, None]
    begins = draws.uniforms("scratch.begins", most, -0.8, 0.8) * half[:, None]
    halves = torch.exp(draws.uniforms("scratch.halves", most, -1.2, 0.1)) * half[:, None]
    widths = torch.exp(draws.uniforms("scratch.widths", most, -1.0, 0.2)) * width[:, None]
    offsets[:, 0], begins[:, 0], halves[:, 0], widths[:, 0] = 0, 0, half, width
    alpha, cover = torch.zeros_like(u), torch.zeros_like(u)
    streaks = scene.plane.noise(draws, "scratch.streaks", "white", 1.0, 30.0, (u, v))
    shade = torch.where(column(band), (0.75 + 0.35 * streaks).clamp(0.15, 1), 1.0)
    skew = scene.plane.noise(draws, "scratch.dashes", "pink", 1.2, 12.0, (u, v))
    dashed = column(draws.chance("scratch.dashed", 0.3))
    dash = torch.where(
        dashed, smoothstep(0.0, 0.5, skew + column(draws.uniform("dash.open", -0.1, 0.8))), 1.0
    )
    soft = column(torch.where(band, draws.log_uniform("scratch.soft", 0.6, 4), 0.6))
    for n in range(most):
        there = column((n < count).float())
        reach = column(halves[:, n])
        ends = 1 - smoothstep(0.8 * reach, reach, (u - column(begins[:, n])).abs())
        far = (v - column(offsets[:, n])).abs()
        line = ((column(widths[:, n]) / 2 + soft - far) / soft).clamp(0, 1)
        alpha = torch.maximum(alpha, there * ends * line)
    cover = alpha * dash
    dark = draws.chance("scratch.bright", 0.6)
    light = _shifted(draws, scene, low=0.2, high=0.95, over=2.2, dark=0.05)
    target = torch.where(
        _planes(dark), light, _shifted(draws, scene, low=0.15, high=0.8, over=2.2, dark=0.7)
    )
    return Damage(cover * shade * _fading(draws, scene, u), target, cover > 0.4)


def _slope(plane: Field, field: torch.Tensor) -> torch.Tensor:
    """``(B, S, S)`` length of the gradient, per unit of the plane."""
    step = 128.0 / plane.size
    dy, dx = torch.gradient(field, spacing=step, dim=(1, 2))
    return torch.hypot(dx, dy)


def _crack(draws: Draws, scene: Scene) -> Damage:
    """A jagged line with branches, often from the edge inwards; sometimes a net of them."""
    width = draws.log_uniform("crack.width", 0.8, 2.8)
    half = draws.log_uniform("crack.half", 8, 70)
    angle = draws.uniform("crack.angle", 0, math.pi)
    at_edge = draws.chance("crack.edge", 0.3)
    centre = torch.where(at_edge[:, None], scene.border, scene.centre)
    alpha = torch.zeros_like(scene.clean[:, 0])
    for number, likely in enumerate((1.0, 0.45, 0.3, 0.2)):
        arm = draws.under(f"arm{number}")
        shift = arm.uniforms("shift", 2, -0.5, 0.5) * half[:, None] * (number > 1)
        u, v = scene.turned(angle + number * arm.uniform("fork", 0.4, 2.6), centre + shift)
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
    cells = scene.plane.noise(draws, "craze", "cells", draws.log_uniform("craze.scale", 0.6, 2))
    field = _blobs(draws, scene, _one(scene.centre), draws.log_uniform("craze.radius", 10, 45))
    away = cells.abs() / _slope(scene.plane, cells).clamp_min(0.05)
    net = (0.6 * column(width) + 0.4 - away).clamp(0, 1) * (field > 0)
    alpha = torch.where(column(draws.chance("craze", 0.12)), net, alpha)
    target = _shifted(draws, scene, low=0.2, high=0.9, over=2.2, dark=0.85)
    return Damage(alpha, target, alpha > 0.4)


def _hole(draws: Draws, scene: Scene) -> Damage:
    radius = draws.log_uniform("hole.radius", 1.3, 13)
    group = _group(draws, scene.centre, several=0.45)
    least = (group.sizes > 0.01) / radius[:, None]  # a pit has at least a unit's radius
    group = _Group(group.centres, torch.maximum(group.sizes, least))
    height = _blobs(draws, scene, group, radius, rough=(0.05, 0.3))
    soft = column((1.2 / radius).clamp(0.08, 1.0))
    alpha = smoothstep(-soft * 0.3, soft * 0.7, height)
    rim = smoothstep(-2.2 * soft, -0.3 * soft, height)
    target = _shifted(draws, scene, low=0.3, high=0.95, over=2.4, dark=0.88)
    shine = column(draws.chance("hole.rim", 0.25) * draws.uniform("hole.shine", 0.1, 0.4))
    target = torch.where(
        _planes(alpha) > 0.3, target, (scene.clean + 0.6 * _planes(shine)).clamp(0, 1)
    )
    opacity = torch.maximum(alpha, rim * (shine > 0))
    return Damage(opacity, target, alpha > 0.35)


def _stain(draws: Draws, scene: Scene) -> Damage:
    radius = _extent(draws, "stain.radius", 4, 62)
    streak = draws.chance("stain.streak", 0.35)
    long = torch.where(streak, draws.uniform("stain.long", 2.0, 7), 1.0)
    radius = torch.where(streak, radius * 0.4, radius).clamp_min(1.5)
    angle = torch.where(streak, scene.grain, draws.uniform("stain.angle", 0, math.pi))
    group = _group(draws, scene.centre, several=0.55, along=angle)
    height = _blobs(draws, scene, group, radius, rough=(0.2, 0.8), long=long, angle=angle)
    height = _or_strip(draws, scene, height, likely=0.12)
    alpha = _edge(draws, height)
    ring = alpha * (1 - 0.8 * smoothstep(0.15, 0.5, height))
    dried = column(draws.chance("stain.dried", 0.15))
    target = _shifted(draws, scene, low=0.08, high=0.85, over=0.8, dark=0.78)
    target = _retextured(draws, scene, target)
    opacity = torch.where(dried, ring, alpha)
    return Damage(opacity, target, torch.where(dried, ring > 0.3, alpha > 0.35))


def _paint(draws: Draws, scene: Scene) -> torch.Tensor:
    """``(B, 3)`` colour of foreign matter: its brightness is well off the product's."""
    offset = draws.log_uniform("paint.offset", 0.1, 0.7)
    up = (draws.uniform("paint.up") > 0.25 + 0.6 * scene.level).float() * 2 - 1
    value = scene.level + up * torch.maximum(offset, 2.0 * scene.contrast)
    value = torch.where((value < 0) | (value > 1), scene.level - up * offset, value)
    tint = draws.uniforms("paint.tint", 3, -0.2, 0.2) * (~scene.grey)[:, None]
    return (value[:, None] + tint).clamp(0.01, 0.99)


def _contamination(draws: Draws, scene: Scene) -> Damage:
    """A lump, a cloud of specks, a hair, or inclusions drawn out along the grain."""
    mode = column(draws.uniform("dirt.mode"))
    radius = draws.log_uniform("dirt.radius", 2.0, 18)
    group = _group(draws, scene.centre, several=0.35)
    lump = smoothstep(0.0, 0.15, _blobs(draws, scene, group, radius, rough=(0.1, 0.5)))
    cloud = _blobs(draws.under("cloud"), scene, group, radius + 10, rough=(0.3, 0.6))
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
    strung = draws.under("streaks")
    wide = strung.log_uniform("radius", 1.0, 4.5)
    long = strung.log_uniform("long", 3, 14)
    several = _group(strung, scene.centre, several=0.8, along=scene.grain)
    rough = (0.3, 1.0)
    drawn = _blobs(strung, scene, several, wide, rough=rough, long=long, angle=scene.grain)
    drawn = smoothstep(0.0, column(strung.uniform("soft", 0.1, 0.6)), drawn)
    alpha = torch.where(mode < 0.55, specks, hair)
    alpha = torch.where(mode < 0.35, lump, alpha)
    # Grains that the noise did not place under the centre would leave nothing to see.
    u, v = scene.turned(scene.grain, scene.centre)
    alpha = torch.maximum(alpha, smoothstep(0.0, 0.3, 1 - torch.hypot(u, v) / 1.8) * (mode < 0.55))
    alpha = torch.where(mode > 0.7, drawn, alpha)
    grit = 0.07 * scene.plane.noise(draws, "dirt.grit", "pink", 1.5)
    paint = (_paint(draws, scene)[:, :, None, None] + grit[:, None]).clamp(0, 1)
    streaked = _shifted(strung, scene, low=0.1, high=0.7, over=1.3, dark=0.85)
    return Damage(alpha, torch.where(_planes(mode > 0.7), streaked, paint), alpha > 0.4)


def _break(draws: Draws, scene: Scene) -> Damage:
    """A piece broken out, mostly of the edge: angular or rough, background or fracture shows."""
    at_edge = draws.chance("break.edge", 0.75)
    centre = torch.where(at_edge[:, None], scene.border, scene.centre)
    radius = draws.log_uniform("break.radius", 4, 46)
    group = _group(draws, centre, several=0.25, most=4)
    long = draws.log_uniform("break.long", 1, 3.5)
    height = _blobs(draws, scene, group, radius / long.sqrt(), rough=(0.25, 0.7), long=long)
    x, y = scene.turned(torch.zeros_like(radius), centre)
    turns = draws.uniforms("break.turns", 5, -0.5, 0.5)
    flat = torch.full_like(x, -9.0)
    for n in range(5):  # an angular piece: what several planes cut off
        way = 2 * math.pi * (n + turns[:, n]) / 5
        flat = torch.maximum(flat, x * column(torch.cos(way)) + y * column(torch.sin(way)))
    facets = scene.plane.noise(
        draws, "break.facets", "cells", draws.uniform("break.scale", 0.5, 1.5)
    )
    angular = column(draws.chance("break.angular", 0.4))
    height = torch.where(angular, 0.8 - flat / column(radius), height)
    alpha = smoothstep(0.0, 0.08, height + 0.12 * torch.tanh(3 * facets))
    rough = scene.plane.noise(draws, "break.rough", "rough", 0.8)
    tone = _shifted(draws, scene, low=0.1, high=0.9, over=1.5, dark=0.6)
    shade = column(draws.uniform("break.shade", 0.02, 0.16)) * (
        0.7 * torch.tanh(2 * facets) + 0.6 * rough
    )
    fracture = (tone + _planes(shade)).clamp(0, 1)
    gone = at_edge & draws.chance("break.gone", 0.5)
    gone = gone & ((scene.background.mean((1, 2, 3)) - scene.level).abs() > 0.08)
    rim = draws.chance("break.rim", 0.4) * draws.uniform("break.glint", -0.4, 0.5)
    inner = column(rim) * (smoothstep(0.0, 0.1, height) - smoothstep(0.1, 0.3, height))
    target = torch.where(_planes(gone), scene.background, fracture) + _planes(inner) * 0.6
    return Damage(alpha, target.clamp(0, 1), alpha > 0.4)


def _discolouration(draws: Draws, scene: Scene) -> Damage:
    radius = _extent(draws, "colour.radius", 7, 80)
    group = _group(draws, scene.centre, several=0.35)
    height = _blobs(draws, scene, group, radius, rough=(0.15, 0.7))
    height = _or_strip(draws, scene, height, likely=0.25)
    alpha = smoothstep(0.0, column(draws.log_uniform("colour.soft", 0.1, 1.0)), height)
    tinted = (~scene.grey) & draws.chance("colour.tinted", 0.7)
    tint = 1 + draws.uniforms("colour.tint", 3, -0.45, 0.45) * tinted[:, None]
    tone = _shifted(draws, scene, low=0.06, high=0.5, over=0.5, dark=0.55)
    tone = _retextured(draws, scene, tone)
    target = torch.where(_planes(tinted), scene.clean * tint[:, :, None, None], tone)
    return Damage(alpha, target.clamp(0, 1), alpha > 0.3)


def _dent(draws: Draws, scene: Scene) -> Damage:
    light = draws.uniform("dent.light", 0, 2 * math.pi)
    strength = draws.log_uniform("dent.strength", 0.1, 0.6)
    strength = torch.maximum(strength, 1.3 * scene.contrast / scene.level.clamp_min(0.1)).clamp(
        max=0.8
    )
    floor = column(draws.uniform("dent.floor", 0, 0.3))
    group = _group(draws, scene.centre, several=0.3, most=4)
    large = draws.log_uniform("dent.radius", 4, 38)
    shading, bowls = torch.zeros_like(scene.clean[:, 0]), torch.zeros_like(scene.clean[:, 0])
    squash = column(draws.uniform("dent.squash", 0.6, 1.6))
    for n in range(4):
        u, v = scene.turned(light, group.centres[:, n])
        radius = column((large * group.sizes[:, n]).clamp_min(0.01))
        bowl = torch.exp(-((u / radius * squash) ** 2) - (v / (radius * squash)) ** 2)
        # The slope towards the light, which peaks near one.
        shading = shading + 2.3 * (u / radius * squash) * bowl
        bowls = torch.maximum(bowls, bowl)
    target = scene.clean * _planes(1 + column(strength) * (shading - floor * bowls))
    glint = _planes(column(strength * 0.25) * shading.clamp_min(0))  # seen on dark ground too
    return Damage(torch.ones_like(bowls), (target + glint).clamp(0, 1), bowls > 0.3)


def _uneven(draws: Draws, scene: Scene) -> Damage:
    """A large area of waves, streaks, clouds or tool marks, or of another gloss or grain."""
    radius = _extent(draws, "uneven.radius", 18, 90)
    streaked = draws.chance("uneven.streaked", 0.45)
    long = torch.where(streaked, draws.uniform("uneven.long", 1.5, 5), 1.0)
    turn = scene.grain + math.pi / 2 * draws.chance("uneven.across", 0.2)
    group = _group(draws, scene.centre, several=0.25, along=turn, most=4)
    height = _blobs(
        draws, scene, group, radius / long.sqrt(), rough=(0.2, 0.6), long=long, angle=turn
    )
    height = _or_strip(draws, scene, height, likely=0.4)
    alpha = smoothstep(0.0, column(draws.log_uniform("uneven.soft", 0.1, 1.0)), height)
    at = scene.turned(turn + draws.uniform("uneven.turn", -0.2, 0.2), scene.centre)
    stretch = torch.where(
        streaked, draws.log_uniform("uneven.stretch", 4, 30), draws.log_uniform("uneven.w", 1, 3)
    )
    scale = draws.log_uniform("uneven.scale", 0.3, 1.6)
    waves = scene.plane.noise(draws, "uneven.waves", "cells", scale, stretch, at)
    rough = scene.plane.noise(draws, "uneven.rough", "pink", scale, stretch, at)
    pick = column(draws.uniform("uneven.pick"))
    relief = pick * torch.tanh(waves) + (1 - pick) * rough
    fine = draws.under("marks")
    longer = fine.log_uniform("long", 10, 120)
    marks = scene.plane.noise(fine, "lines", "white", fine.uniform("scale", 0.4, 1.1), longer, at)
    relief = torch.where(column(fine.chance("there", 0.35)), marks, relief)
    strength = draws.log_uniform("uneven.strength", 0.03, 0.3) * scene.level.clamp_min(0.2)
    strength = torch.maximum(strength, 0.5 * scene.contrast).clamp(max=0.3)
    tone = column(draws.uniform("uneven.tone", -1.5, 1.5))
    gloss = draws.uniform("uneven.gloss", -0.9, 1.5) * draws.chance("uneven.dull", 0.4)
    texture = scene.clean - scene.colour[:, :, None, None]
    target = scene.clean + _planes(gloss) * texture + _planes(column(strength) * (relief + tone))
    return Damage(alpha, target.clamp(0, 1), alpha > 0.3)


def _fray(draws: Draws, scene: Scene) -> Damage:
    """A ragged eroded area of strands, mostly at an edge."""
    at_edge = draws.chance("fray.edge", 0.65)
    centre = torch.where(at_edge[:, None], scene.border, scene.centre)
    angle = scene.grain + math.pi / 2 * draws.chance("fray.across", 0.5)
    u, v = scene.turned(angle + draws.uniform("fray.turn", -0.2, 0.2), centre)
    half = column(_extent(draws, "fray.half", 9, 85))
    deep = column(_extent(draws, "fray.deep", 4, 40))
    ragged = scene.plane.noise(draws, "fray.ragged", "pink", 1.0, 1.0, (u, v * 0.15))
    clouds = scene.plane.noise(draws, "fray.clouds", "cloud", 0.8)
    away = torch.maximum(u.abs() / half, v.abs() / deep - 0.35 * ragged) + 0.25 * clouds
    band = 1 - smoothstep(0.75, 1.1, away)
    bend = scene.plane.noise(draws, "fray.bend", "smooth", 0.8)
    fine = draws.log_uniform("fray.fine", 0.5, 1.4)
    long = draws.log_uniform("fray.long", 2, 9)
    threads = scene.plane.noise(
        draws, "fray.threads", "rough", fine, long, (v + 2 * bend, u + 3 * bend)
    )
    strands = smoothstep(-0.3, 0.9, threads)
    dark = _shifted(draws, scene, low=0.12, high=0.85, over=1.4, dark=0.65)
    light = _shifted(draws.under("light"), scene, low=0.08, high=0.6, over=1.2, dark=0.3)
    target = dark + (light - dark) * _planes(smoothstep(0.2, 1.2, -threads))
    gone = at_edge & draws.chance("fray.gone", 0.25)
    target = torch.where(_planes(gone), scene.background, target)
    return Damage(band * (0.35 + 0.65 * strands), target, band > 0.4)


def _burn(draws: Draws, scene: Scene) -> Damage:
    """Charred matter in the middle, scorched around it, fading out."""
    radius = draws.log_uniform("burn.radius", 5, 52)
    group = _group(draws, scene.centre, several=0.3, most=5)
    height = _blobs(draws, scene, group, radius, rough=(0.25, 0.7))
    core = smoothstep(0.25, column(draws.uniform("burn.core", 0.4, 1.0)), height)
    scorch = smoothstep(0.0, column(draws.uniform("burn.soft", 0.15, 0.8)), height)
    brown = torch.tensor([1.0, 0.82, 0.6], device=radius.device)
    tint = torch.where(scene.grey[:, None], 1.0, brown)[:, :, None, None]
    depth = torch.maximum(draws.uniform("burn.depth", 0.25, 0.7), 1.2 * scene.contrast)
    scorched = scene.clean * (tint - _planes(depth.clamp(max=0.8)) * (tint**0.5))
    soot = 0.03 * scene.plane.noise(draws, "burn.soot", "rough", 1.0)
    black = _planes(draws.uniform("burn.black", 0.01, 0.12)) + soot[:, None]
    ash = column(draws.chance("burn.ash", 0.25) * draws.uniform("burn.grey", 0.2, 0.6))
    white = smoothstep(0.3, 1.3, scene.plane.noise(draws, "burn.flakes", "grains", 1.2))
    black = black + _planes(ash * white)
    charred = draws.chance("burn.charred", 0.7)
    target = scorched + (black - scorched) * _planes(core * column(charred.float()))
    return Damage(scorch, target.clamp(0, 1), scorch > 0.3)


def _bubble(draws: Draws, scene: Scene) -> Damage:
    """Round blisters: a rim, a lit and a shaded flank, often a highlight."""
    radius = draws.log_uniform("bubble.radius", 2.5, 20)
    group = _group(draws, scene.centre, several=0.6)
    light = draws.uniform("bubble.light", 0, 2 * math.pi)
    u, v = scene.turned(light, torch.zeros_like(scene.centre))
    cos, sin = torch.cos(light)[:, None], torch.sin(light)[:, None]
    cx, cy = group.centres[..., 0], group.centres[..., 1]
    cu, cv = (cx * cos + cy * sin)[..., None, None], (cy * cos - cx * sin)[..., None, None]
    sizes = (radius[:, None] * group.sizes)[..., None, None]
    du, dv = (u[:, None] - cu) / sizes, (v[:, None] - cv) / sizes
    away, nearest = torch.hypot(du, dv).min(1, keepdim=True)
    du = du.gather(1, nearest)[:, 0]
    dv, away = dv.gather(1, nearest)[:, 0], away[:, 0]
    soft = column((1.2 / radius).clamp(0.05, 0.5))
    inside = 1 - smoothstep(1 - 0.5 * soft, 1 + 0.5 * soft, away)
    flank = du * smoothstep(0.2, 0.9, away)
    rim = torch.exp(-(((away - 0.9) / (0.1 + 0.5 * soft)) ** 2))
    glint = torch.exp(-((du - 0.45) ** 2 + dv**2) / 0.04)
    strength = torch.maximum(draws.log_uniform("bubble.strength", 0.1, 0.5), 1.5 * scene.contrast)
    ring = draws.uniform("bubble.ring", -0.8, 0.6)
    shine = draws.chance("bubble.shine", 0.6) * draws.uniform("bubble.glint", 0.3, 1.0)
    relief = flank + column(ring) * rim + column(shine) * glint
    fill = column(draws.uniform("bubble.fill", -0.5, 0.3))
    target = scene.clean + _planes(column(strength.clamp(max=0.6)) * (relief + fill))
    return Damage(inside, target.clamp(0, 1), inside > 0.4)


_DRAWN: dict[str, Callable[[Draws, Scene], Damage]] = {
    "scratch": _scratch,
    "crack": _crack,
    "hole": _hole,
    "stain": _stain,
    "contamination": _contamination,
    "break": _break,
    "discolouration": _discolouration,
    "dent": _dent,
    "uneven surface": _uneven,
    "fray": _fray,
    "burn": _burn,
    "bubble": _bubble,
}


def draw_damage(kind: int, draws: Draws, scene: Scene) -> Damage:
    """Damage of one kind on every picture; ``kind`` indexes ``DEFECT_KINDS``, no build kind."""
    return _DRAWN[DEFECT_KINDS[kind]](draws, scene)

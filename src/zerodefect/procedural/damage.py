"""Damage: what covers the product and what is seen there, and the pieces it is made of."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from zerodefect.procedural.draws import Draws, Field, column, smoothstep, turned
from zerodefect.procedural.scene import Scene


@dataclass(frozen=True)
class Damage:
    """One damage to each picture of a batch."""

    alpha: Tensor  # (B, S, S) opacity in [0, 1]
    target: Tensor  # (B, 3, S, S) what shows at opacity one
    cover: Tensor  # (B, S, S) bool, the pixels that count as damaged


def planes(values: Tensor) -> Tensor:
    """``(B,)`` or ``(B, S, S)`` to meet a ``(B, 3, S, S)`` picture."""
    return values[:, None, None, None] if values.ndim == 1 else values[:, None]


def shifted(
    draws: Draws, scene: Scene, *, low: float, high: float, over: float, dark: float
) -> Tensor:
    """The clean picture made darker or brighter by a visible step.

    Args:
        draws: decides direction and strength.
        scene: the clean picture.
        low, high: bounds of the strength, as a share of the way to black or white.
        over: least step as a multiple of the texture's contrast, so that damage can be seen.
        dark: share of darkening on a ground of middle brightness.
    """
    ground = scene.level.clamp(0.05, 0.95)
    likely = dark * smoothstep(0.08, 0.3, ground) + (1 - dark) * smoothstep(0.75, 0.92, ground)
    darken = draws.uniform("shift.way") < likely
    strength = draws.log_uniform("shift.strength", low, high)
    room = torch.where(darken, ground, 1 - ground)
    strength = torch.maximum(strength, over * scene.contrast / room).clamp(max=0.96)
    step = planes(strength)
    darker, brighter = scene.clean * (1 - step), scene.clean + (1 - scene.clean) * step
    return torch.where(planes(darken), darker, brighter)


@dataclass(frozen=True)
class Group:
    """Where the instances of one damage lie."""

    centres: Tensor  # (B, N, 2); the first is where the damage was asked for
    sizes: Tensor  # (B, N) relative sizes, the first 1, absent ones about 0

    def turned(self, angle: Tensor) -> tuple[Tensor, Tensor]:
        """Two ``(B, N)``: the centres in a system turned by ``angle``."""
        return turned(self.centres[..., 0], self.centres[..., 1], angle[:, None])


def grouped(
    draws: Draws, centre: Tensor, *, several: float, along: Tensor | None = None, most: int = 8
) -> Group:
    """One instance at ``centre (B, 2)`` or, as likely as ``several`` says, up to ``most`` of them.

    ``along (B,)`` is the direction in which they are strung out, if any.
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
        shift = torch.stack(turned(shift[..., 0], shift[..., 1] * flat, -along[:, None]), 2)
    shift[:, 0] = 0
    return Group(centre[:, None] + shift, sizes)


def blobs(
    draws: Draws,
    scene: Scene,
    group: Group,
    radius: Tensor,
    rough: tuple[float, float] = (0.1, 0.5),
    long: Tensor | None = None,
    angle: Tensor | None = None,
) -> Tensor:
    """``(B, S, S)`` height of irregular patches: positive inside, about one in their middles."""
    angle = draws.uniform("blob.angle", 0, math.pi) if angle is None else angle
    long = torch.ones_like(radius) if long is None else long
    u, v = scene.plane.turned(angle)
    cu, cv = group.turned(angle)
    squash = draws.uniform("blob.squash", 0.7, 1.4)
    stretch = long * squash
    du, dv = u / column(stretch), v * column(squash)
    cu, cv = cu / stretch[:, None], cv * squash[:, None]
    sizes = (group.sizes * radius[:, None])[..., None, None]
    far_u, far_v = du[:, None] - cu[..., None, None], dv[:, None] - cv[..., None, None]
    away = (torch.hypot(far_u, far_v) / sizes).amin(1)
    detail = (10.0 / radius).clamp(0.25, 2.0)
    # Half way to the patch's own length.
    edge = scene.plane.noise(draws, "blob.edge", "cloud", detail, long.sqrt(), (u, v))
    return 1 - away + column(draws.uniform("blob.rough", *rough)) * edge


def or_strip(draws: Draws, scene: Scene, height: Tensor, *, likely: float) -> Tensor:
    """Let patches become strips, or whole ends of the product with nearly straight sides.

    What a tool left out or did twice, where a liquid stood or a cover lay, ends in a line along or
    across the grain and often runs on to the product's border. ``height`` is as of ``blobs``,
    ``likely`` the probability of a strip.
    """
    strip = draws.under("strip")
    across = math.pi / 2 * strip.chance("across", 0.5)
    u, v = scene.plane.turned(scene.grain + across + strip.uniform("turn", -0.1, 0.1), scene.centre)
    wide = column(strip.log_uniform("wide", 6, 60))
    through = strip.chance("through", 0.55)
    long = column(torch.where(through, 400.0, strip.log_uniform("long", 12, 80)))
    edge = scene.plane.noise(strip, "edge", "cloud", 0.8)
    wavy = column(strip.uniform("wavy", 0.5, 5)) * edge
    inside = torch.minimum(1 - (v.abs() - wavy) / wide, 1 - (u.abs() - wavy) / long)
    return torch.where(column(strip.chance("there", likely)), inside, height)


def extent(draws: Draws, name: str, low: float, high: float) -> Tensor:
    """``(B,)`` size in [low, high): small ones and large ones are equally frequent."""
    large = draws.uniform(f"{name}.large", 0.4 * high, high)
    small = draws.log_uniform(name, low, high)
    return torch.where(draws.chance(f"{name}.is_large", 0.4), large, small)


def retextured(draws: Draws, scene: Scene, target: Tensor) -> Tensor:
    """A changed surface with a texture of its own: finer, coarser, noisier or smoother."""
    mean = scene.colour[:, :, None, None]
    keep = planes(torch.where(draws.chance("own.kept", 0.5), 1.0, draws.uniform("own.keep", 0, 2)))
    changed = (target + (keep - 1) * (scene.clean - mean)).clamp(0, 1)
    scale, stretch = draws.log_uniform("own.scale", 0.4, 2.5), draws.log_uniform("own.long", 1, 6)
    at = scene.plane.turned(scene.grain, scene.centre)
    noise = scene.plane.noise(draws, "own.noise", "rough", scale, stretch, at)
    rough = draws.log_uniform("own.rough", 0.01, 0.12) * draws.chance("own.noisy", 0.5)
    return (changed + planes(column(rough * scene.level.sqrt()) * noise)).clamp(0, 1)


def away_from(plane: Field, height: Tensor, flattest: float = 1.0, steepest: float = 6.0) -> Tensor:
    """``(B, S, S)`` about the distance in units to the line where ``height (B, S, S)`` is zero.

    ``flattest`` and ``steepest`` bound the slope that is reckoned with, per unit.
    """
    dy, dx = torch.gradient(height, spacing=plane.step, dim=(1, 2))
    return height.abs() / torch.hypot(dx, dy).clamp(flattest, steepest)


def at_border(draws: Draws, name: str, scene: Scene, likely: float) -> tuple[Tensor, Tensor]:
    """``(B,)`` bool whether damage begins at the product's border, and its ``(B, 2)`` centre."""
    there = draws.chance(name, likely)
    return there, torch.where(there[:, None], scene.border, scene.centre)

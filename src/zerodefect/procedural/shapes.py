"""Shapes: where in the picture the product is, as a signed distance."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from zerodefect.procedural.draws import Draws, Field, PerPicture, by_name, column
from zerodefect.procedural.kinds import BUILD_KINDS
from zerodefect.procedural.parts import PARTS, Found, box, laid_out, polygon

SHAPES = {
    "filled": 0.36, "margin": 0.22, "plate": 0.11, "disc": 0.04, "ring": 0.04, "bar": 0.045,
    "polygon": 0.03, "gear": 0.025, "bottle": 0.025, "capsule": 0.02, "screw": 0.025,
    "hex bolt": 0.02, "many": 0.04, "comb": 0.02, "cables": 0.025,
}  # fmt: skip
"""Each shape, and how often it is drawn."""
LARGE = ("filled", "margin", "plate", "disc")
"""Shapes with room for structure on them."""
BENDABLE = ("bar", "screw", "comb", "cables")
COUNTABLE = ("many", "comb")
"""Shapes of several equal pieces, of which one can be missing."""
_SMALL = ("pill", "capsule", "screw", "hex bolt", "washer", "gear", "pin", "pad", "bottle")


@dataclass(frozen=True)
class Change(PerPicture):
    """What is wrong with the build of each product; each ``(B,)`` bool, as in ``BUILD_KINDS``."""

    missing: Tensor
    extra: Tensor
    misplaced: Tensor
    bent: Tensor
    misprinted: Tensor

    @classmethod
    def of(cls, kinds: list[str], device: torch.device) -> Change:
        """By the build kind of each product; with any other word all is as it should be."""
        wrong = [[kind == build for kind in kinds] for build in BUILD_KINDS]
        return cls(*torch.tensor(wrong, device=device))


def bent(draws: Draws, u: Tensor, v: Tensor, reach: Tensor, wrong: Tensor) -> Tensor:
    """``v`` of something that lies along u and is bent somewhere, where ``wrong``."""
    side = torch.where(draws.chance("bent.side", 0.5), 1.0, -1.0)
    start = column(draws.uniform("bent.start", -0.3, 0.45)) * reach
    slope = draws.log_uniform("bent.slope", 0.15, 0.9) * side * wrong
    turn = torch.where(draws.chance("bent.end", 0.5), 1.0, -1.0)
    past = (u * column(turn) - start).clamp_min(0)
    soft = column(draws.uniform("bent.soft", 0.5, 20))
    return v + column(slope) * past * past / (past + soft)


def _filled(size: Draws, picture: Draws, u: Tensor, v: Tensor, change: Change) -> Tensor:
    return torch.full_like(u, -200.0)  # no border is anywhere near


def _margin(size: Draws, picture: Draws, u: Tensor, v: Tensor, change: Change) -> Tensor:
    """A straight border on one to four sides, the others outside the picture."""
    place = size.uniforms("margin.place", 4, 28, 62)
    seen = size.uniforms("margin.seen", 4) < 0.5
    seen[:, 0] |= ~seen.any(1)
    place = torch.where(seen, place, torch.full_like(place, 140.0))
    tilt = size.uniforms("margin.tilt", 4, -0.03, 0.03)
    p, t = place[:, :, None, None], tilt[:, :, None, None]
    sides = torch.stack([-u, u, -v, v], 1) + t * torch.stack([v, v, u, u], 1) - p
    corner = column(size.log_uniform("margin.corner", 0.5, 10))
    du, dv = sides[:, :2].amax(1) + corner, sides[:, 2:].amax(1) + corner
    outside = torch.hypot(du.clamp_min(0), dv.clamp_min(0))
    return outside + torch.maximum(du, dv).clamp_max(0) - corner


def _plate(size: Draws, picture: Draws, u: Tensor, v: Tensor, change: Change) -> Tensor:
    half = size.uniforms("plate.half", 2, 44, 68)
    corner = column(size.uniform("plate.corner", 0.5, 14))
    return box(u, v, column(half[:, 0]), column(half[:, 1]), corner)


def _radius(size: Draws) -> Tensor:
    return column(size.uniform("shape.radius", 32, 60))


def _disc(size: Draws, picture: Draws, u: Tensor, v: Tensor, change: Change) -> Tensor:
    return torch.hypot(u, v / column(size.uniform("shape.ratio", 0.75, 1.0))) - _radius(size)


def _ring(size: Draws, picture: Draws, u: Tensor, v: Tensor, change: Change) -> Tensor:
    radius, away = _radius(size), torch.hypot(u, v)
    bore = radius * column(size.uniform("ring.bore", 0.25, 0.65))
    return torch.maximum(away - radius, bore - away)


def _bar(size: Draws, picture: Draws, u: Tensor, v: Tensor, change: Change) -> Tensor:
    radius = _radius(size)
    width = column(size.uniform("bar.width", 10, 30))
    corner = width * column(size.uniform("bar.corner", 0.05, 0.95))
    return box(u, bent(picture, u, v, radius, change.bent), radius + 14, width, corner)


def _polygon(size: Draws, picture: Draws, u: Tensor, v: Tensor, change: Change) -> Tensor:
    sides = column(3.0 + torch.floor(size.uniform("polygon.sides", 0, 5.99)))
    return polygon(u, v, _radius(size) * 0.85, sides)


def _many(size: Draws, picture: Draws, u: Tensor, v: Tensor, change: Change) -> Found:
    """Several equal small things side by side, each in any or in the same pose."""
    pitch = column(size.uniform("many.pitch", 30, 52))
    ordered = column(size.chance("many.ordered", 0.5).float())
    names = [_SMALL[i] for i in size.integers("many.part", len(_SMALL)).tolist()]
    i, j = torch.round(u / pitch).clamp(-2, 2), torch.round(v / pitch).clamp(-2, 2)
    number = ((j + 2) * 5 + i + 2).long().flatten(1)
    loose = 1 - ordered

    def own(name: str, low: float, high: float) -> Tensor:
        table = picture.uniforms(name, 25, low, high)
        return table.gather(1, number).view_as(u)

    x = u - i * pitch - loose * own("many.x", -0.1, 0.1) * pitch
    y = v - j * pitch - loose * own("many.y", -0.1, 0.1) * pitch
    angle = loose * own("many.turn", -math.pi, math.pi)
    radius = pitch * column(size.uniform("many.radius", 0.28, 0.42))
    chosen = picture.integers("many.chosen", 9)
    chosen_u, chosen_v = column((chosen % 3 - 1).float()), column((chosen // 3 - 1).float())
    away = column((change.missing | change.misplaced).float())
    gone = away * ((i == chosen_u) & (j == chosen_v))
    shift = column(torch.where(change.extra, 0.5, picture.uniform("many.shift", 0.2, 0.45)))
    free_x, free_y = u - (chosen_u + shift) * pitch, v - (chosen_v + shift) * pitch
    free = free_x, free_y, column(picture.uniform("many.free", -math.pi, math.pi))
    return laid_out(
        names, size, radius, (x, y, angle), 60 * gone, free, change.extra | change.misplaced
    )


def _comb(size: Draws, picture: Draws, u: Tensor, v: Tensor, change: Change) -> Tensor:
    """A connector: a body with a row of pins; one may be missing, moved or bent."""
    pitch = column(size.uniform("comb.pitch", 9, 22))
    deep = column(size.uniform("comb.body", 12, 24))
    body = box(u + 30, v, deep, 3.2 * pitch + 0 * u, 3 + 0 * pitch)
    lane = torch.round(v / pitch).clamp(-2, 2)
    chosen = column(picture.integers("comb.chosen", 5) - 2.0)
    odd = column(change.missing | change.misplaced | change.bent)
    half = pitch * column(size.uniform("comb.wide", 0.12, 0.3))
    long = column(size.uniform("comb.long", 20, 40))

    def pin(along: Tensor, across: Tensor) -> Tensor:
        return box(along - 5, across, long, half, 0.5 * half)

    pins = pin(u, v - lane * pitch) + 60 * (odd & (lane == chosen))
    shift = column(picture.uniform("comb.shift", 0.25, 0.5) * change.misplaced)
    away = v - (chosen + shift) * pitch
    free = pin(u, bent(picture, u, away, long, change.bent))
    free = free + 200 * ~column(change.misplaced | change.bent)
    return torch.minimum(body, torch.minimum(pins, free))


def _cables(size: Draws, picture: Draws, u: Tensor, v: Tensor, change: Change) -> Tensor:
    """Parallel cables, of which one may be bent out of its place."""
    pitch = column(size.uniform("cables.pitch", 10, 26))
    count = column(torch.floor(size.uniform("cables.count", 1, 4)))
    lane = torch.round(v / pitch).clamp(-count, count)
    half = pitch * column(size.uniform("cables.wide", 0.25, 0.48))
    wavy = v + column(size.uniform("cables.wave", 0, 3)) * torch.sin(u / 25)
    chosen = count  # the outermost has room to bend
    odd = column(change.bent)
    kept = (wavy - lane * pitch).abs() - half + 200 * (odd & (lane == chosen))
    away = bent(picture, u, wavy - chosen * pitch, 40 + 0 * pitch, change.bent)
    return torch.minimum(kept, away.abs() - half + 200 * ~odd)


_FLAT: dict[str, Callable[[Draws, Draws, Tensor, Tensor, Change], Tensor]] = {
    "filled": _filled, "margin": _margin, "plate": _plate, "disc": _disc, "ring": _ring,
    "bar": _bar, "polygon": _polygon, "comb": _comb, "cables": _cables,
}  # fmt: skip
"""(size, picture, u, v, change) -> distance, of shapes without relief; others are parts."""


def signed_distance(
    names: list[str], identity: Draws, picture: Draws, plane: Field, wander: float, change: Change
) -> Found:
    """Distance to the product's border, and the shade of its own relief.

    ``names`` are from ``SHAPES``; ``identity`` decides the proportions, ``picture`` place and turn.
    ``wander`` is how far products lie from the middle: 1 as a careless feeder leaves them.
    """
    place = picture.uniforms("shape.place", 2, -12 * wander, 12 * wander)
    turn = picture.uniform("shape.turn", -0.12 * wander, 0.12 * wander)
    loose = torch.tensor([name not in LARGE for name in names], device=plane.device)
    free = identity.chance("shape.free", 0.3) | (loose & identity.chance("shape.loose", 0.6))
    turn = turn + torch.where(free, identity.uniform("shape.angle", 0, math.pi), 0.0)
    level = torch.tensor([name == "margin" for name in names], device=plane.device)
    turn = torch.where(level, 0.3 * picture.uniform("shape.level", -0.12, 0.12) * wander, turn)
    u, v = plane.turned(turn)
    u, v = u - column(place[:, 0]), v - column(place[:, 1])
    distance, shade = torch.empty_like(u), torch.zeros_like(u)
    for name, rows in by_name(names, plane.device):
        size, at, wrong = identity.rows(rows), picture.rows(rows), change.rows(rows)
        uu, vv = u[rows], v[rows]
        if name in _FLAT:
            distance[rows] = _FLAT[name](size, at, uu, vv, wrong)
        elif name == "many":
            distance[rows], shade[rows] = _many(size, at, uu, vv, wrong)
        else:
            radius = _radius(size)
            vv = bent(at, uu, vv, radius, wrong.bent)
            distance[rows], shade[rows] = PARTS[name](size, uu, vv, radius)
    return distance, shade

"""Shapes: where in the picture the product is, as a signed distance."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from zerodefect.procedural.draws import Draws, Field, column
from zerodefect.procedural.parts import PARTS, Found, box, polygon

_WEIGHTS = {
    "filled": 0.36,
    "margin": 0.22,
    "plate": 0.11,
    "disc": 0.04,
    "ring": 0.04,
    "bar": 0.045,
    "polygon": 0.03,
    "gear": 0.025,
    "bottle": 0.025,
    "capsule": 0.02,
    "screw": 0.025,
    "hex bolt": 0.02,
    "many": 0.04,
    "comb": 0.02,
    "cables": 0.025,
}
SHAPES = tuple(_WEIGHTS)
SHAPE_WEIGHTS = tuple(_WEIGHTS.values())
LARGE = ("filled", "margin", "plate", "disc")
"""Shapes with room for structure on them."""
BENDABLE = ("bar", "screw", "comb", "cables")
COUNTABLE = ("many", "comb")
"""Shapes of several equal pieces, of which one can be missing."""
_SMALL = ("pill", "capsule", "screw", "hex bolt", "washer", "gear", "pin", "pad", "bottle")
FAR = -200.0  # signed distance where the product fills the whole picture


@dataclass(frozen=True)
class Change:
    """What is wrong with the build of each product; each ``(B,)`` bool."""

    missing: torch.Tensor
    extra: torch.Tensor
    misplaced: torch.Tensor
    bent: torch.Tensor
    misprinted: torch.Tensor

    def rows(self, rows: torch.Tensor) -> Change:
        """The same for some of the pictures."""
        return Change(**{name: value[rows] for name, value in vars(self).items()})

    @classmethod
    def none(cls, count: int, device: torch.device) -> Change:
        """Everything as it should be."""
        no = torch.zeros(count, dtype=torch.bool, device=device)
        return cls(no, no, no, no, no)


def bent(
    draws: Draws, u: torch.Tensor, v: torch.Tensor, reach: torch.Tensor, wrong: torch.Tensor
) -> torch.Tensor:
    """``v`` of something that lies along u and is bent somewhere, where ``wrong``."""
    side = torch.where(draws.chance("bent.side", 0.5), 1.0, -1.0)
    start = column(draws.uniform("bent.start", -0.3, 0.45)) * reach
    slope = draws.log_uniform("bent.slope", 0.15, 0.9) * side * wrong
    turn = torch.where(draws.chance("bent.end", 0.5), 1.0, -1.0)
    past = (u * column(turn) - start).clamp_min(0)
    soft = column(draws.uniform("bent.soft", 0.5, 20))
    return v + column(slope) * past * past / (past + soft)


def _margin(size: Draws, u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
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


def _many(size: Draws, picture: Draws, u: torch.Tensor, v: torch.Tensor, change: Change) -> Found:
    """Several equal small things side by side, each in any or in the same pose."""
    pitch = column(size.uniform("many.pitch", 30, 52))
    ordered = column(size.chance("many.ordered", 0.5).float())
    names = [_SMALL[i] for i in size.integers("many.part", len(_SMALL))]
    i, j = torch.round(u / pitch).clamp(-2, 2), torch.round(v / pitch).clamp(-2, 2)
    number = ((j + 2) * 5 + i + 2).long().flatten(1)
    loose = 1 - ordered

    def own(name: str, low: float, high: float) -> torch.Tensor:
        table = picture.uniforms(name, 25, low, high)
        return table.gather(1, number).view_as(u)

    x = u - i * pitch - loose * own("many.x", -0.1, 0.1) * pitch
    y = v - j * pitch - loose * own("many.y", -0.1, 0.1) * pitch
    angle = loose * own("many.turn", -math.pi, math.pi)
    radius = pitch * column(size.uniform("many.radius", 0.28, 0.42))
    chosen = torch.from_numpy(picture.integers("many.chosen", 9)).to(u.device)
    chosen_u, chosen_v = column((chosen % 3 - 1).float()), column((chosen // 3 - 1).float())
    away = column((change.missing | change.misplaced).float())
    gone = away * ((i == chosen_u) & (j == chosen_v))
    shift = column(torch.where(change.extra, 0.5, picture.uniform("many.shift", 0.2, 0.45)))
    free_x, free_y = u - (chosen_u + shift) * pitch, v - (chosen_v + shift) * pitch
    free_angle = column(picture.uniform("many.free", -math.pi, math.pi))
    extra = column(change.extra | change.misplaced)
    distance, shade = torch.empty_like(u), torch.empty_like(u)
    for row, name in enumerate(names):
        one = slice(row, row + 1)
        pick = size.rows(torch.tensor([row]))
        for x_, y_, a_, free in ((x, y, angle, False), (free_x, free_y, free_angle, True)):
            if free and not bool(extra[row]):
                continue
            cos, sin = torch.cos(a_[one]), torch.sin(a_[one])
            pu, pv = x_[one] * cos + y_[one] * sin, y_[one] * cos - x_[one] * sin
            found, tone = PARTS[name](pick, pu, pv, radius[one])
            found = found if free else found + 60 * gone[one]
            shade[one] = torch.where(found < distance[one], tone, shade[one]) if free else tone
            distance[one] = torch.minimum(found, distance[one]) if free else found
    return distance, shade


def _comb(
    size: Draws, picture: Draws, u: torch.Tensor, v: torch.Tensor, change: Change
) -> torch.Tensor:
    """A connector: a body with a row of pins; one may be missing, moved or bent."""
    pitch = column(size.uniform("comb.pitch", 9, 22))
    body = box(
        u + 30, v, column(size.uniform("comb.body", 12, 24)), 3.2 * pitch + 0 * u, 3 + 0 * pitch
    )
    lane = torch.round(v / pitch).clamp(-2, 2)
    chosen = column(torch.from_numpy(picture.integers("comb.chosen", 5)).to(u.device) - 2.0)
    odd = column(change.missing | change.misplaced | change.bent)
    half = pitch * column(size.uniform("comb.wide", 0.12, 0.3))
    long = column(size.uniform("comb.long", 20, 40))

    def pin(along: torch.Tensor, across: torch.Tensor) -> torch.Tensor:
        return box(along - 5, across, long, half, 0.5 * half)

    pins = pin(u, v - lane * pitch) + 60 * (odd & (lane == chosen))
    shift = column(picture.uniform("comb.shift", 0.25, 0.5) * change.misplaced)
    away = v - (chosen + shift) * pitch
    free = pin(u, bent(picture, u, away, long, change.bent))
    free = free + 200 * ~column(change.misplaced | change.bent)
    return torch.minimum(body, torch.minimum(pins, free))


def _cables(
    size: Draws, picture: Draws, u: torch.Tensor, v: torch.Tensor, change: Change
) -> torch.Tensor:
    """Parallel cables, of which one may be bent out of its place."""
    pitch = column(size.uniform("cables.pitch", 10, 26))
    count = column(torch.floor(size.uniform("cables.count", 1, 4)))
    lane = torch.maximum(torch.minimum(torch.round(v / pitch), count), -count)
    half = pitch * column(size.uniform("cables.wide", 0.25, 0.48))
    wavy = v + column(size.uniform("cables.wave", 0, 3)) * torch.sin(u / 25)
    chosen = count  # the outermost has room to bend
    odd = column(change.bent)
    kept = (wavy - lane * pitch).abs() - half + 200 * (odd & (lane == chosen))
    free = (
        bent(picture, u, wavy - chosen * pitch, 40 + 0 * pitch, change.bent).abs()
        - half
        + 200 * ~odd
    )
    return torch.minimum(kept, free)


def signed_distance(
    names: list[str],
    identity: Draws,
    picture: Draws,
    plane: Field,
    wander: float,
    change: Change,
) -> Found:
    """Distance to the product's border, and the shade of its own relief.

    Distance is ``(B, S, S)``, negative inside, in units of the plane; shade is in about [-1, 1].

    Args:
        names: shape of each picture, from ``SHAPES``.
        identity: the product's proportions.
        picture: the product's place and turn in this picture.
        plane: the picture plane.
        wander: how far products lie from the middle, 1 is as far as a careless feeder leaves them.
        change: what is wrong with the build.
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
    radius = identity.uniform("shape.radius", 32, 60)
    ratio = identity.uniform("shape.ratio", 0.75, 1.0)
    distance, shade = torch.full_like(u, FAR), torch.zeros_like(u)
    for name in dict.fromkeys(names):
        rows = torch.tensor([i for i, n in enumerate(names) if n == name], device=u.device)
        if name == "filled":
            continue
        uu, vv, rr, qq = u[rows], v[rows], column(radius[rows]), column(ratio[rows])
        size, at, wrong = identity.rows(rows), picture.rows(rows), change.rows(rows)
        if name == "margin":
            found = _margin(size, uu, vv)
        elif name == "plate":
            half = size.uniforms("plate.half", 2, 44, 68)
            corner = column(size.uniform("plate.corner", 0.5, 14))
            found = box(uu, vv, column(half[:, 0]), column(half[:, 1]), corner)
        elif name == "disc":
            found = torch.hypot(uu, vv / qq) - rr
        elif name == "ring":
            bore = rr * column(size.uniform("ring.bore", 0.25, 0.65))
            away = torch.hypot(uu, vv)
            found = torch.maximum(away - rr, bore - away)
        elif name == "bar":
            width = column(size.uniform("bar.width", 10, 30))
            vv = bent(at, uu, vv, rr, wrong.bent)
            found = box(
                uu, vv, rr + 14, width, width * column(size.uniform("bar.corner", 0.05, 0.95))
            )
        elif name == "polygon":
            found = polygon(
                uu, vv, rr * 0.85, column(3.0 + torch.floor(size.uniform("polygon.sides", 0, 5.99)))
            )
        elif name == "many":
            found, shade[rows] = _many(size, at, uu, vv, wrong)
        elif name == "comb":
            found = _comb(size, at, uu, vv, wrong)
        elif name == "cables":
            found = _cables(size, at, uu, vv, wrong)
        else:
            found, shade[rows] = PARTS[name](size, uu, bent(at, uu, vv, rr, wrong.bent), rr)
        distance[rows] = found
    return distance, shade

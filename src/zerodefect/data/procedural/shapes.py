"""Shapes: where in the picture the product is, as a signed distance."""

from __future__ import annotations

import math

import torch

from zerodefect.data.procedural.draws import Draws, Field, column

SHAPES = ("filled", "plate", "disc", "ring", "bar", "polygon")
SHAPE_WEIGHTS = (0.45, 0.24, 0.09, 0.08, 0.07, 0.07)
FAR = -200.0  # signed distance where the product fills the whole picture


def _box(u: torch.Tensor, v: torch.Tensor, a: torch.Tensor, b: torch.Tensor, r: torch.Tensor):  # type: ignore[no-untyped-def]
    """Distance to a box of half sides a, b with corners rounded by r."""
    du, dv = u.abs() - column(a - r), v.abs() - column(b - r)
    outside = torch.hypot(du.clamp_min(0), dv.clamp_min(0))
    return outside + torch.maximum(du, dv).clamp_max(0) - column(r)


def signed_distance(
    names: list[str], identity: Draws, picture: Draws, plane: Field, wander: float
) -> torch.Tensor:
    """``(B, S, S)`` distance to the product's border: negative inside, in units of the plane.

    Args:
        names: shape of each picture, from ``SHAPES``.
        identity: the product's proportions.
        picture: the product's place and turn in this picture.
        plane: the picture plane.
        wander: how far products lie from the middle, 1 is as far as a careless feeder leaves them.
    """
    place = picture.uniforms("shape.place", 2, -12 * wander, 12 * wander)
    turn = picture.uniform("shape.turn", -0.12 * wander, 0.12 * wander)
    free = identity.chance("shape.free", 0.3)
    turn = turn + torch.where(free, identity.uniform("shape.angle", 0, math.pi), 0.0)
    u, v = plane.turned(turn)
    u, v = u - column(place[:, 0]), v - column(place[:, 1])
    radius = identity.uniform("shape.radius", 32, 60)
    ratio = identity.uniform("shape.ratio", 0.75, 1.0)
    distance = torch.full_like(u, FAR)
    for name in set(names):
        rows = torch.tensor([i for i, n in enumerate(names) if n == name], device=u.device)
        if name == "filled":
            continue
        uu, vv, rr, qq = u[rows], v[rows], radius[rows], ratio[rows]
        size = identity.rows(rows)
        if name == "plate":
            half = size.uniforms("plate.half", 2, 44, 68)
            found = _box(uu, vv, half[:, 0], half[:, 1], size.uniform("plate.corner", 0.5, 14))
        elif name == "disc":
            found = torch.hypot(uu, vv / column(qq)) - column(rr)
        elif name == "ring":
            bore = rr * size.uniform("ring.bore", 0.25, 0.65)
            away = torch.hypot(uu, vv)
            found = torch.maximum(away - column(rr), column(bore) - away)
        elif name == "bar":
            width = size.uniform("bar.width", 10, 30)
            found = _box(uu, vv, rr + 14, width, width * size.uniform("bar.corner", 0.05, 0.95))
        else:
            sides = 3.0 + torch.floor(size.uniform("polygon.sides", 0, 5.99))
            angle = torch.atan2(vv, uu)
            sector = column(2 * math.pi / sides)
            fold = angle - sector * torch.round(angle / sector)
            found = torch.hypot(uu, vv) * torch.cos(fold) - column(rr * 0.85)
        distance[rows] = found
    return distance

"""Parts: signed distances and shading of small things that products are composed of."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from zerodefect.procedural.draws import Draws, by_name, column, smoothstep, turned

Found = tuple[Tensor, Tensor]
"""``(B, S, S)`` distance to the part's border, negative inside, and its shade in about [-1, 1]."""
Pose = tuple[Tensor, Tensor, Tensor]
"""Two ``(B, S, S)`` coordinates around a part, and the angle that it is turned by."""


def box(u: Tensor, v: Tensor, a: Tensor, b: Tensor, r: Tensor) -> Tensor:
    """Distance to a box of half sides a, b with corners rounded by r; all meet a field."""
    du, dv = u.abs() - (a - r), v.abs() - (b - r)
    outside = torch.hypot(du.clamp_min(0), dv.clamp_min(0))
    return outside + torch.maximum(du, dv).clamp_max(0) - r


def polygon(u: Tensor, v: Tensor, r: Tensor, sides: Tensor | float) -> Tensor:
    """Distance to a regular polygon with inner radius r."""
    sector = 2 * math.pi / sides
    angle = torch.atan2(v, u)
    return torch.hypot(u, v) * torch.cos(angle - sector * torch.round(angle / sector)) - r


def nearest(x: Tensor, period: Tensor) -> Tensor:
    """``x`` less the nearest multiple of the period."""
    return x - torch.round(x / period) * period


def _inside(distance: Tensor) -> Tensor:
    return (0.5 - distance).clamp(0, 1)


def _hole(draws: Draws, u: Tensor, v: Tensor, r: Tensor) -> Found:
    away = torch.hypot(u, v)
    return away - r, 0.4 * (u / r) * smoothstep(0.5, 1.0, away / r)


def _screw_top(draws: Draws, u: Tensor, v: Tensor, r: Tensor) -> Found:
    away = torch.hypot(u, v) - r
    slot = box(u, v, 0.65 * r, 0.14 * r, 0.02 * r)
    cross = torch.minimum(slot, box(v, u, 0.65 * r, 0.14 * r, 0.02 * r))
    slot = torch.where(column(draws.chance("part.cross", 0.6)), cross, slot)
    dome = smoothstep(-0.45, 0.0, away / r) * (u + v) / r
    return away, 0.5 * dome - 0.9 * _inside(slot)


def _hex_top(draws: Draws, u: Tensor, v: Tensor, r: Tensor) -> Found:
    away = polygon(u, v, 0.9 * r, 6.0)
    bore = torch.hypot(u, v) - r * column(draws.uniform("part.bore", 0.35, 0.65))
    bright = column(draws.uniform("part.bore_tone", -0.9, 0.4))
    facet = torch.round(torch.atan2(v, u) / (math.pi / 3)) * (math.pi / 3)
    return away, 0.35 * torch.cos(facet + 0.7) * (bore > 0) + bright * _inside(bore)


def _washer(draws: Draws, u: Tensor, v: Tensor, r: Tensor) -> Found:
    bore = r * column(draws.uniform("part.bore", 0.3, 0.7))
    away = torch.hypot(u, v)
    middle = (away - (r + bore) / 2) / (r - bore)
    return torch.maximum(away - r, bore - away), 0.6 * middle * (u + v) / away.clamp_min(0.5)


def _pad(draws: Draws, u: Tensor, v: Tensor, r: Tensor) -> Found:
    flat = column(draws.uniform("part.flat", 0.4, 1.0))
    away = box(u, v, r, r * flat, 0.5 * r * flat * column(draws.uniform("part.corner")))
    return away, -0.3 * smoothstep(-0.35, 0.0, away / r) + 0.2 * v / r


def _chip(draws: Draws, u: Tensor, v: Tensor, r: Tensor) -> Found:
    flat = column(draws.uniform("part.flat", 0.45, 0.95))
    body = box(u, v, r, 0.78 * r * flat, 0.05 * r)
    pitch = r * column(draws.uniform("part.pitch", 0.28, 0.5))
    pins = box(nearest(u, pitch), v.abs() - 0.88 * r * flat, 0.25 * pitch, 0.2 * r, 0.0 * r)
    pins = torch.maximum(pins, u.abs() - 0.92 * r)
    dot = torch.hypot(u + 0.7 * r, v + 0.5 * r * flat) - 0.1 * r
    return torch.minimum(body, pins), torch.where(body < 0, 0.5 * _inside(dot) - 0.6, 0.9)


def _pill(draws: Draws, u: Tensor, v: Tensor, r: Tensor) -> Found:
    flat = column(draws.uniform("part.flat", 0.5, 1.0))
    away = (torch.hypot(u, v / flat) - r) * flat
    scored = column(draws.chance("part.scored", 0.5).float())
    dome = smoothstep(-0.6, 0.0, away / r) * (u + v) / r
    return away, 0.6 * dome - 0.7 * scored * (0.06 * r + 0.5 - u.abs()).clamp(0, 1)


def _capsule(draws: Draws, u: Tensor, v: Tensor, r: Tensor) -> Found:
    wide = r * column(draws.uniform("part.wide", 0.3, 0.45))
    away = box(u, v, r, wide, wide)
    two = column(draws.uniform("part.two", -0.8, 0.8))
    shine = torch.exp(-(((v + 0.4 * wide) / (0.25 * wide)) ** 2)) - 0.6 * (v / wide).abs() ** 3
    return away, 0.5 * shine + two * torch.sign(u) * 0.6


def _screw_side(draws: Draws, u: Tensor, v: Tensor, r: Tensor) -> Found:
    wide = r * column(draws.uniform("part.wide", 0.12, 0.22))
    head = box(u + 0.82 * r, v, 0.18 * r, 2.0 * wide, 0.08 * r)
    pitch = (0.5 * wide).clamp_min(1.6)
    thread = torch.sin(2 * math.pi * (u + 0.4 * v) / pitch)
    tip = wide * (1 - smoothstep(0.75, 1.0, u / r) * column(draws.uniform("part.tip", 0.0, 0.9)))
    shaft = torch.maximum(v.abs() - tip - 0.05 * wide * thread, (u - 0.1 * r).abs() - 0.9 * r)
    round_ = 0.7 - 1.3 * ((v + 0.3 * wide) / wide).abs()
    threaded = 0.5 * thread * (u > -0.35 * r)
    return torch.minimum(head, shaft), (round_ + threaded * (head > 0)).clamp(-1, 1)


def _gear(draws: Draws, u: Tensor, v: Tensor, r: Tensor) -> Found:
    teeth = column(8.0 + torch.floor(draws.uniform("part.teeth", 0, 16.99)))
    away, angle = torch.hypot(u, v), torch.atan2(v, u)
    tooth = torch.tanh(3 * torch.sin(angle * teeth)) * 0.08 * r
    bore = away - r * column(draws.uniform("part.bore", 0.12, 0.45))
    hub = smoothstep(0.0, 0.06, (away - 0.65 * r).abs() / r)
    return torch.maximum(away - 0.9 * r - tooth, -bore), 0.4 * hub - 0.3 + 0.2 * u / r


def _bottle(draws: Draws, u: Tensor, v: Tensor, r: Tensor) -> Found:
    wide = r * column(draws.uniform("part.wide", 0.3, 0.5))
    neck = wide * column(draws.uniform("part.neck", 0.3, 0.55))
    shoulder = smoothstep(-0.55, -0.2, u / r)
    half = neck + (wide - neck) * shoulder
    away = torch.maximum(v.abs() - half, u.abs() - r)
    cap = (u < -0.8 * r).float()
    across = v / half.clamp_min(1.0)
    shine = torch.exp(-(((across + 0.45) / 0.15) ** 2)) - 0.7 * across.abs() ** 4
    label = ((u - 0.3 * r).abs() < 0.35 * r).float() * column(draws.uniform("part.label", -1, 1))
    return away, (0.6 * shine + 0.5 * label - 0.6 * cap).clamp(-1, 1)


def _pin(draws: Draws, u: Tensor, v: Tensor, r: Tensor) -> Found:
    wide = r * column(draws.uniform("part.wide", 0.12, 0.3))
    return box(u, v, r, wide, 0.6 * wide), 0.8 - 1.4 * (v / wide + 0.2).abs()


def _slot(draws: Draws, u: Tensor, v: Tensor, r: Tensor) -> Found:
    wide = r * column(draws.uniform("part.wide", 0.15, 0.5))
    away = box(u, v, r, wide, wide)
    return away, 0.5 * v / wide


PARTS: dict[str, Callable[[Draws, Tensor, Tensor, Tensor], Found]] = {
    "hole": _hole, "screw head": _screw_top, "hex bolt": _hex_top, "washer": _washer, "pad": _pad,
    "chip": _chip, "pill": _pill, "capsule": _capsule, "screw": _screw_side, "gear": _gear,
    "bottle": _bottle, "pin": _pin, "slot": _slot,
}  # fmt: skip
"""What a part of half size r around zero looks like; ``r`` is ``(B, 1, 1)``."""


def laid_out(
    names: list[str],
    draws: Draws,
    radius: Tensor,
    at: Pose,
    gone: Tensor,
    free_at: Pose,
    free: Tensor,
) -> Found:
    """Equal parts in their places ``at``, each pixel at its nearest; one more where ``free (B,)``.

    ``radius`` is ``(B, 1, 1)``; ``gone (B, S, S)`` is added to the distance of missing parts.
    """
    distance, shade = torch.empty_like(at[0]), torch.empty_like(at[0])
    for name, rows in by_name(names, distance.device):
        own, r = draws.rows(rows), radius[rows]
        found, tone = PARTS[name](own, *turned(*(part[rows] for part in at)), r)
        found = found + gone[rows]
        if bool(free[rows].any()):
            other, free_tone = PARTS[name](own, *turned(*(part[rows] for part in free_at)), r)
            other = other + 200 * ~column(free[rows])
            tone = torch.where(other < found, free_tone, tone)
            found = torch.minimum(found, other)
        distance[rows], shade[rows] = found, tone
    return distance, shade

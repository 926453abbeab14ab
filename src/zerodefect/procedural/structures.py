"""Structure on products: parts in rows, grids and circles, printed text, circuit layouts."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from zerodefect.procedural.draws import Draws, column, smoothstep, turned
from zerodefect.procedural.parts import PARTS, Found, box, laid_out, nearest
from zerodefect.procedural.shapes import Change

_SIDE = 32  # cells of a layout are numbered in a square of this side


@dataclass(frozen=True)
class Ink:
    """What structure lays over a product; all ``(B, S, S)``."""

    alpha: Tensor  # opacity in [0, 1]
    shade: Tensor  # tone of the part around its own mean, in about [-1, 1]
    shadow: Tensor  # share of light that is lost beside raised parts


_ON_GRIDS = ("hole", "hole", "screw head", "hex bolt", "washer", "pad", "chip", "pill", "slot")


def _numbers(i: Tensor, j: Tensor) -> Tensor:
    half = _SIDE // 2
    return ((j.long() + half) % _SIDE) * _SIDE + (i.long() + half) % _SIDE


def _own(draws: Draws, name: str, number: Tensor) -> Tensor:
    """``(B, S, S)`` uniform number of the cell that each pixel is in."""
    table = draws.uniforms(name, _SIDE * _SIDE)
    return table.gather(1, number.flatten(1)).view(number.shape)


def _any_place(picture: Draws, name: str) -> Tensor:
    """``(B, 1, 1)`` one of the five places about the middle, from -2 to 2."""
    return torch.round(column(picture.uniform(name, -2.49, 2.49)))


def _painted(found: list[Found], raised: Tensor) -> Ink:
    """Parts one over the other."""
    distance, shade = found[0]
    for other, tone in found[1:]:
        shade = torch.where(other < distance, tone, shade)
        distance = torch.minimum(distance, other)
    shadow = raised * torch.exp(-(distance.clamp_min(0) / 2.5)) * 0.35
    return Ink(1 - smoothstep(-0.6, 0.6, distance), shade, shadow)


def _printed(alpha: Tensor) -> Ink:
    """Even ink that casts no shadow."""
    return Ink(alpha, torch.zeros_like(alpha), torch.zeros_like(alpha))


@dataclass(frozen=True)
class _Cells:
    """Places of equal parts, each pixel at its nearest."""

    i: Tensor  # (B, S, S) number of the place in its two directions
    j: Tensor
    x: Tensor  # (B, S, S) coordinates around it
    y: Tensor
    chosen: Tensor  # (B, S, S) bool, the place whose part may be missing
    middle: tuple[Tensor, Tensor]  # where that is, (B, 1, 1)
    step: Tensor  # (B, 1, 1) distance between places
    radius: Tensor  # (B, 1, 1) of the parts


Places = Callable[[Draws, Draws, Tensor, Tensor, Tensor, Tensor], _Cells]
"""(identity, picture, u, v, pitch, radius) -> where the parts are."""


def _on_circle(
    identity: Draws, picture: Draws, u: Tensor, v: Tensor, pitch: Tensor, radius: Tensor
) -> _Cells:
    count = column(3.0 + torch.floor(identity.uniform("parts.count", 0, 9.99)))
    around = column(identity.uniform("parts.around", 18, 44))
    sector = 2 * math.pi / count
    angle, away = torch.atan2(v, u), torch.hypot(u, v)
    nearest_one = torch.round(angle / sector)
    angle = angle - nearest_one * sector
    radius = torch.minimum(radius, 0.8 * around * torch.sin(sector / 2))
    i = torch.remainder(nearest_one, count)
    chosen = torch.floor(column(picture.uniform("parts.chosen")) * count)
    middle = around * torch.cos(chosen * sector), around * torch.sin(chosen * sector)
    x, y = away * torch.cos(angle) - around, away * torch.sin(angle)
    return _Cells(i, torch.zeros_like(i), x, y, i == chosen, middle, 2 * radius, radius)


def _on_grid(
    identity: Draws, picture: Draws, u: Tensor, v: Tensor, pitch: Tensor, radius: Tensor, row: bool
) -> _Cells:
    most = column(torch.floor(identity.uniform("parts.most", 1, 5)))
    rows = torch.zeros_like(most) if row else most
    i, j = torch.round(u / pitch).clamp(-most, most), torch.round(v / pitch).clamp(-rows, rows)
    near = torch.minimum(most, torch.floor(45 / pitch))
    chosen_i = _any_place(picture, "parts.i").clamp(-near, near)
    near = torch.minimum(rows, near)
    chosen_j = _any_place(picture, "parts.j").clamp(-near, near)
    here = (i == chosen_i) & (j == chosen_j)
    middle = chosen_i * pitch, chosen_j * pitch
    return _Cells(i, j, u - i * pitch, v - j * pitch, here, middle, pitch, radius)


def _placed(
    places: Places, identity: Draws, picture: Draws, u: Tensor, v: Tensor, change: Change
) -> Ink:
    """Equal parts in their places; one may be missing or lie elsewhere, or there is one more."""
    pitch = column(identity.log_uniform("parts.pitch", 12, 40))
    radius = (pitch * column(identity.uniform("parts.radius", 0.14, 0.38))).clamp_min(2.2)
    cells = places(identity, picture, u, v, pitch, radius)
    number = _numbers(cells.i, cells.j)
    sparse = identity.uniform("parts.sparse", 0, 0.5) * identity.chance("parts.any", 0.3)
    absent = (_own(identity, "parts.there", number) < column(sparse)) & ~cells.chosen
    gone = absent | (cells.chosen & column(change.missing | change.misplaced))
    loose = column(identity.chance("parts.turned", 0.4).float())
    any_way = loose * 2 * math.pi * _own(picture, "parts.turn", number)
    way, turn = picture.uniforms("parts.way", 2, 0, 2 * math.pi)[..., None, None].unbind(1)
    step = torch.where(change.extra, 0.62, picture.uniform("parts.step", 0.2, 0.5))
    reach = column(step) * cells.step
    free_u = u - cells.middle[0] - reach * torch.cos(way)
    free_v = v - cells.middle[1] - reach * torch.sin(way)
    names = [_ON_GRIDS[n] for n in identity.integers("parts.part", len(_ON_GRIDS)).tolist()]
    found = laid_out(
        names, identity, cells.radius, (cells.x, cells.y, any_way), 200 * gone,
        (free_u, free_v, turn), change.extra | change.misplaced,
    )  # fmt: skip
    flat = torch.tensor([name in ("hole", "slot") for name in names], device=u.device)
    return _painted([found], column((~flat).float()))


def _strokes(bits: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Distance to a glyph of straight and slanting strokes in [-1, 1]^2, by the bits of a cell."""
    away = torch.full_like(x, 9.0)
    for n, (x0, y0, x1, y1) in enumerate(
        (
            (-0.8, -1, -0.8, 1), (0.8, -1, 0.8, 1), (-0.8, -1, 0.8, -1), (-0.8, 1, 0.8, 1),
            (-0.8, 0, 0.8, 0), (0, -1, 0, 1), (-0.8, 1, 0.8, -1),
        )
    ):  # fmt: skip
        dx, dy = x1 - x0, y1 - y0
        t = (((x - x0) * dx + (y - y0) * dy) / (dx * dx + dy * dy)).clamp(0, 1)
        stroke = torch.hypot(x - x0 - t * dx, y - y0 - t * dy)
        lit = torch.remainder(torch.floor(bits / 2**n), 2) > 0.5
        away = torch.where(lit, torch.minimum(away, stroke), away)
    return away


def _text(identity: Draws, picture: Draws, u: Tensor, v: Tensor, change: Change) -> Ink:
    """Lines of glyphs; a misprint wipes, blurs, shifts or breaks some of them."""
    wide = column(identity.log_uniform("text.wide", 5, 20))
    high = wide * column(identity.uniform("text.high", 1.3, 2.2))
    most = column(torch.floor(identity.uniform("text.most", 1, 8)))
    lines = column(torch.floor(identity.uniform("text.lines", 0, 3.5)))
    mode = picture.integers("misprint.mode", 4)
    spot = picture.uniforms("misprint.spot", 2, -1, 1)
    spot_u = column(spot[:, 0]) * (most * wide).clamp(max=45) * 0.8
    spot_v = column(spot[:, 1]) * (lines * high).clamp(max=45)
    reach = wide * column(picture.uniform("misprint.reach", 0.8, 2.2))
    wrong = column(change.misprinted) & (torch.hypot(u - spot_u, (v - spot_v) * 1.2) < reach)
    shifted = column(picture.uniform("misprint.shift", 0.25, 0.6)) * wide
    u = torch.where(wrong & column(mode == 1), u + shifted, u)
    v = torch.where(wrong & column(mode == 1), v + 0.5 * shifted, v)
    i, j = torch.round(u / wide).clamp(-most, most), torch.round(v / high).clamp(-lines, lines)
    number = _numbers(i, j)
    bits = torch.floor(1 + 126.99 * _own(identity, "text.glyph", number))
    gap = _own(identity, "text.gap", number) < 0.15
    scale_x, scale_y = 0.36 * wide, 0.34 * high
    away = _strokes(bits, (u - i * wide) / scale_x, (v - j * high) / scale_y)
    stroke = column(identity.uniform("text.stroke", 0.12, 0.3))
    distance = (away - stroke) * scale_x + 60 * gap
    crisp = 1 - smoothstep(-0.5, 0.5, distance)
    fat = 1 - smoothstep(-0.5, 0.5, distance - 0.3 * scale_x)
    broken = torch.sin(v * 1.7 + u * 0.6) > 0.1
    odd = torch.where(column(mode == 0), 0.0, torch.where(column(mode == 2), fat, crisp * broken))
    return _printed(torch.where(wrong & ~column(mode == 1), odd, crisp))


def _board(identity: Draws, picture: Draws, u: Tensor, v: Tensor, change: Change) -> Ink:
    """Traces on a lattice, pads on its nodes, chips over them."""
    pitch = column(identity.uniform("board.pitch", 7, 18))
    half = pitch * column(identity.uniform("board.width", 0.08, 0.18))
    i, j = torch.round(u / pitch).clamp(-12, 12), torch.round(v / pitch).clamp(-12, 12)
    x, y = u - i * pitch, v - j * pitch
    density = column(identity.uniform("board.density", 0.35, 0.7))
    chosen_i, chosen_j = _any_place(picture, "board.i"), _any_place(picture, "board.j")
    flip = column(change.misprinted)

    def joined(name: str, di: Tensor, dj: Tensor) -> Tensor:
        a, b = i - di, j - dj
        there = _own(identity, name, _numbers(a, b)) < density
        return there ^ (flip & (a == chosen_i) & (b == chosen_j))

    level = joined("board.level", (x < 0).float(), torch.zeros_like(x))
    upright = joined("board.upright", torch.zeros_like(x), (y < 0).float())
    lines = torch.minimum(
        torch.where(level, y.abs() - half, 9.0), torch.where(upright, x.abs() - half, 9.0)
    )
    ring = torch.hypot(x, y)
    pad = torch.where(
        _own(identity, "board.pad", _numbers(i, j)) < 0.35,
        torch.maximum(ring - 2.2 * half - 0.8, 0.8 * half - ring), 9.0,
    )  # fmt: skip
    found = [(torch.minimum(lines, pad), torch.full_like(u, 0.3))]
    for number, name in enumerate(("chip", "chip", "pad")):
        draws = identity.under(f"board{number}")
        place = draws.uniforms("place", 2, -38, 38)
        hit = picture.integers("board.chosen", 2) == number
        there = draws.chance("there", 0.7) | hit
        moved = hit & change.misplaced
        if name == "pad":  # the extra part
            there, place = change.extra, picture.uniforms("board.extra", 2, -40, 40)
        there = there & ~(hit & change.missing)
        turn = torch.where(draws.chance("turn", 0.5), math.pi / 2, 0.0)
        turn = turn + moved * picture.uniform("board.askew", 0.15, 0.7)
        place = place + moved[:, None] * picture.uniforms("board.shift", 2, -8, 8)
        cu, cv = u - column(place[:, 0]), v - column(place[:, 1])
        size = column(draws.log_uniform("size", 7, 18))
        away, tone = PARTS[name](draws, *turned(cu, cv, column(turn)), size)
        found.append((away + 200 * ~column(there), tone))
    return _painted(found, torch.full_like(pitch, 0.6))


def _dots(identity: Draws, picture: Draws, u: Tensor, v: Tensor, change: Change) -> Ink:
    """A printed pattern of dots, bars or checks that fills the product; a misprint blots it."""
    pitch = column(identity.log_uniform("dots.pitch", 5, 22))
    skew = column(identity.chance("dots.skew", 0.4).float()) * torch.round(v / pitch)
    x, y = nearest(u + skew * (0.5 * pitch), pitch), nearest(v, pitch)
    kind = column(identity.integers("dots.kind", 3))
    size = pitch * column(identity.uniform("dots.size", 0.15, 0.4))
    disc, bar = torch.hypot(x, y) - size, y.abs() - 0.6 * size
    check = box(x, y, size, size, 0 * size)
    distance = torch.where(kind == 0, disc, torch.where(kind == 1, bar, check))
    place = picture.uniforms("dots.spot", 2, -40, 40)
    reach = column(picture.uniform("dots.reach", 6, 24))
    away = torch.hypot(u - column(place[:, 0]), v - column(place[:, 1]))
    wrong = column(change.misprinted) & (away < reach)
    grown = column(torch.where(picture.chance("dots.grow", 0.5), -0.5, 0.8)) * size
    return _printed(1 - smoothstep(-0.6, 0.6, distance + wrong * grown))


STRUCTURES: dict[str, Callable[[Draws, Draws, Tensor, Tensor, Change], Ink]] = {
    "grid": partial(_placed, partial(_on_grid, row=False)),
    "row": partial(_placed, partial(_on_grid, row=True)),
    "circle": partial(_placed, _on_circle), "text": _text, "board": _board, "dots": _dots,
}  # fmt: skip
"""(identity, picture, u, v, change) -> what is laid over the product."""
COUNTED = ("grid", "row", "circle", "board")
"""Structures of separate parts, one of which can be missing, too many or misplaced."""
PRINTED = ("text", "board", "dots")

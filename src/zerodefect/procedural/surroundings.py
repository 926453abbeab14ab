"""Surroundings: what lies behind a product that does not lie on an even table."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from zerodefect.procedural.draws import Draws, Field, by_name, column, smoothstep
from zerodefect.procedural.surfaces import SURFACES

Painter = Callable[[Draws, Draws, Field, Tensor], Tensor]
"""(identity, picture, plane, table) -> ``(B, 3, S, S)`` in place of the table of that shape."""


def _material(identity: Draws, picture: Draws, plane: Field, table: Tensor) -> Tensor:
    """Another material: cloth, wood, a conveyor belt."""
    names = list(SURFACES)
    picks = [names[pick] for pick in identity.integers("surface", len(names)).tolist()]
    tone = torch.zeros_like(table[:, 0])
    for name, rows in by_name(picks, plane.device):
        tone[rows] = SURFACES[name](identity.rows(rows), picture.rows(rows), plane)
    contrast = column(identity.log_uniform("contrast", 0.02, 0.25))
    return table + (contrast * tone.clamp(-3, 3))[:, None]


def _things(identity: Draws, picture: Draws, plane: Field, table: Tensor) -> Tensor:
    """Bars, discs and edges of a fixture, always at one place and out of focus."""
    for number in range(4):
        own = identity.under(f"thing{number}")
        along, across = plane.turned(
            own.uniform("angle", 0, math.pi), own.uniforms("place", 2, -64, 64)
        )
        wide, long = own.log_uniform("wide", 3, 30), own.log_uniform("long", 3, 120)
        bar = torch.maximum(across.abs() - column(wide), along.abs() - column(long))
        disc = (across.square() + along.square()).sqrt() - column(wide)
        border = torch.where(column(own.uniform("disc")) < 0.4, disc, bar)
        soft = column(own.log_uniform("soft", 0.6, 5))
        there = column(own.uniform("there")) < 0.8
        level = own.uniforms("level", 3, -0.1, 0.1) + own.uniform("bright", 0.02, 0.98)[:, None]
        cover = smoothstep(-soft, soft, -border) * there
        table = table + (level[:, :, None, None] - table) * cover[:, None]
    return table


def _light(identity: Draws, picture: Draws, plane: Field, table: Tensor) -> Tensor:
    """A lamp that lights a part of the table, or a table that glows in its middle."""
    x, y = plane.turned(identity.uniform("angle", 0, math.pi), identity.uniforms("at", 2, -40, 40))
    wide = column(identity.log_uniform("wide", 15, 90))
    stretched = y * column(identity.uniform("stretch", 1, 3))
    spot = torch.exp(-(x.square() + stretched.square()) / (2 * wide.square()))
    gain = column(identity.uniform("gain", -0.7, 0.7))
    return table + (gain * spot)[:, None]


SURROUNDINGS: dict[str, Painter] = {"surface": _material, "things": _things, "light": _light}


def surrounded(
    names: list[str], identity: Draws, picture: Draws, plane: Field, table: Tensor
) -> Tensor:
    """Backgrounds ``(B, 3, S, S)`` in [0, 1] with their surroundings.

    Args:
        names: of ``SURROUNDINGS`` for each picture, or empty: the table as it is.
        identity: decides what it is, the same for all pictures of a product.
        picture: decides where on it the picture was taken.
        plane: of the pictures.
        table: ``(B, 3, S, S)`` even backgrounds in [0, 1].
    """
    table = table.clone()
    for name, rows in by_name(names, plane.device):
        if name:
            own = identity.rows(rows).under("around"), picture.rows(rows).under("around")
            table[rows] = SURROUNDINGS[name](*own, plane, table[rows])
    return table.clamp(0, 1)

"""The scene: good products where they lie, before damage, light and camera."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from zerodefect.procedural.draws import Draws, Field, PerPicture, by_name, column, smoothstep
from zerodefect.procedural.products import Look
from zerodefect.procedural.shapes import Change, signed_distance
from zerodefect.procedural.structures import STRUCTURES
from zerodefect.procedural.surfaces import SURFACES, grain_angle
from zerodefect.procedural.surroundings import surrounded


@dataclass(frozen=True)
class Scene(PerPicture):
    """An undamaged batch, as far as damage has to know it; points are in units of the plane."""

    plane: Field
    clean: Tensor  # (B, 3, S, S) reflectance in [0, 1]
    background: Tensor  # (B, 3, S, S) what lies behind the product
    level: Tensor  # (B,) mean brightness of the product
    colour: Tensor  # (B, 3) its mean colour
    contrast: Tensor  # (B,) standard deviation of its texture
    grain: Tensor  # (B,) direction of its grain in radians
    grey: Tensor  # (B,) bool, pictures without colour
    centre: Tensor  # (B, 2) a point on the product
    border: Tensor  # (B, 2) a point on its border, or on the picture's


def good_scene(
    look: Look, identity: Draws, picture: Draws, plane: Field, change: Change
) -> tuple[Scene, Tensor]:
    """The scene before damage and the ``(B, S, S)`` distance to the product's border."""
    distance, shade = signed_distance(look.shapes, identity, picture, plane, look.wander, change)
    tone = column(look.level) + column(look.contrast) * _tones(look, identity, picture, plane)
    if look.harshness > 0.5:
        tone = tone + _wear(look, identity, picture, plane)
    bordered = torch.tensor([name != "filled" for name in look.shapes], device=plane.device)
    at, own_id, own = _some(bordered, identity, picture)
    factor, gloss = _relief(own_id, own, plane, distance[at])
    shade = column(own_id.uniform("look.shade", 0.05, 0.3)) * shade[at]
    tone[at] = (tone[at] + shade) * factor
    product = _coloured(tone, look.tint_dark, look.tint_bright)
    product = _built(look, identity, picture, plane, change, product)
    product[at] = (product[at] + gloss[:, None]).clamp(0, 1)
    rough = plane.noise(picture, "behind", "cloud", identity.log_uniform("behind.scale", 0.2, 2))
    uneven = column(identity.log_uniform("behind.contrast", 0.003, 0.08))
    uneven = uneven * smoothstep(-0.05, 0.3, column(look.behind))  # black stays black
    ones = torch.ones_like(look.tint_dark)
    background = _coloured(column(look.behind) + uneven * rough, ones, ones)
    background = surrounded(look.around, identity, picture, plane, background)
    soft = column(picture.uniform("look.soft", 0.5, 1.6))
    here = smoothstep(-soft, soft, -distance)[:, None]
    shadow = column(identity.uniform("behind.shadow", 0, 0.5))
    background = background * (1 - shadow * torch.exp(-distance.clamp_min(0) / 6))[:, None]
    centre, border = damage_spots(picture, distance, plane)
    level = look.level[:, None]
    scene = Scene(
        plane=plane,
        clean=background + (product - background) * here,
        background=background,
        level=look.level,
        colour=level * (look.tint_dark * (1 - level) + look.tint_bright * level),
        contrast=look.contrast,
        grain=grain_angle(identity, picture),
        grey=(look.tint_bright == look.tint_bright[:, :1]).all(1),
        centre=centre,
        border=border,
    )
    return scene, distance


def _tones(look: Look, identity: Draws, picture: Draws, plane: Field) -> Tensor:
    """``(B, S, S)`` texture of each picture's own surface, painted surface by surface."""
    tones = torch.zeros(len(picture), plane.size, plane.size, device=plane.device)
    for name, rows in by_name(look.surfaces, plane.device):
        tones[rows] = SURFACES[name](identity.rows(rows), picture.rows(rows), plane)
    return tones.clamp(-3, 3)


def _coloured(tone: Tensor, dark: Tensor, bright: Tensor) -> Tensor:
    """``(B, S, S)`` brightness to ``(B, 3, S, S)``; dark and bright parts have their own tint."""
    share = tone.clamp(0, 1)[:, None]
    tint = dark[:, :, None, None] * (1 - share) + bright[:, :, None, None] * share
    return (tone[:, None] * tint).clamp(0, 1)


def _wear(look: Look, identity: Draws, picture: Draws, plane: Field) -> Tensor:
    """``(B, S, S)`` tone of what good material shows all over: long lines, clouds, dust."""
    tone = torch.zeros(len(picture), plane.size, plane.size, device=plane.device)
    grain = grain_angle(identity, picture)
    metal = [n in ("brushed", "ground", "rolled", "plain", "stripes") for n in look.surfaces]
    likely = torch.where(torch.tensor(metal, device=plane.device), 0.55, 0.12)
    at, own_id, own = _some(identity.uniform("wear.lined") < likely, identity, picture)
    stretch = own_id.log_uniform("wear.long", 40, 600)
    scale = own_id.uniform("wear.scale", 0.4, 1.1)
    along = plane.turned(grain[at])
    lines = plane.noise(own, "wear.lines", "white", scale, stretch, along)
    least = column(own_id.uniform("wear.least", 0.4, 1.5))
    sign = column(torch.where(own_id.chance("wear.bright", 0.6), 1.0, -1.0))
    strength = column(own_id.log_uniform("wear.strength", 0.02, 0.13) + look.contrast[at])
    tone[at] += sign * strength * smoothstep(least, least + 1.2, lines)
    at, own_id, own = _some(identity.chance("wear.cloudy", 0.4), identity, picture)
    scale, long = own_id.log_uniform("cloud.scale", 0.4, 2), own_id.log_uniform("cloud.l", 1, 5)
    clouds = plane.noise(own, "wear.clouds", "cloud", scale, long, plane.turned(grain[at]))
    tone[at] += column(own_id.log_uniform("cloud.strength", 0.01, 0.1)) * clouds
    at, own_id, own = _some(identity.chance("wear.dusty", 0.25), identity, picture)
    grains = plane.noise(own, "wear.dust", "grains", own_id.uniform("dust.scale", 1.0, 3.5))
    least = column(own_id.uniform("dust.least", 1.2, 2.2))
    strength = column(own_id.log_uniform("dust.strength", 0.02, 0.2))
    sign = column(torch.where(own_id.chance("dust.bright", 0.5), 1.0, -1.0))
    tone[at] += sign * strength * smoothstep(least, least + 0.8, grains)
    return tone


def _relief(
    identity: Draws, picture: Draws, plane: Field, distance: Tensor
) -> tuple[Tensor, Tensor]:
    """Factor of a rounded border under slanting light, and the gloss of its edge to be added."""
    gy, gx = torch.gradient(distance, spacing=plane.step, dim=(1, 2))
    way = identity.uniform("relief.way", 0, 2 * math.pi) + picture.uniform("relief.turn", -0.3, 0.3)
    facing = (gx * column(torch.cos(way)) + gy * column(torch.sin(way))).clamp(-1, 1)
    deep = column(identity.log_uniform("relief.deep", 2, 40))
    slope = (1 + distance / deep).clamp(0, 1) ** 2
    strength = identity.uniform("relief.strength", 0, 0.7) * identity.chance("relief.there", 0.6)
    bevel = column(identity.log_uniform("look.bevel", 1, 9))
    rim = column(identity.uniform("look.rim", -0.35, 0.25))
    bright = 1 + rim * torch.exp(-((distance / bevel) ** 2))
    factor = (1 + column(strength) * facing * slope) * bright
    place = column(identity.uniform("gloss.place", 0, 8))
    wide = column(identity.log_uniform("gloss.wide", 0.8, 6))
    gloss = identity.log_uniform("gloss.bright", 0.08, 0.8) * identity.chance("gloss.there", 0.35)
    broken = 0.7 + 0.4 * plane.noise(picture, "gloss.broken", "pink", 0.6)
    edge = torch.exp(-(((distance + place) / wide) ** 2)) * facing.clamp_min(0) ** 0.5
    return factor.clamp_min(0.1), column(gloss) * broken.clamp(0, 1.4) * edge


def _built(
    look: Look, identity: Draws, picture: Draws, plane: Field, change: Change, product: Tensor
) -> Tensor:
    """``(B, 3, S, S)`` product with its parts and print."""
    product = product.clone()
    for name, at in by_name(look.structures, plane.device):
        if not name:
            continue
        own_id, own, level = identity.rows(at), picture.rows(at), look.level[at]
        angle = own_id.uniform("built.angle", 0, math.pi) * own_id.chance("built.turned", 0.3)
        u, v = plane.turned(angle + own.uniform("built.jitter", -0.05, 0.05) * look.wander)
        shift = own.uniforms("built.shift", 2, -6, 6) * look.wander
        u, v = u - column(shift[:, 0]), v - column(shift[:, 1])
        ink = STRUCTURES[name](own_id, own, u, v, change.rows(at))
        step = own_id.log_uniform("built.step", 0.1, 0.6)
        up = torch.where(own_id.chance("built.up", 0.5), 1.0, -1.0)
        up = torch.where(((level + up * step) < 0.02) | ((level + up * step) > 0.98), -up, up)
        mean = column((level + up * step).clamp(0.02, 0.98))
        amount = column(own_id.uniform("built.shade", 0.05, 0.3))
        grey = (look.tint_dark == 1).all(1)[at]
        tint = 1 + own_id.uniforms("built.tint", 3, -0.4, 0.3)
        tint = torch.where(grey[:, None], 1.0, tint)
        part = _coloured((mean + amount * ink.shade).clamp(0, 1), tint, tint)
        keep = column(own_id.uniform("built.opaque", 0.6, 1.0))
        ground = product[at] * (1 - ink.shadow)[:, None]
        product[at] = ground + (part - ground) * (ink.alpha * keep)[:, None]
    return product


def _some(chosen: Tensor, *draws: Draws) -> tuple:
    """Positions of the chosen pictures, and their part of the draws."""
    at = chosen.nonzero()[:, 0]
    return at, *(part.rows(at) for part in draws)


def damage_spots(picture: Draws, distance: Tensor, plane: Field) -> tuple:
    """Two ``(B, 2)`` points in the plane: on the product, and on its border as seen."""
    tries = picture.uniforms("spot.tries", 24, -58, 58).view(-1, 12, 2)
    inside = _read(distance, tries, plane) < -3
    first = inside.float().argmax(1)  # the first that lies inside; else the first of all
    centre = tries[torch.arange(len(tries), device=tries.device), first]
    way = picture.uniform("spot.way", 0, 2 * math.pi).double()
    heading = torch.stack([torch.cos(way), torch.sin(way)], 1).float()
    steps = torch.linspace(0, 128, 65, device=tries.device)
    ray = centre[:, None] + steps[None, :, None] * heading[:, None]
    seen = (ray.abs() < 63).all(-1) & (_read(distance, ray, plane) < 0)
    last = (seen.cumprod(1).sum(1) - 1).clamp_min(0)
    return centre, ray[torch.arange(len(ray), device=ray.device), last]


def _read(field: Tensor, points: Tensor, plane: Field) -> Tensor:
    """``(B, P)`` values of ``(B, S, S)`` at ``(B, P, 2)`` points of the plane, nearest pixel."""
    pixel = ((points + 64) * (plane.size / 128)).long().clamp(0, plane.size - 1)
    return field.flatten(1).gather(1, pixel[..., 1] * plane.size + pixel[..., 0])

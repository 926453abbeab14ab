"""Damage of matter: something has come on, is gone, or is out of shape."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from zerodefect.procedural.damage import (
    Damage,
    Drawer,
    at_border,
    away_from,
    blobs,
    extent,
    grouped,
    planes,
    shifted,
)
from zerodefect.procedural.draws import Draws, column, smoothstep
from zerodefect.procedural.scene import Scene


def _hole(draws: Draws, scene: Scene) -> Damage:
    radius = draws.log_uniform("hole.radius", 1.3, 13)
    group = grouped(draws, scene.centre, several=0.45)
    least = (group.sizes > 0.01) / radius[:, None]  # a pit has at least a unit's radius
    group = replace(group, sizes=torch.maximum(group.sizes, least))
    height = blobs(draws, scene, group, radius, rough=(0.05, 0.3))
    soft = column((1.2 / radius).clamp(0.08, 1.0))
    alpha = smoothstep(-soft * 0.3, soft * 0.7, height)
    rim = smoothstep(-2.2 * soft, -0.3 * soft, height)
    target = shifted(draws, scene, low=0.3, high=0.95, over=2.4, dark=0.88)
    shine = column(draws.chance("hole.rim", 0.25) * draws.uniform("hole.shine", 0.1, 0.4))
    lit = (scene.clean + 0.6 * planes(shine)).clamp(0, 1)
    target = torch.where(planes(alpha) > 0.3, target, lit)
    return Damage(torch.maximum(alpha, rim * (shine > 0)), target, alpha > 0.35)


def _paint(draws: Draws, scene: Scene) -> Tensor:
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
    group = grouped(draws, scene.centre, several=0.35)
    lump = smoothstep(0.0, 0.15, blobs(draws, scene, group, radius, rough=(0.1, 0.5)))
    cloud = blobs(draws.under("cloud"), scene, group, radius + 10, rough=(0.3, 0.6))
    grains = scene.plane.noise(draws, "dirt.grains", "grains", draws.uniform("dirt.fine", 0.8, 2))
    specks = smoothstep(0.9, 1.3, grains) * (cloud > 0)
    u, v = scene.plane.turned(draws.uniform("hair.angle", 0, math.pi), scene.centre)
    curl = scene.plane.noise(draws, "hair.curl", "smooth", 0.8, 1.0, (u, v))
    at_centre = (u.abs() + v.abs()).flatten(1).argmin(1)
    curl = curl - column(curl.flatten(1).gather(1, at_centre[:, None])[:, 0])
    height = v + column(draws.uniform("hair.bend", 4, 16)) * curl
    away = away_from(scene.plane, height)
    reach = column(draws.log_uniform("hair.reach", 8, 40))
    hair = (1.1 - away).clamp(0, 1) * (torch.hypot(u, v) < reach)
    strung = draws.under("streaks")
    wide = strung.log_uniform("radius", 1.0, 4.5)
    long = strung.log_uniform("long", 3, 14)
    several = grouped(strung, scene.centre, several=0.8, along=scene.grain)
    rough = (0.3, 1.0)
    drawn = blobs(strung, scene, several, wide, rough=rough, long=long, angle=scene.grain)
    drawn = smoothstep(0.0, column(strung.uniform("soft", 0.1, 0.6)), drawn)
    alpha = torch.where(mode < 0.55, specks, hair)
    alpha = torch.where(mode < 0.35, lump, alpha)
    # Grains that the noise did not place under the centre would leave nothing to see.
    u, v = scene.plane.turned(scene.grain, scene.centre)
    alpha = torch.maximum(alpha, smoothstep(0.0, 0.3, 1 - torch.hypot(u, v) / 1.8) * (mode < 0.55))
    alpha = torch.where(mode > 0.7, drawn, alpha)
    grit = 0.07 * scene.plane.noise(draws, "dirt.grit", "pink", 1.5)
    paint = (_paint(draws, scene)[:, :, None, None] + grit[:, None]).clamp(0, 1)
    streaked = shifted(strung, scene, low=0.1, high=0.7, over=1.3, dark=0.85)
    return Damage(alpha, torch.where(planes(mode > 0.7), streaked, paint), alpha > 0.4)


def _break(draws: Draws, scene: Scene) -> Damage:
    """A piece broken out, mostly of the edge: angular or rough, background or fracture shows."""
    at_edge, centre = at_border(draws, "break.edge", scene, 0.75)
    radius = draws.log_uniform("break.radius", 4, 46)
    group = grouped(draws, centre, several=0.25, most=4)
    long = draws.log_uniform("break.long", 1, 3.5)
    height = blobs(draws, scene, group, radius / long.sqrt(), rough=(0.25, 0.7), long=long)
    x, y = scene.plane.turned(torch.zeros_like(radius), centre)
    turns = draws.uniforms("break.turns", 5, -0.5, 0.5)
    flat = torch.full_like(x, -9.0)
    for n in range(5):  # an angular piece: what several planes cut off
        way = 2 * math.pi * (n + turns[:, n]) / 5
        flat = torch.maximum(flat, x * column(torch.cos(way)) + y * column(torch.sin(way)))
    scale = draws.uniform("break.scale", 0.5, 1.5)
    facets = scene.plane.noise(draws, "break.facets", "cells", scale)
    angular = column(draws.chance("break.angular", 0.4))
    height = torch.where(angular, 0.8 - flat / column(radius), height)
    alpha = smoothstep(0.0, 0.08, height + 0.12 * torch.tanh(3 * facets))
    rough = scene.plane.noise(draws, "break.rough", "rough", 0.8)
    tone = shifted(draws, scene, low=0.1, high=0.9, over=1.5, dark=0.6)
    shade = 0.7 * torch.tanh(2 * facets) + 0.6 * rough
    shade = column(draws.uniform("break.shade", 0.02, 0.16)) * shade
    fracture = (tone + planes(shade)).clamp(0, 1)
    gone = at_edge & draws.chance("break.gone", 0.5)
    gone = gone & ((scene.background.mean((1, 2, 3)) - scene.level).abs() > 0.08)
    rim = draws.chance("break.rim", 0.4) * draws.uniform("break.glint", -0.4, 0.5)
    inner = column(rim) * (smoothstep(0.0, 0.1, height) - smoothstep(0.1, 0.3, height))
    target = torch.where(planes(gone), scene.background, fracture) + planes(inner) * 0.6
    return Damage(alpha, target.clamp(0, 1), alpha > 0.4)


def _dent(draws: Draws, scene: Scene) -> Damage:
    light = draws.uniform("dent.light", 0, 2 * math.pi)
    least = 1.3 * scene.contrast / scene.level.clamp_min(0.1)
    strength = torch.maximum(draws.log_uniform("dent.strength", 0.1, 0.6), least).clamp(max=0.8)
    floor = column(draws.uniform("dent.floor", 0, 0.3))
    group = grouped(draws, scene.centre, several=0.3, most=4)
    large = draws.log_uniform("dent.radius", 4, 38)
    shading, bowls = torch.zeros_like(scene.clean[:, 0]), torch.zeros_like(scene.clean[:, 0])
    squash = column(draws.uniform("dent.squash", 0.6, 1.6))
    for n in range(4):
        u, v = scene.plane.turned(light, group.centres[:, n])
        radius = column((large * group.sizes[:, n]).clamp_min(0.01))
        bowl = torch.exp(-((u / radius * squash) ** 2) - (v / (radius * squash)) ** 2)
        # The slope towards the light, which peaks near one.
        shading = shading + 2.3 * (u / radius * squash) * bowl
        bowls = torch.maximum(bowls, bowl)
    target = scene.clean * planes(1 + column(strength) * (shading - floor * bowls))
    glint = planes(column(strength * 0.25) * shading.clamp_min(0))  # seen on dark ground too
    return Damage(torch.ones_like(bowls), (target + glint).clamp(0, 1), bowls > 0.3)


def _fray(draws: Draws, scene: Scene) -> Damage:
    """A ragged eroded area of strands, mostly at an edge."""
    at_edge, centre = at_border(draws, "fray.edge", scene, 0.65)
    angle = scene.grain + math.pi / 2 * draws.chance("fray.across", 0.5)
    u, v = scene.plane.turned(angle + draws.uniform("fray.turn", -0.2, 0.2), centre)
    half = column(extent(draws, "fray.half", 9, 85))
    deep = column(extent(draws, "fray.deep", 4, 40))
    ragged = scene.plane.noise(draws, "fray.ragged", "pink", 1.0, 1.0, (u, v * 0.15))
    clouds = scene.plane.noise(draws, "fray.clouds", "cloud", 0.8)
    away = torch.maximum(u.abs() / half, v.abs() / deep - 0.35 * ragged) + 0.25 * clouds
    band = 1 - smoothstep(0.75, 1.1, away)
    bend = scene.plane.noise(draws, "fray.bend", "smooth", 0.8)
    fine = draws.log_uniform("fray.fine", 0.5, 1.4)
    long = draws.log_uniform("fray.long", 2, 9)
    bent = (v + 2 * bend, u + 3 * bend)
    threads = scene.plane.noise(draws, "fray.threads", "rough", fine, long, bent)
    strands = smoothstep(-0.3, 0.9, threads)
    dark = shifted(draws, scene, low=0.12, high=0.85, over=1.4, dark=0.65)
    light = shifted(draws.under("light"), scene, low=0.08, high=0.6, over=1.2, dark=0.3)
    target = dark + (light - dark) * planes(smoothstep(0.2, 1.2, -threads))
    gone = at_edge & draws.chance("fray.gone", 0.25)
    target = torch.where(planes(gone), scene.background, target)
    return Damage(band * (0.35 + 0.65 * strands), target, band > 0.4)


def _bubble(draws: Draws, scene: Scene) -> Damage:
    """Round blisters: a rim, a lit and a shaded flank, often a highlight."""
    radius = draws.log_uniform("bubble.radius", 2.5, 20)
    group = grouped(draws, scene.centre, several=0.6)
    light = draws.uniform("bubble.light", 0, 2 * math.pi)
    u, v = scene.plane.turned(light)
    cu, cv = group.turned(light)
    sizes = (radius[:, None] * group.sizes)[..., None, None]
    du, dv = (u[:, None] - cu[..., None, None]) / sizes, (v[:, None] - cv[..., None, None]) / sizes
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
    target = scene.clean + planes(column(strength.clamp(max=0.6)) * (relief + fill))
    return Damage(inside, target.clamp(0, 1), inside > 0.4)


MATTER: dict[str, Drawer] = {
    "hole": _hole,
    "contamination": _contamination,
    "break": _break,
    "dent": _dent,
    "fray": _fray,
    "bubble": _bubble,
}

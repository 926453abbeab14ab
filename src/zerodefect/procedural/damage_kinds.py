"""The damages that are laid over products, kind by kind."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from zerodefect.procedural.damage import (
    Damage,
    Group,
    at_border,
    away_from,
    blobs,
    extent,
    grouped,
    or_strip,
    planes,
    retextured,
    shifted,
)
from zerodefect.procedural.draws import Draws, column, smoothstep
from zerodefect.procedural.scene import Scene

# --- lines ---------------------------------------------------------------------------------------


def _scratch(draws: Draws, scene: Scene) -> Damage:
    """Fine lines, alone or side by side, or a band right across; whole, fading or dashed."""
    band = draws.chance("scratch.band", 0.4)
    free = draws.chance("scratch.free", 0.55)
    along_grain = scene.grain + draws.uniform("scratch.off", -0.06, 0.06)
    free = free & ~(band & draws.chance("scratch.straight", 0.6))
    angle = torch.where(free, draws.uniform("scratch.angle", 0, math.pi), along_grain)
    u, v = scene.plane.turned(angle, scene.centre)
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
    alpha = torch.zeros_like(u)
    streaks = scene.plane.noise(draws, "scratch.streaks", "white", 1.0, 30.0, (u, v))
    shade = torch.where(column(band), (0.75 + 0.35 * streaks).clamp(0.15, 1), 1.0)
    skew = scene.plane.noise(draws, "scratch.dashes", "pink", 1.2, 12.0, (u, v))
    dashed = column(draws.chance("scratch.dashed", 0.3))
    dashes = smoothstep(0.0, 0.5, skew + column(draws.uniform("dash.open", -0.1, 0.8)))
    soft = column(torch.where(band, draws.log_uniform("scratch.soft", 0.6, 4), 0.6))
    for n in range(most):
        there = column((n < count).float())
        reach = column(halves[:, n])
        ends = 1 - smoothstep(0.8 * reach, reach, (u - column(begins[:, n])).abs())
        far = (v - column(offsets[:, n])).abs()
        line = ((column(widths[:, n]) / 2 + soft - far) / soft).clamp(0, 1)
        alpha = torch.maximum(alpha, there * ends * line)
    cover = alpha * torch.where(dashed, dashes, 1.0)
    bright = shifted(draws, scene, low=0.2, high=0.95, over=2.2, dark=0.05)
    mixed = shifted(draws, scene, low=0.15, high=0.8, over=2.2, dark=0.7)
    target = torch.where(planes(draws.chance("scratch.bright", 0.6)), bright, mixed)
    # A line's strength changes along its course.
    fading = scene.plane.noise(draws, "fading", "pink", 0.8, 1.0, (u, torch.zeros_like(u)))
    return Damage(cover * shade * (0.75 + 0.25 * fading).clamp(0.35, 1), target, cover > 0.4)


def _crack(draws: Draws, scene: Scene) -> Damage:
    """A jagged line with branches, often from the edge inwards; sometimes a net of them."""
    width = draws.log_uniform("crack.width", 0.8, 2.8)
    half = draws.log_uniform("crack.half", 8, 70)
    angle = draws.uniform("crack.angle", 0, math.pi)
    _, centre = at_border(draws, "crack.edge", scene, 0.3)
    alpha = torch.zeros_like(scene.clean[:, 0])
    for number, likely in enumerate((1.0, 0.45, 0.3, 0.2)):
        arm = draws.under(f"arm{number}")
        shift = arm.uniforms("shift", 2, -0.5, 0.5) * half[:, None] * (number > 1)
        u, v = scene.plane.turned(angle + number * arm.uniform("fork", 0.4, 2.6), centre + shift)
        jag = arm.log_uniform("jag", 1.0, 4.5)
        scale = arm.log_uniform("scale", 0.6, 1.6)
        wander = scene.plane.noise(arm, "wander", "cloud", scale, 1.0, (u, v))
        middle = scene.plane.size // 2
        height = v + column(jag) * (wander - wander[:, middle : middle + 1, middle : middle + 1])
        away = away_from(scene.plane, height)
        reach = column(half * (1.0 if number == 0 else 0.6))
        course = u.abs() if number == 0 else torch.where(u < 0, 4 * reach, u)
        thin = 1 - 0.5 * smoothstep(0.0, 1.0, course / reach)
        ends = (1 - smoothstep(reach * 0.85, reach, course)) * (v.abs() < 3.5 * column(jag) + 2)
        there = column(arm.chance("there", likely).float())
        line = (column(width) / 2 * thin + 0.6 - away).clamp(0, 1)
        alpha = torch.maximum(alpha, there * line * ends)
    cells = scene.plane.noise(draws, "craze", "cells", draws.log_uniform("craze.scale", 0.6, 2))
    one = Group(scene.centre[:, None], torch.ones_like(scene.centre[:, :1]))
    field = blobs(draws, scene, one, draws.log_uniform("craze.radius", 10, 45))
    away = away_from(scene.plane, cells, 0.05, math.inf)
    net = (0.6 * column(width) + 0.4 - away).clamp(0, 1) * (field > 0)
    alpha = torch.where(column(draws.chance("craze", 0.12)), net, alpha)
    target = shifted(draws, scene, low=0.2, high=0.9, over=2.2, dark=0.85)
    return Damage(alpha, target, alpha > 0.4)


# --- patches: the product is whole, but part of it looks otherwise -------------------------------


def _stain(draws: Draws, scene: Scene) -> Damage:
    radius = extent(draws, "stain.radius", 4, 62)
    streak = draws.chance("stain.streak", 0.35)
    long = torch.where(streak, draws.uniform("stain.long", 2.0, 7), 1.0)
    radius = torch.where(streak, radius * 0.4, radius).clamp_min(1.5)
    angle = torch.where(streak, scene.grain, draws.uniform("stain.angle", 0, math.pi))
    group = grouped(draws, scene.centre, several=0.55, along=angle)
    height = blobs(draws, scene, group, radius, rough=(0.2, 0.8), long=long, angle=angle)
    height = or_strip(draws, scene, height, likely=0.12)
    alpha = smoothstep(0.0, column(draws.log_uniform("edge.soft", 0.05, 0.8)), height)
    ring = alpha * (1 - 0.8 * smoothstep(0.15, 0.5, height))
    dried = column(draws.chance("stain.dried", 0.15))
    target = shifted(draws, scene, low=0.08, high=0.85, over=0.8, dark=0.78)
    cover = torch.where(dried, ring > 0.3, alpha > 0.35)
    return Damage(torch.where(dried, ring, alpha), retextured(draws, scene, target), cover)


def _discolouration(draws: Draws, scene: Scene) -> Damage:
    radius = extent(draws, "colour.radius", 7, 80)
    group = grouped(draws, scene.centre, several=0.35)
    height = blobs(draws, scene, group, radius, rough=(0.15, 0.7))
    height = or_strip(draws, scene, height, likely=0.25)
    alpha = smoothstep(0.0, column(draws.log_uniform("colour.soft", 0.1, 1.0)), height)
    tinted = (~scene.grey) & draws.chance("colour.tinted", 0.7)
    tint = 1 + draws.uniforms("colour.tint", 3, -0.45, 0.45) * tinted[:, None]
    tone = shifted(draws, scene, low=0.06, high=0.5, over=0.5, dark=0.55)
    tone = retextured(draws, scene, tone)
    target = torch.where(planes(tinted), scene.clean * tint[:, :, None, None], tone)
    return Damage(alpha, target.clamp(0, 1), alpha > 0.3)


def _uneven(draws: Draws, scene: Scene) -> Damage:
    """A large area of waves, streaks, clouds or tool marks, or of another gloss or grain."""
    radius = extent(draws, "uneven.radius", 18, 90)
    streaked = draws.chance("uneven.streaked", 0.45)
    long = torch.where(streaked, draws.uniform("uneven.long", 1.5, 5), 1.0)
    turn = scene.grain + math.pi / 2 * draws.chance("uneven.across", 0.2)
    group = grouped(draws, scene.centre, several=0.25, along=turn, most=4)
    height = blobs(
        draws, scene, group, radius / long.sqrt(), rough=(0.2, 0.6), long=long, angle=turn
    )
    height = or_strip(draws, scene, height, likely=0.4)
    alpha = smoothstep(0.0, column(draws.log_uniform("uneven.soft", 0.1, 1.0)), height)
    at = scene.plane.turned(turn + draws.uniform("uneven.turn", -0.2, 0.2), scene.centre)
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
    target = scene.clean + planes(gloss) * texture + planes(column(strength) * (relief + tone))
    return Damage(alpha, target.clamp(0, 1), alpha > 0.3)


def _burn(draws: Draws, scene: Scene) -> Damage:
    """Charred matter in the middle, scorched around it, fading out."""
    radius = draws.log_uniform("burn.radius", 5, 52)
    group = grouped(draws, scene.centre, several=0.3, most=5)
    height = blobs(draws, scene, group, radius, rough=(0.25, 0.7))
    core = smoothstep(0.25, column(draws.uniform("burn.core", 0.4, 1.0)), height)
    scorch = smoothstep(0.0, column(draws.uniform("burn.soft", 0.15, 0.8)), height)
    brown = torch.tensor([1.0, 0.82, 0.6], device=radius.device)
    tint = torch.where(scene.grey[:, None], 1.0, brown)[:, :, None, None]
    depth = torch.maximum(draws.uniform("burn.depth", 0.25, 0.7), 1.2 * scene.contrast)
    scorched = scene.clean * (tint - planes(depth.clamp(max=0.8)) * (tint**0.5))
    soot = 0.03 * scene.plane.noise(draws, "burn.soot", "rough", 1.0)
    black = planes(draws.uniform("burn.black", 0.01, 0.12)) + soot[:, None]
    ash = column(draws.chance("burn.ash", 0.25) * draws.uniform("burn.grey", 0.2, 0.6))
    white = smoothstep(0.3, 1.3, scene.plane.noise(draws, "burn.flakes", "grains", 1.2))
    black = black + planes(ash * white)
    charred = draws.chance("burn.charred", 0.7)
    target = scorched + (black - scorched) * planes(core * column(charred.float()))
    return Damage(scorch, target.clamp(0, 1), scorch > 0.3)


# --- matter: something has come on, is gone, or is out of shape ----------------------------------


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


LAID: dict[str, Callable[[Draws, Scene], Damage]] = {
    "scratch": _scratch, "crack": _crack, "stain": _stain, "discolouration": _discolouration,
    "uneven surface": _uneven, "burn": _burn, "hole": _hole, "contamination": _contamination,
    "break": _break, "dent": _dent, "fray": _fray, "bubble": _bubble,
}  # fmt: skip
"""Draws damage of one kind on every picture of a batch; build kinds draw the product anew."""

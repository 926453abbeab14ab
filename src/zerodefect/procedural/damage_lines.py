"""Damage in lines: scratches and cracks."""

from __future__ import annotations

import math

import torch

from zerodefect.procedural.damage import (
    Damage,
    Drawer,
    Group,
    at_border,
    away_from,
    blobs,
    planes,
    shifted,
)
from zerodefect.procedural.draws import Draws, column, smoothstep
from zerodefect.procedural.scene import Scene


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


LINES: dict[str, Drawer] = {"scratch": _scratch, "crack": _crack}

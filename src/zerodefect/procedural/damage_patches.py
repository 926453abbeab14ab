"""Damage in patches: the product is whole, but part of it looks otherwise."""

from __future__ import annotations

import math

import torch

from zerodefect.procedural.damage import (
    Damage,
    Drawer,
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


PATCHES: dict[str, Drawer] = {
    "stain": _stain,
    "discolouration": _discolouration,
    "uneven surface": _uneven,
    "burn": _burn,
}

"""Procedural pictures of products, good and damaged, with masks and captions; no photographs."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace

import numpy as np
import torch

from zerodefect.procedural.camera import exposed, lighting
from zerodefect.procedural.captions import write_captions
from zerodefect.procedural.damage import (
    BUILD_KINDS,
    DEFECT_KINDS,
    Damage,
    Scene,
    draw_damage,
)
from zerodefect.procedural.draws import Draws, Field, column, smoothstep
from zerodefect.procedural.shapes import (
    BENDABLE,
    COUNTABLE,
    LARGE,
    SHAPE_WEIGHTS,
    SHAPES,
    Change,
    signed_distance,
)
from zerodefect.procedural.structures import COUNTED, PRINTED, STRUCTURES
from zerodefect.procedural.surfaces import SURFACE_WEIGHTS, SURFACES, grain_angle

_CHUNK = 32  # pictures drawn together: more would leave the processor's cache
_LEAST_AREA = 3.0  # of damage, in pixels of a 128-pixel picture; less is not damage
_OFTEN = {"scratch": 1.6, "contamination": 1.3, "break": 1.3, "uneven surface": 1.3}
_MOST_SHARE = 0.65  # of the product: where nearly all of it is alike, nothing stands out
_LEAST_SEEN = 0.009  # mean change of brightness in the light of the scene
_LEAST_STEP = 0.012  # mean change of brightness that can be seen; less is not damage
_STRUCTURED = 0.4  # share of large products that have parts or print on them


@dataclass(frozen=True)
class ProceduralBatch:
    """Pictures with their truth.

    Attributes:
        images: ``(B, 3, S, S)`` float32 in [0, 1], multiples of 1/255.
        kind_map: ``(B, S, S)`` uint8: 0 is undamaged, ``k + 1`` is damage of kind ``k``.
        kinds: ``(B,)`` int64 position in ``DEFECT_KINDS`` of the chief damage, -1 for good.
        captions: one sentence per picture.
        surfaces: name of the surface of each picture.
    """

    images: torch.Tensor
    kind_map: torch.Tensor
    kinds: torch.Tensor
    captions: list[str]
    surfaces: list[str]

    @property
    def masks(self) -> torch.Tensor:
        """``(B, S, S)`` bool: damaged pixels of any kind."""
        return self.kind_map > 0

    def to(self, device: torch.device | str) -> ProceduralBatch:
        """The same batch with its tensors on a device."""
        return replace(
            self,
            images=self.images.to(device),
            kind_map=self.kind_map.to(device),
            kinds=self.kinds.to(device),
        )


@dataclass(frozen=True)
class _Look:
    """What product each picture of a batch shows.

    Attributes: names of surface, shape and structure (empty: none); ``(B,)`` brightness, texture
    contrast and background brightness; ``(B, 3)`` tints that multiply dark and bright parts
    (ones: grey); harshness of light and camera; how far the product wanders.
    """

    surfaces: list[str]
    shapes: list[str]
    structures: list[str]
    level: torch.Tensor
    contrast: torch.Tensor
    behind: torch.Tensor
    tint_dark: torch.Tensor
    tint_bright: torch.Tensor
    harshness: float
    wander: float

    def rows(self, rows: torch.Tensor) -> _Look:
        """The looks of some pictures only."""
        fields: dict = {}
        for name, value in vars(self).items():
            if isinstance(value, torch.Tensor):
                fields[name] = value[rows.to(value.device)]
            elif isinstance(value, list):
                fields[name] = [value[i] for i in rows.tolist()]
        return replace(self, **fields)


def _random_look(identity: Draws) -> _Look:
    """Any product at all."""
    names = list(SURFACES)
    weights = np.array([SURFACE_WEIGHTS.get(name, 1.0) for name in names])
    grey = identity.chance("look.grey", 0.55)[:, None]
    dark = torch.where(grey, 1.0, 1 + identity.uniforms("look.tint_dark", 3, -0.4, 0.4))
    bright = torch.where(grey, 1.0, 1 + identity.uniforms("look.tint_bright", 3, -0.35, 0.25))
    shapes = [SHAPES[i] for i in identity.weighted("look.shape", np.array(SHAPE_WEIGHTS))]
    built = identity.chance("look.built", _STRUCTURED).tolist()
    picks = identity.integers("look.structure", len(STRUCTURES))
    # Half of the backgrounds are black as under a ring light, some white as on a light table.
    behind = identity.uniform("look.behind", 0.0, 1.0)
    behind = torch.where(identity.chance("look.black", 0.4), 0.08 * behind, behind)
    behind = torch.where(identity.chance("look.white", 0.12), 0.85 + 0.15 * behind, behind)
    return _Look(
        surfaces=[names[i] for i in identity.weighted("look.surface", weights)],
        shapes=shapes,
        structures=[
            list(STRUCTURES)[n] if b and shape in LARGE else ""
            for b, n, shape in zip(built, picks, shapes, strict=True)
        ],
        level=identity.uniform("look.level", 0.08, 0.88),
        contrast=identity.log_uniform("look.contrast", 0.008, 0.17),
        behind=behind,
        tint_dark=dark,
        tint_bright=bright,
        harshness=1.0,
        wander=1.0,
    )


def _tones(look: _Look, identity: Draws, picture: Draws, plane: Field) -> torch.Tensor:
    """``(B, S, S)`` texture of each picture's own surface, painted surface by surface."""
    tones = torch.zeros(len(picture), plane.size, plane.size, device=plane.device)
    for name in dict.fromkeys(look.surfaces):
        rows = torch.tensor([i for i, n in enumerate(look.surfaces) if n == name])
        tones[rows.to(plane.device)] = SURFACES[name](
            identity.rows(rows), picture.rows(rows), plane
        ).clamp(-3, 3)
    return tones


def _coloured(tone: torch.Tensor, dark: torch.Tensor, bright: torch.Tensor) -> torch.Tensor:
    """``(B, S, S)`` brightness to ``(B, 3, S, S)``; dark and bright parts have their own tint."""
    share = tone.clamp(0, 1)[:, None]
    tint = dark[:, :, None, None] * (1 - share) + bright[:, :, None, None] * share
    return (tone[:, None] * tint).clamp(0, 1)


def _read(field: torch.Tensor, points: torch.Tensor, plane: Field) -> torch.Tensor:
    """``(B, P)`` values of ``(B, S, S)`` at ``(B, P, 2)`` points of the plane, nearest pixel."""
    pixel = ((points + 64) * (plane.size / 128)).long().clamp(0, plane.size - 1)
    return field.flatten(1).gather(1, pixel[..., 1] * plane.size + pixel[..., 0])


def _spots(picture: Draws, distance: torch.Tensor, plane: Field) -> tuple:
    """Two ``(B, 2)`` points in the plane: on the product, and on its border as seen."""
    tries = picture.uniforms("spot.tries", 24, -58, 58).view(-1, 12, 2)
    inside = _read(distance, tries, plane) < -3
    first = inside.float().argmax(1)  # the first that lies inside; else the first of all
    centre = tries[torch.arange(len(tries), device=tries.device), first]
    way = picture.uniform("spot.way", 0, 2 * np.pi).double()
    heading = torch.stack([torch.cos(way), torch.sin(way)], 1).float()
    steps = torch.linspace(0, 128, 65, device=tries.device)
    ray = centre[:, None] + steps[None, :, None] * heading[:, None]
    seen = (ray.abs() < 63).all(-1) & (_read(distance, ray, plane) < 0)
    last = (seen.cumprod(1).sum(1) - 1).clamp_min(0)
    return centre, ray[torch.arange(len(ray), device=ray.device), last]


def _some(chosen: torch.Tensor, *parts: Draws | torch.Tensor) -> tuple:
    """Positions of the chosen pictures, and their part of draws and fields."""
    at = chosen.nonzero()[:, 0]
    return at, *(part.rows(at) if isinstance(part, Draws) else part[at] for part in parts)


def _wear(look: _Look, identity: Draws, picture: Draws, plane: Field) -> torch.Tensor:
    """``(B, S, S)`` tone of what good material shows all over: long lines, clouds, dust."""
    tone = torch.zeros(len(picture), plane.size, plane.size, device=plane.device)
    grain = grain_angle(identity, picture)
    metal = [n in ("brushed", "ground", "rolled", "plain", "stripes") for n in look.surfaces]
    likely = torch.where(torch.tensor(metal, device=plane.device), 0.55, 0.12)
    lined = identity.uniform("wear.lined") < likely
    at, own, angle, contrast = _some(lined, picture, grain, look.contrast)
    if len(at):
        own_id = identity.rows(at)
        u, v = plane.turned(angle)
        stretch = own_id.log_uniform("wear.long", 40, 600)
        scale = own_id.uniform("wear.scale", 0.4, 1.1)
        lines = plane.noise(own, "wear.lines", "white", scale, stretch, (u, v))
        least = column(own_id.uniform("wear.least", 0.4, 1.5))
        sign = column(torch.where(own_id.chance("wear.bright", 0.6), 1.0, -1.0))
        strength = column(own_id.log_uniform("wear.strength", 0.02, 0.13) + contrast)
        tone[at] += sign * strength * smoothstep(least, least + 1.2, lines)
    at, own, angle = _some(identity.chance("wear.cloudy", 0.4), picture, grain)
    if len(at):
        own_id = identity.rows(at)
        scale, long = own_id.log_uniform("cloud.scale", 0.4, 2), own_id.log_uniform("cloud.l", 1, 5)
        clouds = plane.noise(own, "wear.clouds", "cloud", scale, long, plane.turned(angle))
        tone[at] += column(own_id.log_uniform("cloud.strength", 0.01, 0.1)) * clouds
    at, own = _some(identity.chance("wear.dusty", 0.25), picture)
    if len(at):
        own_id = identity.rows(at)
        grains = plane.noise(own, "wear.dust", "grains", own_id.uniform("dust.scale", 1.0, 3.5))
        least = column(own_id.uniform("dust.least", 1.2, 2.2))
        strength = column(own_id.log_uniform("dust.strength", 0.02, 0.2))
        sign = column(torch.where(own_id.chance("dust.bright", 0.5), 1.0, -1.0))
        tone[at] += sign * strength * smoothstep(least, least + 0.8, grains)
    return tone


def _relief(
    identity: Draws, picture: Draws, plane: Field, distance: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Factor of a rounded border under slanting light, and the gloss of its edge to be added."""
    step = 128.0 / plane.size
    gy, gx = torch.gradient(distance, spacing=step, dim=(1, 2))
    way = identity.uniform("relief.way", 0, 2 * np.pi) + picture.uniform("relief.turn", -0.3, 0.3)
    facing = (gx * column(torch.cos(way)) + gy * column(torch.sin(way))).clamp(-1, 1)
    deep = column(identity.log_uniform("relief.deep", 2, 40))
    slope = (1 + distance / deep).clamp(0, 1) ** 2
    strength = identity.uniform("relief.strength", 0, 0.7) * identity.chance("relief.there", 0.6)
    bevel = column(identity.log_uniform("look.bevel", 1, 9))
    rim = column(identity.uniform("look.rim", -0.35, 0.25))
    factor = (1 + column(strength) * facing * slope) * (
        1 + rim * torch.exp(-((distance / bevel) ** 2))
    )
    place = column(identity.uniform("gloss.place", 0, 8))
    wide = column(identity.log_uniform("gloss.wide", 0.8, 6))
    gloss = identity.log_uniform("gloss.bright", 0.08, 0.8) * identity.chance("gloss.there", 0.35)
    broken = 0.7 + 0.4 * plane.noise(picture, "gloss.broken", "pink", 0.6)
    edge = torch.exp(-(((distance + place) / wide) ** 2)) * facing.clamp_min(0) ** 0.5
    return factor.clamp_min(0.1), column(gloss) * broken.clamp(0, 1.4) * edge


def _built(
    look: _Look,
    identity: Draws,
    picture: Draws,
    plane: Field,
    change: Change,
    product: torch.Tensor,
) -> torch.Tensor:
    """``(B, 3, S, S)`` product with its parts and print."""
    product = product.clone()
    for name in dict.fromkeys(look.structures):
        if not name:
            continue
        rows = torch.tensor([i for i, n in enumerate(look.structures) if n == name])
        at = rows.to(plane.device)
        own_id, own = identity.rows(rows), picture.rows(rows)
        angle = own_id.uniform("built.angle", 0, np.pi) * own_id.chance("built.turned", 0.3)
        u, v = plane.turned(angle + own.uniform("built.jitter", -0.05, 0.05) * look.wander)
        shift = own.uniforms("built.shift", 2, -6, 6) * look.wander
        ink = STRUCTURES[name](
            own_id, own, u - column(shift[:, 0]), v - column(shift[:, 1]), change.rows(at)
        )
        level = look.level[at]
        step = own_id.log_uniform("built.step", 0.1, 0.6)
        up = torch.where(own_id.chance("built.up", 0.5), 1.0, -1.0)
        up = torch.where(((level + up * step) < 0.02) | ((level + up * step) > 0.98), -up, up)
        mean = column((level + up * step).clamp(0.02, 0.98))
        amount = column(own_id.uniform("built.shade", 0.05, 0.3))
        tone = (mean + amount * ink.shade).clamp(0, 1)
        grey = (look.tint_dark == 1).all(1)[at]
        tint = 1 + own_id.uniforms("built.tint", 3, -0.4, 0.3)
        tint = torch.where(grey[:, None], 1.0, tint)
        part = _coloured(tone, tint, tint)
        keep = column(own_id.uniform("built.opaque", 0.6, 1.0))
        ground = product[at] * (1 - ink.shadow)[:, None]
        product[at] = ground + (part - ground) * (ink.alpha * keep)[:, None]
    return product


def _clean_scene(
    look: _Look, identity: Draws, picture: Draws, plane: Field, change: Change
) -> tuple[Scene, torch.Tensor]:
    """The scene before damage and the ``(B, S, S)`` distance to the product's border."""
    distance, shade = signed_distance(look.shapes, identity, picture, plane, look.wander, change)
    tone = column(look.level) + column(look.contrast) * _tones(look, identity, picture, plane)
    if look.harshness > 0.5:
        tone = tone + _wear(look, identity, picture, plane)
    bordered = torch.tensor([name != "filled" for name in look.shapes], device=plane.device)
    at, own_id, own, border = _some(bordered, identity, picture, distance)
    factor, gloss = _relief(own_id, own, plane, border)
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
    soft = column(picture.uniform("look.soft", 0.5, 1.6))
    here = smoothstep(-soft, soft, -distance)[:, None]
    shadow = column(identity.uniform("behind.shadow", 0, 0.5))
    background = background * (1 - shadow * torch.exp(-distance.clamp_min(0) / 6))[:, None]
    centre, border = _spots(picture, distance, plane)
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


def _change(kinds: list[str], device: torch.device) -> Change:
    """What is wrong with each product, by the name of its build kind."""
    return Change(
        *(torch.tensor([kind == other for kind in kinds], device=device) for other in BUILD_KINDS)
    )


def _misbuilt(
    look: _Look, identity: Draws, picture: Draws, plane: Field, scene: Scene, kinds: list[list[int]]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Pictures with a build kind drawn anew; the mask is where they differ from good ones.

    Returns:
        ``(B, 3, S, S)`` all pictures, ``(B, S, S)`` kind map, ``(B, S, S)`` distances of the
        changed products (elsewhere 200).
    """
    light = scene.clean.clone()
    kind_map = torch.zeros_like(light[:, 0], dtype=torch.uint8)
    inside = torch.full_like(light[:, 0], 200.0)
    names = [next((DEFECT_KINDS[k] for k in own if _is_build(k)), "") for own in kinds]
    rows = torch.tensor([i for i, name in enumerate(names) if name], dtype=torch.long)
    if not len(rows):
        return light, kind_map, inside
    at = rows.to(plane.device)
    change = _change([names[i] for i in rows.tolist()], plane.device)
    other, distance = _clean_scene(
        look.rows(rows), identity.rows(rows), picture.rows(rows), plane, change
    )
    difference = (other.clean - scene.clean[at]).abs().amax(1)
    least = torch.maximum(0.04 * torch.ones_like(look.level[at]), 0.15 * look.contrast[at])
    cover = difference > column(least)
    per_unit = (128.0 / plane.size) ** 2
    enough = cover.flatten(1).sum(1) * per_unit >= 2 * _LEAST_AREA
    light[at] = torch.where(enough[:, None, None, None], other.clean, light[at])
    number = torch.tensor([DEFECT_KINDS.index(names[i]) + 1 for i in rows.tolist()])
    number = column(number.to(kind_map))
    kind_map[at] = torch.where(cover & enough[:, None, None], number, kind_map[at])
    inside[at] = distance
    return light, kind_map, inside


def _is_build(kind: int) -> bool:
    return DEFECT_KINDS[kind] in BUILD_KINDS


def _chosen(scene: Scene, rows: torch.Tensor) -> Scene:
    """The scene of some pictures only."""
    fields = {k: v[rows] for k, v in vars(scene).items() if isinstance(v, torch.Tensor)}
    return Scene(plane=scene.plane, **fields)


def _add_damage(
    light: torch.Tensor,
    kind_map: torch.Tensor,
    *,
    rows: torch.Tensor,
    kind: int,
    damage: Damage,
    on_product: torch.Tensor,
    faint: torch.Tensor,
) -> None:
    """Lay damage of one kind over the pictures ``rows`` in place, where there is enough of it.

    ``faint`` is the greatest mean step of brightness that is wanted, infinite for any.
    """
    cover = damage.cover & on_product
    per_unit = (128.0 / light.shape[-1]) ** 2
    area = cover.flatten(1).sum(1)
    change = (damage.target - light[rows]).abs().mean(1) * damage.alpha * cover
    step = change.flatten(1).sum(1) / area.clamp_min(1)
    weaker = (faint / step.clamp_min(1e-6)).clamp(max=1.0)
    enough = (area * per_unit >= _LEAST_AREA) & (step >= _LEAST_STEP)
    enough &= area <= _MOST_SHARE * on_product.flatten(1).sum(1)
    alpha = damage.alpha * on_product * (enough * weaker)[:, None, None]
    light[rows] = light[rows] + (damage.target - light[rows]) * alpha[:, None]
    cover = cover & enough[:, None, None]
    kind_map[rows] = torch.where(cover, torch.full_like(kind_map[rows], kind + 1), kind_map[rows])


def _draw(
    look: _Look, identity: Draws, picture: Draws, plane: Field, kinds: list[list[int]]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Images ``(B, 3, S, S)`` and kind maps ``(B, S, S)``; ``kinds`` lists each one's damages."""
    good = Change.none(len(picture), plane.device)
    scene, distance = _clean_scene(look, identity, picture, plane, good)
    light, kind_map, moved = _misbuilt(look, identity, picture, plane, scene, kinds)
    good_scene, scene = scene, replace(scene, clean=light.clone())
    distance = torch.minimum(distance, moved)
    for place in reversed(range(max(map(len, kinds)))):  # the chief damage comes last, on top
        for kind in range(len(DEFECT_KINDS)):
            rows = torch.tensor(
                [i for i, k in enumerate(kinds) if len(k) > place and k[place] == kind]
            )
            if not len(rows) or _is_build(kind):
                continue
            part = _chosen(scene, rows.to(plane.device))
            draws = picture.rows(rows).under(f"damage{place}")
            if place:  # further damage lies elsewhere
                part = _chosen(_moved(part, draws, distance[rows]), torch.arange(len(rows)))
            damage = draw_damage(kind, draws, part)
            least = torch.maximum(part.contrast, torch.full_like(part.contrast, 0.015))
            faint = torch.where(
                draws.chance("faint", 0.15), least * draws.uniform("faint.step", 0.9, 1.8), 9.0
            )
            _add_damage(
                light,
                kind_map,
                rows=rows,
                kind=kind,
                damage=damage,
                on_product=distance[rows] < 0.5,
                faint=faint,
            )
    factor, glare = lighting(picture, plane, look.harshness)

    light = _lit(light, factor, glare)
    at = kind_map.flatten(1).any(1).nonzero()[:, 0]
    if len(at):
        good_light = _lit(good_scene.clean[at], factor[at], glare[at])
        swallowed = at[~_seen(light[at], good_light, kind_map[at] > 0)]
        light[swallowed] = _lit(good_scene.clean[swallowed], factor[swallowed], glare[swallowed])
        kind_map[swallowed] = 0
    return exposed(picture, plane, light, look.harshness), kind_map


def _lit(light: torch.Tensor, factor: torch.Tensor, glare: torch.Tensor) -> torch.Tensor:
    """``(B, 3, S, S)`` under the light of the scene."""
    light = light * factor[:, None]
    return light + glare[:, None] * (1 - light.clamp(0, 1))


def _seen(light: torch.Tensor, good: torch.Tensor, cover: torch.Tensor) -> torch.Tensor:
    """``(B,)`` bool: the damage is not swallowed by the light or by the darkness."""
    # The camera's gain may be a little above one, so white begins below one.
    change = (light.clamp(0, 0.9) - good.clamp(0, 0.9)).abs().amax(1) * cover
    return change.flatten(1).sum(1) / cover.flatten(1).sum(1) > _LEAST_SEEN


def _moved(scene: Scene, draws: Draws, distance: torch.Tensor) -> Scene:
    """The scene with another place for damage."""
    centre, border = _spots(draws, distance, scene.plane)
    fields = {**vars(scene), "centre": centre, "border": border}
    fields = {k: v for k, v in fields.items() if k in Scene.__dataclass_fields__}
    return Scene(**fields)


def asked_for_damage(seed: int, start: int, count: int) -> list[bool]:
    """Whether each of these pictures of a series is to be damaged; nothing is drawn.

    Of those that are, some stay good because their damage falls outside the product.
    """
    numbers = np.arange(start, start + count, dtype=np.uint64)
    return _damaged(Draws(seed, numbers, torch.device("cpu")))


def _damaged(picture: Draws) -> list[bool]:
    return picture.chance("kind.damaged", 0.52).tolist()


def _possible(shape: str, structure: str) -> np.ndarray:
    """``(K,)`` share of each kind on such a product; build kinds only where they fit."""
    build = {
        "missing part": structure in COUNTED or shape in COUNTABLE,
        "extra part": structure in COUNTED or shape == "many",
        "misplaced part": structure in COUNTED or shape in COUNTABLE,
        "bent": shape in BENDABLE,
        "print error": structure in PRINTED,
    }
    often = 8.0 if build["bent"] and sum(build.values()) == 1 else 3.0
    weights = np.array(
        [often * build[kind] if kind in build else _OFTEN.get(kind, 1.0) for kind in DEFECT_KINDS]
    )
    return weights / weights.sum()


def _random_kinds(picture: Draws, look: _Look) -> list[list[int]]:
    """No damage in half of the pictures, one in most others, two in some."""
    damaged = _damaged(picture)
    second = picture.chance("kind.second", 0.12).tolist()
    shares = [_possible(*of) for of in zip(look.shapes, look.structures, strict=True)]
    draws = picture.uniforms("kind.which", 2).double().cpu().numpy()
    first_kind = [
        int(np.searchsorted(np.cumsum(share), drawn[0], "right"))
        for share, drawn in zip(shares, draws, strict=True)
    ]
    plain = [k for k in range(len(DEFECT_KINDS)) if not _is_build(k)]
    second_kind = [plain[int(d[1] * len(plain))] for d in draws]
    return [
        [] if not d else [a, b] if s and a != b else [a]
        for d, s, a, b in zip(damaged, second, first_kind, second_kind, strict=True)
    ]


def _chief_kinds(kind_map: torch.Tensor, asked: list[list[int]]) -> torch.Tensor:
    """``(B,)`` the kind asked for first of which something is left to see, else -1."""
    chief = []
    for seen, wanted in zip(kind_map, asked, strict=True):
        left = [kind for kind in wanted if bool((seen == kind + 1).any())]
        chief.append(left[0] if left else -1)
    return torch.tensor(chief, device=kind_map.device)


@torch.no_grad()
def generate(
    seed: int,
    start: int,
    count: int,
    size: int = 128,
    device: torch.device | str = "cpu",
    pictures_per_product: int = 1,
) -> ProceduralBatch:
    """Draw pictures number ``start`` to ``start + count - 1`` of the endless series ``seed``.

    Picture i is the same whatever batch it is drawn in, up to rounding of the last 8-bit step.
    About half of the pictures are good.

    Args:
        seed: number of the series.
        start: first picture.
        count: how many, at least 1.
        size: side in pixels, a multiple of 8; a picture shows the same scene at any size.
        device: where to draw.
        pictures_per_product: so many pictures after another, counted from number 0, show the same
            product, each with its own place, light and damage.

    Raises:
        ValueError: count below 1, or size no positive multiple of 8.
    """
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    if size < 8 or size % 8:
        raise ValueError(f"size must be a positive multiple of 8, got {size}")
    plane = Field(size, torch.device(device))
    images, maps, chiefs = [], [], []
    captions: list[str] = []
    surfaces: list[str] = []
    for first in range(start, start + count, _CHUNK):
        numbers = np.arange(first, min(first + _CHUNK, start + count), dtype=np.uint64)
        picture = Draws(seed, numbers, plane.device)
        products = numbers // np.uint64(pictures_per_product)
        identity = Draws(seed, products, plane.device).under("identity")
        look = _random_look(identity)
        kinds = _random_kinds(picture, look)
        image, kind_map = _draw(look, identity, picture, plane, kinds)
        chief = _chief_kinds(kind_map, kinds)
        images.append(image)
        maps.append(kind_map)
        chiefs.append(chief)
        objects = [
            built or shape for shape, built in zip(look.shapes, look.structures, strict=True)
        ]
        captions += write_captions(picture, look.surfaces, objects, chief.tolist(), kind_map)
        surfaces += look.surfaces
    return ProceduralBatch(
        torch.cat(images), torch.cat(maps), torch.cat(chiefs), captions, surfaces
    )


@dataclass(frozen=True)
class _Product:
    surface: str
    shape: str
    level: float
    contrast: float
    behind: float
    tint: tuple[float, float, float]
    identity: int  # picks proportions, pitch and grain
    structure: str = ""


_PRODUCTS = {
    "metal plate": _Product("brushed", "plate", 0.55, 0.035, 0.06, (1.0, 1.0, 1.0), 1),
    "woven fabric": _Product("weave", "filled", 0.5, 0.09, 0.5, (0.85, 0.95, 1.1), 2),
    "ceramic tile": _Product("stone", "plate", 0.75, 0.02, 0.25, (1.05, 1.0, 0.9), 3),
    "wooden board": _Product("wood", "filled", 0.5, 0.06, 0.5, (1.2, 0.9, 0.6), 4),
    "seal ring": _Product("paper", "ring", 0.22, 0.02, 0.8, (1.0, 1.0, 1.0), 5),
    "drilled plate": _Product("ground", "plate", 0.6, 0.03, 0.05, (1.0, 1.0, 1.0), 6, "grid"),
    "name plate": _Product("paper", "plate", 0.8, 0.02, 0.3, (1.0, 0.98, 0.9), 13, "text"),
    "cable bundle": _Product("plain", "cables", 0.3, 0.02, 0.75, (0.8, 0.9, 1.2), 15),
}
PRODUCTS = tuple(_PRODUCTS)
"""Names that ``draw_product`` knows."""


def possible_kinds(name: str) -> tuple[str, ...]:
    """Kinds of damage that the product ``name`` of ``PRODUCTS`` can have."""
    shares = _possible(_PRODUCTS[name].shape, _PRODUCTS[name].structure)
    return tuple(kind for kind, share in zip(DEFECT_KINDS, shares, strict=True) if share)


@torch.no_grad()
def draw_product(
    name: str, seed: int, index: int, kind: str | None, size: int = 256
) -> tuple[np.ndarray, np.ndarray]:
    """Draw one picture of a known product: always the same thing, never quite the same picture.

    Args:
        name: one of ``PRODUCTS``.
        seed: number of the series.
        index: which piece of the series; place, light and damage vary with it.
        kind: one of ``DEFECT_KINDS``, or None for a good piece.
        size: side in pixels, a multiple of 8.

    Returns:
        ``(size, size, 3)`` uint8 image and ``(size, size)`` bool mask of the damage.

    Raises:
        ValueError: unknown product or kind, a kind that this product cannot have (such as a missing
            part of a fabric), or size no positive multiple of 8.
    """
    if name not in _PRODUCTS:
        raise ValueError(f"unknown product {name!r}; known are {', '.join(PRODUCTS)}")
    if kind is not None and kind not in DEFECT_KINDS:
        raise ValueError(f"unknown kind {kind!r}; known are {', '.join(DEFECT_KINDS)}")
    if size < 8 or size % 8:
        raise ValueError(f"size must be a positive multiple of 8, got {size}")
    product = _PRODUCTS[name]
    able = possible_kinds(name)
    if kind is not None and kind not in able:
        raise ValueError(f"a {name} cannot have a {kind!r}; it can have {', '.join(able)}")
    plane = Field(size, torch.device("cpu"))
    identity = Draws(product.identity, np.zeros(1, dtype=np.uint64), plane.device)
    tint = torch.tensor([product.tint])
    look = _Look(
        [product.surface], [product.shape], [product.structure], torch.tensor([product.level]),
        torch.tensor([product.contrast]), torch.tensor([product.behind]), tint, tint,
        harshness=0.3, wander=0.25,
    )  # fmt: skip
    kinds = [[] if kind is None else [DEFECT_KINDS.index(kind)]]
    series = zlib.crc32(f"{seed}/{name}".encode())
    for attempt in range(16):  # damage may fall outside the picture; then it falls elsewhere
        number = np.array([index * 16 + attempt], dtype=np.uint64)
        picture = Draws(series, number, plane.device)
        image, kind_map = _draw(look, identity, picture, plane, kinds)
        if kind is None or bool(kind_map.any()):
            break
    pixels = (image[0] * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    return pixels, kind_map[0].numpy() > 0

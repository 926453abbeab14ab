"""Procedural pictures of products, good and damaged, with masks and captions; no photographs."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from zerodefect.procedural.camera import exposed, lighting
from zerodefect.procedural.captions import write_captions
from zerodefect.procedural.damage import Damage
from zerodefect.procedural.damage_kinds import LAID
from zerodefect.procedural.draws import Draws, Field, by_name, column
from zerodefect.procedural.kinds import BUILD_KINDS, DEFECT_KINDS
from zerodefect.procedural.products import (
    KNOWN,
    PRODUCTS,
    Kinds,
    Look,
    possible_kinds,
    random_kinds,
    random_look,
)
from zerodefect.procedural.scene import Scene, damage_spots, good_scene
from zerodefect.procedural.shapes import Change

_CHUNK = 32  # pictures drawn together: more would leave the processor's cache
_LEAST_AREA = 3.0  # of damage, in pixels of a 128-pixel picture; less is not damage
_MOST_SHARE = 0.65  # of the product: where nearly all of it is alike, nothing stands out
_LEAST_SEEN = 0.009  # mean change of brightness in the light of the scene
_LEAST_STEP = 0.012  # mean change of brightness that can be seen; less is not damage


@dataclass(frozen=True)
class ProceduralBatch:
    """Pictures with their truth."""

    images: Tensor  # (B, 3, S, S) float32 in [0, 1], multiples of 1/255
    kind_map: Tensor  # (B, S, S) uint8: 0 is undamaged, k + 1 is damage of kind k
    kinds: Tensor  # (B,) int64 position in DEFECT_KINDS of the chief damage, -1 for good
    captions: list[str]  # one sentence per picture
    surfaces: list[str]  # name of the surface of each picture

    @property
    def masks(self) -> Tensor:
        """``(B, S, S)`` bool: damaged pixels of any kind."""
        return self.kind_map > 0

    def to(self, device: torch.device | str) -> ProceduralBatch:
        """The same batch with its tensors on a device."""
        tensors = ("images", "kind_map", "kinds")
        return replace(self, **{name: getattr(self, name).to(device) for name in tensors})


def _draw(
    look: Look, identity: Draws, picture: Draws, plane: Field, kinds: Kinds
) -> tuple[Tensor, Tensor]:
    """Images ``(B, 3, S, S)`` and kind maps ``(B, S, S)``; ``kinds`` lists each one's damages."""
    sound = Change.of([""] * len(picture), plane.device)
    scene, distance = good_scene(look, identity, picture, plane, sound)
    light, kind_map, moved = _misbuilt(look, identity, picture, scene, kinds)
    distance = torch.minimum(distance, moved)
    _lay_damage(light, kind_map, replace(scene, clean=light.clone()), picture, distance, kinds)
    factor, glare = lighting(picture, plane, look.harshness)
    light = _lit(light, factor, glare)
    at = kind_map.flatten(1).any(1).nonzero()[:, 0]
    good = _lit(scene.clean[at], factor[at], glare[at])
    swallowed = ~_seen(light[at], good, kind_map[at] > 0)
    light[at[swallowed]] = good[swallowed]
    kind_map[at[swallowed]] = 0
    return exposed(picture, plane, light, look.harshness), kind_map


def _misbuilt(
    look: Look, identity: Draws, picture: Draws, scene: Scene, kinds: Kinds
) -> tuple[Tensor, Tensor, Tensor]:
    """Pictures with a build kind drawn anew; the mask is where they differ from good ones.

    Returns:
        ``(B, 3, S, S)`` all pictures, ``(B, S, S)`` kind map, ``(B, S, S)`` distances of the
        changed products (elsewhere 200).
    """
    plane, light = scene.plane, scene.clean.clone()
    kind_map = torch.zeros_like(light[:, 0], dtype=torch.uint8)
    inside = torch.full_like(light[:, 0], 200.0)
    wrong = {row: k for row, own in enumerate(kinds) for k in own if k in BUILD_KINDS}
    if not wrong:
        return light, kind_map, inside
    at = torch.tensor(list(wrong), device=plane.device)
    change = Change.of(list(wrong.values()), plane.device)
    parts = look.rows(at), identity.rows(at), picture.rows(at)
    other, inside[at] = good_scene(*parts, plane, change)
    difference = (other.clean - scene.clean[at]).abs().amax(1)
    cover = difference > column((0.15 * look.contrast[at]).clamp_min(0.04))
    enough = cover.flatten(1).sum(1) * plane.step**2 >= 2 * _LEAST_AREA
    light[at] = torch.where(enough[:, None, None, None], other.clean, light[at])
    numbers = torch.tensor([_number(kind) for kind in wrong.values()]).to(kind_map)
    kind_map[at] = torch.where(cover & enough[:, None, None], column(numbers), kind_map[at])
    return light, kind_map, inside


def _number(kind: str) -> int:
    """What stands for a kind in kind maps."""
    return DEFECT_KINDS.index(kind) + 1


def _lay_damage(
    light: Tensor, kind_map: Tensor, scene: Scene, picture: Draws, distance: Tensor, kinds: Kinds
) -> None:
    """Lay all damage that is no build kind over pictures and kind maps, in place."""
    for place in reversed(range(max(map(len, kinds)))):  # the chief damage comes last, on top
        names = [own[place] if len(own) > place else "" for own in kinds]
        for kind, rows in by_name(names, light.device):
            if kind not in LAID:
                continue
            part, draws = scene.rows(rows), picture.rows(rows).under(f"damage{place}")
            if place:  # further damage lies elsewhere
                centre, border = damage_spots(draws, distance[rows], scene.plane)
                part = replace(part, centre=centre, border=border)
            damage = LAID[kind](draws, part)
            step = part.contrast.clamp_min(0.015) * draws.uniform("faint.step", 0.9, 1.8)
            faint = torch.where(draws.chance("faint", 0.15), step, 9.0)
            alpha, cover = visible(damage, light[rows], distance[rows] < 0.5, faint)
            light[rows] = light[rows] + (damage.target - light[rows]) * alpha[:, None]
            kind_map[rows] = kind_map[rows].masked_fill(cover, _number(kind))


def visible(
    damage: Damage, light: Tensor, on_product: Tensor, faint: Tensor
) -> tuple[Tensor, Tensor]:
    """Opacity and cover ``(B, S, S)`` of damage on the product, zero where it is not enough.

    ``faint`` is the greatest mean step of brightness that is wanted.
    """
    cover = damage.cover & on_product
    area = cover.flatten(1).sum(1)
    change = (damage.target - light).abs().mean(1) * damage.alpha * cover
    step = change.flatten(1).sum(1) / area.clamp_min(1)
    weaker = (faint / step.clamp_min(1e-6)).clamp(max=1.0)
    per_unit = (128.0 / light.shape[-1]) ** 2
    enough = (area * per_unit >= _LEAST_AREA) & (step >= _LEAST_STEP)
    enough &= area <= _MOST_SHARE * on_product.flatten(1).sum(1)
    return damage.alpha * on_product * column(enough * weaker), cover & column(enough)


def _lit(light: Tensor, factor: Tensor, glare: Tensor) -> Tensor:
    """``(B, 3, S, S)`` under the light of the scene."""
    light = light * factor[:, None]
    return light + glare[:, None] * (1 - light.clamp(0, 1))


def _seen(light: Tensor, good: Tensor, cover: Tensor) -> Tensor:
    """``(B,)`` bool: the damage is not swallowed by the light or by the darkness."""
    # The camera's gain may be a little above one, so white begins below one.
    change = (light.clamp(0, 0.9) - good.clamp(0, 0.9)).abs().amax(1) * cover
    return change.flatten(1).sum(1) / cover.flatten(1).sum(1) > _LEAST_SEEN


@torch.no_grad()
def generate(
    seed: int,
    start: int,
    count: int,
    size: int = 128,
    device: torch.device | str = "cpu",
    pictures_per_product: int = 1,
    surroundings: bool = False,
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
        surroundings: whether half of the products lie on what is no even table: another material,
            other things, a light that falls off.

    Raises:
        ValueError: count below 1, or size no positive multiple of 8.
    """
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    plane = _plane(size, device)
    numbers = np.arange(start, start + count, dtype=np.uint64)
    picture = Draws(seed, numbers, plane.device)
    products = numbers // np.uint64(pictures_per_product)
    identity = Draws(seed, products, plane.device).under("identity")
    look = random_look(identity, surroundings)
    kinds = random_kinds(picture, look)
    drawn = []
    for rows in torch.arange(count).split(_CHUNK):
        parts = look.rows(rows), identity.rows(rows), picture.rows(rows)
        drawn.append(_draw(*parts, plane, kinds[rows[0] : rows[-1] + 1]))
    images, kind_map = map(torch.cat, zip(*drawn, strict=True))
    chief = []  # the kind asked for first of which something is left to see
    for seen, wanted in zip(kind_map, kinds, strict=True):
        left = (kind for kind in wanted if bool((seen == _number(kind)).any()))
        chief.append(next(map(DEFECT_KINDS.index, left), -1))
    captions = write_captions(picture, look.surfaces, look.things, chief, kind_map)
    chiefs = torch.tensor(chief, device=plane.device)
    return ProceduralBatch(images, kind_map, chiefs, captions, look.surfaces)


def _plane(size: int, device: torch.device | str) -> Field:
    if size < 8 or size % 8:
        raise ValueError(f"size must be a positive multiple of 8, got {size}")
    return Field(size, torch.device(device))


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
    if name not in PRODUCTS:
        raise ValueError(f"unknown product {name!r}; known are {', '.join(PRODUCTS)}")
    if kind is not None and kind not in DEFECT_KINDS:
        raise ValueError(f"unknown kind {kind!r}; known are {', '.join(DEFECT_KINDS)}")
    plane = _plane(size, "cpu")
    able = possible_kinds(name)
    if kind is not None and kind not in able:
        raise ValueError(f"a {name} cannot have a {kind!r}; it can have {', '.join(able)}")
    number, look = KNOWN[name]
    identity = Draws(number, np.zeros(1, dtype=np.uint64), plane.device)
    kinds = [[] if kind is None else [kind]]
    series = zlib.crc32(f"{seed}/{name}".encode())
    for attempt in range(16):  # damage may fall outside the picture; then it falls elsewhere
        piece = np.array([index * 16 + attempt], dtype=np.uint64)
        picture = Draws(series, piece, plane.device)
        image, kind_map = _draw(look, identity, picture, plane, kinds)
        if kind is None or bool(kind_map.any()):
            break
    pixels = (image[0] * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    return pixels, kind_map[0].numpy() > 0

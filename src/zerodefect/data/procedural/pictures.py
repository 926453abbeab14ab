"""Procedural pictures of products, good and damaged, with masks and captions; no photographs."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
import torch

from zerodefect.data.procedural.camera import exposed, lighting
from zerodefect.data.procedural.captions import write_captions
from zerodefect.data.procedural.damage import DEFECT_KINDS, Damage, Scene, draw_damage
from zerodefect.data.procedural.draws import Draws, Field, column, smoothstep
from zerodefect.data.procedural.shapes import SHAPE_WEIGHTS, SHAPES, signed_distance
from zerodefect.data.procedural.surfaces import SURFACE_WEIGHTS, SURFACES, grain_angle

_CHUNK = 32  # pictures drawn together: more would leave the processor's cache
_LEAST_AREA = 3.0  # of damage, in pixels of a 128-pixel picture; less is not damage


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


@dataclass(frozen=True)
class _Look:
    """What product each picture of a batch shows.

    Attributes: names of surface and shape; ``(B,)`` brightness, texture contrast and background
    brightness; ``(B, 3)`` tints that multiply dark and bright parts (ones: grey); harshness of
    light and camera; how far the product wanders.
    """

    surfaces: list[str]
    shapes: list[str]
    level: torch.Tensor
    contrast: torch.Tensor
    behind: torch.Tensor
    tint_dark: torch.Tensor
    tint_bright: torch.Tensor
    harshness: float
    wander: float


def _random_look(identity: Draws) -> _Look:
    """Any product at all."""
    names = list(SURFACES)
    weights = np.array([SURFACE_WEIGHTS.get(name, 1.0) for name in names])
    grey = identity.chance("look.grey", 0.55)[:, None]
    dark = torch.where(grey, 1.0, 1 + identity.uniforms("look.tint_dark", 3, -0.4, 0.4))
    bright = torch.where(grey, 1.0, 1 + identity.uniforms("look.tint_bright", 3, -0.35, 0.25))
    return _Look(
        surfaces=[names[i] for i in identity.weighted("look.surface", weights)],
        shapes=[SHAPES[i] for i in identity.weighted("look.shape", np.array(SHAPE_WEIGHTS))],
        level=identity.uniform("look.level", 0.1, 0.9),
        contrast=identity.log_uniform("look.contrast", 0.008, 0.14),
        behind=identity.uniform("look.behind", 0.0, 1.0),
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


def _clean_scene(look: _Look, identity: Draws, picture: Draws, plane: Field) -> tuple:
    """The undamaged scene and the ``(B, S, S)`` distance to the product's border."""
    distance = signed_distance(look.shapes, identity, picture, plane, look.wander)
    tone = column(look.level) + column(look.contrast) * _tones(look, identity, picture, plane)
    # A bevel: the rim catches or loses light over a few units.
    bevel = column(identity.log_uniform("look.bevel", 1, 9))
    rim = column(identity.uniform("look.rim", -0.35, 0.25))
    tone = tone * (1 + rim * torch.exp(-((distance / bevel) ** 2)))
    product = _coloured(tone, look.tint_dark, look.tint_bright)
    rough = plane.noise(picture, "behind", "cloud", identity.log_uniform("behind.scale", 0.2, 2))
    uneven = column(identity.log_uniform("behind.contrast", 0.003, 0.08))
    ones = torch.ones_like(look.tint_dark)
    background = _coloured(column(look.behind) + uneven * rough, ones, ones)
    soft = column(picture.uniform("look.soft", 0.5, 1.6))
    here = smoothstep(-soft, soft, -distance)[:, None]
    shade = column(identity.uniform("behind.shadow", 0, 0.5))
    background = background * (1 - shade * torch.exp(-distance.clamp_min(0) / 6))[:, None]
    centre, border = _spots(picture, distance, plane)
    scene = Scene(
        plane=plane,
        clean=background + (product - background) * here,
        background=background,
        level=look.level,
        contrast=look.contrast,
        grain=grain_angle(identity, picture),
        grey=(look.tint_bright == look.tint_bright[:, :1]).all(1),
        centre=centre,
        border=border,
    )
    return scene, distance


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
) -> None:
    """Lay damage of one kind over the pictures ``rows`` in place, where there is enough of it."""
    cover = damage.cover & on_product
    per_unit = (128.0 / light.shape[-1]) ** 2
    enough = cover.flatten(1).sum(1) * per_unit >= _LEAST_AREA
    alpha = damage.alpha * on_product * enough[:, None, None]
    light[rows] = light[rows] + (damage.target - light[rows]) * alpha[:, None]
    cover = cover & enough[:, None, None]
    kind_map[rows] = torch.where(cover, torch.full_like(kind_map[rows], kind + 1), kind_map[rows])


def _draw(
    look: _Look, identity: Draws, picture: Draws, plane: Field, kinds: list[list[int]]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Images ``(B, 3, S, S)`` and kind maps ``(B, S, S)``; ``kinds`` lists each one's damages."""
    scene, distance = _clean_scene(look, identity, picture, plane)
    light, kind_map = scene.clean.clone(), torch.zeros_like(distance, dtype=torch.uint8)
    for place in reversed(range(max(map(len, kinds)))):  # the chief damage comes last, on top
        for kind in range(len(DEFECT_KINDS)):
            rows = torch.tensor(
                [i for i, k in enumerate(kinds) if len(k) > place and k[place] == kind]
            )
            if not len(rows):
                continue
            part = _chosen(scene, rows.to(plane.device))
            draws = picture.rows(rows).under(f"damage{place}")
            if place:  # further damage lies elsewhere
                part = _chosen(_moved(part, draws, distance[rows]), torch.arange(len(rows)))
            damage = draw_damage(kind, draws, part)
            on_product = distance[rows] < 0.5
            _add_damage(light, kind_map, rows=rows, kind=kind, damage=damage, on_product=on_product)
    factor, glare = lighting(picture, plane, look.harshness)
    light = light * factor[:, None]
    light = light + glare[:, None] * (1 - light.clamp(0, 1))
    return exposed(picture, plane, light, look.harshness), kind_map


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


def _random_kinds(picture: Draws) -> list[list[int]]:
    """No damage in half of the pictures, one in most others, two in some."""
    damaged = _damaged(picture)
    second = picture.chance("kind.second", 0.12).tolist()
    first_kind = picture.integers("kind.first", len(DEFECT_KINDS)).tolist()
    second_kind = picture.integers("kind.another", len(DEFECT_KINDS)).tolist()
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
        identity = picture.under("identity")
        look, kinds = _random_look(identity), _random_kinds(picture)
        image, kind_map = _draw(look, identity, picture, plane, kinds)
        chief = _chief_kinds(kind_map, kinds)
        images.append(image)
        maps.append(kind_map)
        chiefs.append(chief)
        captions += write_captions(picture, look.surfaces, chief.tolist())
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


_PRODUCTS = {
    "metal plate": _Product("brushed", "plate", 0.55, 0.035, 0.06, (1.0, 1.0, 1.0), 1),
    "woven fabric": _Product("weave", "filled", 0.5, 0.09, 0.5, (0.85, 0.95, 1.1), 2),
    "ceramic tile": _Product("stone", "plate", 0.75, 0.02, 0.25, (1.05, 1.0, 0.9), 3),
    "wooden board": _Product("wood", "filled", 0.5, 0.06, 0.5, (1.2, 0.9, 0.6), 4),
    "seal ring": _Product("paper", "ring", 0.22, 0.02, 0.8, (1.0, 1.0, 1.0), 5),
}
PRODUCTS = tuple(_PRODUCTS)
"""Names that ``draw_product`` knows."""


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
        ValueError: unknown product or kind, or size no positive multiple of 8.
    """
    if name not in _PRODUCTS:
        raise ValueError(f"unknown product {name!r}; known are {', '.join(PRODUCTS)}")
    if kind is not None and kind not in DEFECT_KINDS:
        raise ValueError(f"unknown kind {kind!r}; known are {', '.join(DEFECT_KINDS)}")
    if size < 8 or size % 8:
        raise ValueError(f"size must be a positive multiple of 8, got {size}")
    product = _PRODUCTS[name]
    plane = Field(size, torch.device("cpu"))
    identity = Draws(product.identity, np.zeros(1, dtype=np.uint64), plane.device)
    tint = torch.tensor([product.tint])
    look = _Look(
        [product.surface], [product.shape], torch.tensor([product.level]),
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

"""Damage of a stated kind, size and contrast, drawn onto a photograph of a good part.

Sizes are pixels of the photograph. Contrast is a share of the grey range by which the damage, where
it is strongest, is darker or brighter than the photograph itself shows at that place: the surface's
texture goes on under it. Shapes are those of ``damage_kinds`` in their plainest form, so that one
number says how large they are.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from zerodefect.procedural.damage import away_from
from zerodefect.procedural.draws import Draws, Field, column, smoothstep
from zerodefect.procedural.on_pictures import product_distance

_COVERED = 0.35  # opacity from which a pixel counts as damaged
_PRODUCT_SIDE = 128  # pixels at which a product is told from its ground
_LINE_LENGTH = (16, 16)  # of a line: so many times its width, and so many pixels more


@dataclass(frozen=True)
class SizedDamage:
    """One damage, not yet on a picture.

    Attributes:
        opacity: ``(W, W)`` float32 in [0, 1], about its middle.
        brighter: whether it is brighter than the surface, where there is room for that.
    """

    opacity: np.ndarray
    brighter: bool


def sized_damage(kind: str, size: float, draws: Draws, longest: float = math.inf) -> SizedDamage:
    """Draw a damage; the same draws give the same one.

    Args:
        kind: one of ``SIZED_KINDS``.
        size: pixels: width of a line (``scratch``, ``crack``), diameter of what is round (``stain``
            at half its strength, ``contamination`` with a sharp edge). A line is 16 times as long
            as wide, and 16 pixels longer.
        draws: of one picture.
        longest: pixels that a line is at most long.
    """
    length = min(_LINE_LENGTH[0] * size + _LINE_LENGTH[1], longest)
    window = math.ceil(length if kind in LINES else 2 * size) + 4
    plane = Field(window, draws.device)
    opacity = _SHAPES[kind](draws, plane, size, length)[0]
    return SizedDamage(opacity.numpy(), bool(draws.chance("brighter", 0.5)))


def lay(
    pixels: np.ndarray,
    damage: SizedDamage,
    contrast: float,
    centre: tuple[int, int],
    on: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Lay damage onto a picture.

    It gets darker instead of brighter, or the reverse, where the surface under it has no room.

    Args:
        pixels: ``(H, W, 3)`` uint8 or uint16.
        damage: what is laid.
        contrast: in (0, 1), share of the grey range.
        centre: row and column of its middle.
        on: ``(H, W)`` bool, where it may lie; the rest stays as it is.

    Returns:
        The picture, of the same type, and ``(H, W)`` bool: what counts as damaged.
    """
    side, size = len(damage.opacity), on.shape
    starts = [middle - side // 2 for middle in centre]
    inside = tuple(slice(max(0, a), min(a + side, n)) for a, n in zip(starts, size, strict=True))
    own = tuple(slice(s.start - a, s.stop - a) for s, a in zip(inside, starts, strict=True))
    opacity = damage.opacity[own] * on[inside]
    mask = np.zeros(size, bool)
    mask[inside] = opacity > _COVERED
    full = float(np.iinfo(pixels.dtype).max)
    under = pixels[inside].astype(np.float32) / full
    level = float((under.mean(2) * opacity).sum() / max(float(opacity.sum()), 1e-6))
    brighter = level + contrast <= 1 if damage.brighter else level < contrast
    step = (contrast if brighter else -contrast) * opacity[..., None]
    changed = pixels.copy()
    laid = np.round((under + step).clip(0, 1) * full).astype(pixels.dtype)
    changed[inside] = np.where(opacity[..., None] > 0, laid, pixels[inside])
    return changed, mask


def on_product(pixels: np.ndarray) -> np.ndarray:
    """``(H, W)`` bool: the product on a plain ground, or everything; see ``product_distance``."""
    full = float(np.iinfo(pixels.dtype).max)
    step = max(1, max(pixels.shape[:2]) // (4 * _PRODUCT_SIDE))  # of a large picture some pixels do
    image = torch.from_numpy(pixels[::step, ::step].astype(np.float32) / full).permute(2, 0, 1)
    small = F.interpolate(image[None], (_PRODUCT_SIDE,) * 2, mode="bilinear", antialias=True)
    distance, _ = product_distance(small, Field(_PRODUCT_SIDE, image.device))
    sized = F.interpolate(distance[:, None], pixels.shape[:2], mode="bilinear")[0, 0]
    return (sized < 0).numpy()


# --- shapes: ``(1, W, W)`` opacity of a size and length in pixels --------------------------------


def _scratch(draws: Draws, plane: Field, size: float, length: float) -> Tensor:
    """A slightly bent line of even width that fades at its ends."""
    u, v = _along(draws, plane)
    v = v - column(draws.uniform("bend", -0.15, 0.15) / length) * u * u
    return _line(v.abs(), size) * _ends(u.abs(), length / 2)


def _crack(draws: Draws, plane: Field, size: float, length: float) -> Tensor:
    """A jagged line with a branch."""
    arms = []
    for number in range(2):
        arm = draws.under(f"arm{number}")
        fork = number * arm.uniform("fork", 0.5, 1.2)
        u, v = (
            each / plane.step for each in plane.turned(draws.uniform("angle", 0, math.pi) + fork)
        )
        wander = plane.noise(arm, "wander", "smooth", 2.5, 1.0, (u * plane.step, v * plane.step))
        middle = plane.size // 2
        jag = 0.1 * length
        height = v + jag * (wander - wander[:, middle : middle + 1, middle : middle + 1])
        away = away_from(plane, height * plane.step) / plane.step
        course = u.abs() if number == 0 else torch.where(u < 0, length, u)
        reach = length / 2 if number == 0 else length / 3
        arms.append(_line(away, size) * _ends(course, reach) * (v.abs() < 3 * jag + size))
    return torch.maximum(*arms)


def _stain(draws: Draws, plane: Field, size: float, length: float) -> Tensor:
    """A patch that fades out from its middle."""
    away, radius = _round(draws, plane, size)
    return 1 - smoothstep(0.4 * radius, 1.6 * radius, away)


def _contamination(draws: Draws, plane: Field, size: float, length: float) -> Tensor:
    """A particle with a sharp, uneven edge."""
    away, radius = _round(draws, plane, size)
    return (radius - away + 0.5).clamp(0, 1)


def _along(draws: Draws, plane: Field) -> tuple[Tensor, Tensor]:
    """Pixels along and across a drawn direction."""
    u, v = plane.turned(draws.uniform("angle", 0, math.pi))
    return u / plane.step, v / plane.step


def _round(draws: Draws, plane: Field, size: float) -> tuple[Tensor, Tensor]:
    """Pixels from the middle of an oval, and its uneven radius in pixels."""
    u, v = _along(draws, plane)
    squash = column(draws.uniform("squash", 0.8, 1.25))
    edge = plane.noise(draws, "edge", "cloud", 0.8)
    return torch.hypot(u / squash, v * squash), size / 2 * (1 + 0.12 * edge.clamp(-2, 2))


def _line(away: Tensor, width: float) -> Tensor:
    """Share of a pixel that a line covers, by the pixel's distance from the line's middle."""
    return (width / 2 + 0.5 - away).clamp(0, min(1.0, width))


def _ends(course: Tensor, reach: float) -> Tensor:
    return 1 - smoothstep(0.8 * reach, reach, course)


LINES = ("scratch", "crack")
_SHAPES: dict[str, Callable[[Draws, Field, float, float], Tensor]] = {
    "scratch": _scratch,
    "crack": _crack,
    "stain": _stain,
    "contamination": _contamination,
}
SIZED_KINDS = tuple(_SHAPES)
"""Names of the kinds, of ``DEFECT_KINDS``."""

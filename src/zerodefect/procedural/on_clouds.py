"""Damage on good parts that are seen as picture and point grid: both show the same damage.

The surface is moved along the line of sight, and the picture is shaded anew where its slope changed
(Lambert's law under a drawn light), so that a dent is a dent in either. Nothing else is known of a
part than its points: sizes are in shares of the part, depths in shares of the damage's own size.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from zerodefect.layers.smoothing import gaussian_smooth
from zerodefect.procedural.draws import Draws, column, turned

_SIZES = (0.06, 0.25)  # of a damage, as a share of the square root of the part's area
_SEEN = 0.1  # share of the largest step from which a pixel counts as damaged
_AMBIENT = 0.5  # light that comes from everywhere, as a share of what comes from one side


@dataclass(frozen=True)
class DamagedParts:
    """Parts with the truth about them.

    Attributes:
        images: ``(B, 3, H, W)`` in the range of those given.
        points: ``(B, 3, H, W)``, NaN where not measured.
        masks: ``(B, H, W)`` bool, what counts as damaged; empty where the part has no room for it.
        kinds: a name of ``CLOUD_KINDS`` of each part.
    """

    images: Tensor
    points: Tensor
    masks: Tensor
    kinds: list[str]


@dataclass(frozen=True)
class _Place:
    """Where a damage lies, in its own directions, and how large it is; lengths in pixels."""

    along: Tensor  # (B, H, W) from its middle
    across: Tensor  # (B, H, W)
    radius: Tensor  # (B,)
    depth: Tensor  # (B, H, W) of the surface along the line of sight, in units of a pixel
    draws: Draws

    @property
    def distance(self) -> Tensor:
        """From the middle, in radii: ``(B, H, W)``."""
        return torch.hypot(self.along, self.across) / column(self.radius)

    def signed(self, low: float, high: float) -> Tensor:
        """A drawn share of the radius, towards the viewer or away: ``(B, 1, 1)``."""
        size = self.draws.uniform("depth", low, high)
        return column(torch.where(self.draws.chance("way", 0.5), size, -size) * self.radius)


def _dent(place: _Place) -> Tensor:
    bowl = (1 - place.distance.square()).clamp(min=0).square()
    return place.signed(0.2, 0.6) * bowl


def _hole(place: _Place) -> Tensor:
    deep = column(place.draws.uniform("depth", 0.8, 2.0) * place.radius)
    return deep * ((1 - place.distance) * 4).clamp(0, 1)


def _scratch(place: _Place) -> Tensor:
    thick = column(place.radius * place.draws.uniform("thick", 0.1, 0.3)).clamp(min=1)
    profile = (1 - (place.across / thick).abs()).clamp(min=0)
    ends = ((1 - place.along.abs() / column(place.radius)) * 4).clamp(0, 1)
    return column(place.draws.uniform("depth", 0.5, 1.5)) * thick * profile * ends


def _uneven(place: _Place) -> Tensor:
    """Worn flat: the surface is what it is on average around."""
    smooth = gaussian_smooth(place.depth, float(place.radius.mean()) / 2)
    return (smooth - place.depth) * ((1 - place.distance) * 3).clamp(0, 1)


def _bent(place: _Place) -> Tensor:
    beyond = (place.along / column(place.radius)).clamp(min=0, max=3)
    return place.signed(0.08, 0.25) * beyond.square()


CLOUD_KINDS: dict[str, Callable[[_Place], Tensor]] = {
    "dent": _dent,
    "hole": _hole,
    "scratch": _scratch,
    "uneven surface": _uneven,
    "bent": _bent,
}
"""Damage that is drawn, by names of ``DEFECT_KINDS``; a dent may also be a bump."""


@torch.no_grad()
def damage_parts(images: Tensor, points: Tensor, draws: Draws) -> DamagedParts:
    """Damage every part; what is drawn on one does not depend on the others of its batch.

    Args:
        images: ``(B, 3, H, W)`` pictures in [0, 1].
        points: ``(B, 3, H, W)`` of the part alone, without its ground, in any unit; NaN where not
            measured. z leads away from whoever looks.
        draws: of as many parts, on their device.
    """
    kinds = draws.weighted("kind", dict.fromkeys(CLOUD_KINDS, 1.0))
    rows = [
        _damaged(images[row], points[row], draws.rows(torch.tensor([row])), kinds[row])
        for row in range(len(images))
    ]
    changed, moved, masks = (torch.stack(each) for each in zip(*rows, strict=True))
    return DamagedParts(changed, moved, masks, kinds)


def _damaged(image: Tensor, points: Tensor, draws: Draws, kind: str) -> tuple[Tensor, ...]:
    on = points.isfinite().all(0)
    nothing = torch.zeros_like(on)
    inner = F.avg_pool2d(on[None].float(), 5, 1, 2)[0] > 0.7
    if not inner.any():
        return image, points, nothing
    pixel = _pixel_size(points, on)
    depth = filled(points[2] / pixel, on)[None]
    place = _placed(inner, on, depth, draws)
    step = CLOUD_KINDS[kind](place)[0] * on
    changed = step.abs() > max(_SEEN * float(step.abs().max()), 0.05)
    before, after = (_shade(each, draws) for each in (depth[0], depth[0] + step))
    ratio = ((after + _AMBIENT) / (before + _AMBIENT)).clamp(0, 2)
    if kind == "hole":  # no light reaches its ground
        ratio = ratio * (1 - 0.7 * (step / step.max().clamp(min=1e-6)))
    shaded = torch.where(changed & on, (image * ratio).clamp(0, 1), image)
    moved = points.clone()
    moved[2] = points[2] + step * pixel
    return shaded, moved, changed & on


def _pixel_size(points: Tensor, on: Tensor) -> Tensor:
    """Median distance of neighbours in a row and in a column, across the line of sight."""
    steps = [(points[:2].diff(dim=d)).norm(dim=0) for d in (1, 2)]
    both = torch.cat([s[s.isfinite()] for s in steps])
    span = points[:2, on].amax(1) - points[:2, on].amin(1)
    spread = span.norm() / math.sqrt(max(1, int(on.sum())))
    return (both.median() if len(both) else spread).clamp(min=1e-12)


def filled(values: Tensor, on: Tensor) -> Tensor:
    """``(H, W)`` with what is not ``on`` replaced by averages of what is around, wider and wider.

    Args:
        values: any where not ``on``.
        on: ``(H, W)`` bool, with one pixel at least.
    """
    known = torch.where(on, values, 0.0)[None, None]
    weight = on[None, None].to(values.dtype)
    levels = [(known, weight)]
    while min(levels[-1][0].shape[-2:]) > 1:
        levels.append(
            tuple(F.avg_pool2d(each, 2, ceil_mode=True) for each in levels[-1])  # type: ignore[arg-type]
        )
    total, share = known.sum() / weight.sum(), torch.zeros_like(known)
    result = torch.full_like(levels[-1][0], float(total))
    for known, share in reversed(levels):
        coarse = F.interpolate(result, known.shape[-2:], mode="bilinear")
        mean = known / share.clamp(min=1e-6)
        result = torch.where(share > 0, mean, coarse)
    return result[0, 0]


def _placed(inner: Tensor, on: Tensor, depth: Tensor, draws: Draws) -> _Place:
    spots = inner.nonzero()
    y, x = spots[int(float(draws.uniform("spot")) * len(spots))].tolist()
    height, width = on.shape
    across, along = torch.meshgrid(
        torch.arange(height, device=on.device) - y,
        torch.arange(width, device=on.device) - x,
        indexing="ij",
    )
    angle = column(draws.uniform("angle", 0, 2 * math.pi))
    u, v = turned(along[None].float(), across[None].float(), angle)
    side = math.sqrt(float(on.sum()))
    radius = (draws.log_uniform("size", *_SIZES) * side).clamp(min=1.5)
    return _Place(u, v * column(draws.uniform("stretch", 1.0, 1.8)), radius, depth, draws)


def _shade(depth: Tensor, draws: Draws) -> Tensor:
    """Lambert's cosine of a surface ``(H, W)``, depth and sides in pixels."""
    smooth = F.pad(depth[None, None], (1, 1, 1, 1), mode="replicate")[0, 0]
    slope_x = (smooth[1:-1, 2:] - smooth[1:-1, :-2]) / 2
    slope_y = (smooth[2:, 1:-1] - smooth[:-2, 1:-1]) / 2
    normal = torch.stack([slope_x, slope_y, -torch.ones_like(slope_x)])
    normal = normal / normal.norm(dim=0)
    turn, tilt = draws.uniform("light", 0, 2 * math.pi), draws.uniform("tilt", 0.2, 0.9)
    light = torch.stack([tilt.sin() * turn.cos(), tilt.sin() * turn.sin(), -tilt.cos()])
    return (normal * light[:, :, None]).sum(0).clamp(min=0)

"""Damage drawn on picture and points alike."""

import numpy as np
import pytest
import torch

from zerodefect.procedural.draws import Draws
from zerodefect.procedural.kinds import DEFECT_KINDS
from zerodefect.procedural.on_clouds import CLOUD_KINDS, damage_parts

SIDE = 64


def parts(count: int, unit: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Grey ridged discs in front of nothing."""
    y, x = torch.meshgrid(*[torch.arange(float(SIDE))] * 2, indexing="ij")
    points = torch.stack([x, y, 300 + 2 * (x / 5).sin()]) * unit
    points[:, (x - 32) ** 2 + (y - 32) ** 2 > 26**2] = torch.nan
    images = torch.full((3, SIDE, SIDE), 0.5)
    return images.expand(count, -1, -1, -1).clone(), points.expand(count, -1, -1, -1).clone()


def draws(numbers) -> Draws:
    return Draws(5, np.asarray(numbers, np.uint64), torch.device("cpu"))


def test_every_kind_is_seen_in_both_and_marked():
    images, points = parts(60)
    made = damage_parts(images, points, draws(range(60)))
    assert set(made.kinds) == set(CLOUD_KINDS) <= set(DEFECT_KINDS)
    assert made.images.min() >= 0 and made.images.max() <= 1
    there = points.isfinite().all(1)
    assert torch.equal(made.points.isfinite().all(1), there)
    assert torch.equal(made.points[:, :2].nan_to_num(), points[:, :2].nan_to_num())
    moved = (made.points[:, 2] - points[:, 2]).nan_to_num().abs()
    seen = (made.images - images).abs().amax(1)
    for row, mask in enumerate(made.masks):
        assert mask.any() and not (mask & ~there[row]).any(), made.kinds[row]
        assert (moved[row][mask] > 0).all(), made.kinds[row]
        assert moved[row][~mask].max() <= max(0.11 * moved[row].max(), 0.05)
        assert not seen[row][~mask].any()
    assert (seen.amax((1, 2)) > 0.01).float().mean() > 0.9


def test_holes_lead_away_and_darken():
    images, points = parts(60)
    made = damage_parts(images, points, draws(range(60)))
    for row in [r for r, kind in enumerate(made.kinds) if kind == "hole"]:
        step = made.points[row, 2] - points[row, 2]
        deepest = int(step.nan_to_num().argmax())
        assert step.nan_to_num().min() >= 0 and step.flatten()[deepest] > 1
        assert made.images[row].flatten(1)[:, deepest].max() < 0.4


def test_a_part_is_damaged_alone_and_the_same_again():
    images, points = parts(6)
    whole = damage_parts(images, points, draws(range(6)))
    for row in range(6):
        alone = damage_parts(images[:1], points[:1], draws([row]))
        assert alone.kinds == whole.kinds[row : row + 1]
        assert torch.equal(alone.masks[0], whole.masks[row])
        torch.testing.assert_close(alone.points[0], whole.points[row], equal_nan=True)


@pytest.mark.parametrize("unit", [1e-3, 40.0])
def test_the_unit_does_not_matter(unit):
    made = damage_parts(*parts(12), draws(range(12)))
    scaled = damage_parts(*parts(12, unit), draws(range(12)))
    assert (made.masks == scaled.masks).float().mean() > 0.999
    torch.testing.assert_close(
        scaled.points / unit, made.points, atol=1e-2, rtol=1e-4, equal_nan=True
    )


def test_where_there_is_no_part_nothing_happens():
    images, points = parts(2)
    points[1] = torch.nan
    made = damage_parts(images, points, draws([0, 1]))
    assert made.masks[0].any() and not made.masks[1].any()
    assert torch.equal(made.images[1], images[1]) and made.points[1].isnan().all()

"""Views of a picture become one score and map, in whatever order they come."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
import torch
from models import picture

from zerodefect.images import Picture
from zerodefect.images.tiling import Tiling
from zerodefect.scoring.joining import Joint, resize_map, sized_map
from zerodefect.scoring.viewing import Viewing
from zerodefect.types import Prediction

SCENE = Picture("a", picture(0, 70, 90))


def predictions(count: int, kinds: int | None = 3, map: bool = True) -> list[Prediction]:
    draws = torch.Generator().manual_seed(count)
    made = []
    for number in range(count):
        types = torch.rand(1, kinds, 8, 8, generator=draws).softmax(1) if kinds else None
        values = torch.rand(1, 16, 16, generator=draws) if map else None
        score = torch.rand(1, generator=draws)
        made.append(Prediction(score, values, types, (f"{number}",)))
    return made


def joined(order, made, viewing, area=None, size=None):
    joint = Joint(SCENE, viewing, area, -1.0, size)
    for view in order:
        joint.add(view, made[view], 0)
    return joint.scored()


@pytest.mark.parametrize("size", [None, (30, 40)])
@pytest.mark.parametrize("masked", [False, True])
def test_the_order_of_views_does_not_matter(size, masked):
    viewing = Viewing(Tiling(40))
    views = 1 + len(viewing.tiles(SCENE))
    made = predictions(views)
    area = None
    if masked:
        area = np.zeros((70, 90), bool)
        area[10:50, 20:80] = True
    first = joined(range(views), made, viewing, area, size)
    assert views > 4
    for seed in range(5):
        order = random.Random(seed).sample(range(views), views)
        other = joined(order, made, viewing, area, size)
        assert other.score == first.score == max(float(p.score) for p in made)
        assert other.answer == first.answer == "0"  # of the whole picture
        np.testing.assert_allclose(other.map, first.map, atol=1e-6)
        np.testing.assert_allclose(other.type_map, first.type_map, atol=1e-6)
        assert other.highest == pytest.approx(first.highest, abs=1e-6)
    assert first.map.shape == (size or (70, 90))
    np.testing.assert_allclose(first.type_map.sum(0), 1, atol=1e-5)
    if masked:
        assert first.map.min() == -1.0 and first.highest > -1.0
        assert first.highest == first.map.max()


def test_the_map_is_the_mean_of_the_global_view_and_the_tiles():
    viewing = Viewing(Tiling(40))
    views = 1 + len(viewing.tiles(SCENE))
    made = [
        Prediction(torch.zeros(1), torch.full((1, 16, 16), 0.8 if view == 0 else 0.2))
        for view in range(views)
    ]
    for order in (range(views), reversed(range(views))):
        np.testing.assert_allclose(joined(order, made, viewing).map, 0.5, atol=1e-6)


def test_rows_of_a_batch_are_told_apart():
    made = predictions(2)
    batch = Prediction(
        *(torch.cat([getattr(p, part) for p in made]) for part in ("score", "map", "type_map")),
        ("0", "1"),
    )
    for row in (0, 1):
        joint = Joint(SCENE, Viewing(), None, 0.0, None)
        joint.add(0, batch, row)
        found, expected = joint.scored(), joined([0], [made[row]], Viewing())
        assert (found.score, found.answer) == (expected.score, str(row))
        np.testing.assert_array_equal(found.map, expected.map)
        np.testing.assert_array_equal(found.type_map, made[row].type_map[0].numpy())


@pytest.mark.parametrize("tiling", [None, Tiling(40)])
def test_a_method_without_a_map_has_none(tiling):
    viewing = Viewing(tiling)
    views = 1 + len(viewing.tiles(SCENE))
    for order in itertools.islice(itertools.permutations(range(views)), 3):
        found = joined(order, predictions(views, None, map=False), viewing)
        assert found.map is None and found.highest is None and found.type_map is None


def test_resizing_keeps_the_range_and_the_centres():
    map = torch.rand(16, 16)
    large = resize_map(map, (33, 47))
    assert large.dtype == np.float32 and large.shape == (33, 47)
    assert map.min() <= large.min() and large.max() <= map.max()
    np.testing.assert_array_equal(resize_map(map, (16, 16)), map.numpy())


def test_outside_of_the_area_lies_the_lowest_value_also_of_a_scale_without_end():
    map, area = np.arange(16, dtype=np.float32).reshape(4, 4) - 5, np.eye(4, dtype=bool)
    ended, endless = (sized_map(map, (4, 4), area, low) for low in (-9.0, -np.inf))
    for found, outside in ((ended, -9.0), (endless, -5.0)):
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, np.where(area, map, outside))

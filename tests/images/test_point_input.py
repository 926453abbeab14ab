"""From a cloud to a detector's input."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from zerodefect.images import Picture
from zerodefect.images.clouds import open_cloud
from zerodefect.images.point_input import PartCloud, PointsPreprocess, part_alone, raised
from zerodefect.images.preprocess import Preprocess
from zerodefect.images.tiling import Tile


def box_on_a_table(side: int = 60) -> np.ndarray:
    """A box of 20 x 24 pixels, 6 units high, on a plane at z = 100 that leans a little."""
    y, x = np.mgrid[:side, :side].astype(np.float32)
    points = np.stack([x - side / 2, y - side / 2, 100 + 0.02 * x], -1)
    points[20:40, 16:40, 2] -= 6
    points[25, 25] = 0  # not measured
    return points


def part(points: np.ndarray) -> Picture:
    pixels = np.zeros((*points.shape[:2], 3), np.uint8)
    return Picture("part", pixels, cloud=open_cloud(points))


def test_the_table_is_taken_away_and_what_is_not_measured_is_nan():
    given = PointsPreprocess((60, 60))(part(box_on_a_table()))
    assert given.shape == (3, 60, 60) and given.dtype == torch.float32
    there = given.isfinite()
    assert (there.all(0) == there.any(0)).all()
    expected = torch.zeros(60, 60, dtype=torch.bool)
    expected[20:40, 16:40] = True
    expected[25, 25] = False
    assert torch.equal(there.all(0), expected)
    assert given[2, 30, 30].item() == pytest.approx(94.6)


def test_a_part_without_ground_keeps_all_points():
    y, x = np.mgrid[:40, :40].astype(np.float32)
    dome = np.stack([x, y, 200 - 10 * np.sin(x / 5) * np.cos(y / 4)], -1)
    assert PointsPreprocess((40, 40))(part(dome)).isfinite().all()


def test_large_grids_are_thinned_out_and_small_ones_stay():
    picture = part(box_on_a_table())
    whole = PointsPreprocess((60, 60))(picture)
    thin = PointsPreprocess((20, 30))(picture)
    assert thin.shape == (3, 20, 30)
    torch.testing.assert_close(thin, whole[:, 1::3, 1::2], equal_nan=True)
    assert PointsPreprocess((224, 224))(picture).shape == (3, 60, 60)


def test_left_overs_of_the_ground_are_no_part():
    points = box_on_a_table()
    points[5, 50, 2] -= 30  # one wild point above the table
    assert not part_alone(open_cloud(points)).valid[5, 50]


def test_a_part_is_looked_for_once():
    alone = part_alone(open_cloud(box_on_a_table()))
    assert isinstance(alone, PartCloud) and part_alone(alone) is alone
    picture = replace(part(box_on_a_table()), cloud=alone)
    tile = Tile(20, 16, 20, 24, 0, 0).cut(picture)  # all of it is the flat top of the box
    assert tile.cloud.valid.sum() == 20 * 24 - 1
    assert PointsPreprocess((60, 60))(tile).isfinite().all(0).sum() == 20 * 24 - 1


def test_what_a_picture_lacks():
    both, points = part(box_on_a_table()), PointsPreprocess((8, 8))
    plain, bare = replace(both, cloud=None), replace(both, colourless=True)
    colours = Preprocess((8, 8))
    assert [points.lacks(one) for one in (both, plain, bare)] == [False, True, False]
    assert [colours.lacks(one) for one in (both, plain, bare)] == [False, False, True]
    with pytest.raises(ValueError, match="part has no point cloud"):
        points(plain)


def test_brightness_raises_a_picture():
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[2, 3] = 64
    cloud = raised(Picture("check", pixels)).cloud
    assert cloud.valid.all() and cloud.points[2, 3].tolist() == [3, 2, 998]
    assert cloud.points[0, 0].tolist() == [0, 0, 1000]

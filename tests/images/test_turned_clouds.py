"""Clouds from the side: who hides whom, and where each pixel's value belongs."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_clouds import box_on_table, tilted

from zerodefect.images.cloud_views import seen_as
from zerodefect.images.clouds import open_cloud
from zerodefect.images.turned_clouds import turned


def test_unturned_every_point_is_seen_at_its_place():
    cloud = open_cloud(tilted(24, 24, (0, 0)))
    view = turned(cloud, 0, 0, side=96)
    assert set(view.cells[view.cells >= 0]) == set(range(24 * 24))
    rows, columns = np.nonzero(view.cells >= 0)
    order = view.cells[rows, columns]
    assert (np.diff(columns[np.argsort(order)].reshape(24, 24), axis=1) > 0).all()
    assert (np.diff(rows[np.argsort(order)].reshape(24, 24), axis=0) > 0).all()
    np.testing.assert_array_equal(view.pixels[50, 50], seen_as(cloud, "normals")[12, 12])


@given(st.floats(-90, 90), st.floats(-90, 90))
def test_values_come_back_to_the_cells_that_were_seen(yaw, pitch):
    points, _ = box_on_table()
    points[:5, :5] = 0
    cloud = open_cloud(points)
    view = turned(cloud, yaw, pitch)
    seen = np.unique(view.cells[view.cells >= 0])
    assert cloud.valid.ravel()[seen].all()
    back = view.back(view.cells.astype(np.float32))
    assert back.shape == cloud.valid.shape
    np.testing.assert_array_equal(np.flatnonzero(~np.isnan(back)), seen)
    np.testing.assert_array_equal(back.ravel()[seen], seen)


def test_what_stands_in_front_hides_what_lies_behind():
    near, far = tilted(30, 30, (0, 0), z=1.0), tilted(30, 30, (0, 0), z=1.02)
    both = np.concatenate([far, near], 0)  # one grid of two walls, the far one first
    cloud = open_cloud(both)
    view = turned(cloud, 0, 0, side=40)
    seen = view.cells[view.cells >= 0]
    assert len(seen) > 100
    assert (seen >= 900).all()
    aside = turned(cloud, 45, 0, side=200).cells
    assert ((aside >= 0) & (aside < 900)).any()  # from the side the far one looks out


def test_turning_turns_the_normals():
    cloud = open_cloud(tilted(40, 40, (0, 0)))
    red = turned(cloud, 45, 0).pixels[20, 20].astype(int)
    assert abs(red[0] - 32768) > 20000  # towards the side
    assert red[2] == pytest.approx(32768 * (1 + np.cos(np.pi / 4)), abs=300)


@pytest.mark.parametrize("wrong", [(91, 0, 9), (0, -100, 9), (float("nan"), 0, 9), (0, 0, 1)])
def test_what_cannot_be_is_refused(wrong):
    with pytest.raises(ValueError, match=r"must lie|at least 2"):
        turned(open_cloud(tilted()), *wrong)
    with pytest.raises(ValueError, match="the view"):
        turned(open_cloud(tilted()), 0, 0).back(np.zeros((2, 2)))

"""Clouds that were enlarged or rounded before they came here are told of."""

import numpy as np
import pytest
from small_clouds import box_on_table, ply, tilted

from zerodefect.images.clouds import open_cloud


def wavy(height=40, width=60, pitch=1.0):
    """A surface of points 1 apart, whose x, y and z are no whole numbers."""
    rows, columns = np.mgrid[:height, :width] * pitch
    turn = 0.3
    x = 10.123 + columns * np.cos(turn) - rows * np.sin(turn)
    y = 20.456 + columns * np.sin(turn) + rows * np.cos(turn)
    return np.stack([x, y, 300 + 5 * np.sin(columns / 9) + 3 * np.cos(rows / 7)], -1)


def told(points, word):
    return [note for note in open_cloud(points).notes if word in note]


@pytest.mark.parametrize("times", [2, 3, 7])
def test_an_enlarged_cloud_is_told_of(times):
    (note,) = told(np.repeat(np.repeat(wavy(), times, 0), times, 1), "repeat their neighbour")
    share = 1 - 1 / times  # of neighbours in a row or column, but for the ends
    assert abs(int(note.split("%")[0]) / 100 - share) < 0.02
    assert "copies count once" in note and "export the cloud as the camera gives it" in note


@pytest.mark.parametrize("unit", [1.0, 1e-3])
def test_heights_in_steps_wider_than_the_points_lie_apart_are_told_of(unit):
    fine = wavy(pitch=0.4)
    coarse = fine.copy()
    coarse[..., 2] = coarse[..., 2].round()
    (note,) = told(coarse * unit, "heights are rounded")
    assert f"steps of {unit:g} where points lie {0.4 * unit:g} apart" in note
    assert not told(fine * unit, "rounded")
    tenths = fine.copy()
    tenths[..., 2] = tenths[..., 2].round(1)
    assert not told(tenths * unit, "rounded")  # a quarter of the distance of points


def test_whole_numbers_in_all_directions_are_told_of_twice():
    notes = open_cloud(wavy(pitch=0.3).round()).notes
    assert len(notes) == 2 and "repeat their neighbour" in notes[0] and "heights" in notes[1]


def test_a_list_is_looked_at_on_its_grid():
    points = wavy(80, 80, 0.4)
    points[..., 2] = points[..., 2].round()
    cloud = open_cloud(ply(points.reshape(-1, 3).astype(np.float32)))
    assert any("heights are rounded to steps of 1 " in note for note in cloud.notes)


@pytest.mark.parametrize(
    "points", [tilted(), box_on_table()[0], wavy(), wavy(1, 50), wavy(2, 2), tilted(24, 32, (0, 0))]
)
def test_clouds_as_a_camera_gives_them_are_left_alone(points):
    assert open_cloud(points).notes == ()

"""Normals, holes, and the plane beneath: against surfaces whose answer is known."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_clouds import box_on_table, tilted

from zerodefect.images.cloud_geometry import (
    background_plane,
    filled,
    surface_of,
    usual_tolerance,
    without_plane,
)
from zerodefect.images.clouds import open_cloud
from zerodefect.images.point_input import part_alone


@given(st.floats(-1, 1), st.floats(-1, 1), st.integers(1, 3))
def test_the_normals_of_a_plane_are_its_own(a, b, radius):
    cloud = open_cloud(tilted(14, 17, (a, b)).astype(np.float64))
    surface = surface_of(cloud, radius)
    expected = np.array([a, b, -1]) / np.linalg.norm([a, b, 1])
    assert surface.known.all()
    np.testing.assert_allclose(surface.normals, np.broadcast_to(expected, (14, 17, 3)), atol=2e-3)
    assert surface.variation.max() < 1e-6


def test_normals_of_a_sphere_point_away_from_its_middle():
    rows, columns = np.mgrid[-30:31, -30:31].astype(float)
    inside = rows**2 + columns**2 < 25**2
    depth = 100 - np.sqrt(np.maximum(40**2 - rows**2 - columns**2, 0))
    points = np.where(inside[..., None], np.stack([columns, rows, depth], -1), 0)
    surface = surface_of(open_cloud(points))
    own = (points - (0, 0, 100)) / 40
    inner = rows**2 + columns**2 < 20**2
    angle = np.degrees(np.arccos(np.clip((surface.normals * own).sum(-1), -1, 1)))
    assert angle[inner].max() < 0.5
    assert (surface.normals[..., 2] <= 0).all()


def test_missing_points_change_no_normal_of_a_plane_and_lone_points_have_none():
    points = tilted(20, 20)
    points[5:9, 5:15] = 0
    points[12:19, 2:9] = np.nan
    points[15, 5] = tilted(20, 20)[15, 5]
    surface = surface_of(open_cloud(points))
    assert not surface.known[15, 5]
    assert (surface.normals[~surface.known] == 0).all()
    expected = np.array([0.2, -0.1, -1]) / np.linalg.norm([0.2, -0.1, 1])
    known = surface.normals[surface.known]
    np.testing.assert_allclose(known, np.broadcast_to(expected, known.shape), atol=2e-3)


def test_an_edge_varies_and_a_line_has_no_plane():
    points, _ = box_on_table()
    surface = surface_of(open_cloud(points))
    assert surface.variation[20, 30] > 0.01
    assert surface.variation[5, 5] < 1e-6
    line = np.zeros((9, 9, 3), np.float32)
    line[4] = tilted(9, 9)[4]
    assert not surface_of(open_cloud(line)).known.any()
    with pytest.raises(ValueError, match="at least 1"):
        surface_of(open_cloud(points), 0)


def test_holes_take_the_nearest_valid_pixel():
    values = np.arange(12.0).reshape(3, 4)
    valid = np.ones((3, 4), bool)
    valid[0, 1:] = False
    found = filled(values, valid)
    assert found[0, 1] in (0, 5)  # both lie next to it
    np.testing.assert_array_equal(found[0, 2:], [6, 7])
    np.testing.assert_array_equal(found[valid], values[valid])
    assert filled(values, np.ones((3, 4), bool)) is values
    with pytest.raises(ValueError, match="no pixel"):
        filled(values, np.zeros((3, 4), bool))


def test_the_table_is_found_and_taken_away_and_the_box_stays():
    points, inside = box_on_table()
    noise = np.random.default_rng(3).normal(0, 1e-5, inside.shape)
    points[..., 2] += noise
    points[:3, :30] = 0
    cloud = open_cloud(points)
    plane = background_plane(cloud)
    expected = np.array([0.2, -0.1, -1]) / np.linalg.norm([0.2, -0.1, 1])
    np.testing.assert_allclose(plane.normal, expected, atol=1e-3)
    assert plane == background_plane(cloud)
    left = without_plane(cloud, plane)
    np.testing.assert_array_equal(left.valid, inside)
    np.testing.assert_array_equal(left.cells >= 0, inside.ravel())
    high = plane.distances(points[30, 40])
    assert high == pytest.approx(0.01 * -expected[2], rel=0.01)


def test_a_rough_surround_has_no_plane_and_a_flat_part_is_kept():
    points = tilted(40, 40)
    points[..., 2] += np.random.default_rng(0).uniform(0, 0.05, (40, 40))
    assert background_plane(open_cloud(points)) is None
    flat = open_cloud(tilted(40, 40))
    plane = background_plane(flat)
    assert without_plane(flat, plane) is flat  # nothing else is there


def test_without_measured_points_at_the_edge_there_is_no_plane():
    points = np.zeros((40, 40, 3), np.float32)
    points[10:30, 10:30] = tilted(40, 40)[10:30, 10:30]
    cloud = open_cloud(points)
    assert background_plane(cloud) is None
    assert usual_tolerance(cloud) == pytest.approx(
        0.005 * np.linalg.norm(np.ptp(cloud.measured, axis=0))
    )


def test_the_table_is_found_although_a_few_points_are_false():
    points, inside = box_on_table()
    points[5, 5:8, 2] += 0.2  # within what a cloud may hold, and far more than the box is high
    cloud = open_cloud(points)
    alone = part_alone(cloud).valid
    assert cloud.valid[5, 5] and np.array_equal(alone, inside)


def test_a_part_whose_z_grows_towards_the_camera_is_found_behind_the_table():
    points, inside = box_on_table()
    points[..., 2] = 2 - points[..., 2]
    assert np.array_equal(part_alone(open_cloud(points)).valid, inside)

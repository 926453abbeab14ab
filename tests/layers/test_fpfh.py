"""Fast point feature histograms on clouds that can be counted by hand."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from zerodefect.layers.fpfh import (
    BINS,
    darboux_angles,
    fpfh,
    neighbours_within,
    spfh,
    surface_normals,
)

MIDDLE = BINS // 2


def plane(side: int = 6) -> torch.Tensor:
    at = torch.arange(float(side))
    return torch.cartesian_prod(at, at, torch.tensor([5.0]))


def sphere(count: int = 400, radius: float = 2.0) -> torch.Tensor:
    """Fibonacci's points on the sphere around (0, 0, 9)."""
    n = torch.arange(count) + 0.5
    polar, turn = torch.arccos(1 - 2 * n / count), math.pi * (1 + 5**0.5) * n
    x, y = polar.sin() * turn.cos(), polar.sin() * turn.sin()
    return radius * torch.stack([x, y, polar.cos()], 1) + torch.tensor([0.0, 0.0, 9.0])


def test_neighbours_are_the_nearest_others_within_the_radius():
    points = torch.tensor([[0.0, 0, 0], [1, 0, 0], [3, 0, 0], [3.5, 0, 0]])
    found = neighbours_within(points, 2.1, 2)
    assert found.tolist() == [[1, -1], [0, 2], [3, 1], [2, -1]]
    assert neighbours_within(points[:1], 2.0, 3).tolist() == [[-1, -1, -1]]
    assert neighbours_within(points[:0], 2.0, 3).shape == (0, 3)


def test_copies_of_a_point_are_neighbours_and_never_oneself():
    found = neighbours_within(torch.zeros(5, 3), 1.0, 3)
    assert found.shape == (5, 3)
    assert all(row not in found[row].tolist() and -1 not in found[row] for row in range(5))


def test_normals_of_a_plane_look_at_the_camera():
    points = plane()
    normals = surface_normals(points, neighbours_within(points, 1.5, 8))
    torch.testing.assert_close(normals, torch.tensor([[0.0, 0.0, -1.0]]).expand(36, 3))
    behind = torch.tensor([0.0, 0.0, 9.0])
    turned = surface_normals(points, neighbours_within(points, 1.5, 8), behind)
    torch.testing.assert_close(turned, -normals)


def test_a_lonely_point_has_the_direction_to_the_camera_as_normal():
    points = torch.tensor([[0.0, 0.0, 2.0], [0.0, 4.0, 0.0]])
    normals = surface_normals(points, neighbours_within(points, 1.0, 4))
    assert normals.tolist() == [[0.0, 0.0, -1.0], [0.0, -1.0, 0.0]]


def test_angles_of_one_pair_by_hand():
    """The line along x; n straight up, m leaning by 30 degrees along the line and sidewards."""
    p, q = torch.tensor([0.0, 0, 0]), torch.tensor([2.0, 0, 0])
    up = torch.tensor([0.0, 0, 1])
    # |n . d| = sin 30 of the second, 0 of the first: the second is the source, the line turns
    m = torch.tensor([0.5, 0.0, math.sqrt(3) / 2])
    alpha, phi, theta = darboux_angles(p, up, q, m)
    assert alpha.item() == pytest.approx(0, abs=1e-6)
    assert phi.item() == pytest.approx(-0.5)
    # u = m, v = d x u = (-1, 0, 0) x m = (0, sqrt 3 / 2, 0) -> y, w = u x v = (-sqrt 3 / 2, 0, 1/2)
    assert theta.item() == pytest.approx(math.atan2(0.5, math.sqrt(3) / 2))
    side = torch.tensor([0.0, 0.6, 0.8])
    alpha, phi, theta = darboux_angles(p, up, q, side)
    # both normals are square to the line: s = p, u = z, v = x x z = -y, w = z x -y = x
    assert alpha.item() == pytest.approx(-0.6)
    assert phi.item() == pytest.approx(0, abs=1e-6)
    assert theta.item() == pytest.approx(0, abs=1e-6)


def test_a_pair_without_a_frame_has_no_angles():
    p, n = torch.zeros(3), torch.tensor([0.0, 0.0, 1.0])
    for q in (p, torch.tensor([0.0, 0.0, 3.0])):
        assert [angle.item() for angle in darboux_angles(p, n, q, n)] == [0, 0, 0]


def test_everything_on_a_plane_lies_in_the_middle_bins():
    points = plane()
    near = neighbours_within(points, 1.5, 8)
    f = fpfh(points, surface_normals(points, near), near)
    expected = torch.zeros(3, BINS)
    expected[:, MIDDLE] = 1
    torch.testing.assert_close(f, expected.flatten().expand(36, -1), atol=1e-5, rtol=0)


def test_a_sphere_is_the_same_everywhere_and_no_plane():
    points = sphere()
    normals = (points - torch.tensor([0.0, 0.0, 9.0])) / 2
    near = neighbours_within(points, 0.7, 20)
    f = fpfh(points, normals, near)
    alpha, phi, theta = f.unflatten(1, (3, BINS)).unbind(1)
    # of two points on a sphere the normals and the line lie in one plane: alpha is 0
    torch.testing.assert_close(alpha[:, MIDDLE], torch.ones(400), atol=1e-4, rtol=0)
    # phi = -chord / (2 radius), about -0.17 at most: between the middle bin and the one below
    assert (phi[:, [MIDDLE - 1, MIDDLE]].sum(1) > 0.999).all() and (phi[:, MIDDLE - 1] > 0.2).all()
    assert (f.std(0) < 0.1).all()
    assert (theta[:, MIDDLE] < 1).all()


def test_histograms_by_hand_and_what_neighbours_add():
    """Three points in a row, the middle one lies between both: FPFH = SPFH + its neighbours'."""
    points = torch.tensor([[0.0, 0, 0], [1, 0, 0], [2, 0, 0]])
    normals = torch.tensor([[0.0, 0, 1], [0, 0.6, 0.8], [0, 0, 1]])
    near = torch.tensor([[1, -1], [0, 2], [1, -1]])
    own = spfh(points, normals, near)
    place = (1 - 0.6) / 2 * BINS - 0.5  # alpha = -0.6 of the first pair, as above
    low = math.floor(place)
    alpha = torch.zeros(BINS)
    alpha[low], alpha[low + 1] = 1 - (place - low), place - low
    torch.testing.assert_close(own[0, :BINS], alpha)
    # ends have one neighbour at distance 1, the mean distance: their sums are halved
    f = fpfh(points, normals, near)
    torch.testing.assert_close(f[0], (own[0] + own[1]) / 2)
    torch.testing.assert_close(f[1], (own[1] + (own[0] + own[2]) / 2) / 2)


def test_without_neighbours_a_histogram_is_empty():
    points = torch.tensor([[0.0, 0.0, 1.0], [9.0, 9.0, 9.0]])
    near = neighbours_within(points, 1.0, 4)
    assert not fpfh(points, surface_normals(points, near), near).any()
    assert fpfh(points[:0], points[:0], near[:0]).shape == (0, 3 * BINS)


@given(
    seed=st.integers(0, 2**31),
    unit=st.sampled_from([1e-3, 1.0, 1000.0]),
    shift=st.lists(st.floats(-5, 5), min_size=3, max_size=3),
)
@settings(max_examples=25, deadline=None)
def test_turning_moving_and_the_unit_change_nothing(seed, unit, shift):
    draws = np.random.default_rng(seed)
    flat = torch.from_numpy(draws.uniform(-1, 1, (60, 2)))
    bumpy = (flat[:, :1] * 3).sin() * (flat[:, 1:] * 2).cos() * 0.3
    points = torch.cat([flat, bumpy + 4], 1)  # double: a rotation rounds
    turn = torch.from_numpy(Rotation.random(random_state=seed % 2**31).as_matrix())
    moved = (points @ turn.T + torch.tensor(shift, dtype=torch.float64)) * unit
    eye = torch.tensor(shift, dtype=torch.float64) * unit  # the camera turns and moves along
    found = []
    for cloud, radius, camera in ((points, 0.6, None), (moved, 0.6 * unit, eye)):
        near = neighbours_within(cloud, radius, 24)
        found.append(fpfh(cloud, surface_normals(cloud, near, camera), near))
    off = (found[0] - found[1]).abs().amax(1)
    # the source of a pair changes where both normals make one angle with the line but for rounding
    assert (off < 1e-6).float().mean() > 0.9

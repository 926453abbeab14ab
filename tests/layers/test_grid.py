"""From patch values to a map, against torch's own interpolation."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from zerodefect.layers.grid import Grid

sides = st.integers(1, 7)


def test_the_order_of_rows_is_kept():
    grid = Grid(2, 3, (4, 6))
    folded = grid.fold(torch.arange(6.0)[None])
    assert folded[0].tolist() == [[0, 1, 2], [3, 4, 5]]
    up = grid.map(torch.arange(6.0)[None])
    assert up.shape == (1, 4, 6)
    assert up[0, 0, 0] == 0
    assert up[0, -1, -1] == 5


@given(sides, sides)
def test_folding_takes_any_leading_axes(rows, columns):
    grid = Grid(rows, columns, (1, 1))
    assert grid.shape == (rows, columns)
    for lead in ((), (2,), (2, 3), (2, 3, 4)):
        values = torch.randn(*lead, rows * columns)
        folded = grid.fold(values)
        assert folded.shape == (*lead, rows, columns)
        assert torch.equal(folded.flatten(-2), values)
        for row in range(rows):
            assert torch.equal(folded[..., row, 0], values[..., row * columns])


@settings(deadline=None)
@given(sides, sides, st.integers(1, 40), st.integers(1, 40), st.booleans())
def test_a_map_is_torchs_bilinear_interpolation(rows, columns, height, width, align):
    grid = Grid(rows, columns, (height, width))
    values = torch.randn(2, 3, rows * columns)
    expected = F.interpolate(
        values.unflatten(-1, (rows, columns)), (height, width), mode="bilinear", align_corners=align
    )
    got = grid.map(values, align_corners=align)
    torch.testing.assert_close(got, expected, atol=1e-6, rtol=0)
    one = grid.map(values[:, 1], align_corners=align)
    torch.testing.assert_close(one, expected[:, 1], atol=1e-6, rtol=0)


def test_corners_are_not_aligned_unless_asked_for():
    grid, values = Grid(2, 2, (5, 5)), torch.tensor([[0.0, 4.0, 8.0, 2.0]])
    aligned = grid.map(values, align_corners=True)[0]
    torch.testing.assert_close(aligned[::4, ::4], grid.fold(values)[0])
    assert not torch.allclose(grid.map(values)[0], aligned)


@pytest.mark.parametrize("align", [False, True])
@pytest.mark.parametrize("resolution", [(2, 3), (5, 4), (9, 11)])
def test_maps_of_any_resolution_come_to_the_inputs_size(resolution, align):
    grid, maps = Grid(2, 3, (8, 12)), torch.rand(2, 4, *resolution)
    got = grid.upsample(maps, align_corners=align)
    expected = F.interpolate(maps, (8, 12), mode="bilinear", align_corners=align)
    torch.testing.assert_close(got, expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(grid.upsample(maps[:, 0], align_corners=align), got[:, 0])


def test_maps_are_float32_whatever_the_features_were():
    grid = Grid(2, 3, (8, 12))
    assert grid.map(torch.rand(1, 6).bfloat16()).dtype == torch.float32

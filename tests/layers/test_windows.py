"""Windows over a grid against lists of their patches."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zerodefect.layers.windows import (
    count_windows,
    covering_windows,
    harmonic_windows,
    mean_of_windows,
    spread,
    window_patches,
)

grids = st.tuples(st.integers(1, 7), st.integers(1, 7))


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@given(grids, st.integers(1, 4))
def test_windows_are_all_squares_row_by_row(grid, side):
    if side > min(grid):
        with pytest.raises(ValueError, match=r"no .* window fits"):
            count_windows(grid, side)
        return
    expected = [
        [(top + i) * grid[1] + left + j for i in range(side) for j in range(side)]
        for top in range(grid[0] - side + 1)
        for left in range(grid[1] - side + 1)
    ]
    assert window_patches(grid, side).tolist() == expected


@settings(deadline=None)
@given(grids, st.integers(1, 4), st.integers(0, 99))
def test_harmonic_windows_is_the_mean_over_covering_windows(grid, side, seed):
    if side > min(grid):
        return
    windows = window_patches(grid, side)
    scores = torch.rand(2, len(windows), generator=seeded(seed)) + 0.01
    got = harmonic_windows(scores, grid, side)
    for patch in range(grid[0] * grid[1]):
        covering = [w for w, patches in enumerate(windows.tolist()) if patch in patches]
        expected = len(covering) / (1 / scores[:, covering]).sum(1)
        row, column = divmod(patch, grid[1])
        torch.testing.assert_close(got[:, row, column], expected, rtol=1e-5, atol=1e-6)


def test_a_zero_score_pulls_its_patches_to_zero():
    scores = torch.tensor([[0.0, 1.0]])  # two 2x2 windows in a 2x3 grid
    got = harmonic_windows(scores, (2, 3), 2)
    assert got[0].tolist() == [[0.0, 0.0, 1.0], [0.0, 0.0, 1.0]]


def test_spread_carries_channels():
    values = torch.rand(2, 3, 4)
    got = spread(values, (3, 3), 2)
    assert got.shape == (2, 3, 3, 3)
    torch.testing.assert_close(got[:, 1], spread(values[:, 1], (3, 3), 2))
    torch.testing.assert_close(got[..., 1, 1], values.sum(-1))


def test_the_papers_windows():
    places = covering_windows((37, 37), (27, 27), (10, 10))
    assert [(r.start, r.stop, c.start, c.stop) for r, c in places] == [
        (0, 27, 0, 27), (0, 27, 10, 37), (10, 37, 0, 27), (10, 37, 10, 37)
    ]  # fmt: skip


@given(grids, st.tuples(st.integers(1, 7), st.integers(1, 7)), st.integers(1, 7))
def test_every_patch_is_covered_or_the_windows_are_refused(grid, side, step):
    if side[0] > grid[0] or side[1] > grid[1] or step > min(side):
        with pytest.raises(ValueError, match="do not cover"):
            covering_windows(grid, side, (step, step))
        return
    places = covering_windows(grid, side, (step, step))
    assert all((r.stop - r.start, c.stop - c.start) == side for r, c in places)
    covered = {(y, x) for r, c in places for y in range(*r.indices(99)) for x in range(99)[c]}
    assert covered == {(y, x) for y in range(grid[0]) for x in range(grid[1])}
    starts = sorted({r.start for r, _ in places})
    assert starts[:-1] == list(range(0, starts[-1], step))


def test_mean_of_windows_by_hand():
    places = covering_windows((1, 5), (1, 3), (1, 2))  # columns 0..2 and 2..4
    maps = [torch.tensor([[[1.0, 2.0, 3.0]]]), torch.tensor([[[5.0, 6.0, 7.0]]])]
    got = mean_of_windows(maps, places, (1, 5))
    assert got.tolist() == [[[1.0, 2.0, 4.0, 6.0, 7.0]]]

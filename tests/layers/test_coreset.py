"""Coresets against a loop over all pairs."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zerodefect.layers import coreset
from zerodefect.layers.coreset import farthest_points, thinned


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def by_pairs(points: list[list[float]], count: int, start: int) -> list[int]:
    """Greedy k-centre as it is written down; ties go to the lowest row."""
    chosen = [start]
    while len(chosen) < count:
        best, farthest = -1, -1.0
        for row, point in enumerate(points):
            if row in chosen:
                continue
            pairs = (zip(point, points[other], strict=True) for other in chosen)
            nearest = min(sum((a - b) ** 2 for a, b in pair) for pair in pairs)
            if nearest > farthest:
                best, farthest = row, nearest
        chosen.append(best)
    return chosen


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 25), st.integers(1, 4), st.integers(0, 999), st.data())
def test_the_same_rows_in_the_same_order(rows, width, seed, data):
    """On a lattice all distances are exact, and many are equal."""
    points = torch.randint(0, 4, (rows, width), generator=seeded(seed)).float()
    count = data.draw(st.integers(1, rows))
    start = data.draw(st.integers(0, rows - 1))
    got = farthest_points(points, count, start)
    assert got.dtype == torch.long
    assert got.tolist() == by_pairs(points.tolist(), count, start)


def test_the_same_rows_in_the_same_order_of_many_real_numbers():
    points = torch.randn(120, 16, generator=seeded(0), dtype=torch.float64)
    assert farthest_points(points, 60).tolist() == by_pairs(points.tolist(), 60, 0)


def test_equal_rows_are_chosen_once_each():
    assert farthest_points(torch.ones(4, 3), 3).tolist() == [0, 1, 2]
    assert farthest_points(torch.ones(4, 3), 4, start=2).tolist() == [2, 0, 1, 3]
    assert farthest_points(torch.ones(4, 3), 0).tolist() == []


def test_what_counts_as_chosen_already_is_kept_away_from():
    points = torch.tensor([[0.0], [1.0], [2.0], [10.0]])
    reached = (points[:, 0] - 9).abs()  # one stands at 9
    assert farthest_points(points, 2, reached=reached).tolist() == [0, 2]


# --- large sets, block by block --------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 60), st.integers(1, 17), st.data())
def test_as_many_rows_as_asked_for_ascending_and_from_every_block(rows, block, data):
    keep = data.draw(st.integers(1, rows))
    features = torch.randn(rows, 5, generator=seeded(rows))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(coreset, "_BLOCK", block)
        kept = thinned(features, keep)
    assert kept.shape == (keep,)
    assert (kept.diff() > 0).all()
    assert kept[0] >= 0 and kept[-1] < rows
    for first in range(0, rows, block):
        inside = min(block, rows - first)
        own = int(((kept >= first) & (kept < first + inside)).sum())
        assert abs(own - keep * inside / rows) < 1


def test_one_block_is_thinned_by_its_farthest_points():
    features = torch.randn(200, 8, generator=seeded(1))
    assert torch.equal(thinned(features, 30), farthest_points(features, 30).sort().values)
    assert torch.equal(thinned(features, 200), torch.arange(200))


def test_what_is_kept_stands_for_all():
    """Of clear groups each gives one row, also where distances are taken in a projection."""
    centres = 10 * torch.randn(20, 300, generator=seeded(2))
    features = centres.repeat_interleave(50, 0) + 0.1 * torch.randn(1000, 300, generator=seeded(3))
    kept = thinned(features, 20)
    assert (kept // 50).unique().numel() == 20  # each group once
    assert torch.equal(thinned(features, 20), kept)


def test_half_precision_is_thinned_in_single(monkeypatch):
    monkeypatch.setattr(coreset, "_BLOCK", 16)
    kept = thinned(torch.randn(50, 200, generator=seeded(4)).bfloat16(), 10)
    assert kept.shape == (10,)

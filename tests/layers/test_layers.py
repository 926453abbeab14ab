"""The shared parts against plain rewritings of their formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from zerodefect.layers.memory import MemoryBank
from zerodefect.layers.similarity import (
    anomaly_probability,
    cosine,
    harmonic_mean,
    inner_products,
    text_probabilities,
    to_grid,
    two_class,
    upsample,
)
from zerodefect.layers.smoothing import gaussian_smooth
from zerodefect.layers.windows import count_windows, harmonic_windows, spread, window_patches

grids = st.tuples(st.integers(1, 7), st.integers(1, 7))


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# --- similarity ------------------------------------------------------------------------------


def test_cosine_by_hand():
    features = torch.tensor([[3.0, 4.0], [0.0, 2.0]])
    texts = torch.tensor([[1.0, 0.0], [0.0, 5.0]])
    torch.testing.assert_close(cosine(features, texts), torch.tensor([[0.6, 0.8], [0.0, 1.0]]))


def test_anomaly_probability_by_hand():
    texts = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    got = anomaly_probability(torch.tensor([[3.0, 4.0]]), texts, 0.07)
    expected = 1 / (1 + np.exp((0.6 - 0.8) / 0.07))
    assert got.item() == pytest.approx(expected, abs=1e-6)


@given(st.integers(0, 1000), st.floats(0.01, 1.0))
def test_probabilities_are_a_distribution_and_ignore_lengths(seed, temperature):
    features = torch.randn(4, 5, 8, generator=seeded(seed))
    texts = torch.randn(3, 8, generator=seeded(seed + 1))
    got = text_probabilities(features, texts, temperature)
    torch.testing.assert_close(got.sum(-1), torch.ones(4, 5))
    torch.testing.assert_close(text_probabilities(7 * features, texts, temperature), got)


def test_anomaly_probability_needs_two_texts():
    with pytest.raises(ValueError, match="got 3"):
        anomaly_probability(torch.randn(1, 4), torch.randn(3, 4), 0.07)


def test_grid_and_upsampling_keep_the_order_of_rows():
    grid = to_grid(torch.arange(6.0)[None], (2, 3))
    assert grid[0].tolist() == [[0, 1, 2], [3, 4, 5]]
    up = upsample(grid, (4, 6))
    assert up.shape == (1, 4, 6)
    assert up[0, 0, 0] == 0
    assert up[0, -1, -1] == 5
    assert upsample(grid[:, None].repeat(1, 3, 1, 1), (4, 6)).shape == (1, 3, 4, 6)


def test_inner_products_stay_exact_under_autocast():
    features, texts = torch.randn(2, 5, 8, generator=seeded(0)), torch.randn(2, 3, 8)
    expected = torch.einsum("bnd,btd->bnt", features, texts)
    torch.testing.assert_close(inner_products(features, texts), expected)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(inner_products(features, texts), expected)


def test_aligned_corners_keep_their_values():
    grid = torch.tensor([[[0.0, 4.0], [8.0, 2.0]]])
    got = upsample(grid, (5, 5), align_corners=True)[0]
    torch.testing.assert_close(got[::4, ::4], grid[0])
    torch.testing.assert_close(got[0], torch.arange(5.0))


def test_two_classes_from_the_difference_of_their_logits():
    logits = 5 * torch.randn(3, 2, 4, 5, generator=seeded(1))
    torch.testing.assert_close(two_class(logits[:, 1] - logits[:, 0]), logits.softmax(1))


def test_harmonic_mean_by_hand():
    got = harmonic_mean([torch.tensor([1.0]), torch.tensor([2.0]), torch.tensor([4.0])])
    assert got.item() == pytest.approx(3 / (1 + 0.5 + 0.25))


# --- windows ---------------------------------------------------------------------------------


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


# --- memory ----------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(["half_cosine", "euclidean"]),
    st.integers(1, 5),
    st.integers(1, 9),
    st.integers(1, 30),
    st.sampled_from([2**12, 2**14, 2**26]),
    st.integers(0, 99),
)
def test_search_is_exact_whatever_the_budget(metric, images, per_image, queries, budget, seed):
    bank = MemoryBank(metric, budget=budget)
    stored = torch.randn(images, per_image, 6, generator=seeded(seed))
    for image in stored:  # one by one is the same as at once
        bank.add(image[None])
    asked = torch.randn(queries, 6, generator=seeded(seed + 1))
    distance, index = bank.nearest(asked)
    flat = stored.flatten(0, 1)
    if metric == "half_cosine":
        every = (1 - torch.nn.functional.cosine_similarity(asked[:, None], flat[None], dim=-1)) / 2
    else:
        every = (asked[:, None] - flat[None]).norm(dim=-1)
    torch.testing.assert_close(distance, every.min(1).values, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        every.gather(1, index[:, None])[:, 0], every.min(1).values, atol=1e-5, rtol=1e-5
    )


def test_the_working_memory_stays_under_the_budget(monkeypatch):
    bank = MemoryBank(budget=2**20)
    bank.add(torch.randn(4, 2000, 16))
    seen = []
    plain = MemoryBank._distances

    def watched(self, queries, stored):
        block = plain(self, queries, stored)
        seen.append(block.numel() * block.element_size())
        return block

    monkeypatch.setattr(MemoryBank, "_distances", watched)
    bank.nearest(torch.randn(3000, 16))
    assert len(seen) > 1
    assert max(seen) <= 2**20 / 4  # the block, its mask and its copies together fit the budget


@pytest.mark.parametrize("budget", [2**12, 2**26])
def test_leave_one_out_excludes_the_own_image(budget):
    bank = MemoryBank(budget=budget)
    stored = torch.randn(4, 5, 6, generator=seeded(3))
    bank.add(stored)
    own = torch.arange(4).repeat_interleave(5)
    distance, index = bank.nearest(stored.flatten(0, 1), own)
    assert (index // 5 != own).all()
    for image in range(4):
        others = MemoryBank()
        others.add(stored[[i for i in range(4) if i != image]])
        torch.testing.assert_close(distance[own == image], others.nearest(stored[image])[0])


def test_more_references_never_raise_a_distance():
    queries = torch.randn(20, 6)
    bank = MemoryBank()
    bank.add(torch.randn(1, 8, 6))
    before = bank.nearest(queries)[0]
    bank.add(torch.randn(3, 8, 6))
    assert (bank.nearest(queries)[0] <= before + 1e-7).all()


def test_what_a_bank_refuses():
    bank = MemoryBank()
    with pytest.raises(RuntimeError, match="empty"):
        bank.nearest(torch.randn(1, 3))
    with pytest.raises(ValueError, match="not finite"):
        bank.add(torch.tensor([[[float("nan"), 1.0]]]))
    bank.add(torch.randn(1, 2, 3))
    with pytest.raises(ValueError, match="width 4"):
        bank.add(torch.randn(1, 2, 4))
    with pytest.raises(RuntimeError, match="at least two"):
        bank.nearest(torch.randn(2, 3), torch.zeros(2, dtype=torch.long))
    assert bank.bytes == 2 * 3 * 4
    bank.clear()
    assert len(bank) == 0


def test_an_identical_feature_is_at_distance_zero_in_both_metrics():
    for metric in ("half_cosine", "euclidean"):
        bank = MemoryBank(metric)
        stored = 100 * torch.randn(1, 50, 32)
        bank.add(stored)
        assert bank.nearest(stored[0])[0].max() < 1e-6


# --- smoothing -------------------------------------------------------------------------------


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 40), st.integers(1, 40), st.floats(0.3, 8.0), st.integers(0, 99))
def test_smoothing_equals_scipys(height, width, sigma, seed):
    maps = torch.rand(2, height, width, generator=seeded(seed), dtype=torch.float64)
    got = gaussian_smooth(maps, sigma)
    for mine, plain in zip(got, maps, strict=True):
        np.testing.assert_allclose(mine, ndimage.gaussian_filter(plain.numpy(), sigma), atol=1e-12)


def test_smoothing_edges():
    maps = torch.rand(2, 3, 9, 9)
    assert torch.equal(gaussian_smooth(maps, 0), maps)
    torch.testing.assert_close(gaussian_smooth(torch.ones(5, 5), 3.0), torch.ones(5, 5))
    with pytest.raises(ValueError, match="sigma"):
        gaussian_smooth(maps, -1)
    with pytest.raises(ValueError, match="sigma"):
        gaussian_smooth(maps, float("nan"))

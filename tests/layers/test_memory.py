"""The memory bank's search against all distances at once."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zerodefect.layers import memory
from zerodefect.layers.memory import MemoryBank, Metric


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def bank_of(images: torch.Tensor, metric: Metric = "half_cosine") -> MemoryBank:
    """Features ``(K, n, W)`` of K pictures, numbered from 0."""
    numbers = torch.arange(len(images)).repeat_interleave(images.shape[1])
    return MemoryBank(MemoryBank.stored(images, metric), numbers, metric)


@pytest.fixture(params=[2**12, 2**14, 2**26])
def search_bytes(request, monkeypatch) -> int:
    monkeypatch.setattr(memory, "_SEARCH_BYTES", request.param)
    return request.param


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(["half_cosine", "euclidean"]),
    st.integers(1, 5),
    st.integers(1, 9),
    st.integers(1, 30),
    st.sampled_from([2**12, 2**14, 2**26]),
    st.integers(0, 99),
)
def test_search_is_exact_whatever_the_working_memory(
    metric, images, per_image, queries, search_bytes, seed
):
    stored = torch.randn(images, per_image, 6, generator=seeded(seed))
    asked = torch.randn(queries, 6, generator=seeded(seed + 1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory, "_SEARCH_BYTES", search_bytes)
        distance, index = bank_of(stored, metric).nearest(asked)
    flat = stored.flatten(0, 1)
    if metric == "half_cosine":
        every = (1 - torch.nn.functional.cosine_similarity(asked[:, None], flat[None], dim=-1)) / 2
    else:
        every = (asked[:, None] - flat[None]).norm(dim=-1)
    torch.testing.assert_close(distance, every.min(1).values, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        every.gather(1, index[:, None])[:, 0], every.min(1).values, atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("metric", ["half_cosine", "euclidean"])
def test_the_nearest_few_in_their_order(metric, search_bytes):
    stored, asked = torch.randn(3, 9, 6, generator=seeded(0)), torch.randn(7, 6)
    bank = bank_of(stored, metric)
    distance, index = bank.neighbours(asked, 5)
    assert distance.shape == index.shape == (7, 5)
    assert (distance.diff(dim=1) >= 0).all()
    one = [bank_of(row[None, None], metric).nearest(asked)[0] for row in stored.flatten(0, 1)]
    expected = torch.stack(one, 1).topk(5, largest=False)
    torch.testing.assert_close(distance, expected.values, atol=1e-5, rtol=1e-5)
    assert torch.equal(index, expected.indices)
    assert bank.neighbours(asked, 99)[0].shape == (7, 27)
    left, rows = bank.neighbours(asked, 20, torch.ones(7, dtype=torch.long))
    assert left[:, :18].isfinite().all() and left[:, 18:].isinf().all()
    assert (rows[:, :18] // 9 != 1).all()


@pytest.mark.parametrize("width", [3, 200])
@pytest.mark.parametrize("count", [1, 5])
def test_the_nearest_among_many_also_behind_the_last_whole_group(width, count):
    stored = torch.randn(1, 64 * 40 + 17, width, generator=seeded(3))
    flat = stored[0]
    asked = torch.cat([flat[-9:], flat[:9]]) + 0.01 * torch.randn(18, width, generator=seeded(4))
    distance, index = bank_of(stored, "euclidean").neighbours(asked, count)
    every = (asked[:, None].double() - flat.double()).norm(dim=-1)
    wanted, rows = every.topk(count, dim=1, largest=False)
    torch.testing.assert_close(distance, wanted.float())
    assert torch.equal(index, rows)


def test_the_working_memory_is_bounded(monkeypatch):
    bank = bank_of(torch.randn(4, 2000, 16))
    seen = []
    plain = MemoryBank._distances

    def watched(self, queries, stored):
        block = plain(self, queries, stored)
        seen.append(block.numel() * block.element_size())
        return block

    monkeypatch.setattr(memory, "_SEARCH_BYTES", 2**20)
    monkeypatch.setattr(MemoryBank, "_distances", watched)
    bank.nearest(torch.randn(3000, 16))
    assert len(seen) > 1
    assert max(seen) <= 2**20 / 4  # the block, its mask and its copies together fit


@pytest.mark.parametrize("metric", ["half_cosine", "euclidean"])
def test_leave_one_out_excludes_the_own_image(metric, search_bytes):
    stored = torch.randn(4, 5, 6, generator=seeded(3))
    own = torch.arange(4).repeat_interleave(5)
    distance, index = bank_of(stored, metric).nearest(stored.flatten(0, 1), own)
    assert (index // 5 != own).all()
    for image in range(4):
        others = bank_of(stored[[i for i in range(4) if i != image]], metric)
        torch.testing.assert_close(distance[own == image], others.nearest(stored[image])[0])


def test_views_of_one_picture_are_left_out_together():
    stored = torch.randn(4, 5, 6, generator=seeded(3))
    numbers = torch.tensor([7, 2, 7, 2]).repeat_interleave(5)  # two tiles each
    bank = MemoryBank(MemoryBank.stored(stored, "half_cosine"), numbers)
    distance, index = bank.nearest(stored[0], torch.full((5,), 7))
    assert set((index // 5).tolist()) <= {1, 3}
    torch.testing.assert_close(distance, bank_of(stored[[1, 3]]).nearest(stored[0])[0])


def test_more_references_never_raise_a_distance():
    queries, stored = torch.randn(20, 6), torch.randn(4, 8, 6)
    before = bank_of(stored[:1]).nearest(queries)[0]
    assert (bank_of(stored).nearest(queries)[0] <= before + 1e-7).all()


def test_what_a_bank_refuses():
    empty = MemoryBank(torch.empty(0, 3), torch.empty(0, dtype=torch.long))
    with pytest.raises(RuntimeError, match="empty"):
        empty.nearest(torch.randn(1, 3))
    for value in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="not finite"):
            MemoryBank.stored(torch.tensor([[[value, 1.0]]]), "euclidean")
    with pytest.raises(RuntimeError, match="at least two"):
        bank_of(torch.randn(1, 2, 3)).nearest(torch.randn(2, 3), torch.zeros(2, dtype=torch.long))


def test_what_is_stored_of_features():
    features = 100 * torch.randn(2, 5, 32)
    plain = MemoryBank.stored(features, "euclidean")
    assert torch.equal(plain, features.flatten(0, 1))
    unit = MemoryBank.stored(features, "half_cosine")
    torch.testing.assert_close(unit.norm(dim=-1), torch.ones(10))
    torch.testing.assert_close(unit, torch.nn.functional.normalize(plain, dim=-1))


def test_an_identical_feature_is_at_distance_zero_in_both_metrics():
    for metric in ("half_cosine", "euclidean"):
        stored = 100 * torch.randn(1, 50, 32)
        assert bank_of(stored, metric).nearest(stored[0])[0].max() < 1e-6


@pytest.mark.parametrize("width", [3, 64, 512])
def test_no_distance_is_negative_whatever_the_rounding(width):
    """Harmonic means over windows would make any number of one that is."""
    features = torch.randn(400, width, generator=torch.Generator().manual_seed(width))
    stored = MemoryBank.stored(features[None], "half_cosine")
    bank = MemoryBank(stored, torch.zeros(400, dtype=torch.int64), "half_cosine")
    distance, _ = bank.neighbours(features * 3, 2)
    assert distance.min() >= 0 and distance.max() <= 1

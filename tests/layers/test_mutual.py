"""Distances between the pictures of a set, against the plain loop over all pairs."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import normalize

from zerodefect.layers.mutual import Remade, mean_of_nearest, mutual_distances


def features(count, length, width=6, seed=0):
    draws = torch.Generator().manual_seed(seed)
    return normalize(
        torch.randn(count, length, width, generator=draws, dtype=torch.float64), dim=-1
    )


def plain(pictures, keep=None):
    """As the specification says it, one pair after the other."""
    found = []
    for i, z in enumerate(pictures):
        d = torch.full((len(z), len(pictures)), torch.inf, dtype=z.dtype)
        for j, other in enumerate(pictures):
            y = other if keep is None else other[keep[j]]
            if j != i and len(y):
                d[:, j] = (z[:, None] - y[None]).norm(dim=2).amin(1)
        found.append(d)
    return found


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 3), st.integers(1, 5)), min_size=1, max_size=4),
    st.integers(1, 2000),
    st.integers(1, 40),
)
def test_any_batches_and_budgets_give_what_the_loop_over_pairs_gives(sizes, held, cells):
    batches = [features(count, length, seed=n) for n, (count, length) in enumerate(sizes)]
    pictures = [z for batch in batches for z in batch]
    draws = torch.Generator().manual_seed(held)
    keep = [torch.rand(len(z), generator=draws) < 0.6 for z in pictures]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("zerodefect.layers.mutual._PRODUCT_CELLS", cells)
        for kept in (None, keep):
            found = mutual_distances(batches, kept, held_bytes=held)
            for got, expected in zip(found, plain(pictures, kept), strict=True):
                torch.testing.assert_close(got, expected, atol=1e-7, rtol=0)


def test_each_pair_is_multiplied_once(monkeypatch):
    seen = []
    from zerodefect.layers import mutual

    whole = mutual._both_sides
    monkeypatch.setattr(mutual, "_PRODUCT_CELLS", 1)
    monkeypatch.setattr(mutual, "_both_sides", lambda *a: seen.append(1) or whole(*a))
    mutual_distances([features(7, 4)], held_bytes=2 * 4 * 6 * 8)
    assert len(seen) == 7 * 6 // 2


def test_features_are_made_anew_and_not_held():
    made = []
    batches = Remade([1, 2], lambda n: made.append(n) or features(n, 3, seed=n))
    expected = plain([z for n in (1, 2) for z in features(n, 3, seed=n)])
    for got, one in zip(mutual_distances(batches), expected, strict=True):
        torch.testing.assert_close(got, one, atol=1e-7, rtol=0)
    assert made == [1, 2, 1, 2]  # once for the sizes, once for the distances


def test_bfloat16_finds_and_float32_measures():
    z = features(6, 50, 64).float()
    exact, rounded = (torch.stack(mutual_distances([z], half=half)) for half in (False, True))
    there = exact.isfinite()
    assert (rounded[there] >= exact[there] - 1e-5).all()
    assert (rounded[there] - exact[there]).max() < 0.01
    assert ((rounded - exact).abs() < 1e-5)[there].float().mean() > 0.9
    assert mutual_distances([z[:1].expand(2, -1, -1)], half=True)[0][:, 1].max() < 1e-3


def test_mean_of_the_nearest_by_hand():
    d = torch.tensor([[4.0, torch.inf, 1.0, 3.0, 2.0]])
    assert mean_of_nearest(d, 0.3).item() == 1.0  # int(0.3 * 4) = 1
    assert mean_of_nearest(d, 0.5).item() == 1.5
    assert mean_of_nearest(d, 0.0).item() == 1.0  # one at least
    assert mean_of_nearest(d, 1.0).item() == 2.5
    assert mean_of_nearest(d, 1.0, 0.5).item() == 3.5
    assert mean_of_nearest(d, 1.0, own=0).item() == 2.0
    assert mean_of_nearest(d, 1.0, 1.0).item() == 4.0  # nothing between: the next one
    with pytest.raises(ValueError, match="no other picture"):
        mean_of_nearest(d[:, 1:2], 0.3)

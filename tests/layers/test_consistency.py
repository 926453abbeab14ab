"""The same defect on many pictures of a batch."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score
from torch.nn.functional import normalize

from zerodefect.layers.consistency import NEAR, consistency_filter
from zerodefect.layers.mutual import mean_of_nearest, mutual_distances


def batch(count, marked, seed=0, places=25, width=24):
    """Normal patches of few prototypes, and two patches of one further kind on some pictures."""
    draws = torch.Generator().manual_seed(seed)

    def noise(*shape):
        return torch.randn(*shape, generator=draws, dtype=torch.float64)

    x = noise(places, width).repeat(count, 1, 1) + 0.25 * noise(count, places, width)
    mark, truth = noise(width), torch.zeros(count, places, dtype=torch.bool)
    for i in range(marked):
        where = torch.randperm(places, generator=draws)[:2]
        x[i, where] = mark + 0.02 * noise(2, width)
        truth[i, where] = True
    return normalize(x, dim=-1), truth


def scores(z):
    d = mutual_distances([z])
    found = consistency_filter(d)
    keep = [torch.from_numpy(k) for k in found.keep]
    plain = torch.stack([mean_of_nearest(row, NEAR) for row in d])
    filtered = torch.stack([mean_of_nearest(row, NEAR) for row in mutual_distances([z], keep)])
    return plain, filtered, found


@pytest.mark.parametrize(("count", "marked"), [(20, 7), (20, 9), (40, 12), (40, 18)])
def test_a_repeated_mark_stands_out_again(count, marked):
    z, truth = batch(count, marked)
    plain, filtered, found = scores(z)
    assert roc_auc_score(truth.ravel(), plain.ravel()) < 0.5
    assert roc_auc_score(truth.ravel(), filtered.ravel()) > 0.99
    assert set().union(*found.repeated) == set(range(marked))
    normal = ~truth.numpy()
    assert (~np.stack(found.keep))[normal].mean() < 0.05


@pytest.mark.parametrize("marked", [0, 1])
def test_what_is_not_repeated_leaves_scores_as_they_were(marked):
    z, _ = batch(20, marked)
    plain, filtered, found = scores(z)
    assert not found.repeated
    torch.testing.assert_close(plain, filtered, rtol=0, atol=1e-12)


@settings(deadline=None)
@given(st.integers(1, 9), st.integers(1, 4), st.integers(0, 99), st.booleans())
def test_any_set_is_filtered_without_nan(count, places, seed, alike):
    """One picture, two, copies of one picture, ties: finite, and enough is left."""
    draws = torch.Generator().manual_seed(seed)
    z = normalize(torch.randn(count, places, 3, generator=draws).round() + 0.5, dim=-1)
    z = z[:1].expand_as(z) if alike else z
    found = consistency_filter(mutual_distances([z]))
    for values in (found.gap, found.ratio):
        assert np.isfinite(np.concatenate(values)).all()
    assert np.isfinite(found.threshold) and np.isfinite(found.links).all()
    if count < 7 or alike:
        assert not found.repeated and np.concatenate(found.keep).all()


def test_a_variant_of_the_product_is_not_taken_for_a_mark():
    z, _ = batch(12, 0, seed=1)
    other, _ = batch(6, 0, seed=2)
    _, _, found = scores(torch.cat([other, z]))
    assert not found.repeated and np.concatenate(found.keep).all()

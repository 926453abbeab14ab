"""Gaussian smoothing against scipy's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from zerodefect.layers.smoothing import gaussian_smooth


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


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


def test_a_mirror_image_that_begins_behind_the_edge():
    """SciPy calls that border ``mirror``, PyTorch ``reflect``."""
    maps = torch.randn(2, 40, 37, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = [ndimage.gaussian_filter(each, 4, mode="mirror") for each in maps.numpy()]
    got = gaussian_smooth(maps, 4.0, edge_twice=False)
    np.testing.assert_allclose(got, np.stack(expected), atol=1e-12)
    assert gaussian_smooth(maps[:, :1, :1], 4.0, edge_twice=False).allclose(maps[:, :1, :1])

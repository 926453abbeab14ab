"""Gaussian smoothing against scipy's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from zerodefect.layers.smoothing import gaussian_smooth, neighbourhood_mean, patch_gaussian


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


def test_a_kernel_of_a_stated_reach():
    maps = torch.rand(2, 20, 17, generator=seeded(1), dtype=torch.float64)
    got = gaussian_smooth(maps, 1.0, edge_twice=False, radius=3)
    for mine, plain in zip(got, maps, strict=True):
        expected = ndimage.gaussian_filter(plain.numpy(), 1.0, mode="mirror", radius=3)
        np.testing.assert_allclose(mine, expected, atol=1e-12)


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 3, 5, 7]), st.integers(0, 99))
def test_patches_are_averaged_among_zeros(rows, columns, side, seed):
    """A sum of one over the whole neighbourhood: less than all of it at the border."""
    patches = torch.randn(2, rows * columns, 3, generator=seeded(seed), dtype=torch.float64)
    got = patch_gaussian(patches, (rows, columns), side, 4.0)
    axis = np.exp(-0.5 * (np.arange(side) - side // 2) ** 2 / 16)
    kernel = np.outer(axis, axis) / np.outer(axis, axis).sum()
    maps = patches.unflatten(1, (rows, columns)).numpy()
    for image, mine in zip(maps, got, strict=True):
        for channel in range(3):
            expected = ndimage.convolve(image[..., channel], kernel, mode="constant")
            np.testing.assert_allclose(mine[:, channel], expected.ravel(), atol=1e-12)
    with pytest.raises(ValueError, match="odd side"):
        patch_gaussian(patches, (rows, columns), 2, 4.0)


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (4, 7)])
@pytest.mark.parametrize(("border", "numpys"), [("replicate", "edge"), ("reflect", "reflect")])
def test_neighbours_beyond_the_border(shape, border, numpys):
    maps = torch.randn(2, 3, *shape, generator=torch.Generator().manual_seed(0))
    wide = np.pad(maps.numpy(), ((0, 0), (0, 0), (2, 2), (2, 2)), mode=numpys)
    rows, columns = shape
    wanted = sum(wide[:, :, i : i + rows, j : j + columns] for i in range(5) for j in range(5)) / 25
    np.testing.assert_allclose(neighbourhood_mean(maps, 5, border), wanted, atol=1e-6)

"""Tiles cover, shares add up, nothing shows where tiles meet."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zerodefect.images import Picture
from zerodefect.images.tiling import Mosaic, Tiling

sizes = st.integers(1, 60)
tilings = st.builds(Tiling, st.integers(1, 40), st.floats(0, 0.5))


@given(tilings, sizes, sizes)
def test_tiles_cover_every_pixel_and_stay_inside(tiling, height, width):
    seen = np.zeros((height, width), int)
    for tile in tiling.tiles(height, width):
        assert tile.top >= 0
        assert tile.left >= 0
        assert tile.top + tile.height <= height
        assert tile.left + tile.width <= width
        seen[tile.top : tile.top + tile.height, tile.left : tile.left + tile.width] += 1
    assert seen.min() >= 1


@given(st.integers(4, 40), st.floats(0, 0.5), st.integers(1, 500))
def test_neighbours_overlap_as_asked(size, overlap, length):
    starts = Tiling(size, overlap).starts(length)
    for first, second in itertools.pairwise(starts):
        assert second > first
        assert first + size - second >= size * overlap - 1


@settings(deadline=None)
@given(tilings, sizes, sizes, st.floats(-3, 3, width=32))
def test_a_constant_map_shows_no_seam(tiling, height, width, value):
    mosaic = Mosaic(tiling, height, width)
    for tile in tiling.tiles(height, width):
        mosaic.add(tile, np.full((tile.height, tile.width), value, np.float32))
    np.testing.assert_allclose(mosaic.map, value, atol=1e-5)


@settings(deadline=None)
@given(tilings, sizes, sizes, st.integers(0, 99))
def test_what_looks_at_one_pixel_gives_the_same_map_tiled(tiling, height, width, seed):
    whole = np.random.default_rng(seed).random((height, width), np.float32)
    mosaic = Mosaic(tiling, height, width)
    for tile in tiling.tiles(height, width):
        part = whole[tile.top : tile.top + tile.height, tile.left : tile.left + tile.width]
        mosaic.add(tile, part)
    np.testing.assert_allclose(mosaic.map, whole, atol=1e-5)


def test_a_jump_between_tiles_becomes_a_slope():
    tiling = Tiling(10, 0.5)
    mosaic = Mosaic(tiling, 10, 15)
    for tile in tiling.tiles(10, 15):
        mosaic.add(tile, np.full((10, 10), float(tile.column), np.float32))
    row = mosaic.map[0]
    assert row[:5].tolist() == [0.0] * 5
    assert row[10:].tolist() == [1.0] * 5
    steps = np.diff(row)
    assert steps.max() < 0.25
    assert steps.min() >= 0


def test_a_small_picture_is_one_tile():
    assert len(Tiling(100).tiles(40, 100)) == 1
    picture = Picture("a", np.arange(40 * 60 * 3, dtype=np.uint8).reshape(40, 60, 3))
    (tile,) = Tiling(100).tiles(40, 60)
    assert np.array_equal(tile.cut(picture).pixels, picture.pixels)


@pytest.mark.parametrize("wrong", [(0, 0.2), (10, -0.1), (10, 0.6), (10, float("nan"))])
def test_impossible_tilings(wrong):
    with pytest.raises(ValueError, match=r"tile size|overlap"):
        Tiling(*wrong)


@given(
    size=st.integers(1, 300),
    overlap=st.sampled_from([0.0, 0.25, 0.5]),
    height=st.integers(1, 700),
    width=st.integers(1, 700),
)
def test_views_are_the_tiles_and_the_whole(size, overlap, height, width):
    tiling = Tiling(size, overlap)
    tiles = tiling.tiles(height, width) if tiling.views(height, width) < 3000 else None
    if tiles is not None:
        assert tiling.views(height, width) == (len(tiles) + 1 if len(tiles) > 1 else 1)
    larger = tiling.size_for(height, width, 50)
    assert larger >= size
    assert Tiling(larger, overlap).views(height, width) <= 50

"""How many defects there are: touching ones apart, broken lines as one, weak ones aside."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from zerodefect.inspection.counting import count_kinds
from zerodefect.inspection.regions import find_regions
from zerodefect.types import Count


def bumps(*places, side=96, width=5.0):
    """A map with round peaks ``(y, x, height)``."""
    rows, columns = np.mgrid[:side, :side]
    peaks = [
        h * np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (2 * width**2)) for y, x, h in places
    ]
    return np.max(peaks, axis=0).astype(np.float32)


def line(*spans, side=96, angle=0.0, thick=3):
    """A map with pieces of one line, each from and to a place along it."""
    map = np.zeros((side, side), np.float32)
    for start, end in spans:
        map[side // 2 : side // 2 + thick, start:end] = 1.0
    return ndimage.gaussian_filter(ndimage.rotate(map, angle, reshape=False, order=1), 1)


def counted(map, limit=0.3, **how):
    return count_kinds(map, find_regions(map, limit, **how), limit)


@pytest.mark.parametrize("gap", [13, 14, 30])
def test_two_that_touch_are_two(gap):
    map = bumps((48, 40, 1.0), (48, 40 + gap, 0.9))
    (found,) = counted(map, 0.3)
    assert found.count == 2 and found.low <= 2 <= found.high
    touching = len(find_regions(map, 0.3))
    assert touching == (1 if gap < 15 else 2)


def test_one_alone_is_one_and_sure():
    assert counted(bumps((48, 48, 1.0))) == (Count(None, 1, 1, 1),)


@pytest.mark.parametrize("angle", [0, 30, 45, 90, 160])
def test_pieces_of_a_scratch_are_one(angle):
    map = line((20, 38), (44, 60), (66, 80), angle=angle)
    assert len(find_regions(map, 0.3)) == 3
    (found,) = counted(map)
    assert found.count == 1


def test_scratches_side_by_side_are_two():
    map = line((20, 70)) + np.roll(line((20, 70)), 20, axis=0)
    (found,) = counted(map)
    assert found == Count(None, 2, 2, 2)


def test_what_hardly_rises_beside_something_strong_is_in_the_interval_alone():
    (found,) = counted(bumps((20, 20, 1.0), (70, 70, 0.45)), 0.3)
    assert (found.count, found.low, found.high) == (1, 1, 2)


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=12, unique=True)
)
@settings(max_examples=30, deadline=None)
def test_equal_ones_that_lie_apart_are_all_counted(cells):
    map = bumps(*((20 + 24 * y, 20 + 24 * x, 1.0) for y, x in cells), side=160)
    assert counted(map) == (Count(None, len(cells), len(cells), len(cells)),)


@given(st.integers(0, 2**16), st.floats(0.05, 0.9), st.floats(0.5, 6))
@settings(max_examples=40, deadline=None)
def test_on_any_map_the_count_lies_in_its_interval(seed, limit, smooth):
    map = ndimage.gaussian_filter(np.random.default_rng(seed).random((50, 70)), smooth)
    map = ((map - map.min()) / np.ptp(map)).astype(np.float32)
    regions = find_regions(map, limit, minimum_area=1)
    for found in count_kinds(map, regions, limit):
        assert 1 <= found.low <= found.count <= found.high


def test_large_pictures_are_counted_like_small_ones():
    small = bumps((20, 20, 1.0), (20, 36, 0.9), (70, 70, 0.8))
    large = np.kron(small, np.ones((9, 9), np.float32))
    assert counted(small) == counted(large) == (Count(None, 3, 2, 3),)


def test_a_dome_with_a_flat_top_is_one_and_a_saddle_of_equal_plateaus_two():
    flat = np.minimum(bumps((48, 48, 1.0), width=12.0), 0.8)
    assert counted(flat) == (Count(None, 1, 1, 1),)
    two = np.minimum(bumps((48, 30, 1.0), (48, 66, 1.0), width=10.0), 0.8)
    assert two[48, 48] > 0.15 and counted(two, 0.15)[0].count == 2


def test_nothing_is_counted_without_a_map():
    assert count_kinds(None, (), 0.5) == count_kinds(np.zeros((4, 4)), (), 0.5) == ()


def test_a_count_is_told_with_its_interval():
    assert str(Count("scratch", 3, 2, 4)) == "3 x scratch (2 to 4)"
    assert str(Count(None, 1, 1, 1)) == "1 x anomaly"

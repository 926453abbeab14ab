"""Damage of a stated size and contrast keeps what it states."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zerodefect.procedural.draws import Draws
from zerodefect.procedural.sized_damage import (
    LINES,
    SIZED_KINDS,
    SizedDamage,
    lay,
    on_product,
    sized_damage,
)


def draws(number: int, seed: int = 0) -> Draws:
    return Draws(seed, np.array([number], np.uint64), torch.device("cpu"))


def plain(value: int = 120, height: int = 200, width: int = 200, dtype=np.uint8) -> np.ndarray:
    return np.full((height, width, 3), value, dtype)


def laid(kind: str, size: int, number: int, pixels: np.ndarray, contrast: float):
    on = np.ones(pixels.shape[:2], bool)
    middle = (pixels.shape[0] // 2, pixels.shape[1] // 2)
    return lay(pixels, sized_damage(kind, size, draws(number)), contrast, middle, on)


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_a_line_is_as_wide_as_stated(size):
    """Opacity summed over a line is width times length; its ends fade from 0.8 of the way on."""
    for number in range(5):
        damage = sized_damage("scratch", size, draws(number))
        length = 0.9 * (16 * size + 16)
        assert damage.opacity.sum() / length == pytest.approx(size, rel=0.06)
        assert damage.opacity.max() > 0.9


@pytest.mark.parametrize("kind", ["stain", "contamination"])
@pytest.mark.parametrize("size", [8, 16, 32])
def test_what_is_round_has_the_stated_diameter(kind, size):
    areas = [(sized_damage(kind, size, draws(n)).opacity > 0.5).sum() for n in range(20)]
    diameters = np.sqrt(4 * np.array(areas) / math.pi)
    assert np.mean(diameters) == pytest.approx(size, rel=0.08)
    assert np.abs(diameters / size - 1).max() < 0.35


@pytest.mark.parametrize("kind", SIZED_KINDS)
@pytest.mark.parametrize(("dtype", "grey"), [(np.uint8, 120), (np.uint16, 30_000)])
def test_contrast_is_a_share_of_the_grey_range_whatever_the_bits(kind, dtype, grey):
    for number in range(6):
        pixels = plain(grey, dtype=dtype)
        changed, mask = laid(kind, 8, number, pixels, 0.15)
        step = changed.astype(float) - pixels
        assert changed.dtype == dtype
        assert np.abs(step).max() / np.iinfo(dtype).max == pytest.approx(0.15, abs=0.003)
        assert (step[..., :1] == step).all()  # no colour where there was none
        assert np.abs(step[mask]).min() > 0 and mask.any()


def test_the_surface_goes_on_under_it():
    pixels = np.random.default_rng(0).integers(100, 140, (200, 200, 3)).astype(np.uint8)
    changed, mask = laid("contamination", 16, 1, pixels, 0.2)
    sure = np.abs(changed.astype(int) - pixels).min(2) >= 50  # opacity about one
    steps = (changed.astype(int) - pixels)[sure & mask]
    assert len(steps) > 100 and np.ptp(steps) <= 2


@pytest.mark.parametrize(("grey", "brighter"), [(5, True), (250, False)])
def test_where_there_is_no_room_it_goes_the_other_way(grey, brighter):
    for number in range(8):
        pixels = plain(grey)
        changed, _ = laid("stain", 8, number, pixels, 0.2)
        step = changed.astype(int) - pixels
        assert np.abs(step).max() == 51 and ((step > 0).any() == brighter)


def test_both_ways_are_drawn_where_there_is_room():
    ways = [laid("stain", 8, n, plain(), 0.2)[0].max() > 120 for n in range(30)]
    assert 5 < sum(ways) < 25


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(SIZED_KINDS),
    st.integers(1, 20),
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(0, 2**30),
)
def test_it_stays_where_it_may_lie(kind, size, height, width, seed):
    random = np.random.default_rng(seed)
    pixels, on = plain(100, height, width), random.random((height, width)) < 0.5
    centre = (int(random.integers(height)), int(random.integers(width)))
    changed, mask = lay(pixels, sized_damage(kind, size, draws(seed)), 0.4, centre, on)
    assert not mask[~on].any() and (changed[~on] == 100).all()
    assert (changed[mask] != 100).all()
    assert (pixels == 100).all()  # what was given stays


def test_by_hand():
    damage = SizedDamage(np.array([[1.0, 0.5], [0.2, 0.0]], np.float32), brighter=True)
    changed, mask = lay(plain(0, 3, 3), damage, 0.2, (1, 1), np.ones((3, 3), bool))
    np.testing.assert_array_equal(changed[..., 0], [[51, 26, 0], [10, 0, 0], [0, 0, 0]])
    np.testing.assert_array_equal(mask, [[True, True, False], [False] * 3, [False] * 3])


def test_lines_are_no_longer_than_allowed():
    for kind in LINES:
        opacity = sized_damage(kind, 4, draws(3), longest=12).opacity
        assert max(opacity.shape) == 16 and (opacity > 0.4).any()


def test_the_same_draws_give_the_same_damage():
    one, again = (sized_damage("crack", 4, draws(7)) for _ in range(2))
    np.testing.assert_array_equal(one.opacity, again.opacity)
    assert not np.array_equal(one.opacity, sized_damage("crack", 4, draws(8)).opacity)


@pytest.mark.parametrize("shape", [(150, 220), (2000, 1600), (7, 9)])
def test_a_product_on_a_plain_ground_and_a_whole_surface(shape):
    height, width = shape
    y, x = np.mgrid[:height, :width]
    away = np.hypot((y + 0.5) / height - 0.5, (x + 0.5) / width - 0.5)
    pixels = np.where(away[..., None] < 0.3, 180, 20).astype(np.uint8).repeat(3, 2)
    on = on_product(pixels)
    assert on.shape == shape
    assert on[away < 0.2].all() and not on[away > 0.42].any()
    assert on_product(plain(90, *shape)).all()


def test_a_coarse_texture_is_no_product_on_a_ground():
    """Of such pictures about a third of the pixels differ from the border's middle grey."""
    coarse = np.random.default_rng(0).normal(120, 32, (32, 32)).clip(0, 255)
    pixels = np.kron(coarse, np.ones((8, 8))).astype(np.uint8)[..., None].repeat(3, 2)
    assert on_product(pixels).all()

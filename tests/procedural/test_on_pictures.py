"""Damage on good pictures: formulas, masks that tell the truth, draws that belong to a picture."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zerodefect.procedural.draws import Draws, Field
from zerodefect.procedural.on_pictures import damage_pictures, drawn_from, photographed
from zerodefect.procedural.perlin import (
    blended,
    perlin_masks,
    perlin_noise,
    textures,
    turned_pictures,
)


def draws(*numbers: int, seed: int = 0) -> Draws:
    return Draws(seed, np.array(numbers, np.uint64), torch.device("cpu"))


def away(height: int = 64, width: int = 64) -> torch.Tensor:
    """Distance from the middle, in half sides."""
    y, x = torch.linspace(-1, 1, height)[:, None], torch.linspace(-1, 1, width)[None]
    return torch.hypot(x.expand(height, width), y.expand(height, width))


def plates(count: int, height: int = 64, width: int = 64) -> torch.Tensor:
    """A brownish disc on a dark ground."""
    y, x = torch.meshgrid(
        torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij"
    )
    disc = (torch.hypot(x, y) < 0.6).float()
    colour = torch.tensor([0.7, 0.55, 0.4])[:, None, None]
    return (0.1 + (colour - 0.1) * disc).expand(count, 3, height, width).clone()


def test_perlin_noise_by_hand():
    """All gradients point along the columns: at the lattice zero, half way zero by symmetry."""
    noise = perlin_noise(torch.zeros(3, 3), (8, 8))  # angle 0: (1, 0), the first is the row's
    assert noise[0].abs().max() == noise[4].abs().max() == 0  # on lattice rows
    torch.testing.assert_close(noise[2], torch.zeros(8), atol=1e-6, rtol=0)  # half way
    t = 0.25
    fade = 6 * t**5 - 15 * t**4 + 10 * t**3
    expected = math.sqrt(2) * (t + fade * (t - 1 - t))
    torch.testing.assert_close(noise[1], torch.full((8,), expected))


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 70), st.integers(1, 70), st.integers(0, 5), st.integers(0, 5), st.integers())
def test_perlin_noise_of_any_size_is_cut_out_of_a_larger_one(height, width, a, b, seed):
    unit = torch.rand(2**a + 1, 2**b + 1, generator=torch.Generator().manual_seed(seed % 2**31))
    noise = perlin_noise(unit, (height, width))
    assert noise.shape == (height, width) and noise.abs().max() <= math.sqrt(2)
    whole = [1 << (side - 1).bit_length() for side in (height, width)]
    assert torch.equal(noise, perlin_noise(unit, tuple(whole))[:height, :width])


def test_the_blend_by_hand():
    good, texture = torch.full((1, 3, 1, 2), 0.5), torch.full((1, 3, 1, 2), 1.0)
    mixed = blended(good, torch.tensor([[[False, True]]]), texture, torch.tensor([0.2]))
    torch.testing.assert_close(mixed[0, 0, 0], torch.tensor([0.5, 0.8 * 1.0 + 0.2 * 0.5]))


def test_turning_by_a_right_angle_and_what_comes_from_outside():
    pictures = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    turned = turned_pictures(pictures, torch.tensor([math.pi / 2, math.pi / 4]))
    torch.testing.assert_close(turned[0], pictures[0].rot90(1, (1, 2)), atol=1e-5, rtol=0)
    assert turned[1, :, 0, 0].abs().max() == 0  # a corner shows what lay outside


@pytest.mark.parametrize("sort", ["perlin", "procedural", "both"])
@pytest.mark.parametrize("size", [(64, 64), (40, 88)])
def test_a_picture_is_damaged_the_same_whatever_batch_it_is_in(sort, size):
    images = plates(5, *size)
    together = damage_pictures(images, draws(3, 4, 5, 6, 7), sort)
    assert together.images.shape == images.shape and together.masks.shape == (5, *size)
    for row, number in enumerate((3, 4, 5, 6, 7)):
        alone = damage_pictures(images[row : row + 1], draws(number), sort)
        torch.testing.assert_close(alone.images[0], together.images[row], atol=1e-5, rtol=0)
        assert torch.equal(alone.masks[0], together.masks[row])
        assert alone.kinds[0] == together.kinds[row]
    assert not torch.equal(together.masks[0], together.masks[1])


def test_perlin_damage_changes_what_the_mask_says_and_nothing_else():
    images = plates(12)
    made = damage_pictures(images, draws(*range(12)))
    changed = (made.images != images).any(1)
    assert not changed[~made.masks].any()
    assert changed[made.masks].float().mean() > 0.95
    assert made.images.min() >= 0 and made.images.max() <= 1
    assert set(made.kinds) == {"perlin"}
    assert 0.01 < made.masks.float().mean() < 0.2


def test_procedural_damage_lies_on_the_product():
    images = plates(16)
    made = damage_pictures(images, draws(*range(16)), "procedural")
    assert len(set(made.kinds)) > 4 and "perlin" not in made.kinds
    assert not made.masks[:, away() > 0.8].any()
    assert made.masks.flatten(1).any(1).float().mean() > 0.7
    far = (made.images - images).abs().amax(1)
    assert far[made.masks].mean() > 10 * far[~made.masks].mean()


def test_a_product_is_found_on_its_ground_and_a_surface_is_whole():
    plane = Field(64, torch.device("cpu"))
    scene, distance = photographed(plates(1), draws(0), plane)
    assert distance[0, 32, 32] < -3 and distance[0, 2, 2] > 0
    torch.testing.assert_close(scene.colour[0], torch.tensor([0.7, 0.55, 0.4]), atol=0.1, rtol=0)
    flat = torch.full((1, 3, 64, 64), 0.4)
    assert (photographed(flat, draws(0), plane)[1] < -3).all()


def test_large_pictures_are_damaged_at_their_own_size():
    made = damage_pictures(plates(1, 600, 900), draws(1))
    assert made.images.shape == (1, 3, 600, 900) and made.masks.any()


def test_what_has_no_colour_gets_none():
    grey = plates(6).mean(1, keepdim=True).expand(6, 3, 64, 64)
    made = damage_pictures(grey, draws(*range(6)))
    assert (made.images.amax(1) - made.images.amin(1)).max() < 1e-5
    coloured = textures(draws(*range(6)), (64, 64), torch.zeros(6, dtype=torch.bool))
    assert (coloured.amax(1) - coloured.amin(1)).amax((1, 2)).min() > 0.05


def test_draws_come_from_a_generator_one_number_a_picture():
    together = drawn_from(torch.Generator().manual_seed(4), 3, "cpu").indices
    generator = torch.Generator().manual_seed(4)
    one_by_one = [drawn_from(generator, 1, "cpu").indices[0] for _ in range(3)]
    assert together.tolist() == one_by_one and len(set(one_by_one)) == 3


def test_masks_are_of_all_scales():
    shares = perlin_masks(draws(*range(40)), (64, 64)).float().mean((1, 2))
    assert 0.02 < shares.mean() < 0.15

"""Neighbourhood means against padding by torch, and on grids smaller than the neighbourhood."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from zerodefect.layers.smoothing import neighbourhood_mean, patch_mean

MAPS = torch.randn(2, 3, 5, 7, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("border", "mode"), [("zeros", "constant"), ("replicate", "replicate"), ("reflect", "reflect")]
)
@pytest.mark.parametrize("side", [1, 3, 5])
def test_the_mean_of_the_padded_map(border, mode, side):
    padded = F.pad(MAPS, [side // 2] * 4, mode=mode)
    expected = padded.unfold(2, side, 1).unfold(3, side, 1).mean((-1, -2))
    torch.testing.assert_close(neighbourhood_mean(MAPS, side, border), expected)


def test_absent_patches_do_not_count():
    got = neighbourhood_mean(MAPS, 3, "absent")
    torch.testing.assert_close(got[..., 0, 0], MAPS[..., :2, :2].mean((-1, -2)))
    torch.testing.assert_close(got[..., 2, 3], MAPS[..., 1:4, 2:5].mean((-1, -2)))


def test_reflection_on_grids_smaller_than_the_neighbourhood():
    line = torch.tensor([[[[1.0, 4.0]]]])  # mirrored: 1 4 1 4 1 4 around both ends
    got = neighbourhood_mean(line, 5, "reflect")
    torch.testing.assert_close(got, torch.tensor([[[[11 / 5, 14 / 5]]]]))
    one = torch.full((1, 2, 1, 1), 3.0)
    assert torch.equal(neighbourhood_mean(one, 5, "reflect"), one)


def test_patches_are_row_major():
    patches = MAPS.flatten(2).transpose(1, 2)
    expected = neighbourhood_mean(MAPS, 3, "zeros").flatten(2).transpose(1, 2)
    assert torch.equal(patch_mean(patches, (5, 7), 3, "zeros"), expected)


def test_impossible_neighbourhoods():
    for side in (0, 2, -1):
        with pytest.raises(ValueError, match="odd side"):
            neighbourhood_mean(MAPS, side, "zeros")
    with pytest.raises(ValueError, match="border is zeros"):
        neighbourhood_mean(MAPS, 3, "circular")

"""Connected parts of masks, by hand and by what defines them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zerodefect.layers.components import components, dilated, eroded, without_small


def drawn(rows: list[str]) -> torch.Tensor:
    return torch.tensor([[sign == "#" for sign in row] for row in rows])


def test_parts_by_hand():
    mask = drawn(["##..#", "#...#", ".#...", "....#"])
    found = components(mask)
    assert found.areas.tolist() == [4, 2, 1]  # a corner joins
    assert found.labels[2, 1] == 1 and found.labels[0, 4] == 2 and found.labels[3, 4] == 3
    assert found.boxes.tolist() == [[0, 0, 2, 3], [4, 0, 5, 2], [4, 3, 5, 4]]
    torch.testing.assert_close(found.centres[1], torch.tensor([0.25, 0.9]))
    assert torch.equal(found.masks.any(0), mask)
    large = components(mask, 2)
    assert large.areas.tolist() == [4, 2] and large.labels[3, 4] == 0
    assert torch.equal(without_small(mask, 3), found.labels == 1)


def test_nothing_and_everything():
    empty = components(torch.zeros(3, 4, dtype=torch.bool))
    assert len(empty) == 0 and empty.masks.shape == (0, 3, 4)
    assert empty.boxes.shape == (0, 4) and empty.centres.shape == (0, 2)
    whole = components(torch.ones(3, 4, dtype=torch.bool))
    assert whole.boxes.tolist() == [[0, 0, 4, 3]] and whole.centres.tolist() == [[0.5, 0.5]]
    with pytest.raises(ValueError, match="a mask is"):
        components(torch.zeros(1, 3, 4))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32), st.integers(1, 4))
def test_parts_are_the_mask_taken_apart(height, width, seed, smallest):
    draws = torch.Generator().manual_seed(seed)
    mask = torch.rand(height, width, generator=draws) > 0.5
    found = components(mask, smallest)
    assert (found.areas >= smallest).all()
    assert found.masks.sum((1, 2)).tolist() == found.areas.tolist()
    assert not (found.labels[~mask] > 0).any()
    for number, own in enumerate(found.masks, start=1):  # grown by a pixel, it meets no other one
        near = found.labels[dilated(own)]
        assert set(near.tolist()) <= {0, number}


def test_growing_and_shrinking():
    mask = drawn([".....", ".....", "..#..", ".....", "....."])
    assert int(dilated(mask).sum()) == 9 and torch.equal(eroded(dilated(mask)), mask)
    assert int(dilated(mask, 5).sum()) == 25 and not eroded(mask).any()
    whole = torch.ones(3, 3, dtype=torch.bool)
    assert torch.equal(eroded(whole), whole)  # the border does not shrink it

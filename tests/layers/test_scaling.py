"""Scaling over a whole set."""

from __future__ import annotations

import torch

from zerodefect.layers.scaling import MinMax


def test_batches_share_one_scale():
    step, batches = MinMax(), torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0))
    for batch in batches:
        step.see(batch)
    got = torch.stack([step.scaled(batch) for batch in batches])
    low, high = batches.min(), batches.max()
    torch.testing.assert_close(got, (batches - low) / (high - low))
    assert (got.min(), got.max()) == (0, 1)
    assert step.scaled(torch.tensor(float(high))) == 1  # any shape


def test_what_was_not_seen_may_lie_outside():
    step = MinMax()
    step.see(torch.tensor([2.0, 4.0]))
    assert step.scaled(torch.tensor([1.0, 3.0, 6.0])).tolist() == [-0.5, 0.5, 2.0]


def test_equal_values_are_zero():
    step = MinMax()
    step.see(torch.full((2, 3), 7.0))
    assert torch.equal(step.scaled(torch.full((2, 3), 7.0)), torch.zeros(2, 3))

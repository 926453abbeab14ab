"""Small learned layers and where they read."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from zerodefect.layers.adapters import (
    BatchNorm,
    Projections,
    check_taps,
    initialised,
    linear,
    quarter_depths,
)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("layers", "taps"),
    [
        (24, (6, 12, 18, 24)),
        (12, (3, 6, 9, 12)),
        (32, (8, 16, 24, 32)),
        (5, (1, 3, 4, 5)),
        (3, (1, 2, 3)),
        (1, (1,)),
    ],
)
def test_quarter_depths(layers, taps):
    assert quarter_depths(layers) == taps


@pytest.mark.parametrize("taps", [(), (1, 1), (0,), (4,)])
def test_taps_that_a_tower_does_not_have(taps):
    with pytest.raises(ValueError, match=r"has 1\.\.3"):
        check_taps(taps, 3)
    assert check_taps((1, 3), 3) == (1, 3)


def test_initial_values_are_those_of_torch_but_drawn_from_the_generator():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    mine = linear(400, 300, seeded(1))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(mine.weight, linear(400, 300, seeded(1)).weight)
    assert not torch.equal(mine.weight, linear(400, 300, seeded(2)).weight)
    default = nn.Linear(400, 300)
    for ours, theirs in ((mine.weight, default.weight), (mine.bias, default.bias)):
        assert ours.abs().max() <= 400**-0.5
        assert ours.std().item() == pytest.approx(theirs.std().item(), rel=0.1)
    conv = initialised(nn.utils.skip_init(nn.Conv1d, 1, 50, 3), seeded(1))
    assert 0.8 * 3**-0.5 < conv.weight.abs().max() <= 3**-0.5


def test_each_input_has_its_own_layer():
    layers = Projections(3, 4, 2, seeded(0))
    inputs = [torch.randn(5, 4, generator=seeded(i)) for i in range(3)]
    for layer, x, got in zip(layers.head, inputs, layers(inputs), strict=True):
        torch.testing.assert_close(got, x @ layer.weight.T + layer.bias)
    torch.testing.assert_close(layers.of_one(inputs[0])[:, 2], layers.head[2](inputs[0]))
    with pytest.raises(ValueError, match="shorter"):
        layers(inputs[:2])


def test_batch_norm_of_a_single_value_uses_what_it_saw_before():
    norm, plain = BatchNorm(3), nn.BatchNorm1d(3)
    batch = torch.randn(5, 3, 4, generator=seeded(0))
    torch.testing.assert_close(norm(batch), plain(batch))
    one = torch.tensor([[1.0, -2.0, 3.0]])
    kept = {name: value.clone() for name, value in norm.state_dict().items()}
    got = norm(one)
    torch.testing.assert_close(got, norm.eval()(one))
    assert all(torch.equal(kept[name], value) for name, value in norm.state_dict().items())
    with pytest.raises(ValueError, match="more than 1 value"):
        plain(one)

"""Compositions and instances, by hand."""

from __future__ import annotations

import pytest
import torch

from zerodefect.layers.components import components
from zerodefect.layers.instance_matching import (
    class_histogram,
    composition_score,
    fused,
    instance_features,
    instance_masks,
    matching_score,
    nearest_tokens,
)

RIGHT, UP = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])


def test_compositions():
    h = class_histogram(torch.tensor([[0, 0, 0], [1, 1, 1], [1, 2, 2]]), 4)
    torch.testing.assert_close(h, torch.tensor([3.0, 4, 2, 0], dtype=torch.float64) / 29**0.5)
    other = class_histogram(torch.tensor([[3]]), 4)
    assert float(composition_score(h, torch.stack([other, h]))) == pytest.approx(0, abs=1e-12)
    assert float(composition_score(other, h[None])) == 1


def test_instances_on_the_grid_and_their_features():
    mask = torch.zeros(4, 4, dtype=torch.bool)
    mask[:2, :2], mask[3, 3] = True, True  # the second one lies on no pixel that the grid sees
    masks = instance_masks(components(mask), (2, 2))
    assert masks.tolist() == [[True, False, False, False]]
    tokens = torch.tensor([[3.0, 4.0, 7.0], [0, 0, 1], [0, 0, 1], [0, 0, 1]])
    first, second = instance_features(masks, tokens, [2, 1])
    torch.testing.assert_close(first, torch.tensor([[0.6, 0.8]]))
    torch.testing.assert_close(second, torch.tensor([[1.0]]))


def test_the_best_assignment_uses_every_reference_once():
    pair = [torch.stack([RIGHT, RIGHT])]
    assert float(matching_score(pair, [torch.stack([RIGHT, UP])])) == 0.5
    assert float(matching_score(pair, [torch.stack([UP, RIGHT, RIGHT])])) == 0
    assert float(matching_score(pair, [UP[None]])) == 1
    none = [torch.zeros(0, 2)]
    assert float(matching_score(none, pair)) == float(matching_score(pair, none)) == 1


def test_structure_is_the_mean_over_layers():
    tokens = torch.stack([torch.cat([RIGHT, UP]), torch.cat([UP, UP])])
    d = nearest_tokens(tokens, torch.cat([RIGHT, 3 * UP])[None], [2, 2])
    torch.testing.assert_close(d, torch.tensor([0.0, 0.5]))


def test_the_largest_standardised_score_counts():
    s = [torch.tensor([0.5, 0.1]), torch.tensor([2.0, 4.0])]
    got = fused(s, [(0.1, 0.2), (1.0, 1.0)])
    torch.testing.assert_close(got, torch.tensor([2.0, 3.0]).sigmoid())
    assert fused(s[:1], [(0.1, 0.0)]).isfinite().all()

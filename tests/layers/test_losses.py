"""Losses against hand-computed values."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from zerodefect.layers.losses import dice_loss, focal_loss, focal_of_target


def test_focal_loss_by_hand():
    probabilities = torch.tensor([[[[0.9, 0.4]], [[0.1, 0.6]]]])
    masks = torch.tensor([[[0.0, 1.0]]])
    pt = [0.9 * (1 - 1e-5) + 0.1 * 1e-5 + 1e-5, 0.6 * (1 - 1e-5) + 0.4 * 1e-5 + 1e-5]
    expected = sum(-((1 - p) ** 2) * math.log(p) for p in pt) / 2
    assert focal_loss(probabilities, masks).item() == pytest.approx(expected, rel=1e-5)


def test_dice_loss_by_hand():
    probability = torch.tensor([[[0.5, 1.0]], [[0.0, 0.0]]])
    masks = torch.tensor([[[0.0, 1.0]], [[0.0, 0.0]]])
    expected = 1 - ((2 * 1.0 + 1) / (1.5 + 1.0 + 1) + 1.0) / 2
    assert dice_loss(probability, masks).item() == pytest.approx(expected, rel=1e-6)


def test_a_batch_is_the_mean_of_its_images():
    generator = torch.Generator().manual_seed(0)
    probabilities = torch.rand(3, 2, 5, 7, generator=generator).softmax(1)
    masks = (torch.rand(3, 5, 7, generator=generator) > 0.7).float()
    each = range(3)
    focal = torch.stack([focal_loss(probabilities[i : i + 1], masks[i : i + 1]) for i in each])
    dice = torch.stack([dice_loss(probabilities[i : i + 1, 1], masks[i : i + 1]) for i in each])
    torch.testing.assert_close(focal.mean(), focal_loss(probabilities, masks))
    torch.testing.assert_close(dice.mean(), dice_loss(probabilities[:, 1], masks))


def test_focal_loss_of_the_right_class_is_that_of_all_with_a_clamped_target():
    draws = torch.Generator().manual_seed(0)
    p = torch.randn(2, 4, 3, 5, generator=draws).softmax(1)
    columns = torch.randint(4, (2, 3, 5), generator=draws)
    target = F.one_hot(columns, 4).movedim(-1, 1).float().clamp(1e-5 / 3, 1 - 1e-5)
    pt = (target * p).sum(1) + 1e-5
    expected = (-((1 - pt) ** 2) * pt.log()).mean()
    got = focal_of_target(p.gather(1, columns[:, None])[:, 0], 4)
    torch.testing.assert_close(got, expected)

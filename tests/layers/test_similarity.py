"""Similarities and probabilities against plain rewritings of their formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from zerodefect.layers.similarity import (
    anomaly_probability,
    cosine,
    harmonic_mean,
    inner_products,
    text_probabilities,
    two_class,
    upsample,
)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_cosine_by_hand():
    features = torch.tensor([[3.0, 4.0], [0.0, 2.0]])
    texts = torch.tensor([[1.0, 0.0], [0.0, 5.0]])
    torch.testing.assert_close(cosine(features, texts), torch.tensor([[0.6, 0.8], [0.0, 1.0]]))


def test_anomaly_probability_by_hand():
    texts = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    got = anomaly_probability(torch.tensor([[3.0, 4.0]]), texts, 0.07)
    expected = 1 / (1 + np.exp((0.6 - 0.8) / 0.07))
    assert got.item() == pytest.approx(expected, abs=1e-6)


@given(st.integers(0, 1000), st.floats(0.01, 1.0))
def test_probabilities_are_a_distribution_and_ignore_lengths(seed, temperature):
    features = torch.randn(4, 5, 8, generator=seeded(seed))
    texts = torch.randn(3, 8, generator=seeded(seed + 1))
    got = text_probabilities(features, texts, temperature)
    torch.testing.assert_close(got.sum(-1), torch.ones(4, 5))
    torch.testing.assert_close(text_probabilities(7 * features, texts, temperature), got)


def test_anomaly_probability_needs_two_texts():
    with pytest.raises(ValueError, match="got 3"):
        anomaly_probability(torch.randn(1, 4), torch.randn(3, 4), 0.07)


def test_inner_products_stay_exact_under_autocast():
    features, texts = torch.randn(2, 5, 8, generator=seeded(0)), torch.randn(2, 3, 8)
    expected = torch.einsum("bnd,btd->bnt", features, texts)
    torch.testing.assert_close(inner_products(features, texts), expected)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(inner_products(features, texts), expected)


def test_aligned_corners_keep_their_values():
    grid = torch.tensor([[[0.0, 4.0], [8.0, 2.0]]])
    got = upsample(grid, (5, 5), align_corners=True)[0]
    torch.testing.assert_close(got[::4, ::4], grid[0])
    torch.testing.assert_close(got[0], torch.arange(5.0))


def test_maps_of_the_size_asked_for_stay_as_they_are():
    maps = torch.rand(2, 3, 4).to(torch.bfloat16)
    found = upsample(maps, (3, 4))
    assert found.dtype == torch.float32 and torch.equal(found, maps.float())


def test_two_classes_from_the_difference_of_their_logits():
    logits = 5 * torch.randn(3, 2, 4, 5, generator=seeded(1))
    torch.testing.assert_close(two_class(logits[:, 1] - logits[:, 0]), logits.softmax(1))


def test_harmonic_mean_by_hand():
    got = harmonic_mean([torch.tensor([1.0]), torch.tensor([2.0]), torch.tensor([4.0])])
    assert got.item() == pytest.approx(3 / (1 + 0.5 + 0.25))

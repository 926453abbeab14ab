"""Measures of components, by hand."""

from __future__ import annotations

import pytest
import torch

from zerodefect.layers.component_measures import (
    MEASURES,
    component_measures,
    measured_oddness,
)


def bottle(level: int) -> torch.Tensor:
    """A map of 20 x 10 whose component 1 fills the rows from ``level`` on."""
    labels = torch.zeros(20, 10, dtype=torch.long)
    labels[level:, 2:8] = 1
    return labels


def test_measures_by_hand():
    labels = torch.stack([bottle(10), bottle(20)])
    found = component_measures(labels, 3)
    told = dict(zip(MEASURES, found[0, 1].tolist(), strict=True))
    assert told["area"] == pytest.approx(60 / 200)
    assert told["y"] == pytest.approx(0.75) and told["x"] == pytest.approx(0.5)
    assert told["top"] == pytest.approx(0.5) and told["bottom"] == pytest.approx(0.95)
    assert told["left"] == pytest.approx(0.2) and told["right"] == pytest.approx(0.7)
    assert told["parts"] == pytest.approx(0.1)
    assert not found[1, 1].any() and not found[:, 2].any()  # there is none
    two = bottle(10)
    two[14] = 0
    assert component_measures(two[None], 2)[0, 1, -1] == pytest.approx(0.2)


def test_a_level_that_is_off_is_odd_and_variants_are_not():
    levels = [9, 10, 11] * 4
    full = torch.stack([bottle(level) for level in levels])
    other = full * 2  # a variant of another colour
    good = component_measures(torch.cat([full, other]), 3)
    own = component_measures(torch.stack([bottle(10), 2 * bottle(10), bottle(4), bottle(17)]), 3)
    usual, variant, high, low = measured_oddness(own, good).tolist()
    assert max(usual, variant) < 2
    assert min(high, low) > 4
    assert measured_oddness(own, good[:1]).isfinite().all()

"""Histograms of windows, by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from zerodefect.layers.patch_histograms import (
    HistogramGaussian,
    InnerScale,
    left_out_distances,
    window_histograms,
    window_starts,
)


def test_windows_reach_the_end():
    assert window_starts(8, 4) == [0, 4]
    assert window_starts(9, 4) == [0, 4, 5]
    assert window_starts(8, 4, 0.5) == [0, 2, 4]
    assert window_starts(5, 5, 0.9) == [0]
    for wrong in ((4, 5, 0.0), (4, 0, 0.0), (4, 2, 1.0)):
        with pytest.raises(ValueError, match="windows of"):
            window_starts(*wrong)


def test_shares_of_classes_go_down_the_columns_first():
    labels = torch.tensor([[[1, 1, 0, 2], [1, 0, 2, 2], [2, 2, 1, 0], [2, 2, 0, 0]]])
    h = window_histograms(labels, 3, 2)[0].view(4, 3)
    expected = [[0, 0.75, 0], [0, 0, 1], [0, 0, 0.75], [0, 0.25, 0]]
    torch.testing.assert_close(h, torch.tensor(expected, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"labels 0..2 of 2 classes"):
        window_histograms(labels, 2, 2)


def test_few_pictures_give_variances_alone():
    h = torch.tensor([[0.1, 0.5], [0.3, 0.5]], dtype=torch.float64)
    gaussian = HistogramGaussian.of(h)
    torch.testing.assert_close(gaussian.mean, torch.tensor([0.2, 0.5], dtype=torch.float64))
    variances = torch.tensor([0.0201, 0.0001], dtype=torch.float64)
    torch.testing.assert_close(gaussian.inverse, torch.diag(1 / variances))
    off = gaussian.distance(torch.tensor([[0.2, 0.6]]))
    assert float(off) == pytest.approx(0.1 / 0.01, rel=1e-6)
    alone = HistogramGaussian.of(h[:1])
    assert float(alone.distance(h[:1])) == 0 and alone.inverse.isfinite().all()
    with pytest.raises(ValueError, match="no histogram"):
        HistogramGaussian.of(h[:0])


def test_many_give_the_whole_covariance():
    draws = np.random.default_rng(0)
    h = torch.from_numpy(draws.normal(size=(50, 3)) @ draws.normal(size=(3, 3)))
    centred = h - h.mean(0)
    S = torch.linalg.inv(centred.T @ centred / 49)
    torch.testing.assert_close(HistogramGaussian.of(h).inverse, S, rtol=1e-6, atol=1e-6)


def test_a_square_below_zero_becomes_the_plain_distance():
    negative = HistogramGaussian(torch.zeros(2), torch.diag(torch.tensor([-1.0, 1.0])).double())
    d = negative.distance(torch.tensor([[3.0, 0.0], [0.0, 2.0], [4.0, 3.0]]))
    assert d.tolist() == [3.0, 2.0, 5.0]


def test_the_scale_is_that_of_the_middle():
    s = torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0, 100.0])
    scale = InnerScale.of(s)  # 1 and 4 are the quantiles themselves
    assert scale.mean == 2.5 and scale.deviation == 0.5
    assert scale.scaled(torch.tensor([3.5])).tolist() == [2.0]
    same = InnerScale.of(torch.tensor([2.0, 2.0]))
    assert same.scaled(torch.tensor([5.0])).tolist() == [3.0]
    with pytest.raises(ValueError, match="no score"):
        InnerScale.of(s[:0])


def test_each_left_out_is_compared_with_all_others():
    h = torch.rand(12, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    left = left_out_distances(h)
    own = HistogramGaussian.of(torch.cat([h[:4], h[5:]])).distance(h[4:5])
    torch.testing.assert_close(left[4:5], own)
    assert left_out_distances(h[:1]).tolist() == [0.0]

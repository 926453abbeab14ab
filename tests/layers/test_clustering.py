"""k-means against what defines it, and against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans

from zerodefect.layers import clustering
from zerodefect.layers.clustering import kmeans


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def spread_within(points: torch.Tensor, labels: torch.Tensor) -> float:
    """Sum of squared distances to the own cluster's mean."""
    groups = [points[labels == label] for label in labels.unique()]
    return float(sum((g - g.mean(0)).square().sum() for g in groups))


@pytest.mark.parametrize("seed", range(4))
def test_every_point_is_with_the_nearest_mean(seed, monkeypatch):
    monkeypatch.setattr(clustering, "_TOLERANCE", 0.0)
    points = torch.randn(100, 8, generator=seeded(seed), dtype=torch.float64)
    labels = kmeans(points, 20, seeded(seed))
    assert labels.unique().tolist() == list(range(20))
    means = torch.stack([points[labels == q].mean(0) for q in range(20)])
    assert torch.equal(torch.cdist(points, means).argmin(1), labels)


def test_as_good_as_scikit_learns():
    points = torch.randn(100, 16, generator=seeded(3), dtype=torch.float64)
    mine = [spread_within(points, kmeans(points, 20, seeded(seed))) for seed in range(20)]
    theirs = [KMeans(20, n_init=1, random_state=s).fit(points.numpy()).inertia_ for s in range(20)]
    assert np.mean(mine) == pytest.approx(np.mean(theirs), rel=0.01)


def test_clear_groups_are_found_and_the_seed_decides():
    centres = 50 * torch.eye(5)
    points = torch.cat([centre + torch.randn(7, 5, generator=seeded(1)) for centre in centres])
    labels = kmeans(points, 5, seeded(0))
    assert (labels.reshape(5, 7) == labels.reshape(5, 7)[:, :1]).all()
    assert len(labels.unique()) == 5
    noise = torch.randn(60, 3, generator=seeded(2))
    assert torch.equal(kmeans(noise, 9, seeded(4)), kmeans(noise, 9, seeded(4)))
    assert any(
        not torch.equal(kmeans(noise, 9, seeded(4)), kmeans(noise, 9, seeded(s))) for s in range(4)
    )


def test_few_and_equal_points():
    points = torch.randn(3, 2, generator=seeded(0))
    assert sorted(kmeans(points, 20, seeded(0)).tolist()) == [0, 1, 2]
    assert kmeans(torch.ones(6, 2), 4, seeded(0)).tolist() == [0] * 6
    assert kmeans(points, 1, seeded(0)).tolist() == [0, 0, 0]


def test_what_cannot_be_clustered():
    with pytest.raises(ValueError, match="0 clusters"):
        kmeans(torch.ones(2, 2), 0, seeded(0))
    with pytest.raises(ValueError, match="0 points"):
        kmeans(torch.ones(0, 2), 2, seeded(0))
    with pytest.raises(ValueError, match="not finite"):
        kmeans(torch.full((2, 2), float("nan")), 2, seeded(0))

"""Clusters, their names and segments, by hand."""

from __future__ import annotations

import torch

from zerodefect.layers.component_maps import (
    centre_shares,
    cluster_centres,
    finer_tokens,
    named_clusters,
    nearest_centre,
    painted,
    sharpened,
    without_slivers,
)


def test_finer_tokens_keep_the_corners_and_have_unit_length():
    tokens = torch.randn(2, 6, 5, generator=torch.Generator().manual_seed(0))
    fine = finer_tokens(tokens, (2, 3), (5, 9))
    assert fine.shape == (2, 45, 5)
    torch.testing.assert_close(fine.norm(dim=2), torch.ones(2, 45))
    corners = torch.nn.functional.normalize(tokens[:, [0, 2, 3, 5]], dim=2)
    torch.testing.assert_close(fine[:, [0, 8, 36, 44]], corners)


def test_centres_are_found_again_and_the_nearest_is_taken():
    draws = torch.Generator().manual_seed(0)
    true = torch.tensor([[1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0]])
    tokens = true.repeat(1500, 1) + 0.01 * torch.randn(4500, 3, generator=draws)
    centres = cluster_centres(tokens, 3, seed=1)
    assert torch.cdist(true, centres).amin(1).max() < 0.01
    assert torch.equal(centres, cluster_centres(tokens, 3, seed=1))
    near = nearest_centre(tokens[None], centres)[0]
    assert near.shape == (4500,) and len(near[::3].unique()) == 1
    assert len(cluster_centres(true, 8, seed=0)) == 3  # no more than there are points


def test_clusters_take_the_name_they_resemble_but_for_crumbs():
    clusters = torch.zeros(8, 8, dtype=torch.long)
    clusters[:3, :3] = 1  # nine cells
    clusters[6, 6:] = 2  # two cells: too few to be named
    P = torch.zeros(8, 8, 2)
    P[..., 1] = 1
    P[:3, :3] = torch.tensor([1.0, 0.0])
    P[6, 6:] = torch.tensor([1.0, 0.0])
    queries = torch.eye(2)
    named = named_clusters(clusters, 3, P.flatten(0, 1), queries, [0.5, 0.5])
    expected = torch.ones(8, 8, dtype=torch.long)
    expected[:3, :3] = 0
    assert torch.equal(named, expected)
    shy = named_clusters(clusters, 3, P.flatten(0, 1), queries, [1.5, 0.5])
    assert (shy == 1).all()


def test_segments_are_painted_the_smaller_above_and_sharpen_labels():
    segments = torch.zeros(2, 4, 4, dtype=torch.bool)
    segments[0, 1:3, 1:3] = True
    segments[1, :, :3] = True
    numbers = painted(segments)
    assert numbers[0].tolist() == [1, 1, 1, 0] and numbers[1].tolist() == [1, 2, 2, 0]
    assert torch.equal(numbers, painted(segments.to(torch.uint8)))
    labels = torch.tensor([[0, 0], [0, 1]])
    sharp = sharpened(labels, numbers)
    assert sharp[1, 1] == 0 and sharp[0, 3] == 0 and sharp[3, 0] == 0
    assert torch.equal(sharpened(labels, torch.zeros(2, 2, dtype=torch.long)), labels * 0)


def test_slivers_become_background():
    labels = torch.full((20, 20), 3)
    labels[:4, :8] = 0  # 32 pixels
    labels[10:16, :6] = 1  # 36
    cleaned = without_slivers(labels, 3)
    assert (cleaned[:4, :8] == 3).all() and (cleaned[10:16, :6] == 1).all()


def test_what_lies_between_two_centres_belongs_to_both():
    centres = torch.eye(2)
    tokens = torch.tensor([[1.0, 0], [0.5, 0.5], [0.0, 1.0]])
    shares = centre_shares(tokens, centres, 0.2)
    torch.testing.assert_close(shares[1], torch.tensor([0.5, 0.5]))
    squared = torch.cdist(tokens, centres).square()
    torch.testing.assert_close(shares, (-squared / 0.2).softmax(1))
    assert torch.equal(centre_shares(tokens, centres, 1e-3).argmax(1)[::2], torch.tensor([0, 1]))

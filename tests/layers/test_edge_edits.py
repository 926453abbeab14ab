"""Edge edits and the plain edge map."""

from __future__ import annotations

import torch

from zerodefect.layers.edge_edits import edge_map, merge_edges, remove_edges, replace_edges


def test_edits_change_the_region_alone():
    draws = torch.Generator().manual_seed(0)
    E_j, E_i = torch.rand(2, 6, 7, generator=draws)
    M = torch.zeros(6, 7)
    M[1:4, 2:5] = 1
    for made in (remove_edges(E_j, M), replace_edges(E_j, E_i, M), merge_edges(E_j, E_i, M)):
        assert torch.equal(made[M == 0], E_j[M == 0])
        assert made.min() >= 0 and made.max() <= 1
    assert (remove_edges(E_j, M)[M == 1] == 1).all()
    assert torch.equal(replace_edges(E_j, E_i, M)[M == 1], E_i[M == 1])


def test_two_edges_at_one_place_are_one():
    edge, none, M = torch.zeros(1, 1), torch.ones(1, 1), torch.ones(1, 1)
    assert merge_edges(edge, edge, M) == 0 and merge_edges(edge, none, M) == 0
    assert merge_edges(none, none, M) == 1


def test_the_plain_map_lies_where_brightness_changes():
    image = torch.zeros(1, 3, 8, 8)
    image[..., 4:] = 1
    edges = edge_map(image)
    assert (edges[..., 3:5] == 0).all() and (edges[..., :3] == 1).all()
    assert (edge_map(torch.full((1, 3, 4, 4), 0.3)) == 1).all()

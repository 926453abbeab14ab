"""The same defect on many pictures of a batch: found, and taken out of what others compare with.

Pictures that are each other's reference take a defect that many of them have for normal. What gives
it away: a normal patch finds patches like itself in all pictures, ever a little farther away, a
repeated defect in those that have it, and then in none for a long way. The idea is CoDeGraph's
(Le-Gia and Ahn, arXiv 2510.10456); the constants and how groups are found are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from zerodefect.layers.mutual import mean_of_nearest

NEAR = 0.3  # share of the other pictures that a patch is compared with
_LOOKED = 0.5  # share of them among which a gap is looked for
_DEVIATIONS = 4.0  # beyond the median gap that make one unusual
_LINKED = 0.5  # share of a picture's strongest link that another one needs
_DEPENDS = 1.15  # how much farther a patch is from pictures outside its group
_MOST = 0.5  # share of a group's patches that may go; beyond it, it is a variant of the product
_FEWEST, _OUTSIDE = 3, 4  # pictures of a group, and those that must be left to compare with
_FLOOR = 1e-12  # of distances, before they are divided


@dataclass(frozen=True)
class Consistency:
    """What ``consistency_filter`` found among N pictures.

    Attributes:
        gap: per picture ``(L,)`` float64, the largest growth of the sorted distances, weighted by
            its place.
        nearest: per picture ``(L,)`` int64, how many pictures lie before that gap.
        threshold: gaps beyond it are unusual.
        links: ``(N, N)`` float64, from a picture to those that share its unusual patches.
        community: ``(N,)`` int64, number of each picture's group, -1 for none.
        ratio: per picture ``(L,)`` float64, how much farther a patch is from pictures outside its
            group than from all; 1 where there is none.
        keep: per picture ``(L,)`` bool, whether others are to be compared with a patch.
        repeated: groups of pictures that share patches which were taken out, as their numbers.
    """

    gap: list[np.ndarray]
    nearest: list[np.ndarray]
    threshold: float
    links: np.ndarray
    community: np.ndarray
    ratio: list[np.ndarray]
    keep: list[np.ndarray]
    repeated: list[tuple[int, ...]]


def consistency_filter(distances: Sequence[Tensor]) -> Consistency:
    """Find the patches that a batch's pictures share with some of the others alone.

    Fewer than seven pictures have no groups. A defect on more than half of the pictures is
    not told from normal, and a batch that mixes products should not be filtered.

    Args:
        distances: per picture ``(L, N)`` of its patches to the N pictures, as
            ``mutual.mutual_distances`` gives them; its own column does not count.
    """
    N = len(distances)
    D = [np.delete(d.double().cpu().numpy(), i, axis=1) for i, d in enumerate(distances)]
    gaps = [_largest_gap(d) for d in D]
    gap, nearest = [g for g, _, _ in gaps], [k for _, k, _ in gaps]
    threshold = _unusual(np.concatenate(gap)) if gap else 0.0
    links = np.zeros((N, N))
    for i, (g, k, order) in enumerate(gaps):
        others = np.delete(np.arange(N), i)
        for p in np.flatnonzero((g > threshold) & (k >= 2)):
            links[i, others[order[p, : k[p]]]] += g[p]
    community = _communities(links)
    ratio = [np.ones(len(d)) for d in D]
    keep = [np.ones(len(d), bool) for d in D]
    repeated = []
    for number in range(community.max(initial=-1) + 1):
        inside = [int(i) for i in np.flatnonzero(community == number)]
        if not _FEWEST <= len(inside) <= N // 2 or N - len(inside) < _OUTSIDE:
            continue
        for i in inside:
            ratio[i] = _ratio(distances[i], i, inside)
        leaves = {i: ratio[i] >= _DEPENDS for i in inside}
        if np.concatenate(list(leaves.values())).mean() > _MOST:
            continue
        for i, gone in leaves.items():
            keep[i] = ~gone
        sharing = tuple(i for i, gone in leaves.items() if gone.any())
        if sharing:
            repeated.append(sharing)
    return Consistency(gap, nearest, threshold, links, community, ratio, keep, repeated)


def _largest_gap(d: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Largest weighted growth ``(L,)`` of sorted ``(L, N - 1)``, its place from 1, the order."""
    order = np.argsort(d, axis=1, kind="stable")
    others = d.shape[1]
    looked = min(max(1, int(_LOOKED * others)), others - 1)
    if looked < 1:
        return np.zeros(len(d)), np.zeros(len(d), np.int64), order
    s = np.maximum(np.take_along_axis(d, order[:, : looked + 1], 1), _FLOOR)
    g = np.arange(1, looked + 1) * np.log(s[:, 1:] / s[:, :-1])
    place = g.argmax(1)
    return np.take_along_axis(g, place[:, None], 1)[:, 0], place + 1, order


def _unusual(gaps: np.ndarray) -> float:
    median = np.median(gaps)
    return float(median + _DEVIATIONS * 1.4826 * np.median(np.abs(gaps - median)))


def _communities(links: np.ndarray) -> np.ndarray:
    """Groups that are joined by links as strong as half the strongest one of either picture."""
    M = np.minimum(links, links.T)
    strongest = M.max(1, initial=0.0)
    edges = (M > 0) & (_LINKED * np.maximum(strongest[:, None], strongest[None]) <= M)
    _, label = connected_components(sparse.csr_matrix(edges), directed=False)
    joined = edges.any(1)
    numbers = {group: n for n, group in enumerate(dict.fromkeys(label[joined]))}
    return np.array([numbers.get(g, -1) if j else -1 for g, j in zip(label, joined, strict=True)])


def _ratio(d: Tensor, own: int, inside: Sequence[int]) -> np.ndarray:
    everyone = mean_of_nearest(d, NEAR, own=own).clamp(min=_FLOOR)
    outside = np.setdiff1d(np.arange(d.shape[1]), inside)
    return (mean_of_nearest(d[:, outside], NEAR).clamp(min=_FLOOR) / everyone).cpu().numpy()

"""Memory bank of normal features with exact nearest-neighbour search in bounded memory."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Metric = Literal["half_cosine", "euclidean"]

_SPARE = 3  # further candidates, which rounding may have put behind
_SEARCH_BYTES = 32 * 2**20  # of the distances that one search holds at once
_ROWS = 256  # queries of a block, at least: fewer make slow products
_GROUP = 64  # neighbouring columns whose lowest value stands for them
_NARROW = 64  # channels, at most, with which adding squares would cost as much as the product


@dataclass(frozen=True, eq=False)
class MemoryBank:
    """Features of normal images and the distance of new features to their nearest one.

    The search is exact: blocks of the distance matrix are computed one after the other, so that
    its working memory is bounded whatever the sizes.

    The metric ``half_cosine`` is ``(1 - cos) / 2`` in [0, 1] (WinCLIP+), ``euclidean`` the plain L2
    distance.
    """

    features: Tensor  # (M, W), as stored gives them
    groups: Tensor  # (M,) int64 number of the picture that each feature came from
    metric: Metric = "half_cosine"

    @staticmethod
    def stored(features: Tensor, metric: Metric) -> Tensor:
        """Features ``(K, n, W)`` of K images as a bank keeps them, ``(K * n, W)``.

        Raises:
            ValueError: values that are not finite.
        """
        if not torch.isfinite(features).all():
            raise ValueError("reference features are not finite; check the reference images")
        flat = features.detach().flatten(0, 1)
        return F.normalize(flat, dim=-1) if metric == "half_cosine" else flat

    def nearest(self, queries: Tensor, left_out: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Distance to the nearest stored feature and its row: ``(Q, W) -> (Q,), (Q,)`` int64.

        Arguments, results and errors as of ``neighbours``, of one neighbour: ``(Q,)`` each.
        """
        distance, index = self.neighbours(queries, 1, left_out)
        return distance[:, 0], index[:, 0]

    def neighbours(
        self, queries: Tensor, count: int, left_out: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Distances to and indices of the nearest stored features, the nearest first.

        Args:
            queries: ``(Q, W)``.
            count: how many of them; all, where fewer are stored.
            left_out: ``(Q,)`` picture whose features do not count for each query, or ``(Q, G)``
                pictures.

        Returns:
            ``(Q, count)`` distances, infinite where too few are left, and ``(Q, count)`` int64 rows
            of ``features``.

        Raises:
            RuntimeError: the bank is empty, or holds only what ``left_out`` excludes.
        """
        if not len(self.features):
            raise RuntimeError("the memory bank is empty; call remember(...) with normal images")
        if self.metric == "half_cosine":
            queries = F.normalize(queries, dim=-1)
        count, size = min(count, len(self.features)), self.features.element_size()
        cells, least = _SEARCH_BYTES // (4 * size), _ROWS
        if self._lifted is not None:  # products are quick, and what they write fills the cache
            cells, least = cells // 2, least // 2
        rows = max(1, min(len(queries), max(least, cells // len(self.features)), cells // least))
        groups = left_out.split(rows) if left_out is not None else [None] * len(queries)
        parts = [
            self._search(block, group, count, max(1, cells // rows))
            for block, group in zip(queries.split(rows), groups, strict=False)
        ]
        distance = torch.cat([d for d, _ in parts])
        if torch.isinf(distance[:, 0]).any():
            raise RuntimeError("leave-one-out needs at least two reference images")
        return distance, torch.cat([i for _, i in parts])

    def _search(
        self, queries: Tensor, group: Tensor | None, count: int, columns: int
    ) -> tuple[Tensor, Tensor]:
        asked = min(count + (_SPARE if self.metric == "euclidean" else 0), len(self.features))
        best = queries.new_full((len(queries), 0), torch.inf)
        index = torch.zeros_like(best, dtype=torch.long)
        for start in range(0, len(self.features), columns):
            block = slice(start, start + columns)
            distance = self._distances(queries, block)
            if group is not None:
                for own in group.view(len(group), -1).T:
                    distance.masked_fill_(self.groups[block] == own[:, None], torch.inf)
            found, where = _lowest(distance, asked)
            if distance.shape[1] == len(self.features):  # all at once, nothing to merge
                best, index = found, where
                break
            best, order = torch.cat([best, found], 1).sort(dim=1, stable=True)
            index = torch.cat([index, where + start], 1).gather(1, order)
            best, index = best[:, :asked], index[:, :asked]
        if self.metric == "half_cosine":
            return ((1 + best) / 2).clamp_(min=0), index  # rounding gives cosines beyond 1
        best, order = self._exact(queries, best, index).sort(dim=1, stable=True)
        return best[:, :count], index.gather(1, order)[:, :count]

    @cached_property
    def _squares(self) -> Tensor:
        return self.features.norm(dim=1).square_()  # five times as fast as vecdot

    @cached_property
    def _lifted(self) -> Tensor | None:
        """Rows ``(M, W + 1)`` that give squares and product at once; None where that is no gain."""
        wide = self.features.shape[1] > _NARROW or self.features.nbytes > _SEARCH_BYTES
        if wide or self.metric == "half_cosine":
            return None
        return torch.cat([-2 * self.features, self._squares[:, None]], dim=1)

    def _distances(self, queries: Tensor, block: slice) -> Tensor:
        """What grows with the distance: -cos, or squared ones less ``|query|^2``: ``(Q, M)``."""
        if self.metric == "half_cosine":
            return queries.neg() @ self.features[block].T
        if self._lifted is not None:
            return F.pad(queries, (0, 1), value=1.0) @ self._lifted[block].T
        return torch.addmm(self._squares[block], queries, self.features[block].T, alpha=-2)

    def _exact(self, queries: Tensor, best: Tensor, index: Tensor) -> Tensor:
        """Euclidean distances of the candidates.

        Taken from products they would lose half their digits near zero. Products only find the
        candidates, with some to spare: 25 times faster than differences with all.
        """
        picked = (self.features.index_select(0, rows) for rows in index.T)
        columns = [(queries - features).norm(dim=1) for features in picked]
        return torch.stack(columns, dim=1).masked_fill(best == torch.inf, torch.inf)


def _lowest(distance: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """``distance.topk(count, largest=False)`` of ``(Q, M)``, or all where there are fewer.

    The lowest values lie in the groups of the lowest minima, and minima cost a fraction of topk.
    """
    groups = distance.shape[1] // _GROUP
    if groups < 4 * count:
        return distance.topk(min(count, distance.shape[1]), dim=1, largest=False)
    whole, rest = distance.tensor_split([groups * _GROUP], dim=1)
    cells = whole.unflatten(1, (groups, _GROUP))
    held = cells.amin(dim=2).topk(count, dim=1, largest=False, sorted=False).indices
    among = cells.gather(1, held[:, :, None].expand(-1, -1, _GROUP)).flatten(1)
    if rest.shape[1]:  # one more group, which is not a whole one
        among, held = torch.cat([among, rest], dim=1), F.pad(held, (0, 1), value=groups)
    found, where = among.topk(count, dim=1, largest=False)
    return found, held.gather(1, where // _GROUP) * _GROUP + where % _GROUP

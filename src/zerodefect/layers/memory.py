"""Memory bank of normal features with exact nearest-neighbour search in bounded memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Metric = Literal["half_cosine", "euclidean"]

_SPARE = 3  # further candidates, which rounding may have put behind
_SEARCH_BYTES = 64 * 2**20  # of the distances that one search holds at once


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
            left_out: ``(Q,)`` picture whose features do not count for each query.

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
        cells = _SEARCH_BYTES // (4 * size)
        rows = max(1, min(len(queries), cells // max(256, self.features.shape[1])))
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
            distance = self._distances(queries, self.features[start : start + columns])
            if group is not None:
                same = self.groups[start : start + columns] == group[:, None]
                distance = distance.masked_fill(same, torch.inf)
            found, where = distance.topk(min(asked, distance.shape[1]), dim=1, largest=False)
            best, order = torch.cat([best, found], 1).sort(dim=1, stable=True)
            index = torch.cat([index, where + start], 1).gather(1, order)
            best, index = best[:, :asked], index[:, :asked]
        if self.metric == "euclidean":
            best, order = self._exact(queries, best, index).sort(dim=1, stable=True)
            index = index.gather(1, order)
        return best[:, :count], index[:, :count]

    def _distances(self, queries: Tensor, stored: Tensor) -> Tensor:
        """Half cosine distances, or squared Euclidean ones less ``|query|^2``: ``(Q, M)``."""
        if self.metric == "half_cosine":
            return (1 - queries @ stored.T) / 2
        return torch.addmm(stored.square().sum(1)[None], queries, stored.T, alpha=-2)

    def _exact(self, queries: Tensor, best: Tensor, index: Tensor) -> Tensor:
        """Euclidean distances of the candidates.

        Taken from products they would lose half their digits near zero. Products only find the
        candidates, with some to spare: 25 times faster than differences with all.
        """
        columns = [(queries - self.features[rows]).norm(dim=1) for rows in index.T]
        return torch.stack(columns, dim=1).masked_fill(best == torch.inf, torch.inf)

"""Memory bank of normal features with exact nearest-neighbour search in bounded memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Metric = Literal["half_cosine", "euclidean"]

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

        ``left_out (Q,)`` is the picture whose features do not count for each query.

        Raises:
            RuntimeError: the bank is empty, or holds only what ``left_out`` excludes.
        """
        if not len(self.features):
            raise RuntimeError("the memory bank is empty; call remember(...) with normal images")
        if self.metric == "half_cosine":
            queries = F.normalize(queries, dim=-1)
        cells = _SEARCH_BYTES // (4 * self.features.element_size())
        rows = max(1, min(len(queries), cells // 256))
        groups = left_out.split(rows) if left_out is not None else [None] * len(queries)
        parts = [
            self._search(block, group, max(1, cells // rows))
            for block, group in zip(queries.split(rows), groups, strict=False)
        ]
        distance = torch.cat([d for d, _ in parts])
        if torch.isinf(distance).any():
            raise RuntimeError("leave-one-out needs at least two reference images")
        return distance, torch.cat([i for _, i in parts])

    def _search(self, queries: Tensor, group: Tensor | None, columns: int) -> tuple[Tensor, Tensor]:
        best = queries.new_full((len(queries),), torch.inf)
        index = torch.zeros(len(queries), dtype=torch.long, device=queries.device)
        for start in range(0, len(self.features), columns):
            distance = self._distances(queries, self.features[start : start + columns])
            if group is not None:
                same = self.groups[start : start + columns] == group[:, None]
                distance = distance.masked_fill(same, torch.inf)
            smallest, where = distance.min(dim=1)
            index = torch.where(smallest < best, where + start, index)
            best = torch.minimum(best, smallest)
        return best, index

    def _distances(self, queries: Tensor, stored: Tensor) -> Tensor:
        if self.metric == "half_cosine":
            return (1 - queries @ stored.T) / 2
        # not the expanded form |a|^2 - 2ab + |b|^2: it loses half the digits near zero
        return torch.cdist(queries, stored, compute_mode="donot_use_mm_for_euclid_dist")

"""Memory bank of normal features with exact nearest-neighbour search in bounded memory."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Metric = Literal["half_cosine", "euclidean"]


class MemoryBank(nn.Module):
    """Features of normal images and the distance of new features to their nearest one.

    The search is exact: blocks of the distance matrix are computed one after the other, so that
    the working memory stays under ``budget`` whatever the sizes.

    Args:
        metric: ``half_cosine`` is ``(1 - cos) / 2`` in [0, 1] (WinCLIP+); ``euclidean`` the plain
            L2 distance.
        budget: working memory of one search in bytes.
    """

    features: Tensor
    groups: Tensor

    def __init__(self, metric: Metric = "half_cosine", budget: int = 64 * 2**20) -> None:
        super().__init__()
        self.metric = metric
        self.budget = budget
        self.register_buffer("features", torch.empty(0, 0), persistent=True)
        self.register_buffer("groups", torch.empty(0, dtype=torch.long), persistent=True)

    def __len__(self) -> int:
        return self.features.shape[0]

    @property
    def bytes(self) -> int:
        """Bytes that the stored features take."""
        return self.features.numel() * self.features.element_size()

    def clear(self) -> None:
        """Forget everything."""
        self.features = self.features.new_empty(0, 0)
        self.groups = self.groups.new_empty(0)

    def add(self, features: Tensor, groups: Tensor | None = None) -> None:
        """Store the features of ``K`` further images.

        Args:
            features: ``(K, n, W)``; the first axis tells which image a feature came from.
            groups: ``(K,)`` int64 number under which each image can be left out; by default the
                images are numbered in the order in which they come.

        Raises:
            ValueError: another width than the features already stored, or non-finite values.
        """
        if not torch.isfinite(features).all():
            raise ValueError("reference features are not finite; check the reference images")
        if len(self) and features.shape[-1] != self.features.shape[-1]:
            raise ValueError(
                f"features of width {features.shape[-1]} do not fit a memory bank of width "
                f"{self.features.shape[-1]}"
            )
        flat = features.detach().flatten(0, 1)
        if self.metric == "half_cosine":
            flat = F.normalize(flat, dim=-1)
        if groups is None:
            first = int(self.groups.max()) + 1 if len(self) else 0
            groups = torch.arange(features.shape[0]) + first
        groups = groups.to(flat.device).repeat_interleave(features.shape[1])
        self.features = torch.cat([self.features, flat]) if len(self) else flat
        self.groups = torch.cat([self.groups.to(flat.device), groups])

    def nearest(self, queries: Tensor, own_group: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Distance to and index of the nearest stored feature.

        Args:
            queries: ``(Q, W)``.
            own_group: ``(Q,)`` image number of each query; features of that image do not count
                (leave-one-out over the stored images).

        Returns:
            ``(Q,)`` distances and ``(Q,)`` int64 rows of ``features``.

        Raises:
            RuntimeError: the bank is empty, or holds only what ``own_group`` excludes.
        """
        if not len(self):
            raise RuntimeError("the memory bank is empty; call remember(...) with normal images")
        if self.metric == "half_cosine":
            queries = F.normalize(queries, dim=-1)
        rows = max(1, min(len(queries), self.budget // (4 * self.features.element_size() * 256)))
        columns = max(1, self.budget // (4 * self.features.element_size() * rows))
        parts = [
            self._search(block, group, columns)
            for block, group in zip(
                queries.split(rows),
                own_group.split(rows) if own_group is not None else [None] * len(queries),
                strict=False,
            )
        ]
        distance = torch.cat([d for d, _ in parts])
        if torch.isinf(distance).any():
            raise RuntimeError("leave-one-out needs at least two reference images")
        return distance, torch.cat([i for _, i in parts])

    def _search(self, queries: Tensor, group: Tensor | None, columns: int) -> tuple[Tensor, Tensor]:
        best = queries.new_full((len(queries),), torch.inf)
        index = torch.zeros(len(queries), dtype=torch.long, device=queries.device)
        for start in range(0, len(self), columns):
            stored = self.features[start : start + columns]
            distance = self._distances(queries, stored)
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

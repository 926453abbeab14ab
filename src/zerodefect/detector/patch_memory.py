"""What detectors share that compare features with those of a few normal references."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from zerodefect.detector.contract import Detector, concatenate
from zerodefect.layers.memory import MemoryBank
from zerodefect.types import Prediction

_IMAGES = 8  # that run through the network at once


class RememberingDetector(Detector):
    """A detector with memory banks of patch or window features.

    A subclass holds its banks as submodules and defines ``encode``, ``references`` and ``judge``.
    """

    monotone_memory = True  # the distance to the nearest of more references never grows

    def references(self, encoded: Any) -> list[Tensor]:
        """Features ``(B, n, W)`` of what ``encode`` gave, one tensor for each of ``banks``."""
        raise NotImplementedError(f"{type(self).__name__} does not say what it remembers")

    def judge(self, encoded: Any, own_group: Tensor | None) -> Prediction:
        """Score what ``encode`` gave against words and references.

        Args:
            encoded: features of B images.
            own_group: ``(B,)`` reference group that does not count for each image, or None.
        """
        raise NotImplementedError(f"{type(self).__name__} defines no scoring")

    @property
    def banks(self) -> list[MemoryBank]:
        """All memory banks, in the order in which they were made."""
        return [module for module in self.modules() if isinstance(module, MemoryBank)]

    @property
    def shots(self) -> int:
        """Number of images remembered."""
        groups = self.banks[0].groups
        return int(groups.max()) + 1 if len(groups) else 0

    @torch.no_grad()
    def remember(self, images: Tensor) -> None:
        """Store the features of normal images ``(K, 3, H, W)``, after those stored before."""
        for some in images.split(_IMAGES):
            self._store(self.encode(some))

    def _store(self, encoded: Any, groups: Tensor | None = None) -> None:
        for bank, features in zip(self.banks, self.references(encoded), strict=True):
            bank.add(features, groups)

    def forget(self) -> None:
        """Drop all remembered images; words stay."""
        for bank in self.banks:
            bank.clear()

    @torch.no_grad()
    def forward(self, images: Tensor) -> Prediction:
        """Score ``(B, 3, H, W)``."""
        return self.predict(self.encode(images))

    @torch.no_grad()
    def predict(self, encoded: Any) -> Prediction:
        """Score what ``encode`` gave against the present words and references."""
        return self.judge(encoded, None)

    @torch.no_grad()
    def score_left_out(self, images: Tensor, groups: Tensor | None = None) -> Prediction:
        """Score each image against the other ones, whose features are computed once."""
        if self.shots:
            return super().score_left_out(images, groups)
        own = self._groups(images, groups).split(_IMAGES)
        parts = [self.encode(part) for part in images.split(_IMAGES)]
        try:
            for part, group in zip(parts, own, strict=True):
                self._store(part, group)
            return concatenate(
                [self.judge(part, group) for part, group in zip(parts, own, strict=True)]
            )
        finally:
            self.forget()


def nearest(bank: MemoryBank, features: Tensor, own_group: Tensor | None) -> Tensor:
    """Distance ``(B, n)`` of features ``(B, n, W)`` to the nearest one stored.

    Args:
        bank: the memory.
        features: of B images.
        own_group: ``(B,)`` group that does not count for each image, or None.
    """
    batch, count = features.shape[:2]
    own = None if own_group is None else own_group.repeat_interleave(count)
    return bank.nearest(features.flatten(0, 1), own)[0].unflatten(0, (batch, count))

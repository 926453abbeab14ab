"""A memory whose references say of each other how far a good patch lies from other good ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from zerodefect.detector.knowledge import Knowledge
from zerodefect.detector.patch_memory import PatchMemory
from zerodefect.layers.memory import MemoryBank

_SAMPLE = 512  # patches of a picture, at most, that the scale of a stage is learned from
_SPEAKING = 8  # pictures, at most, that it is learned from
_BANDS = 8  # of a single picture


@dataclass
class StageMemory(PatchMemory):
    """Banks of at most so many patches that know how far each lies from the other pictures' ones.

    Attributes:
        items: patches that a bank keeps.
    """

    items: int = 6_272
    beside: ClassVar[int] = 16  # two o(m) and a picture

    def leaves_out(self, knowledge: Knowledge) -> bool:
        """Whether enough pictures are left to speak of each other.

        The scale stays as it is, and what was thinned out for them is not brought back: a picture
        that is left out lies a little further from the others than it would.
        """
        return knowledge.shots > 2

    def own(self, knowledge: Knowledge, name: str, rows: Tensor, left_out: Tensor | None) -> Tensor:
        """o(m) of items, by their rows, where pictures ``left_out`` (of the same shape) are."""
        o = knowledge[f"own/{name}"][rows]
        if left_out is None:
            return o[..., 0]
        return torch.where(knowledge[f"whose/{name}"][rows] == left_out, o[..., 1], o[..., 0])

    def measured(self, knowledge: Knowledge, name: str, density: float) -> Knowledge:
        """The knowledge with what the references say of each other.

        That is ``own/NAME (M, 2)``: o(m) of every item, and what it is without the picture
        ``whose/NAME (M,)`` that holds the nearest patch; and ``scale/NAME (2,)``: mu and sigma.
        """
        bank = self.bank(knowledge, name)
        if len(bank.features) > self.items:
            rows = torch.arange(len(bank.features), device=bank.features.device)
            knowledge = self.only(knowledge, name, spread_rows(rows, self.items))
            bank = self.bank(knowledge, name)
        groups = bank.groups
        if knowledge.shots < 2:  # bands of the only picture speak of each other
            groups = torch.arange(len(groups), device=groups.device) * _BANDS // len(groups)
        bank = MemoryBank(bank.features, groups, "euclidean")
        o, row = bank.nearest(bank.features, groups)
        whose = groups[row]
        without = o  # of two pictures, there is no third
        if len(groups.unique()) > 2:
            without, _ = bank.nearest(bank.features, torch.stack([groups, whose], dim=1))
        said = {f"own/{name}": torch.stack([o, without], dim=1), f"whose/{name}": whose}
        knowledge = knowledge.having(said)
        each = [(groups == one).nonzero()[:, 0] for one in spread_rows(groups.unique(), _SPEAKING)]
        rows = torch.cat([spread_rows(own, _SAMPLE) for own in each])
        d, row = bank.nearest(bank.features[rows], groups[rows])
        r = d - density * self.own(knowledge, name, row, groups[rows])
        scale = torch.stack([r.mean(), r.std().clamp(min=1e-6)])
        return knowledge.having({f"scale/{name}": scale})


def spread_rows(values: Tensor, count: int) -> Tensor:
    """Evenly spread rows, ``count`` at most."""
    last, rows = len(values) - 1, min(count, len(values))
    return values[torch.linspace(0, last, rows, dtype=torch.float64).long()]  # of any length

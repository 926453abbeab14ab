"""The memory of patch features that detectors with references share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from zerodefect.detector.composed import images_of, numbered
from zerodefect.detector.knowledge import Knowledge
from zerodefect.layers.coreset import thinned
from zerodefect.layers.memory import MemoryBank, Metric

DEFAULT_BUDGET = 2 * 2**30  # bytes


@dataclass
class PatchMemory:
    """Remembers features of normal images and finds the nearest of them.

    Each name is a bank of its own, such as patches and windows. All are kept as long as they fit
    into the budget, and every distance is exact. Beyond it the features are thinned, again and
    again as they come, so that those kept stand for all; then no picture can be left out any more.
    """

    metric: Metric = "half_cosine"  # see layers.memory.MemoryBank
    budget: int = DEFAULT_BUDGET  # bytes that all banks together may take
    constant: ClassVar[bool] = False
    beside: ClassVar[int] = 0  # bytes that are kept with each feature

    def remember(
        self,
        knowledge: Knowledge,
        batches: Iterable[Mapping[str, Tensor]],
        pictures: Iterable[Tensor] | None = None,
    ) -> Knowledge:
        """Add features ``(B, n, C)`` by name, batch by batch; see ``Detector.remember``.

        Raises:
            ValueError: features that are not finite, or of another width than those remembered.
        """
        held = self._held(knowledge)
        shots, thin = knowledge.shots, bool(knowledge.facts.get("thinned"))
        for features, own, so_far in numbered(batches, pictures, knowledge.shots, images_of):
            shots = so_far
            for name, values in features.items():
                flat = MemoryBank.stored(values, self.metric)
                rows = own.to(flat.device).repeat_interleave(values.shape[1])
                held.setdefault(name, []).append((flat, rows))
            if self._bytes(held) > 1.5 * self.budget:  # half as much again: seldom
                held, thin = self._thin(held), True
        if self._bytes(held) > self.budget:
            held, thin = self._thin(held), True
        tensors = {}
        for name, parts in held.items():
            _check_width(name, parts)
            tensors[_PLACE + name] = torch.cat([features for features, _ in parts])
            tensors[_NUMBERS + name] = torch.cat([rows for _, rows in parts])
        facts = {**knowledge.facts, "thinned": True} if thin else knowledge.facts
        return knowledge.having(tensors, shots=shots, facts=facts)

    def settle(self, knowledge: Knowledge) -> Knowledge:
        """Nothing is left to be done: it was thinned as it came."""
        return knowledge

    def only(self, knowledge: Knowledge, name: str, rows: Tensor) -> Knowledge:
        """The knowledge with these rows of a bank alone; no picture can be left out any more."""
        places = (_PLACE + name, _NUMBERS + name)
        tensors = {place: knowledge[place][rows] for place in places}
        return knowledge.having(tensors, facts={**knowledge.facts, "thinned": True})

    def _held(self, knowledge: Knowledge) -> _Held:
        banks = [name.removeprefix(_PLACE) for name in knowledge.tensors if name.startswith(_PLACE)]
        return {n: [(knowledge[_PLACE + n], knowledge[_NUMBERS + n])] for n in banks}

    def _thin(self, held: _Held) -> _Held:
        share = self.budget / self._bytes(held)
        thin: _Held = {}
        for name, parts in held.items():
            features, rows = (torch.cat(values) for values in zip(*parts, strict=True))
            kept = thinned(features, max(1, int(share * len(features))))
            thin[name] = [(features[kept], rows[kept])]
        return thin

    def bytes_of(self, features: Mapping[str, Tensor]) -> int:
        """Bytes that the features of a batch take."""
        return sum(v.nbytes + self.beside * v[..., 0].numel() for v in features.values())

    def _bytes(self, held: _Held) -> int:
        return sum(f.nbytes + self.beside * len(f) for parts in held.values() for f, _ in parts)

    def leaves_out(self, knowledge: Knowledge) -> bool:
        """Whether a picture can be left out as if it had never been remembered: all are kept."""
        return not knowledge.facts.get("thinned")

    def bank(self, knowledge: Knowledge, name: str) -> MemoryBank:
        """All features of a name."""
        return MemoryBank(knowledge[_PLACE + name], knowledge[_NUMBERS + name], self.metric)

    def distance(
        self, knowledge: Knowledge, name: str, features: Tensor, left_out: Tensor | None = None
    ) -> Tensor:
        """Distance ``(B, n)`` of features ``(B, n, C)`` to the nearest one in the bank ``name``.

        ``left_out (B,)`` is the picture that does not count for each image.

        Raises:
            RuntimeError: nothing is left, or a picture cannot be left out of a thinned memory.
        """
        return self.neighbours(knowledge, name, features, 1, left_out)[0][..., 0]

    def neighbours(
        self,
        knowledge: Knowledge,
        name: str,
        features: Tensor,
        count: int,
        left_out: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Distances and rows ``(B, n, count)`` of the nearest ones; see ``distance``."""
        if left_out is not None and not self.leaves_out(knowledge):
            raise RuntimeError("a memory that was thinned cannot leave a picture out")
        shape = features.shape[:2]
        own = None if left_out is None else left_out.repeat_interleave(shape[1])
        found, rows = self.bank(knowledge, name).neighbours(features.flatten(0, 1), count, own)
        return found.unflatten(0, shape), rows.unflatten(0, shape)


_PLACE, _NUMBERS = "memory/", "pictures/"
_Held = dict[str, list[tuple[Tensor, Tensor]]]


def _check_width(name: str, parts: list[tuple[Tensor, Tensor]]) -> None:
    widths = {features.shape[1] for features, _ in parts}
    if len(widths) > 1:
        raise ValueError(f"features {name!r} of widths {sorted(widths)} do not fit one memory")

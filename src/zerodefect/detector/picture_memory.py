"""A memory of whole pictures, for detectors that show references to a model as they are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from zerodefect.detector.composed import images_of, numbered
from zerodefect.detector.knowledge import Knowledge

_PLACE, _NUMBERS = "memory/shown/", "pictures/shown"


@dataclass
class PictureMemory:
    """Keeps the first few pictures, as bytes; further ones are counted and not kept.

    Attributes:
        most: pictures that are kept.
        budget: bytes that they may take; what is beyond is not kept either.
    """

    most: int
    budget: int = 2**30
    constant: ClassVar[bool] = False

    def remember(
        self,
        knowledge: Knowledge,
        batches: Iterable[Mapping[str, Tensor]],
        pictures: Iterable[Tensor] | None = None,
    ) -> Knowledge:
        """Add pictures ``(B, 3, H, W)`` in [0, 1] under any name; see ``Detector.remember``.

        Raises:
            ValueError: values that are not finite.
        """
        kept, numbers = self._kept(knowledge)
        shots, full = knowledge.shots, not self.leaves_out(knowledge)
        for features, own, so_far in numbered(batches, pictures, shots, images_of):
            shots = so_far
            (values,) = features.values()
            if not values.isfinite().all():
                raise ValueError("references hold values that are not finite")
            for picture, number in zip(to_bytes(values), own.tolist(), strict=True):
                taken = sum(one.nbytes for one in kept)
                if len(kept) == self.most or taken + picture.nbytes > self.budget:
                    full = True
                else:
                    kept, numbers = [*kept, picture], [*numbers, number]
        tensors = {f"{_PLACE}{place:04d}": picture for place, picture in enumerate(kept)}
        tensors[_NUMBERS] = torch.tensor(numbers, dtype=torch.int64)
        facts = {**knowledge.facts, "thinned": True} if full else knowledge.facts
        return knowledge.having(tensors, shots=shots, facts=facts)

    def shown(self, knowledge: Knowledge, left_out: int | None = None) -> list[Tensor]:
        """Pictures ``(3, H, W)`` uint8, in the order in which they came.

        Args:
            knowledge: what was remembered.
            left_out: number of a picture that does not count.

        Raises:
            RuntimeError: nothing is left, or not all that was remembered is kept.
        """
        kept, numbers = self._kept(knowledge)
        if left_out is None:
            return kept
        if not self.leaves_out(knowledge):
            raise RuntimeError("a memory that was thinned cannot leave a picture out")
        rest = [one for one, number in zip(kept, numbers, strict=True) if number != left_out]
        if kept and not rest:
            raise RuntimeError("leaving a reference out takes at least two of them")
        return rest

    def settle(self, knowledge: Knowledge) -> Knowledge:
        """Nothing is left to be done."""
        return knowledge

    def bytes_of(self, features: Mapping[str, Tensor]) -> int:
        """Bytes that the pictures of a batch take."""
        return sum(values.numel() for values in features.values())

    def leaves_out(self, knowledge: Knowledge) -> bool:
        """Whether all that was remembered is kept."""
        return not knowledge.facts.get("thinned")

    def _kept(self, knowledge: Knowledge) -> tuple[list[Tensor], list[int]]:
        places = sorted(name for name in knowledge.tensors if name.startswith(_PLACE))
        numbers = knowledge[_NUMBERS].tolist() if _NUMBERS in knowledge else []
        return [knowledge[place] for place in places], numbers


def to_bytes(pictures: Tensor) -> Tensor:
    """Pictures in [0, 1] as uint8; what lies outside is cut off."""
    return (pictures.clamp(0, 1) * 255).round().to(torch.uint8)

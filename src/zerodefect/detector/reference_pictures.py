"""The memory of detectors that compare a picture with whole reference pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from zerodefect.detector.composed import images_of, numbered
from zerodefect.detector.knowledge import Knowledge
from zerodefect.detector.patch_memory import DEFAULT_BUDGET

_PLACE, _NUMBERS = "pictures_of/", "pictures/numbers"


@dataclass
class ReferencePictures:
    """Remembers features of pictures as they are, one row for each picture or tile.

    Beyond its budget it keeps pictures evenly spread over those that it was shown.

    Attributes:
        learn: makes of the knowledge what follows from all pictures together, by name; what
            begins with ``scale/`` is a scale that stays when a picture is left out.
        apart: whether a picture can be left out: nothing else follows from all of them.
        budget: bytes that all pictures together may take.
    """

    learn: Callable[[Knowledge], Mapping[str, Tensor]]
    apart: bool = False
    budget: int = DEFAULT_BUDGET
    constant: ClassVar[bool] = False

    def remember(
        self,
        knowledge: Knowledge,
        batches: Iterable[Mapping[str, Tensor]],
        pictures: Iterable[Tensor] | None = None,
    ) -> Knowledge:
        """Add features ``(B, ...)`` by name; see ``Detector.remember``.

        Raises:
            ValueError: values that are not finite, or pictures of another size than those before.
        """
        held = {n: t for n, t in knowledge.tensors.items() if n.startswith(_PLACE)}
        if _NUMBERS in knowledge:
            held[_NUMBERS] = knowledge[_NUMBERS]
        shots, thin = knowledge.shots, bool(knowledge.facts.get("thinned"))
        for features, own, so_far in numbered(batches, pictures, shots, images_of):
            shots = so_far
            added = {_PLACE + name: values.detach() for name, values in features.items()}
            added[_NUMBERS] = own.to(next(iter(added.values())).device)
            for name, values in added.items():
                held[name] = self._joined(held.get(name), values)
            if self._bytes(held) > self.budget:
                held, thin = self._thinned(held), True
        facts = {**knowledge.facts, "thinned": True} if thin else knowledge.facts
        return knowledge.having(held, shots=shots, facts=facts)

    @staticmethod
    def _joined(before: Tensor | None, values: Tensor) -> Tensor:
        if values.is_floating_point() and not torch.isfinite(values).all():
            raise ValueError("reference features are not finite; check the reference images")
        if before is None:
            return values
        if before.shape[1:] != values.shape[1:]:
            raise ValueError(
                f"references of {tuple(values.shape[1:])} features beside those of "
                f"{tuple(before.shape[1:])}: give inputs of the same size"
            )
        return torch.cat([before, values.to(before.device)])

    def _thinned(self, held: dict[str, Tensor]) -> dict[str, Tensor]:
        n = len(held[_NUMBERS])
        kept = max(1, int(n * self.budget / self._bytes(held)))
        rows = torch.linspace(0, n - 1, kept).long()
        return {name: values[rows.to(values.device)] for name, values in held.items()}

    @staticmethod
    def _bytes(held: Mapping[str, Tensor]) -> int:
        return sum(values.nbytes for name, values in held.items() if name != _NUMBERS)

    def settle(self, knowledge: Knowledge) -> Knowledge:
        """Learn what follows from all pictures together; they stay for further ones."""
        return knowledge.having(self.learn(knowledge)) if knowledge.shots else knowledge

    def bytes_of(self, features: Mapping[str, Tensor]) -> int:
        """Bytes that the features of a batch take."""
        return sum(values.nbytes for values in features.values())

    def leaves_out(self, knowledge: Knowledge) -> bool:
        """Whether two pictures are left without any one; the scales stay as they are."""
        return self.apart and _NUMBERS in knowledge and len(knowledge[_NUMBERS].unique()) > 2

    def check(self, left_out: Tensor | None) -> None:
        """Refuse to leave a picture out where that cannot be.

        Raises:
            RuntimeError: what was learned, or thinned, is of all pictures together.
        """
        if left_out is not None and not self.apart:
            raise RuntimeError(
                "a memory that was thinned, or learned from all pictures together, cannot leave "
                "one out"
            )

    def of(self, knowledge: Knowledge, name: str) -> Tensor:
        """Features ``(n, ...)`` of all pictures that are remembered."""
        return knowledge[_PLACE + name]

    def numbers(self, knowledge: Knowledge) -> Tensor:
        """Number ``(n,)`` of the picture that each row is of."""
        return knowledge[_NUMBERS]

    def others(self, knowledge: Knowledge, left_out: int | None) -> Tensor:
        """Rows ``(n,)`` of all pictures but one.

        Raises:
            RuntimeError: none is left.
        """
        numbers = self.numbers(knowledge)
        kept = (
            torch.ones_like(numbers, dtype=torch.bool)
            if left_out is None
            else (numbers != left_out)
        )
        if not kept.any():
            raise RuntimeError("leave-one-out needs at least two reference images")
        return kept.nonzero()[:, 0]

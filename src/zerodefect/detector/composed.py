"""Parts that a detector composes: how it keeps references, what is made later, steps over a set."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import repeat
from typing import Any, ClassVar, Protocol, TypeVar

import torch
from torch import Tensor

from zerodefect.detector.knowledge import Knowledge
from zerodefect.types import Prediction

_B = TypeVar("_B")


class Later:
    """What a network makes of its inputs: one that is not asked costs nothing."""

    def __init__(self, make: Callable[[Any], Any], inputs: Any) -> None:
        self._make, self._inputs = make, inputs
        self._made: Any = None

    @property
    def value(self) -> Any:
        """Made at the first call."""
        if self._inputs is not None:
            self._made, self._inputs = self._make(self._inputs), None
        return self._made

    def __getstate__(self) -> dict[str, Any]:
        """Made before it goes elsewhere, without the network."""
        return {"_make": None, "_inputs": None, "_made": self.value}


def numbered(
    batches: Iterable[_B],
    pictures: Iterable[Tensor] | None,
    shots: int,
    count: Callable[[_B], int],
) -> Iterator[tuple[_B, Tensor, int]]:
    """Batches with the numbers of their pictures, and how many pictures there are then.

    Args:
        batches: gone through once.
        pictures: per batch the numbers ``(B,)``; None to count them on.
        shots: pictures that there were before.
        count: gives the images of a batch.
    """
    given: Iterable[Tensor | None] = repeat(None) if pictures is None else pictures
    for batch, numbers in zip(batches, given, strict=False):
        own = torch.arange(shots, shots + count(batch)) if numbers is None else numbers
        shots = max(shots, int(own.max()) + 1)
        yield batch, own, shots


def images_of(features: Mapping[str, Tensor]) -> int:
    """How many images features ``(B, ...)`` by name are of."""
    return len(next(iter(features.values())))


class Memory(Protocol):
    """How references are kept; a part that a detector composes, such as ``PatchMemory``.

    Attributes:
        budget: bytes that all features together may take.
        constant: whether it takes the same memory whatever the number of pictures.
    """

    budget: int
    constant: ClassVar[bool]

    def remember(
        self,
        knowledge: Knowledge,
        batches: Iterable[Mapping[str, Tensor]],
        pictures: Iterable[Tensor] | None,
    ) -> Knowledge:
        """Add features; arguments as of ``Detector.remember``, after ``Detector.references``."""

    def settle(self, knowledge: Knowledge) -> Knowledge:
        """Finish what was remembered."""

    def bytes_of(self, features: Mapping[str, Tensor]) -> int:
        """Bytes that the features of a batch take."""

    def leaves_out(self, knowledge: Knowledge) -> bool:
        """Whether ``predict`` can leave a picture out of what was remembered.

        Every feature of it then. A scale that was learned from all pictures may stay, and where
        the memory was thinned it may lie further from the others than if it had never been there.
        """


class SetLevel(Protocol):
    """An official step over all pictures of a class or split; first it sees all, then applies."""

    def see(self, prediction: Prediction) -> None:
        """Take a batch in."""

    def apply(self, prediction: Prediction) -> Prediction:
        """Change a batch by what all of them showed."""

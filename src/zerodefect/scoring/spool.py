"""Batches that are gone through more than once: in memory, and beyond a budget on disk."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from zerodefect.files import atomic_write

DEFAULT_BUDGET = 2**30  # bytes
_PLAIN = torch.contiguous_format


class Spool:
    """A list of encoded batches; a context manager that removes what it put on disk.

    Args:
        budget: bytes of tensors that stay in memory; further batches go to a temporary folder.
    """

    def __init__(self, budget: int = DEFAULT_BUDGET) -> None:
        self._left = budget
        self._items: list[Any] = []
        self._files: dict[int, Path] = {}
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def add(self, item: Any) -> None:
        """Keep a batch: dataclasses, tuples, lists and dictionaries of tensors and plain values.

        Raises:
            StoreError: it goes to disk, and cannot be written there.
        """
        tensors: list[Tensor] = []
        frame = _taken(item, tensors)
        size = sum(tensor.nbytes for tensor in tensors)
        if size <= self._left:
            self._left -= size
            self._items.append(item)
            return
        self._folder = self._folder or tempfile.TemporaryDirectory(prefix="zerodefect-")
        file = Path(self._folder.name) / f"{len(self._items)}.safetensors"
        # copies, since a file holds no two tensors that share memory
        copied = {str(n): t.cpu().clone(memory_format=_PLAIN) for n, t in enumerate(tensors)}
        with atomic_write(file, cached=True) as opened:
            opened.write(save(copied))
        self._files[len(self._items)] = file
        self._items.append(frame)

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Any]:
        return (self[place] for place in range(len(self._items)))

    def __getitem__(self, place: int) -> Any:
        if place not in self._files:
            return self._items[place]
        return _given(self._items[place], load_file(self._files[place]))

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *error: object) -> None:
        self._items, self._files = [], {}
        if self._folder:
            self._folder.cleanup()


@dataclasses.dataclass(frozen=True)
class _Place:
    """Where a tensor stood, and on which device."""

    number: int
    device: torch.device


def _taken(value: Any, tensors: list[Tensor]) -> Any:
    """The same structure with places instead of tensors, which are collected."""
    if isinstance(value, Tensor):
        tensors.append(value.detach())
        return _Place(len(tensors) - 1, value.device)
    return _rebuilt(value, lambda inner: _taken(inner, tensors))


def _given(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, _Place):
        return tensors[str(value.number)].to(value.device)
    return _rebuilt(value, lambda inner: _given(inner, tensors))


def _rebuilt(value: Any, change: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: change(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return dataclasses.replace(value, **fields)
    if isinstance(value, (tuple, list)):
        inner = [change(each) for each in value]
        return type(value)(*inner) if hasattr(value, "_fields") else type(value)(inner)
    if isinstance(value, dict):
        return {name: change(inner) for name, inner in value.items()}
    return value

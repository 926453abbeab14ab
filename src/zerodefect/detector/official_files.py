"""Official checkpoints, checked key by key before anything of them is used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor

LONE_TENSOR = "the tensor"
"""Name of the only value of a file that holds a tensor instead of named values."""


class Checked:
    """The contents of an official checkpoint: every entry is taken, ignored by name, or a fault.

    A method takes what it needs and calls ``done``, which lists all faults at once::

        checked = Checked(published, "AnomalyCLIP checkpoint")
        learner = checked.inside("prompt_learner")
        state = {"context": learner.take("ctx_pos", (1, 1, 12, 768))}
        learner.ignore("token_*")
        checked.done()

    A faulty entry is taken as zeros, so that the rest can be checked, too. An error names the
    contents as ``where`` says.
    """

    def __init__(self, published: Mapping[str, Any], where: str) -> None:
        self.where = where
        self._faults: list[str] = []
        self._prefix = ""
        self._parts: list[Checked] = []
        self._left = dict(self._mapping(published))

    def take(self, key: str, shape: Sequence[int]) -> Tensor:
        """Give the tensor of a key, a floating-point one as float32; its shape must be ``shape``.

        Values that are not finite are a fault, too.
        """
        shape = tuple(shape)
        value = self._left.pop(key, None)
        name = f"{self._prefix}{key}"
        if value is None:
            self._faults.append(f"{name} is missing")
        elif not isinstance(value, Tensor):
            self._faults.append(f"{name} is a {type(value).__name__}, not a tensor")
        elif tuple(value.shape) != shape:
            self._faults.append(f"{name} has shape {tuple(value.shape)} instead of {shape}")
        elif not value.is_floating_point():
            return value.detach().clone()
        elif not bool(value.isfinite().all()):
            self._faults.append(f"{name} holds values that are not finite")
        else:
            return value.detach().to(torch.float32, copy=True)
        return torch.zeros(shape)

    def ignore(self, pattern: str) -> None:
        """Leave out the keys that match (``*`` stands for anything); there need be none."""
        for key in [key for key in self._left if fnmatchcase(key, pattern)]:
            del self._left[key]

    def inside(self, key: str) -> Checked:
        """Check a dictionary in the file as part of this one: ``done`` here covers both."""
        name = f"{self._prefix}{key}"
        value = self._left.pop(key, None)
        part = Checked({}, self.where)
        part._faults = self._faults
        part._prefix = f"{name}/"
        if isinstance(value, Mapping):
            part._left = dict(part._mapping(value))
        else:
            kind = "missing" if value is None else f"a {type(value).__name__}, not a dictionary"
            self._faults.append(f"{name} is {kind}")
        self._parts.append(part)
        return part

    def fault(self, text: str) -> None:
        """Note what else is wrong, such as tokens that are not those of the method's texts."""
        self._faults.append(text)

    def done(self) -> None:
        """End the check.

        Raises:
            ValueError: keys are missing, unknown, no finite tensors or of another shape; all are
                listed.
        """
        faults = [*self._faults, *(f"{name} is unknown" for name in self._remaining())]
        if faults:
            raise ValueError(
                f"{self.where}: {'; '.join(faults)}. Take the file that the authors published for "
                "this backbone, or give the options that it was trained with"
            )

    def _remaining(self) -> list[str]:
        found = [f"{self._prefix}{key}" for key in self._left]
        return found + [name for part in self._parts for name in part._remaining()]

    def _mapping(self, published: Any) -> Mapping[str, Any]:
        if not isinstance(published, Mapping):
            raise ValueError(
                f"{self.where}: a {type(published).__name__} instead of named values. Take the "
                "file that the authors published"
            )
        return {str(key): value for key, value in published.items()}

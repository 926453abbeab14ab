"""Pickled modules in official checkpoints, read as their parameters; nothing of them is run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pickle import UnpicklingError
from typing import Any

_LAYERS = (
    "torch.nn.modules.container.ModuleList",
    "torch.nn.modules.container.Sequential",
    "torch.nn.modules.dropout.Dropout",
    "torch.nn.modules.linear.Linear",
    "torch.nn.modules.normalization.LayerNorm",
)
_MOST = 200  # parts of a module


class StandIn:
    """Stands where a pickle names a class: takes whatever it is given and does nothing with it."""

    state: Mapping[Any, Any] = {}

    def __new__(cls, *_: Any) -> StandIn:
        """Nothing is made of what was given."""
        return super().__new__(cls)

    def __init__(self, *_: Any) -> None:
        """Nor here."""

    def __setstate__(self, state: Any) -> None:
        self.state = state if isinstance(state, Mapping) else {}


def stand_ins(classes: Sequence[str]) -> list[Callable[..., Any] | tuple[Callable[..., Any], str]]:
    """What ``torch.serialization.safe_globals`` admits: these classes and torch's usual layers.

    Nothing at all where no class is named.
    """
    return [(StandIn, name) for name in (*classes, *_LAYERS)] if classes else []


def parameters_of(module: StandIn) -> dict[str, Any]:
    """Parameters and buffers by the names that the module's ``state_dict`` would give them.

    Raises:
        UnpicklingError: too many parts, such as a module inside itself.
    """
    found: dict[str, Any] = {}
    waiting, seen = [("", module)], 0
    while waiting:
        prefix, part = waiting.pop()
        seen += 1
        if seen > _MOST:
            raise UnpicklingError(f"more than {_MOST} layers, or one inside itself")
        for group in ("_parameters", "_buffers"):
            found |= {prefix + name: value for name, value in _held(part, group)}
        children = _held(part, "_modules")
        waiting += [(f"{prefix}{n}.", child) for n, child in children if isinstance(child, StandIn)]
    return found


def _held(part: StandIn, group: str) -> Iterator[tuple[str, Any]]:
    values = part.state.get(group)
    if isinstance(values, Mapping):
        yield from ((str(name), value) for name, value in values.items() if value is not None)

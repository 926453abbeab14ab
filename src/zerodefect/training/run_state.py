"""The state of a run on disk, from which it goes on as if it had never been cut off."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from zerodefect.files import atomic_write

STATE = "resume.safetensors"
_LEARNED, _OPTIMIZER = "learned/", "optimizer/"


class TrainingError(RuntimeError):
    """The run cannot go on; the message says why and what helps."""


@dataclass
class RunState:
    """All that changes during a run.

    Attributes:
        learned: values by name, parameters and running statistics.
        optimizers: of the present stage; each holds the moments of its parameters.
        step: steps done, over all stages.
        window: sums of the losses since the last line of the journal, and ``steps``.
    """

    learned: Mapping[str, Tensor]
    optimizers: Sequence[torch.optim.Optimizer] = ()
    step: int = 0
    window: dict[str, float] = field(default_factory=dict)

    def save(self, path: Path, identity: dict[str, Any]) -> None:
        """Write the state in one move: a reader sees the old one or the new one."""
        tensors: dict[str, Tensor] = {}
        for name, value in self.learned.items():
            tensors[_LEARNED + name] = _copy(value)
            for optimizer in self.optimizers:
                for key, moment in optimizer.state.get(value, {}).items():
                    if isinstance(moment, Tensor):
                        tensors[f"{_OPTIMIZER}{key}/{name}"] = _copy(moment)
        facts = {
            "step": str(self.step),
            "window": json.dumps(self.window),
            "identity": json.dumps(identity, sort_keys=True),
        }
        with atomic_write(path) as file:
            file.write(save(tensors, facts))

    @torch.no_grad()
    def load(
        self,
        path: Path,
        identity: dict[str, Any],
        optimizers_at: Callable[[int], Sequence[torch.optim.Optimizer]],
    ) -> None:
        """Go on from a state; ``optimizers_at`` makes those of the stage that a step belongs to.

        Raises:
            TrainingError: the state is that of another run, or cannot be read.
        """
        try:
            with safe_open(path, "pt") as stored:
                facts = stored.metadata() or {}
                _check_same(path, json.loads(facts["identity"]), identity)
                tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
            for name, value in self.learned.items():
                value.copy_(tensors[_LEARNED + name])
            self.step, self.window = int(facts["step"]), json.loads(facts["window"])
            self.optimizers = optimizers_at(self.step)
            for name, moment in tensors.items():
                if name.startswith(_OPTIMIZER):
                    key, _, owner = name.removeprefix(_OPTIMIZER).partition("/")
                    self._put(key, self.learned[owner], moment)
        except TrainingError:
            raise
        except Exception as error:  # a damaged file raises a dozen types
            raise TrainingError(
                f"{path} cannot be read ({error}); delete it to begin the run again"
            ) from None

    def _put(self, key: str, parameter: Tensor, moment: Tensor) -> None:
        for optimizer in self.optimizers:
            if any(parameter is p for group in optimizer.param_groups for p in group["params"]):
                # Adam counts its steps in a scalar that stays on the processor
                place = moment if key == "step" else moment.to(parameter.device)
                optimizer.state[parameter][key] = place.clone()


def _copy(value: Tensor) -> Tensor:
    return value.detach().cpu().contiguous().clone()


def _check_same(path: Path, stored: dict[str, Any], asked: dict[str, Any]) -> None:
    old, new = _flat(stored), _flat(json.loads(json.dumps(asked)))
    for name in ("activation", "config.activation", "recipe.references"):
        if name in new:  # states from before it was written down say nothing of it
            old.setdefault(name, new[name])
    differing = [
        f"{name} was {old.get(name)!r} and is now {new.get(name)!r}"
        for name in sorted({*old, *new})
        if old.get(name) != new.get(name)
    ]
    if differing:
        raise TrainingError(
            f"{path} is of another run: {'; '.join(differing)}. Take another output folder, or "
            "delete this one to begin again"
        )


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, (dict, list)) or not value:
        return {prefix: value}
    items = value.items() if isinstance(value, dict) else enumerate(value)
    found: dict[str, Any] = {}
    for key, inner in items:
        found |= _flat(inner, f"{prefix}.{key}" if prefix else str(key))
    return found

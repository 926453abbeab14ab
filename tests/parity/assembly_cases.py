"""Parity cases of methods that put several networks together: inputs and tolerances."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from cases import Case
from tiny_clip import fill


class AssemblyCase(Case):
    """A case whose tolerances are stated by kind of array, some with words behind."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.meta.setdefault("activation", "gelu")
        facts = self.meta["clip"]
        if "config" not in facts:
            own = {name: value for name, value in facts.items() if name != "seed"}
            self.meta["clip"] = {"seed": facts["seed"], "config": own}

    def tolerance(self, kind: str) -> float:
        """``"1e-4 abs"`` is 1e-4."""
        return float(str(self.meta["tolerances"][kind]).split()[0])

    def published(self) -> dict[str, torch.Tensor]:
        """Learned values under the authors' names."""
        facts, values = self.meta["extra_parameters"], {}
        sized = [(name, shape, 1.0) for name, shape in facts.get("shapes", {}).items()]
        sized += [(n, shape, scale) for n, (shape, scale) in facts.get("scaled_shapes", {}).items()]
        for name, shape, scale in sized:
            value = fill(facts["seed"], name, tuple(shape)) * scale
            values[name] = torch.from_numpy(value.astype("float32"))
        return values

    def near(self, name: str, value: torch.Tensor, allowed: float) -> None:
        expected = self.tensor(name)
        worst = float((value.detach().reshape(expected.shape) - expected).abs().max())
        assert worst <= allowed, f"{name}: off by {worst:.3g}, allowed {allowed:.3g}"

    def check_loss(self, name: str, value: torch.Tensor) -> None:
        expected, value = float(self.tensor(name)), value.detach()
        allowed = self.tolerance("loss") * abs(expected)
        assert abs(float(value) - expected) <= allowed, f"{name}: {float(value)}, not {expected}"

    def check_gradients(self, prefix: str, learned: Mapping[str, torch.Tensor]) -> None:
        """Every stored gradient, relative to its largest entry."""
        names = [name for name in self.arrays if name.startswith(prefix)]
        assert names
        for name in names:
            largest = float(self.tensor(name).abs().max())
            self.near(name, learned[name.removeprefix(prefix)].grad, 1e-3 * largest)

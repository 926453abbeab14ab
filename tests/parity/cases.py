"""Parity cases: those in the repository and those in ZERODEFECT_PARITY_DIR."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_clip
import torch
from models import backbone_of

from zerodefect.backbones.clip_weights import CLIPBackbone
from zerodefect.images import Preprocess, open_image


def find(method: str, kind: str = "case") -> list[Any]:
    """Pytest parameters, one per ``<method>/<kind>_*.npz``."""
    folders = [Path(__file__).parent / "cases"]
    if os.environ.get("ZERODEFECT_PARITY_DIR"):
        folders.append(Path(os.environ["ZERODEFECT_PARITY_DIR"]))
    files = [path for folder in folders for path in sorted(folder.glob(f"{method}/{kind}_*.npz"))]
    return [pytest.param(path, id=f"{path.parents[1].name}-{path.stem}") for path in files]


class Case:
    """Arrays, ``meta`` and tolerances of one case."""

    def __init__(self, path: Path) -> None:
        with np.load(path, allow_pickle=False) as archive:
            self.arrays = {name: archive[name] for name in archive.files}
        self.meta = json.loads(str(self.arrays.pop("meta")))

    def tensor(self, name: str) -> torch.Tensor:
        return torch.from_numpy(self.arrays[name])

    def backbone(self) -> CLIPBackbone:
        """The small CLIP that the case was computed with."""
        facts = self.meta.get("tiny_clip") or self.meta["clip"]
        state = tiny_clip.clip_state(facts["seed"], **facts["config"])
        state = {name: torch.from_numpy(np.asarray(value)) for name, value in state.items()}
        activation = self.meta.get("activation") or self.meta["settings"]["activation"]
        quick = activation.lower().startswith("quick")
        return backbone_of(state, f"tiny-{facts['seed']}", "quick_gelu" if quick else "gelu")

    def parameters(self) -> dict[str, torch.Tensor]:
        """Learned values that the case was computed with, under their official names."""
        facts = self.meta["parameters"]
        values = {}
        for name, shape in facts["shapes"].items():
            value = tiny_clip.fill(facts["seed"], name, tuple(shape)) * facts["gain"].get(name, 1)
            value = np.full(shape, facts["constants"].get(name, value), dtype=np.float32)
            values[name] = torch.from_numpy(value)
        return values

    def check_preprocessed(self, preprocess: Preprocess) -> None:
        """Every picture of the case is prepared as its network saw it."""
        prepare = replace(preprocess, size=(self.meta["input_size"],) * 2)
        for picture, prepared in zip(self.arrays["images"], self.arrays["input"], strict=True):
            np.testing.assert_allclose(prepare(open_image(picture)), prepared, atol=1e-5)

    def check(self, name: str, value: torch.Tensor) -> None:
        """Compare with the stored array at the tolerance that the case states for it."""
        expected = self.tensor(name)
        if "tolerance" in self.meta:
            tolerance = torch.tensor(self.meta["tolerance"][name])
        else:
            absolute = self.meta["suggested_atol"][name]
            tolerance = absolute + self.meta["suggested_rtol"] * expected.abs()
        off = (value.detach().reshape(expected.shape) - expected).abs()
        worst = int((off - tolerance).argmax())
        allowed = tolerance.expand(off.shape).flatten()[worst]
        message = f"{name}: off by {off.flatten()[worst]:.3g}, allowed {allowed:.3g}"
        assert (off <= tolerance).all(), message

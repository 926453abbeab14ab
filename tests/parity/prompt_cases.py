"""Parity cases of the methods with learned prompts: their inputs, batches and tolerances."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from cases import Case
from tiny_clip import draw

from zerodefect.images import Preprocess, open_image
from zerodefect.types import TrainingBatch


class PromptCase(Case):
    """A case whose tolerances are stated by kind of array."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.meta.setdefault("activation", "quick_gelu")  # all of them run OpenAI's weights

    def tolerance(self, kind: str) -> float:
        return self.meta["tolerance"][kind]

    def fill(self, prompts: torch.nn.Module) -> None:
        """Put the case's learned values into ``LearnedPrompts``."""
        facts = self.meta["learned_parameters"]
        own = dict(prompts.named_parameters())
        assert sorted(own) == sorted(facts["shapes"])
        for name, shape in facts["shapes"].items():
            value = facts["std"][name.split(".")[0]] * draw(facts["seed"], name, tuple(shape))
            assert own[name].shape == value.shape
            own[name].data.copy_(torch.from_numpy(value))

    def preprocessed(self, preprocess: Preprocess) -> torch.Tensor:
        """The case's picture as a method prepares it, with the case's network size."""
        size = self.meta["network_input_size"]
        return replace(preprocess, size=(size, size))(open_image(self.arrays["image"]))[None]

    def batch(self) -> TrainingBatch:
        return TrainingBatch(
            images=torch.cat([self.tensor("input"), self.tensor("train/input2")]),
            masks=self.tensor("train/mask"),
            labels=self.tensor("train/label").long(),
            objects=(self.meta["class_name"],) * 2,
            generator=torch.Generator().manual_seed(0),
        )

    def near(self, name: str, value: torch.Tensor, allowed: float) -> None:
        expected = self.tensor(name)
        worst = float((value.detach().reshape(expected.shape) - expected).abs().max())
        assert worst <= allowed, f"{name}: off by {worst:.3g}, allowed {allowed:.3g}"

    def check_feature(self, name: str, value: torch.Tensor) -> None:
        """Direction within the case's tolerance, length within it relative to the longest."""
        expected, got = self.tensor(name), value.detach().reshape(self.tensor(name).shape)
        allowed = self.tolerance("text_and_patch_features_after_normalisation")
        worst = float((F.normalize(got, dim=-1) - F.normalize(expected, dim=-1)).abs().max())
        assert worst <= allowed, f"{name}: off by {worst:.3g}, allowed {allowed:.3g}"
        lengths = got.norm(dim=-1) / expected.norm(dim=-1)
        assert float((lengths - 1).abs().max()) <= 10 * allowed

    def check_map(self, name: str, value: torch.Tensor, factor: float = 1.0) -> None:
        """Probability, or sum of ``factor`` probabilities."""
        self.near(name, value, factor * self.tolerance("probabilities_and_maps"))

    def check_logits(self, name: str, value: torch.Tensor, temperature: float) -> None:
        """Cosines over a temperature: the tolerance of the unit features, enlarged alike."""
        features = self.tolerance("text_and_patch_features_after_normalisation")
        self.near(name, value, 2 * features / temperature)

    def check_loss(self, name: str, value: torch.Tensor) -> None:
        expected = self.tensor(name)
        allowed = self.tolerance("losses_relative") * expected.abs()
        worst = (value.detach().reshape(expected.shape) - expected).abs() - allowed
        assert float(worst.max()) <= 0, f"{name}: {value} instead of {expected}"

    def check_gradients(self, prefix: str, prompts: torch.nn.Module) -> None:
        """Every stored gradient, relative to its largest entry."""
        own = dict(prompts.named_parameters())
        names = [name for name in self.arrays if name.startswith(prefix)]
        assert names
        for name in names:
            gradient = own[name.removeprefix(prefix)].grad
            allowed = self.tolerance("gradients_relative_to_max")
            self.near(name, gradient, allowed * float(self.tensor(name).abs().max()))

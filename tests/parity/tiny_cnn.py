"""The small convolutional network of the cases whose features come from ImageNet networks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from cases import Case
from tiny_clip import fill
from torch import Tensor, nn

from zerodefect.images import Preprocess

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class TinyCNN(nn.Module):
    """A stem of stride 4 and three stages of stride 2, as the case's ``recipe`` says."""

    name, fingerprint, precision, activation = "tiny-cnn", "c" * 64, "float32", None
    stride, width = 32, 32
    layers = {"layer1": 8, "layer2": 16, "layer3": 32}  # noqa: RUF012

    def __init__(self, case: CNNCase) -> None:
        super().__init__()
        size = case.arrays["image_train"].shape[1:3]
        self.preprocess = Preprocess((int(size[0]), int(size[1])), MEAN, STD)
        for name, shape in case.meta["parameter_shapes"].items():
            value = torch.from_numpy(np.array(fill(case.meta["seed"], name, tuple(shape))))
            self.register_buffer(name.replace(".", "_"), value)

    def maps(self, pixels: Tensor, names: Sequence[str]) -> list[Tensor]:
        found, x = {}, F.relu(F.conv2d(pixels, self.stem_0_weight, self.stem_0_bias, 4))
        for layer in self.layers:
            weight, bias = (getattr(self, f"{layer}_0_{part}") for part in ("weight", "bias"))
            found[layer] = x = F.relu(F.conv2d(x, weight, bias, 2, 1))
        return [found[name] for name in names]


class CNNCase(Case):
    """A case with the pictures and the network, whose tolerances are told by kind."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.network = TinyCNN(self).eval()

    def pixels(self, which: str) -> Tensor:
        """Normalised ``(N, 3, H, W)`` of ``train`` or ``test``."""
        images = self.tensor(f"image_{which}").permute(0, 3, 1, 2) / 255
        return (images - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]

    def close(self, name: str, value: Tensor, atol: float, rtol: float = 0.0) -> None:
        """Compare with the stored array."""
        expected = self.tensor(name)
        got = value.detach().reshape(expected.shape).to(expected.dtype)
        torch.testing.assert_close(
            got, expected, atol=atol, rtol=rtol, msg=lambda m: f"{name}: {m}"
        )

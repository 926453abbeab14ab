"""A small trainable method and small data, for the tests of training."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from zerodefect.detector import registry
from zerodefect.detector.configs import Count, Share, hyper_parameters
from zerodefect.detector.contract import Detector
from zerodefect.detector.facts import MethodInfo
from zerodefect.detector.knowledge import Knowledge
from zerodefect.detector.official_files import Checked
from zerodefect.detector.recipes import Recipe
from zerodefect.types import Prediction, TrainingBatch


@hyper_parameters
class ToyConfig:
    """Width of the hidden layer, share of dropped values, seed."""

    hidden: Count = 8
    dropout: Share = 0.0
    seed: int = 0


class Toy(Detector):
    """Two layers on the patches, one number for the whole picture."""

    Config = ToyConfig
    recipe = Recipe(epochs=3, batch_size=4, learning_rate=0.02, weight_decay=0.01, seed=5)

    def __init__(self, backbone: Any, config: ToyConfig) -> None:
        super().__init__(config, (backbone,))
        generator = torch.Generator().manual_seed(config.seed)
        patch = self.inputs["image"].multiple
        self.first = nn.Parameter(
            0.1 * torch.randn(config.hidden, 3 * patch**2, generator=generator)
        )
        self.second = nn.Parameter(0.1 * torch.randn(2, config.hidden, generator=generator))
        self.unused = nn.Parameter(torch.ones(2))

    def logits(self, images: Tensor, keep: Tensor | float = 1.0) -> Tensor:
        """``(B, 2, H, W)``."""
        p = self.inputs["image"].multiple
        h, w = images.shape[2] // p, images.shape[3] // p
        patches = F.unfold(images, p, stride=p).transpose(1, 2)  # (B, N, 3 p p)
        hidden = torch.tanh(patches @ self.first.T) * keep
        grid = (hidden @ self.second.T).transpose(1, 2).reshape(-1, 2, h, w)
        return F.interpolate(grid, images.shape[2:], mode="bilinear", align_corners=False)

    def training_loss(self, batch: TrainingBatch) -> dict[str, Tensor]:
        """Pixels and pictures."""
        keep: Tensor | float = 1.0
        if self.config.dropout:
            drawn = torch.rand(self.config.hidden, generator=batch.generator)
            keep = (drawn > self.config.dropout).float().to(batch.images.device)
        logits = self.logits(batch.images, keep)
        return {
            "pixel": F.cross_entropy(logits, batch.masks.long()),
            "image": 0.1 * F.cross_entropy(logits.mean((2, 3)), batch.labels),
        }

    def encode(self, images: Tensor) -> Tensor:
        """Pictures as they are: everything is learned."""
        return images

    def predict(
        self, encoded: Tensor, knowledge: Knowledge, left_out: Tensor | None = None
    ) -> Prediction:
        """Probability of the defective class."""
        map = self.logits(encoded).softmax(1)[:, 1]
        return Prediction(map.amax((1, 2)), map)

    @classmethod
    def official_options(cls, published: Any) -> dict[str, Any]:
        """Width from the file."""
        return {"hidden": len(published["w1"])} if "w1" in published else {}

    def official_state(self, published: Any) -> dict[str, Tensor]:
        """Made-up names."""
        checked = Checked(published, "toy checkpoint")
        state = {
            "first": checked.take("w1", self.first.shape),
            "second": checked.take("w2", self.second.shape),
            "unused": checked.take("u", (2,)),
        }
        checked.ignore("epoch")
        checked.done()
        return state


INFO = MethodInfo("toy", "Toy", "other", ("training",), "none", "none", "nothing")


@contextmanager
def registered() -> Iterator[type[Toy]]:
    """Make the method known for a while; the list of real methods stays as it is."""
    registry.register(INFO)(Toy)
    try:
        yield Toy
    finally:
        del registry._METHODS[INFO.name]


def write_parts(
    root: Path, count: int = 5, seed: int = 0, products: tuple[str, ...] = ("p",)
) -> Path:
    """Make an MVTec tree: grey pictures, in ``test/spot`` with a bright square and its mask."""
    draws = np.random.default_rng(seed)
    for product in products:
        for kind in ("good", "spot"):
            for number in range(count):
                pixels = draws.integers(60, 120, (40, 48, 3)).astype(np.uint8)
                mask = np.zeros((40, 48), np.uint8)
                if kind == "spot":
                    top, left = draws.integers(0, 24, 2)
                    mask[top : top + 14, left : left + 14] = 255
                    pixels[mask > 0] = 240
                    _write(root / product / "ground_truth" / kind / f"{number}_mask.png", mask)
                _write(root / product / "test" / kind / f"{number}.png", pixels)
        for number in range(2):
            pixels = draws.integers(60, 120, (40, 48, 3)).astype(np.uint8)
            _write(root / product / "train" / "good" / f"{number}.png", pixels)
    return root


def _write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def read_steps(folder: Path) -> list[dict[str, Any]]:
    """Lines of the journal without what depends on the clock."""
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    clock = ("time", "images_per_second")
    return [{k: v for k, v in line.items() if k not in clock} for line in lines]


def main() -> None:
    """Run the command line with the method known, for tests that start processes."""
    import sys

    torch.set_num_threads(1)
    sys.path.insert(0, str(Path(__file__).parent / "parity"))
    with registered():
        from zerodefect.cli import main as command

        command()


if __name__ == "__main__":
    main()

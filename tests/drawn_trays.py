"""Pictures of trays whose parts are known by construction, and a detector that sees their colours.

A tray holds screws (red), a label (blue), and a bottle (light) with liquid (green) in it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from models import NoConfig
from PIL import Image

from zerodefect.detector.contract import Detector, Input, PatchFeatures
from zerodefect.detector.facts import MethodInfo
from zerodefect.images import Preprocess
from zerodefect.layers.grid import Grid
from zerodefect.types import Prediction

SIDE, CELL = 128, 4
SCREW, LABEL, BOTTLE, LIQUID = (190, 40, 40), (40, 60, 200), (215, 215, 225), (40, 170, 70)
GROUND = (90, 90, 90)
BOTTLE_BOX = (72, 16, 44, 104)  # left, top, width, height
BOXES = {
    "screw": "12,12,16,24",
    "label": "16,84,40,20",
    "bottle": "80,24,28,20",
    "liquid": "82,76,24,32",
}


@dataclass(frozen=True)
class Tray:
    """What is drawn; places in pixels.

    Attributes:
        screws: upper left corners.
        label: upper left corner of the label, or None.
        level: share of the bottle's height that is filled.
        shift: of everything, to the right.
    """

    screws: tuple[tuple[int, int], ...] = ((12, 12), (40, 12))
    label: tuple[int, int] | None = (16, 84)
    level: float = 0.6
    shift: int = 0
    noise: int = field(default=0)

    def draw(self) -> np.ndarray:
        """``(128, 128, 3)`` uint8."""
        draws = np.random.default_rng(self.noise)
        pixels = np.empty((SIDE, SIDE, 3), np.int16)
        pixels[:] = GROUND
        for x, y in self.screws:
            pixels[y : y + 24, x + self.shift : x + self.shift + 16] = SCREW
        if self.label:
            x, y = self.label
            pixels[y : y + 20, x + self.shift : x + self.shift + 40] = LABEL
        x, y, width, height = BOTTLE_BOX
        pixels[y : y + height, x : x + width] = BOTTLE
        top = y + round(height * (1 - self.level))
        pixels[top : y + height - 8, x + 8 : x + width - 8] = LIQUID
        pixels += draws.integers(-6, 7, pixels.shape, dtype=np.int16)
        return pixels.clip(0, 255).astype(np.uint8)

    def save(self, path: Path) -> Path:
        """Write it as PNG."""
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(self.draw()).save(path)
        return path


def good_tray(seed: int) -> Tray:
    """A good one; level and place of the label vary a little."""
    draws = np.random.default_rng(1000 + seed)
    level = 0.6 + 0.04 * float(draws.uniform(-1, 1))
    label = (16 + int(draws.integers(-3, 4)), 84 + int(draws.integers(-3, 4)))
    return Tray(label=label, level=level, noise=seed)


class Colours(Detector):
    """Patches are their mean colour; the score is the brightest pixel."""

    info = MethodInfo("colours", "", "test", ("words",), "", "", "")
    Config = NoConfig

    def __init__(self, patches: bool = True) -> None:
        plain = Preprocess((SIDE, SIDE), mean=(0.0,) * 3, std=(1.0,) * 3, interpolation="bilinear")
        super().__init__(NoConfig(), (), {"image": Input(plain)})
        self.patches, self.runs = patches, 0

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        self.runs += len(images)
        return images

    def map_range(self, knowledge):
        return (0.0, 1.0)

    def predict(self, encoded, knowledge, left_out=None) -> Prediction:
        map = encoded.amax(1)
        return Prediction(map.amax((1, 2)), map)

    def patch_features(self, encoded: torch.Tensor) -> tuple[PatchFeatures, ...]:
        if not self.patches:
            return ()
        small = F.avg_pool2d(encoded, CELL)
        grid = Grid(small.shape[-2], small.shape[-1], tuple(encoded.shape[-2:]))
        return (PatchFeatures(small.flatten(2).mT, grid),)

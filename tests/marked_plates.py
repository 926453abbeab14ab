"""A detector whose regions and kinds are known by hand, and pictures of plates with marks."""

from __future__ import annotations

import numpy as np
import torch
from models import NoConfig

from zerodefect.detector.contract import Detector, Input
from zerodefect.detector.facts import MethodInfo
from zerodefect.images import Preprocess
from zerodefect.inspection.inspector import Inspector
from zerodefect.prompts.vocabulary import Vocabulary
from zerodefect.types import Prediction

SIDE = 64
KINDS = Vocabulary.of(["stain", "scratch", "hole"])
COLOURS = {"stain": (200, 60, 60), "scratch": (60, 200, 60), "hole": (60, 60, 200)}
WHITE = (200, 200, 200)  # a mark of no kind


class Marks(Detector):
    """The brightest channel is the map, what it has over the darkest one the kind."""

    info = MethodInfo("marks", "", "test", ("words",), "", "", "")
    Config = NoConfig
    tells_kinds = True
    undecided = 0.5

    def __init__(self, maps: bool = True) -> None:
        plain = Preprocess((SIDE, SIDE), mean=(0.0,) * 3, std=(1.0,) * 3, interpolation="bilinear")
        super().__init__(NoConfig(), (), {"image": Input(plain)})
        self.maps = maps

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        return images

    def map_range(self, knowledge):
        return (0.0, 1.0) if self.maps else None

    def predict(self, encoded, knowledge, left_out=None) -> Prediction:
        map = encoded.amax(1)
        excess = (encoded - encoded.amin(1, keepdim=True) - 0.3).clamp(min=0)
        total = excess.sum(1, keepdim=True)
        shares = torch.where(total > 0, excess / total.clamp(min=1e-9), total)
        if not self.maps:
            return Prediction(map.amax((1, 2)), None)
        return Prediction(map.amax((1, 2)), map, shares)


def plate(seed: int = 0, *marks: tuple[tuple[int, int, int], int, int]) -> np.ndarray:
    """A grey plate ``(64, 64, 3)``; a mark is a colour, its height and its width.

    Marks stand in rows of their own, from the top.
    """
    draws = np.random.default_rng(seed)
    pixels = draws.integers(60, 80, (SIDE, SIDE, 3), dtype=np.uint8)
    top = 2
    for colour, height, width in marks:
        pixels[top : top + height, 4 : 4 + width] = colour
        top += height + 2
    return pixels


def uncalibrated(maps: bool = True) -> Inspector:
    """An inspector that knows the product's name and kinds."""
    made = Inspector(Marks(maps))
    made.describe("plate", KINDS)
    return made


def inspector(maps: bool = True, **calibration) -> Inspector:
    """Ready to inspect plates; calibrated on 20 good ones."""
    made = uncalibrated(maps)
    made.calibrate([plate(seed) for seed in range(20)], **calibration)
    return made

"""What a pretraining run does: the model's shape, the steps, the pictures of each, the rates."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

from zerodefect.backbones.clip import CLIPConfig, TextConfig, VisionConfig

EMBEDDED = CLIPConfig(
    embed_dim=128,
    vision=VisionConfig(image_size=128, patch_size=8, width=192, layers=6, heads=3),
    text=TextConfig(context_length=77, vocab_size=49408, width=128, heads=2, layers=4),
)
"""Shape of the embedded model. The text tower is as wide as the joint space, so that methods which
feed image features into sentences (VCP-CLIP, CoPS, Crane) run on it."""


@dataclass(frozen=True)
class PretrainConfig:
    """What a run does; everything here changes the weights, except the last four.

    Attributes:
        seed: decides weights, pictures, prompts and windows.
        steps: optimiser steps.
        text_steps: the first of them, which teach the text tower alone to tell states apart;
            afterwards it stands still, so that the image tower has a fixed goal.
        batch: pictures of the model's own size per step, two of each product; as many fewer or
            more of another size as make about the same number of patches.
        learning_rate: peak, reached ``warm_up`` steps after a tower begins to learn; a cosine takes
            it to a hundredth at the end. Matrices of the image tower's blocks are updated by Muon
            (Jordan et al. 2024) with its step scaled to Adam's, all else by AdamW.
        weight_decay: of matrices; vectors and embeddings are spared.
        warm_up: steps of linear rise.
        ema: decay of the averaged weights, which are the ones exported.
        clip_norm: largest gradient norm.
        windows: windows per picture judged through windows, and window side.
        groups: product names per step.
        early_sizes: sides in pixels that the first steps with pictures take in turn. Small ones let
            the tower see more pictures in the same time.
        late_sizes: sides that the remaining steps take in turn; the sizes of use.
        early: share of the steps with pictures that take early sizes.
        precision: of matrix products; ``bfloat16`` where the processor has it in hardware.
        device: where the model is trained and pictures are drawn.
        threads: of this process; another number may change the last bits.
        model: shape of the towers.
        checkpoint_every, log_every, show_every: steps between checkpoints, log lines, and drawings
            of curves and samples.
        workers: processes that draw pictures ahead, 0 for none; on a GPU none is needed.
    """

    seed: int = 0
    steps: int = 8000
    text_steps: int = 240
    batch: int = 16
    learning_rate: float = 8e-4
    weight_decay: float = 0.05
    warm_up: int = 100
    ema: float = 0.998
    clip_norm: float = 1.0
    windows: int = 4
    groups: int = 2
    early_sizes: tuple[int, ...] = (96, 96, 64, 96, 96, 160)
    late_sizes: tuple[int, ...] = (128, 128, 192, 128, 96, 128, 128, 256, 128, 160)
    early: float = 0.6
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    device: str = "cpu"
    threads: int = 2
    model: CLIPConfig = EMBEDDED
    checkpoint_every: int = 50
    log_every: int = 10
    show_every: int = 500
    workers: int = 1

    def identity(self) -> dict[str, Any]:
        """All that the result depends on."""
        spared = ("checkpoint_every", "log_every", "show_every", "workers")
        return {name: value for name, value in asdict(self).items() if name not in spared}

    def pictures(self, step: int) -> tuple[int, int, int]:
        """First picture, count and size of a step (from 0)."""
        with_pictures = max(0, step - self.text_steps)
        late = with_pictures >= self.early * (self.steps - self.text_steps)
        sizes = self.late_sizes if late else self.early_sizes
        size = sizes[step % len(sizes)]
        # The series keeps as many pictures for each step as any takes, so that none comes twice.
        most = max(map(self._count, {*self.early_sizes, *self.late_sizes}))
        return step * most, self._count(size), size

    def _count(self, size: int) -> int:
        """Pictures of that size in a step: at least two, and whole pairs."""
        area = (self.model.vision.image_size / size) ** 2
        return max(2, int(self.batch * area) // 2 * 2)


def learning_rate(config: PretrainConfig, step: int, tower: str) -> float:
    """Rate of a tower in a step (from 0): linear rise, then a cosine to a hundredth of the peak.

    The text tower learns in the first ``text_steps``, the image tower after them.
    """
    begin, end = (0, config.text_steps) if tower == "text" else (config.text_steps, config.steps)
    if not begin <= step < end:
        return 0.0
    passed, warm_up = step - begin, min(config.warm_up, (end - begin) // 3)
    if passed < warm_up:
        return config.learning_rate * (passed + 1) / warm_up
    done = (passed - warm_up) / max(1, end - begin - warm_up)
    return config.learning_rate * (0.01 + 0.99 * (1 + math.cos(math.pi * done)) / 2)

"""How a paper trains its method: the defaults of ``zerodefect train``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Recipe:
    """Training settings of a method, each as published; every one can be overridden by the user.

    Attributes:
        epochs: passes over the data.
        batch_size: images per optimiser step, over all processes together.
        learning_rate: peak rate of groups that state none of their own.
        optimizer: update rule.
        betas: decay of the two moments (Adam, AdamW) or of the momentum (SGD, the first one).
        weight_decay: of groups that state none of their own.
        schedule: ``constant``, or ``cosine`` to zero over all steps, after ``warm_up`` steps.
        warm_up: steps of linear rise.
        clip_norm: largest gradient norm, or None.
        image_size: input side in pixels with the published backbone (ViT-L/14@336px); another
            backbone keeps its own size unless told otherwise.
        augment: name of the augmentation of images and masks (``training/augment.py``).
        seed: of shuffling, initial values and every draw.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    schedule: Literal["constant", "cosine"] = "constant"
    warm_up: int = 0
    clip_norm: float | None = None
    image_size: int | None = 518
    augment: Literal["none", "vcp"] = "none"
    seed: int = 0

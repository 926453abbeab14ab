"""How a method is trained: its stages, and in each who learns what by which rule."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from torch import Tensor

from zerodefect.types import TrainingBatch

Loss = Callable[[TrainingBatch], dict[str, Tensor]]
"""Weighted terms of the loss of one batch, by name; the loss is their sum."""


@dataclass(frozen=True)
class Recipe:
    """Training settings of a stage, each as published; every one can be overridden by the user.

    Attributes:
        epochs: passes over the data.
        batch_size: images per optimiser step, over all processes together.
        learning_rate: peak rate of groups that state none of their own.
        optimizer: update rule.
        betas: decay of the two moments (Adam, AdamW) or of the momentum (SGD, the first one).
        weight_decay: of groups that state none of their own.
        schedule: ``constant``, ``cosine`` to zero over all steps, ``steps``, a fifth after 80 % of
            them and a fifth of that after 90 % (DRAEM), or ``halves``, half after 16 000 steps and
            half of that after 32 000 (AA-CLIP); after ``warm_up`` steps.
        warm_up: steps of linear rise.
        clip_norm: largest gradient norm, or None.
        image_size: input side in pixels with the published backbone (ViT-L/14@336px); another
            backbone keeps its own size unless told otherwise.
        augment: name of the augmentation of images and masks (``training/augment.py``).
        references: good pictures of the same product that come with each image, for methods that
            learn to compare (``TrainingBatch.references``).
        seed: of shuffling, initial values and every draw.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    schedule: Literal["constant", "cosine", "steps", "halves"] = "constant"
    warm_up: int = 0
    clip_norm: float | None = None
    image_size: int | None = 518
    augment: Literal["none", "vcp", "aa", "aa_colours"] = "none"
    references: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.epochs, self.batch_size) < 1 or self.references < 0:
            raise ValueError("epochs and batch size are at least 1, references at least 0")
        if not (self.learning_rate > 0 and math.isfinite(self.learning_rate)):
            raise ValueError(f"learning rate {self.learning_rate}: it must be above 0")

    def changed(self, **changes: Any) -> Recipe:
        """The recipe with what the user set; None leaves the paper's value."""
        return dataclasses.replace(self, **{k: v for k, v in changes.items() if v is not None})


FEW: Mapping[str, Any] = MappingProxyType({"epochs": 30, "augment": "vcp"})
"""Changes for some dozens of pictures, such as twenty labelled defects of one's own product: papers
count epochs over thousands, and few pictures are seen in many ways or learned by heart."""


@dataclass(frozen=True)
class Learner:
    """Learned values, the loss that they follow, and how.

    ``groups`` are optimiser groups as torch takes them: ``params``, and what differs from the
    recipe.
    """

    loss: Loss  # of one batch
    groups: Sequence[dict[str, Any]]
    recipe: Recipe | None = None  # optimiser, rates and clipping, where they are not the stage's


@dataclass(frozen=True)
class Stage:
    """A part of the training with parameters, data order and optimisers of its own."""

    recipe: Recipe  # epochs, batch size and the rest
    learners: Sequence[Learner]  # each takes one step per batch, in this order; a GAN has two
    name: str = ""  # in the journal; empty where there is one stage
    together: bool = False  # all gradients are of the values before any learner has stepped

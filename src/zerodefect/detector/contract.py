"""The one interface of all methods."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from zerodefect.backbones.clip_weights import Backbone
from zerodefect.detector.recipes import Recipe
from zerodefect.detector.registry import MethodInfo
from zerodefect.images import Preprocess
from zerodefect.prompts.vocabulary import Vocabulary
from zerodefect.types import Prediction, TrainingBatch


class UnsupportedError(RuntimeError):
    """The method cannot learn normality that way; the message says from what it can."""


class Detector(nn.Module):
    """Scores images against what it knows of normality.

    It knows from words (``describe``), a few normal images (``remember``), the other images of a
    batch (``score_set``) or other products' labelled defects (``training_loss``); a method
    overrides what it can and the rest says clearly that it cannot. Text features and memory are
    prepared once; ``forward`` is pure and batched: an image's prediction does not depend on the
    others in its batch.

    A subclass sets ``Config`` (a frozen dataclass with the paper's values as defaults) and takes
    ``(backbone, config)``.

    Attributes:
        info: registered facts.
        preprocess: how pictures become the ``(B, 3, H, W)`` that ``forward`` takes.
        patch_size: both sides of an input are multiples of this, in pixels.
        config: hyper-parameters.
        activation: of the towers that the backbone handed over. A method that runs the weights with
            another one than their own hands ``backbone.with_activation(...)`` to this constructor.
        checkpoint: SHA-256 of the file that the learned values are from, or None.
    """

    info: ClassVar[MethodInfo]
    Config: ClassVar[type]

    #: How the paper trains it; None for methods that are not trained.
    recipe: ClassVar[Recipe | None] = None

    #: Whether no score can rise when references are added (nearest-neighbour memories). Then
    #: leave-one-out calibration keeps its guarantee, see ``inspection/policy.py``.
    monotone_memory: ClassVar[bool] = False

    def __init__(self, backbone: Backbone, config: Any) -> None:
        super().__init__()
        self.backbone_name = backbone.name
        self.weights_fingerprint = backbone.fingerprint
        self.activation = backbone.clip.config.activation
        self.precision = str(backbone.clip.logit_scale.dtype).removeprefix("torch.")
        self.preprocess: Preprocess = backbone.preprocess
        self.patch_size = backbone.clip.config.vision.patch_size
        self.config = config
        self.checkpoint: str | None = None
        self.object_name: str | None = None
        self.vocabulary: Vocabulary | None = None

    @classmethod
    def build(cls, backbone: Backbone, **options: Any) -> Detector:
        """Construct from a backbone and fields of ``Config``.

        Raises:
            ValueError: an option that ``Config`` does not have.
        """
        fields = {field.name for field in dataclasses.fields(cls.Config)}
        unknown = sorted(set(options) - fields)
        if unknown:
            raise ValueError(
                f"{cls.info.name} has no option {unknown[0]!r}; it has: {', '.join(sorted(fields))}"
            )
        return cls(backbone, cls.Config(**options))

    # --- what normality is known from -------------------------------------------------------

    def describe(self, object_name: str, vocabulary: Vocabulary | None = None) -> None:
        """Learn from words: the product's name and, for defect kinds, a vocabulary."""
        raise self._unsupported("words")

    def remember(self, images: Tensor) -> None:
        """Learn from normal images ``(K, 3, H, W)``, added to those remembered before."""
        raise self._unsupported("references")

    def forget(self) -> None:
        """Drop all remembered images; words stay."""
        raise self._unsupported("references")

    @property
    def shots(self) -> int:
        """Number of images remembered."""
        return 0

    def score_set(self, images: Tensor) -> Prediction:
        """Score images ``(B, 3, H, W)`` against each other."""
        raise self._unsupported("set")

    # --- training on other products' labelled defects -----------------------------------------

    def training_loss(self, batch: TrainingBatch) -> dict[str, Tensor]:
        """Weighted terms of the loss of one batch, by name; the loss is their sum."""
        raise self._unsupported("training")

    @property
    def learned(self) -> dict[str, nn.Parameter]:
        """Parameters that training changes, by name: all that require a gradient.

        A trainable method freezes the backbone in its constructor, so these are what a checkpoint
        holds.
        """
        return {name: p for name, p in self.named_parameters() if p.requires_grad}

    def parameter_groups(self, recipe: Recipe) -> list[dict[str, Any]]:
        """Optimiser groups; a method with several rates overrides this."""
        return [{"params": list(self.learned.values())}]

    def after_learning(self) -> None:
        """Called when learned values have changed: drop or renew whatever was computed from them.

        The engine calls it before each validation and at the end, the loader after a checkpoint.
        """

    @classmethod
    def official_options(cls, published: Mapping[str, Any]) -> dict[str, Any]:
        """Fields of ``Config`` that the shapes in an official checkpoint tell (lengths, depths)."""
        return {}

    def official_state(self, published: Mapping[str, Any]) -> dict[str, Tensor]:
        """Values of ``learned`` from the contents of an official checkpoint.

        Raises:
            UnsupportedError: no official format is known.
            ValueError: keys are missing or unknown, or shapes do not fit; all are listed.
        """
        raise UnsupportedError(f"{self.info.name} has no official checkpoint format that we know")

    def set_level(self, prediction: Prediction) -> Prediction:
        """The official step over a whole class or test set, where a code has one (min-max, ...).

        ``forward`` never applies it: what users get is per image. ``prediction`` holds all images.
        """
        return prediction

    # --- what it says -----------------------------------------------------------------------

    def forward(self, images: Tensor) -> Prediction:
        """Score images ``(B, 3, H, W)``, preprocessed as ``preprocess`` does."""
        raise NotImplementedError(f"{type(self).__name__} defines no forward pass")

    def encode(self, images: Tensor) -> Any:
        """The part of ``forward`` that depends on the images alone.

        A method with references does its image side here, so that several memories can judge the
        same images without running the network again.
        """
        return images

    def predict(self, encoded: Any) -> Prediction:
        """The rest of ``forward``: what ``encode`` gave against the present knowledge."""
        return self.forward(encoded)

    def score_left_out(self, images: Tensor, groups: Tensor | None = None) -> Prediction:
        """Score each image against the OTHER images as its references.

        This form works for every method; a memory that can leave an image out is faster. Images
        remembered before stay references of all.

        Args:
            images: ``(B, 3, H, W)``.
            groups: ``(B,)`` int64, ascending from 0: images of one group (tiles of one picture)
                are left out together. By default each image is a group.

        Raises:
            ValueError: fewer than two groups, when nothing else is remembered.
        """
        groups = self._groups(images, groups)
        kept = {name: value.clone() for name, value in self.named_buffers()}
        parts = []
        for group in groups.unique():
            others = images[groups != group]
            if len(others):
                self.remember(others)
            parts.append(self.forward(images[groups == group]))
            self.forget()
            self.restore(kept)
        return concatenate(parts)

    def _groups(self, images: Tensor, groups: Tensor | None) -> Tensor:
        if groups is None:
            groups = torch.arange(len(images), device=images.device)
        if len(groups.unique()) + self.shots < 2:
            raise ValueError("leave-one-out needs at least two images")
        return groups

    def restore(self, buffers: dict[str, Tensor]) -> None:
        """Put buffers back, also those whose length has changed since."""
        for name, value in buffers.items():
            owner, _, leaf = name.rpartition(".")
            setattr(self.get_submodule(owner), leaf, value)

    @property
    def device(self) -> torch.device:
        """Where the weights lie and inputs must go."""
        first = next(self.parameters(), None)
        return torch.device("cpu") if first is None else first.device

    # --- scale of the raw numbers ------------------------------------------------------------

    @property
    def neutral_score(self) -> float | None:
        """Score at which the method itself is undecided, or None where its scale has none."""
        return None

    @property
    def map_range(self) -> tuple[float, float]:
        """Lowest and highest value that the map can take."""
        raise NotImplementedError(f"{type(self).__name__} does not state the range of its map")

    @property
    def kinds(self) -> tuple[str, ...]:
        """Defect kinds along the T axis of ``type_score`` and ``type_map``; empty if none."""
        return self.vocabulary.names if self.vocabulary else ()

    def facts(self) -> dict[str, Any]:
        """Everything besides the image and the references that decides its score, plain data."""
        learned = {"checkpoint": self.checkpoint} if self.checkpoint else {}
        return {
            **learned,
            "method": self.info.name,
            "backbone": self.backbone_name,
            "weights": self.weights_fingerprint,
            "precision": self.precision,
            "config": _plain(dataclasses.asdict(self.config)),
            "object": self.object_name,
            "vocabulary": self.vocabulary.kinds if self.vocabulary else None,
            "preprocess": _plain(dataclasses.asdict(cast(Any, self.preprocess))),
            "shots": self.shots,
        }

    def _unsupported(self, knowledge: str) -> UnsupportedError:
        return UnsupportedError(
            f"{self.info.name} cannot learn normality from {knowledge}; it learns from "
            f"{', '.join(self.info.knows_from)}"
        )


def concatenate(parts: Sequence[Prediction]) -> Prediction:
    """Join predictions along the batch axis."""

    def join(values: list[Tensor | None]) -> Tensor | None:
        present = [v for v in values if v is not None]
        return torch.cat(present) if len(present) == len(values) else None

    return Prediction(
        score=torch.cat([p.score for p in parts]),
        map=torch.cat([p.map for p in parts]),
        type_score=join([p.type_score for p in parts]),
        type_map=join([p.type_map for p in parts]),
    )


def _plain(value: Any) -> Any:
    """Tuples to lists, so that the same facts compare equal after a trip through JSON."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return value

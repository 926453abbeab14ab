"""Detectors on the layers of pretrained features: convolutional networks, ViTs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from zerodefect.backbones.backbone import LayeredBackbone, check_layers, layers_at
from zerodefect.detector.contract import Detector, Input, PatchFeatures
from zerodefect.detector.knowledge import Knowledge
from zerodefect.images import Preprocess
from zerodefect.layers.grid import Grid


@dataclass(frozen=True)
class Patches:
    """What was made of the layers of a batch.

    Attributes:
        grid: of the patches.
        values: ``(B, N, C)``.
    """

    grid: Grid
    values: Tensor


class FeatureDetector(Detector):
    """Distances in the feature space of a network: score and map begin at 0 and have no end.

    A subclass's ``Config`` has ``layers``: those that are read, or None for those at ``strides``.

    Attributes:
        strides: where the paper reads a residual network, in pixels.
        layers: names of the layers that are read.
    """

    strides: ClassVar[tuple[int, ...]] = (8, 16)
    layers: tuple[str, ...]

    def __init__(
        self,
        features: LayeredBackbone,
        config: Any,
        preprocess: Preprocess | None = None,
        further: Sequence[str] = (),
        strides: Sequence[int] | None = None,
    ) -> None:
        """Choose the layers.

        Args:
            features: the network.
            config: hyper-parameters.
            preprocess: how pictures are prepared instead of as the weights say.
            further: layers that are read besides ``layers``.
            strides: instead of the class's.

        Raises:
            ValueError: a layer that the network does not have.
        """
        layers = tuple(config.layers or layers_at(features, strides or self.strides))
        check_layers(features, layers)
        multiple = max(features.layers[name] for name in (*layers, *further))
        inputs = {"image": Input(preprocess or features.preprocess, multiple)}
        super().__init__(config, (features,), inputs)
        self.layers, self.features = layers, features

    def maps(self, images: Tensor) -> list[Tensor]:
        """``(B, C, h, w)`` of each of ``layers``, without a gradient."""
        return [each.detach() for each in self.features.maps(images, self.layers)]

    def patches(self, values: Tensor, grid: tuple[int, int], images: Tensor) -> Patches:
        """``(B, N, C)`` on a grid of these images."""
        return Patches(Grid(*grid, (images.shape[-2], images.shape[-1])), values)

    def patch_features(self, encoded: Any) -> tuple[PatchFeatures, ...]:
        """What the method compares."""
        return (PatchFeatures(encoded.values, encoded.grid),)

    def map_range(self, knowledge: Knowledge) -> tuple[float, float]:
        """From 0, where a patch is as those remembered."""
        return 0.0, float("inf")

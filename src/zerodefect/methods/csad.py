"""CSAD (Hsieh and Lai, BMVC 2024): how often each component occurs in each part of a picture.

The authors train a segmenter of components for each product; here components are clusters of patch
features of the references, which need no training. Their histograms in windows, the Mahalanobis
distance and the normalisation are the authors'. Their student-teacher branch for structural defects
is replaced by the distance to the nearest reference patch, and statistics of a validation split by
those of references left out in turn.

Symbols: h the histograms of a picture, mu and S their mean and pseudo-inverse covariance, K the
number of components, p the side of a window.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from zerodefect.backbones.backbone import LayeredBackbone
from zerodefect.detector.configs import Layers, NotNegative, Positive, hyper_parameters
from zerodefect.detector.facts import MethodInfo
from zerodefect.detector.feature_detector import FeatureDetector, Patches
from zerodefect.detector.knowledge import Knowledge
from zerodefect.detector.reference_pictures import ReferencePictures
from zerodefect.detector.registry import register
from zerodefect.layers.component_maps import (
    centre_shares,
    cluster_centres,
    finer_tokens,
    nearest_centre,
)
from zerodefect.layers.grid import Grid
from zerodefect.layers.patch_histograms import (
    HistogramGaussian,
    InnerScale,
    joint_score,
    left_out_distances,
    window_shares,
)
from zerodefect.layers.smoothing import gaussian_smooth
from zerodefect.types import Prediction

_SIDE = 256  # pixels of the network's input
_SPEAKING = 16  # references, at most, that are left out in turn for the structural scale
_LEAST = 1e-2  # deviation below which a scale is not believed: of few references it is chance


@hyper_parameters
class CSADConfig:
    """Hyper-parameters.

    Attributes:
        layers: that are read; None for those at strides 8 and 16.
        components: clusters of patches, the background included.
        size: side of the map of components, in pixels.
        windows: sides of the windows, as shares of the map; each is a detector of its own.
        overlap: of neighbouring windows, as a share of their side.
        softness: of the border between components, in squared cosine distance.
        structure: weight of the distance to the nearest reference patch; 0 leaves it out.
        sigma: standard deviation of the Gaussian over the map, in pixels of the network's input.
        seed: of the clustering.
    """

    layers: Layers | None = None
    components: Annotated[int, Field(ge=2, le=64)] = 10
    size: Annotated[int, Field(ge=8, le=1024)] = 256
    windows: Annotated[tuple[Annotated[float, Field(gt=0, le=1)], ...], Field(min_length=1)] = (
        1.0,
        0.5,
    )
    overlap: Annotated[float, Field(ge=0, lt=1)] = 0.0
    softness: Positive = 0.02
    structure: NotNegative = 1.0
    sigma: NotNegative = 4.0
    seed: int = 0


@register(
    MethodInfo(
        name="csad",
        title="CSAD (completion)",
        school="component",
        knows_from=("references",),
        paper="Hsieh and Lai, BMVC 2024",
        code_licence="Apache-2.0",
        parity="official code at 2ba199d7: patch histograms, distances, normalisation, their sum; "
        "components and the structural branch are a completion",
        completion=True,
        backbones={"features": "features"},
    )
)
class CSAD(FeatureDetector):
    """Scaled Mahalanobis distances of component histograms, and of patches, added.

    The score is about 0 on good pictures and has no end on either side; the map, cosine distances
    to the nearest reference patch in [0, 2], shows structure alone: a histogram has no place.
    """

    Config = CSADConfig
    config: CSADConfig

    def __init__(self, features: LayeredBackbone, config: CSADConfig | None = None) -> None:
        preprocess = replace(features.preprocess, size=(_SIDE, _SIDE))
        super().__init__(features, config or CSADConfig(), preprocess)
        self.memory: ReferencePictures = ReferencePictures(self._learned)

    def encode(self, images: Tensor) -> Patches:
        """Unit patches at the places of the second layer, where features say what a thing is."""
        maps = self.maps(images)
        size = (maps[-1].shape[-2], maps[-1].shape[-1])
        parts = [F.normalize(F.adaptive_avg_pool2d(each, size), dim=1) for each in maps]
        f = torch.cat(parts, dim=1) / len(parts) ** 0.5
        return self.patches(f.flatten(2).mT, size, images)

    def references(self, encoded: Patches) -> Mapping[str, Tensor]:
        """The patches, and the grid that they lie on."""
        shape = torch.tensor([encoded.grid.shape] * len(encoded.values))
        return {"patches": encoded.values, "grid": shape}

    # --- components -----------------------------------------------------------------------------

    def histograms(self, f: Tensor, grid: tuple[int, int], centres: Tensor) -> list[Tensor]:
        """One ``(B, d)`` for each side of windows, of patches ``(B, N, C)``.

        Component 0 is the background.
        """
        side, soft = (self.config.size,) * 2, self.config.softness
        sides = [max(1, round(share * self.config.size)) for share in self.config.windows]
        rows = []
        for one in f:
            fine = finer_tokens(one[None], grid, side)
            members = centre_shares(fine, centres, soft).mT.unflatten(2, side)  # (1, K, S, S)
            rows.append([window_shares(members, each, self.config.overlap) for each in sides])
        return [torch.cat(each) for each in zip(*rows, strict=True)]

    def _learned(self, knowledge: Knowledge) -> Mapping[str, Tensor]:
        """Centres, histograms of the references, and what these say of each other."""
        f, grid = self.memory.of(knowledge, "patches"), self.memory.of(knowledge, "grid")[0]
        centres = cluster_centres(f.flatten(0, 1), self.config.components, self.config.seed)
        shape = (int(grid[0]), int(grid[1]))
        # the background is what fills most of the pictures' borders
        near = nearest_centre(f, centres).unflatten(1, shape)
        border = torch.cat([near[:, 0], near[:, -1], near[:, :, 0], near[:, :, -1]], 1).flatten()
        first = int(torch.bincount(border, minlength=len(centres)).argmax())
        order = [first, *(k for k in range(len(centres)) if k != first)]
        centres = centres[order]
        h = self.histograms(f, shape, centres)
        learned = {"learned/centres": centres}
        for place, each in enumerate(h):
            learned[f"learned/histograms{place}"] = each.float()
            scale = InnerScale.of(left_out_distances(each))
            learned[f"learned/scale{place}"] = torch.tensor([scale.mean, scale.deviation])
        learned["learned/structure"] = self._structure(knowledge)
        return learned

    def _structure(self, knowledge: Knowledge) -> Tensor:
        """Mean and deviation ``(2,)`` of the structural score of references left out in turn."""
        f, numbers = self.memory.of(knowledge, "patches"), self.memory.numbers(knowledge)
        asked = numbers.unique()
        if len(asked) < 2:
            return torch.tensor([0.0, _LEAST])
        asked = asked[torch.linspace(0, len(asked) - 1, min(_SPEAKING, len(asked))).long()]
        said = [structural(f[numbers == number], f[numbers != number]).amax(1) for number in asked]
        scores = torch.cat(said)
        return torch.stack([scores.mean(), scores.std().clamp(min=_LEAST)])

    def predict(
        self, encoded: Patches, knowledge: Knowledge, left_out: Tensor | None = None
    ) -> Prediction:
        """The sum of the detectors; the map is structural."""
        self.memory.check(left_out)
        if "learned/centres" not in knowledge:
            knowledge = self.memory.settle(knowledge)
        grid = encoded.grid
        centres, distances, scales = knowledge["learned/centres"], [], []
        for place, h in enumerate(self.histograms(encoded.values, grid.shape, centres)):
            gaussian = HistogramGaussian.of(knowledge[f"learned/histograms{place}"])
            distances.append(gaussian.distance(h))
            mean, deviation = knowledge[f"learned/scale{place}"].tolist()
            scales.append(InnerScale(mean, max(deviation, _LEAST)))
        d = structural(encoded.values, self.memory.of(knowledge, "patches"))  # (B, N)
        mean, deviation = knowledge["learned/structure"].tolist()
        s = joint_score(distances, scales).float()
        s = s + self.config.structure * (d.amax(1) - mean) / deviation
        return Prediction(s, self.full_map(d, grid))

    def full_map(self, d: Tensor, grid: Grid) -> Tensor:
        """``(B, N)`` at the grid's size, smoothed."""
        return gaussian_smooth(grid.map(d), self.config.sigma)

    def map_range(self, knowledge: Knowledge) -> tuple[float, float]:
        """Cosine distances."""
        return 0.0, 2.0


def structural(f: Tensor, remembered: Tensor) -> Tensor:
    """Cosine distance ``(B, N)`` of unit patches ``(B, N, C)`` to the nearest of ``(n, M, C)``."""
    bank = remembered.flatten(0, 1)
    return torch.stack([1 - (one @ bank.T).amax(1) for one in f]).clamp(0, 2)

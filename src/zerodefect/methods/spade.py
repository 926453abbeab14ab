"""SPADE (Cohen and Hoshen, 2020, arXiv 2005.02357): neighbours by picture, then by place.

The K normal pictures that are nearest as a whole are found first; then every place is compared with
all places of those pictures, on several levels. The authors released no code; the reference is
byungjae89/SPADE-pytorch. Symbols: f a feature of the picture, g one of the gallery.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from zerodefect.backbones.backbone import LayeredBackbone
from zerodefect.detector.configs import Count, Layers, NotNegative, hyper_parameters
from zerodefect.detector.contract import PatchFeatures
from zerodefect.detector.facts import Figure, MethodInfo
from zerodefect.detector.feature_detector import FeatureDetector, Patches
from zerodefect.detector.knowledge import Knowledge
from zerodefect.detector.patch_memory import PatchMemory
from zerodefect.detector.registry import register
from zerodefect.layers.memory import MemoryBank
from zerodefect.layers.smoothing import gaussian_smooth
from zerodefect.types import Prediction

_SOURCE = "arXiv 2005.02357, as quoted by byungjae89/SPADE-pytorch; WideResNet-50"


@hyper_parameters
class SPADEConfig:
    """Hyper-parameters; the defaults are the paper's.

    Attributes:
        layers: levels; None for those at strides 8 and 16. The paper reads 4, 8 and 16.
        whole: layer whose mean stands for the picture; None for the last.
        neighbours: K, the pictures that are compared place by place; all, where there are fewer.
        image_score: mean over the K of the squared distance (paper) or of the distance (code).
        sigma: standard deviation of the Gaussian over the map, in pixels of the network's input.
    """

    layers: Layers | None = None
    whole: str | None = None
    neighbours: Count = 50
    image_score: Literal["squared", "distance"] = "squared"
    sigma: NotNegative = 4.0


@dataclass(frozen=True)
class Pyramid:
    """Features of a batch.

    Attributes:
        levels: patches of each layer.
        whole: ``(B, C)`` of the pictures.
    """

    levels: tuple[Patches, ...]
    whole: Tensor


@register(
    MethodInfo(
        name="spade",
        title="SPADE",
        school="memory",
        knows_from=("references",),
        paper="Cohen and Hoshen, 2020, arXiv 2005.02357",
        code_licence="none released; byungjae89/SPADE-pytorch is Apache-2.0",
        parity="SPADE-pytorch at 077c67b (unofficial): neighbours, distances of each level, score, "
        "map",
        figures=(
            Figure("MVTec AD", "full-shot", "image AUROC", 85.5, _SOURCE),
            Figure("MVTec AD", "full-shot", "pixel AUROC", 96.5, _SOURCE),
        ),
        backbones={"features": "features"},
    )
)
class SPADE(FeatureDetector):
    """The score tells pictures, the map places; both are distances.

    A further reference can raise either: it can take the place of one whose patches were nearer.
    """

    Config = SPADEConfig
    config: SPADEConfig

    def __init__(self, features: LayeredBackbone, config: SPADEConfig | None = None) -> None:
        config = config or SPADEConfig()
        whole = config.whole or list(features.layers)[-1]
        if whole not in features.layers:
            has = ", ".join(features.layers)
            raise ValueError(f"{features.name} has no layer {whole!r}; it has: {has}")
        super().__init__(features, config, further=[whole])
        self.whole = whole
        self.memory: PatchMemory = PatchMemory("euclidean")

    def encode(self, images: Tensor) -> Pyramid:
        """The levels, and the mean of one of them."""
        *levels, last = self.features.maps(images, (*self.layers, self.whole))
        patches = (
            self.patches(f.flatten(2).mT, (f.shape[-2], f.shape[-1]), images) for f in levels
        )
        return Pyramid(tuple(patches), last.mean((2, 3)))

    def references(self, encoded: Pyramid) -> Mapping[str, Tensor]:
        """All levels with the number of their places, and the pictures as a whole."""
        kept = {"whole": encoded.whole[:, None]}
        for place, each in enumerate(encoded.levels):
            B, N, _ = each.values.shape
            kept[f"level{place}"] = each.values
            kept[f"places{place}"] = each.values.new_full((B, 1, 1), N)
        return kept

    def patch_features(self, encoded: Pyramid) -> tuple[PatchFeatures, ...]:
        """Those of every level."""
        return tuple(PatchFeatures(each.values, each.grid) for each in encoded.levels)

    def predict(
        self, encoded: Pyramid, knowledge: Knowledge, left_out: Tensor | None = None
    ) -> Prediction:
        """Distances to the nearest pictures, and to the nearest places in them."""
        d, nearest = self.nearest(encoded, knowledge, left_out)
        there = d.isfinite()
        d = d.where(there, torch.zeros_like(d))
        d = d.square() if self.config.image_score == "squared" else d
        maps = [
            each.grid.map(self.level(place, encoded, nearest, knowledge))
            for place, each in enumerate(encoded.levels)
        ]
        map = gaussian_smooth(torch.stack(maps).mean(0), self.config.sigma)
        return Prediction(d.sum(1) / there.sum(1), map)

    def nearest(
        self, encoded: Pyramid, knowledge: Knowledge, left_out: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Distances ``(B, K)`` of the nearest pictures, and their rows.

        Where too few are left, the distance is infinite and the row -1.
        """
        k, f = self.config.neighbours, encoded.whole[:, None]
        d, rows = self.memory.neighbours(knowledge, "whole", f, k, left_out)
        return d[:, 0], rows[:, 0].where(d[:, 0].isfinite(), -torch.ones_like(rows[:, 0]))

    def level(self, place: int, encoded: Pyramid, nearest: Tensor, knowledge: Knowledge) -> Tensor:
        """Distance ``(B, N)`` of each place to the nearest one of the gallery, on one level."""
        bank, owner = self.memory.bank(knowledge, f"level{place}"), self.owners(place, knowledge)
        if not self.memory.leaves_out(knowledge):
            nearest = self.memory.bank(knowledge, "whole").groups[nearest]
        distances = []
        for row, f in enumerate(encoded.levels[place].values):
            inside = torch.isin(owner, nearest[row])
            if not inside.any():  # thinning left nothing of these pictures
                inside = torch.ones_like(inside)
            gallery = MemoryBank(bank.features[inside], owner[inside], bank.metric)
            distances.append(gallery.nearest(f)[0])
        return torch.stack(distances)

    def owners(self, place: int, knowledge: Knowledge) -> Tensor:
        """Row of the picture (tile) that each place of a level is from, ``(M,)``.

        Of a thinned memory the number of its picture: what is left is in no known order of tiles.
        """
        if not self.memory.leaves_out(knowledge):
            return self.memory.bank(knowledge, f"level{place}").groups
        counts = self.memory.bank(knowledge, f"places{place}").features[:, 0].long()
        return torch.arange(len(counts), device=counts.device).repeat_interleave(counts)

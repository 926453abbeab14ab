"""Pyramid memory: the nearest reference patch at every stage of a convolutional network (ours).

As in SPADE (Cohen and Hoshen, 2020, section 3.3) every stage has a memory of its own, and as in
PatchCore (Roth et al., CVPR 2022, section 3.1) its features are averaged over a neighbourhood. What
is ours: the references say of each other how far a good patch lies from the others' patches. Each
stage is standardised by that, so that stages can be averaged whatever their dimension; and a part
of the distance at which a reference patch itself lies from the other references is taken off where
it is the nearest one, because what varies among good parts says little (compare the local density
of Breunig et al., SIGMOD 2000).

Symbols: d the distance of a patch to the nearest reference patch m, o(m) the distance of m to the
nearest patch of the other references, lambda the density weight, r = d - lambda o(m); mu and sigma
mean and deviation of r over references left out in turn.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from zerodefect.backbones.backbone import LayeredBackbone
from zerodefect.detector.configs import Count, Layers, NotNegative, Odd, Share, hyper_parameters
from zerodefect.detector.contract import PatchFeatures
from zerodefect.detector.facts import MethodInfo
from zerodefect.detector.feature_detector import FeatureDetector, Patches
from zerodefect.detector.knowledge import Knowledge
from zerodefect.detector.patch_memory import PatchMemory
from zerodefect.detector.registry import register
from zerodefect.layers.memory import MemoryBank
from zerodefect.layers.similarity import peak_and_spread, upsample
from zerodefect.layers.smoothing import neighbourhood_mean
from zerodefect.types import Prediction

_SIDE = 448  # pixels: at 224 small damage is lost
_SAMPLE = 512  # patches of a picture, at most, that the scale of a stage is learned from
_BANDS = 8  # of a single picture


@hyper_parameters
class PyramidConfig:
    """Hyper-parameters.

    Attributes:
        layers: that are read; None for those at strides 4, 8, 16 and 32.
        finest: stride in pixels to which finer layers are averaged down.
        neighbourhood: side of the square of patches over which features are averaged.
        density: share of o(m) that is taken off.
        top: share of the highest values of the map whose mean makes half of the image score; the
            highest one makes the other half.
        items: reference patches that each stage keeps, at most, evenly spread over all.
    """

    layers: Layers | None = None
    finest: Count = 8
    neighbourhood: Odd = 3
    density: NotNegative = 0.5
    top: Share = 0.01
    items: Count = 6_272


@register(
    MethodInfo(
        name="pyramid",
        title="Pyramid memory",
        school="memory",
        knows_from=("references",),
        paper="ours, after SPADE (arXiv 2005.02357) and PatchCore (arXiv 2106.08265)",
        code_licence="ours",
        parity="hand-computed on small networks; no published implementation is reproduced",
        backbones={"features": "features"},
    )
)
class Pyramid(FeatureDetector):
    """Standardised distances to the nearest reference patch, averaged over the stages.

    On references left out in turn the map has mean 0 and, stage by stage, deviation 1.
    """

    Config = PyramidConfig
    strides = (4, 8, 16, 32)
    standardised = True
    config: PyramidConfig

    def __init__(self, features: LayeredBackbone, config: PyramidConfig | None = None) -> None:
        preprocess = replace(features.preprocess, size=(_SIDE, _SIDE))
        super().__init__(features, config or PyramidConfig(), preprocess)
        self.memory: StageMemory = StageMemory("euclidean", items=self.config.items)

    def encode(self, images: Tensor) -> tuple[Patches, ...]:
        """Averaged features of every stage, coarser to the end."""
        stages = []
        for name, values in zip(self.layers, self.maps(images), strict=True):
            step = max(1, self.config.finest // self.features.layers[name])
            f = neighbourhood_mean(values, self.config.neighbourhood, "replicate")
            f = F.avg_pool2d(f, step, ceil_mode=True)
            stages.append(self.patches(f.flatten(2).mT, (f.shape[-2], f.shape[-1]), images))
        return tuple(stages)

    def references(self, encoded: tuple[Patches, ...]) -> Mapping[str, Tensor]:
        """Features of every stage."""
        return {name: s.values for name, s in zip(self.layers, encoded, strict=True)}

    def patch_features(self, encoded: tuple[Patches, ...]) -> tuple[PatchFeatures, ...]:
        """Those of every stage."""
        return tuple(PatchFeatures(stage.values, stage.grid) for stage in encoded)

    def settle(self, knowledge: Knowledge) -> Knowledge:
        """Thin the stages, and learn what the references say of each other."""
        for name in self.layers:
            knowledge = self.memory.measured(knowledge, name, self.config.density)
        return knowledge

    def predict(
        self, encoded: tuple[Patches, ...], knowledge: Knowledge, left_out: Tensor | None = None
    ) -> Prediction:
        """The mean over the stages of their standardised distances."""
        finest = max((stage.grid for stage in encoded), key=lambda grid: grid.shape)
        z = torch.zeros(())
        for name, stage in zip(self.layers, encoded, strict=True):
            d, row = self.memory.neighbours(knowledge, name, stage.values, 1, left_out)
            r = d[..., 0] - self.config.density * knowledge[f"own/{name}"][row[..., 0]]
            mean, deviation = knowledge[f"scale/{name}"]
            z = z + upsample(stage.grid.fold((r - mean) / deviation), finest.shape)
        z = z / len(self.layers)  # (B, h, w)
        return Prediction(peak_and_spread(z, self.config.top), finest.upsample(z))

    def map_range(self, knowledge: Knowledge) -> tuple[float, float]:
        """Without ends."""
        return -torch.inf, torch.inf


@dataclass
class StageMemory(PatchMemory):
    """Banks of at most so many patches that know how far each lies from the other pictures' ones.

    Attributes:
        items: patches that a bank keeps.
    """

    items: int = 6_272

    def bytes_of(self, features: Mapping[str, Tensor]) -> int:
        """Features, and o(m) of each."""
        return sum(values.nbytes + values[..., 0].nbytes for values in features.values())

    def leaves_out(self, knowledge: Knowledge) -> bool:
        """Never: what the references say of each other would still be said."""
        return False

    def measured(self, knowledge: Knowledge, name: str, density: float) -> Knowledge:
        """The knowledge with o(m) of every item ``own/NAME`` and ``scale/NAME``, mu and sigma."""
        bank = self.bank(knowledge, name)
        if len(bank.features) > self.items:
            rows = torch.arange(len(bank.features), device=bank.features.device)
            knowledge = self.only(knowledge, name, _spread(rows, self.items))
            bank = self.bank(knowledge, name)
        groups = bank.groups
        if knowledge.shots < 2:  # bands of the only picture speak of each other
            groups = torch.arange(len(groups), device=groups.device) * _BANDS // len(groups)
        bank = MemoryBank(bank.features, groups, "euclidean")
        own, _ = bank.nearest(bank.features, groups)
        r = torch.cat([_residual(bank, own, int(j), density) for j in _spread(groups.unique(), 8)])
        scale = torch.stack([r.mean(), r.std().clamp(min=1e-6)])
        return knowledge.having({f"own/{name}": own, f"scale/{name}": scale})


def _residual(bank: MemoryBank, own: Tensor, left_out: int, density: float) -> Tensor:
    """r ``(n,)`` of patches of a picture, as if it had never been remembered."""
    others = bank.groups != left_out
    rest = MemoryBank(bank.features[others], bank.groups[others], bank.metric)
    d, row = rest.nearest(_spread(bank.features[~others], _SAMPLE))
    if not density:
        return d
    if len(rest.groups.unique()) > 1:
        o, _ = rest.nearest(rest.features[row], rest.groups[row])
    else:
        o = own[others][row]
    return d - density * o


def _spread(values: Tensor, count: int) -> Tensor:
    """Evenly spread rows, ``count`` at most."""
    return values[torch.linspace(0, len(values) - 1, min(count, len(values))).long()]

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

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, permutations, tee
from typing import Annotated, TypeVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from zerodefect.backbones.backbone import LayeredBackbone, whole_patches
from zerodefect.detector.composed import numbered
from zerodefect.detector.configs import (
    LATER,
    Count,
    Layers,
    NotNegative,
    Odd,
    Share,
    hyper_parameters,
)
from zerodefect.detector.contract import PatchFeatures
from zerodefect.detector.facts import MethodInfo, Thorough
from zerodefect.detector.feature_detector import FeatureDetector, Patches
from zerodefect.detector.knowledge import Knowledge
from zerodefect.detector.measured_memory import StageMemory
from zerodefect.detector.registry import register
from zerodefect.layers.similarity import peak_and_spread, upsample
from zerodefect.layers.smoothing import neighbourhood_mean
from zerodefect.layers.turning import rotated
from zerodefect.types import Prediction

_SIDE = 448  # pixels: at 224 small damage is lost
_TURNED = 8  # references, at most, that are turned: many show all directions by themselves
_ASKED = 8  # directions in which references are compared
_PATCHES = 64  # of a picture, at least, to tell from
_LOST = 0.1  # of mean - best, on average, is lost by references that lie anyhow
_NEARER = 0.025  # of the distance as they lie is what they win at their best
_TINY = 1e-6  # pictures that are equal are at no distance

_Stage = TypeVar("_Stage")

Sizes = Annotated[tuple[Annotated[float, Field(ge=0.1, le=1)], ...], Field(min_length=1)]


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
        turned: whether references are also remembered turned in ``directions``, and stages finer
            than the third one averaged down to it, so that as many items stand for them; None to
            find it out from the first ones, see ``lie_anyhow``.
        directions: how many, over the full circle.
        sizes: input sizes relative to the prepared one; every layer at every size is a stage.
    """

    layers: Layers | None = None
    finest: Count = 8
    neighbourhood: Odd = 3
    density: NotNegative = 0.5
    top: Share = 0.01
    items: Count = 6_272
    turned: bool | None = None
    directions: Count = 4
    sizes: Sizes = field(default=(1.0,), metadata=LATER)

    def __post_init__(self) -> None:
        if len({f"{size:g}" for size in self.sizes}) < len(self.sizes):
            raise ValueError("sizes: the same one twice")


@dataclass(frozen=True)
class Stages:
    """What is made of a batch.

    Attributes:
        images: ``(B, 3, H, W)``, which are turned where they are references.
        sizes: averaged features at every input size, of all layers, coarser to the end.
    """

    images: Tensor
    sizes: tuple[tuple[Patches, ...], ...]

    @property
    def patches(self) -> tuple[Patches, ...]:
        """Those of all stages, size by size."""
        return tuple(chain.from_iterable(self.sizes))


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
    thorough = Thorough(10 / 7, lambda usual: {"sizes": (0.7, 1.0), "items": 2 * usual.items})
    config: PyramidConfig

    def __init__(self, features: LayeredBackbone, config: PyramidConfig | None = None) -> None:
        preprocess = replace(features.preprocess, size=(_SIDE, _SIDE))
        super().__init__(features, config or PyramidConfig(), preprocess)
        self.places = tuple(
            f"{layer}*{size:g}" if size != 1 else layer
            for size in self.config.sizes
            for layer in self.layers
        )
        self.memory: StageMemory = StageMemory("euclidean", items=self.config.items)

    def encode(self, images: Tensor) -> Stages:
        """Averaged features of every stage."""
        return Stages(images, tuple(self._at(images, size) for size in self.config.sizes))

    def _at(self, images: Tensor, size: float) -> tuple[Patches, ...]:
        """Those of every layer at an input size, coarser to the end."""
        seen, stages = images, []
        if size < 1:
            patch = self.inputs["image"].multiple
            sides = [whole_patches(side * size, patch) for side in images.shape[-2:]]
            seen = F.interpolate(images, sides, mode="bilinear", antialias=True)
        for name, values in zip(self.layers, self.maps(seen), strict=True):
            step = max(1, self.config.finest // self.features.layers[name])
            f = neighbourhood_mean(values, self.config.neighbourhood, "replicate")
            f = F.avg_pool2d(f, step, ceil_mode=True) if step > 1 else f
            stages.append(self.patches(f.flatten(2).mT, (f.shape[-2], f.shape[-1]), images))
        return tuple(stages)

    def references(self, encoded: Stages) -> Mapping[str, Tensor]:
        """Features of every stage."""
        return {name: each.values for name, each in zip(self.places, encoded.patches, strict=True)}

    def patch_features(self, encoded: Stages) -> tuple[PatchFeatures, ...]:
        """Those of every stage."""
        return tuple(PatchFeatures(stage.values, stage.grid) for stage in encoded.patches)

    def remember(
        self,
        knowledge: Knowledge,
        batches: Iterable[Stages],
        pictures: Iterable[Tensor] | None = None,
    ) -> Knowledge:
        """Add references, the first ones also turned where they lie anyhow."""
        passing = numbered(batches, pictures, knowledge.shots, lambda batch: len(batch.images))
        first: list[tuple[Stages, Tensor, int]] = []
        turned = knowledge.facts.get("turned", self.config.turned)
        while turned is None and (item := next(passing, None)):
            first.append(item)
            if item[2] >= _TURNED:
                break
        if first:
            turned = self.lie_anyhow([(batch.images, numbers) for batch, numbers, _ in first])
        if turned is not None:
            knowledge = knowledge.having({}, facts={**knowledge.facts, "turned": turned})
        left, right = tee(self._shown(chain(first, passing), bool(turned)))
        shown = (batch for batch, _ in left)
        return super().remember(knowledge, shown, (numbers for _, numbers in right))

    def _shown(
        self, batches: Iterable[tuple[Stages, Tensor, int]], turned: bool
    ) -> Iterator[tuple[Stages, Tensor]]:
        """Batches and the numbers of their pictures; after the first pictures turned ones."""
        for batch, numbers, _ in batches:
            yield _coarse(batch) if turned else batch, numbers
            some = (numbers < _TURNED).to(batch.images.device)
            if turned and some.any():
                for images in _turns(batch.images[some], self.config.directions):
                    yield _coarse(self.encode(images)), numbers[numbers < _TURNED]

    def lie_anyhow(self, shown: Sequence[tuple[Tensor, Tensor]]) -> bool | None:
        """Whether parts lie in any direction.

        Of each pair of pictures one is compared with the other turned in eight directions, by the
        mean distance of its patches to the nearest ones; d is this distance as they lie, best and
        mean are those of the eight. Then (d - best) / (mean - best) is 0 where parts lie alike, or
        look the same in several directions, and around 1 where they lie anyhow; a background adds
        the same to all three and cancels. In grain without a direction best is lower by chance, and
        hardly. Seen at half the size, at the third stage, of ``_TURNED`` pictures at most.

        Args:
            shown: images ``(B, 3, H, W)`` and the numbers ``(B,)`` of their pictures.

        Returns:
            None for fewer than three pictures, pictures of several sizes, or so small ones that
            chance decides.
        """
        seen: dict[int, Tensor] = {}
        for images, numbers in shown:
            for image, number in zip(images, numbers.tolist(), strict=True):
                seen.setdefault(number, image)
        first = list(seen.values())[:_TURNED]
        if len(first) < 3 or len({image.shape for image in first}) > 1:
            return None
        small = F.interpolate(torch.stack(first), scale_factor=0.5, mode="area")
        lying = self._third(small)
        if lying.shape[1] < _PATCHES:
            return None
        views = chain([lying], (self._third(images) for images in _turns(small, _ASKED)))
        d = torch.stack([_between(lying, view) for view in views])  # (directions, pairs)
        best, mean = d.amin(0), d.mean(0)
        lost = (d[0] - best) / (mean - best).clamp_min(_TINY)
        nearer = (d[0] - best) / d[0].clamp_min(_TINY)
        return bool(lost.mean() > _LOST and nearer.mean() > _NEARER)

    def _third(self, images: Tensor) -> Tensor:
        """Averaged features of the third stage, ``(K, n, C)``."""
        values = self.features.maps(images, (_third_of(self.layers),))[0]
        f = neighbourhood_mean(values, self.config.neighbourhood, "replicate")
        return f.flatten(2).mT.contiguous()

    def settle(self, knowledge: Knowledge) -> Knowledge:
        """Thin the stages, and learn what the references say of each other."""
        for name in self.places:
            knowledge = self.memory.measured(knowledge, name, self.config.density)
        return knowledge

    def predict(
        self, encoded: Stages, knowledge: Knowledge, left_out: Tensor | None = None
    ) -> Prediction:
        """The mean over the stages of their standardised distances."""
        if knowledge.facts.get("turned"):
            encoded = _coarse(encoded)
        finest = max((stage.grid for stage in encoded.patches), key=lambda grid: grid.shape)
        z = torch.zeros(())
        for name, stage in zip(self.places, encoded.patches, strict=True):
            d, row = self.memory.neighbours(knowledge, name, stage.values, 1, left_out)
            out = None if left_out is None else left_out[:, None]
            o = self.memory.own(knowledge, name, row[..., 0], out)
            r = d[..., 0] - self.config.density * o
            mean, deviation = knowledge[f"scale/{name}"]
            z = z + upsample(stage.grid.fold((r - mean) / deviation), finest.shape)
        z = z / len(self.places)  # (B, h, w)
        return Prediction(peak_and_spread(z, self.config.top), finest.upsample(z))

    def map_range(self, knowledge: Knowledge) -> tuple[float, float]:
        """Without ends."""
        return -torch.inf, torch.inf


def _third_of(stages: Sequence[_Stage]) -> _Stage:
    """The third stage, or the last one of fewer."""
    return stages[min(2, len(stages) - 1)]


def _coarse(encoded: Stages) -> Stages:
    """Finer stages of every size averaged down to its third one."""
    return Stages(encoded.images, tuple(_coarse_layers(each) for each in encoded.sizes))


def _coarse_layers(layers: tuple[Patches, ...]) -> tuple[Patches, ...]:
    rows = _third_of(layers).grid.rows
    patches = []
    for stage in layers:
        f, step = stage.grid.fold(stage.values.mT), max(1, round(stage.grid.rows / rows))
        f = F.avg_pool2d(f, step, ceil_mode=True)
        grid = replace(stage.grid, rows=f.shape[-2], columns=f.shape[-1])
        patches.append(Patches(grid, f.flatten(2).mT))
    return tuple(patches)


def _between(pictures: Tensor, others: Tensor) -> Tensor:
    """Mean distance of each picture's patches to the nearest ones of each other, ``(pairs,)``.

    Both are ``(K, n, C)``; a picture is not compared with the one of its own number.
    """
    pairs = permutations(range(len(pictures)), 2)
    return torch.stack([torch.cdist(pictures[i], others[j]).amin(1).mean() for i, j in pairs])


def _turns(images: Tensor, directions: int) -> Iterator[Tensor]:
    """In every direction but the first."""
    for step in range(1, directions):
        yield rotated(images, 360 * step / directions, "border")

"""PatchCore (Roth et al., CVPR 2022, arXiv 2106.08265): a coreset of locally averaged features.

Two public implementations differ in numbers. ``amazon`` is the authors' (amazon-science/patchcore-
inspection): features pooled to a fixed width, squared distances, the highest one as image score.
``anomalib`` concatenates the layers, takes distances, and weighs the image score as the paper says.

Symbols: C channels of a layer, e a patch embedding, M the memory, N_b(m) the b items of M nearest
to m.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from zerodefect.backbones.backbone import LayeredBackbone
from zerodefect.detector.configs import Count, Layers, NotNegative, Share, hyper_parameters
from zerodefect.detector.facts import Figure, MethodInfo
from zerodefect.detector.feature_detector import FeatureDetector, Patches
from zerodefect.detector.knowledge import Knowledge
from zerodefect.detector.patch_memory import PatchMemory
from zerodefect.detector.registry import register
from zerodefect.layers.coreset import farthest_points
from zerodefect.layers.smoothing import gaussian_smooth, neighbourhood_mean
from zerodefect.types import Prediction

_README = "README of amazon-science/patchcore-inspection at fcaa92f, WideResNet-50, 224 px, 10 %"
_ANCHORS = 10  # random patches whose mean distance begins the authors' selection
_EPSILON = 0.9  # of the random projection in anomalib's


@hyper_parameters
class PatchCoreConfig:
    """Hyper-parameters; the defaults are the authors'.

    Attributes:
        scoring: which implementation.
        layers: that are read; None for those at strides 8 and 16.
        fraction: of all patches that are kept.
        minimum: patches that are kept in any case, all of a few pictures: the paper selects among
            the hundred thousand of a full set.
        neighbours: that are averaged; in ``anomalib`` b, those of the nearest item that weigh the
            image score (1: no weight). None for 1 and 9.
        layer_width, width: of a layer's patch, and of an embedding, after pooling; a layer that
            has less keeps what it has. ``amazon`` alone.
        projected: width in which ``amazon`` selects.
        sigma: standard deviation of the Gaussian over the map, in pixels of the network's input.
        seed: of the selection.
    """

    scoring: Literal["amazon", "anomalib"] = "amazon"
    layers: Layers | None = None
    fraction: Share = 0.1
    minimum: Count = 10_000
    neighbours: Count | None = None
    layer_width: Count = 1024
    width: Count = 1024
    projected: Count = 128
    sigma: NotNegative = 4.0
    seed: int = 0


@register(
    MethodInfo(
        name="patchcore",
        title="PatchCore",
        school="memory",
        knows_from=("references",),
        paper="Roth et al., CVPR 2022, arXiv 2106.08265",
        code_licence="Apache-2.0",
        parity="official code at fcaa92f and anomalib at b723368: embeddings, order of the "
        "coreset, distances, score, map",
        figures=(
            Figure("MVTec AD", "full-shot", "image AUROC", 99.2, _README),
            Figure("MVTec AD", "full-shot", "pixel AUROC", 98.1, _README),
            Figure("MVTec AD", "full-shot", "AUPRO", 94.4, _README),
        ),
        backbones={"features": "features"},
    )
)
class PatchCore(FeatureDetector):
    """Distance of each patch to the nearest item of the memory, squared in ``amazon``.

    As long as all patches are kept, references can be left out exactly; and but for the weight of
    ``anomalib``, no further one raises score or map.
    """

    Config = PatchCoreConfig
    monotone_memory = True
    config: PatchCoreConfig

    def __init__(self, features: LayeredBackbone, config: PatchCoreConfig | None = None) -> None:
        super().__init__(features, config := config or PatchCoreConfig())
        self.memory: CoresetMemory = CoresetMemory("euclidean", config=config)
        self.monotone_memory = config.scoring == "amazon"

    def encode(self, images: Tensor) -> Patches:
        """One embedding for each place of the first layer."""
        maps = self.maps(images)
        embed = {"amazon": self.pooled, "anomalib": self.concatenated}[self.config.scoring]
        return self.patches(embed(maps), (maps[0].shape[-2], maps[0].shape[-1]), images)

    def pooled(self, maps: list[Tensor]) -> Tensor:
        """The authors' embedding ``(B, N, width)``.

        They resize each of the 9 C planes before they pool; both steps are linear, and pooling
        first leaves fewer planes.
        """
        planes = []
        for each in maps:
            u = F.unfold(each, 3, padding=1).mT  # (B, h w, 9 C), channels first
            u = F.adaptive_avg_pool1d(u, min(self.config.layer_width, u.shape[2]))
            planes.append(_resized(u.mT.unflatten(2, each.shape[-2:]), maps[0]))
        e = torch.cat(planes, dim=1).flatten(2).mT
        return F.adaptive_avg_pool1d(e, min(self.config.width, e.shape[2]))

    def concatenated(self, maps: list[Tensor]) -> Tensor:
        """anomalib's embedding ``(B, N, sum of C)``."""
        planes = [_resized(neighbourhood_mean(each, 3, "zeros"), maps[0]) for each in maps]
        return torch.cat(planes, dim=1).flatten(2).mT

    def references(self, encoded: Patches) -> Mapping[str, Tensor]:
        """The embeddings."""
        return {"patches": encoded.values}

    def predict(
        self, encoded: Patches, knowledge: Knowledge, left_out: Tensor | None = None
    ) -> Prediction:
        """Distances to the memory."""
        if self.config.scoring == "anomalib":
            return self._as_anomalib(encoded, knowledge, left_out)
        s = self.squared(encoded, knowledge, left_out)
        return Prediction(s.amax(1), gaussian_smooth(encoded.grid.map(s), self.config.sigma))

    def squared(
        self, encoded: Patches, knowledge: Knowledge, left_out: Tensor | None = None
    ) -> Tensor:
        """Mean squared distance to the nearest items, ``(B, N)``."""
        k = self.config.neighbours or 1
        d, _ = self.memory.neighbours(knowledge, "patches", encoded.values, k, left_out)
        there = d.isfinite()
        return d.where(there, torch.zeros_like(d)).square().sum(2) / there.sum(2)

    def _as_anomalib(
        self, encoded: Patches, knowledge: Knowledge, left_out: Tensor | None
    ) -> Prediction:
        e, grid = encoded.values, encoded.grid
        d, nearest = self.memory.neighbours(knowledge, "patches", e, 1, left_out)
        s, nearest = d[..., 0], nearest[..., 0]  # (B, N)
        worst = s.argmax(1)
        rows = torch.arange(len(s), device=s.device)
        w = self.weight(e[rows, worst], nearest[rows, worst], knowledge, left_out)
        map = F.interpolate(grid.fold(s)[:, None], grid.size, mode="nearest")[:, 0]
        return Prediction(
            w * s[rows, worst], gaussian_smooth(map, self.config.sigma, edge_twice=False)
        )

    def weight(
        self, e: Tensor, nearest: Tensor, knowledge: Knowledge, left_out: Tensor | None = None
    ) -> Tensor:
        """Weight of the image score ``(B,)``: paper, equation 7.

        1 less the share of the nearest item in a softmax over the distances of ``e`` ``(B, C)`` to
        the items around it.
        """
        b = self.config.neighbours or 9
        items = self.memory.bank(knowledge, "patches").features
        near, rows = self.memory.neighbours(
            knowledge, "patches", items[nearest][:, None], b, left_out
        )
        if rows.shape[2] == 1:
            return torch.ones_like(e[:, 0])
        d = (items[rows[:, 0]] - e[:, None]).norm(dim=2)  # (B, b)
        d = d.masked_fill(near[:, 0] == torch.inf, -torch.inf)
        return 1 - d.softmax(1)[:, 0]


def _resized(maps: Tensor, like: Tensor) -> Tensor:
    if maps.shape[-2:] == like.shape[-2:]:
        return maps
    return F.interpolate(maps, like.shape[-2:], mode="bilinear")


# --- the memory ----------------------------------------------------------------------------------


@dataclass
class CoresetMemory(PatchMemory):
    """Keeps a share of what it was shown, once there is enough of it.

    Attributes:
        config: says how much, and how it is chosen.
    """

    config: PatchCoreConfig = field(default_factory=PatchCoreConfig)

    def remember(
        self,
        knowledge: Knowledge,
        batches: Iterable[Mapping[str, Tensor]],
        pictures: Iterable[Tensor] | None = None,
    ) -> Knowledge:
        """Add patches and count them; see ``PatchMemory``."""
        seen = int(knowledge.facts.get("seen", 0))

        def counted() -> Iterator[Mapping[str, Tensor]]:
            nonlocal seen
            for batch in batches:
                seen += batch["patches"].shape[:2].numel()
                yield batch

        known = super().remember(knowledge, counted(), pictures)
        return known.having({}, facts={**known.facts, "seen": seen})

    def settle(self, knowledge: Knowledge) -> Knowledge:
        """Keep a coreset, where that is less than there is."""
        bank = self.bank(knowledge, "patches")
        wanted = int(self.config.fraction * int(knowledge.facts["seen"]))
        count = max(1, self.config.minimum, wanted)
        if count >= len(bank.features):
            return knowledge
        kept = chosen(bank.features, count, self.config)
        return self.only(knowledge, "patches", kept)


def chosen(features: Tensor, count: int, config: PatchCoreConfig) -> Tensor:
    """Rows ``(count,)`` of a coreset of ``(n, C)``, in the order of choice."""
    draws = torch.Generator().manual_seed(config.seed)
    n, C = features.shape
    if config.scoring == "anomalib":
        R = sparse_projection(n, C, draws).to(features)
        start = int(torch.randint(n, (), generator=draws))
        return farthest_points(features @ R.T, count, start)
    if config.projected != C:
        W = (2 * torch.rand(config.projected, C, generator=draws) - 1) / math.sqrt(C)
        features = features @ W.to(features).T
    anchors = torch.randperm(n, generator=draws)[:_ANCHORS]
    return from_anchors(features, count, anchors.to(features.device))


def from_anchors(features: Tensor, count: int, anchors: Tensor) -> Tensor:
    """Greedy choice that begins far, on average, from some rows, which are not in it."""
    parts = [torch.cdist(block, features[anchors]).mean(1) for block in features.split(8192)]
    return farthest_points(features, count, reached=torch.cat(parts))


def sparse_projection(n: int, C: int, draws: torch.Generator) -> Tensor:
    """Rows ``(k, C)`` with one in sqrt(C) entries of either sign, as many as n points need."""
    k = max(1, int(4 * math.log(n) / (_EPSILON**2 / 2 - _EPSILON**3 / 3)))
    there = torch.rand(k, C, generator=draws) < C**-0.5
    sign = 2 * torch.randint(2, (k, C), generator=draws) - 1
    return there * sign * (C**0.25 / math.sqrt(k))

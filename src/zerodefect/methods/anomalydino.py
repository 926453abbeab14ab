"""AnomalyDINO (Damm et al., WACV 2025, arXiv 2405.14529): nearest patches in DINOv2's features.

Symbols: f tokens of a picture, L their number, M the memory of normal tokens, d the distance of
each. Where no picture is known to be normal, the pictures of a batch are each other's memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from zerodefect.backbones.backbone import LayeredBackbone
from zerodefect.detector.configs import (
    Count,
    Layers,
    NotNegative,
    Share,
    hyper_parameters,
)
from zerodefect.detector.facts import Figure, MethodInfo
from zerodefect.detector.feature_detector import FeatureDetector, Patches
from zerodefect.detector.knowledge import Knowledge
from zerodefect.detector.patch_memory import PatchMemory
from zerodefect.detector.registry import register
from zerodefect.layers.consistency import consistency_filter
from zerodefect.layers.grid import Grid
from zerodefect.layers.mutual import Remade, mutual_distances
from zerodefect.layers.smoothing import gaussian_smooth
from zerodefect.layers.turning import rotated
from zerodefect.types import Prediction

if TYPE_CHECKING:
    from zerodefect.types import Inputs

_TOP = 0.01  # share of the patches whose mean is the image score
_ENOUGH = 0.35  # share of the centre that a foreground must cover


@hyper_parameters
class AnomalyDINOConfig:
    """Hyper-parameters.

    Attributes:
        layers: the one that is read; None for the last.
        masking: how the foreground is rounded off. ``flat`` as the official code does, along the
            row-major sequence of patches; ``grid`` on the grid, as the paper means it; ``none`` for
            no foreground. The authors mask some products alone, so that the default is ``none``.
        threshold: of the first principal component; in units of DINOv2's features.
        mask_references: whether the background of references is not remembered either.
        rotations: how many turned copies of a reference are remembered, itself included.
        neighbours: that are averaged.
        metric: ``cosine`` distance, or ``euclidean`` between the tokens as they are.
        sigma: standard deviation of the Gaussian over the map, in pixels of the network's input.
        quantile: share of all patches of the other pictures that count as near, in a batch.
    """

    layers: Layers | None = None
    masking: Literal["none", "flat", "grid"] = "none"
    threshold: float = 10.0
    mask_references: bool = False
    rotations: Count = 8
    neighbours: Count = 1
    metric: Literal["cosine", "euclidean"] = "cosine"
    sigma: NotNegative = 4.0
    quantile: Share = 0.001


@hyper_parameters
class AnomalyDINOBatchConfig(AnomalyDINOConfig):
    """Hyper-parameters of the batched form.

    Attributes:
        consistency: a defect that many of the pictures share does not count as normal; see
            ``layers/consistency.py``. Not in the paper.
    """

    consistency: bool = False


@dataclass(frozen=True)
class Tokens(Patches):
    """Patches, and which of them show the product.

    Attributes:
        foreground: ``(B, N)`` bool.
    """

    foreground: Tensor


class _OnTokens(FeatureDetector):
    """What both ways share: the tokens of the last block, the foreground, the map."""

    Config = AnomalyDINOConfig
    strides = (32,)  # the end of the network
    config: AnomalyDINOConfig

    def __init__(self, features: LayeredBackbone, config: AnomalyDINOConfig | None = None) -> None:
        super().__init__(features, config or AnomalyDINOConfig())

    def encode(self, images: Tensor) -> Tokens:
        """Tokens, and where the product is."""
        (f,) = self.maps(images)
        h, w = f.shape[-2:]
        rows = [self.foreground(tokens, (h, w)) for tokens in f.flatten(2).mT]
        grid = Grid(h, w, (images.shape[-2], images.shape[-1]))
        return Tokens(grid, f.flatten(2).mT, torch.stack(rows))

    def foreground(self, f: Tensor, grid: tuple[int, int]) -> Tensor:
        """Where the product is, ``(L,)`` bool, by the first component of ``(L, C)``.

        Everywhere, where it would be nowhere.
        """
        everywhere = torch.ones(len(f), dtype=torch.bool, device=f.device)
        if self.config.masking == "none":
            return everywhere
        t = first_component(f.double())
        mask = t > self.config.threshold
        (h, w), m = grid, mask.view(grid)
        centre = m[int(0.2 * h) : int(0.8 * h), int(0.2 * w) : int(0.8 * w)]
        if not centre.numel() or centre.sum() <= _ENOUGH * centre.numel():
            mask = -t > self.config.threshold
        mask = rounded(mask.view(1, -1) if self.config.masking == "flat" else mask.view(grid))
        return mask.flatten() if mask.any() else everywhere

    def prediction(self, d: Tensor, encoded: Tokens) -> Prediction:
        """Score and map of distances ``(B, N)``, which are 0 behind the product."""
        d = d * encoded.foreground
        return Prediction(top_mean(d), self.full_map(d, encoded.grid))

    def full_map(self, d: Tensor, grid: Grid) -> Tensor:
        """``(B, N)`` at the grid's size, smoothed."""
        return gaussian_smooth(grid.map(d), self.config.sigma)


@register(
    MethodInfo(
        name="anomalydino",
        title="AnomalyDINO",
        school="memory",
        knows_from=("references",),
        paper="Damm et al., WACV 2025, arXiv 2405.14529",
        code_licence="Apache-2.0",
        parity="official code at b3435f0: tokens, foreground, distances, score, map",
        figures=(Figure("MVTec AD", "1-shot", "image AUROC", 96.6, "arXiv 2405.14529, abstract"),),
        backbones={"features": "vit"},
    )
)
class AnomalyDINO(_OnTokens):
    """Distance of each token to the nearest one of references, in [0, 2] where it is of cosines."""

    monotone_memory = True  # the mean over the nearest of more tokens never grows

    def __init__(self, features: LayeredBackbone, config: AnomalyDINOConfig | None = None) -> None:
        super().__init__(features, config)
        cosine = self.config.metric == "cosine"
        self.memory: PatchMemory = PatchMemory("half_cosine" if cosine else "euclidean")

    def map_range(self, knowledge: Knowledge) -> tuple[float, float]:
        """From 0 to 2 for cosine distances."""
        return 0.0, 2.0 if self.config.metric == "cosine" else float("inf")

    def augmented(self, inputs: Inputs) -> Iterator[Inputs]:
        """Turned copies; the official code turns pictures before they are resized."""
        for number in range(1, self.config.rotations):
            yield rotated(cast(Tensor, inputs), 360 * number / self.config.rotations)

    def references(self, encoded: Tokens) -> Mapping[str, Tensor]:
        """The tokens; in place of the background, where that is masked, one of the product's."""
        f = encoded.values
        if self.config.mask_references:
            first = encoded.foreground.int().argmax(1)
            inside = f[torch.arange(len(f), device=f.device), first][:, None]
            f = f.where(encoded.foreground[..., None], inside)
        return {"patches": f}

    def predict(
        self, encoded: Tokens, knowledge: Knowledge, left_out: Tensor | None = None
    ) -> Prediction:
        """Distances to the memory."""
        return self.prediction(self.distance(encoded, knowledge, left_out), encoded)

    def distance(
        self, encoded: Tokens, knowledge: Knowledge, left_out: Tensor | None = None
    ) -> Tensor:
        """Mean distance ``(B, N)`` to the nearest tokens."""
        k = self.config.neighbours
        d, _ = self.memory.neighbours(knowledge, "patches", encoded.values, k, left_out)
        there = d.isfinite()
        d = d.where(there, torch.zeros_like(d))
        if self.config.metric == "cosine":
            return (2 * d.sum(2) / there.sum(2)).clamp(0, 2)
        return (d.square().sum(2) / there.sum(2)).sqrt()


@register(
    MethodInfo(
        name="anomalydino_batch",
        title="AnomalyDINO, batched zero-shot",
        school="set",
        knows_from=("set",),
        paper="Damm et al., WACV 2025, arXiv 2405.14529, section 3.5",
        code_licence="Apache-2.0",
        parity="official code at b3435f0: tokens, foreground, distances, score",
        backbones={"features": "vit"},
    )
)
class AnomalyDINOBatch(_OnTokens):
    """Mean distance of each token to those of the other pictures that are nearest to it."""

    Config = AnomalyDINOBatchConfig

    def __init__(self, features: LayeredBackbone, config: AnomalyDINOConfig | None = None) -> None:
        super().__init__(features, config or AnomalyDINOBatchConfig())

    def map_range(self, knowledge: Knowledge) -> tuple[float, float]:
        """Cosine distances."""
        return 0.0, 2.0

    def score_set(self, encoded: Iterable[Tokens], knowledge: Knowledge) -> Iterator[Prediction]:
        """Every batch against all others, which are gone through once for each batch."""
        total = sum(batch.values.shape[:2].numel() for batch in encoded)
        keep = self._kept(encoded)
        for place, batch in enumerate(encoded):
            near = self._nearest(place, batch, encoded, total, keep)
            yield self.prediction(near.clamp(0, 2), batch)

    def _kept(self, encoded: Iterable[Tokens]) -> list[Tensor] | None:
        """Per picture ``(N,)`` bool: tokens that are no repeated defect; None for all."""
        if not (isinstance(self.config, AnomalyDINOBatchConfig) and self.config.consistency):
            return None
        unit = Remade(encoded, lambda batch: F.normalize(batch.values, dim=-1))
        found = consistency_filter(mutual_distances(unit))
        return [torch.from_numpy(keep) for keep in found.keep] if found.repeated else None

    def _nearest(
        self,
        place: int,
        batch: Tokens,
        encoded: Iterable[Tokens],
        total: int,
        keep: Sequence[Tensor] | None = None,
    ) -> Tensor:
        """Mean ``(B, N)`` over the nearest of all tokens of other pictures.

        The official code averages what lies strictly below the k-th smallest distance: without ties
        the k - 1 smallest. It fails for k below 2, of which 2 is made.
        """
        f = F.normalize(batch.values, dim=-1)
        B, N, _ = f.shape
        k = max(int(self.config.quantile * (total - N)), 2)
        best, number = f.new_full((B, N, 0), torch.inf), 0
        for other, further in enumerate(encoded):
            for row, every in enumerate(F.normalize(further.values, dim=-1)):
                g = every if keep is None else every[keep[number].to(every.device)]
                number += 1
                d = 1 - f @ g.T
                if other == place:
                    d[row] = torch.inf  # itself
                best = torch.cat([best, d], 2)
                best = best.topk(min(k - 1, best.shape[2]), dim=2, largest=False).values
        there = best.isfinite()
        total_near = best.where(there, torch.zeros_like(best)).sum(2)
        return total_near / there.sum(2).clamp(min=1)  # a picture alone is at no distance


# --- parts ---------------------------------------------------------------------------------------


def first_component(f: Tensor) -> Tensor:
    """Scores ``(L,)`` on the first principal component of ``(L, C)``, centred.

    Its coordinate of the largest magnitude is positive.
    """
    centred = f - f.mean(0)
    axis = torch.linalg.eigh(centred.T @ centred).eigenvectors[:, -1]
    return centred @ (axis * axis[axis.abs().argmax()].sign())


def rounded(mask: Tensor) -> Tensor:
    """Dilation, then closing of ``(h, w)`` bool by 3 x 3; nothing outside dilates or erodes."""

    def grown(m: Tensor) -> Tensor:
        return F.max_pool2d(m[None], 3, 1, 1)[0]

    m = grown(grown(mask.float()))  # once, and the first half of the closing
    return (1 - grown(1 - m)) > 0.5


def top_mean(d: Tensor) -> Tensor:
    """Mean of the highest hundredth of ``(B, N)``, or the highest: ``(B,)``."""
    return d.topk(max(1, int(_TOP * d.shape[1])), dim=1).values.mean(1)

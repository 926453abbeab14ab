"""MuSc (Li et al., ICLR 2024, arXiv 2401.16753): the pictures of a batch score each other.

Symbols: N pictures of L patches, r the side of a neighbourhood, b a layer, d the distance of a
patch to the nearest one of another picture, s its mean over the nearest pictures, A the mean of
those over r and b, c the image score, E the embeddings of whole pictures.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from zerodefect.backbones.backbone import LayeredBackbone
from zerodefect.backbones.layered_features import CLIPFeatures
from zerodefect.detector.clip_detector import Activation
from zerodefect.detector.composed import SetLevel
from zerodefect.detector.configs import Count, Layers, Odd, Share, hyper_parameters
from zerodefect.detector.contract import PatchFeatures
from zerodefect.detector.facts import MethodInfo, published_table
from zerodefect.detector.feature_detector import FeatureDetector
from zerodefect.detector.knowledge import Knowledge
from zerodefect.detector.registry import register
from zerodefect.layers.consistency import NEAR, Consistency, consistency_filter
from zerodefect.layers.grid import Grid
from zerodefect.layers.mutual import (
    Remade,
    coarser,
    finer,
    mean_of_nearest,
    mutual_distances,
)
from zerodefect.layers.scaling import MinMax
from zerodefect.layers.smoothing import neighbourhood_mean
from zerodefect.types import Prediction

_TIED = 1e-6  # cosines nearer than that are the same

_METRICS = (
    *("image AUROC", "image F1-max", "image AP"),
    *("pixel AUROC", "pixel F1-max", "pixel AP", "AUPRO"),
)
FIGURES = published_table(
    "arXiv 2401.16753, CLIP ViT-L/14-336 at 518 px",
    "0-shot, batch",
    _METRICS,
    {
        "MVTec AD": (97.8, 97.5, 99.1, 97.3, 62.6, 62.7, 93.8),
        "VisA": (92.8, 89.5, 93.5, 98.8, 48.8, 45.1, 92.7),
    },
)


@hyper_parameters
class MuScConfig:
    """Hyper-parameters; but for ``consistency`` the defaults are those of the authors' code.

    Attributes:
        layers: that are read; None for quarters of a ViT's depth, and for strides 8 to 32 of
            other networks.
        neighbourhoods: sides r of the neighbourhoods that are averaged, in patches.
        nearest: shares from and up to which the nearest of the other pictures count.
        rescoring: numbers k of alike pictures, itself included, over which ``rscin`` averages
            image scores; 1 is the score as it was. The authors take (1, 8, 9) on VisA.
        activation: of a CLIP's tower; the authors' code runs OpenAI's weights with exact GELU at
            sizes that are not the weights' own.
        consistency: a defect that many of the pictures share does not count as normal; see
            ``layers/consistency.py``. Not in the paper.
        search: in which the nearest patch is looked for; its distance is float32 all the same.
    """

    layers: Layers | None = None
    neighbourhoods: Annotated[tuple[Odd, ...], Field(min_length=1)] = (1, 3, 5)
    nearest: tuple[Share, Share] = (0.0, NEAR)
    rescoring: Annotated[tuple[Count, ...], Field(min_length=1)] = (1, 2, 3)
    activation: Activation = "gelu"
    consistency: bool = True
    search: Literal["float32", "bfloat16"] = "float32"

    def __post_init__(self) -> None:
        if self.nearest[0] > self.nearest[1]:
            raise ValueError("nearest needs a lower share before the higher one")


@dataclass(frozen=True)
class Tokens:
    """What was made of a batch.

    Attributes:
        grid: of the patches of the first layer.
        layers: ``(B, C, h, w)`` float32 of each layer b.
        embedding: E ``(B, D)``, not normalised.
    """

    grid: Grid
    layers: tuple[Tensor, ...]
    embedding: Tensor


@register(
    MethodInfo(
        name="musc",
        title="MuSc",
        school="set",
        knows_from=("set",),
        paper="Li et al., ICLR 2024, arXiv 2401.16753",
        code_licence="MIT",
        parity="official code at 45ed4dd: tokens, neighbourhoods, mutual scores, map, RsCIN",
        figures=FIGURES,
        backbones={"features": "features"},
    )
)
class MuSc(FeatureDetector):
    """Mean distance of a patch to the nearest one of the pictures that are nearest to it.

    Score and map lie in [0, 2]. The official image score is averaged over alike pictures of the
    whole set besides: ``set_level``.
    """

    Config = MuScConfig
    set_levels = ("rscin",)
    config: MuScConfig

    def __init__(self, features: LayeredBackbone, config: MuScConfig | None = None) -> None:
        config = config or MuScConfig()
        one_stride = len(set(features.layers.values())) == 1
        preprocess = features.preprocess
        if isinstance(features, CLIPFeatures):
            features = features.with_activation(config.activation)
            preprocess = replace(
                preprocess, interpolation="bicubic", antialias=True, resize_on="pil"
            )
        strides = (4, 8, 16, 32) if one_stride else (8, 16, 32)
        super().__init__(features, config, preprocess, strides=strides)

    def map_range(self, knowledge: Knowledge) -> tuple[float, float]:
        """Distances of unit vectors."""
        return 0.0, 2.0

    def patch_features(self, encoded: Tokens) -> tuple[PatchFeatures, ...]:
        """Every layer, as it came."""
        size = encoded.grid.size
        return tuple(
            PatchFeatures(X.flatten(2).mT, Grid(X.shape[2], X.shape[3], size))
            for X in encoded.layers
        )

    def most_in_set(self, memory: int) -> int | None:
        """By the distances of every patch to every picture, of one r and b and their mean."""
        stride = self.features.layers[self.layers[0]]
        height, width = self.inputs["image"].preprocess.size
        patches = (height // stride) * (width // stride)
        return max(2, math.isqrt(memory // (8 * patches)))

    def set_level(self, name: str, knowledge: Knowledge) -> SetLevel | None:
        """``rscin``: image scores scaled to [0, 1] and averaged over alike pictures."""
        if name not in self.set_levels:
            return super().set_level(name, knowledge)
        return RsCIN(self.config.rescoring)

    # --- in the order of the paper ------------------------------------------------------------

    def encode(self, images: Tensor) -> Tokens:
        """Raw tokens, and E: a CLIP's image embedding, of others the mean of the last layer."""
        if isinstance(self.features, CLIPFeatures):
            maps, E = self.features.residual(images, self.layers)
        else:
            maps = self.maps(images)
            E = maps[-1].mean((2, 3))
        h, w = maps[0].shape[-2:]
        return Tokens(Grid(h, w, (images.shape[-2], images.shape[-1])), tuple(maps), E)

    def aggregated(self, encoded: Tokens, b: int, r: int) -> Tensor:
        """LNAMD: z ``(B, L, C)`` of unit length, of layer number b and side r."""
        X = F.layer_norm(encoded.layers[b], encoded.layers[b].shape[1:])  # (B, C, h, w)
        return F.normalize(neighbourhood_mean(X, r, "zeros").flatten(2).mT, dim=-1)

    def distances(
        self, encoded: Iterable[Tokens], b: int, r: int, keep: Sequence[Tensor] | None = None
    ) -> list[Tensor]:
        """d: per picture ``(L, N)``, see ``mutual_distances``.

        Coarser layers than the first are compared on their own grid; what they say is brought to
        the first one's.
        """
        grids = [
            (batch.grid.shape, (batch.layers[b].shape[2], batch.layers[b].shape[3]))
            for batch in encoded
            for _ in batch.embedding
        ]
        if keep is not None:
            keep = [coarser(k, *grid) for k, grid in zip(keep, grids, strict=True)]
        z = Remade(encoded, lambda batch: self.aggregated(batch, b, r))
        half = self.config.search == "bfloat16"
        found = mutual_distances(z, keep, count=len(grids), half=half)
        return [finer(d, *grid) for d, grid in zip(found, grids, strict=True)]

    def mutual_score(self, d: Tensor) -> Tensor:
        """MSM: s ``(L,)`` float64 of the distances of one picture."""
        least, share = self.config.nearest
        return mean_of_nearest(d, share, least)

    def score_set(self, encoded: Iterable[Tokens], knowledge: Knowledge) -> Iterator[Prediction]:
        """Every picture against all others; each pair is compared once."""
        A, _ = self.scored(encoded)
        start = 0
        for batch in encoded:
            rows = torch.stack(A[start : start + len(batch.embedding)])
            start += len(rows)
            map = batch.grid.map(rows, align_corners=True)
            yield Prediction(map.amax((1, 2)), map, embedding=batch.embedding)

    def scored(self, encoded: Iterable[Tokens]) -> tuple[list[Tensor], Consistency | None]:
        """A ``(L,)`` float64 of every picture, and which of their patches were not compared with.

        Raises:
            TooFewError: a single picture.
        """
        N = sum(len(batch.embedding) for batch in encoded)
        self.check_set(N)
        A, mean = self.averaged(encoded, None)
        if mean is None:
            return A, None
        found = consistency_filter(mean)
        if found.repeated:
            keep = [torch.from_numpy(k).to(a.device) for k, a in zip(found.keep, A, strict=True)]
            del mean
            A, _ = self.averaged(encoded, keep)
        return A, found

    def averaged(
        self, encoded: Iterable[Tokens], keep: Sequence[Tensor] | None
    ) -> tuple[list[Tensor], list[Tensor] | None]:
        """A, and the mean of d where it is to be filtered."""
        ways = [(r, b) for r in self.config.neighbourhoods for b in range(len(self.layers))]
        A: list[Tensor] = []
        mean: list[Tensor] | None = None
        for r, b in ways:
            d = self.distances(encoded, b, r, keep)
            s = [self.mutual_score(each) / len(ways) for each in d]
            A = s if not A else [a + more for a, more in zip(A, s, strict=True)]
            if keep is None and self.config.consistency:
                if mean is None:
                    mean = [each / len(ways) for each in d]
                else:
                    for m, each in zip(mean, d, strict=True):
                        m.add_(each, alpha=1 / len(ways))
        return A, mean


class RsCIN:
    """Image scores, scaled to [0, 1] over all, averaged over pictures with alike embeddings.

    Args:
        numbers: of pictures, itself included, that are averaged; all where there are fewer. The
            mean over these numbers is the score.
    """

    def __init__(self, numbers: Sequence[int]) -> None:
        self.numbers = tuple(numbers)
        self._scale = MinMax()
        self._scores: list[Tensor] = []
        self._embeddings: list[Tensor] = []

    def see(self, prediction: Prediction) -> None:
        """Take scores and embeddings in."""
        assert prediction.embedding is not None
        self._scale.see(prediction.score)
        self._scores.append(prediction.score)
        self._embeddings.append(F.normalize(prediction.embedding, dim=-1))

    def apply(self, prediction: Prediction) -> Prediction:
        """Average the scores of all pictures seen, weighted by the cosines of the k nearest."""
        assert prediction.embedding is not None
        c = self._scale.scaled(torch.cat(self._scores))
        W = F.normalize(prediction.embedding, dim=-1) @ torch.cat(self._embeddings).T  # (B, N)
        itself = c == self._scale.scaled(prediction.score)[:, None]  # first among its copies
        parts = []
        for k in self.numbers:
            columns = (W + _TIED * itself).topk(min(k, len(c)), dim=1).indices
            top = W.gather(1, columns)
            parts.append((top * c[columns]).sum(1) / top.sum(1))
        return replace(prediction, score=torch.stack(parts).mean(0))

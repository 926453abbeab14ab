"""Arrangement: one good picture has to explain all of a picture.

A memory of patches knows what may occur, not what goes together: a cherry on a bottle of orange
juice consists of patches that all have been seen. Here a picture is compared with each reference
as a whole, and the reference that explains it best counts. It is compared in both directions: what
of the picture has no like nearby in the reference is too much, what of the reference has none
nearby in the picture is missing. Places where good pictures differ anyway weigh less. Both
directions are standardised by what references left out in turn give, and their mean is the score.

Ours; what is compared is PatchCore's (arXiv 2106.08265). Symbols: f unit patches of a picture
(N, C), f_r those of reference r, N places, w (N,) weights of places.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from zerodefect.backbones.backbone import LayeredBackbone
from zerodefect.detector.configs import Layers, NotNegative, Odd, Share, hyper_parameters
from zerodefect.detector.facts import MethodInfo
from zerodefect.detector.feature_detector import FeatureDetector, Patches
from zerodefect.detector.knowledge import Knowledge
from zerodefect.detector.learned_grid import check_grid
from zerodefect.detector.reference_pictures import ReferencePictures
from zerodefect.detector.registry import register
from zerodefect.layers.similarity import highest_mean
from zerodefect.layers.smoothing import gaussian_smooth, neighbourhood_mean
from zerodefect.types import Prediction

_SIDE = 256  # pixels of the network's input
_SPEAKING = 32  # references, at most, that are left out in turn for weights and scale
_ALONE = ((0.1, 0.05), (0.1, 0.05))  # the scale of a single reference, which has no others
_LEAST = 0.01  # deviation, in cosine distance
_BELIEVED = 16  # references by which a place's own weight counts as much as none


@hyper_parameters
class ArrangementConfig:
    """Hyper-parameters; share and directions were chosen on edits drawn onto good pictures.

    Attributes:
        layers: that are read; None for those at strides 8 and 16.
        neighbourhood: side of the square of patches that are averaged before they are compared.
        share: of the places that differ most, whose mean is how far a reference lies off.
        reach: how far parts may move, as a share of the grid's longer side; 1 is anywhere.
        sigma: standard deviation of the Gaussian over the map, in pixels of the network's input.
    """

    layers: Layers | None = None
    neighbourhood: Odd = 3
    share: Share = 0.02
    reach: Share = 0.125
    sigma: NotNegative = 4.0


@register(
    MethodInfo(
        name="arrangement",
        title="Arrangement",
        school="memory",
        knows_from=("references",),
        paper="ours; features after PatchCore, arXiv 2106.08265",
        code_licence="ours",
        parity="hand-computed on small networks; no published implementation is reproduced",
        backbones={"features": "features"},
    )
)
class Arrangement(FeatureDetector):
    """Standardised distance to the one reference that explains all of the picture best.

    On references left out in turn score and map have mean 0 and a deviation of about 1. Products
    must lie about alike in every picture.
    """

    Config = ArrangementConfig
    standardised = True
    fixed_grid = True
    config: ArrangementConfig

    def __init__(self, features: LayeredBackbone, config: ArrangementConfig | None = None) -> None:
        preprocess = replace(features.preprocess, size=(_SIDE, _SIDE))
        super().__init__(features, config or ArrangementConfig(), preprocess)
        self.memory: ReferencePictures = ReferencePictures(self._scales, apart=True)

    def encode(self, images: Tensor) -> Patches:
        """Unit patches: the layers at the places of the first, each of unit length."""
        maps = self.maps(images)
        size = (maps[0].shape[-2], maps[0].shape[-1])
        parts = []
        for each in maps:
            f = neighbourhood_mean(each, self.config.neighbourhood, "replicate")
            f = f if f.shape[-2:] == size else F.interpolate(f, size, mode="bilinear")
            parts.append(F.normalize(f, dim=1))
        f = torch.cat(parts, dim=1) / len(parts) ** 0.5
        return self.patches(f.flatten(2).mT, size, images)

    def references(self, encoded: Patches) -> Mapping[str, Tensor]:
        """The patches, and the grid that they lie on."""
        shape = torch.tensor([encoded.grid.shape] * len(encoded.values))
        return {"patches": encoded.values, "grid": shape}

    # --- one picture against references ---------------------------------------------------------

    def differences(self, f: Tensor, f_r: Tensor, shape: tuple[int, int]) -> Tensor:
        """Cosine distance of each patch to the nearest one within reach, in both directions.

        Args:
            f: ``(N, C)`` of a picture.
            f_r: ``(n, N, C)`` of references.
            shape: rows and columns of the grid.

        Returns:
            ``(2, n, N)`` in [0, 2]: at places of the picture what is too much, at those of each
            reference what is missing.
        """
        far = _beyond(shape, self.config.reach, f.device)
        ways = []
        for r in f_r:
            s = f @ r.T
            s = s if far is None else s.masked_fill(far, -2.0)
            # of unit vectors, and exact where they are close, which 1 - s is not
            pairs = (f - r[s.argmax(1)], f[s.argmax(0)] - r)
            ways.append(torch.stack([each.square().sum(1) / 2 for each in pairs]))
        return torch.stack(ways, 1)

    def best(self, d: Tensor) -> tuple[Tensor, Tensor]:
        """The references that explain most, of differences ``(2, n, N)``.

        Returns:
            How far each direction lies off, ``(2,)``, and where, ``(2, N)``.
        """
        off = torch.stack([highest_mean(way, self.config.share) for way in d])
        places = off.argmin(1)
        rows = torch.arange(2, device=d.device)
        return off[rows, places], d[rows, places]

    def _scales(self, knowledge: Knowledge) -> Mapping[str, Tensor]:
        """``scale/weights (2, N)``, and of each direction mean and deviation, ``scale/score`` and
        ``scale/map (2, 2)``.
        """
        f_r, numbers = self.memory.of(knowledge, "patches"), self.memory.numbers(knowledge)
        asked, shape = numbers.unique(), self._shape(knowledge)
        if len(asked) < 2:
            alone = torch.tensor(_ALONE, device=f_r.device)
            weights = torch.ones(2, f_r.shape[1], device=f_r.device)
            return {"scale/score": alone, "scale/map": alone.clone(), "scale/weights": weights}
        asked = asked[torch.linspace(0, len(asked) - 1, min(_SPEAKING, len(asked))).long()]
        said = []
        for number in asked.tolist():
            others = f_r[self.memory.others(knowledge, number)]
            said += [self.differences(f, others, shape) for f in f_r[numbers == number]]
        weights = _weights(torch.stack([self.best(d)[1] for d in said], 1), len(asked))
        found = [self.best(d * weights[:, None]) for d in said]
        scores, maps = (torch.stack(each, 1) for each in zip(*found, strict=True))
        return {
            "scale/score": _scale(scores),
            "scale/map": _scale(maps.flatten(1)),
            "scale/weights": weights,
        }

    def _shape(self, knowledge: Knowledge) -> tuple[int, int]:
        rows, columns = self.memory.of(knowledge, "grid")[0].tolist()
        return rows, columns

    def predict(
        self, encoded: Patches, knowledge: Knowledge, left_out: Tensor | None = None
    ) -> Prediction:
        """The mean of both directions, standardised; the map is the stranger of both."""
        shape = self._shape(knowledge)
        check_grid(self.info.name, shape, encoded.grid.shape)
        if "scale/score" not in knowledge:
            knowledge = self.settle(knowledge)
        f_r, weights = self.memory.of(knowledge, "patches"), knowledge["scale/weights"]
        (m, sd), (mm, ms) = knowledge["scale/score"].T, knowledge["scale/map"].T
        scores, maps = [], []
        for row, f in enumerate(encoded.values):
            out = None if left_out is None else int(left_out[row])
            others = f_r[self.memory.others(knowledge, out)]
            s, d = self.best(self.differences(f, others, shape) * weights[:, None])
            scores.append(((s - m) / sd).mean())
            maps.append(((d - mm[:, None]) / ms[:, None]).amax(0))
        map = gaussian_smooth(encoded.grid.map(torch.stack(maps)), self.config.sigma)
        return Prediction(torch.stack(scores), map)

    def map_range(self, knowledge: Knowledge) -> tuple[float, float]:
        """Without ends."""
        return -torch.inf, torch.inf


def _scale(values: Tensor) -> Tensor:
    """Mean and deviation of each row: ``(2, 2)``."""
    return torch.stack([values.mean(1), values.std(1).clamp(min=_LEAST)], 1)


def _beyond(shape: tuple[int, int], reach: float, device: torch.device) -> Tensor | None:
    """Pairs of places that lie too far from each other ``(N, N)``; None where none do."""
    rows, columns = shape
    radius = round(reach * max(shape))
    if radius >= max(shape) - 1:
        return None
    y = torch.arange(rows, device=device).repeat_interleave(columns)
    x = torch.arange(columns, device=device).repeat(rows)
    apart = torch.maximum((y[:, None] - y).abs(), (x[:, None] - x).abs())
    return apart > radius


def _weights(usual: Tensor, count: int) -> Tensor:
    """Weights ``(2, N)`` about 1 of places by what is usual there, ``(2, n, N)``.

    The mean difference and its deviation count; of few references they are chance, so that all
    places weigh nearly the same.
    """
    t = usual.mean(1) + usual.std(1)
    mean, prior = t.mean(1, keepdim=True).clamp(min=1e-6), _BELIEVED / count
    return (1 + prior) * mean / (t + prior * mean)

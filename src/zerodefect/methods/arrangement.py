"""Arrangement: one good picture has to explain all of a picture.

A memory of patches knows what may occur, not what goes together: a cherry on a bottle of orange
juice consists of patches that all have been seen. Here a picture is compared with each reference
as a whole, and the reference that explains it best counts. It is compared in two ways: place by
place, so that parts may neither move nor change, and with the nearest patch anywhere in the same
reference, so that parts may move. Each is standardised by what references left out in turn give,
and the stranger of both is the score.

Ours; what is compared is PatchCore's (arXiv 2106.08265). Symbols: f unit patches of a picture
(N, C), f_r those of reference r, N places.
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
from zerodefect.detector.reference_pictures import ReferencePictures
from zerodefect.detector.registry import register
from zerodefect.layers.similarity import highest_mean
from zerodefect.layers.smoothing import gaussian_smooth, neighbourhood_mean
from zerodefect.types import Prediction

_SIDE = 256  # pixels of the network's input
_SPEAKING = 16  # references, at most, that are left out in turn for the scale
_ALONE = ((0.1, 0.05), (0.1, 0.05))  # the scale of a single reference, which has no others
_LEAST = 0.01  # deviation, in cosine distance


@hyper_parameters
class ArrangementConfig:
    """Hyper-parameters; shares and ways were chosen on edits drawn onto good pictures.

    Attributes:
        layers: that are read; None for those at strides 8 and 16.
        neighbourhood: side of the square of patches that are averaged before they are compared.
        in_place: share of the places that differ most, whose mean is how far a reference lies off,
            place by place.
        anywhere: the same with the nearest patch anywhere in the reference.
        sigma: standard deviation of the Gaussian over the map, in pixels of the network's input.
    """

    layers: Layers | None = None
    neighbourhood: Odd = 3
    in_place: Share = 0.02
    anywhere: Share = 0.1
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

    On references left out in turn score and map have about mean 0 and deviation 1. Products must
    lie about alike in every picture.
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

    def compared(self, f: Tensor, f_r: Tensor) -> tuple[tuple[Tensor, Tensor], ...]:
        """How far ``(N, C)`` lies off the best of ``(n, N, C)``, and where: in place, anywhere.

        Returns:
            Twice a scalar and ``(N,)``, cosine distances in [0, 2].
        """
        here = 1 - (f * f_r).sum(2)  # (n, N)
        near = torch.stack([1 - (f @ r.T).amax(1) for r in f_r])
        both = zip((here, near), (self.config.in_place, self.config.anywhere), strict=True)
        found = []
        for d, share in both:
            off = highest_mean(d, share)  # (n,)
            best = int(off.argmin())
            found.append((off[best].clamp(min=0), d[best].clamp(min=0)))
        return tuple(found)

    def _scales(self, knowledge: Knowledge) -> Mapping[str, Tensor]:
        """``scale/score`` and ``scale/map (2, 2)``: mean and deviation, in place and anywhere."""
        f_r, numbers = (
            self.memory.of(knowledge, "patches"),
            self.memory.numbers(knowledge),
        )
        asked = numbers.unique()
        if len(asked) < 2:
            alone = torch.tensor(_ALONE, device=f_r.device)
            return {"scale/score": alone, "scale/map": alone.clone()}
        asked = asked[torch.linspace(0, len(asked) - 1, min(_SPEAKING, len(asked))).long()]
        said = []
        for number in asked.tolist():
            others = f_r[self.memory.others(knowledge, number)]
            said += [self.compared(f, others) for f in f_r[numbers == number]]
        scores = torch.tensor([[float(one[0]) for one in both] for both in said])
        maps = torch.stack([torch.stack([one[1] for one in both]) for both in said])  # (n, 2, N)
        values = maps.transpose(0, 1).flatten(1)
        return {
            "scale/score": _scale(scores.T.to(f_r.device)),
            "scale/map": _scale(values),
        }

    def predict(
        self, encoded: Patches, knowledge: Knowledge, left_out: Tensor | None = None
    ) -> Prediction:
        """The stranger of both ways, standardised."""
        known = self.memory.of(knowledge, "grid")[0].tolist()
        if list(encoded.grid.shape) != known:
            raise ValueError(
                f"arrangement learned {known[0]}x{known[1]} places and cannot judge "
                f"{encoded.grid.rows}x{encoded.grid.columns}: give inputs of the same size"
            )
        if "scale/score" not in knowledge:
            knowledge = self.settle(knowledge)
        f_r = self.memory.of(knowledge, "patches")
        scores, maps = [], []
        for row, f in enumerate(encoded.values):
            out = None if left_out is None else int(left_out[row])
            both = self.compared(f, f_r[self.memory.others(knowledge, out)])
            s, d = (torch.stack(each) for each in zip(*both, strict=True))
            (m, sd), (mm, ms) = knowledge["scale/score"].T, knowledge["scale/map"].T
            scores.append(((s - m) / sd).amax())
            maps.append(((d - mm[:, None]) / ms[:, None]).amax(0))
        map = gaussian_smooth(encoded.grid.map(torch.stack(maps)), self.config.sigma)
        return Prediction(torch.stack(scores), map)

    def map_range(self, knowledge: Knowledge) -> tuple[float, float]:
        """Without ends."""
        return -torch.inf, torch.inf


def _scale(values: Tensor) -> Tensor:
    """Mean and deviation of each row: ``(2, 2)``."""
    return torch.stack([values.mean(1), values.std(1).clamp(min=_LEAST)], 1)

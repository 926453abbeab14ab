"""PaDiM (Defard et al., ICPR 2020 workshops, arXiv 2011.08785): one Gaussian for each position.

The authors released no code: ``anomalib`` is that implementation, ``paper`` the paper's formulas as
the community runs them. Symbols: p a position, mu_p and S_p mean and covariance there, L_p the
Cholesky factor of S_p.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from zerodefect.backbones.backbone import LayeredBackbone
from zerodefect.detector.composed import SetLevel, numbered
from zerodefect.detector.configs import Count, Layers, NotNegative, Positive, hyper_parameters
from zerodefect.detector.facts import Figure, MethodInfo
from zerodefect.detector.feature_detector import FeatureDetector, Patches
from zerodefect.detector.knowledge import Knowledge
from zerodefect.detector.learned_grid import check_grid
from zerodefect.detector.patch_memory import DEFAULT_BUDGET
from zerodefect.detector.registry import register
from zerodefect.layers.scaling import MinMax
from zerodefect.layers.smoothing import gaussian_smooth
from zerodefect.types import Prediction

_README = "README of anomalib at b723368, WideResNet-50"
_BEFORE_INVERTING = 1e-5  # that anomalib adds besides


@hyper_parameters
class PaDiMConfig:
    """Hyper-parameters.

    Attributes:
        flavour: whose constants and borders.
        layers: that are read; None for those at strides 8 and 16. The paper reads 4, 8 and 16.
        channels: that are kept of all, drawn once; all, where there are not more. The paper keeps
            100 of a ResNet-18 and 550 of a WideResNet-50.
        covariance: ``diagonal`` needs a hundredth of the memory and takes channels as independent.
        regularisation: what is added to each variance.
        sigma: standard deviation of the Gaussian over the map, in pixels of the network's input.
        seed: of the choice of channels.
    """

    flavour: Literal["anomalib", "paper"] = "anomalib"
    layers: Layers | None = None
    channels: Count = 100
    covariance: Literal["full", "diagonal"] = "full"
    regularisation: Positive = 0.01
    sigma: NotNegative = 4.0
    seed: int = 0


@register(
    MethodInfo(
        name="padim",
        title="PaDiM",
        school="memory",
        knows_from=("references",),
        paper="Defard et al., ICPR 2020 workshops, arXiv 2011.08785",
        code_licence="none released; anomalib's is Apache-2.0",
        parity="anomalib at b723368: embeddings, mean, covariance, distances, score, map; the "
        "paper's formulas in float64",
        figures=(
            Figure("MVTec AD", "full-shot", "image AUROC", 95.0, _README),
            Figure("MVTec AD", "full-shot", "pixel AUROC", 97.9, _README),
            Figure("MVTec AD", "full-shot", "image F1-max", 95.1, _README),
        ),
        backbones={"features": "features"},
    )
)
class PaDiM(FeatureDetector):
    """Mahalanobis distance of each patch to the normal ones at its place.

    Products must lie in the same place in every picture. The image score is the highest value of
    the smoothed map. Inputs must have the size of those remembered.
    """

    Config = PaDiMConfig
    set_levels = ("min_max",)
    fixed_grid = True
    config: PaDiMConfig

    def __init__(self, features: LayeredBackbone, config: PaDiMConfig | None = None) -> None:
        super().__init__(features, config := config or PaDiMConfig())
        self.memory: GaussianMemory = GaussianMemory(config)

    def encode(self, images: Tensor) -> Patches:
        """The chosen channels of all layers at the first one's places."""
        maps = self.maps(images)
        size = (maps[0].shape[-2], maps[0].shape[-1])
        maps = [F.interpolate(each, size, mode="nearest") for each in maps]
        E = torch.cat(maps, dim=1)
        E = E[:, self.chosen(E.shape[1]).to(E.device)]  # (B, C, h, w)
        return self.patches(E.flatten(2).mT, size, images)

    def chosen(self, channels: int) -> Tensor:
        """Which of all channels are kept, in the order of the draw."""
        draws = torch.Generator().manual_seed(self.config.seed)
        return torch.randperm(channels, generator=draws)[: self.config.channels]

    def references(self, encoded: Patches) -> Mapping[str, Tensor]:
        """The embeddings, and the grid that they lie on."""
        shape = torch.tensor([encoded.grid.shape] * len(encoded.values))
        return {"patches": encoded.values, "grid": shape[:, None]}

    def predict(
        self, encoded: Patches, knowledge: Knowledge, left_out: Tensor | None = None
    ) -> Prediction:
        """Distances to the Gaussians, their map and its highest value."""
        grid = tuple(int(side) for side in knowledge["grid"])
        check_grid(self.info.name, grid, encoded.grid.shape)
        d = self.memory.distance(knowledge, encoded.values, left_out)
        twice = self.config.flavour == "paper"
        map = gaussian_smooth(encoded.grid.map(d), self.config.sigma, edge_twice=twice)
        return Prediction(map.amax((1, 2)), map)

    def set_level(self, name: str, knowledge: Knowledge) -> SetLevel | None:
        """``min_max``: maps between the lowest and the highest value of all."""
        return _MinMax() if name in self.set_levels else super().set_level(name, knowledge)


class _MinMax:
    """Scales maps over the set, and takes the scores from them; the ranking stays as it is."""

    def __init__(self) -> None:
        self.pixels = MinMax()

    def see(self, prediction: Prediction) -> None:
        """Take a batch in."""
        assert prediction.map is not None
        self.pixels.see(prediction.map)

    def apply(self, prediction: Prediction) -> Prediction:
        """Scale a batch."""
        assert prediction.map is not None
        map = self.pixels.scaled(prediction.map)
        return Prediction(map.amax((1, 2)), map)


@dataclass
class GaussianMemory:
    """Sums over pictures, which give mean and covariance at each position.

    It takes the same memory whatever the number of pictures, and can leave none of them out.

    Attributes:
        config: which covariance, and what is added to it.
        budget: bytes that the sums may take.
    """

    config: PaDiMConfig
    budget: int = DEFAULT_BUDGET
    constant: ClassVar[bool] = True

    def remember(
        self,
        knowledge: Knowledge,
        batches: Iterable[Mapping[str, Tensor]],
        pictures: Iterable[Tensor] | None = None,
    ) -> Knowledge:
        """Add pictures; see ``Detector.remember``.

        Raises:
            ValueError: features that are not finite, of another grid, or beyond the budget.
        """
        shots, tensors = knowledge.shots, dict(knowledge.tensors)
        passing = numbered(batches, pictures, shots, lambda features: len(features["patches"]))
        for features, _, so_far in passing:
            shots, e, grid = so_far, features["patches"], features["grid"][0, 0]
            self._check(e, grid, tensors.get("grid"))
            x = e.permute(1, 0, 2).double()  # (N, B, C)
            sums = {"sum/count": torch.tensor(float(len(e)), dtype=torch.float64)}
            sums["sum/first"] = x.sum(1)  # (N, C)
            sums["sum/second"] = x.mT @ x if self._full else x.square().sum(1)
            tensors["grid"] = grid
            for name, value in sums.items():
                tensors[name] = tensors[name] + value if name in tensors else value
        return knowledge.without("gaussian/").having(
            {n: t for n, t in tensors.items() if not n.startswith("gaussian/")}, shots=shots
        )

    @property
    def _full(self) -> bool:
        return self.config.covariance == "full"

    def _check(self, e: Tensor, grid: Tensor, known: Tensor | None) -> None:
        if not torch.isfinite(e).all():
            raise ValueError("reference features are not finite; check the reference images")
        if known is not None and not torch.equal(grid.cpu(), known.cpu()):
            raise ValueError(
                f"padim learned {known.tolist()} positions, and these pictures have "
                f"{grid.tolist()}: give inputs of the same size"
            )
        if self.bytes_of({"patches": e}) > self.budget:
            raise ValueError(
                f"the Gaussians take {self.bytes_of({'patches': e}) / 1e6:,.0f} MB, more than the "
                f"budget of {self.budget / 1e6:,.0f} MB: take fewer channels (--set channels=...), "
                "--set covariance=diagonal, or a larger budget (--memory-budget)"
            )

    def settle(self, knowledge: Knowledge) -> Knowledge:
        """Make the Gaussians of the sums, which stay for further pictures."""
        return knowledge.having(self.gaussians(knowledge))

    def gaussians(self, knowledge: Knowledge) -> dict[str, Tensor]:
        """Means ``(N, C)`` and what whitens, ``(N, C, C)`` or ``(N, C)``, float32.

        That is the inverse of L_p, made once, as one product is much faster than a solution of
        triangular systems for each picture. One picture has no covariance: the regularisation alone
        is left.
        """
        n, first, second = (knowledge[f"sum/{part}"] for part in ("count", "first", "second"))
        mean, more = first / n, self.config.regularisation  # float64 up to the end
        if self.config.flavour == "anomalib":
            more += _BEFORE_INVERTING
        if not self._full:
            variance = ((second - n * mean.square()) / (n - 1).clamp(min=1)).clamp(min=0)
            whitening = (variance + more).rsqrt()
        else:
            S = torch.baddbmm(second, mean[:, :, None], mean[:, None], alpha=-float(n))
            S /= (n - 1).clamp(min=1)
            S.diagonal(dim1=1, dim2=2).add_(more)
            L = torch.linalg.cholesky(S)
            one = torch.eye(S.shape[-1], dtype=S.dtype, device=S.device)
            whitening = torch.linalg.solve_triangular(L, one.expand_as(L), upper=False)
        whitening = whitening.float().contiguous()  # as a file gives it back: products round alike
        return {"gaussian/mean": mean.float(), "gaussian/whitening": whitening}

    def bytes_of(self, features: Mapping[str, Tensor]) -> int:
        """Bytes of sums and Gaussians, whatever the number of pictures."""
        _, N, C = features["patches"].shape
        own = C if self._full else 1  # of the second moments, for each channel
        return 12 * N * C * (1 + own)  # sums in float64, Gaussians in float32

    def leaves_out(self, knowledge: Knowledge) -> bool:
        """Never: sums do not say what they are made of."""
        return False

    def distance(self, knowledge: Knowledge, e: Tensor, left_out: Tensor | None = None) -> Tensor:
        """Mahalanobis distance ``(B, N)`` of ``(B, N, C)`` at each position.

        Raises:
            RuntimeError: a picture is to be left out.
        """
        if left_out is not None:
            raise RuntimeError("sums over pictures cannot leave one of them out")
        if "gaussian/whitening" not in knowledge:  # not settled, or by a former version
            knowledge = self.settle(knowledge)
        mean, whitening = knowledge["gaussian/mean"], knowledge["gaussian/whitening"]
        x = e.float() - mean  # (B, N, C)
        if self._full:
            return (x.transpose(0, 1) @ whitening.mT).norm(dim=2).T
        return (x * whitening).norm(dim=2)

"""Back to the Feature, on points (Horwitz and Hoshen, CVPRW 2023, arXiv 2203.05550).

Handcrafted features of a point cloud that know no direction, Fast Point Feature Histograms, are
averaged in patches of the cloud's grid and compared with those of good parts, as PatchCore does;
the plane that the part lies on is taken away before. Combined with a method on the picture
(``pyramid+bt_points``) it stands for the paper's colours and points together, where either may be
absent. Ours are what ``pyramid`` takes off the distances, the weight at rims, and lengths in
spacings of the cloud's points, so that a cloud in metres and one in millimetres are the same.

Symbols: d the distance of a patch to the nearest reference patch m, o(m) the distance of m to the
nearest patch of the other references, lambda the density weight, r = d - lambda o(m); c the share
of the window around a patch that was measured.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import tee

import torch
import torch.nn.functional as F
from torch import Tensor

from zerodefect.detector.composed import numbered
from zerodefect.detector.configs import Count, NotNegative, Odd, Positive, Share, hyper_parameters
from zerodefect.detector.contract import Detector, Input, PatchFeatures
from zerodefect.detector.facts import MethodInfo
from zerodefect.detector.knowledge import Knowledge
from zerodefect.detector.measured_memory import StageMemory
from zerodefect.detector.registry import register
from zerodefect.images.point_input import PointsPreprocess
from zerodefect.layers.fpfh import WIDTH, fpfh, neighbours_within, surface_normals
from zerodefect.layers.grid import Grid
from zerodefect.layers.similarity import peak_and_spread
from zerodefect.layers.smoothing import gaussian_smooth
from zerodefect.types import Prediction

_SIDE = 224  # points: as in the paper


@hyper_parameters
class BTPointsConfig:
    """Hyper-parameters; lengths are in spacings of neighbouring points of the cloud.

    Attributes:
        radius: of the neighbourhood that a histogram is made of.
        neighbours: points of it that count, at most, the nearest ones.
        normal_radius: of the neighbourhood that a normal is made of.
        normal_neighbours: points of it that count, at most.
        patch: side of a patch, in points of the grid.
        density: lambda.
        rim: side of the window, in points of the grid, whose share of measured points weighs what
            is said of its middle: at the rim of a part histograms are of half a surface.
        sigma: standard deviation of the Gaussian over the map, in points of the grid.
        top: share of the highest values of the map whose mean makes half of the image score; the
            highest one makes the other half.
        items: reference patches that are kept, at most, evenly spread over all.
    """

    radius: Positive = 8.0
    neighbours: Count = 120
    normal_radius: Positive = 3.0
    normal_neighbours: Count = 16
    patch: Count = 2
    density: NotNegative = 0.75
    rim: Odd = 9
    sigma: NotNegative = 2.0
    top: Share = 0.01
    items: Count = 20_000


@dataclass(frozen=True)
class PointPatches:
    """What is made of a batch of clouds.

    Attributes:
        grid: of the patches.
        values: ``(B, N, 33)``; 0 where a patch holds no point.
        there: ``(B, N)`` bool, patches that hold a point.
        complete: ``(B, N)`` c, in [0, 1].
    """

    grid: Grid
    values: Tensor
    there: Tensor
    complete: Tensor


@register(
    MethodInfo(
        name="bt_points",
        title="Back to the Feature (points)",
        school="memory",
        knows_from=("references",),
        paper="Horwitz and Hoshen, CVPRW 2023, arXiv 2203.05550; FPFH of Rusu et al., ICRA 2009",
        code_licence="ours; the authors' was not read",
        parity="none: hand-computed histograms, invariance to turning; distances and rims are ours",
        backbones={},
    )
)
class BTPoints(Detector):
    """Distances of patches of points, less what good ones differ by; 0 where there is no point.

    Every pixel of the map is a point of the grid, so that it can be read at points, too.
    """

    Config = BTPointsConfig
    config: BTPointsConfig

    def __init__(self, config: BTPointsConfig | None = None) -> None:
        config = config or BTPointsConfig()
        super().__init__(config, (), {"xyz": Input(PointsPreprocess((_SIDE, _SIDE)), 1)})
        self.memory: StageMemory = StageMemory("euclidean", items=config.items)

    def encode(self, inputs: Mapping[str, Tensor]) -> PointPatches:
        """Histograms averaged in patches.

        Args:
            inputs: ``xyz (B, 3, H, W)``, NaN where there is no point.
        """
        xyz, patch = inputs["xyz"].float(), self.config.patch
        height, width = xyz.shape[-2:]
        there = xyz.isfinite().all(1)  # (B, H, W)
        f = torch.stack([self.histograms(*each) for each in zip(xyz, there, strict=True)])
        share = _mean(there[:, None].float(), patch)
        values = _mean(f, patch) / share.clamp(min=1e-6)
        grid = Grid(values.shape[-2], values.shape[-1], (height, width))
        window, rim = there[:, None].float(), self.config.rim
        c = F.avg_pool2d(window, rim, 1, rim // 2, count_include_pad=False)
        complete = _mean(c * window, patch) / share.clamp(min=1e-6)
        flat = (share[:, 0] > 0).flatten(1)
        return PointPatches(grid, values.flatten(2).mT, flat, complete.flatten(1))

    def histograms(self, xyz: Tensor, there: Tensor) -> Tensor:
        """FPFH of every point of a cloud ``(3, H, W)``: ``(33, H, W)``, 0 where there is none.

        Points that repeat each other, as where a cloud was enlarged or rounded, are one.
        """
        every, config = xyz[:, there].T.contiguous(), self.config
        f = xyz.new_zeros(WIDTH, *there.shape)
        p, place = every, None
        if any((xyz.diff(dim=d) == 0).all(0).any() for d in (1, 2)):
            p, place = torch.unique(every, dim=0, return_inverse=True)
        if len(p) < 2:
            return f
        unit = spacing(xyz)
        eye = -p.mean(0) / unit  # the camera stands at the origin
        p = (p - p.mean(0)) / unit
        near = neighbours_within(p, config.normal_radius, config.normal_neighbours)
        n = surface_normals(p, near, eye)
        wide = neighbours_within(p, config.radius, config.neighbours)
        found = fpfh(p, n, wide)
        f[:, there] = (found if place is None else found[place]).T
        return f

    def references(self, encoded: PointPatches) -> Mapping[str, Tensor]:
        """Patches; in the place of those without a point stands another one of the same cloud.

        Of a cloud without any point they are not finite.
        """
        first = encoded.there.int().argmax(1)
        rows = torch.arange(len(first), device=first.device)
        instead = encoded.values[rows, first].masked_fill(~encoded.there.any(1)[:, None], torch.nan)
        values = torch.where(encoded.there[..., None], encoded.values, instead[:, None])
        return {"patches": values}

    def remember(
        self,
        knowledge: Knowledge,
        batches: Iterable[PointPatches],
        pictures: Iterable[Tensor] | None = None,
    ) -> Knowledge:
        """Add the patches that hold a point; see ``Detector.remember``."""
        passing = numbered(batches, pictures, knowledge.shots, lambda batch: len(batch.values))
        left, right = tee(self._shown(passing))
        shown = (features for features, _ in left)
        return self.memory.remember(knowledge, shown, (number for _, number in right))

    def _shown(
        self, batches: Iterable[tuple[PointPatches, Tensor, int]]
    ) -> Iterator[tuple[Mapping[str, Tensor], Tensor]]:
        for batch, numbers, _ in batches:
            values = self.references(batch)["patches"]
            for row, there in enumerate(batch.there):
                kept = there if there.any() else slice(1)
                yield {"patches": values[row : row + 1, kept]}, numbers[row : row + 1]

    def settle(self, knowledge: Knowledge) -> Knowledge:
        """Thin the patches, and learn what the references say of each other."""
        return self.memory.measured(knowledge, "patches", self.config.density)

    def predict(
        self, encoded: PointPatches, knowledge: Knowledge, left_out: Tensor | None = None
    ) -> Prediction:
        """Distances, weighed by c."""
        there, grid = encoded.there, encoded.grid
        out = None if left_out is None else left_out.repeat_interleave(there.sum(1))
        values = encoded.values[there][:, None]  # (n, 1, 33), each with a picture to leave out
        z = torch.zeros(there.shape, device=there.device)
        if len(values):
            d, row = self.memory.neighbours(knowledge, "patches", values, 1, out)
            o = self.memory.own(knowledge, "patches", row[:, 0, 0], out)
            r = d[:, 0, 0] - self.config.density * o
            z[there] = r * (2 * encoded.complete[there] - 1).clamp(min=0)
        map = grid.upsample(gaussian_smooth(grid.fold(z), self.config.sigma / self.config.patch))
        return Prediction(peak_and_spread(map, self.config.top), map)

    def patch_features(self, encoded: PointPatches) -> tuple[PatchFeatures, ...]:
        """The averaged histograms."""
        return (PatchFeatures(encoded.values, encoded.grid),)

    def map_range(self, knowledge: Knowledge) -> tuple[float, float]:
        """Without ends."""
        return -torch.inf, torch.inf


def spacing(xyz: Tensor) -> Tensor:
    """Median distance between measured neighbours in a row or column of ``(3, H, W)``: a scalar.

    1 where there are none.
    """
    steps = torch.cat([xyz.diff(dim=d).norm(dim=0).flatten() for d in (1, 2)])
    steps = steps[steps.isfinite() & (steps > 0)]
    return steps.median() if len(steps) else xyz.new_ones(())


def _mean(maps: Tensor, side: int) -> Tensor:
    """Means over patches; the last ones may be smaller."""
    return F.avg_pool2d(maps, side, ceil_mode=True)

"""AFR-CLIP (arXiv 2503.12910): stateless-to-stateful anomaly feature rectification.

Only the abstract is public, and no code. Ours is a COMPLETION: a sentence that names the product
without any state is rectified by every patch, and the rectified text is compared with a normal and
an anomalous text; self prompting and multi-patch aggregation let a patch see its surroundings. The
formulas between these words are ours.

Symbols: F_l raw patches of layer l, A_l its adapter, t_0 the stateless text, t_n and t_a the
stateful ones, m the gate, r the rectified text, g the patch grid, N the number of patches, W the
image tower's width, D the joint dimension.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from zerodefect.backbones.clip_weights import CLIPBackbone
from zerodefect.detector.clip_detector import CLIPDetector, Features
from zerodefect.detector.configs import Count, NotNegative, Odd, Positive, Taps, hyper_parameters
from zerodefect.detector.facts import MethodInfo
from zerodefect.detector.knowledge import Knowledge, Product
from zerodefect.detector.recipes import Recipe
from zerodefect.detector.registry import register
from zerodefect.layers.adapters import linear
from zerodefect.layers.losses import dice_loss, focal_loss
from zerodefect.layers.smoothing import gaussian_smooth, patch_mean
from zerodefect.prompts.ensemble import PromptEnsemble
from zerodefect.types import Prediction, TrainingBatch


@hyper_parameters
class AFRCLIPConfig:
    """Hyper-parameters of the completion.

    Attributes:
        taps: blocks (from 1) whose patches are read; None for quarters of the tower's depth.
        sides: neighbourhoods of the multi-patch aggregation, in patches.
        pools: grids of the self prompts: 1 + 4 + 16 of them by default.
        temperature: of the softmax over normal and anomalous.
        sigma: of the map's Gaussian smoothing, in pixels; the image score reads the map before it.
        seed: of the initial values.
    """

    taps: Taps | None = None
    sides: Annotated[tuple[Odd, ...], Field(min_length=1)] = (1, 3, 5)
    pools: Annotated[tuple[Count, ...], Field(min_length=1)] = (1, 2, 4)
    temperature: Positive = 0.07
    sigma: NotNegative = 4.0
    seed: int = 0


class Rectifier(nn.Module):
    """Enriches the stateless text with what a patch shows: ``r = t_0 + m * p``.

    A part of its own, so that other formulas can take its place.
    """

    def __init__(self, dimension: int, generator: torch.Generator) -> None:
        super().__init__()
        hidden = max(1, dimension // 4)
        self.fc1 = linear(2 * dimension, hidden, generator)
        self.fc2 = linear(hidden, dimension, generator)
        nn.init.zeros_(self.fc2.bias)  # half-open gates on average

    def gate(self, p: Tensor, t_0: Tensor) -> Tensor:
        """m in (0, 1): ``(B, N, D), (B, D) -> (B, N, D)``."""
        pairs = torch.cat([p, t_0[:, None].expand_as(p)], dim=-1)
        return self.fc2(self.fc1(pairs).relu()).sigmoid()

    def forward(self, p: Tensor, t_0: Tensor) -> Tensor:
        """Rectified texts, not normalised: ``(B, N, D), (B, D) -> (B, N, D)``."""
        return t_0[:, None] + self.gate(p, t_0) * p


def multi_patch(P: Tensor, grid: tuple[int, int], sides: Sequence[int]) -> Tensor:
    """Multi-patch feature aggregation: mean over neighbourhoods of several sizes, ``(B, N, D)``."""
    return torch.stack([patch_mean(P, grid, side, "reflect") for side in sides]).mean(0)


def self_prompting(P: Tensor, grid: tuple[int, int], pools: Sequence[int]) -> Tensor:
    """Patches ``(B, N, D)`` plus what they attend to among pooled ones of the same picture."""
    maps = P.transpose(1, 2).unflatten(2, grid)  # (B, D, g, g)
    S = torch.cat([F.adaptive_avg_pool2d(maps, n).flatten(2) for n in pools], dim=2)  # (B, D, 21)
    attention = (P @ S * P.shape[-1] ** -0.5).softmax(-1)
    return P + attention @ S.transpose(1, 2)


@register(
    MethodInfo(
        name="afr_clip",
        title="AFR-CLIP (our completion)",
        school="prompt",
        knows_from=("training", "words", "references"),
        optional=("references",),
        paper="arXiv 2503.12910 (abstract only)",
        code_licence="none released by the authors; our completion of the abstract",
        parity="our completion: derived numbers of the same equations, not the authors' code",
        completion=True,
    )
)
class AFRCLIP(CLIPDetector):
    """Rectified texts against stateful ones; scores and maps are probabilities in (0, 1)."""

    Config = AFRCLIPConfig
    recipe = Recipe(epochs=15, batch_size=8, learning_rate=1e-3, betas=(0.5, 0.999))
    positions = "bilinear"
    undecided = 0.5
    monotone_memory = True  # the distance to the nearest of more references never grows
    config: AFRCLIPConfig

    def __init__(self, clip: CLIPBackbone, config: AFRCLIPConfig | None = None) -> None:
        super().__init__(clip, config or AFRCLIPConfig())
        W, D = self.clip.config.vision.width, self.clip.config.embed_dim
        self.taps = self.chosen_taps()
        self.prompts = PromptEnsemble()
        generator = torch.Generator().manual_seed(self.config.seed)
        self.visual_adapters = nn.ModuleList(linear(W, D, generator, bias=False) for _ in self.taps)
        self.rectifier = Rectifier(D, generator)

    def words(self, product: Product) -> dict[str, Tensor]:
        """The stateless text t_0 and the stateful ones t_n, t_a, unit length: ``(3, D)``."""
        return {"texts": self.texts([product.name])[0]}

    def texts(self, names: Sequence[str]) -> Tensor:
        """t_0, t_n, t_a of each product, unit length: ``(len(names), 3, D)``."""
        plain = PromptEnsemble(("{}",), ("{}",), ("a photo of a {}.",))
        groups = [
            group
            for name in names
            for group in (
                plain.normal_prompts(name),
                self.prompts.normal_prompts(name),
                self.prompts.anomalous_prompts(name),
            )
        ]
        return F.normalize(self.text_features.means(groups), dim=-1).unflatten(0, (-1, 3))

    def judge(self, encoded: Features, knowledge: Knowledge) -> Prediction:
        """Compare rectified with stateful texts."""
        texts = knowledge["texts"].expand(len(encoded.image), -1, -1)
        t_0, t = texts[:, 0], texts[:, 1:]
        maps = [self.probabilities(p, t_0, t)[..., 1] for p in self.patches(encoded)]  # (B, N)
        M = encoded.grid.map(torch.stack(maps).mean(0), align_corners=True)
        p_c = self.logits(self.image(encoded), t_0, t).softmax(-1)[:, 0, 1]
        return Prediction(
            score=(p_c + M.amax((1, 2))) / 2, map=gaussian_smooth(M, self.config.sigma)
        )

    def patches(self, features: Features) -> list[Tensor]:
        """Adapted patches of each layer, ``(B, N, D)`` of unit length."""
        adapted = []
        for F_l, A_l in zip(features.patches, self.visual_adapters, strict=True):
            P = multi_patch(A_l(F_l), features.grid.shape, self.config.sides)
            P = self_prompting(P, features.grid.shape, self.config.pools)
            adapted.append(F.normalize(P, dim=-1))
        return adapted

    @staticmethod
    def image(features: Features) -> Tensor:
        """The class token as one more patch, ``(B, 1, D)``."""
        return F.normalize(features.image, dim=-1)[:, None]

    def logits(self, p: Tensor, t_0: Tensor, t: Tensor) -> Tensor:
        """Rectified against stateful texts: ``(B, N, D), (B, D), (B, 2, D) -> (B, N, 2)``."""
        r = F.normalize(self.rectifier(p, t_0), dim=-1)
        return r @ t.transpose(1, 2) / self.config.temperature

    def probabilities(self, p: Tensor, t_0: Tensor, t: Tensor) -> Tensor:
        """Softmax of ``logits``."""
        return self.logits(p, t_0, t).softmax(-1)

    def training_loss(self, batch: TrainingBatch) -> dict[str, Tensor]:
        """Focal and both Dice losses of every layer's map, cross-entropy of the class token."""
        features = self.encode(batch.images)
        texts = self.texts(batch.objects)  # (B, 3, D)
        t_0, t = texts[:, 0], texts[:, 1:]
        focal, anomalous, normal = [], [], []
        for p in self.patches(features):
            low = self.probabilities(p, t_0, t)[..., 1]
            M = features.grid.map(low, align_corners=True)  # (B, H, W)
            focal.append(focal_loss(torch.stack([1 - M, M], dim=1), batch.masks))
            anomalous.append(dice_loss(M, batch.masks))
            normal.append(dice_loss(1 - M, 1 - batch.masks))
        logits = self.logits(self.image(features), t_0, t)[:, 0]
        return {
            "focal": torch.stack(focal).sum(),
            "dice_anomalous": torch.stack(anomalous).sum(),
            "dice_normal": torch.stack(normal).sum(),
            "image": F.cross_entropy(logits, batch.labels),
        }

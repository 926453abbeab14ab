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
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zerodefect.backbones.clip_weights import Backbone
from zerodefect.detector.contract import Detector
from zerodefect.detector.recipes import Recipe
from zerodefect.detector.registry import MethodInfo, register
from zerodefect.layers.adapters import check_taps, initialised, linear, quarter_depths
from zerodefect.layers.losses import dice_loss, focal_loss
from zerodefect.layers.neighbourhood import patch_mean
from zerodefect.layers.similarity import to_grid, upsample
from zerodefect.layers.smoothing import gaussian_smooth
from zerodefect.prompts.ensemble import PromptEnsemble
from zerodefect.prompts.features import TextFeatures
from zerodefect.prompts.vocabulary import Vocabulary
from zerodefect.types import Prediction, TrainingBatch


@dataclass(frozen=True)
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

    taps: tuple[int, ...] | None = None
    sides: tuple[int, ...] = (1, 3, 5)
    pools: tuple[int, ...] = (1, 2, 4)
    temperature: float = 0.07
    sigma: float = 4.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"temperature must be positive, got {self.temperature}")
        if not self.sides or any(side < 1 or side % 2 == 0 for side in self.sides):
            raise ValueError(f"sides are odd numbers of patches, got {self.sides}")
        if not self.pools or min(self.pools) < 1:
            raise ValueError(f"pools are grid sides of at least 1, got {self.pools}")
        if not self.sigma >= 0:
            raise ValueError(f"sigma must not be negative, got {self.sigma}")


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


@dataclass(frozen=True)
class Features:
    """Image-side features of one batch, float32.

    Attributes:
        image: ``(B, D)``, not normalised.
        layers: per tap ``(B, N, W)``, raw.
        grid: rows and columns of patches.
        size: height and width of the network input, which the map is brought to.
    """

    image: Tensor
    layers: list[Tensor]
    grid: tuple[int, int]
    size: tuple[int, int]


@register(
    MethodInfo(
        name="afr_clip",
        title="AFR-CLIP (our completion)",
        school="prompt",
        knows_from=("training", "words"),
        paper="arXiv 2503.12910 (abstract only)",
        code_licence="none released by the authors; our completion of the abstract",
        parity="our completion: derived numbers of the same equations, not the authors' code",
        completion=True,
    )
)
class AFRCLIP(Detector):
    """Rectified texts against stateful ones; scores and maps are probabilities in (0, 1)."""

    Config = AFRCLIPConfig
    recipe: ClassVar[Recipe] = Recipe(
        epochs=15, batch_size=8, learning_rate=1e-3, betas=(0.5, 0.999)
    )
    config: AFRCLIPConfig
    stateless: Tensor
    stateful: Tensor

    def __init__(self, backbone: Backbone, config: AFRCLIPConfig | None = None) -> None:
        super().__init__(backbone, config or AFRCLIPConfig())
        self.clip = backbone.clip.requires_grad_(False)
        self.preprocess = replace(
            backbone.preprocess, interpolation="bicubic", antialias=True, resize_on="pil"
        )
        shape = backbone.clip.config
        blocks = shape.vision.layers
        self.taps = check_taps(self.config.taps or quarter_depths(blocks), blocks)
        self.text_features = TextFeatures(
            backbone.clip, backbone.fingerprint, reload=backbone.reload
        )
        self.prompts = PromptEnsemble()
        generator = torch.Generator().manual_seed(self.config.seed)
        self.visual_adapters = nn.ModuleList(
            initialised(
                nn.utils.skip_init(nn.Linear, shape.vision.width, shape.embed_dim, bias=False),
                generator,
            )
            for _ in self.taps
        )
        self.rectifier = Rectifier(shape.embed_dim, generator)
        self.register_buffer("stateless", torch.empty(0, shape.embed_dim))  # t_0, (1, D)
        self.register_buffer("stateful", torch.empty(0, shape.embed_dim))  # t_n, t_a, (2, D)

    # --- words --------------------------------------------------------------------------------

    def describe(self, object_name: str, vocabulary: Vocabulary | None = None) -> None:
        """Prepare the stateless and the stateful texts; the vocabulary is kept, but not used.

        Raises:
            ValueError: an empty name, or a prompt longer than the text tower reads.
        """
        self.stateless, self.stateful = self.words([object_name])[0].split([1, 2])
        self.object_name, self.vocabulary = object_name, vocabulary

    def words(self, names: Sequence[str]) -> Tensor:
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

    @property
    def kinds(self) -> tuple[str, ...]:
        """None: normal and anomalous are all that it was trained to tell apart."""
        return ()

    # --- scale --------------------------------------------------------------------------------

    @property
    def neutral_score(self) -> float:
        """Both texts equally likely."""
        return 0.5

    @property
    def map_range(self) -> tuple[float, float]:
        """Probabilities."""
        return 0.0, 1.0

    # --- forward pass -------------------------------------------------------------------------

    @torch.no_grad()
    def forward(self, images: Tensor) -> Prediction:
        """Score ``(B, 3, H, W)``.

        Raises:
            RuntimeError: ``describe`` was not called.
        """
        return self.predict(self.encode(images))

    @torch.no_grad()
    def encode(self, images: Tensor) -> Features:
        """Run the frozen image tower."""
        visual = self.clip.visual
        pixels = images.to(visual.proj.dtype)
        states = visual.encode(visual.embed(pixels, resize="bilinear"), taps=self.taps)
        return Features(
            image=visual.project(states.tokens[:, 0]).float(),
            layers=[states.taps[tap][:, 1:].float() for tap in self.taps],
            grid=visual.grid(images),
            size=(images.shape[-2], images.shape[-1]),
        )

    @torch.no_grad()
    def predict(self, encoded: Features) -> Prediction:
        """Score what ``encode`` gave against the present words.

        Raises:
            RuntimeError: ``describe`` was not called.
        """
        if not len(self.stateless):
            raise RuntimeError("AFR-CLIP needs the product's name: call describe(name) first")
        batch = len(encoded.image)
        t_0, t = self.stateless.expand(batch, -1), self.stateful.expand(batch, -1, -1)
        maps = [self.probabilities(p, t_0, t)[..., 1] for p in self.patches(encoded)]  # (B, N)
        M = upsample(
            to_grid(torch.stack(maps).mean(0), encoded.grid), encoded.size, align_corners=True
        )
        p_c = self.logits(self.image(encoded), t_0, t).softmax(-1)[:, 0, 1]
        return Prediction(
            score=(p_c + M.amax((1, 2))) / 2, map=gaussian_smooth(M, self.config.sigma)
        )

    def patches(self, features: Features) -> list[Tensor]:
        """Adapted patches of each layer, ``(B, N, D)`` of unit length."""
        adapted = []
        for F_l, A_l in zip(features.layers, self.visual_adapters, strict=True):
            P = multi_patch(A_l(F_l), features.grid, self.config.sides)
            P = self_prompting(P, features.grid, self.config.pools)
            adapted.append(F.normalize(P, dim=-1))
        return adapted

    @staticmethod
    def image(features: Features) -> Tensor:
        """The class token as one more patch, ``(B, 1, D)``."""
        return F.normalize(features.image, dim=-1)[:, None]

    def logits(self, p: Tensor, t_0: Tensor, t: Tensor) -> Tensor:
        """Rectified texts against the stateful ones.

        Args:
            p: ``(B, N, D)``.
            t_0: ``(B, D)``.
            t: ``(B, 2, D)``.

        Returns:
            ``(B, N, 2)``: normal, anomalous.
        """
        r = F.normalize(self.rectifier(p, t_0), dim=-1)
        return r @ t.transpose(1, 2) / self.config.temperature

    def probabilities(self, p: Tensor, t_0: Tensor, t: Tensor) -> Tensor:
        """Softmax of ``logits``."""
        return self.logits(p, t_0, t).softmax(-1)

    # --- training -----------------------------------------------------------------------------

    def training_loss(self, batch: TrainingBatch) -> dict[str, Tensor]:
        """Focal and both Dice losses of every layer's map, cross-entropy of the class token."""
        features = self.encode(batch.images)
        texts = self.words(batch.objects)  # (B, 3, D)
        t_0, t = texts[:, 0], texts[:, 1:]
        focal, anomalous, normal = [], [], []
        for p in self.patches(features):
            low = to_grid(self.probabilities(p, t_0, t)[..., 1], features.grid)
            M = upsample(low, features.size, align_corners=True)  # (B, H, W)
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

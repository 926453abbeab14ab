"""AnomalyCLIP (Zhou et al., ICLR 2024, arXiv 2310.18961).

Two learned sentences, "normal object" and "damaged object", serve every product. The image tower
stays CLIP's; from a quarter of its depth on a second stream of value-value attention (DPAM) runs
beside it, whose patches keep their place. The class token gives the image score, the patches of
the second stream the map.

Symbols: g the global feature, F the patch features of a tap, T the text features [normal,
damaged], N the number of patches, C the joint dimension, K the number of taps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as nnF
from torch import Tensor

from zerodefect.backbones.clip_weights import Backbone
from zerodefect.detector.learned_sentences import (
    Attention,
    Features,
    ObjectAgnosticDetector,
    second_stream,
)
from zerodefect.detector.recipes import Recipe
from zerodefect.detector.registry import MethodInfo, published_table, register
from zerodefect.layers.adapters import check_taps
from zerodefect.layers.losses import dice_loss, focal_loss
from zerodefect.layers.similarity import cosine, text_probabilities, to_grid, upsample
from zerodefect.layers.smoothing import gaussian_smooth
from zerodefect.prompts.learnable import LearnedPrompts
from zerodefect.types import Prediction, TrainingBatch

_PAPER = "arXiv 2310.18961, table 1"
_FIGURES = published_table(
    _PAPER,
    "0-shot",
    ("image AUROC", "image AP", "pixel AUROC", "AUPRO"),
    {
        "MVTec AD": (91.5, 96.2, 91.1, 81.4),
        "VisA": (82.1, 85.4, 95.5, 87.0),
        "MPDD": (77.0, 82.0, 96.5, 88.7),
        "BTAD": (88.3, 87.3, 94.2, 74.8),
        "SDD": (84.7, 80.0, 90.6, 67.8),
        "DAGM": (97.5, 92.3, 95.6, 91.0),
        "DTD-Synthetic": (93.5, 97.0, 97.9, 92.3),
    },
)


@dataclass(frozen=True)
class AnomalyCLIPConfig:
    """Hyper-parameters; the defaults are the paper's.

    Attributes:
        context_length: learned vectors in each sentence.
        deep_length: learned tokens that enter each further text block.
        depth: text blocks that read learned tokens; None for 9 of 12, at this tower's depth.
        stream_start: first image block with the second stream; None for 6 of 24.
        attention: what the second stream attends by; ``plain`` reads CLIP's own patches, for a
            backbone whose patches were trained to match texts.
        taps: image blocks whose second stream gives a map; None for the last one. The four quarter
            depths are the authors' former setting.
        temperature: of every softmax over normal and damaged.
        sigma: standard deviation of the Gaussian over the map, in pixels of the input.
        local_weight: weight of the map's losses against the image's.
        seed: of the initial values.
    """

    context_length: int = 12
    deep_length: int = 4
    depth: int | None = None
    stream_start: int | None = None
    attention: Attention = "vv"
    taps: tuple[int, ...] | None = None
    temperature: float = 0.07
    sigma: float = 4.0
    local_weight: float = 4.0
    seed: int = 111

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"temperature must be positive, got {self.temperature}")
        if not 0 <= self.sigma < float("inf"):
            raise ValueError(f"sigma must be a finite number >= 0, got {self.sigma}")


@register(
    MethodInfo(
        name="anomalyclip",
        title="AnomalyCLIP",
        school="prompt",
        knows_from=("training",),
        paper="Zhou et al., ICLR 2024, arXiv 2310.18961",
        code_licence="MIT",
        parity="official code at 45ed4dd3: forward, losses, gradients, one optimiser step",
        figures=_FIGURES,
    )
)
class AnomalyCLIP(ObjectAgnosticDetector):
    """Object-agnostic learned prompts with value-value attention.

    The score is a probability, 0.5 is undecided; the map is the sum of one probability per tap.
    """

    Config = AnomalyCLIPConfig
    recipe: ClassVar[Recipe | None] = Recipe(
        epochs=15, batch_size=8, learning_rate=1e-3, betas=(0.5, 0.999), seed=111
    )
    config: AnomalyCLIPConfig

    def __init__(self, backbone: Backbone, config: AnomalyCLIPConfig | None = None) -> None:
        super().__init__(backbone, config or AnomalyCLIPConfig())
        layers = self.clip.config.vision.layers
        taps = (layers,) if self.config.taps is None else self.config.taps
        self.taps = check_taps(taps, layers)
        self.stream = second_stream(self.config.attention, self.config.stream_start, layers)
        n = self.config.context_length
        self.prompts = LearnedPrompts(
            self.clip.text,
            lengths={"ctx_pos": n, "ctx_neg": n},
            depth=self.config.depth,
            deep_length=self.config.deep_length,
            generator=torch.Generator().manual_seed(self.config.seed),
        )

    # --- scale --------------------------------------------------------------------------------

    @property
    def neutral_score(self) -> float | None:
        """0.5: normal and damaged equally likely."""
        return 0.5

    @property
    def map_range(self) -> tuple[float, float]:
        """Sum of K probabilities: [0, K]."""
        return 0.0, float(len(self.taps))

    # --- forward pass, in the order of the paper ----------------------------------------------

    @torch.no_grad()
    def forward(self, images: Tensor) -> Prediction:
        """Score ``(B, 3, H, W)``."""
        return self.predict(self.encode(images))

    @torch.no_grad()
    def encode(self, images: Tensor) -> Features:
        """The image tower with its second stream; the class token skips ``ln_post``."""
        return self.two_streams(images, self.taps, self.stream, norm=False)

    @torch.no_grad()
    def predict(self, encoded: Features) -> Prediction:
        """Score what ``encode`` gave against the learned sentences."""
        T, tau = self.texts, self.config.temperature
        P = [text_probabilities(F, T, tau) for F in encoded.patches]  # (B, N, 2) each
        M = torch.stack([p[..., 1] for p in P]).sum(0)  # upsampling is linear: sum first
        map = gaussian_smooth(upsample(to_grid(M, encoded.grid), encoded.size), self.config.sigma)
        return Prediction(
            score=text_probabilities(encoded.image, T, tau)[:, 1],
            map=map.clamp(*self.map_range),  # the filter's weights sum to one but for rounding
        )

    def training_loss(self, batch: TrainingBatch) -> dict[str, Tensor]:
        """Cross entropy of the image, and per tap focal and two Dice losses of the map."""
        features, T = self.encode(batch.images), self.prompts(self.clip.text)
        tau, w = self.config.temperature, self.config.local_weight
        P = [self.probability_map(F, T, features) for F in features.patches]
        G = batch.masks
        return {
            "image": nnF.cross_entropy(cosine(features.image, T) / tau, batch.labels),
            "focal": w * torch.stack([focal_loss(p, G) for p in P]).sum(),
            "dice_abnormal": w * torch.stack([dice_loss(p[:, 1], G) for p in P]).sum(),
            "dice_normal": w * torch.stack([dice_loss(p[:, 0], 1 - G) for p in P]).sum(),
        }

    def probability_map(self, F: Tensor, T: Tensor, features: Features) -> Tensor:
        """Probabilities of normal and damaged per pixel ``(B, 2, H, W)``, before smoothing."""
        P = text_probabilities(F, T, self.config.temperature)  # (B, N, 2)
        return upsample(P.transpose(1, 2).unflatten(2, features.grid), features.size)

"""GlocalCLIP (Ham, Jung and Baek, arXiv 2411.06071).

AnomalyCLIP with two pairs of learned sentences: a global pair for the image's score and a local
pair for the map, tied by a contrastive term. A damaged sentence is its pair's normal context plus
a further one.

Symbols: g the global feature, F the patch features, G and L the global and local text features
[normal, damaged], N the number of patches, C the joint dimension, K the number of taps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

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
from zerodefect.layers.adapters import check_taps, quarter_depths
from zerodefect.layers.losses import dice_loss, focal_loss
from zerodefect.layers.similarity import cosine, text_probabilities, to_grid, upsample
from zerodefect.layers.smoothing import gaussian_smooth
from zerodefect.prompts.learnable import LearnedPrompts, Sentence
from zerodefect.types import Prediction, TrainingBatch

_FIGURES = published_table(
    "arXiv 2411.06071, table 1",
    "0-shot",
    ("image AUROC", "image AP", "pixel AUROC", "AUPRO"),
    {
        "MVTec AD": (91.7, 96.4, 91.4, 82.8),
        "VisA": (83.7, 86.1, 95.9, 87.2),
        "MPDD": (79.6, 83.9, 96.8, 89.5),
        "BTAD": (89.1, 91.7, 96.2, 78.2),
        "SDD": (86.6, 84.7, 93.1, 72.8),
        "DTD-Synthetic": (93.8, 97.4, 98.2, 92.9),
    },
)

SENTENCES = (
    Sentence("global_pos", ("ctx_global_pos",), "object.", "G"),
    Sentence("global_neg", ("ctx_global_pos", "ctx_global_neg"), "damaged object.", "G"),
    Sentence("local_pos", ("ctx_local_pos",), "object.", "L"),
    Sentence("local_neg", ("ctx_local_pos", "ctx_local_neg"), "damaged object.", "L"),
)


@dataclass(frozen=True)
class GlocalCLIPConfig:
    """Hyper-parameters; the defaults are the official program's, sigma its scripts'.

    Attributes:
        context_length: learned vectors of a normal sentence.
        abnormal_length: further learned vectors of a damaged sentence.
        deep_length: learned tokens that enter each further text block.
        depth: text blocks that read learned tokens; None for 9 of 12, at this tower's depth.
        stream_start: first image block with the second stream; None for 6 of 24.
        attention: what the second stream attends by; ``plain`` reads CLIP's own patches, for a
            backbone whose patches were trained to match texts.
        taps: image blocks that give a map each; None for the four quarter depths.
        distinct_taps: read each tap's own state. The official code hands out one tensor that the
            later blocks change in place, so that all taps show the last block (the default here).
        temperature: of every softmax over normal and damaged.
        sigma: standard deviation of the Gaussian over the map, in pixels of the input.
        margin: distance beyond which the contrastive term's negatives do not count; with the
            official 0 they never do.
        alpha: weight of the contrastive term.
        seed: of the initial values.
    """

    context_length: int = 12
    abnormal_length: int = 12
    deep_length: int = 4
    depth: int | None = None
    stream_start: int | None = None
    attention: Attention = "vv"
    taps: tuple[int, ...] | None = None
    distinct_taps: bool = False
    temperature: float = 0.07
    sigma: float = 8.0
    margin: float = 0.0
    alpha: float = 1.0
    seed: int = 111

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"temperature must be positive, got {self.temperature}")
        for name in ("sigma", "margin", "alpha"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be a finite number >= 0")


@register(
    MethodInfo(
        name="glocalclip",
        title="GlocalCLIP",
        school="prompt",
        knows_from=("training",),
        paper="Ham, Jung and Baek, arXiv 2411.06071",
        code_licence="MIT",
        parity="official code at b58563ab: forward, losses, gradients",
        figures=_FIGURES,
    )
)
class GlocalCLIP(ObjectAgnosticDetector):
    """Global and local object-agnostic prompts.

    The score is a probability, 0.5 is undecided; the map is the sum of one probability per tap.
    """

    Config = GlocalCLIPConfig
    recipe: ClassVar[Recipe | None] = Recipe(
        epochs=15, batch_size=8, learning_rate=1e-3, betas=(0.5, 0.999), seed=111
    )
    main_context = "ctx_global_pos"
    config: GlocalCLIPConfig

    def __init__(self, backbone: Backbone, config: GlocalCLIPConfig | None = None) -> None:
        super().__init__(backbone, config or GlocalCLIPConfig())
        layers = self.clip.config.vision.layers
        taps = quarter_depths(layers) if self.config.taps is None else self.config.taps
        check_taps(taps, layers)
        self.K = len(taps)
        self.taps = taps if self.config.distinct_taps else (layers,)
        self.copies = self.K // len(self.taps)  # equal taps are computed once
        self.stream = second_stream(self.config.attention, self.config.stream_start, layers)
        n, m = self.config.context_length, self.config.abnormal_length
        self.prompts = LearnedPrompts(
            self.clip.text,
            SENTENCES,
            lengths={
                "ctx_global_pos": n,
                "ctx_global_neg": m,
                "ctx_local_pos": n,
                "ctx_local_neg": m,
            },
            depth=self.config.depth,
            deep_length=self.config.deep_length,
            generator=torch.Generator().manual_seed(self.config.seed),
        )

    @classmethod
    def official_options(cls, published: Mapping[str, Any]) -> dict[str, Any]:
        """Lengths and depth of the learned tokens."""
        sizes = super().official_options(published)
        if sizes:
            further = published["prompt_learner"].get("ctx_global_neg")
            if isinstance(further, Tensor) and further.dim() == 4:
                sizes["abnormal_length"] = further.shape[2]
        return sizes

    # --- scale --------------------------------------------------------------------------------

    @property
    def neutral_score(self) -> float | None:
        """0.5: normal and damaged equally likely."""
        return 0.5

    @property
    def map_range(self) -> tuple[float, float]:
        """Sum of K probabilities: [0, K]."""
        return 0.0, float(self.K)

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
        G, L = self.texts.split(2)  # (2, C) each
        tau = self.config.temperature
        P = [text_probabilities(F, L, tau)[..., 1] for F in encoded.patches]  # (B, N) each
        M = self.copies * torch.stack(P).sum(0)  # upsampling is linear: sum first
        map = gaussian_smooth(upsample(to_grid(M, encoded.grid), encoded.size), self.config.sigma)
        return Prediction(
            score=text_probabilities(encoded.image, G, tau)[:, 1],
            map=map.clamp(*self.map_range),  # the filter's weights sum to one but for rounding
        )

    def training_loss(self, batch: TrainingBatch) -> dict[str, Tensor]:
        """Cross entropy with G, focal and two Dice losses per tap with L, and what ties G to L."""
        features = self.encode(batch.images)
        G, L = self.prompts(self.clip.text).split(2)
        tau, masks, times = self.config.temperature, batch.masks, self.copies
        P = [self.probability_map(F, L, features) for F in features.patches]
        return {
            "image": nnF.cross_entropy(cosine(features.image, G) / tau, batch.labels),
            "focal": times * torch.stack([focal_loss(p, masks) for p in P]).sum(),
            "dice_abnormal": times * torch.stack([dice_loss(p[:, 1], masks) for p in P]).sum(),
            "dice_normal": times * torch.stack([dice_loss(p[:, 0], 1 - masks) for p in P]).sum(),
            "contrastive": self.config.alpha * self.contrastive(G, L).sum(),
        }

    def contrastive(self, G: Tensor, L: Tensor) -> Tensor:
        """Terms for the normal and the damaged state, ``(2,)``.

        The global text is drawn to the local one of its state and, within the margin, pushed away
        from that of the other.
        """
        G, L = nnF.normalize(G, dim=-1), nnF.normalize(L, dim=-1)
        near = nnF.pairwise_distance(G, L, eps=1e-6)
        far = nnF.pairwise_distance(G, L.flip(0), eps=1e-6)
        return near**2 + (self.config.margin - far).clamp(min=0) ** 2

    def probability_map(self, F: Tensor, L: Tensor, features: Features) -> Tensor:
        """Probabilities of normal and damaged per pixel ``(B, 2, H, W)``, before smoothing."""
        P = text_probabilities(F, L, self.config.temperature)  # (B, N, 2)
        return upsample(P.transpose(1, 2).unflatten(2, features.grid), features.size)

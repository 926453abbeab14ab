"""GlocalCLIP (Ham, Jung and Baek, arXiv 2411.06071).

AnomalyCLIP with two pairs of learned sentences: a global pair for the image's score and a local
pair for the map, tied by a contrastive term. A damaged sentence is its pair's normal context plus
a further one.

Symbols: g the global feature, F the patch features, G and L the global and local text features
[normal, damaged], N the number of patches, C the joint dimension, K the number of taps.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as nnF
from torch import Tensor

from zerodefect.backbones.clip_weights import CLIPBackbone
from zerodefect.detector.configs import Count, NotNegative, hyper_parameters
from zerodefect.detector.facts import MethodInfo, published_table
from zerodefect.detector.knowledge import Knowledge
from zerodefect.detector.learned_sentences import (
    Features,
    LearnedSentencesConfig,
    LearnedSentencesDetector,
)
from zerodefect.detector.recipes import Recipe
from zerodefect.detector.registry import register
from zerodefect.layers.losses import map_terms
from zerodefect.layers.similarity import cosine, text_probabilities
from zerodefect.layers.smoothing import gaussian_smooth
from zerodefect.prompts.learnable import GLOBAL_AND_LOCAL
from zerodefect.types import Prediction, TrainingBatch

_FIGURES = published_table(
    "arXiv 2411.06071, table 1", "0-shot",
    ("image AUROC", "image AP", "pixel AUROC", "AUPRO"),
    {
        "MVTec AD": (91.7, 96.4, 91.4, 82.8), "VisA": (83.7, 86.1, 95.9, 87.2),
        "MPDD": (79.6, 83.9, 96.8, 89.5), "BTAD": (89.1, 91.7, 96.2, 78.2),
        "SDD": (86.6, 84.7, 93.1, 72.8), "DTD-Synthetic": (93.8, 97.4, 98.2, 92.9),
    },
)  # fmt: skip


@hyper_parameters
class GlocalCLIPConfig(LearnedSentencesConfig):
    """Hyper-parameters; the defaults are the official program's, sigma its scripts'.

    ``context_length`` is that of a normal sentence; without ``taps`` the four quarter depths are
    read.

    Attributes:
        abnormal_length: further learned vectors of a damaged sentence.
        distinct_taps: read each tap's own state. The official code hands out one tensor that the
            later blocks change in place, so that all taps show the last block (the default here).
        margin: distance beyond which the contrastive term's negatives do not count; with the
            official 0 they never do.
        alpha: weight of the contrastive term.
    """

    abnormal_length: Count = 12
    distinct_taps: bool = False
    sigma: NotNegative = 8.0
    margin: NotNegative = 0.0
    alpha: NotNegative = 1.0


@register(
    MethodInfo(
        name="glocalclip",
        title="GlocalCLIP",
        school="prompt",
        knows_from=("training", "references"),
        optional=("references",),
        paper="Ham, Jung and Baek, arXiv 2411.06071",
        code_licence="MIT",
        parity="official code at b58563ab: forward, losses, gradients",
        figures=_FIGURES,
    )
)
class GlocalCLIP(LearnedSentencesDetector):
    """Global and local object-agnostic prompts.

    The score is a probability, 0.5 is undecided; the map is the sum of one probability per tap.
    """

    Config = GlocalCLIPConfig
    recipe = Recipe(epochs=15, batch_size=8, learning_rate=1e-3, betas=(0.5, 0.999), seed=111)
    main_context = "ctx_global_pos"
    monotone_memory = True  # the distance to the nearest of more references never grows
    config: GlocalCLIPConfig

    def __init__(self, clip: CLIPBackbone, config: GlocalCLIPConfig | None = None) -> None:
        super().__init__(clip, config or GlocalCLIPConfig())
        taps = self.chosen_taps()
        self.K = len(taps)
        self.taps = taps if self.config.distinct_taps else (self.clip.config.vision.layers,)
        self.copies = self.K // len(self.taps)  # equal taps are computed once
        n, m = self.config.context_length, self.config.abnormal_length
        lengths = {"ctx_global_pos": n, "ctx_global_neg": m, "ctx_local_pos": n, "ctx_local_neg": m}
        self.prompts = self.learned_prompts(lengths, sentences=GLOBAL_AND_LOCAL)

    @classmethod
    def official_options(cls, published: Mapping[str, Any]) -> dict[str, Any]:
        """Lengths and depth of the learned tokens."""
        sizes = super().official_options(published)
        if sizes:
            further = published["prompt_learner"].get("ctx_global_neg")
            if isinstance(further, Tensor) and further.dim() == 4:
                sizes["abnormal_length"] = further.shape[2]
        return sizes

    def map_range(self, knowledge: Knowledge) -> tuple[float, float]:
        """Sum of K probabilities: [0, K]."""
        return 0.0, float(self.K)

    # --- in the order of the paper ------------------------------------------------------------

    def encode(self, images: Tensor) -> Features:
        """The image tower with its second stream; the class token skips ``ln_post``."""
        return self.two_streams(images, self.taps, norm=False)

    def judge(self, encoded: Features, knowledge: Knowledge) -> Prediction:
        """Compare with the learned sentences."""
        G, L = self.texts.split(2)  # (2, C) each
        tau = self.config.temperature
        P = [text_probabilities(F, L, tau)[..., 1] for F in encoded.patches]  # (B, N) each
        M = self.copies * torch.stack(P).sum(0)  # upsampling is linear: sum first
        map = gaussian_smooth(encoded.grid.map(M), self.config.sigma)
        return Prediction(
            score=text_probabilities(encoded.image, G, tau)[:, 1],
            map=map.clamp(0, self.K),  # the filter's weights sum to one but for rounding
        )

    def training_loss(self, batch: TrainingBatch) -> dict[str, Tensor]:
        """Cross entropy with G, focal and two Dice losses per tap with L, and what ties G to L."""
        encoded = self.encode(batch.images)
        G, L = self.prompts(self.clip.text).split(2)
        P = [self.probability_map(F, L, encoded.grid) for F in encoded.patches]
        image = cosine(encoded.image, G) / self.config.temperature
        return {
            "image": nnF.cross_entropy(image, batch.labels),
            **map_terms(P, batch.masks, self.copies),
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

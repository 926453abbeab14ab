"""AnomalyCLIP (Zhou et al., ICLR 2024, arXiv 2310.18961).

Two learned sentences, "normal object" and "damaged object", serve every product. The image tower
stays CLIP's; from a quarter of its depth on a second stream of value-value attention (DPAM) runs
beside it, whose patches keep their place. The class token gives the image score, the patches of
the second stream the map.

Symbols: g the global feature, F the patch features of a tap, T the text features [normal,
damaged], N the number of patches, C the joint dimension, K the number of taps.
"""

from __future__ import annotations

import torch
import torch.nn.functional as nnF
from torch import Tensor

from zerodefect.backbones.clip_weights import CLIPBackbone
from zerodefect.detector.configs import hyper_parameters
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
from zerodefect.types import Prediction, TrainingBatch

_PAPER = "arXiv 2310.18961, table 1"
_FIGURES = published_table(
    _PAPER, "0-shot", ("image AUROC", "image AP", "pixel AUROC", "AUPRO"),
    {
        "MVTec AD": (91.5, 96.2, 91.1, 81.4), "VisA": (82.1, 85.4, 95.5, 87.0),
        "MPDD": (77.0, 82.0, 96.5, 88.7), "BTAD": (88.3, 87.3, 94.2, 74.8),
        "SDD": (84.7, 80.0, 90.6, 67.8), "DAGM": (97.5, 92.3, 95.6, 91.0),
        "DTD-Synthetic": (93.5, 97.0, 97.9, 92.3),
    },
)  # fmt: skip


@hyper_parameters
class AnomalyCLIPConfig(LearnedSentencesConfig):
    """Hyper-parameters; the defaults are the paper's. Without ``taps`` the last block is read."""

    local_weight: float = 4.0  # weight of the map's losses against the image's


@register(
    MethodInfo(
        name="anomalyclip",
        title="AnomalyCLIP",
        school="prompt",
        knows_from=("training", "references"),
        optional=("references",),
        paper="Zhou et al., ICLR 2024, arXiv 2310.18961",
        code_licence="MIT",
        parity="official code at 45ed4dd3: forward, losses, gradients, one optimiser step",
        figures=_FIGURES,
    )
)
class AnomalyCLIP(LearnedSentencesDetector):
    """Object-agnostic learned prompts with value-value attention.

    The score is a probability, 0.5 is undecided; the map is the sum of one probability per tap.
    """

    Config = AnomalyCLIPConfig
    recipe = Recipe(epochs=15, batch_size=8, learning_rate=1e-3, betas=(0.5, 0.999), seed=111)
    monotone_memory = True  # the distance to the nearest of more references never grows
    config: AnomalyCLIPConfig

    def __init__(self, clip: CLIPBackbone, config: AnomalyCLIPConfig | None = None) -> None:
        super().__init__(clip, config or AnomalyCLIPConfig())
        self.taps = self.chosen_taps(last=True)
        n = self.config.context_length
        self.prompts = self.learned_prompts({"ctx_pos": n, "ctx_neg": n})

    def map_range(self, knowledge: Knowledge) -> tuple[float, float]:
        """Sum of K probabilities: [0, K]."""
        return 0.0, float(len(self.taps))

    # --- in the order of the paper ------------------------------------------------------------

    def encode(self, images: Tensor) -> Features:
        """The image tower with its second stream; the class token skips ``ln_post``."""
        return self.two_streams(images, self.taps, norm=False)

    def judge(self, encoded: Features, knowledge: Knowledge) -> Prediction:
        """Compare with the learned sentences."""
        T, tau = self.texts, self.config.temperature
        P = [text_probabilities(F, T, tau) for F in encoded.patches]  # (B, N, 2) each
        M = torch.stack([p[..., 1] for p in P]).sum(0)  # upsampling is linear: sum first
        map = gaussian_smooth(encoded.grid.map(M), self.config.sigma)
        return Prediction(
            score=text_probabilities(encoded.image, T, tau)[:, 1],
            map=map.clamp(0, len(P)),  # the filter's weights sum to one but for rounding
        )

    def training_loss(self, batch: TrainingBatch) -> dict[str, Tensor]:
        """Cross entropy of the image, and per tap focal and two Dice losses of the map."""
        encoded, T = self.encode(batch.images), self.prompts(self.clip.text)
        tau, w = self.config.temperature, self.config.local_weight
        P = [self.probability_map(F, T, encoded.grid) for F in encoded.patches]
        image = nnF.cross_entropy(cosine(encoded.image, T) / tau, batch.labels)
        return {"image": image, **map_terms(P, batch.masks, w)}

"""MGFD-CLIP, multi-granularity feature decoupling, a completion of ours.

Known is one sentence: that it decouples global and local features. Here the picture's direction is
taken out of its patches by a share, so that they say what a place has beyond the whole, and what
its patches say is taken out of the whole; each is compared with learned sentences of its own.

Symbols: c the class feature and z_i the patches, of unit length, z'_i what is left of a patch, g
what is left of the whole, G and L the global and local text features [normal, damaged], M the map,
N the number of patches, D the joint dimension, K the number of taps.
"""

from __future__ import annotations

import torch
import torch.nn.functional as nnF
from torch import Tensor

from zerodefect.backbones.clip_weights import CLIPBackbone
from zerodefect.detector.configs import Count, Share, hyper_parameters
from zerodefect.detector.contract import Detector
from zerodefect.detector.facts import MethodInfo
from zerodefect.detector.knowledge import Knowledge
from zerodefect.detector.learned_sentences import (
    Features,
    LearnedSentencesConfig,
    LearnedSentencesDetector,
)
from zerodefect.detector.recipes import Recipe
from zerodefect.detector.registry import register
from zerodefect.layers.losses import map_terms
from zerodefect.layers.similarity import anomaly_probability, cosine, highest_mean
from zerodefect.layers.smoothing import gaussian_smooth
from zerodefect.prompts.learnable import GLOBAL_AND_LOCAL
from zerodefect.types import Prediction, TrainingBatch


@hyper_parameters
class MGFDCLIPConfig(LearnedSentencesConfig):
    """Hyper-parameters; all are ours.

    ``context_length`` is that of every context, ``depth`` is 1 since nothing enters further text
    blocks. Without ``taps`` the four quarter depths of the second stream are read, or the last
    block where there is no such stream.

    Attributes:
        decoupled: share of the picture's direction that is taken out of its patches. All of it
            costs more of the map than it gives.
        top: share of the map's highest values whose mean is half of the image score.
    """

    depth: Count | None = 1
    decoupled: Share = 0.5
    top: Share = 0.01


@register(
    MethodInfo(
        name="mgfd_clip",
        title="MGFD-CLIP (completion)",
        school="prompt",
        knows_from=("training", "references"),
        optional=("references",),
        paper="none found: one sentence of a survey of the field",
        code_licence="none published; ours",
        parity="none: a completion from a sentence; hand-computed parts",
        completion=True,
        experimental="of it is known one sentence, that it decouples global and local features; "
        "what is taken out of what, sentences, score and losses are ours",
    )
)
class MGFDCLIP(LearnedSentencesDetector):
    """The whole and its patches, each without the other. Score and map are probabilities."""

    Config = MGFDCLIPConfig
    recipe = Recipe(epochs=15, batch_size=8, learning_rate=1e-3, betas=(0.5, 0.999), seed=111)
    monotone_memory = True  # the distance to the nearest of more references never grows
    official_options = Detector.official_options  # none is published, the family's is not its own
    official_state = Detector.official_state
    config: MGFDCLIPConfig

    def __init__(self, clip: CLIPBackbone, config: MGFDCLIPConfig | None = None) -> None:
        super().__init__(clip, config or MGFDCLIPConfig())
        self.taps = self.chosen_taps(last=self.stream is None)
        names = [f"ctx_{pair}_{state}" for pair in ("global", "local") for state in ("pos", "neg")]
        lengths = dict.fromkeys(names, self.config.context_length)
        self.prompts = self.learned_prompts(lengths, sentences=GLOBAL_AND_LOCAL)

    # --- in the order of the completion -------------------------------------------------------

    def encode(self, images: Tensor) -> Features:
        """Class token and patches all pass ``ln_post``: directions are compared."""
        return self.two_streams(images, self.taps, norm=True)

    def judge(self, encoded: Features, knowledge: Knowledge) -> Prediction:
        """Half the score is the whole picture's, half the map's."""
        G, L = self.texts.split(2)  # (2, D) each
        tau = self.config.temperature
        p = [anomaly_probability(z, L, tau) for z in self.local_parts(encoded)]  # (B, N) each
        M = gaussian_smooth(encoded.grid.map(torch.stack(p).mean(0)), self.config.sigma)
        M = M.clamp(0, 1)  # the filter's weights sum to one but for rounding
        s = anomaly_probability(self.global_part(encoded), G, tau)
        return Prediction(score=(s + highest_mean(M, self.config.top)) / 2, map=M)

    def local_parts(self, features: Features) -> list[Tensor]:
        """``z'_i = z_i - share (z_i . c) c`` of each tap, ``(B, N, D)`` of unit length."""
        c = nnF.normalize(features.image, dim=-1)[:, None]  # (B, 1, D)
        shared = (((F * c).sum(dim=-1, keepdim=True), F) for F in features.patches)
        return [nnF.normalize(F - self.config.decoupled * a * c, dim=-1) for a, F in shared]

    @staticmethod
    def global_part(features: Features) -> Tensor:
        """``g = c - mean_i (c . z_i) z_i`` over the last tap's patches, ``(B, D)``."""
        c = nnF.normalize(features.image, dim=-1)
        z = nnF.normalize(features.patches[-1], dim=-1)
        return c - ((z @ c[..., None]) * z).mean(dim=1)

    def training_loss(self, batch: TrainingBatch) -> dict[str, Tensor]:
        """Cross entropy with G, focal and two Dice losses per tap with L."""
        encoded = self.encode(batch.images)
        G, L = self.prompts(self.clip.text).split(2)
        P = [self.probability_map(z, L, encoded.grid) for z in self.local_parts(encoded)]
        image = cosine(self.global_part(encoded), G) / self.config.temperature
        return {
            "image": nnF.cross_entropy(image, batch.labels),
            **map_terms(P, batch.masks),
        }

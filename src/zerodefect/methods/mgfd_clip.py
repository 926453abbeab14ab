"""MGFD-CLIP, multi-granularity feature decoupling, a completion of ours.

Known is one sentence: that it decouples global and local features. Here a picture's own direction
is taken out of its patches, so that they say what a place has beyond the whole, and the whole and
its patches are compared with learned sentences of their own.

Symbols: c the class feature of unit length, z_i the patches, z'_i what is left of them without c, G
and L the global and local text features [normal, damaged], M the map, N the number of patches, D
the joint dimension, K the number of taps.
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
from zerodefect.layers.losses import map_losses
from zerodefect.layers.similarity import anomaly_probability, cosine, highest_mean
from zerodefect.layers.smoothing import gaussian_smooth
from zerodefect.prompts.learnable import GLOBAL_AND_LOCAL
from zerodefect.types import Prediction, TrainingBatch


@hyper_parameters
class MGFDCLIPConfig(LearnedSentencesConfig):
    """Hyper-parameters; all are ours.

    ``context_length`` is that of every context, ``depth`` is 1 since nothing enters further text
    blocks. Without ``taps`` the four quarter depths are read.

    Attributes:
        top: share of the map's highest values whose mean is half of the image score.
    """

    depth: Count | None = 1
    top: Share = 0.01


@register(
    MethodInfo(
        name="mgfd_clip",
        title="MGFD-CLIP (completion)",
        school="prompt",
        knows_from=("training",),
        paper="none found: one sentence of a survey of the field",
        code_licence="none published; ours",
        parity="none: a completion from a sentence; hand-computed parts",
        completion=True,
        experimental="of it is known one sentence, that it decouples global and local features; "
        "what is taken out of what, sentences, score and losses are ours",
    )
)
class MGFDCLIP(LearnedSentencesDetector):
    """Patches without the whole picture's direction. Score and map are probabilities."""

    Config = MGFDCLIPConfig
    recipe = Recipe(epochs=15, batch_size=8, learning_rate=1e-3, betas=(0.5, 0.999), seed=111)
    official_options = Detector.official_options  # none is published, the family's is not its own
    official_state = Detector.official_state
    config: MGFDCLIPConfig

    def __init__(self, clip: CLIPBackbone, config: MGFDCLIPConfig | None = None) -> None:
        super().__init__(clip, config or MGFDCLIPConfig())
        self.taps = self.chosen_taps()
        names = [f"ctx_{pair}_{state}" for pair in ("global", "local") for state in ("pos", "neg")]
        lengths = dict.fromkeys(names, self.config.context_length)
        self.prompts = self.learned_prompts(lengths, sentences=GLOBAL_AND_LOCAL)

    # --- in the order of the completion -------------------------------------------------------

    def encode(self, images: Tensor) -> Features:
        """Class token and patches all pass ``ln_post``: directions are compared."""
        return self.two_streams(images, self.taps, norm=True)

    def predict(
        self, encoded: Features, knowledge: Knowledge, left_out: Tensor | None = None
    ) -> Prediction:
        """Half the score is the whole picture's, half the map's."""
        G, L = self.texts.split(2)  # (2, D) each
        tau = self.config.temperature
        p = [anomaly_probability(z, L, tau) for z in self.decoupled(encoded)]  # (B, N) each
        M = gaussian_smooth(encoded.grid.map(torch.stack(p).mean(0)), self.config.sigma)
        M = M.clamp(0, 1)  # the filter's weights sum to one but for rounding
        s = anomaly_probability(encoded.image, G, tau)
        return Prediction(score=(s + highest_mean(M, self.config.top)) / 2, map=M)

    def decoupled(self, features: Features) -> list[Tensor]:
        """z' of each tap ``(B, N, D)``, orthogonal to c and of unit length."""
        c = nnF.normalize(features.image, dim=-1)[:, None]  # (B, 1, D)
        parts = (F - (F * c).sum(dim=-1, keepdim=True) * c for F in features.patches)
        return [nnF.normalize(z, dim=-1) for z in parts]

    def training_loss(self, batch: TrainingBatch) -> dict[str, Tensor]:
        """Cross entropy with G, focal and two Dice losses per tap with L."""
        encoded = self.encode(batch.images)
        G, L = self.prompts(self.clip.text).split(2)
        P = [self.probability_map(z, L, encoded.grid) for z in self.decoupled(encoded)]
        focal, abnormal, normal = map_losses(P, batch.masks)
        image = cosine(encoded.image, G) / self.config.temperature
        return {
            "image": nnF.cross_entropy(image, batch.labels),
            "focal": focal,
            "dice_abnormal": abnormal,
            "dice_normal": normal,
        }

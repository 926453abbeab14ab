"""Crane and Crane+ (Salehi et al., arXiv 2504.11055).

AnomalyCLIP's learned sentences with a second stream that sums three self-correlations (E-Attn),
sentences that carry the image's own feature in training, and an image feature that is mixed with
the patches which look damaged. Crane+ adds patch features whose attention in the last block comes
from a DINOv2 (D-Attn): choose its encoder with ``dino``.

Symbols: g the global feature, F_k the patch features of entry k (E, and D before it in Crane+), T
the text features [normal, damaged], N the number of patches, C the joint dimension, W the image
tower's width; small f and t are of unit length.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import torch
import torch.nn.functional as nnF
from torch import Tensor

from zerodefect.backbones.clip_weights import CLIPBackbone
from zerodefect.backbones.vision import VisionEncoder, load_vision
from zerodefect.detector.configs import Positive, hyper_parameters
from zerodefect.detector.facts import MethodInfo, published_table
from zerodefect.detector.knowledge import Knowledge
from zerodefect.detector.learned_sentences import (
    Features,
    LearnedSentencesConfig,
    LearnedSentencesDetector,
)
from zerodefect.detector.recipes import Recipe
from zerodefect.detector.registry import register
from zerodefect.layers.grid import Grid
from zerodefect.layers.losses import dice_loss, focal_loss
from zerodefect.layers.smoothing import gaussian_smooth
from zerodefect.prompts.learnable import Place, with_token
from zerodefect.types import Prediction, TrainingBatch

_METRICS = (*("image AUROC", "image AP", "image F1-max"), *("pixel AUROC", "AUPRO", "pixel F1-max"))
_FIGURES = published_table(
    "arXiv 2504.11055, table 1", "0-shot", _METRICS,
    {
        "MVTec AD": (93.8, 97.5, 93.8, 91.3, 84.6, 41.3),
        "VisA": (85.3, 87.9, 82.6, 95.1, 87.5, 30.9),
        "MPDD": (81.4, 84.8, 81.6, 97.0, 89.3, 38.2),
        "BTAD": (94.4, 95.9, 91.7, 96.6, 81.3, 56.9),
        "KSDD": (97.8, 94.3, 91.6, 97.9, 95.9, 60.2),
        "DAGM": (99.2, 97.4, 95.8, 96.3, 91.2, 67.2),
        "DTD-Synthetic": (96.3, 98.5, 95.3, 98.3, 93.3, 68.8),
    },
) + published_table(
    "arXiv 2504.11055, table 1", "0-shot, Crane+", _METRICS,
    {
        "MVTec AD": (93.9, 97.6, 93.6, 91.2, 88.1, 43.8),
        "VisA": (83.6, 86.7, 81.2, 95.3, 90.6, 30.2),
        "MPDD": (81.0, 84.1, 83.0, 97.6, 93.2, 42.0),
        "BTAD": (96.3, 97.0, 93.7, 96.7, 86.8, 61.1),
        "KSDD": (97.8, 94.5, 89.7, 99.2, 97.4, 62.4),
        "DAGM": (98.9, 96.1, 94.7, 96.2, 93.8, 66.8),
        "DTD-Synthetic": (95.8, 98.2, 94.6, 98.8, 96.0, 71.8),
    },
)  # fmt: skip

_CONTEXTS = ("ctx_pos", "ctx_neg")


@hyper_parameters
class CraneConfig(LearnedSentencesConfig):
    """Hyper-parameters; the defaults are the official program's.

    Each of ``taps`` gives an entry E; without them the four quarter depths do, or the last block
    alone in Crane+. ``temperature`` is of every softmax but that of ``image_temperature``.

    Attributes:
        distinct_taps: read each tap's own state. The official code hands out one tensor that the
            later blocks change in place, so that all taps show the last block (the default here).
        dino: timm's name of the encoder of Crane+ (the paper: vit_base_patch14_reg4_dinov2), or
            None for Crane.
        dino_weights: its local file; None for the hub's cache.
        beta: D-Attn lets a patch attend to those more similar than beta times the mean similarity.
        gamma: sharpness of D-Attn.
        batch_mean: take that mean over the whole batch, as the official code does; an image's map
            then depends on the others of its batch.
        soft_mean: average the entries' probabilities instead of their logits. None for the
            scripts' choice: Crane does, Crane+ does not (but on DAGM and the medical sets).
        conditioning: how the image's feature enters the sentences in training.
        conditioned_test: let it enter when scoring, too; the official program leaves it out.
        image_temperature: of the image's cross entropy in training.
        training_upsampling: of the probabilities in training.
    """

    distinct_taps: bool = False
    dino: str | None = None
    dino_weights: str | None = None
    beta: float = 1.2
    gamma: float = 3.0
    batch_mean: bool = False
    soft_mean: bool | None = None
    conditioning: Place | Literal["none"] = "pad_suffix"
    conditioned_test: bool = False
    image_temperature: Positive = 0.01
    training_upsampling: Literal["nearest", "bilinear"] = "nearest"

    def __post_init__(self) -> None:
        if self.conditioned_test and self.conditioning == "none":
            raise ValueError("conditioned_test needs a way of conditioning")


@register(
    MethodInfo(
        name="crane",
        title="Crane / Crane+",
        school="prompt",
        knows_from=("training", "references"),
        optional=("references",),
        paper="Salehi et al., arXiv 2504.11055",
        code_licence="MIT",
        parity="official code at 39181f9f: forward, losses, gradients; published checkpoint read",
        figures=_FIGURES,
    )
)
class Crane(LearnedSentencesDetector):
    """Context-guided prompts and refined attention. Score and map are probabilities.

    Args:
        clip: the CLIP.
        config: hyper-parameters.
        dino: encoder of Crane+, instead of the one that ``config.dino`` names.
    """

    Config = CraneConfig
    recipe = Recipe(epochs=5, batch_size=8, learning_rate=1e-3, betas=(0.6, 0.999), seed=111)
    rule = "qq+kk+vv"
    monotone_memory = True  # the distance to the nearest of more references never grows
    config: CraneConfig

    def __init__(
        self,
        clip: CLIPBackbone,
        config: CraneConfig | None = None,
        dino: VisionEncoder | None = None,
    ) -> None:
        super().__init__(clip, config or CraneConfig())
        vision, text = self.clip.config.vision, self.clip.config.text
        if self.config.conditioning != "none" and text.width != self.clip.config.embed_dim:
            raise ValueError(
                "Crane puts the image's feature into its sentences: this backbone's joint width "
                f"{self.clip.config.embed_dim} is not its text width {text.width}. Choose a "
                "backbone where they are equal, or conditioning=none"
            )
        if dino is None and self.config.dino is not None:
            dino = load_vision(
                self.config.dino,
                weights=self.config.dino_weights,
                device=self.device,
                dtype=self.clip.visual.proj.dtype,
            )
        self.dino = dino
        taps = self._taps(vision.layers)
        self.taps = taps if self.config.distinct_taps else (vision.layers,)
        self.copies = len(taps) // len(self.taps)  # equal entries are computed once
        chosen = self.config.soft_mean
        self.soft_mean = dino is None if chosen is None else chosen
        self.prompts = self.learned_prompts(dict.fromkeys(_CONTEXTS, self.config.context_length))

    def _taps(self, layers: int) -> tuple[int, ...]:
        if self.dino is None:
            return self.chosen_taps()
        if self.config.taps not in (None, (layers,)):
            raise ValueError(
                f"Crane+ reads the last block alone; leave taps out or give ({layers},)"
            )
        return (layers,)

    def facts(self) -> dict[str, Any]:
        """As everywhere; the DINO counts by the content of its file, not by its path."""
        facts = super().facts()
        if self.dino is not None:
            names = {"dino": self.dino.name, "dino_weights": self.dino.fingerprint}
            facts["config"] = {**facts["config"], **names}
        return facts

    # --- in the order of the paper ------------------------------------------------------------

    def encode(self, images: Tensor) -> Features:
        """g and the entries E, or [D, E]; here the class token passes ``ln_post``."""
        plus = self.dino is not None
        features = self.two_streams(images, self.taps, norm=True, middle=plus)
        if not plus:
            return features
        D = self.d_attention(images, features)
        return replace(features, patches=(D, *features.patches), middle=None)

    def d_attention(self, images: Tensor, features: Features) -> Tensor:
        """D-Attn: values of CLIP's last block, gathered by DINO's similarities, ``(B, N, C)``.

        The values come from the state behind that block's own attention, because the official code
        adds it in place; the block's input seems to have been meant.
        """
        assert self.dino is not None and features.middle is not None
        visual = self.clip.visual
        block = visual.transformer.blocks[-1]
        f = self.dino.like(images, self.preprocess.mean, self.preprocess.std, features.grid.shape)
        A = self.similarity_attention(f.flatten(2).transpose(1, 2).float())  # (B, N, N)
        h = block.ln_1(features.middle)[:, 1:]
        weight, bias = block.attn.in_proj_weight, block.attn.in_proj_bias
        W = h.shape[-1]
        v = nnF.linear(h, weight[2 * W :], bias[2 * W :])  # (B, N, W): all heads share A
        return visual.project(block.attn.out_proj(A.to(v.dtype) @ v)).float()

    def similarity_attention(self, f: Tensor) -> Tensor:
        """Row-stochastic ``A (B, N, N)`` from DINO's tokens ``(B, N, C')``."""
        u = nnF.normalize(f, dim=-1)
        S = u @ u.mT
        mean = S.mean() if self.config.batch_mean else S.mean(dim=(1, 2), keepdim=True)
        M = self.config.gamma * (S - self.config.beta * mean)
        # a patch always sees itself: it is the most similar to itself, so this changes nothing
        # but the row where nothing at all would be left
        own = torch.eye(M.shape[-1], dtype=torch.bool, device=M.device)
        return M.masked_fill((M < 0) & ~own, float("-inf")).softmax(dim=-1)

    def judge(self, encoded: Features, knowledge: Knowledge) -> Prediction:
        """Compare with the learned sentences."""
        T = self.conditioned_texts(encoded.image) if self.config.conditioned_test else self.texts
        z = self.logits(encoded, T)
        if self.soft_mean:
            p = torch.stack([zk.softmax(dim=-1)[..., 1] for zk in z]).mean(0)  # (B, N)
            map = encoded.grid.map(p)
        else:
            mean = torch.stack(z).mean(0)  # (B, N, 2)
            map = encoded.grid.map(mean.mT).softmax(dim=1)[:, 1]
        G = self.pooled(encoded, z)
        score = _cosines(G[:, None], T)[:, 0] / self.config.temperature
        return Prediction(
            score=score.softmax(dim=-1)[:, 1],
            map=gaussian_smooth(map, self.config.sigma).clamp(0, 1),  # but for rounding no change
        )

    def conditioned_texts(self, g: Tensor) -> Tensor:
        """Text features ``(B, 2, C)`` of sentences that carry each image's feature ``(B, C)``."""
        if self.config.conditioning == "none":
            return self.prompts(self.clip.text).expand(len(g), -1, -1)
        token = nnF.normalize(g, dim=-1)
        contexts = {
            name: with_token(self.prompts.context(name), token, self.config.conditioning)
            for name in _CONTEXTS
        }
        return self.prompts(self.clip.text, contexts)

    def logits(self, features: Features, T: Tensor) -> list[Tensor]:
        """Per entry ``z_k (B, N, 2)`` against the texts ``(2, C)`` or ``(B, 2, C)``."""
        return [_cosines(F, T) / self.config.temperature for F in features.patches]

    def pooled(self, features: Features, z: list[Tensor]) -> Tensor:
        """``G (B, C)``: half the image's feature, half its patches weighted by their damage."""
        c = nnF.normalize(self.score_pooled(features, z), dim=-1)
        return nnF.normalize(0.5 * c + 0.5 * nnF.normalize(features.image, dim=-1), dim=-1)

    def score_pooled(self, features: Features, z: list[Tensor]) -> Tensor:
        """Sum of the patches weighted by their probability of damage, ``(B, C)``."""
        w = torch.stack(z).mean(0).softmax(dim=-1)[..., 1:]  # (B, N, 1)
        f = torch.stack([nnF.normalize(F, dim=-1) for F in features.patches]).mean(0)
        return (w * f).sum(dim=1)

    def training_loss(self, batch: TrainingBatch) -> dict[str, Tensor]:
        """Focal and Dice losses per entry, cross entropy of G; texts are each image's own."""
        features = self.encode(batch.images)
        T = self.conditioned_texts(features.image)  # (B, 2, C)
        z, masks = self.logits(features, T), batch.masks
        how = self.config.training_upsampling
        P = [_upsampled(zk.softmax(dim=-1), features.grid, how) for zk in z]
        image = _cosines(self.pooled(features, z)[:, None], T)[:, 0]
        image = image / self.config.image_temperature  # (B, 2)
        weight = 2.0 * self.copies
        return {
            "focal": weight * torch.stack([focal_loss(p, masks) for p in P]).sum(),
            "dice": weight
            * torch.stack([dice_loss((1 - p[:, 0] + p[:, 1]) / 2, masks) for p in P]).sum(),
            "image": 0.2 * nnF.cross_entropy(image, batch.labels),
        }


def _upsampled(values: Tensor, grid: Grid, how: str) -> Tensor:
    """``(B, N, 2)`` -> ``(B, 2, H, W)``."""
    if how == "bilinear":
        return grid.map(values.mT)
    return nnF.interpolate(grid.fold(values.mT), size=grid.size, mode="nearest")


def _cosines(F: Tensor, T: Tensor) -> Tensor:
    """``(B, N, C)`` against ``(2, C)`` or ``(B, 2, C)``: ``(B, N, 2)``."""
    return nnF.normalize(F, dim=-1) @ nnF.normalize(T, dim=-1).mT

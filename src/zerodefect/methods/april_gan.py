"""APRIL-GAN (Chen, Han and Zhang, VAND challenge at CVPR 2023, arXiv 2305.17382).

One linear layer per tapped block brings CLIP's patch tokens into the joint space, where they are
compared with "normal" and "anomalous" texts; these layers are all that is learned, on another
product's labelled defects. Few-shot: the distance of each raw token to its nearest one among the
tokens of k normal references is added to the map.

Symbols: z the image's feature, T_l the tokens of tap l, P_l the mapped ones, F the texts [normal,
anomalous], L the number of patches, W the tower's width, D the joint dimension, K the number of
taps, d_l distances to the references, N their map, s the zero-shot image score.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as nnF
from torch import Tensor, nn

from zerodefect.backbones.clip_weights import CLIPBackbone
from zerodefect.detector.clip_detector import Activation, CLIPDetector, Features
from zerodefect.detector.composed import SetLevel
from zerodefect.detector.configs import Positive, Taps, hyper_parameters
from zerodefect.detector.facts import MethodInfo, published_table
from zerodefect.detector.knowledge import Knowledge, Product
from zerodefect.detector.official_files import Checked
from zerodefect.detector.recipes import Recipe
from zerodefect.detector.registry import register
from zerodefect.layers.adapters import linear
from zerodefect.layers.losses import map_losses
from zerodefect.layers.scaling import MinMax
from zerodefect.layers.similarity import inner_products, two_class
from zerodefect.prompts.ensemble import ANOMALOUS_STATES, NORMAL_STATES, PromptEnsemble
from zerodefect.types import Prediction, TrainingBatch

_IMAGE_METRICS = ("image AUROC", "image F1-max", "image AP")
_FIGURES = (
    *published_table(
        "a third party's run of the official code with the released layers", "0-shot",
        (*_IMAGE_METRICS, "pixel AUROC", "pixel F1-max", "pixel AP", "AUPRO"),
        {"MVTec AD": (86.13, 90.35, 93.56, 87.63, 43.28, 40.78, 44.04)},
    ),
    *published_table(
        "README of the authors of VisualAD, a later paper that compares with it", "0-shot",
        _IMAGE_METRICS, {"VisA": (77.4, 78.6, 80.9)},
    ),
)  # fmt: skip

_ANOMALOUS_STATES = ("damaged {}", "broken {}", *ANOMALOUS_STATES[1:])
_PHOTOS = """
a bad photo of a, a low resolution photo of the, a bad photo of the, a cropped photo of the, a
bright photo of a, a dark photo of the, a photo of my, a photo of the cool, a close-up photo
of a, a black and white photo of the, a bright photo of the, a cropped photo of a, a jpeg
corrupted photo of a, a blurry photo of the, a photo of the, a good photo of the, a photo of
one, a close-up photo of the, a photo of a, a low resolution photo of a, a photo of a large, a
blurry photo of a, a jpeg corrupted photo of the, a good photo of a, a photo of the small, a
photo of the large, a black and white photo of a, a dark photo of a, a photo of a cool, a
photo of a small
"""
_SCENES = ("there is a", "there is the", "this is a", "this is the", "this is one")
_TEMPLATES = (
    *(f"{photo} {{}}." for photo in " ".join(_PHOTOS.split()).split(", ")),
    *(f"{scene} {{}} in the scene." for scene in _SCENES),
)


@hyper_parameters
class AprilGANConfig:
    """Hyper-parameters; the defaults are the published code's.

    Attributes:
        taps: image-tower blocks (from 1) whose tokens are read; None for quarters of the depth.
        logit_scale: factor on cosine similarities before the softmax.
        activation: see ``Activation``; the published code runs ``gelu`` at every input size but
            the weights' own.
        normal_states, anomalous_states, templates: the sentences.
        seed: of the initial values.
    """

    taps: Taps | None = None
    logit_scale: Positive = 100.0
    activation: Activation = "gelu"
    normal_states: tuple[str, ...] = NORMAL_STATES
    anomalous_states: tuple[str, ...] = _ANOMALOUS_STATES
    templates: tuple[str, ...] = _TEMPLATES
    seed: int = 111


@register(
    MethodInfo(
        name="april_gan",
        title="APRIL-GAN",
        school="adapter",
        knows_from=("training", "words", "references"),
        optional=("references",),
        paper="Chen et al., CVPR 2023 VAND workshop challenge, arXiv 2305.17382",
        code_licence="MIT",
        parity="official code at f13b8a63: 0-shot and few-shot forward, losses, gradients, one "
        "optimiser step",
        figures=_FIGURES,
    )
)
class AprilGAN(CLIPDetector):
    """Linear layers over patch tokens, and a memory of the tokens of references.

    Without references the score is a probability, and the map the sum of one per tap. With
    references the map has the K cosine distances added, and the score is the mean of that
    probability and of the map's highest value divided by K. The published code instead scales that
    highest value over all test pictures of a class, which one picture does not have: ``set_level``
    does so.

    The recipe is the one for training on VisA. On MVTec AD the published code trains for 3 epochs
    and makes a fifth of the pictures 2 x 2 mosaics (``zerodefect train --epochs 3 --mosaic 0.2``).
    """

    Config = AprilGANConfig
    undecided = 0.5
    recipe = Recipe(epochs=15, batch_size=8, learning_rate=1e-3, betas=(0.5, 0.999), seed=111)
    positions = "bicubic_antialias"
    monotone_memory = True  # the distance to the nearest of more references never grows
    set_levels = ("image min-max",)
    config: AprilGANConfig

    def __init__(self, clip: CLIPBackbone, config: AprilGANConfig | None = None) -> None:
        super().__init__(clip, config or AprilGANConfig())
        self.taps = self.chosen_taps()
        self.prompts = PromptEnsemble(
            self.config.normal_states, self.config.anomalous_states, self.config.templates
        )
        draws = torch.Generator().manual_seed(self.config.seed)
        W, D = self.clip.config.vision.width, self.clip.config.embed_dim
        self.fc = nn.ModuleList(linear(W, D, draws) for _ in self.taps)

    def words(self, product: Product) -> dict[str, Tensor]:
        """F: mean direction of the normal and of the anomalous sentences, ``(2, D)`` unit length.

        Each sentence is normalised before the mean.
        """
        name, prompts = product.name, self.prompts
        groups = prompts.normal_prompts(name), prompts.anomalous_prompts(name)
        return {"texts": self.text_features.directions(groups)}

    def references(self, encoded: Features) -> Mapping[str, Tensor]:
        """Raw tokens of every tap."""
        return {f"tap{tap}": T for tap, T in zip(self.taps, encoded.patches, strict=True)}

    def map_range(self, knowledge: Knowledge) -> tuple[float, float]:
        """K probabilities: [0, K]; with references also K distances of at most 2: [0, 3K]."""
        return 0.0, float(len(self.taps) * (3 if knowledge.shots else 1))

    def set_level(self, name: str, knowledge: Knowledge) -> SetLevel | None:
        """``image min-max``: the few-shot score as the official test has it; none zero-shot."""
        if name not in self.set_levels:
            return super().set_level(name, knowledge)
        return _ImageMinMax(len(self.taps)) if knowledge.shots else None

    # --- in the order of the paper ------------------------------------------------------------

    def predict(
        self, encoded: Features, knowledge: Knowledge, left_out: Tensor | None = None
    ) -> Prediction:
        """Words, and the distance to references where there are any."""
        texts = knowledge["texts"]
        s = self.image_logits(encoded, texts).softmax(dim=-1)[:, 1]
        A = self.layer_maps(self.logits(self.projected(encoded), texts), encoded)
        if not knowledge.shots:
            return Prediction(score=s, map=A.sum(dim=1))
        d = self.distances(encoded, knowledge, left_out)
        M = A.sum(dim=1) + encoded.grid.upsample(d.sum(dim=1), align_corners=True)  # (B, H, W)
        return Prediction(score=(s + M.amax(dim=(1, 2)) / len(self.taps)) / 2, map=M)

    def image_logits(self, features: Features, texts: Tensor) -> Tensor:
        """Image against both texts, ``(B, 2)``."""
        z = nnF.normalize(features.image, dim=-1)
        return self.config.logit_scale * inner_products(z, texts)

    def projected(self, features: Features) -> list[Tensor]:
        """``P_l (B, L, D)`` per tap: mapped tokens, unit length."""
        pairs = zip(self.fc, features.patches, strict=True)
        return [nnF.normalize(fc_l(T_l).float(), dim=-1) for fc_l, T_l in pairs]

    def logits(self, P: Sequence[Tensor], texts: Tensor) -> Tensor:
        """Q: mapped tokens against texts ``(2, D)`` or ``(B, 2, D)``; ``(B, K, L, 2)``."""
        return self.config.logit_scale * torch.stack([inner_products(p, texts) for p in P], dim=1)

    def layer_maps(self, Q: Tensor, features: Features) -> Tensor:
        """A: anomaly probability per tap and pixel, ``(B, K, H, W)``."""
        return self._upsampled(Q, features).sigmoid()

    @staticmethod
    def _upsampled(Q: Tensor, features: Features) -> Tensor:
        """Anomalous minus normal logit; upsampling comes before the softmax: ``(B, K, H, W)``."""
        return features.grid.map(Q[..., 1] - Q[..., 0], align_corners=True)

    def distances(
        self, features: Features, knowledge: Knowledge, left_out: Tensor | None = None
    ) -> Tensor:
        """d: ``1 - cos`` of each token to the nearest one of its tap's memory, ``(B, K, g, g)``."""
        tokens = self.references(features).items()
        halves = [self.memory.distance(knowledge, name, T, left_out) for name, T in tokens]
        return features.grid.fold((2 * torch.stack(halves, dim=1)).clamp(min=0))

    def training_loss(self, batch: TrainingBatch) -> dict[str, Tensor]:
        """Focal and Dice loss of each tap's map, summed over taps; the image score has none."""
        features = self.encode(batch.images)
        texts = self.texts_of(batch.objects)  # (B, 2, D)
        p = two_class(self._upsampled(self.logits(self.projected(features), texts), features))
        focal, dice, _ = map_losses(p.unbind(dim=2), batch.masks)
        return {"focal": focal, "dice": dice}

    def official_state(self, published: Mapping[str, Any]) -> dict[str, Tensor]:
        """Learned values from ``{"trainable_linearlayer": ...}``; its names are ours."""
        checked = Checked(published, "APRIL-GAN checkpoint")
        layers = checked.inside("trainable_linearlayer")
        state = {name: layers.take(name, p.shape) for name, p in self.learned.items()}
        checked.done()
        return state


class _ImageMinMax:
    """Mean of s and of the map's highest value, the latter scaled to [0, 1] over all images."""

    def __init__(self, taps: int) -> None:
        self.taps, self.highest = taps, MinMax()

    def see(self, prediction: Prediction) -> None:
        assert prediction.map is not None
        self.highest.see(prediction.map.amax(dim=(1, 2)))

    def apply(self, prediction: Prediction) -> Prediction:
        assert prediction.map is not None
        highest = prediction.map.amax(dim=(1, 2))
        s = 2 * prediction.score - highest / self.taps
        return replace(prediction, score=(s + self.highest.scaled(highest)) / 2)

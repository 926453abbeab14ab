"""Dense CLIP: every patch token compared with "normal" and "anomalous" texts.

The plain form that the field starts from: the prompt ensemble of WinCLIP (Jeong et al., CVPR 2023,
section 4.1) against the patch tokens of one forward pass (MaskCLIP, Zhou et al., ECCV 2022, section
3, without its change of the last block). OpenAI's CLIP never aligned its patch tokens with text
and scores poorly here; the embedded model was trained for exactly this and sees the whole
picture with every patch. With references, the distance of each patch to its nearest normal patch
is added as in WinCLIP+ (section 4.3, patch scale alone).

Symbols: g the patch grid, N = g*g, W the tower's width, D the joint dimension, T defect kinds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from zerodefect.backbones.clip_weights import CLIPBackbone
from zerodefect.detector.clip_detector import WordDetector
from zerodefect.detector.configs import Positive, Share, hyper_parameters
from zerodefect.detector.contract import PatchFeatures
from zerodefect.detector.facts import MethodInfo
from zerodefect.detector.knowledge import Knowledge
from zerodefect.detector.registry import register
from zerodefect.layers.grid import Grid
from zerodefect.layers.similarity import anomaly_probability, text_probabilities, upsample
from zerodefect.layers.smoothing import gaussian_smooth
from zerodefect.prompts.ensemble import ANOMALOUS_STATES, NORMAL_STATES, WINCLIP_TEMPLATES
from zerodefect.types import Prediction


@hyper_parameters
class DenseConfig:
    """Hyper-parameters.

    Attributes:
        temperature: of the softmax over normal and anomalous.
        sizes: input sizes relative to the preprocessed one; maps of several are averaged. Smaller
            ones see large soft damage, larger ones thin lines.
        normal_states, anomalous_states, templates: the compositional prompt ensemble.
        image_score: ``text`` is the class token's text probability; ``map`` the highest value of
            the map; ``mean`` the mean of both.
        reference_weight: share of the reference distance in map and score, in [0, 1].
        reference_scale: half cosine distance that counts as 1; larger ones are cut there.
        smoothing: standard deviation of a Gaussian over the map, in patches.
    """

    temperature: Positive = 0.07
    sizes: Annotated[tuple[Annotated[float, Field(gt=0, le=4)], ...], Field(min_length=1)] = (1.0,)
    normal_states: tuple[str, ...] = NORMAL_STATES
    anomalous_states: tuple[str, ...] = ANOMALOUS_STATES
    templates: tuple[str, ...] = WINCLIP_TEMPLATES
    image_score: Literal["text", "map", "mean"] = "text"
    reference_weight: Share = 0.5
    reference_scale: Positive = 1.0
    smoothing: Annotated[float, Field(ge=0, lt=100)] = 0.0


@dataclass(frozen=True)
class Features:
    """Image side of one batch at one input size."""

    grid: Grid  # of the patches
    image: Tensor  # (B, D) class token, joint space
    patches: Tensor  # (B, N, D) patch tokens, joint space
    reference: Tensor  # (B, N, W) patch tokens after ln_post, not projected


@register(
    MethodInfo(
        name="dense",
        title="Dense CLIP",
        school="prompt",
        knows_from=("words", "references"),
        optional=("references",),
        paper="the plain baseline of the field; prompts of WinCLIP, arXiv 2303.14814",
        code_licence="ours",
        parity="hand-computed on small towers; no published implementation is reproduced",
    )
)
class DenseCLIP(WordDetector):
    """Patch tokens against texts, and against the patches of normal references.

    Score and map lie in [0, 1]. Zero-shot, 0.5 is the undecided point.
    """

    Config = DenseConfig
    tells_kinds = True
    monotone_memory = True  # the distance to the nearest of more references never grows
    config: DenseConfig

    def __init__(self, clip: CLIPBackbone, config: DenseConfig | None = None) -> None:
        super().__init__(clip, config or DenseConfig())

    def usual_scale(self, knowledge: Knowledge) -> tuple[float, float]:
        """As the embedded model's maps of good products are."""
        return (0.15, 0.1) if knowledge.shots else (0.3, 0.25)

    def encode(self, images: Tensor) -> tuple[Features, ...]:
        """One forward pass per input size."""
        return tuple(self._features(images, factor) for factor in self.config.sizes)

    def _features(self, images: Tensor, factor: float) -> Features:
        pixels, visual = self._resized(images, factor), self.clip.visual
        tokens = self.run(pixels).tokens  # (B, 1+N, W)
        return Features(
            grid=replace(self.grid(pixels), size=(images.shape[-2], images.shape[-1])),
            image=visual.project(tokens[:, 0]).float(),
            patches=visual.project(tokens[:, 1:]).float(),
            reference=visual.project(tokens[:, 1:], projection=False).float(),
        )

    def _resized(self, images: Tensor, factor: float) -> Tensor:
        patch = self.inputs["image"].multiple
        height, width = (max(1, round(side * factor / patch)) * patch for side in images.shape[-2:])
        if (height, width) == tuple(images.shape[-2:]):
            return images
        return F.interpolate(images.float(), size=(height, width), mode="bicubic", antialias=True)

    def references(self, encoded: tuple[Features, ...]) -> Mapping[str, Tensor]:
        """Patch features per input size."""
        return {f"patches{place}": each.reference for place, each in enumerate(encoded)}

    def patch_features(self, encoded: tuple[Features, ...]) -> tuple[PatchFeatures, ...]:
        """Patches of every input size, in the joint space."""
        return tuple(PatchFeatures(each.patches, each.grid, joint=True) for each in encoded)

    def predict(
        self, encoded: tuple[Features, ...], knowledge: Knowledge, left_out: Tensor | None = None
    ) -> Prediction:
        """Words, and the distance to references where there are any."""
        tau, texts, kinds = self.config.temperature, knowledge["texts"], knowledge["kind_texts"]
        finest = max((each.grid for each in encoded), key=lambda grid: grid.shape)
        maps, shares = [], []
        for each in encoded:
            s = each.grid.fold(anomaly_probability(each.patches, texts, tau))  # (B, g, g)
            maps.append(upsample(s, finest.shape))
            if len(kinds):
                share = text_probabilities(each.patches, kinds, tau)  # (B, N, T)
                shares.append(upsample(each.grid.fold(share.transpose(1, 2)), finest.shape))
        M = torch.stack(maps).mean(0)
        if knowledge.shots:
            D, w = (
                self._distance(encoded, finest, knowledge, left_out),
                self.config.reference_weight,
            )
            M = (1 - w) * M + w * D
        map = finest.upsample(gaussian_smooth(M, self.config.smoothing))
        highest = map.amax(dim=(1, 2))
        scores = [anomaly_probability(each.image, texts, tau) for each in encoded]  # (B,) each
        words = torch.stack(scores).mean(0)
        score = {"text": words, "map": highest, "mean": (words + highest) / 2}
        type_map = finest.upsample(torch.stack(shares).mean(0)) if shares else None
        return Prediction(score[self.config.image_score], map, type_map)

    def _distance(
        self,
        encoded: tuple[Features, ...],
        finest: Grid,
        knowledge: Knowledge,
        left_out: Tensor | None,
    ) -> Tensor:
        """Mean over input sizes of the distance to the nearest reference patch, ``(B, g, g)``."""
        maps = []
        for each, (name, patches) in zip(encoded, self.references(encoded).items(), strict=True):
            distance = self.memory.distance(knowledge, name, patches, left_out)
            near = (distance / self.config.reference_scale).clamp(max=1.0)
            maps.append(upsample(each.grid.fold(near), finest.shape))
        return torch.stack(maps).mean(0)

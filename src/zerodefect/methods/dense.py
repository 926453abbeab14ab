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

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zerodefect.backbones.clip_weights import Backbone
from zerodefect.detector.patch_memory import RememberingDetector, nearest
from zerodefect.detector.registry import MethodInfo, register
from zerodefect.detector.word_ensembles import PromptedDetector, weighted_mean
from zerodefect.layers.memory import MemoryBank
from zerodefect.layers.similarity import (
    anomaly_probability,
    text_probabilities,
    to_grid,
    upsample,
)
from zerodefect.layers.smoothing import gaussian_smooth
from zerodefect.prompts.ensemble import ANOMALOUS_STATES, NORMAL_STATES, WINCLIP_TEMPLATES
from zerodefect.types import Prediction


@dataclass(frozen=True)
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

    temperature: float = 0.07
    sizes: tuple[float, ...] = (1.0,)
    normal_states: tuple[str, ...] = NORMAL_STATES
    anomalous_states: tuple[str, ...] = ANOMALOUS_STATES
    templates: tuple[str, ...] = WINCLIP_TEMPLATES
    image_score: Literal["text", "map", "mean"] = "text"
    reference_weight: float = 0.5
    reference_scale: float = 1.0
    smoothing: float = 0.0

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"temperature must be positive, got {self.temperature}")
        if not self.sizes or not all(0 < size <= 4 for size in self.sizes):
            raise ValueError(f"sizes are factors above 0 and at most 4, got {self.sizes}")
        if self.image_score not in ("text", "map", "mean"):
            raise ValueError(f"image_score is text, map or mean, not {self.image_score!r}")
        if not 0 <= self.reference_weight <= 1:
            raise ValueError(f"reference_weight lies in [0, 1], got {self.reference_weight}")
        if not self.reference_scale > 0:
            raise ValueError(f"reference_scale must be positive, got {self.reference_scale}")
        if not 0 <= self.smoothing < 100:
            raise ValueError(f"smoothing lies in [0, 100) patches, got {self.smoothing}")


@dataclass(frozen=True)
class Features:
    """Image-side features of one batch, one entry per input size.

    Attributes:
        image: ``(B, D)`` class token, joint space.
        patches: ``(B, N, D)`` patch tokens, joint space.
        reference: ``(B, N, W)`` patch tokens after ``ln_post``, not projected.
        grids: rows and columns of patches.
        size: height and width that the map is brought to.
    """

    image: list[Tensor]
    patches: list[Tensor]
    reference: list[Tensor]
    grids: list[tuple[int, int]]
    size: tuple[int, int]


@register(
    MethodInfo(
        name="dense",
        title="Dense CLIP",
        school="prompt",
        knows_from=("words", "references"),
        paper="the plain baseline of the field; prompts of WinCLIP, arXiv 2303.14814",
        code_licence="ours",
        parity="hand-computed on small towers; no published implementation is reproduced",
    )
)
class DenseCLIP(PromptedDetector, RememberingDetector):
    """Patch tokens against texts, and against the patches of normal references.

    Score and map lie in [0, 1]. Zero-shot, 0.5 is the undecided point.
    """

    Config = DenseConfig
    config: DenseConfig

    def __init__(self, backbone: Backbone, config: DenseConfig | None = None) -> None:
        super().__init__(backbone, config or DenseConfig())
        self.memories = nn.ModuleList(MemoryBank() for _ in self.config.sizes)

    # --- scale --------------------------------------------------------------------------------

    @property
    def neutral_score(self) -> float | None:
        """0.5 zero-shot: both texts equally likely. With references there is no such point."""
        return None if self.shots else 0.5

    @property
    def map_range(self) -> tuple[float, float]:
        """Probabilities and cut distances: [0, 1]."""
        return 0.0, 1.0

    # --- forward pass ---------------------------------------------------------------------------

    @torch.no_grad()
    def encode(self, images: Tensor) -> Features:
        """One forward pass per input size, whatever words and references there are."""
        visual = self.clip.visual
        images = images.to(visual.proj.dtype)
        found = Features([], [], [], [], (images.shape[-2], images.shape[-1]))
        for factor in self.config.sizes:
            pixels = self._resized(images, factor)
            tokens = visual.encode(visual.embed(pixels)).tokens  # (B, 1+N, W)
            found.image.append(visual.project(tokens[:, 0]).float())
            found.patches.append(visual.project(tokens[:, 1:]).float())
            found.reference.append(visual.project(tokens[:, 1:], projection=False).float())
            found.grids.append(visual.grid(pixels))
        return found

    def _resized(self, images: Tensor, factor: float) -> Tensor:
        height, width = (
            max(1, round(side * factor / self.patch_size)) * self.patch_size
            for side in images.shape[-2:]
        )
        if (height, width) == tuple(images.shape[-2:]):
            return images
        resized = F.interpolate(
            images.float(), size=(height, width), mode="bicubic", antialias=True
        )
        return resized.to(images.dtype)

    def references(self, encoded: Features) -> list[Tensor]:
        """Patch features per input size."""
        return encoded.reference

    def judge(self, encoded: Features, own_group: Tensor | None) -> Prediction:
        """Score what ``encode`` gave.

        Raises:
            RuntimeError: ``describe`` was not called.
        """
        self._need_words()
        tau, size = self.config.temperature, encoded.size
        kinds, finest = [], max(encoded.grids)
        maps, scores = [], []
        for z, patches, grid in zip(encoded.image, encoded.patches, encoded.grids, strict=True):
            scores.append(anomaly_probability(z, self.texts, tau))  # (B,)
            s = to_grid(anomaly_probability(patches, self.texts, tau), grid)  # (B, g, g)
            maps.append(upsample(s, finest))
            if len(self.kind_texts):
                share = text_probabilities(patches, self.kind_texts, tau)  # (B, N, T)
                kinds.append(upsample(share.transpose(1, 2).unflatten(2, grid), finest))
        M = torch.stack(maps).mean(0)
        if self.shots:
            w, D = self.config.reference_weight, self._distance(encoded, own_group, finest)
            M = (1 - w) * M + w * D
        M = gaussian_smooth(M, self.config.smoothing)
        full = upsample(M, size)
        highest = full.amax(dim=(1, 2))
        words = torch.stack(scores).mean(0)
        score = {"text": words, "map": highest, "mean": (words + highest) / 2}
        type_map = torch.stack(kinds).mean(0) if kinds else None
        return Prediction(
            score=score[self.config.image_score],
            map=full,
            type_score=None if type_map is None else weighted_mean(type_map, M),
            type_map=None if type_map is None else upsample(type_map, size),
        )

    def _distance(
        self, features: Features, own_group: Tensor | None, finest: tuple[int, int]
    ) -> Tensor:
        """Mean over input sizes of the distance to the nearest reference patch, ``(B, g, g)``."""
        maps = []
        for bank, patches, grid in zip(self.banks, features.reference, features.grids, strict=True):
            distance = nearest(bank, patches, own_group)
            near = (distance / self.config.reference_scale).clamp(max=1.0)
            maps.append(upsample(to_grid(near, grid), finest))
        return torch.stack(maps).mean(0)

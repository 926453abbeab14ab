"""WinCLIP and WinCLIP+ (Jeong et al., CVPR 2023, arXiv 2303.14814).

Zero-shot: the whole picture and every small window are compared with "normal" and "anomalous"
texts; overlapping windows are joined by harmonic means. Few-shot (WinCLIP+): distances to the
features of k normal references at patch and window scale are added. Nothing is trained.

Symbols: g the patch grid, k the side of a window in patches, n_k the number of windows, W the
tower's width, D the joint dimension, T the number of defect kinds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from zerodefect.backbones.clip_weights import Backbone
from zerodefect.detector.patch_memory import RememberingDetector, nearest
from zerodefect.detector.registry import Figure, MethodInfo, register
from zerodefect.detector.word_ensembles import PromptedDetector, weighted_mean
from zerodefect.layers.memory import MemoryBank
from zerodefect.layers.similarity import (
    anomaly_probability,
    harmonic_mean,
    text_probabilities,
    to_grid,
    upsample,
)
from zerodefect.layers.windows import harmonic_windows, spread, window_patches
from zerodefect.prompts.ensemble import ANOMALOUS_STATES, NORMAL_STATES, WINCLIP_TEMPLATES
from zerodefect.types import Prediction

_PAPER = "arXiv 2303.14814, abstract"


@dataclass(frozen=True)
class WinCLIPConfig:
    """Hyper-parameters; the defaults are the paper's.

    Attributes:
        temperature: of the softmax over normal and anomalous.
        scales: window sides in patches.
        normal_states, anomalous_states, templates: the compositional prompt ensemble.
        image_score: zero-shot image score: ``text`` is the whole picture's text probability (the
            paper); ``map`` the highest value of the map, which sees small defects; ``mean`` the
            mean of both.
        patch_norm: few-shot patch features after ``ln_post`` (the reference implementation) or
            before it (a second implementation of the field).
    """

    temperature: float = 0.07
    scales: tuple[int, ...] = (2, 3)
    normal_states: tuple[str, ...] = NORMAL_STATES
    anomalous_states: tuple[str, ...] = ANOMALOUS_STATES
    templates: tuple[str, ...] = WINCLIP_TEMPLATES
    image_score: Literal["text", "map", "mean"] = "text"
    patch_norm: bool = True

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"temperature must be positive, got {self.temperature}")
        if not self.scales or min(self.scales) < 1:
            raise ValueError(f"scales are window sides of at least 1 patch, got {self.scales}")
        if self.image_score not in ("text", "map", "mean"):
            raise ValueError(f"image_score is text, map or mean, not {self.image_score!r}")


@dataclass(frozen=True)
class Features:
    """Image-side features of one batch.

    Attributes:
        image: ``(B, D)``.
        windows: per scale ``(B, n_k, D)``.
        patches: ``(B, g*g, W)``, not projected.
        grid: rows and columns of patches.
        size: height and width of the network input, which the map is brought to.
    """

    image: Tensor
    windows: list[Tensor]
    patches: Tensor
    grid: tuple[int, int]
    size: tuple[int, int]


@register(
    MethodInfo(
        name="winclip",
        title="WinCLIP / WinCLIP+",
        school="prompt",
        knows_from=("words", "references"),
        paper="Jeong et al., CVPR 2023, arXiv 2303.14814",
        code_licence="none released by the authors; written from the paper",
        parity="anomalib's implementation (0-shot and few-shot) and a second one's patch features",
        figures=(
            Figure("MVTec AD", "0-shot", "image AUROC", 91.8, _PAPER),
            Figure("MVTec AD", "0-shot", "pixel AUROC", 85.1, _PAPER),
            Figure("MVTec AD", "1-shot", "image AUROC", 93.1, _PAPER),
            Figure("MVTec AD", "1-shot", "pixel AUROC", 95.2, _PAPER),
            Figure("VisA", "0-shot", "image AUROC", 78.1, _PAPER),
            Figure("VisA", "0-shot", "pixel AUROC", 79.6, _PAPER),
            Figure("VisA", "1-shot", "image AUROC", 83.8, _PAPER),
            Figure("VisA", "1-shot", "pixel AUROC", 96.4, _PAPER),
        ),
    )
)
class WinCLIP(PromptedDetector, RememberingDetector):
    """Window-based CLIP.

    Zero-shot score and map are probabilities in (0, 1) with 0.5 as the undecided point; with
    references both are the mean of that and of a distance in [0, 1].
    """

    Config = WinCLIPConfig
    config: WinCLIPConfig

    def __init__(self, backbone: Backbone, config: WinCLIPConfig | None = None) -> None:
        super().__init__(backbone, config or WinCLIPConfig())
        self.patch_memory = MemoryBank()
        self.window_memory = nn.ModuleList(MemoryBank() for _ in self.config.scales)

    # --- scale --------------------------------------------------------------------------------

    @property
    def neutral_score(self) -> float | None:
        """0.5 zero-shot: both texts equally likely. With references there is no such point."""
        return None if self.shots else 0.5

    @property
    def map_range(self) -> tuple[float, float]:
        """Probabilities and half cosine distances: [0, 1]."""
        return 0.0, 1.0

    # --- forward pass, in the order of the paper ----------------------------------------------

    def encode(self, images: Tensor) -> Features:
        """Features of the pictures, whatever words and references there are."""
        return self.features(images)

    def references(self, encoded: Features) -> list[Tensor]:
        """Patch features, then window features per scale."""
        return [encoded.patches, *encoded.windows]

    def judge(self, encoded: Features, own_group: Tensor | None) -> Prediction:
        """Score what ``encode`` gave.

        Raises:
            RuntimeError: ``describe`` was not called.
        """
        self._need_words()
        tau, grid, size = self.config.temperature, encoded.grid, encoded.size
        s_0 = anomaly_probability(encoded.image, self.texts, tau)  # (B,)
        s_k = [anomaly_probability(z, self.texts, tau) for z in encoded.windows]  # (B, n_k)
        M_k = [
            harmonic_windows(s, grid, k) for s, k in zip(s_k, self.config.scales, strict=True)
        ]  # (B, g, g)
        M = harmonic_mean([s_0[:, None, None].expand_as(M_k[0]), *M_k])
        score = self._image_score(s_0, upsample(M, size))
        if self.shots:
            D = self.reference_distance(encoded, own_group)
            score = (score + D.amax(dim=(1, 2))) / 2
            M = (M + D) / 2
        type_map = self._type_map(encoded, s_k) if len(self.kind_texts) else None
        return Prediction(
            score=score,
            map=upsample(M, size),
            type_score=None if type_map is None else weighted_mean(type_map, M),
            type_map=None if type_map is None else upsample(type_map, size),
        )

    @torch.no_grad()
    def features(self, images: Tensor) -> Features:
        """Run the image tower over the pictures and over all their windows."""
        visual = self.clip.visual
        images = images.to(visual.proj.dtype)
        grid = visual.grid(images)
        embedded = visual.embed(images)  # (B, 1+g*g, W), before ln_pre
        tokens = visual.encode(embedded).tokens
        return Features(
            image=visual.project(tokens[:, 0]).float(),
            windows=[self._windows(embedded, grid, k) for k in self.config.scales],
            patches=visual.project(
                tokens[:, 1:], norm=self.config.patch_norm, projection=False
            ).float(),
            grid=grid,
            size=(images.shape[-2], images.shape[-1]),
        )

    def _windows(self, embedded: Tensor, grid: tuple[int, int], k: int) -> Tensor:
        """Embeddings of all k x k windows: only {class token + their patches} enter the tower."""
        visual = self.clip.visual
        rows = window_patches(grid, k).to(embedded.device) + 1  # row 0 is the class token
        rows = torch.cat([rows.new_zeros(len(rows), 1), rows], dim=1)  # (n_k, 1+k*k)
        parts = []
        at_once = _TOKENS_CPU if embedded.device.type == "cpu" else _TOKENS_GPU
        for some in rows.split(max(1, at_once // (rows.shape[1] * len(embedded)))):
            windows = embedded[:, some].flatten(0, 1)  # (B*n, 1+k*k, W)
            z = visual.encode(windows, class_only=True).tokens[:, 0]
            parts.append(visual.project(z).unflatten(0, (len(embedded), -1)))
        return torch.cat(parts, dim=1).float()  # (B, n_k, D)

    def reference_distance(self, features: Features, own_group: Tensor | None = None) -> Tensor:
        """Mean over patch and window scales of the distance to the references, ``(B, g, g)``."""
        patch_bank, *window_banks = self.banks
        grid = features.grid
        maps = [to_grid(nearest(patch_bank, features.patches, own_group), grid)]
        for bank, windows, k in zip(
            window_banks, features.windows, self.config.scales, strict=True
        ):
            maps.append(harmonic_windows(nearest(bank, windows, own_group), grid, k))
        return torch.stack(maps).mean(0)

    # --- defect kinds: ours, the paper knows one anomalous class ---------------------------------

    def _type_map(self, features: Features, s_k: list[Tensor]) -> Tensor:
        """Distribution over kinds per patch, ``(B, T, g, g)``.

        Each window votes with its softmax over the kinds' texts; its vote weighs as much as the
        window is anomalous.
        """
        total, weight = torch.zeros(()), torch.zeros(())
        for z, s, k in zip(features.windows, s_k, self.config.scales, strict=True):
            share = text_probabilities(z, self.kind_texts, self.config.temperature)
            total = total + spread((share * s[..., None]).transpose(1, 2), features.grid, k)
            weight = weight + spread(s, features.grid, k)[:, None]
        return total / weight

    def _image_score(self, s_0: Tensor, map: Tensor) -> Tensor:
        highest = map.amax(dim=(1, 2))
        choices = {"text": s_0, "map": highest, "mean": (s_0 + highest) / 2}
        return choices[self.config.image_score]


# Tokens that enter the tower at once: bounds memory, and is large enough to be fast.
_TOKENS_CPU, _TOKENS_GPU = 1024, 16384

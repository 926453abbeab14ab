"""WinCLIP and WinCLIP+ (Jeong et al., CVPR 2023, arXiv 2303.14814).

Zero-shot: the whole picture and every small window are compared with "normal" and "anomalous"
texts; overlapping windows are joined by harmonic means. Few-shot (WinCLIP+): distances to the
features of k normal references at patch and window scale are added. Nothing is trained.

Symbols: g the patch grid, k the side of a window in patches, n_k the number of windows, W the
tower's width, D the joint dimension, T the number of defect kinds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from zerodefect.backbones.clip_weights import CLIPBackbone
from zerodefect.detector import clip_detector
from zerodefect.detector.clip_detector import WordDetector
from zerodefect.detector.configs import Count, Positive, hyper_parameters
from zerodefect.detector.facts import Figure, MethodInfo
from zerodefect.detector.knowledge import Knowledge
from zerodefect.detector.registry import register
from zerodefect.layers.grid import Grid
from zerodefect.layers.similarity import anomaly_probability, harmonic_mean, text_probabilities
from zerodefect.layers.windows import (
    harmonic_windows,
    spread,
    window_patches,
    windows_at_once,
)
from zerodefect.prompts.ensemble import ANOMALOUS_STATES, NORMAL_STATES, WINCLIP_TEMPLATES
from zerodefect.types import Prediction

_PAPER = "arXiv 2303.14814, abstract"


@hyper_parameters
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

    temperature: Positive = 0.07
    scales: Annotated[tuple[Count, ...], Field(min_length=1)] = (2, 3)
    normal_states: tuple[str, ...] = NORMAL_STATES
    anomalous_states: tuple[str, ...] = ANOMALOUS_STATES
    templates: tuple[str, ...] = WINCLIP_TEMPLATES
    image_score: Literal["text", "map", "mean"] = "text"
    patch_norm: bool = True


@dataclass(frozen=True)
class Features(clip_detector.Features):
    """Image side of one batch; ``patches`` is one ``(B, g*g, W)``, not projected."""

    windows: tuple[Tensor, ...]  # per scale (B, n_k, D)


@register(
    MethodInfo(
        name="winclip",
        title="WinCLIP / WinCLIP+",
        school="prompt",
        knows_from=("words", "references"),
        optional=("references",),
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
class WinCLIP(WordDetector):
    """Window-based CLIP.

    Zero-shot score and map are probabilities in (0, 1) with 0.5 as the undecided point; with
    references both are the mean of that and of a distance in [0, 1].
    """

    Config = WinCLIPConfig
    tells_kinds = True
    monotone_memory = True  # the distance to the nearest of more references never grows
    config: WinCLIPConfig

    def __init__(self, clip: CLIPBackbone, config: WinCLIPConfig | None = None) -> None:
        super().__init__(clip, config or WinCLIPConfig())

    # --- in the order of the paper ------------------------------------------------------------

    def encode(self, images: Tensor) -> Features:
        """Run the image tower over the pictures and over all their windows."""
        visual = self.clip.visual
        pixels = images.to(visual.proj.dtype)
        grid = self.grid(pixels)
        embedded = visual.embed(pixels)  # (B, 1+g*g, W), before ln_pre
        tokens = visual.encode(embedded).tokens
        patches = visual.project(tokens[:, 1:], norm=self.config.patch_norm, projection=False)
        return Features(
            grid=grid,
            image=visual.project(tokens[:, 0]).float(),
            patches=(patches.float(),),
            windows=tuple(self._windows(embedded, grid, k) for k in self.config.scales),
        )

    def _windows(self, embedded: Tensor, grid: Grid, k: int) -> Tensor:
        """Embeddings of all k x k windows: only {class token + their patches} enter the tower."""
        visual = self.clip.visual
        rows = window_patches(grid.shape, k).to(embedded.device) + 1  # row 0 is the class token
        rows = torch.cat([rows.new_zeros(len(rows), 1), rows], dim=1)  # (n_k, 1+k*k)
        parts = []
        for some in rows.split(windows_at_once(rows.shape[1] * len(embedded), embedded.device)):
            windows = embedded[:, some].flatten(0, 1)  # (B*n, 1+k*k, W)
            z = visual.encode(windows, class_only=True).tokens[:, 0]
            parts.append(visual.project(z).unflatten(0, (len(embedded), -1)))
        return torch.cat(parts, dim=1).float()  # (B, n_k, D)

    def references(self, encoded: Features) -> Mapping[str, Tensor]:
        """Patch features, and window features per scale."""
        windows = zip(self.config.scales, encoded.windows, strict=True)
        return {"patches": encoded.patches[0], **{f"windows{k}": z for k, z in windows}}

    def predict(
        self, encoded: Features, knowledge: Knowledge, left_out: Tensor | None = None
    ) -> Prediction:
        """Words, and the distance to references where there are any."""
        tau, grid, texts = self.config.temperature, encoded.grid, knowledge["texts"]
        s_0 = anomaly_probability(encoded.image, texts, tau)  # (B,)
        s_k = [anomaly_probability(z, texts, tau) for z in encoded.windows]  # (B, n_k)
        M_k = [
            harmonic_windows(s, grid.shape, k) for s, k in zip(s_k, self.config.scales, strict=True)
        ]  # (B, g, g)
        M = harmonic_mean([s_0[:, None, None].expand_as(M_k[0]), *M_k])
        score = self._image_score(s_0, grid.upsample(M))
        if knowledge.shots:
            D = self.reference_distance(encoded, knowledge, left_out)
            score = (score + D.amax(dim=(1, 2))) / 2
            M = (M + D) / 2
        return Prediction(score, grid.upsample(M), self._type_map(encoded, s_k, knowledge))

    def reference_distance(
        self, encoded: Features, knowledge: Knowledge, left_out: Tensor | None = None
    ) -> Tensor:
        """Mean over patch and window scales of the distance to the references, ``(B, g, g)``."""

        def nearest(name: str, features: Tensor) -> Tensor:
            return self.memory.distance(knowledge, name, features, left_out)

        maps = [encoded.grid.fold(nearest("patches", encoded.patches[0]))]
        for k, windows in zip(self.config.scales, encoded.windows, strict=True):
            maps.append(harmonic_windows(nearest(f"windows{k}", windows), encoded.grid.shape, k))
        return torch.stack(maps).mean(0)

    def _image_score(self, s_0: Tensor, map: Tensor) -> Tensor:
        highest = map.amax(dim=(1, 2))
        choices = {"text": s_0, "map": highest, "mean": (s_0 + highest) / 2}
        return choices[self.config.image_score]

    # --- defect kinds: ours, the paper knows one anomalous class ---------------------------------

    def _type_map(
        self, encoded: Features, s_k: list[Tensor], knowledge: Knowledge
    ) -> Tensor | None:
        """Distribution over kinds per pixel, ``(B, T, H, W)``.

        Each window votes with its softmax over the kinds' texts; its vote weighs as much as the
        window is anomalous.
        """
        kinds, shape = knowledge["kind_texts"], encoded.grid.shape
        if not len(kinds):
            return None
        total, weight = torch.zeros(()), torch.zeros(())
        for z, s, k in zip(encoded.windows, s_k, self.config.scales, strict=True):
            share = text_probabilities(z, kinds, self.config.temperature)
            total = total + spread((share * s[..., None]).transpose(1, 2), shape, k)
            weight = weight + spread(s, shape, k)[:, None]
        return encoded.grid.upsample(total / weight)

"""MissingClip (Xu et al., WASA 2025), a completion of ours.

Known is one sentence: colours and points of a part go together, and where one of them is missing
its features are reconstructed by a dual attention and hybrid semantic prompts. The rest is ours.
Both go through the same frozen CLIP: the picture as it is, the points as a picture of depth and
slope. What is learned is learned from damage drawn on good parts, in both at once.

Symbols: m the missing and a the available modality, F_m, F_a their patches in the joint space, N of
them, D its dimension; S the semantic prompts: learned tokens of m, the class feature of a, and the
texts t_n, t_a; Y, Z what semantic and spatial attention give; Q_m the learned query with the places
of the patches; F_m^ the reconstruction.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as nnF
from torch import Tensor, nn

from zerodefect.backbones.clip_weights import CLIPBackbone
from zerodefect.detector.clip_detector import CLIPDetector, WordDetector
from zerodefect.detector.configs import (
    Count,
    NotNegative,
    Positive,
    Share,
    Taps,
    hyper_parameters,
)
from zerodefect.detector.contract import Input
from zerodefect.detector.facts import MethodInfo
from zerodefect.detector.knowledge import Knowledge
from zerodefect.detector.recipes import Recipe
from zerodefect.detector.registry import register
from zerodefect.images import normalised
from zerodefect.images.point_input import PointsPreprocess, relief
from zerodefect.layers.adapters import Bottleneck, linear
from zerodefect.layers.grid import Grid
from zerodefect.layers.losses import map_terms
from zerodefect.layers.similarity import highest_mean, inner_products
from zerodefect.layers.smoothing import gaussian_smooth
from zerodefect.procedural.draws import Draws
from zerodefect.procedural.on_clouds import damage_parts
from zerodefect.procedural.on_pictures import drawn_from
from zerodefect.prompts.ensemble import ANOMALOUS_STATES, NORMAL_STATES, WINCLIP_TEMPLATES
from zerodefect.types import Prediction, TrainingBatch

COLOURS, POINTS = "image", "xyz"
_OTHER = {COLOURS: POINTS, POINTS: COLOURS}


@hyper_parameters
class MissingClipConfig:
    """Hyper-parameters; all are ours.

    Attributes:
        residual: whether patches keep most of what CLIP makes of them; None for weights whose
            patches match texts.
        taps: blocks (from 1) whose patches are read; None for the last if they are ``residual``,
            else for quarters of the tower's depth.
        tokens: learned semantic prompts of each modality.
        temperature: of the softmax over normal and anomalous.
        adapted: share of an adapter's output in what is residual.
        reconstructed: weight of a reconstruction beside what was seen, which has 1.
        missing: share of the training pictures that lose one modality.
        damaged: share of them that get damage drawn on.
        top: share of the map's highest values whose mean is half of the image score.
        sigma: standard deviation of the Gaussian over the map, in pixels of the network's input.
        normal_states, anomalous_states, templates: the sentences.
        seed: of the initial values.
    """

    residual: bool | None = None
    taps: Taps | None = None
    tokens: Count = 8
    temperature: Positive = 0.07
    adapted: Share = 0.1
    reconstructed: Share = 0.5
    missing: Share = 0.5
    damaged: Share = 0.5
    top: Share = 0.001
    sigma: NotNegative = 4.0
    normal_states: tuple[str, ...] = NORMAL_STATES
    anomalous_states: tuple[str, ...] = ANOMALOUS_STATES
    templates: tuple[str, ...] = WINCLIP_TEMPLATES
    seed: int = 111


@dataclass(frozen=True)
class Seen:
    """What the tower makes of a batch, by modality; one that is absent is not there.

    Attributes:
        grid: of the patches.
        classes: ``(B, D)`` projected class tokens.
        patches: per tap ``(B, N, W)``.
    """

    grid: Grid
    classes: Mapping[str, Tensor]
    patches: Mapping[str, tuple[Tensor, ...]]


class DualAttention(nn.Module):
    """F_m^ of a modality from the other one's patches.

    Args:
        width: D.
        tokens: how many semantic prompts are learned.
        draws: source of the initial values.
    """

    def __init__(self, width: int, tokens: int, draws: torch.Generator) -> None:
        super().__init__()
        self.prompts = nn.Parameter(torch.randn(tokens, width, generator=draws) * width**-0.5)
        self.place = nn.Parameter(torch.randn(width, generator=draws) * width**-0.5)
        names = ("query", "key", "value", "spatial_key", "spatial_value")
        self.maps = nn.ModuleDict({n: linear(width, width, draws, bias=False) for n in names})
        self.norm = nn.LayerNorm(width)

    def forward(self, F_a: Tensor, c_a: Tensor, texts: Tensor, grid: Grid) -> Tensor:
        """Reconstruct.

        Args:
            F_a: ``(B, N, D)`` patches of unit length.
            c_a: ``(B, D)`` class feature of unit length.
            texts: ``(2, D)`` or ``(B, 2, D)``.
            grid: of the patches.

        Returns:
            ``(B, N, D)``.
        """
        B, D = c_a.shape
        own, told = self.prompts.expand(B, -1, -1), texts.expand(B, 2, D)
        S = torch.cat([own, c_a[:, None], told], dim=1)
        Y = _attended(self.maps["query"](F_a), self.maps["key"](S), self.maps["value"](S))
        Q_m = (self.place + sine_places(grid, D).to(F_a)).expand(B, -1, -1)
        Z = _attended(Q_m, self.maps["spatial_key"](F_a), self.maps["spatial_value"](F_a))
        restored: Tensor = self.norm(F_a + Y + Z)
        return restored


def _attended(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    weights = (queries @ keys.mT / math.sqrt(keys.shape[-1])).softmax(dim=-1)
    return weights @ values


def sine_places(grid: Grid, width: int) -> Tensor:
    """Sines and cosines of row and column at falling rates, ``(N, width)`` in [-1, 1]."""
    quarter = -(-width // 4)
    rates = 10_000 ** (-torch.arange(quarter) / quarter)
    row, column = (torch.arange(n)[:, None] * rates for n in grid.shape)
    row = row[:, None].expand(-1, grid.columns, -1).flatten(0, 1)
    column = column[None].expand(grid.rows, -1, -1).flatten(0, 1)
    return torch.cat([row.sin(), row.cos(), column.sin(), column.cos()], dim=1)[:, :width]


@register(
    MethodInfo(
        name="missingclip",
        title="MissingClip (completion)",
        school="other",
        knows_from=("good", "words"),
        paper="Xu et al., WASA 2025 (one sentence about it is known)",
        code_licence="none published; ours",
        parity="none: a completion from a sentence; hand-computed parts",
        completion=True,
        experimental="of the paper is known that colours and points go together and that dual "
        "attention with hybrid semantic prompts reconstructs what is missing; how, and the damage "
        "that it is trained with, is ours; on the embedded model it reaches an image AUROC of 62 "
        "on MVTec 3D-AD's cable_gland, where pyramid+bt_points reaches 81",
    )
)
class MissingClip(WordDetector):
    """Colours and points through one CLIP; either may be absent. All are probabilities."""

    Config = MissingClipConfig
    recipe = Recipe(epochs=10, batch_size=8, learning_rate=5e-4, optimizer="adamw")
    prepared = CLIPDetector.prepared
    may_lack = True
    config: MissingClipConfig

    def __init__(self, clip: CLIPBackbone, config: MissingClipConfig | None = None) -> None:
        config = config or MissingClipConfig()
        residual = clip.patches_match_texts if config.residual is None else config.residual
        super().__init__(clip, replace(config, residual=residual))
        own = self.inputs[COLOURS]
        self.inputs[POINTS] = Input(PointsPreprocess(own.preprocess.size), own.multiple)
        self.taps = self.chosen_taps(last=residual)
        draws = torch.Generator().manual_seed(self.config.seed)
        W, D = self.clip.config.vision.width, self.clip.config.embed_dim
        self.projections = nn.ModuleDict(
            {m: nn.ModuleList(linear(W, D, draws) for _ in self.taps) for m in _OTHER}
        )
        self.missing = nn.ModuleDict(
            {m: DualAttention(D, self.config.tokens, draws) for m in _OTHER}
        )
        self.class_adapter = Bottleneck(D, D // 4, D, draws)

    # --- in the order of the completion -------------------------------------------------------

    def encode(self, inputs: Any) -> Seen:
        """Run the tower on what there is: ``image (B, 3, H, W)`` and ``xyz (B, 3, h, w)``."""
        if COLOURS in inputs:
            size = inputs[COLOURS].shape[-2:]
        else:
            size = torch.Size(self.inputs[COLOURS].preprocess.size)
        shown = {m: one for m, one in inputs.items() if m == COLOURS}
        if POINTS in inputs:
            preprocess = self.inputs[COLOURS].preprocess
            view = nnF.interpolate(relief(inputs[POINTS]), size, mode="bilinear")
            shown[POINTS] = normalised(view, preprocess.mean, preprocess.std)
        states = {m: self.run(one, taps=self.taps) for m, one in shown.items()}
        return Seen(
            self.grid(next(iter(shown.values()))),
            {m: self.clip.visual.project(s.tokens[:, 0]).float() for m, s in states.items()},
            {m: tuple(s.taps[tap][:, 1:].float() for tap in self.taps) for m, s in states.items()},
        )

    def projected(self, m: str, tap: int, F: Tensor) -> Tensor:
        """Patches ``(B, N, W)`` of a modality in the joint space, of unit length."""
        layers = self.projections[m]
        assert isinstance(layers, nn.ModuleList)
        learned = nnF.normalize(layers[tap](F).float(), dim=-1)
        if not self.config.residual:
            return learned
        visual, share = self.clip.visual, self.config.adapted
        own = nnF.normalize(visual.project(F.to(visual.proj.dtype)).float(), dim=-1)
        return nnF.normalize((1 - share) * own + share * learned, dim=-1)

    def restored(self, m: str, F_a: Tensor, seen: Seen, texts: Tensor) -> Tensor:
        """F_m^ of unit length from the other modality's patches."""
        c_a = nnF.normalize(seen.classes[_OTHER[m]], dim=-1)
        T = nnF.normalize(texts, dim=-1)
        return nnF.normalize(self.missing[m](F_a, c_a, T, seen.grid).float(), dim=-1)

    def fused(self, F: Mapping[str, Tensor], weights: Mapping[str, Tensor | float]) -> Tensor:
        """Weighted sum ``(B, N, D)`` of unit vectors; the cosine needs its direction alone."""
        return torch.stack([weights[m] * each for m, each in F.items()]).sum(0)

    def class_logits(self, c: Tensor, texts: Tensor) -> Tensor:
        """``(B, 2)`` of class features ``(B, D)``, mostly as they were."""
        x, share = nnF.normalize(c, dim=-1), self.config.adapted
        mixed = (1 - share) * x + share * nnF.normalize(self.class_adapter(x).float(), dim=-1)
        unit = nnF.normalize(mixed, dim=-1)[:, None]
        T = nnF.normalize(texts, dim=-1)
        return inner_products(unit, T)[:, 0] / self.config.temperature

    def patch_logits(self, F: Tensor, texts: Tensor) -> Tensor:
        """``(B, N, 2)`` of fused patches."""
        unit, T = nnF.normalize(F, dim=-1), nnF.normalize(texts, dim=-1)
        return inner_products(unit, T) / self.config.temperature

    def judge(self, encoded: Seen, knowledge: Knowledge) -> Prediction:
        """Half the score is the class features', half the map's."""
        texts, there = knowledge["texts"], encoded.patches
        p = []
        for tap in range(len(self.taps)):
            F = {m: self.projected(m, tap, each[tap]) for m, each in there.items()}
            weights: dict[str, Tensor | float] = dict.fromkeys(F, 1.0)
            for m in _OTHER.keys() - F.keys():
                F[m] = self.restored(m, F[_OTHER[m]], encoded, texts)
                weights[m] = self.config.reconstructed
            p.append(self.patch_logits(self.fused(F, weights), texts).softmax(dim=-1)[..., 1])
        map = encoded.grid.map(torch.stack(p).mean(dim=0), align_corners=True)
        M = gaussian_smooth(map, self.config.sigma).clamp(0, 1)
        c = torch.stack([nnF.normalize(each, dim=-1) for each in encoded.classes.values()]).mean(0)
        s = self.class_logits(c, texts).softmax(dim=-1)[:, 1]
        return Prediction((s + highest_mean(M, self.config.top)) / 2, M)

    # --- training -------------------------------------------------------------------------------

    def training_loss(self, batch: TrainingBatch) -> dict[str, Tensor]:
        """Focal and two Dice losses of the taps' maps, cross entropy, and 1 - cos(F_m^, F_m).

        The pictures are good ones, whatever their masks say.
        """
        draws = drawn_from(batch.generator, len(batch.labels), batch.masks.device)
        inputs, masks = self.damaged(batch.images, draws)
        with torch.no_grad():
            seen = self.encode(inputs)
        texts = self.texts_of(batch.objects)  # (B, 2, D)
        lot = draws.uniform("missing")
        lost = {
            COLOURS: lot < self.config.missing / 2,
            POINTS: (lot >= self.config.missing / 2) & (lot < self.config.missing),
        }
        maps, apart = [], torch.zeros((), device=masks.device)
        for tap in range(len(self.taps)):
            F = {m: self.projected(m, tap, each[tap]) for m, each in seen.patches.items()}
            back = {m: self.restored(m, F[_OTHER[m]], seen, texts) for m in F}
            for m, each in F.items():
                apart = apart + (1 - (back[m] * each.detach()).sum(-1)).mean()
            used = {m: torch.where(lost[m][:, None, None], back[m], F[m]) for m in F}
            weights = {
                m: torch.where(lost[m], self.config.reconstructed, 1.0)[:, None, None] for m in F
            }
            p = self.patch_logits(self.fused(used, weights), texts).softmax(dim=-1)
            maps.append(seen.grid.map(p.mT, align_corners=True))
        unit = {m: nnF.normalize(c, dim=-1) for m, c in seen.classes.items()}
        c = torch.stack([torch.where(lost[m][:, None], 0.0, one) for m, one in unit.items()]).sum(0)
        labels = masks.flatten(1).any(1).long()
        return {
            **map_terms(maps, masks),
            "image": nnF.cross_entropy(self.class_logits(c, texts), labels),
            "missing": apart / len(self.taps),
        }

    def damaged(
        self, images: Mapping[str, Tensor], draws: Draws
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Both inputs with damage on some of the parts, and masks ``(B, H, W)`` of 0 and 1."""
        preprocess = self.inputs[COLOURS].preprocess
        mean, std = (
            images[COLOURS].new_tensor(values).view(3, 1, 1)
            for values in (preprocess.mean, preprocess.std)
        )
        picture, size = images[COLOURS].clone(), images[COLOURS].shape[-2:]
        points = nnF.interpolate(images[POINTS], size, mode="bilinear")
        masks = torch.zeros_like(picture[:, 0])
        rows = draws.chance("damaged", self.config.damaged).nonzero()[:, 0]
        if len(rows):
            plain = (picture[rows] * std + mean).clamp(0, 1)
            made = damage_parts(plain, points[rows], draws.rows(rows))
            picture[rows], points[rows] = (made.images - mean) / std, made.points
            masks[rows] = made.masks.to(masks.dtype)
        return {COLOURS: picture, POINTS: points}, masks

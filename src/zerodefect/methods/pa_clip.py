"""PA-CLIP (arXiv 2503.01292): a batch's own memory, with what only looks like a defect discounted.

The authors' code is not public: the paper's parts (aggregation over scales, a bank of normal
patterns and one of pseudo-anomalies, a decision that knows both) are completed here.

Symbols: N pictures of L patches, a the evidence of the words, F features of a layer at a scale, d_n
and d_p distances to the normal and to the pseudo-anomaly bank, m the map.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as nnF
from pydantic import Field
from torch import Tensor

from zerodefect.backbones.clip_weights import CLIPBackbone
from zerodefect.backbones.transformer import SecondStream, same_depth
from zerodefect.detector import clip_detector
from zerodefect.detector.clip_detector import Activation, WordDetector
from zerodefect.detector.composed import SetLevel
from zerodefect.detector.configs import (
    Count,
    NotNegative,
    Odd,
    Positive,
    Share,
    Taps,
    hyper_parameters,
)
from zerodefect.detector.contract import PatchFeatures
from zerodefect.detector.facts import MethodInfo
from zerodefect.detector.knowledge import Knowledge
from zerodefect.detector.registry import register
from zerodefect.layers.consistency import consistency_filter
from zerodefect.layers.coreset import farthest_points
from zerodefect.layers.mutual import Remade, mutual_distances
from zerodefect.layers.scaling import MinMax
from zerodefect.layers.similarity import anomaly_probability, highest_mean
from zerodefect.layers.smoothing import gaussian_smooth, patch_mean
from zerodefect.prompts.ensemble import ANOMALOUS_STATES, NORMAL_STATES, WINCLIP_TEMPLATES
from zerodefect.types import Prediction

_EVIDENCE = 0.01  # share of a picture's patches whose mean evidence ranks it
_PSEUDO = 0.05  # share of the trusted patches that look most anomalous
_BANK, _LEAST = 0.1, 256  # share of a bank that is kept, and entries that are kept in any case


@hyper_parameters
class PAClipConfig:
    """Hyper-parameters; all but the taps and scales are ours.

    Attributes:
        taps: blocks (from 1) whose patches are compared; None for quarters of the tower's depth.
        scales: sides r of the neighbourhoods that are averaged, in patches.
        attention: of the stream whose patches are compared with words; None for ``vv``, or
            ``plain`` where the weights' own patches match texts.
        temperature: of the softmax over normal and anomalous.
        discount: by how much a patch that is like a pseudo-anomaly is discounted at most.
        words: share of the words' evidence in the map.
        bank: entries of a bank at most.
        sigma: standard deviation of the Gaussian over the map, in pixels of the network's input.
        top: share of the map's highest values whose mean is the image score.
        alike: pictures over which the step ``alike`` averages image scores, besides the own one.
        consistency: a defect that many of the pictures share does not enter the banks.
        activation: see ``clip_detector.Activation``.
        normal_states, anomalous_states, templates: the sentences.
    """

    taps: Taps | None = None
    scales: Annotated[tuple[Odd, ...], Field(min_length=1)] = (1, 3, 5)
    attention: Literal["vv", "plain"] | None = None
    temperature: Positive = 0.07
    discount: Share = 0.5
    words: Share = 0.3
    bank: Count = 20_000
    sigma: NotNegative = 4.0
    top: Share = 0.005
    alike: Count = 3
    consistency: bool = True
    activation: Activation = "gelu"
    normal_states: tuple[str, ...] = NORMAL_STATES
    anomalous_states: tuple[str, ...] = ANOMALOUS_STATES
    templates: tuple[str, ...] = WINCLIP_TEMPLATES


@dataclass(frozen=True)
class Features(clip_detector.Features):
    """Image side of one batch; ``patches`` are the raw tokens of the taps."""

    joint: Tensor  # z (B, L, D), patches in the joint space


@register(
    MethodInfo(
        name="pa_clip",
        title="PA-CLIP (completion)",
        school="set",
        knows_from=("words", "set"),
        paper="arXiv 2503.01292",
        code_licence="none published; ours",
        parity="none: a completion from the paper's abstract; hand-computed parts",
        completion=True,
    )
)
class PAClip(WordDetector):
    """Distance to the batch's own normal patches, less where a harmless look-alike is known.

    Score and map lie in [0, 1], between the lowest and the highest distance of the set.
    """

    Config = PAClipConfig
    undecided = None
    prepared: ClassVar[dict] = {"interpolation": "bicubic", "antialias": True, "resize_on": "pil"}
    set_levels = ("alike",)
    config: PAClipConfig

    def __init__(self, clip: CLIPBackbone, config: PAClipConfig | None = None) -> None:
        super().__init__(clip, config or PAClipConfig())
        self.taps = self.chosen_taps()
        rule = self.config.attention or ("plain" if clip.patches_match_texts else "vv")
        start = same_depth(6, 24, self.clip.config.vision.layers)
        self.stream = None if rule == "plain" else SecondStream("vv", start)

    def map_range(self, knowledge: Knowledge) -> tuple[float, float]:
        """Two shares of values in [0, 1]."""
        return 0.0, 1.0

    def most_in_set(self, memory: int) -> int | None:
        """By the distances that the filter holds; without it, by the normal bank of a layer."""
        height, width = self.inputs["image"].preprocess.size
        side = self.clip.config.vision.patch_size
        patches = (height // side) * (width // side)
        if self.config.consistency:
            return max(2, math.isqrt(memory // (4 * patches)))
        return max(2, memory // (2 * patches * self.clip.config.vision.width))

    def patch_features(self, encoded: Features) -> tuple[PatchFeatures, ...]:
        """Patches in the joint space."""
        return (PatchFeatures(encoded.joint, encoded.grid, joint=True),)

    def set_level(self, name: str, knowledge: Knowledge) -> SetLevel | None:
        """``alike``: image scores averaged over the pictures whose class tokens are nearest."""
        if name not in self.set_levels:
            return super().set_level(name, knowledge)
        return _Alike(self.config.alike)

    # --- in the order of the description --------------------------------------------------------

    def encode(self, images: Tensor) -> Features:
        """Class token, raw tokens of the taps, and patches that are compared with words."""
        visual = self.clip.visual
        states = self.run(images, taps=self.taps, second=self.stream)
        patches = states.tokens if states.second is None else states.second
        return Features(
            grid=self.grid(images),
            image=visual.project(states.tokens[:, 0]).float(),
            patches=tuple(states.taps[tap][:, 1:].float() for tap in self.taps),
            joint=visual.project(patches[:, 1:]).float(),
        )

    def aggregated(self, encoded: Features, tap: int, r: int) -> Tensor:
        """MSFA: F ``(B, L, C)`` of unit length, of tap number ``tap`` and side r."""
        mean = patch_mean(encoded.patches[tap], encoded.grid.shape, r, "absent")
        return nnF.normalize(mean, dim=-1)

    def evidence(self, encoded: Features, knowledge: Knowledge) -> Tensor:
        """a ``(B, L)``: probability of damage by the words."""
        return anomaly_probability(encoded.joint, knowledge["texts"], self.config.temperature)

    def predict(
        self, encoded: Features, knowledge: Knowledge, left_out: Tensor | None = None
    ) -> Prediction:
        """What the words alone say of a picture, without a set."""
        a = self.evidence(encoded, knowledge)
        map = gaussian_smooth(encoded.grid.map(a, align_corners=True), self.config.sigma)
        return Prediction(highest_mean(a, self.config.top), map.clamp(0, 1))

    def score_set(self, encoded: Iterable[Features], knowledge: Knowledge) -> Iterator[Prediction]:
        """Every picture against banks of the set's own patches.

        Raises:
            TooFewError: a single picture.
        """
        a = [row for batch in encoded for row in self.evidence(batch, knowledge)]
        self.check_set(len(a))
        chosen = _chosen(a, self._kept(encoded, len(a)))
        distance = self._distances(encoded, chosen)
        scale = MinMax()
        for d in distance:
            scale.see(d)
        w, start = self.config.words, 0
        for batch in encoded:
            own = slice(start, start + len(batch.image))
            start = own.stop
            scaled = scale.scaled(torch.stack(distance[own]))
            m = (1 - w) * scaled + w * torch.stack(a[own])  # (B, L)
            map = gaussian_smooth(batch.grid.map(m, align_corners=True), self.config.sigma)
            score = highest_mean(m, self.config.top)
            yield Prediction(score, map.clamp(0, 1), embedding=batch.image)

    def _kept(self, encoded: Iterable[Features], count: int) -> list[Tensor] | None:
        """Per picture ``(L,)`` bool: patches that are no repeated defect; None for all."""
        if not self.config.consistency:
            return None
        z = Remade(encoded, lambda batch: self.aggregated(batch, len(self.taps) - 1, 1))
        found = consistency_filter(mutual_distances(z, count=count))
        return [torch.from_numpy(keep) for keep in found.keep] if found.repeated else None

    def _distances(
        self, encoded: Iterable[Features], chosen: Sequence[tuple[Tensor, Tensor]]
    ) -> list[Tensor]:
        """PAAD: d ``(L,)`` of every picture, mean over taps and scales."""
        ways = [(tap, r) for tap in range(len(self.taps)) for r in self.config.scales]
        total: list[Tensor] = []
        for tap, r in ways:
            banks = self._banks(encoded, chosen, tap, r)
            found: list[Tensor] = []
            for batch in encoded:
                for F in self.aggregated(batch, tap, r):
                    found.append(self.decision(F, len(found), *banks) / len(ways))
            total = found if not total else [t + d for t, d in zip(total, found, strict=True)]
        return total

    def _banks(
        self, encoded: Iterable[Features], chosen: Sequence[tuple[Tensor, Tensor]], tap: int, r: int
    ) -> tuple[Bank, Bank]:
        """PAAM: the normal bank and that of pseudo-anomalies, of one tap and scale."""
        parts: tuple[list[Tensor], list[Tensor]] = ([], [])
        pictures = (F for batch in encoded for F in self.aggregated(batch, tap, r))
        for F, rows in zip(pictures, chosen, strict=True):
            for part, own in zip(parts, rows, strict=True):
                part.append(F[own])
        normal, pseudo = (Bank.of(part, self.config.bank) for part in parts)
        return normal, pseudo

    def decision(self, F: Tensor, own: int, normal: Bank, pseudo: Bank) -> Tensor:
        """d ``(L,)``: to the normal bank, discounted where a pseudo-anomaly lies nearer."""
        d_n, d_p = normal.distance(F, own), pseudo.distance(F, own)
        d_n = d_n.where(d_n.isfinite(), d_p)  # all normal entries are its own
        d_n = d_n.where(d_n.isfinite(), torch.zeros_like(d_n))
        d_p = d_p.where(d_p.isfinite(), d_n)
        discounted = self.config.discount * d_p + (1 - self.config.discount) * d_n
        return torch.minimum(d_n, discounted)


@dataclass(frozen=True)
class Bank:
    """Entries ``(M, C)`` of unit length, and the picture ``(M,)`` that each is of."""

    entries: Tensor
    pictures: Tensor

    @classmethod
    def of(cls, parts: Sequence[Tensor], most: int) -> Bank:
        """A coreset of the patches of each picture."""
        entries = torch.cat(list(parts))
        owners = [torch.full((len(part),), n) for n, part in enumerate(parts)]
        pictures = torch.cat(owners).to(entries.device)
        count = min(len(entries), most, max(_LEAST, round(_BANK * len(entries))))
        if count < len(entries):
            rows = farthest_points(entries, count)
            entries, pictures = entries[rows], pictures[rows]
        return cls(entries, pictures)

    def distance(self, F: Tensor, own: int) -> Tensor:
        """``1 - cos`` to the nearest entry of another picture, ``(L,)``; infinite without one."""
        others = self.entries[self.pictures != own]
        if not len(others):
            return F.new_full((len(F),), torch.inf)
        return (1 - (F @ others.T).amax(1)).clamp(min=0)


def _chosen(a: Sequence[Tensor], keep: Sequence[Tensor] | None) -> list[tuple[Tensor, Tensor]]:
    """Per picture ``(L,)`` bool twice: patches of the normal bank, and pseudo-anomalies.

    Trusted is the half of the pictures, two at least, that look least anomalous.
    """
    ranks = torch.stack([highest_mean(row[None], _EVIDENCE)[0] for row in a])
    trusted = set(ranks.argsort(stable=True)[: max(2, len(a) // 2)].tolist())
    counted = [
        torch.ones_like(row, dtype=torch.bool) if keep is None else keep[n].to(row.device)
        for n, row in enumerate(a)
    ]
    values = torch.cat([a[n][counted[n]] for n in sorted(trusted)])
    middle = values.median()
    high = values.topk(max(1, round(_PSEUDO * len(values)))).values[-1]
    nothing = [torch.zeros_like(row, dtype=torch.bool) for row in a]
    return [
        (counted[n] & (a[n] <= middle), counted[n] & (a[n] >= high))
        if n in trusted
        else (nothing[n], nothing[n])
        for n in range(len(a))
    ]


class _Alike:
    """Image scores averaged over the nearest pictures, weighted by the softmax of cosines."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._scores: list[Tensor] = []
        self._embeddings: list[Tensor] = []

    def see(self, prediction: Prediction) -> None:
        assert prediction.embedding is not None
        self._scores.append(prediction.score)
        self._embeddings.append(nnF.normalize(prediction.embedding, dim=-1))

    def apply(self, prediction: Prediction) -> Prediction:
        assert prediction.embedding is not None
        scores = torch.cat(self._scores)
        W = nnF.normalize(prediction.embedding, dim=-1) @ torch.cat(self._embeddings).T
        top, columns = W.topk(min(self.count + 1, len(scores)), dim=1)  # itself among them
        return replace(prediction, score=(top.softmax(1) * scores[columns]).sum(1))

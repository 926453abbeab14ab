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
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from zerodefect.backbones.backbone import whole_patches
from zerodefect.backbones.clip import VisionTower
from zerodefect.backbones.clip_weights import CLIPBackbone
from zerodefect.detector.clip_detector import WordDetector
from zerodefect.detector.configs import LATER, Positive, Share, hyper_parameters
from zerodefect.detector.contract import PatchFeatures
from zerodefect.detector.facts import MethodInfo, Thorough
from zerodefect.detector.knowledge import Knowledge
from zerodefect.detector.registry import register
from zerodefect.layers.grid import Grid
from zerodefect.layers.similarity import (
    anomaly_probability,
    peak_and_spread,
    text_probabilities,
    upsample,
)
from zerodefect.layers.smoothing import gaussian_smooth
from zerodefect.prompts.ensemble import ANOMALOUS_STATES, NORMAL_STATES, WINCLIP_TEMPLATES
from zerodefect.types import Prediction

_TOP = 0.01  # share of a map whose mean is half of its peak
_LARGER = 1.25  # side of the thorough input over the usual one

Size = Annotated[float, Field(gt=0, le=4)]


@hyper_parameters
class DenseConfig:
    """Hyper-parameters.

    Attributes:
        temperature: of the softmax over normal and anomalous.
        sizes: input sizes relative to the preprocessed one; maps of several are averaged. Smaller
            ones see large soft damage, larger ones thin lines.
        fine_sizes: those that a CLIP's second image tower is run at.
        fine_share: share of the second tower in map and score; 0 leaves it out.
        normal_states, anomalous_states, templates: the compositional prompt ensemble.
        image_score: ``text`` is the class token's text probability; ``map`` the highest value of
            the map; ``mean`` the mean of both; ``peaks`` that of the first tower's text probability
            and of the highest values of each tower's map for itself, half of it the very highest
            one and half the highest hundredth: two towers rarely err at one place.
        reference_weight: share of the reference distance in map and score, in [0, 1].
        reference_scale: half cosine distance that counts as 1; larger ones are cut there.
        smoothing: standard deviation of a Gaussian over the map, in patches.
        mirrored: those of all sizes at which pictures are seen a second time, left to right.
    """

    temperature: Positive = 0.07
    sizes: Annotated[tuple[Size, ...], Field(min_length=1)] = (1.0,)
    fine_sizes: tuple[Size, ...] = (1.0,)
    fine_share: Share = 0.0
    normal_states: tuple[str, ...] = NORMAL_STATES
    anomalous_states: tuple[str, ...] = ANOMALOUS_STATES
    templates: tuple[str, ...] = WINCLIP_TEMPLATES
    image_score: Literal["text", "map", "mean", "peaks"] = "text"
    reference_weight: Share = 0.5
    reference_scale: Positive = 1.0
    smoothing: Annotated[float, Field(ge=0, lt=100)] = 0.0
    mirrored: tuple[Size, ...] = field(default=(), metadata=LATER)

    def __post_init__(self) -> None:
        if unknown := sorted({*self.mirrored} - {*self.sizes, *self.fine_sizes}):
            raise ValueError(f"mirrored: {unknown[0]:g} is none of the sizes")


@dataclass(frozen=True)
class Features:
    """Image side of one batch, of one tower at one input size."""

    grid: Grid  # of the patches
    image: Tensor  # (B, D) class token, joint space
    patches: Tensor  # (B, N, D) patch tokens, joint space
    reference: Tensor  # (B, N, W) patch tokens after ln_post, not projected
    share: float  # of the map and of the score; those of all sum to one
    fine: bool  # whether of the second tower


def _thorough(usual: DenseConfig) -> dict[str, Any]:
    """Sizes as they are, also mirrored, and as much larger as the input is."""
    less = [tuple(size / _LARGER for size in sizes) for sizes in (usual.sizes, usual.fine_sizes)]
    sizes, fine = less[0] + usual.sizes, less[1] + usual.fine_sizes
    return {"sizes": sizes, "fine_sizes": fine, "mirrored": less[0] + less[1]}


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
    thorough = Thorough(_LARGER, _thorough)
    config: DenseConfig

    def __init__(self, clip: CLIPBackbone, config: DenseConfig | None = None) -> None:
        super().__init__(clip, config or DenseConfig())

    @property
    def fine(self) -> VisionTower | None:
        """The second image tower, where it is to be heard."""
        return self.clip.fine if self.config.fine_share else None

    def usual_scale(self, knowledge: Knowledge) -> tuple[float, float]:
        """As the embedded model's maps of good products are."""
        return (0.15, 0.1) if knowledge.shots else (0.3, 0.25)

    def encode(self, images: Tensor) -> tuple[Features, ...]:
        """One forward pass per tower, input size and side on which a picture is seen."""
        second = self.fine if self.config.fine_sizes else None
        share = 0.0 if second is None else self.config.fine_share
        encoded = self._seen(images, self.clip.visual, self.config.sizes, 1 - share)
        if second is not None:
            encoded += self._seen(images, second, self.config.fine_sizes, share)
        return tuple(encoded)

    def _seen(
        self, images: Tensor, tower: VisionTower, sizes: tuple[float, ...], share: float
    ) -> list[Features]:
        """All that a tower sees, with equal parts of its share."""
        runs = [(size, False) for size in sizes]
        runs += [(size, True) for size in sizes if size in self.config.mirrored]
        each = share / len(runs)
        return [self._features(images, tower, *run, each) for run in runs]

    def _features(
        self, images: Tensor, tower: VisionTower, factor: float, mirrored: bool, share: float
    ) -> Features:
        pixels = self._resized(images, factor)
        if mirrored:
            pixels = pixels.flip(-1)
        tokens = tower.encode(tower.embed(pixels.to(tower.proj.dtype))).tokens  # (B, 1+N, W)
        grid, patches = self.grid(pixels), tokens[:, 1:]
        if mirrored:  # every patch where it lies in the picture
            patches = grid.fold(patches.mT).flip(-1).flatten(2).mT
        return Features(
            grid=replace(grid, size=(images.shape[-2], images.shape[-1])),
            image=tower.project(tokens[:, 0]).float(),
            patches=tower.project(patches).float(),
            reference=tower.project(patches, projection=False).float(),
            share=share,
            fine=tower is not self.clip.visual,
        )

    def _resized(self, images: Tensor, factor: float) -> Tensor:
        patch = self.inputs["image"].multiple
        height, width = (whole_patches(side * factor, patch) for side in images.shape[-2:])
        if (height, width) == tuple(images.shape[-2:]):
            return images
        return F.interpolate(images.float(), size=(height, width), mode="bicubic", antialias=True)

    def references(self, encoded: tuple[Features, ...]) -> Mapping[str, Tensor]:
        """Patch features per input size and side, of the second tower where it is heard."""
        finer = [each for each in encoded if each.fine] or encoded
        return {f"patches{place}": each.reference for place, each in enumerate(finer)}

    def patch_features(self, encoded: tuple[Features, ...]) -> tuple[PatchFeatures, ...]:
        """Patches of every input size, in the joint space."""
        return tuple(PatchFeatures(each.patches, each.grid, joint=True) for each in encoded)

    def predict(
        self, encoded: tuple[Features, ...], knowledge: Knowledge, left_out: Tensor | None = None
    ) -> Prediction:
        """Words, and the distance to references where there are any."""
        tau, texts, kinds = self.config.temperature, knowledge["texts"], knowledge["kind_texts"]
        finest = max((each.grid for each in encoded), key=lambda grid: grid.shape)
        maps: list[list[Tensor]] = [[], []]  # of the first tower, of the second one
        types = torch.zeros(())
        for each in encoded:
            s = each.grid.fold(anomaly_probability(each.patches, texts, tau))  # (B, g, g)
            maps[each.fine].append(each.share * upsample(s, finest.shape))
            if len(kinds):
                share = text_probabilities(each.patches, kinds, tau)  # (B, N, T)
                shares = upsample(each.grid.fold(share.transpose(1, 2)), finest.shape)
                types = types + each.share * shares
        towers = [torch.stack(own).sum(0) for own in maps if own]
        if knowledge.shots:
            D, w = (
                self._distance(encoded, finest, knowledge, left_out),
                self.config.reference_weight,
            )
            towers = [(1 - w) * torch.stack(towers).sum(0) + w * D]
        towers = [gaussian_smooth(M, self.config.smoothing) for M in towers]
        map = finest.upsample(torch.stack(towers).sum(0))
        type_map = finest.upsample(types) if len(kinds) else None
        words = [anomaly_probability(each.image, texts, tau) for each in encoded if not each.fine]
        return Prediction(self._score(torch.stack(words).mean(0), towers, map), map, type_map)

    def _score(self, words: Tensor, towers: list[Tensor], map: Tensor) -> Tensor:
        """The image score ``(B,)``, of text probabilities ``(B,)`` and maps ``(B, h, w)``."""
        how = self.config.image_score
        if how == "text":
            return words
        highest = map.amax(dim=(1, 2))
        if how == "peaks":
            highest = torch.stack([peak_and_spread(M, _TOP) for M in towers]).sum(0)
        return highest if how == "map" else (words + highest) / 2

    def _distance(
        self,
        encoded: tuple[Features, ...],
        finest: Grid,
        knowledge: Knowledge,
        left_out: Tensor | None,
    ) -> Tensor:
        """Mean over input sizes of the distance to the nearest reference patch, ``(B, g, g)``."""
        maps, references = [], self.references(encoded)
        for each, (name, patches) in zip(
            encoded[-len(references) :], references.items(), strict=True
        ):
            distance = self.memory.distance(knowledge, name, patches, left_out)
            near = (distance / self.config.reference_scale).clamp(max=1.0)
            maps.append(upsample(each.grid.fold(near), finest.shape))
        return torch.stack(maps).mean(0)

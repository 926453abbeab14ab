"""ClipSAM, a completion of ours (Li et al., Neurocomputing 618, 2025, arXiv 2401.12665).

CLIP finds roughly where damage is (UMCI, unified multi-scale cross-modal interaction), and SAM
refines it from points and boxes on that rough map (MMR, multi-level mask refinement). The authors'
repository holds no code: known are abstract and introduction, the formulas are ours.

Symbols: P_i patches of stage i, X what is made of them (C, g, g), T the two texts, S and M what the
strip and the scale path add, O_i logits (2, g, g), A the rough map, R what SAM's masks say.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as nnF
from torch import Tensor, nn

from zerodefect.backbones.clip_weights import CLIPBackbone
from zerodefect.backbones.map_prompts import parts_above, prompts_from
from zerodefect.backbones.segmenter import Segmenter
from zerodefect.detector import clip_detector
from zerodefect.detector.clip_detector import WordDetector
from zerodefect.detector.composed import Later
from zerodefect.detector.configs import Count, Share, Taps, hyper_parameters
from zerodefect.detector.contract import Input
from zerodefect.detector.facts import MethodInfo
from zerodefect.detector.knowledge import Knowledge
from zerodefect.detector.recipes import Recipe
from zerodefect.detector.registry import register
from zerodefect.layers.adapters import initialised, linear
from zerodefect.layers.grid import Grid
from zerodefect.layers.losses import map_terms
from zerodefect.prompts.ensemble import ANOMALOUS_STATES, NORMAL_STATES, WINCLIP_TEMPLATES
from zerodefect.types import Prediction, TrainingBatch

_POOLS = (3, 9)  # cells of the scale path, in patches
_LEVELS = (0.99, 0.999)  # shares of the map that lie below the levels of MMR


@hyper_parameters
class ClipSAMConfig:
    """Hyper-parameters; all are ours.

    Attributes:
        taps: image-tower blocks (from 1) whose patches are read; None for quarters of the depth.
        hidden: channels C of the interaction.
        least: probability that a place has at least for SAM to be asked about it.
        smallest: share of the picture that a part has at least.
        points: on a part that SAM is shown, at most.
        normal_states, anomalous_states, templates: the sentences.
        seed: of the initial values.
    """

    taps: Taps | None = None
    hidden: Count = 256
    least: Share = 0.5
    smallest: Share = 1e-4
    points: Count = 5
    normal_states: tuple[str, ...] = NORMAL_STATES
    anomalous_states: tuple[str, ...] = ANOMALOUS_STATES
    templates: tuple[str, ...] = WINCLIP_TEMPLATES
    seed: int = 0


@dataclass(frozen=True)
class Features(clip_detector.Features):
    """Image side of one batch; ``embedded`` is the segmenter's, which looks when it is asked."""

    embedded: Later | None = None


class Interaction(nn.Module):
    """UMCI of one stage: patches ``(B, W, g, g)`` and texts ``(B, 2, D)`` to ``(B, 2, g, g)``."""

    def __init__(self, W: int, D: int, C: int, draws: torch.Generator) -> None:
        super().__init__()

        def conv(inputs: int, outputs: int, side: int) -> nn.Conv2d:
            made = nn.utils.skip_init(nn.Conv2d, inputs, outputs, side, padding=side // 2)
            return initialised(made, draws)

        def strip() -> nn.Conv1d:
            return initialised(nn.utils.skip_init(nn.Conv1d, C, C, 3, padding=1), draws)

        self.in_proj = conv(W, C, 1)
        self.text_k, self.text_v = linear(D, C, draws), linear(D, C, draws)
        self.rows, self.columns, self.strip_out = strip(), strip(), conv(C, C, 3)
        self.scales = nn.ModuleList(conv(C, C, 3) for _ in _POOLS)
        self.scale_out, self.fuse, self.head = conv(C, C, 3), conv(3 * C, C, 1), conv(C, 2, 1)

    def forward(self, P: Tensor, T: Tensor) -> Tensor:
        """Rows and columns, and cells of two sizes, look at the texts."""
        X, K, V = self.in_proj(P), self.text_k(T), self.text_v(T)
        S, M = self.strip_path(X, K, V), self.scale_path(X, K, V)
        O: Tensor = self.head(nnF.gelu(self.fuse(torch.cat([X + S, X + M, X], dim=1))))  # noqa: E741
        return O

    def strip_path(self, X: Tensor, K: Tensor, V: Tensor) -> Tensor:
        """What means of rows and of columns find in the texts, ``(B, C, g, g)``."""
        r = attended(self.rows(X.mean(dim=3)), K, V)[..., :, None]
        c = attended(self.columns(X.mean(dim=2)), K, V)[..., None, :]
        S: Tensor = self.strip_out(r + c)
        return S

    def scale_path(self, X: Tensor, K: Tensor, V: Tensor) -> Tensor:
        """What means of cells find in the texts, ``(B, C, g, g)``."""
        found = []
        for side, conv in zip(_POOLS, self.scales, strict=True):
            cells = conv(nnF.avg_pool2d(X, side, ceil_mode=True))
            seen = attended(cells.flatten(2), K, V).unflatten(2, cells.shape[2:])
            found.append(nnF.interpolate(seen, X.shape[2:], mode="bilinear"))
        M: Tensor = self.scale_out(torch.stack(found).sum(0))
        return M


def attended(Q: Tensor, K: Tensor, V: Tensor) -> Tensor:
    """``softmax(Q K^T / sqrt(C)) V`` of queries ``(B, C, n)`` and two texts ``(B, 2, C)``."""
    weights = (Q.mT @ K.mT / K.shape[-1] ** 0.5).softmax(dim=-1)
    return (weights @ V).mT


@register(
    MethodInfo(
        name="clipsam",
        title="ClipSAM (completion)",
        school="assembly",
        knows_from=("training", "words", "references"),
        optional=("references",),
        paper="Li et al., Neurocomputing 618, 2025, arXiv 2401.12665",
        code_licence="none published; ours",
        parity="none: a completion from abstract and introduction; hand-computed parts",
        completion=True,
        backbones={"clip": "clip", "segmenter": "segmenter"},
        judging=("segmenter",),
    )
)
class ClipSAM(WordDetector):
    """A rough map of CLIP's that SAM's masks sharpen. Score and map lie in [0, 1].

    Where nothing is above a half, SAM is not asked, and the rough map is the map.
    """

    Config = ClipSAMConfig
    recipe = Recipe(epochs=6, batch_size=8, learning_rate=1e-4)
    monotone_memory = True  # the distance to the nearest of more references never grows
    config: ClipSAMConfig

    def __init__(
        self,
        clip: CLIPBackbone,
        segmenter: Segmenter | None = None,
        config: ClipSAMConfig | None = None,
    ) -> None:
        super().__init__(clip, config or ClipSAMConfig())
        self.segmenter, taken = segmenter, None
        if segmenter is not None:
            segmenter.requires_grad_(False)
            taken = Input(segmenter.preprocess, segmenter.stride, fixed=True)
        self.look_beside("segmenter", segmenter, taken)
        self.taps = self.chosen_taps()
        shape, draws = self.clip.config, torch.Generator().manual_seed(self.config.seed)
        W, D, C = shape.vision.width, shape.embed_dim, self.config.hidden
        self.umci = nn.ModuleList(Interaction(W, D, C, draws) for _ in self.taps)

    # --- in the order of the paper --------------------------------------------------------------

    def encode(self, inputs: Any) -> Features:
        """Patches of the stages, and what the segmenter would make of the picture.

        Raises:
            UnsupportedError: it was built without a segmenter, to learn.
        """
        if self.segmenter is None:
            raise self.lacking("segmenter")
        seen = super().encode(inputs["image"])
        return Features(**vars(seen), embedded=Later(self.segmenter.embed, inputs["segmenter"]))

    def judge(self, encoded: Features, knowledge: Knowledge) -> Prediction:
        """The score is the highest value of the map."""
        T = knowledge["texts"].expand(len(encoded.image), -1, -1)
        A = self.rough_map(encoded.patches, T, encoded.grid)[:, 1].float()
        map = torch.stack([self.refined(each, encoded, row) for row, each in enumerate(A)])
        return Prediction(map.amax((1, 2)), map)

    def rough_map(self, patches: Sequence[Tensor], T: Tensor, grid: Grid) -> Tensor:
        """A and its complement ``(B, 2, H, W)``, mean over the stages."""
        T, maps = nnF.normalize(T, dim=-1), []
        for P, stage in zip(patches, self.umci, strict=True):
            O = stage(grid.fold(P.mT), T)  # noqa: E741
            maps.append(grid.upsample(O, align_corners=True).softmax(dim=1))
        return torch.stack(maps).mean(0)

    def refined(self, A: Tensor, encoded: Features, row: int) -> Tensor:
        """MMR: the mean of A ``(H, W)`` and of the masks that SAM cuts out of the picture."""
        assert self.segmenter is not None and encoded.embedded is not None
        rough = A.detach().cpu().numpy()
        over, under = torch.zeros_like(A), 0.0
        for share in _LEVELS:
            limit = max(self.config.least, float(np.quantile(rough, share)))
            parts = parts_above(rough, limit, self.config.smallest * rough.size)
            if not parts:
                continue
            prompts = prompts_from(rough, parts, most=self.config.points)
            found = self.segmenter.masks(encoded.embedded.value, row, prompts, several=True)
            q = found.quality.clamp(0, 1)
            for own, masks in zip(q, found.at((A.shape[0], A.shape[1])), strict=True):
                over = over + (own[:, None, None] * masks).sum(0)
            under += float(q.sum())
        if under == 0.0:
            return A
        return (A + over / max(1.0, under)) / 2

    def training_loss(self, batch: TrainingBatch) -> dict[str, Tensor]:
        """Focal and two Dice losses of the rough map; the segmenter is not trained."""
        seen = super().encode(self.seen_by_clip(batch.images))
        T = self.texts_of(batch.objects)  # (B, 2, D)
        maps = self.rough_map(seen.patches, T, seen.grid)
        return map_terms([maps.float()], batch.masks)

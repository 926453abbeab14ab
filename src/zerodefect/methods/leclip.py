"""LECLIP, Local Enhanced CLIP (Liu et al., IEEE TIM 2025, IEEE document 11007048).

AnomalyCLIP's learned sentences with another second stream, whose patches attend by the cosines of
queries, keys and values (Echo-Attention), and with windows of the picture that are encoded once
more at its full size, whose maps are merged and averaged with the whole picture's (Local
Alignment).

Symbols: F the patch features of the second stream's last state, T the text features [normal,
damaged], p the patches' probability of damage, g that of the whole picture, m and m_w the maps of
the whole picture and of its windows, N the number of patches, n of windows, D the joint dimension.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as nnF
from torch import Tensor

from zerodefect.backbones.clip_weights import CLIPBackbone
from zerodefect.detector import learned_sentences
from zerodefect.detector.configs import Count, NotNegative, Share, hyper_parameters
from zerodefect.detector.facts import MethodInfo, published_table
from zerodefect.detector.knowledge import Knowledge
from zerodefect.detector.learned_sentences import LearnedSentencesConfig, LearnedSentencesDetector
from zerodefect.detector.recipes import Recipe
from zerodefect.detector.registry import register
from zerodefect.layers.grid import Grid
from zerodefect.layers.losses import map_terms
from zerodefect.layers.similarity import anomaly_probability, cosine, upsample
from zerodefect.layers.smoothing import gaussian_smooth
from zerodefect.layers.windows import Place, covering_windows, mean_of_windows, windows_at_once
from zerodefect.types import Prediction, TrainingBatch

_FIGURES = published_table(
    "a comment in the authors' code at 7a60624e", "0-shot, windows of 17 patches",
    ("image AUROC", "pixel AUROC"),
    {
        "MVTec AD": (93.2, 91.9), "VisA": (84.1, 96.1), "MPDD": (79.5, 96.9),
        "BTAD": (94.5, 96.6), "SDD": (93.8, 94.2), "DAGM": (99.1, 96.8),
    },
)  # fmt: skip


@hyper_parameters
class LECLIPConfig(LearnedSentencesConfig):
    """Hyper-parameters; the defaults are the official program's but for ``alignment``.

    ``taps`` names one block; without it the last one is read.

    Attributes:
        alignment: whether windows are encoded, too. The released test computes their maps and
            leaves them out of its result; the paper's method has them (the default here).
        window: side of a window in patches; None for 27 of 37, at this grid.
        stride: patches from one window to the next, at most a window's side; None for 10 of 37.
        map_weight: share of the map's losses in training; the image's has the rest.
    """

    sigma: NotNegative = 8.0
    alignment: bool = True
    window: Count | None = None
    stride: Count | None = None
    map_weight: Share = 0.8

    def __post_init__(self) -> None:
        if self.taps is not None and len(self.taps) > 1:
            raise ValueError("LECLIP reads one block; name one in taps, or none for the last")


@dataclass(frozen=True)
class Features(learned_sentences.Features):
    """Image side of one batch; ``windows`` are the patches of each window, ``(B, n, N, D)``."""

    windows: Tensor | None = None


@register(
    MethodInfo(
        name="leclip",
        title="LECLIP",
        school="prompt",
        knows_from=("training", "references"),
        optional=("references",),
        paper="Liu et al., IEEE Transactions on Instrumentation and Measurement 2025, document "
        "11007048",
        code_licence="none stated by the authors; written from its formulas",
        parity="official code at 7a60624e: Echo-Attention, forward, windows, losses, gradients",
        figures=_FIGURES,
    )
)
class LECLIP(LearnedSentencesDetector):
    """Echo-Attention, and windows that see what is small. Score and map are probabilities.

    The score is the mean of the whole picture's and of the highest value of the windows' map.
    """

    Config = LECLIPConfig
    recipe = Recipe(epochs=15, batch_size=8, learning_rate=1e-3, betas=(0.5, 0.999), seed=111)
    monotone_memory = True  # the distance to the nearest of more references never grows
    rule = "echo"
    config: LECLIPConfig

    def __init__(self, clip: CLIPBackbone, config: LECLIPConfig | None = None) -> None:
        super().__init__(clip, config or LECLIPConfig())
        self.taps = self.chosen_taps(last=True)
        n = self.config.context_length
        self.prompts = self.learned_prompts({"ctx_pos": n, "ctx_neg": n})

    # --- in the order of the paper ------------------------------------------------------------

    def encode(self, images: Tensor) -> Features:
        """The whole pictures and, for the alignment, their windows."""
        whole = self.two_streams(images, self.taps, norm=False)
        windows = self.encoded_windows(images, whole.grid) if self.config.alignment else None
        return Features(**vars(whole), windows=windows)

    def windows(self, grid: Grid) -> list[Place]:
        """Places of the windows; at another grid than the paper's, of the same share of it."""
        sides = [min(self.config.window or _share(27, n), n) for n in grid.shape]
        strides = [self.config.stride or _share(10, n) for n in grid.shape]
        strides = [min(step, side) for step, side in zip(strides, sides, strict=True)]
        return covering_windows(grid.shape, (sides[0], sides[1]), (strides[0], strides[1]))

    def encoded_windows(self, images: Tensor, grid: Grid) -> Tensor:
        """Patches ``(B, n, N, D)`` of the windows, each brought to the size of ``images``."""
        places, side = self.windows(grid), self.clip.config.vision.patch_size
        crops = [[slice(s.start * side, s.stop * side) for s in place] for place in places]
        at_once = windows_at_once(grid.rows * grid.columns * len(images), images.device)
        parts: list[Tensor] = []
        for first in range(0, len(crops), at_once):
            some = [images[:, :, r, c] for r, c in crops[first : first + at_once]]
            enlarged = torch.cat([upsample(crop, grid.size, align_corners=True) for crop in some])
            (F,) = self.two_streams(enlarged, self.taps, norm=False).patches
            parts += F.split(len(images))
        return torch.stack(parts, dim=1)

    def judge(self, encoded: Features, knowledge: Knowledge) -> Prediction:
        """Compare with the learned sentences."""
        T, tau, grid, (F,) = self.texts, self.config.temperature, encoded.grid, encoded.patches
        g = anomaly_probability(encoded.image, T, tau)  # (B,)
        m = self.smoothed(grid.map(anomaly_probability(F, T, tau), align_corners=True))
        if encoded.windows is None:
            return Prediction(score=g, map=m)
        merged = self.window_map(encoded.windows, T, grid)  # (B, h, w)
        m_w = self.smoothed(grid.upsample(merged, align_corners=True))
        return Prediction(score=(g + m_w.amax(dim=(1, 2))) / 2, map=(m + m_w) / 2)

    def window_map(self, windows: Tensor, T: Tensor, grid: Grid) -> Tensor:
        """Probability of damage of the windows' patches, merged on the grid: ``(B, h, w)``."""
        places = self.windows(grid)
        p = grid.fold(anomaly_probability(windows, T, self.config.temperature))  # (B, n, h, w)
        side = tuple(s.stop - s.start for s in places[0])
        small = upsample(p, (side[0], side[1]), align_corners=True)
        return mean_of_windows(small.unbind(dim=1), places, grid.shape)

    def smoothed(self, map: Tensor) -> Tensor:
        """Gaussian; its weights sum to one but for rounding."""
        return gaussian_smooth(map, self.config.sigma).clamp(0, 1)

    def training_loss(self, batch: TrainingBatch) -> dict[str, Tensor]:
        """Whole pictures alone: focal and two Dice losses, and cross entropy of the image."""
        encoded = self.two_streams(batch.images, self.taps, norm=False)
        T, w = self.prompts(self.clip.text), self.config.map_weight
        P = [self.probability_map(F, T, encoded.grid) for F in encoded.patches]
        logits = cosine(encoded.image, T) / self.config.temperature
        return {
            "image": (1 - w) * nnF.cross_entropy(logits, batch.labels),
            **map_terms(P, batch.masks, w),
        }


def _share(of_37: int, length: int) -> int:
    """Patches on a line of ``length`` as ``of_37`` on the paper's of 37; at least one."""
    return max(1, round(of_37 * length / 37))

"""DRAEM (Zavrtanik, Kristan, Skocaj, ICCV 2021, arXiv 2108.07610).

One network repairs pictures that were damaged on purpose, another one learns to tell where, from
the repaired and the damaged picture. Symbols: I a good picture, I_a the damaged one, M the mask of
the damage, r what the first network makes of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from zerodefect.detector.configs import Count, Share, hyper_parameters
from zerodefect.detector.contract import Detector, Input
from zerodefect.detector.facts import MethodInfo
from zerodefect.detector.knowledge import Knowledge
from zerodefect.detector.official_files import Checked
from zerodefect.detector.recipes import Recipe
from zerodefect.detector.registry import register
from zerodefect.images import Preprocess
from zerodefect.layers.encoder_decoder import (
    DiscriminativeNetwork,
    ReconstructiveNetwork,
    initialise,
)
from zerodefect.layers.losses import focal_loss
from zerodefect.layers.structural_similarity import ssim_map
from zerodefect.procedural.draws import Draws
from zerodefect.procedural.on_pictures import DamageSort, damage_pictures, drawn_from
from zerodefect.procedural.perlin import turned_pictures
from zerodefect.types import Prediction, TrainingBatch

_NEGATIVE = -0.5  # below it, values are held to span [-1, 1]
_WINDOW = 21  # pixels, of the mean whose highest value is the image's score


@hyper_parameters
class DRAEMConfig:
    """Hyper-parameters; the defaults are the paper's.

    Attributes:
        reconstructive_width, discriminative_width: channels of each network's first block.
        damage: ``perlin`` as in the paper, in textures that the project draws instead of
            photographs; ``procedural`` kinds of damage on the product; ``both``; or ``logical``
            edits of parts.
        damaged: probability that a training picture is damaged.
        turned: probability that it is turned by up to 90 degrees before.
        seed: of the initial values.
    """

    reconstructive_width: Count = 128
    discriminative_width: Count = 64
    damage: DamageSort = "perlin"
    damaged: Share = 0.5
    turned: Share = 0.3
    seed: int = 0


@register(
    MethodInfo(
        name="draem",
        title="DRAEM",
        school="reconstruction",
        knows_from=("good",),
        paper="Zavrtanik, Kristan and Skocaj, ICCV 2021, arXiv 2108.07610",
        code_licence="MIT",
        parity="official code at 2dbf673: reconstruction, logits, map, score, blend, losses, "
        "gradients, an optimiser step; Perlin noise. Textures are drawn, not photographed",
        backbones={},
    )
)
class DRAEM(Detector):
    """The map is the probability of damage; the score its highest mean over 21 x 21 pixels."""

    Config = DRAEMConfig
    recipe: ClassVar[Recipe | None] = Recipe(
        epochs=700, batch_size=8, learning_rate=1e-4, schedule="steps", image_size=None
    )
    config: DRAEMConfig

    def __init__(self, config: DRAEMConfig | None = None) -> None:
        config = config or DRAEMConfig()
        preprocess = Preprocess((256, 256), (0.0,) * 3, (1.0,) * 3, "bilinear", antialias=False)
        super().__init__(config, (), {"image": Input(preprocess, 32)})
        self.reconstructive = ReconstructiveNetwork(config.reconstructive_width)
        self.discriminative = DiscriminativeNetwork(config.discriminative_width, 6, 2)
        initialise(self, torch.Generator().manual_seed(config.seed))

    def encode(self, images: Tensor) -> Tensor:
        """Logits ``(B, 2, H, W)``; the published weights take channels as OpenCV orders them."""
        return self.repaired(images.flip(1))[1]

    def repaired(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """r ``(B, 3, H, W)`` and logits ``(B, 2, H, W)``, good and damaged."""
        r = self.reconstructive(x)
        return r, self.discriminative(torch.cat([r, x], 1))

    def predict(
        self, encoded: Tensor, knowledge: Knowledge, left_out: Tensor | None = None
    ) -> Prediction:
        """Probability of damage, and its highest mean."""
        map = encoded.float().softmax(1)[:, 1]
        means = F.avg_pool2d(map[:, None], _WINDOW, 1, _WINDOW // 2)  # zeros outside count
        return Prediction(means.amax((1, 2, 3)), map)

    # --- training -------------------------------------------------------------------------------

    def training_loss(self, batch: TrainingBatch) -> dict[str, Tensor]:
        """Repair and tell what was repaired; pictures are good ones, whatever their masks say."""
        draws = drawn_from(batch.generator, len(batch.images), batch.images.device)
        good, damaged, mask = self.corrupted(batch.images, draws)
        return self.losses(good.flip(1), damaged.flip(1), mask)

    def corrupted(self, images: Tensor, draws: Draws) -> tuple[Tensor, Tensor, Tensor]:
        """I and I_a, ``(B, 3, H, W)``, and M, ``(B, H, W)`` of 0 and 1."""
        turn = draws.uniform("turn.angle", -math.pi / 2, math.pi / 2)
        rows = draws.chance("turn", self.config.turned).nonzero()[:, 0]
        good, damaged = images.clone(), images.clone()
        if len(rows):
            good[rows] = damaged[rows] = turned_pictures(images[rows], turn[rows])
        mask = torch.zeros_like(good[:, 0])
        rows = draws.chance("damaged", self.config.damaged).nonzero()[:, 0]
        if len(rows):
            made = damage_pictures(good[rows], draws.rows(rows), self.config.damage)
            damaged[rows], mask[rows] = made.images, made.masks.to(mask.dtype)
        return good, damaged, mask

    def losses(self, good: Tensor, damaged: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """Squared error and 1 - SSIM of the repaired picture, focal loss of the map."""
        r, logits = self.repaired(damaged)
        # the official code takes the range of values from the repaired picture itself
        span = 1.0 + (r.detach().amin((1, 2, 3), keepdim=True) < _NEGATIVE).float()
        return {
            "l2": F.mse_loss(r.float(), good.float()),
            "ssim": 1 - ssim_map(r, good, span=span).mean(),
            "focal": focal_loss(logits.float().softmax(1), mask),
        }

    # --- the authors' files -----------------------------------------------------------------------

    @classmethod
    def official_options(cls, published: Mapping[str, Any]) -> dict[str, Any]:
        """Both widths."""
        firsts = {
            "reconstructive_width": published.get("encoder.block1.0.weight"),
            "discriminative_width": published.get("encoder_segment.block1.0.weight"),
        }
        return {k: len(v) for k, v in firsts.items() if isinstance(v, Tensor) and v.ndim == 4}

    def official_state(self, published: Mapping[str, Any]) -> dict[str, Tensor]:
        """Both files together; their names do not overlap."""
        checked = Checked(published, "DRAEM's two checkpoints (RUN.pckl and RUN_seg.pckl)")
        state = {}
        for name, value in self.learned_values.items():
            state[name] = checked.take(name.partition(".")[2], value.shape)
        checked.done()
        return state

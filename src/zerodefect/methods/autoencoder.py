"""Autoencoders as baselines: what is not reproduced is anomalous.

There is no official code. The networks are DRAEM's (arXiv 2108.07610), one without skips and one
with; x is a picture, r its reconstruction.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from zerodefect.detector.configs import Count, NotNegative, hyper_parameters
from zerodefect.detector.contract import Detector, Input
from zerodefect.detector.facts import MethodInfo
from zerodefect.detector.knowledge import Knowledge
from zerodefect.detector.recipes import Recipe
from zerodefect.detector.registry import register
from zerodefect.images import Preprocess
from zerodefect.layers.encoder_decoder import (
    DiscriminativeNetwork,
    ReconstructiveNetwork,
    initialise,
)
from zerodefect.layers.smoothing import gaussian_smooth
from zerodefect.layers.structural_similarity import ssim_map
from zerodefect.types import Prediction, TrainingBatch


@hyper_parameters
class AutoencoderConfig:
    """Hyper-parameters.

    Attributes:
        network: ``plain`` has a bottleneck alone, ``unet`` skips, which also carry defects over.
        width: channels of the first block; None for DRAEM's, 128 plain and 64 with skips.
        error: per pixel, the mean over channels of the squared or absolute error or of 1 - SSIM.
        border: what SSIM takes to lie outside of the picture.
        sigma: standard deviation of the Gaussian over the map, in pixels of the network's input.
        seed: of the initial values.
    """

    network: Literal["plain", "unet"] = "plain"
    width: Count | None = None
    error: Literal["mse", "l1", "ssim"] = "mse"
    border: Literal["zeros", "reflect"] = "reflect"
    sigma: NotNegative = 4.0
    seed: int = 0


@register(
    MethodInfo(
        name="autoencoder",
        title="Autoencoder",
        school="reconstruction",
        knows_from=("good",),
        paper="a baseline; the networks are DRAEM's, ICCV 2021, arXiv 2108.07610",
        code_licence="none released",
        parity="error maps on the reconstruction of DRAEM's official network at 2dbf673",
        backbones={},
    )
)
class Autoencoder(Detector):
    """The map is the error of the reconstruction, from 0; the score its highest value."""

    Config = AutoencoderConfig
    recipe: ClassVar[Recipe | None] = Recipe(
        epochs=100, batch_size=8, learning_rate=1e-4, image_size=None
    )
    config: AutoencoderConfig

    def __init__(self, config: AutoencoderConfig | None = None) -> None:
        config = config or AutoencoderConfig()
        preprocess = Preprocess((256, 256), (0.0,) * 3, (1.0,) * 3, "bilinear")
        plain = config.network == "plain"
        super().__init__(config, (), {"image": Input(preprocess, 16 if plain else 32)})
        self.network = (
            ReconstructiveNetwork(config.width or 128)
            if plain
            else DiscriminativeNetwork(config.width or 64, 3, 3)
        )
        initialise(self, torch.Generator().manual_seed(config.seed))

    def encode(self, images: Tensor) -> Tensor:
        """The error map ``(B, H, W)``."""
        return self.errors(self.network(images), images)

    def errors(self, r: Tensor, x: Tensor) -> Tensor:
        """``(B, H, W)`` error of a reconstruction."""
        r, x = r.float(), x.float()
        if self.config.error == "ssim":
            return (1 - ssim_map(r, x, self.config.border)).clamp(0, 2).mean(1)
        far = (r - x).abs()
        return (far.square() if self.config.error == "mse" else far).mean(1)

    def predict(
        self, encoded: Tensor, knowledge: Knowledge, left_out: Tensor | None = None
    ) -> Prediction:
        """The smoothed map and its highest value."""
        map = gaussian_smooth(encoded, self.config.sigma)
        return Prediction(map.amax((1, 2)), map)

    def map_range(self, knowledge: Knowledge) -> tuple[float, float]:
        """Errors are not bounded, 1 - SSIM is."""
        return 0.0, 2.0 if self.config.error == "ssim" else float("inf")

    def training_loss(self, batch: TrainingBatch) -> dict[str, Tensor]:
        """Squared error and 1 - SSIM, whatever error the map is made of."""
        x = batch.images
        r = self.network(x).float()
        return {"l2": F.mse_loss(r, x), "ssim": 1 - ssim_map(r, x).mean()}

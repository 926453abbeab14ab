"""GANomaly (Akcay, Atapour-Abarghouei, Breckon, ACCV 2018, arXiv 1805.06725).

A generator encodes a picture, decodes it and encodes that again; it learns from good pictures,
against a discriminator. Symbols: G the generator, D the discriminator, z and z' the two codes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import AfterValidator, Field
from torch import Tensor, nn
from torch.nn import functional as F

from zerodefect.detector.composed import SetLevel
from zerodefect.detector.configs import Count, NotNegative, hyper_parameters
from zerodefect.detector.contract import Detector, Input
from zerodefect.detector.facts import MethodInfo, published_table
from zerodefect.detector.knowledge import Knowledge
from zerodefect.detector.recipes import Learner, Recipe, Stage
from zerodefect.detector.registry import register
from zerodefect.images import Preprocess
from zerodefect.layers.encoder_decoder import initialise
from zerodefect.layers.scaling import MinMax
from zerodefect.types import Prediction, TrainingBatch


def _power_of_two(value: int) -> int:
    if value & (value - 1):
        raise ValueError("a power of two is needed")
    return value


Side = Annotated[int, Field(ge=32), AfterValidator(_power_of_two)]


@hyper_parameters
class GANomalyConfig:
    """Hyper-parameters.

    Attributes:
        size: side of the input in pixels that the networks are built for.
        width: channels of the first layer.
        code: length of a picture's code.
        padding: of the first convolution; 4 in anomalib.
        flavour: whose losses: the original compares features of D, and codes by squares; anomalib
            compares what D says, and codes by a smooth absolute error.
        adversarial, contextual, latent: weights of the generator's losses.
        seed: of the initial values.
    """

    size: Side = 256
    width: Count = 64
    code: Count = 100
    padding: Literal[1, 4] = 1
    flavour: Literal["original", "anomalib"] = "original"
    adversarial: NotNegative = 1.0
    contextual: NotNegative = 50.0
    latent: NotNegative = 1.0
    seed: int = 0


def _steps(size: int) -> int:
    """How often a side is halved between the first and the last layer."""
    return size.bit_length() - 4  # from half the side to 4


def _down(channels: int, out: int, padding: int = 1) -> nn.Module:
    return nn.utils.skip_init(nn.Conv2d, channels, out, 4, stride=2, padding=padding, bias=False)


class Encoder(nn.Module):
    """``(B, 3, s, s)`` to features of a side of 4, and one value of each of ``out`` channels."""

    def __init__(self, config: GANomalyConfig, out: int) -> None:
        super().__init__()
        width = config.width
        layers = [_down(3, width, config.padding), nn.LeakyReLU(0.2)]
        for _ in range(_steps(config.size)):
            layers += [_down(width, 2 * width), nn.BatchNorm2d(2 * width), nn.LeakyReLU(0.2)]
            width *= 2
        self.features = nn.Sequential(*layers)
        self.last = nn.utils.skip_init(nn.Conv2d, width, out, 4, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        """``(B, out, 1, 1)``; more places where the input is larger than it was built for."""
        code: Tensor = self.last(self.features(images))
        return code


class Decoder(nn.Module):
    """A code back to a picture in [-1, 1]."""

    def __init__(self, config: GANomalyConfig) -> None:
        super().__init__()
        width = config.width * 2 ** _steps(config.size)
        layers = self._grown(config.code, width, stride=1, padding=0)
        for _ in range(_steps(config.size)):
            layers += self._grown(width, width // 2, stride=2, padding=1)
            width //= 2
        last = nn.utils.skip_init(nn.ConvTranspose2d, width, 3, 4, stride=2, padding=1, bias=False)
        self.layers = nn.Sequential(*layers, last, nn.Tanh())

    def _grown(self, channels: int, out: int, **how: int) -> list[nn.Module]:
        grow = nn.utils.skip_init(nn.ConvTranspose2d, channels, out, 4, bias=False, **how)
        return [grow, nn.BatchNorm2d(out), nn.ReLU()]

    def forward(self, code: Tensor) -> Tensor:
        """``(B, 3, s, s)``."""
        made: Tensor = self.layers(code)
        return made


class Generator(nn.Module):
    """Encoder, decoder, encoder."""

    def __init__(self, config: GANomalyConfig) -> None:
        super().__init__()
        self.encoder1 = Encoder(config, config.code)
        self.decoder = Decoder(config)
        self.encoder2 = Encoder(config, config.code)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """G(x), z and z'."""
        z = self.encoder1(images)
        made = self.decoder(z)
        return made, z, self.encoder2(made)


@register(
    MethodInfo(
        name="ganomaly",
        title="GANomaly",
        school="reconstruction",
        knows_from=("good",),
        paper="Akcay, Atapour-Abarghouei and Breckon, ACCV 2018, arXiv 1805.06725",
        code_licence="MIT",
        parity="anomalib at b723368: networks, score, losses; losses of the official code at "
        "78da4ea; an optimiser step of both networks",
        figures=published_table(
            "README of anomalib at b723368",
            "full-shot",
            ("image AUROC", "image F1-max"),
            {"MVTec AD": (42.1, 83.4)},
        ),
        backbones={},
    )
)
class GANomaly(Detector):
    """The score is the mean squared difference of the two codes, from 0; it does not say where.

    The authors scale the scores of a test set between its lowest and its highest: ``min_max``.
    Their redrawing of a discriminator whose loss has fallen below 1e-5 is not done.
    """

    Config = GANomalyConfig
    recipe: ClassVar[Recipe | None] = Recipe(
        epochs=15, batch_size=64, learning_rate=2e-4, betas=(0.5, 0.999), image_size=None
    )
    set_levels = ("min_max",)
    config: GANomalyConfig

    def __init__(self, config: GANomalyConfig | None = None) -> None:
        config = config or GANomalyConfig()
        preprocess = Preprocess((config.size,) * 2, (0.5,) * 3, (0.5,) * 3, "bilinear")
        super().__init__(config, (), {"image": Input(preprocess, 1)})
        self.generator = Generator(config)
        self.discriminator = Encoder(config, 1)
        initialise(self, torch.Generator().manual_seed(config.seed))

    def padded(self, images: Tensor) -> Tensor:
        """Zeros around, up to a square of a power of two that the networks take."""
        height, width = images.shape[-2:]
        side = max(self.config.size, 1 << (max(height, width) - 1).bit_length())
        rows, columns = side - height, side - width
        left, top = -(-columns // 2), -(-rows // 2)
        return F.pad(images, (left, columns - left, top, rows - top))

    def encode(self, images: Tensor) -> Tensor:
        """Mean squared difference of the codes, ``(B,)``."""
        _, z, again = self.generator(self.padded(images))
        return (z - again).float().square().mean((1, 2, 3))

    def predict(
        self, encoded: Tensor, knowledge: Knowledge, left_out: Tensor | None = None
    ) -> Prediction:
        """That difference is the score."""
        return Prediction(encoded, None)

    def map_range(self, knowledge: Knowledge) -> None:
        """There is no map."""
        return

    def set_level(self, name: str, knowledge: Knowledge) -> SetLevel | None:
        """``min_max``: scores between the lowest and the highest of all."""
        return _MinMax() if name in self.set_levels else super().set_level(name, knowledge)

    # --- training -------------------------------------------------------------------------------

    def stages(self) -> Sequence[Stage]:
        """Both networks learn from the same batch, each as the other one was before it."""
        assert self.recipe is not None
        generator = Learner(self.training_loss, [{"params": list(self.generator.parameters())}])
        rival = Learner(self.rival_loss, [{"params": list(self.discriminator.parameters())}])
        return (Stage(self.recipe, (generator, rival), together=True),)

    def training_loss(self, batch: TrainingBatch) -> dict[str, Tensor]:
        """Of the generator, weighted: D is fooled, the picture and its code come back."""
        x = self.padded(batch.images)
        made, z, again = self.generator(x)
        terms = self.generator_terms(x, made, z, again)
        weights = (self.config.adversarial, self.config.contextual, self.config.latent)
        return {name: w * terms[name] for name, w in zip(terms, weights, strict=True)}

    def generator_terms(
        self, x: Tensor, made: Tensor, z: Tensor, again: Tensor
    ) -> dict[str, Tensor]:
        """Not weighted."""
        D, original = self.discriminator, self.config.flavour == "original"
        seen = D.features if original else lambda images: D(images).float().sigmoid()
        code = F.mse_loss if original else F.smooth_l1_loss
        return {
            "adversarial": F.mse_loss(seen(x).float(), seen(made).float()),
            "contextual": F.l1_loss(made.float(), x),
            "latent": code(z.float(), again.float()),
        }

    def rival_loss(self, batch: TrainingBatch) -> dict[str, Tensor]:
        """Of the discriminator: pictures are told from what the generator makes of them."""
        x = self.padded(batch.images)
        with torch.no_grad():
            made = self.generator(x)[0]
        real, fake = self.discriminator(x).float(), self.discriminator(made).float()
        terms = F.softplus(-real).mean() + F.softplus(fake).mean()  # cross entropy of a sigmoid
        return {"discriminator": terms / 2}


class _MinMax:
    """Scales scores over the set; the ranking stays as it is."""

    def __init__(self) -> None:
        self.scores = MinMax()

    def see(self, prediction: Prediction) -> None:
        """Take a batch in."""
        self.scores.see(prediction.score)

    def apply(self, prediction: Prediction) -> Prediction:
        """Scale a batch."""
        return Prediction(self.scores.scaled(prediction.score), prediction.map)

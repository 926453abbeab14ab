"""Six detectors that the contract must fit, each as short as it can be; none is a real method."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zerodefect.detector import registry
from zerodefect.detector.clip_detector import CLIPDetector, Features
from zerodefect.detector.configs import Count, Positive, hyper_parameters
from zerodefect.detector.contract import Detector, Input
from zerodefect.detector.facts import MethodInfo
from zerodefect.detector.knowledge import Knowledge, Product
from zerodefect.detector.patch_memory import PatchMemory
from zerodefect.detector.recipes import Learner, Recipe, Stage
from zerodefect.images import Preprocess
from zerodefect.layers.grid import Grid
from zerodefect.layers.losses import dice_loss
from zerodefect.layers.similarity import anomaly_probability
from zerodefect.types import Prediction, TrainingBatch


def info(name: str, knows_from: tuple[Any, ...], **more: Any) -> MethodInfo:
    return MethodInfo(name, name, "other", knows_from, "none", "ours", "nothing", **more)


# --- 1: a convolutional memory -------------------------------------------------------------------


@hyper_parameters
class ConvMemoryConfig:
    """Which layer is read."""

    layer: int = 0


@dataclass(frozen=True)
class Patches:
    """``(B, N, C)`` and their grid."""

    grid: Grid
    values: Tensor


class ConvMemory(Detector):
    """Distance to the nearest feature of a convolutional network."""

    Config = ConvMemoryConfig
    info = info("conv_memory", ("references",), backbones={"features": "features"})
    monotone_memory = True

    def __init__(self, features: Any, config: ConvMemoryConfig | None = None) -> None:
        super().__init__(config or ConvMemoryConfig(), (features,))
        self.features = features
        self.memory: PatchMemory = PatchMemory("euclidean")

    def encode(self, images: Tensor) -> Patches:
        f = self.features(images)[self.config.layer]  # (B, C, h, w)
        return Patches(Grid(*f.shape[-2:], tuple(images.shape[-2:])), f.flatten(2).mT)

    def references(self, encoded: Patches) -> Mapping[str, Tensor]:
        return {"patches": encoded.values}

    def predict(
        self, encoded: Patches, knowledge: Knowledge, left_out: Tensor | None = None
    ) -> Prediction:
        d = self.memory.distance(knowledge, "patches", encoded.values, left_out)
        return Prediction(d.amax(1), encoded.grid.map(d))

    def map_range(self, knowledge: Knowledge) -> tuple[float, float]:
        return 0.0, float("inf")


# --- 2: an autoencoder that learns from good pictures --------------------------------------------


@hyper_parameters
class AutoencoderConfig:
    """Channels of the bottleneck, seed."""

    width: Count = 4
    seed: int = 0


def seeded(seed: int, make: Any) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make()


class Autoencoder(Detector):
    """Squared error of a reconstruction; built on no network at all."""

    Config = AutoencoderConfig
    info = info("toy_autoencoder", ("good",), backbones={})
    recipe = Recipe(epochs=2, batch_size=4, learning_rate=0.01, image_size=None)

    def __init__(self, config: AutoencoderConfig | None = None) -> None:
        config = config or AutoencoderConfig()
        super().__init__(config, (), {"image": Input(Preprocess((32, 32)), 4)})
        self.net = seeded(config.seed, self._net)

    def _net(self) -> nn.Sequential:
        down, up = (
            nn.Conv2d(3, self.config.width, 4, 4),
            nn.ConvTranspose2d(self.config.width, 3, 4, 4),
        )
        return nn.Sequential(down, nn.BatchNorm2d(self.config.width), nn.ReLU(), up)

    def encode(self, images: Tensor) -> Tensor:
        return (self.net(images) - images).square().mean(1)

    def predict(
        self, encoded: Tensor, knowledge: Knowledge, left_out: Tensor | None = None
    ) -> Prediction:
        return Prediction(encoded.amax((1, 2)), encoded)

    def map_range(self, knowledge: Knowledge) -> tuple[float, float]:
        return 0.0, float("inf")

    def training_loss(self, batch: TrainingBatch) -> dict[str, Tensor]:
        return {"reconstruction": self.encode(batch.images).mean()}


# --- 3: two stages -------------------------------------------------------------------------------


class TwoStages(CLIPDetector):
    """First the texts learn, then the patches."""

    Config = AutoencoderConfig
    info = info("two_stages", ("training", "words"))
    recipe = Recipe(epochs=2, batch_size=2, learning_rate=0.01, image_size=None)

    def __init__(self, clip: Any, config: AutoencoderConfig | None = None) -> None:
        super().__init__(clip, config or AutoencoderConfig())
        D = self.clip.config.embed_dim
        self.shift = nn.Parameter(torch.zeros(2, D))
        self.adapter = seeded(self.config.seed, lambda: nn.Linear(D, D))

    def words(self, product: Product) -> dict[str, Tensor]:
        return {"texts": self.text_features.means([[product.name], [f"broken {product.name}"]])}

    def stages(self) -> Sequence[Stage]:
        first = Learner(self.training_loss, [{"params": [self.shift]}])
        second = Learner(self.training_loss, [{"params": list(self.adapter.parameters())}])
        slower = self.recipe.changed(epochs=1, learning_rate=0.001, optimizer="adamw")
        return Stage(self.recipe, (first,), "texts"), Stage(slower, (second,), "patches")

    def encode(self, images: Tensor) -> Features:
        layers = self.clip.config.vision.layers
        tokens = self.clip.visual.project(self.run(images, taps=(layers,)).tokens).float()
        return Features(self.grid(images), tokens[:, 0], (tokens[:, 1:],))

    def predict(
        self, encoded: Features, knowledge: Knowledge, left_out: Tensor | None = None
    ) -> Prediction:
        map = self._map(encoded, knowledge["texts"])
        return Prediction(map.amax((1, 2)), map)

    def _map(self, encoded: Features, texts: Tensor) -> Tensor:
        return encoded.grid.map(
            anomaly_probability(self.adapter(encoded.patches[0]), texts + self.shift, 0.07)
        )

    def training_loss(self, batch: TrainingBatch) -> dict[str, Tensor]:
        texts = self.words(Product(batch.objects[0]))["texts"]
        return {"dice": dice_loss(self._map(self.encode(batch.images), texts), batch.masks)}


# --- 4: two optimisers at once -------------------------------------------------------------------


class Adversary(Autoencoder):
    """A second network learns to tell pictures from reconstructions, with its own optimiser."""

    info = info("adversary", ("good",), backbones={})

    def __init__(self, config: AutoencoderConfig | None = None) -> None:
        super().__init__(config)
        self.critic = seeded(self.config.seed, lambda: nn.Conv2d(3, 1, 4, 4))

    def stages(self) -> Sequence[Stage]:
        critic = Learner(
            self.critic_loss,
            [{"params": list(self.critic.parameters())}],
            self.recipe.changed(optimizer="sgd", learning_rate=0.05),
        )
        maker = Learner(self.training_loss, [{"params": list(self.net.parameters())}])
        return (Stage(self.recipe, (critic, maker)),)

    def critic_loss(self, batch: TrainingBatch) -> dict[str, Tensor]:
        made = self.net(batch.images).detach()
        real, fake = self.critic(batch.images), self.critic(made)
        return {"critic": (F.softplus(-real) + F.softplus(fake)).mean()}

    def training_loss(self, batch: TrainingBatch) -> dict[str, Tensor]:
        made = self.net(batch.images)
        return {
            "reconstruction": (made - batch.images).square().mean(),
            "fooling": 0.1 * F.softplus(-self.critic(made)).mean(),
        }


# --- 5: the other images of a set ----------------------------------------------------------------


@hyper_parameters
class MutualConfig:
    """Side of a patch in pixels."""

    patch: Count = 8


class Mutual(Detector):
    """Distance of each patch to the nearest one of every other picture, averaged."""

    Config = MutualConfig
    info = info("mutual", ("set",), backbones={})

    def __init__(self, config: MutualConfig | None = None) -> None:
        config = config or MutualConfig()
        super().__init__(config, (), {"image": Input(Preprocess((32, 32)), config.patch)})

    def encode(self, images: Tensor) -> Patches:
        p = self.config.patch
        height, width = images.shape[-2:]
        values = F.unfold(images, p, stride=p).mT
        return Patches(Grid(height // p, width // p, (height, width)), values)

    def score_set(self, encoded: Iterable[Patches], knowledge: Knowledge) -> Iterator[Prediction]:
        for place, batch in enumerate(encoded):
            maps = []
            for row, x in enumerate(batch.values):
                others = [
                    torch.cdist(x, y).amin(1)
                    for other, further in enumerate(encoded)
                    for number, y in enumerate(further.values)
                    if (other, number) != (place, row)
                ]
                maps.append(torch.stack(others or [x.new_zeros(len(x))]).mean(0))
            d = torch.stack(maps)
            yield Prediction(d.amax(1), batch.grid.map(d))

    def map_range(self, knowledge: Knowledge) -> tuple[float, float]:
        return 0.0, float("inf")


# --- 6: an assembly of two networks that answers in words ----------------------------------------


@hyper_parameters
class AssemblyConfig:
    """Softmax temperature."""

    temperature: Positive = 0.07


class Assembly(Detector):
    """A CLIP at its size and other eyes at theirs; says what it thinks, and not where."""

    Config = AssemblyConfig
    info = info("assembly", ("words",), backbones={"clip": "clip", "eyes": "features"})

    def __init__(self, clip: Any, eyes: Any, config: AssemblyConfig | None = None) -> None:
        inputs = {
            "clip": Input(clip.preprocess, clip.stride),
            "eyes": Input(eyes.preprocess, eyes.stride),
        }
        super().__init__(config or AssemblyConfig(), (clip, eyes), inputs)
        self.clip, self.eyes = clip.clip, eyes

    def words(self, product: Product) -> dict[str, Tensor]:
        from zerodefect.prompts.features import embed_texts

        return {"texts": embed_texts(self.clip, [product.name, f"broken {product.name}"])}

    def encode(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        seen = {"image": self.clip.visual(inputs["clip"])}
        if "eyes" in inputs:  # may be absent
            seen["contrast"] = self.eyes(inputs["eyes"])[0].flatten(1).std(1)
        return seen

    def predict(
        self, encoded: dict[str, Tensor], knowledge: Knowledge, left_out: Tensor | None = None
    ) -> Prediction:
        p = anomaly_probability(encoded["image"], knowledge["texts"], self.config.temperature)
        score = p + encoded.get("contrast", torch.zeros_like(p))
        name = knowledge.product.name
        told = tuple(f"The {name} looks {'broken' if x > 0.5 else 'whole'}." for x in p.tolist())
        return Prediction(score, None, answer=told)

    def map_range(self, knowledge: Knowledge) -> None:
        return None


EXAMPLES = (ConvMemory, Autoencoder, TwoStages, Adversary, Mutual, Assembly)


class TinyEyes(nn.Module):
    """A small convolutional network with what a backbone tells of itself."""

    name, fingerprint, stride, width, precision, activation = (
        "eyes",
        "e" * 64,
        8,
        6,
        "float32",
        None,
    )

    def __init__(self, side: int = 48) -> None:
        super().__init__()
        self.preprocess = Preprocess((side, side), mean=(0.5,) * 3, std=(0.5,) * 3)
        self.conv = seeded(3, lambda: nn.Conv2d(3, 6, 8, 8)).requires_grad_(False)

    def forward(self, images: Tensor) -> list[Tensor]:
        return [self.conv(images)]


@contextmanager
def registered(*methods: type[Detector]) -> Iterator[None]:
    """Make detectors known for a while; the list of real methods stays as it is."""
    for method in methods:
        registry.register(method.info)(method)
    try:
        yield
    finally:
        for method in methods:
            del registry._METHODS[method.info.name]

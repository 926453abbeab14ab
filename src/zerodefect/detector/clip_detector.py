"""What detectors share that are built on one frozen CLIP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from zerodefect.backbones.backbone import Backbone, network_facts
from zerodefect.backbones.clip import PositionResize
from zerodefect.backbones.clip_weights import CLIPBackbone
from zerodefect.backbones.transformer import States
from zerodefect.detector.contract import Detector, Input, UnsupportedError, told
from zerodefect.detector.knowledge import Knowledge, Product
from zerodefect.detector.patch_memory import PatchMemory
from zerodefect.layers.adapters import check_taps, quarter_depths
from zerodefect.layers.grid import Grid
from zerodefect.layers.similarity import harmonic_mean
from zerodefect.prompts.ensemble import PromptEnsemble
from zerodefect.prompts.features import TextFeatures
from zerodefect.types import Prediction

Activation = Literal["gelu", "weights"]
"""``gelu`` runs both towers with it whatever the weights were trained with, as several official
codes do and their published layers need; ``weights`` keeps the weights' own (OpenAI's:
QuickGELU)."""


@dataclass(frozen=True)
class Features:
    """Image side of one batch, float32; nothing here is normalised."""

    grid: Grid  # of the patches
    image: Tensor  # (B, D) projected class token
    patches: tuple[Tensor, ...]  # per tap (B, N, C)


class CLIPDetector(Detector):
    """A detector on the frozen towers of a CLIP.

    ``Config`` may have ``activation`` (see ``Activation``) and ``taps``, image-tower blocks (from
    1) that are read.

    A method says in ``judge`` what it makes of a picture alone. If its facts name references, it
    is few-shot with that: ``predict`` joins what it says with the distance of its patches to the
    nearest remembered ones, by AdaptCLIP's rule (arXiv 2505.09926, the harmonic mean of both), so
    more references never raise anything. A method whose paper has another way overrides
    ``predict`` instead.

    Attributes:
        source: the weights as they were given, for whoever reads them in another way.
        clip: the towers, with the activation of ``config``.
        taps: blocks of the image tower that are read.
        text_features: embeddings of sentences, computed once.
        prepared: how the official code prepares pictures where it differs from the weights' own
            way; most resize 8-bit values with Pillow, bicubic.
        positions: how it resizes the positional embedding.
        score_range: lowest and highest value that ``judge`` can give as a score.
        further: fingerprints of further networks by name; None for one that is not there.
    """

    prepared: ClassVar[dict] = {"interpolation": "bicubic", "antialias": True, "resize_on": "pil"}
    positions: ClassVar[PositionResize] = "bicubic"
    score_range: ClassVar[tuple[float, float]] = (0.0, 1.0)
    memory: PatchMemory  # None where the facts name no references
    taps: tuple[int, ...]

    def __init__(self, clip: CLIPBackbone, config: Any) -> None:
        given, clip = clip, clip.with_activation(getattr(config, "activation", "weights"))
        super().__init__(config, (clip,), replace(clip.preprocess, **self.prepared))
        self.source, self.further = given, dict[str, str | None]()
        self.clip = clip.clip.requires_grad_(False)
        self.text_features = TextFeatures(clip.clip, clip.fingerprint, reload=clip.reload)
        if "references" in self.info.knows_from:
            self.memory = PatchMemory()

    def look_beside(self, name: str, network: Backbone | None, taken: Input | None) -> None:
        """Have a further network, or none, that no learned value hangs on.

        ``facts`` name it, and pictures are prepared for it, too; what is learned stays bound to the
        CLIP alone.
        """
        self.further[name] = network.fingerprint if network else None
        if network and taken:
            self.inputs[name] = taken
            self.networks += (network_facts(network),)
            self.precision = told((self.source, network), "precision")

    def lacking(self, name: str) -> UnsupportedError:
        """What to say where it should judge, and was built without such a network."""
        return UnsupportedError(
            f"{self.info.title} judges with a {name}, and was loaded without one, to learn alone. "
            f"Load it to judge, with its checkpoint (--backbone {name}=NAME_OR_FOLDER)"
        )

    @staticmethod
    def seen_by_clip(inputs: Any) -> Tensor:
        """The CLIP's input, which is the only one or one of several."""
        images: Tensor = inputs["image"] if isinstance(inputs, Mapping) else inputs
        return images

    def facts(self) -> dict[str, Any]:
        """With the networks beside the CLIP; None for one that is not there."""
        return {**super().facts(), **self.further}

    def chosen_taps(self, *, last: bool = False) -> tuple[int, ...]:
        """``config.taps``; else the quarters of the image tower's depth, or its ``last`` block.

        Raises:
            ValueError: a block that the tower does not have.
        """
        layers = self.clip.config.vision.layers
        usual = (layers,) if last else quarter_depths(layers)
        return check_taps(self.config.taps or usual, layers)

    def grid(self, images: Tensor) -> Grid:
        """Grid of the patches of ``(B, 3, H, W)``."""
        height, width = images.shape[-2:]
        return Grid(*self.clip.visual.grid(images), (height, width))

    def run(self, images: Tensor, **options: Any) -> States:
        """Run the image tower on ``(B, 3, H, W)``; options as of ``VisionTower.encode``."""
        visual = self.clip.visual
        images = images.to(visual.proj.dtype)  # the towers may be bfloat16; what follows is not
        return visual.encode(visual.embed(images, resize=self.positions), **options)

    def texts_of(self, names: Sequence[str]) -> Tensor:
        """``words(...)["texts"]`` of several products, each computed once: ``(len(names), T, D)``.

        For methods whose words have that entry.
        """
        known = {name: self.words(Product(name))["texts"] for name in set(names)}
        return torch.stack([known[name] for name in names])

    def encode(self, images: Tensor) -> Any:
        """``Features``; by default with the residual stream's patches ``(B, N, W)`` per tap."""
        states = self.run(images, taps=self.taps)
        return Features(
            grid=self.grid(images),
            image=self.clip.visual.project(states.tokens[:, 0]).float(),
            patches=tuple(states.taps[tap][:, 1:].float() for tap in self.taps),
        )

    def references(self, encoded: Any) -> Mapping[str, Tensor]:
        """Patches of every tap."""
        return {f"patches{place}": each for place, each in enumerate(encoded.patches)}

    def judge(self, encoded: Any, knowledge: Knowledge) -> Prediction:
        """What the method says without references, whether there are any or not."""
        raise NotImplementedError(f"{type(self).__name__} does not say how it scores")

    def predict(
        self, encoded: Any, knowledge: Knowledge, left_out: Tensor | None = None
    ) -> Prediction:
        """``judge``, joined with the distance to references where there are any."""
        said = self.judge(encoded, knowledge)
        if not knowledge.shots:
            return said
        assert said.map is not None
        low, high = self.map_range(knowledge) or (0.0, 1.0)
        lowest, highest = self.score_range
        D = encoded.grid.map(self.patch_distance(encoded, knowledge, left_out))
        M = harmonic_mean([self.map_share(said.map, knowledge), D])
        s = ((said.score - lowest) / (highest - lowest)).clamp(0, 1)
        score = lowest + (highest - lowest) * harmonic_mean([s, M.amax((1, 2))])
        return replace(said, score=score, map=low + (high - low) * M)

    def map_share(self, map: Tensor, knowledge: Knowledge) -> Tensor:
        """The map that ``judge`` gave on a scale from 0 to 1, to be joined with distances.

        Linear in ``map_range``; a method whose range is far wider than its values overrides this.
        """
        low, high = self.map_range(knowledge) or (0.0, 1.0)
        return ((map - low) / (high - low)).clamp(0, 1)

    def patch_distance(
        self, encoded: Any, knowledge: Knowledge, left_out: Tensor | None = None
    ) -> Tensor:
        """Mean over taps of ``1 - cos`` to the nearest remembered patch, at most 1: ``(B, N)``."""
        taps = self.references(encoded).items()
        halves = [self.memory.distance(knowledge, name, F, left_out) for name, F in taps]
        return (2 * torch.stack(halves)).clamp(0, 1).mean(dim=0)


class WordDetector(CLIPDetector):
    """A detector that is described by words: WinCLIP's compositional ensemble.

    ``Config`` must have ``normal_states``, ``anomalous_states`` and ``templates``. Its knowledge
    holds ``texts (2, D)``, the mean normal and the mean anomalous text feature, and ``kind_texts
    (T, D)``, the mean of each defect kind; means of raw embeddings, not normalised.
    """

    prepared: ClassVar[dict] = {}
    undecided: ClassVar[float | None] = 0.5

    def __init__(self, clip: CLIPBackbone, config: Any) -> None:
        super().__init__(clip, config)
        self.prompts = PromptEnsemble(
            config.normal_states, config.anomalous_states, config.templates
        )

    def words(self, product: Product) -> dict[str, Tensor]:
        """One mean feature per state set, and one per defect kind."""
        kinds = product.vocabulary.kinds if product.vocabulary else ()
        features = self.text_features.means(
            [
                self.prompts.normal_prompts(product.name),
                self.prompts.anomalous_prompts(product.name),
                *(self.prompts.fill(phrases, product.name) for _, phrases in kinds),
            ]
        )
        return {"texts": features[:2], "kind_texts": features[2:]}

"""FiLo (ACM MM 2024, arXiv 2404.13671).

Fine descriptions of what may be wrong with a product, behind learned vectors that depend on the
picture, are compared with patches: those of CLIP's own stream through linear layers, those of a
stream of value-value attention through convolutions of several shapes. Grounding DINO says roughly
where: the sentences then name that place, and outside of its boxes the map counts less.

The published weights were made with tokens that later blocks had changed in place: those of the
first tap and of the second stream are its final ones, those of CLIP's own stream have gone through
the attention of the next block. ``aliased=False`` reads each where the paper says.

Symbols: o and v tokens of both streams, f the image's unit feature, N and A features of the normal
and abnormal sentences, T the texts [normal, abnormal], r the image's products with them, P
probabilities of one layer, M the map, D the joint dimension, W the image tower's width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as nnF
from torch import Tensor, nn

from zerodefect.backbones.clip_weights import CLIPBackbone
from zerodefect.backbones.grounder import Grounder
from zerodefect.backbones.grounding_names import is_published
from zerodefect.backbones.transformer import SecondStream, same_depth
from zerodefect.detector.clip_detector import Activation
from zerodefect.detector.configs import Count, Positive, Share, Taps, hyper_parameters
from zerodefect.detector.facts import MethodInfo, published_table
from zerodefect.detector.fine_descriptions import (
    DETAILS,
    PLACES,
    Adapter,
    Boxes,
    Details,
    Features,
    FineDetector,
    mean_direction,
)
from zerodefect.detector.knowledge import Knowledge
from zerodefect.detector.official_files import Checked
from zerodefect.detector.recipes import Recipe
from zerodefect.detector.registry import register
from zerodefect.layers.adapters import initialised, linear
from zerodefect.layers.grid import Grid
from zerodefect.layers.losses import dice_loss, focal_loss
from zerodefect.layers.similarity import inner_products, two_class
from zerodefect.layers.smoothing import gaussian_smooth
from zerodefect.types import Prediction, TrainingBatch

_SHAPES = ((1, 1), (3, 3), (5, 5), (7, 7), (1, 5), (5, 1))  # rows and columns of the convolutions
_LARGEST = 7
_CENTRE = 259.0  # pixels: half of the published input
_FIGURES = published_table(
    "logs in the authors' repository", "0-shot",
    ("pixel AUROC", "pixel F1-max", "pixel AP", "AUPRO", "image AUROC", "image F1-max", "image AP"),
    {
        "MVTec AD": (93.1, 52.0, 52.2, 61.7, 91.4, 92.8, 96.0),
        "VisA": (95.9, 38.5, 31.4, 85.4, 83.9, 81.3, 87.3),
    },
)  # fmt: skip


@hyper_parameters
class FiLoConfig:
    """Hyper-parameters; the defaults are the published code's, but for the descriptions.

    Attributes:
        details: what may be wrong: descriptions for any product, or by product; a text file with
            one a line or a JSON file will do. A phrase with ``{}`` stands as it is, others follow
            "abnormal {} with".
        own_words: the phrases of a product's vocabulary are its descriptions, where it has one.
        context_length: learned vectors in each sentence.
        taps: image-tower blocks (from 1) that are read; None for quarters of the depth.
        stream_start: first block with the second stream; None for 7 of 24.
        aliased: tokens as the published weights know them, see above.
        logit_scale: factor on cosine similarities before the softmax.
        temperature: of the image's products, in training alone.
        box_threshold: probability of the grounder's words, of which a box has one at least.
        largest_box: share of the picture that a box is smaller than.
        outside: factor on the map outside of all boxes.
        fixed_centre: where no box is found, the place at (259, 259) is named, whatever the input's
            size, as in the published code; else the middle.
        activation: see ``Activation``.
        seed: of the initial values.
    """

    details: Details = DETAILS
    own_words: bool = False
    context_length: Count = 12
    taps: Taps | None = None
    stream_start: Count | None = None
    aliased: bool = True
    logit_scale: Positive = 100.0
    temperature: Positive = 0.07
    box_threshold: Share = 0.25
    largest_box: Share = 0.7
    outside: Share = 0.7
    fixed_centre: bool = False
    activation: Activation = "gelu"
    seed: int = 0


class LinearLayers(nn.Module):
    """One linear layer for each of several inputs, under the official names."""

    def __init__(self, count: int, W: int, D: int, draws: torch.Generator) -> None:
        super().__init__()
        self.fc = nn.ModuleList(linear(W, D, draws) for _ in range(count))

    def forward(self, tokens: Sequence[Tensor]) -> list[Tensor]:
        """``(B, N, W)`` each ``-> (B, N, D)``."""
        return [layer(x) for layer, x in zip(self.fc, tokens, strict=True)]


class ShapedConvolutions(nn.Module):
    """Multi-shape interaction (MMCI): for each input the sum of six convolutions."""

    def __init__(self, count: int, W: int, D: int, draws: torch.Generator) -> None:
        super().__init__()
        for shape in _SHAPES:
            layers = (nn.utils.skip_init(nn.Conv2d, W, D, shape) for _ in range(count))
            self.add_module(_name(shape), nn.ModuleList(initialised(x, draws) for x in layers))

    def forward(self, tokens: Sequence[Tensor], grid: Grid) -> list[Tensor]:
        """``(B, N, W)`` each ``-> (B, N, D)``: all shapes in one convolution of the largest."""
        mapped = []
        for place, x in enumerate(tokens):
            weight, bias = self.kernel(place)
            y = nnF.conv2d(grid.fold(x.mT), weight, bias, padding=_LARGEST // 2)
            mapped.append(y.flatten(2).mT)
        return mapped

    def kernel(self, place: int) -> tuple[Tensor, Tensor]:
        """Sum of the kernels of an input, smaller ones in the middle, ``(D, W, 7, 7)``; biases."""
        padded, biases = [], []
        for rows, columns in _SHAPES:
            layer: Any = self.get_submodule(f"{_name((rows, columns))}.{place}")
            beside, above = (_LARGEST - columns) // 2, (_LARGEST - rows) // 2
            padded.append(nnF.pad(layer.weight, (beside, beside, above, above)))
            biases.append(layer.bias)
        return torch.stack(padded).sum(dim=0), torch.stack(biases).sum(dim=0)


def _name(shape: tuple[int, int]) -> str:
    return f"fc_{shape[0]}{shape[1]}"


@register(
    MethodInfo(
        name="filo",
        title="FiLo",
        school="assembly",
        knows_from=("training", "words", "references"),
        optional=("references",),
        paper="Gu et al., ACM MM 2024, arXiv 2404.13671",
        code_licence="Apache-2.0",
        parity="official code at 36ff29ca with made-up outputs of its grounder: forward, boxes and "
        "places, losses, gradients",
        figures=_FIGURES,
        backbones={"clip": "clip", "grounder": "grounder"},
        spare=("grounder",),
        judging=("grounder",),
    )
)
class FiLo(FineDetector):
    """Fine descriptions, and several shapes. The map is a probability.

    The score is the mean of the map's highest value, before boxes weigh it, and of a cosine divided
    by the root of 2.
    """

    Config = FiLoConfig
    recipe = Recipe(
        15, 1, 1e-3, optimizer="adamw", betas=(0.5, 0.999), weight_decay=0.01, seed=0
    )  # on one picture at a time
    adapter_recipe = recipe.changed(epochs=5, learning_rate=1e-5)
    score_range = (-(0.5**0.5) / 2, (0.5**0.5 + 1) / 2)
    positions = "bicubic"
    adapter: Adapter
    config: FiLoConfig

    def __init__(
        self,
        clip: CLIPBackbone,
        grounder: Grounder | None = None,
        config: FiLoConfig | None = None,
    ) -> None:
        super().__init__(clip, grounder, config or FiLoConfig())
        vision, D = self.clip.config.vision, self.clip.config.embed_dim
        start = self.config.stream_start or same_depth(7, 24, vision.layers)
        if start > vision.layers:
            raise ValueError(f"stream_start {start}: the image tower has blocks 1..{vision.layers}")
        self.adapter = Adapter(D, self.draws)
        self.stream = SecondStream("vv", start)
        second = sum(tap >= start for tap in self.taps)
        self.decoder_linear = LinearLayers(len(self.taps), vision.width, D, self.draws)
        self.decoder_cov = ShapedConvolutions(second, vision.width, D, self.draws)

    # --- in the order of the paper ------------------------------------------------------------

    def encode(self, inputs: Any) -> Features:
        """Tokens of both streams, as ``config.aliased`` has them."""
        images, shown = self.image_side(inputs)
        last, start = self.clip.config.vision.layers, self.stream.start
        later = {tap + 1 for tap in self.taps if tap < last}
        states = self.run(images, taps=sorted({*self.taps, *later, last}), second=self.stream)
        assert states.second is not None
        v = states.second
        own, other = [], []
        for tap in self.taps:
            o = states.taps[tap]
            if self.config.aliased and tap == start - 1:  # where the second stream began
                o = v
            elif self.config.aliased and start <= tap < last:
                o = states.middle[tap + 1]
            own.append(o[:, 1:].float())
            if tap >= start:
                other.append((v if self.config.aliased else states.second_taps[tap])[:, 1:].float())
        g = self.clip.visual.project(states.tokens[:, 0]).float()
        return Features(self.grid(images), g, tuple(own), tuple(other), shown)

    def judge(self, encoded: Features, knowledge: Knowledge) -> Prediction:
        """Everything but references."""
        f = self.adapted(encoded.image)
        boxes = self.boxes(encoded, knowledge)
        places = [self.place(found, encoded.grid.size) for found in boxes]
        T = self.texts(f, [knowledge] * len(f), places)
        r = (f[:, None] * T).sum(dim=-1)
        M = torch.stack([self.blurred(P[:, 1]) for P in self.layer_maps(encoded, T)]).mean(dim=0)
        return Prediction((r[:, 1] + M.amax(dim=(1, 2))) / 2, self.weighed(M, boxes))

    def adapted(self, g: Tensor) -> Tensor:
        """f of image features ``g (B, D)``."""
        return nnF.normalize(self.adapter(g), dim=-1)

    def texts(
        self, f: Tensor, known: Sequence[Mapping[str, Tensor] | Knowledge], places: Sequence[Any]
    ) -> Tensor:
        """T of each picture, ``(B, 2, D)``: unit length together.

        Args:
            f: ``(B, D)``, what the learned vectors depend on.
            known: token ids of each picture's product.
            places: number in ``PLACES`` that its sentences name; None for all of them.
        """
        both = self.normal_prompt_learner(f), self.abnormal_prompt_learner(f)
        rows = []
        for normal, abnormal, own, place in zip(*both, known, places, strict=True):
            ids = own["abnormal_ids"][slice(place, None, None if place is None else len(PLACES))]
            N, A = self.sentences(own["normal_ids"], normal), self.sentences(ids, abnormal)
            rows.append(torch.stack([mean_direction(N), mean_direction(A)]))
        T = torch.stack(rows)
        return T / T.norm(dim=(1, 2), keepdim=True)

    def mapped(self, encoded: Features) -> list[Tensor]:
        """Tokens in the joint space, ``(B, N, D)`` of unit length; those of the layers first."""
        own = self.decoder_linear(encoded.patches)
        shaped = self.decoder_cov(encoded.convolved, encoded.grid)
        return [nnF.normalize(y.float(), dim=-1) for y in (*own, *shaped)]

    def layer_maps(self, encoded: Features, T: Tensor) -> list[Tensor]:
        """P of each layer: normal and abnormal, ``(B, 2, H, W)``."""
        return [self.probabilities(y, T, encoded.grid) for y in self.mapped(encoded)]

    def probabilities(self, y: Tensor, T: Tensor, grid: Grid) -> Tensor:
        """Normal and abnormal per pixel."""
        c = self.config.logit_scale * inner_products(y, T)
        return two_class(grid.map(c[..., 1] - c[..., 0], align_corners=True))

    @staticmethod
    def blurred(p: Tensor) -> Tensor:
        """``(B, H, W)`` over 3 x 3 pixels."""
        return gaussian_smooth(p, 4.0, edge_twice=False, radius=1)

    def place(self, found: Boxes | None, size: tuple[int, int]) -> int | None:
        """Number in ``PLACES`` of the strongest box, of the middle where there is none."""
        if found is None:
            return None
        middle = (_CENTRE, _CENTRE) if self.config.fixed_centre else (size[1] / 2, size[0] / 2)
        x, y = found.centre or middle
        column, row = _third(x, size[1]), _third(y, size[0])
        return None if row is None or column is None else 3 * row + column

    # --- training -----------------------------------------------------------------------------

    def readers(self) -> list[nn.Parameter]:
        """The decoders of both streams."""
        return [*self.decoder_linear.parameters(), *self.decoder_cov.parameters()]

    def map_loss(self, batch: TrainingBatch) -> dict[str, Tensor]:
        """Focal and Dice losses of every layer; Dice row by row, as in the published code."""
        encoded, known = self.seen(batch)
        f = nnF.normalize(encoded.image, dim=-1)
        maps = self.layer_maps(encoded, self.texts(f, known, [None] * len(f)))
        m = batch.masks.flatten(0, 1)  # (B H, W)
        dice = [dice_loss(P[:, 1].flatten(0, 1), m) for P in maps]
        normal = [dice_loss(P[:, 0].flatten(0, 1), 1 - m) for P in maps]
        focal = [focal_loss(P, batch.masks) for P in maps]
        losses = {"focal": focal, "dice_abnormal": dice, "dice_normal": normal}
        return {name: torch.stack(each).sum() for name, each in losses.items()}

    def image_loss(self, batch: TrainingBatch) -> dict[str, Tensor]:
        """Cross-entropy of the image's products; texts are held fixed."""
        encoded, known = self.seen(batch)
        f = self.adapted(encoded.image)
        with torch.no_grad():
            T = self.texts(f, known, [None] * len(f))
        r = (f[:, None] * T).sum(dim=-1)
        return {"image": nnF.cross_entropy(r / self.config.temperature, batch.labels)}

    # --- official checkpoints -------------------------------------------------------------------

    @classmethod
    def official_options(cls, published: Mapping[str, Any]) -> dict[str, Any]:
        """Length of the learned vectors."""
        state = published.get("filo")
        ctx = state.get("normal_prompt_learner.ctx") if isinstance(state, Mapping) else None
        return {"context_length": len(ctx)} if isinstance(ctx, Tensor) and ctx.ndim == 2 else {}

    def official_state(self, published: Mapping[str, Any]) -> dict[str, Tensor]:
        """Learned values from ``{"filo": ...}``; its names are ours, besides a copy of CLIP."""
        inner = published.get("model", published)
        if isinstance(inner, Mapping) and is_published(map(str, inner)):
            raise ValueError(
                "this is a grounder of the authors', not what FiLo learned. Name it where pictures "
                "are judged (--backbone grounder=FILE), and import filo_train_on_*.pth"
            )
        checked = Checked(published, "FiLo checkpoint")
        values = checked.inside("filo")
        state = {name: values.take(name, p.shape) for name, p in self.learned.items()}
        for copy in ("text_encoder.*", "clip_model.*"):
            values.ignore(copy)
        checked.done()
        return state


def _third(at: float, length: int) -> int | None:
    """Third of a side that a point is in; None between two, whose whole pixels have a gap."""
    ends = ((0, length // 3), (length // 3 + 1, 2 * length // 3 - 1), (2 * length // 3, length - 1))
    return next((third for third, (a, b) in enumerate(ends) if a <= at <= b), None)

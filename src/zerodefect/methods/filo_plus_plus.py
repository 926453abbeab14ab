"""FiLo++ (arXiv 2501.10067), completed: no code is public, and of the paper we know the outline.

Known: sentences of fixed words beside those with learned vectors; those that are too much like the
other side are left out for each picture; deformable convolutions of several sizes over patches;
boxes of a grounder; few-shot, patches are compared with reference patches near the same place.
Ours: how each of these is done, written below in the simplest form.

Symbols: f the image's unit feature, N and A unit features of normal and abnormal sentences, T the
texts [normal, abnormal], G_s patches of stage s as a map, M0 the zero-shot map, Mm that of the
references, p the image's probability, D the joint dimension, W the image tower's width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import torch
import torch.nn.functional as nnF
from pydantic import Field
from torch import Tensor, nn

from zerodefect.backbones.clip_weights import CLIPBackbone
from zerodefect.backbones.grounder import Grounder
from zerodefect.detector.clip_detector import Activation
from zerodefect.detector.configs import Count, Odd, Positive, Share, Taps, hyper_parameters
from zerodefect.detector.facts import MethodInfo
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
from zerodefect.detector.knowledge import Knowledge, Product
from zerodefect.detector.recipes import Recipe
from zerodefect.detector.registry import register
from zerodefect.layers.adapters import initialised
from zerodefect.layers.grid import Grid
from zerodefect.layers.losses import map_terms
from zerodefect.layers.similarity import inner_products, two_class
from zerodefect.types import Prediction, TrainingBatch

_AT_ONCE = 256  # patches that are compared with all remembered ones


@hyper_parameters
class FiLoPlusPlusConfig:
    """Hyper-parameters, ours but for FiLo's.

    Attributes:
        details: what may be wrong, as of FiLo: descriptions for any product, or by product.
        own_words: the phrases of a product's vocabulary are its descriptions, where it has one.
        domain: kind of photo in the fixed sentences.
        context_length: learned vectors in each other sentence.
        taps: image-tower blocks (from 1) that are read; None for quarters of the depth.
        kernels: sides of the deformable convolutions, in patches.
        margin: by how much a sentence is nearer to its own side than to the other, at least.
        adapted: whether the image's feature goes through a learned adapter.
        window: rows and columns within which references count; None for all of them.
        logit_scale: factor on cosine similarities of patches before the softmax.
        temperature: of the image's probability.
        box_threshold: probability of the grounder's words, of which a box has one at least.
        largest_box: share of the picture that a box is smaller than.
        outside: factor on the map outside of all boxes.
        activation: see ``Activation``.
        seed: of the initial values.
    """

    details: Details = DETAILS
    own_words: bool = False
    domain: str = "industrial"
    context_length: Count = 12
    taps: Taps | None = None
    kernels: Annotated[tuple[Odd, ...], Field(min_length=1)] = (1, 3, 5, 7)
    margin: Annotated[float, Field(ge=-2, le=2)] = 0.0
    adapted: bool = True
    window: Count | None = 2
    logit_scale: Positive = 100.0
    temperature: Positive = 0.07
    box_threshold: Share = 0.25
    largest_box: Share = 0.7
    outside: Share = 0.7
    activation: Activation = "gelu"
    seed: int = 0


class DeformableConvolutions(nn.Module):
    """Per stage the sum of deformable convolutions of several sizes (MDCI).

    Offsets begin at zero, as ordinary convolutions.
    """

    def __init__(
        self, stages: int, kernels: Sequence[int], W: int, D: int, draws: torch.Generator
    ) -> None:
        super().__init__()
        self.kernels = tuple(kernels)
        self.offset, self.deform = nn.ModuleList(), nn.ModuleList()
        for _ in range(stages):
            self.offset.append(_convolutions({k: 2 * k * k for k in kernels}, W, None))
            self.deform.append(_convolutions(dict.fromkeys(kernels, D), W, draws))

    def offsets(self, G: Tensor, stage: int, kernel: int) -> Tensor:
        """Down and right, tap by tap: ``(B, W, h, w) -> (B, 2 k^2, h, w)``."""
        layer: Any = self.offset.get_submodule(f"{stage}.{kernel}")
        return nnF.conv2d(G, layer.weight, layer.bias, padding=kernel // 2)

    def forward(self, G: Tensor, stage: int) -> Tensor:
        """``(B, W, h, w) -> (B, D, h, w)``."""
        from torchvision.ops import deform_conv2d  # its import takes long

        with torch.autocast(G.device.type, enabled=False):  # there is no other kernel for it
            rows = []
            for kernel in self.kernels:
                layer: Any = self.deform.get_submodule(f"{stage}.{kernel}")
                moved, reach = self.offsets(G, stage, kernel), kernel // 2
                rows.append(deform_conv2d(G, moved, layer.weight, layer.bias, padding=reach))
            return torch.stack(rows).sum(dim=0)


def _convolutions(
    channels: Mapping[int, int], W: int, draws: torch.Generator | None
) -> nn.ModuleDict:
    """By kernel size; zero where nothing is drawn."""
    layers = {k: nn.utils.skip_init(nn.Conv2d, W, count, k) for k, count in channels.items()}
    for layer in layers.values():
        if draws is not None:
            initialised(layer, draws)
            continue
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    return nn.ModuleDict({str(k): layer for k, layer in layers.items()})


@register(
    MethodInfo(
        name="filo_plus_plus",
        title="FiLo++ (our completion)",
        school="assembly",
        knows_from=("training", "words", "references"),
        optional=("references",),
        paper="Gu et al., 2025, arXiv 2501.10067",
        code_licence="none public",
        parity="a completion: our own equations in NumPy, float64; nothing of the authors'",
        completion=True,
        backbones={"clip": "clip", "grounder": "grounder"},
        spare=("grounder",),
        judging=("grounder",),
    )
)
class FiLoPlusPlus(FineDetector):
    """Fused descriptions and deformable convolutions. Map and score are means of probabilities.

    With references each is the mean of that and of distances ``(1 - cos) / 2``.
    """

    Config = FiLoPlusPlusConfig
    recipe = Recipe(15, 1, 1e-3, optimizer="adamw", betas=(0.5, 0.999), weight_decay=0.01)
    adapter_recipe = recipe.changed(epochs=5, learning_rate=1e-5)
    positions = "bicubic_antialias"
    config: FiLoPlusPlusConfig

    def __init__(
        self,
        clip: CLIPBackbone,
        grounder: Grounder | None = None,
        config: FiLoPlusPlusConfig | None = None,
    ) -> None:
        super().__init__(clip, grounder, config or FiLoPlusPlusConfig())
        W, D = self.clip.config.vision.width, self.clip.config.embed_dim
        own = self.config
        self.mdci = DeformableConvolutions(len(self.taps), own.kernels, W, D, self.draws)
        self.adapter = Adapter(D, self.draws) if own.adapted else None

    def words(self, product: Product) -> dict[str, Tensor]:
        """Token ids, and unit features ``(7, D)`` and ``(9m, D)`` of the fixed sentences."""
        fixed = {}
        for name, states in zip(("normal", "abnormal"), self.states(product), strict=True):
            sentences = [f"A {self.config.domain} photo of {state}." for state in states]
            fixed[name] = nnF.normalize(self.text_features.rows(sentences), dim=-1)
        return {**super().words(product), **fixed}

    # --- in our order ---------------------------------------------------------------------------

    def encode(self, inputs: Any) -> Features:
        """G_s and the image's feature."""
        images, shown = self.image_side(inputs)
        one = super().encode(images)
        return Features(one.grid, one.image, one.patches, shown=shown)

    def predict(
        self, encoded: Features, knowledge: Knowledge, left_out: Tensor | None = None
    ) -> Prediction:
        """Words, and the distance to references where there are any."""
        f = nnF.normalize(encoded.image, dim=-1)
        boxes = self.boxes(encoded, knowledge)
        places = [self.place(found, encoded.grid.size) for found in boxes]
        T = self.texts(f, [knowledge] * len(f), places)
        p = self.image_logits(encoded.image, T).softmax(dim=-1)[:, 1]
        M = self.weighed(self.map(encoded, T), boxes)
        if knowledge.shots:
            d = self.distances(encoded, knowledge, left_out).mean(dim=1)  # (B, N)
            Mm = self.weighed(encoded.grid.map(d, align_corners=True), boxes)
            M = (M + Mm) / 2
        return Prediction((p + M.amax(dim=(1, 2))) / 2, M)

    def place(self, found: Boxes | None, size: tuple[int, int]) -> int | None:
        """Number in ``PLACES`` of the strongest box."""
        if found is None or found.centre is None:
            return None
        (x, y), (height, width) = found.centre, size
        column, row = (min(max(int(3 * c / s), 0), 2) for c, s in ((x, width), (y, height)))
        return 3 * row + column

    def sides(
        self, f: Tensor, known: Sequence[Any], places: Sequence[int | None]
    ) -> list[tuple[Tensor, Tensor]]:
        """N ``(14, D)`` and A ``(2m, D)`` of each picture, all ``(18m, D)`` without a place.

        Arguments as of ``texts``; fixed sentences come first.
        """
        both = self.normal_prompt_learner(f), self.abnormal_prompt_learner(f)
        found = []
        for normal, abnormal, own, place in zip(*both, known, places, strict=True):
            some = slice(place, None, None if place is None else len(PLACES))
            learned = [
                nnF.normalize(self.sentences(own["normal_ids"], normal), dim=-1),
                nnF.normalize(self.sentences(own["abnormal_ids"][some], abnormal), dim=-1),
            ]
            fixed = own["normal"], own["abnormal"][some]
            N, A = (torch.cat(pair) for pair in zip(fixed, learned, strict=True))
            found.append((N, A))
        return found

    def texts(self, f: Tensor, known: Sequence[Any], places: Sequence[int | None]) -> Tensor:
        """T of each picture, ``(B, 2, D)``: of the sentences that stay.

        Args:
            f: ``(B, D)``, what the learned vectors depend on.
            known: words of each picture's product.
            places: number in ``PLACES`` that its sentences name; None for all of them.
        """
        rows = []
        for N, A in self.sides(f, known, places):
            kept = zip((N, A), self.margins(N, A), strict=True)
            rows.append(torch.stack([mean_direction(x[self.staying(m)]) for x, m in kept]))
        return torch.stack(rows)

    @staticmethod
    def margins(N: Tensor, A: Tensor) -> tuple[Tensor, Tensor]:
        """How much nearer each sentence is to its own side than to the other one."""
        apart = mean_direction(N) - mean_direction(A)
        return N @ apart, -A @ apart

    def staying(self, margins: Tensor) -> Tensor:
        """Those above the least margin, or the one with the largest: ``(s,)`` bool."""
        keep = margins > self.config.margin
        return keep if keep.any() else margins == margins.max()

    def image_logits(self, g: Tensor, T: Tensor) -> Tensor:
        """Of the image's feature ``g (B, D)``, normal and abnormal, ``(B, 2)``."""
        f = nnF.normalize(g if self.adapter is None else self.adapter(g), dim=-1)
        return (f[:, None] * T).sum(dim=-1) / self.config.temperature

    def mapped(self, encoded: Features) -> list[Tensor]:
        """Per stage ``(B, N, D)``, unit length."""
        maps = (
            self.mdci(encoded.grid.fold(x.mT), stage) for stage, x in enumerate(encoded.patches)
        )
        return [nnF.normalize(y.flatten(2).mT, dim=-1) for y in maps]

    def logits(self, y: Tensor, T: Tensor) -> Tensor:
        """Normal and abnormal, ``(B, N, 2)``."""
        return self.config.logit_scale * inner_products(y, T)

    def stage_maps(self, encoded: Features, T: Tensor) -> list[Tensor]:
        """Probabilities of normal and abnormal per stage, ``(B, 2, H, W)``."""
        c = [self.logits(y, T) for y in self.mapped(encoded)]
        grid = encoded.grid
        return [two_class(grid.map(s[..., 1] - s[..., 0], align_corners=True)) for s in c]

    def map(self, encoded: Features, T: Tensor) -> Tensor:
        """Mean over stages of the abnormal one, before boxes weigh it: ``(B, H, W)``."""
        return torch.stack([P[:, 1] for P in self.stage_maps(encoded, T)]).mean(dim=0)

    # --- references -----------------------------------------------------------------------------

    def references(self, encoded: Features) -> Mapping[str, Tensor]:
        """Patches of every stage, and where they lie."""
        stages = {f"stage{stage}": x for stage, x in enumerate(encoded.patches)}
        at = _places(encoded.grid).to(encoded.image)
        return {**stages, "places": at.expand(len(encoded.image), -1, -1)}

    def distances(
        self, encoded: Features, knowledge: Knowledge, left_out: Tensor | None = None
    ) -> Tensor:
        """``(1 - cos) / 2`` to the nearest reference patch in the window, ``(B, K, N)``.

        Where references were thinned, or none is so near, all of them count.
        """
        features = self.references(encoded)
        at = features.pop("places") if isinstance(features, dict) else None
        assert at is not None
        ordinary = self.config.window is None or not self.memory.leaves_out(knowledge)
        stages = []
        for name, x in features.items():
            if ordinary:
                stages.append(self.memory.distance(knowledge, name, x, left_out))
                continue
            rows = zip(x, [None] * len(x) if left_out is None else left_out, strict=True)
            near = [self._near(z, at[0], knowledge, name, own, encoded.grid) for z, own in rows]
            stages.append(torch.stack(near))
        return torch.stack(stages, dim=1)

    def _near(
        self,
        z: Tensor,
        at: Tensor,
        knowledge: Knowledge,
        name: str,
        left_out: Tensor | None,
        grid: Grid,
    ) -> Tensor:
        """Of the patches ``(N, W)`` of one picture at places ``(N, 3)``: ``(N,)``."""
        bank, there = self.memory.bank(knowledge, name), self.memory.bank(knowledge, "places")
        others = torch.ones_like(bank.groups, dtype=torch.bool)
        if left_out is not None:
            others = bank.groups != left_out
        if not others.any():
            raise RuntimeError("leave-one-out needs at least two reference images")
        kept, places = bank.features[others], _shares(there.features[others])
        cells = places.new_tensor(grid.shape)
        reach = (self.config.window or 0) + 0.01  # of rounding
        found = []
        unit, own = nnF.normalize(z, dim=-1), _shares(at)
        for some, here in zip(unit.split(_AT_ONCE), own.split(_AT_ONCE), strict=True):
            cos = some @ kept.T
            far = (((here[:, None] - places) * cells).abs() > reach).any(dim=2)
            inside = cos.masked_fill(far, -torch.inf).amax(dim=1)
            found.append(torch.where(inside.isfinite(), inside, cos.amax(dim=1)))
        return ((1 - torch.cat(found)) / 2).clamp(0, 1)

    # --- training -------------------------------------------------------------------------------

    def readers(self) -> list[nn.Parameter]:
        """The convolutions."""
        return list(self.mdci.parameters())

    def map_loss(self, batch: TrainingBatch) -> dict[str, Tensor]:
        """Focal and Dice losses of every stage's map."""
        encoded, known = self.seen(batch)
        f = nnF.normalize(encoded.image, dim=-1)
        maps = self.stage_maps(encoded, self.texts(f, known, [None] * len(f)))
        return map_terms(maps, batch.masks)

    def image_loss(self, batch: TrainingBatch) -> dict[str, Tensor]:
        """Cross-entropy of the image."""
        encoded, known = self.seen(batch)
        with torch.no_grad():
            f = nnF.normalize(encoded.image, dim=-1)
            T = self.texts(f, known, [None] * len(f))
        logits = self.image_logits(encoded.image, T)
        return {"image": nnF.cross_entropy(logits, batch.labels)}


def _places(grid: Grid) -> Tensor:
    """``(N, 3)``: row and column as shares of the grid, and 1, which keeps them under a norm."""
    rows, columns = ((torch.arange(n) + 0.5) / n for n in grid.shape)
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    return torch.stack([y, x, torch.ones_like(y)], dim=-1).flatten(0, 1)


def _shares(places: Tensor) -> Tensor:
    """Row and column ``(..., 2)`` of places of any length."""
    return places[..., :2] / places[..., 2:]

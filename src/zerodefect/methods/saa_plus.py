"""SAA+, Segment Any Anomaly (Cao et al., 2023, arXiv 2305.10724).

A grounder proposes boxes for phrases of defects, a segmenter cuts them out, and hybrid prompts
choose: phrases (language), how many objects there are and how large a defect may be (property),
how little a place is like the rest of the picture (saliency), how many defects there are at most
(confidence). Nothing is trained.

Symbols: n the number of objects, r the largest share of an object that a defect takes, k the
number of defects that are kept, f unit features (C, h, w), sigma the saliency (H, W), M_i the
masks, s_i their scores and s'_i those after the saliency.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from zerodefect.backbones.backbone import LayeredBackbone, check_layers, layers_at
from zerodefect.backbones.grounder import Found, Grounder, Queries, caption_of, to_corners
from zerodefect.backbones.segmenter import Masks, Prompts, Segmenter
from zerodefect.detector.composed import SetLevel
from zerodefect.detector.configs import Count, Layers, NotNegative, Share, hyper_parameters
from zerodefect.detector.contract import Detector, Input, PatchFeatures
from zerodefect.detector.facts import MethodInfo
from zerodefect.detector.knowledge import Knowledge, Product
from zerodefect.detector.patch_memory import PatchMemory
from zerodefect.detector.registry import register
from zerodefect.images import Preprocess
from zerodefect.layers.grid import Grid
from zerodefect.layers.scaling import MinMax
from zerodefect.layers.similarity import upsample
from zerodefect.prompts.public_defects import DefectPrompts, public_prompts
from zerodefect.types import Prediction

_GENERAL = ("defect on {}", "damage on {}", "flaw on {}")
_AT_ONCE = 32  # masks at the map's size, or blocks of 32 times 32 rows of similarities
_CELLS = 64  # a side of the grid on which boxes vote for kinds


@hyper_parameters
class SAAPlusConfig:
    """Hyper-parameters, the hybrid prompts as fields of their own.

    What is None or empty is what the authors wrote for the product if it is a class of MVTec AD,
    VisA, KSDD2 or MTD (``published``), else the first of ``Product.counts``, else the default.

    Attributes:
        captions: phrases of defects, besides "defect", "damage" and "flaw on" the product.
        background: text that no answer may hold; by default the product's name.
        object: phrase for the whole object; by default the product's name.
        count: objects in a picture; 1.
        area: largest defect as a share of the largest object; 0.9.
        most: defects that are kept; 5.
        saliency: weight of the saliency; 0 for none.
        nearest: places of the picture that a place is compared with, those least like it.
        published: whether the authors' prompts are taken for the classes of public data sets.
        box_threshold, text_threshold: probabilities that boxes and words of an answer exceed.
        swap_colours: whether segmenter and saliency see blue for red, as in the official code.
        layers: of the saliency features; None for those of strides 4, 8 and 16.
        saliency_size: side of their input, in pixels. The authors take 1024 for several objects.
    """

    captions: tuple[str, ...] = ()
    background: str = ""
    object: str = ""
    count: Count | None = None
    area: Share | None = None
    most: Count | None = None
    saliency: NotNegative = 3.0
    nearest: Count = 400
    published: bool = True
    box_threshold: Share = 0.1
    text_threshold: Share = 0.1
    swap_colours: bool = True
    layers: Layers | None = None
    saliency_size: Count = 256


@dataclass(frozen=True)
class Seen:
    """Image side of one batch.

    Attributes:
        size: ``(H, W)`` of the map.
        embedded: what the segmenter made of the pictures.
        pixels: what the grounder sees of them; it looks when it knows what for.
        features: ``(B, C, h, w)`` of unit length, for the saliency.
    """

    size: tuple[int, int]
    embedded: Sequence[Tensor]
    pixels: Tensor
    features: Tensor


@register(
    MethodInfo(
        name="saa_plus",
        title="SAA+",
        school="assembly",
        knows_from=("words", "references"),
        optional=("references",),
        paper="Cao et al., 2023, arXiv 2305.10724",
        code_licence="none stated by the authors; written from its formulas",
        parity="official code at 23acbd90 with stand-ins for the networks: prompts, filters, "
        "saliency, scores, map",
        backbones={"segmenter": "segmenter", "grounder": "grounder", "saliency": "features"},
    )
)
class SAAPlus(Detector):
    """Masks of what phrases of defects find. Scores and maps lie in [0, e^saliency).

    With references, which the paper does not know, the map is weighed with the distance of its
    places from the nearest remembered ones, ``1 - cos`` of the saliency's features.
    """

    Config = SAAPlusConfig
    tells_kinds = True
    monotone_memory = True  # the distance to the nearest of more references never grows
    set_levels: ClassVar[tuple[str, ...]] = ("min_max",)
    memory: PatchMemory
    config: SAAPlusConfig

    def __init__(
        self,
        segmenter: Segmenter,
        grounder: Grounder,
        saliency: LayeredBackbone,
        config: SAAPlusConfig | None = None,
    ) -> None:
        config = config or SAAPlusConfig()
        self_layers = tuple(config.layers or layers_at(saliency, (4, 8, 16)))
        check_layers(saliency, self_layers)
        multiple, side = max(saliency.layers[name] for name in self_layers), config.saliency_size
        if side % multiple:
            raise ValueError(f"option saliency_size={side}: a multiple of {multiple} is needed")
        bilinear: Any = {"size": (side, side), "interpolation": "bilinear", "antialias": False}
        inputs = {
            "segmenter": Input(segmenter.preprocess, segmenter.stride),
            "grounder": Input(grounder.preprocess, grounder.stride),
            "saliency": Input(replace(saliency.preprocess, **bilinear), multiple),
        }
        super().__init__(config, (segmenter, grounder, saliency), inputs)
        self.segmenter, self.grounder, self.saliency_features = segmenter, grounder, saliency
        self.layers, self.memory = self_layers, PatchMemory()

    # --- hybrid prompts -------------------------------------------------------------------------

    def prompts(self, product: Product) -> DefectPrompts:
        """What is asked for of a product: the user's, the authors', or the defaults."""
        own, name = self.config, product.name
        usual = DefectPrompts((), name, name)
        if product.counts:
            usual = replace(usual, object=product.counts[0][0], count=product.counts[0][1])
        usual = (public_prompts(name) if own.published else None) or usual
        general = tuple(phrase.format(name) for phrase in _GENERAL)
        return DefectPrompts(
            captions=(*general, *(own.captions or usual.captions)),
            background=own.background or usual.background,
            object=own.object or usual.object,
            count=own.count or usual.count,
            most=own.most or usual.most,
            area=usual.area if own.area is None else own.area,
        )

    def words(self, product: Product) -> dict[str, Tensor]:
        """Nothing is computed: a grounder reads captions together with the picture.

        Raises:
            ValueError: a caption that is longer than the grounder reads.
        """
        asked = self.prompts(product)
        kinds = [self._kinds_caption(product)[0]] if product.vocabulary else []
        for caption in (asked.object, *asked.captions, *kinds):
            self.grounder.tokens(caption_of(caption))
        return {}

    # --- in the order of the paper --------------------------------------------------------------

    def encode(self, inputs: Mapping[str, Tensor]) -> Seen:
        """Everything that does not depend on the words."""
        pixels, salient = inputs["segmenter"], inputs["saliency"]
        if self.config.swap_colours:
            pixels = swapped(pixels, self.inputs["segmenter"].preprocess)
            salient = swapped(salient, self.inputs["saliency"].preprocess)
        maps = self.saliency_features.maps(salient, self.layers)
        size = maps[0].shape[-2:]
        f = torch.cat([F.interpolate(each, size, mode="nearest") for each in maps], dim=1)
        height, width = inputs["segmenter"].shape[-2:]
        embedded = self.segmenter.embed(pixels)
        return Seen((height, width), embedded, inputs["grounder"], F.normalize(f, dim=1))

    def predict(
        self, encoded: Seen, knowledge: Knowledge, left_out: Tensor | None = None
    ) -> Prediction:
        """The grounder runs here: what it sees hangs on the words."""
        assert knowledge.product is not None
        asked = self.prompts(knowledge.product)
        objects = self.grounder.queries(encoded.pixels, asked.object)
        defects = [self.grounder.queries(encoded.pixels, caption) for caption in asked.captions]
        rows = range(len(encoded.features))
        map = torch.stack([self.judge(encoded, row, asked, objects, defects) for row in rows])
        if knowledge.shots:
            grid, values = self._tokens(encoded)
            D = 2 * self.memory.distance(knowledge, "saliency", values, left_out)  # (B, N)
            map = map * grid.map(D.clamp(0, 1))
        return Prediction(map.amax((1, 2)), map, self._type_map(encoded, knowledge.product))

    def judge(
        self,
        encoded: Seen,
        row: int,
        asked: DefectPrompts,
        objects: Queries,
        defects: Sequence[Queries],
    ) -> Tensor:
        """Map ``(H, W)`` of one picture."""
        O = self.propose([objects], row, None, 1 / asked.count)  # noqa: E741
        A_obj = float(O.areas.max()) if len(O.scores) else 1.0
        found = self.propose(defects, row, asked.background, A_obj * asked.area)
        if not len(found.scores):
            return encoded.features.new_zeros(encoded.size)
        masks = self.cut_out(encoded, row, found)
        several = asked.count > 1 and len(O.scores) > 1
        whole = self.cut_out(encoded, row, O).at(encoded.size)[:, 0] if several else None
        sigma = self.saliency(encoded.features[row], whole, encoded.size)
        return self.weighed(masks, self.rescored(masks, found.scores, sigma), asked.most, sigma)

    def propose(
        self, asked: Sequence[Queries], row: int, background: str | None, largest: float
    ) -> Found:
        """Boxes smaller than a share of the picture whose words do not name the background."""
        box, text, taken = self.config.box_threshold, self.config.text_threshold, []
        for queries in asked:
            found = self.grounder.found(queries, row, box_threshold=box, text_threshold=text)
            named = [background is None or background not in phrase for phrase in found.phrases]
            fits = (found.areas < largest) & (found.areas > 0)
            taken.append(found.rows(fits & torch.tensor(named, dtype=torch.bool).to(fits.device)))
        return Found(
            torch.cat([each.boxes for each in taken]),
            torch.cat([each.scores for each in taken]),
            tuple(phrase for each in taken for phrase in each.phrases),
        )

    def cut_out(self, encoded: Seen, row: int, found: Found) -> Masks:
        """One mask for each box."""
        return self.segmenter.masks(encoded.embedded, row, Prompts(boxes=found.corners))

    def saliency(self, f: Tensor, objects: Tensor | None, size: tuple[int, int]) -> Tensor:
        """``(H, W)`` in [0, 1]: how little a place is like the rest, or like other objects."""
        if objects is None:
            sigma = self_saliency(f, self.config.nearest)
        else:
            small = F.interpolate(objects[None].float(), f.shape[-2:], mode="nearest")[0]
            sigma = object_saliency(f, small > 0)
        return upsample(sigma[None], size)[0]

    def rescored(self, masks: Masks, s: Tensor, sigma: Tensor) -> Tensor:
        """``s' = s exp(3 mean of sigma inside the mask)``, ``(n,)``."""
        means = []
        for some in torch.arange(len(s)).split(_AT_ONCE):
            M = _rows(masks, some).at((sigma.shape[0], sigma.shape[1]))[:, 0]
            means.append((M * sigma).sum((1, 2)) / M.sum((1, 2)).clamp(min=1))
        return s * (self.config.saliency * torch.cat(means)).exp()

    def weighed(self, masks: Masks, s: Tensor, k: int, sigma: Tensor) -> Tensor:
        """``sum s'_i M_i / (1 + sum M_i)`` over the k best masks, ``(H, W)``."""
        best = s.topk(min(k, len(s))).indices
        over, under = torch.zeros_like(sigma), torch.ones_like(sigma)
        for some in best.split(_AT_ONCE):
            M = _rows(masks, some).at((sigma.shape[0], sigma.shape[1]))[:, 0].float()
            over, under = over + (s[some, None, None] * M).sum(0), under + M.sum(0)
        return over / under

    def set_level(self, name: str, knowledge: Knowledge) -> SetLevel | None:
        """The official evaluation scales the maps of a class by their lowest and highest value."""
        return _ClassMinMax() if name in self.set_levels else super().set_level(name, knowledge)

    # --- references and kinds: ours ---------------------------------------------------------------

    def _tokens(self, encoded: Seen) -> tuple[Grid, Tensor]:
        h, w = encoded.features.shape[-2:]
        return Grid(h, w, encoded.size), encoded.features.flatten(2).mT

    def references(self, encoded: Seen) -> dict[str, Tensor]:
        """Features of the saliency."""
        return {"saliency": self._tokens(encoded)[1]}

    def patch_features(self, encoded: Seen) -> tuple[PatchFeatures, ...]:
        """Features of the saliency."""
        grid, values = self._tokens(encoded)
        return (PatchFeatures(values, grid),)

    def _kinds_caption(self, product: Product) -> tuple[str, list[int]]:
        """All kinds in one caption, and how many tokens each has there, the full stop included."""
        assert product.vocabulary is not None
        kinds = [caption_of(kind) for kind in product.vocabulary.names]
        return " ".join(kinds), [len(self.grounder.tokens(kind)) - 2 for kind in kinds]

    def _type_map(self, encoded: Seen, product: Product) -> Tensor | None:
        """Shares of the kinds ``(B, T, H, W)``: boxes vote where they lie, the surest for each."""
        if product.vocabulary is None:
            return None
        caption, lengths = self._kinds_caption(product)
        queries = self.grounder.queries(encoded.pixels, caption)
        of_kind, first = [], 1  # behind the special token
        for length in lengths:
            of_kind.append(queries.probabilities[..., first : first + max(1, length - 1)].amax(-1))
            first += length
        votes = torch.stack(of_kind, dim=1)  # (B, T, Q)
        at = torch.arange(_CELLS, device=votes.device).add(0.5) / _CELLS
        left, top, right, bottom = to_corners(queries.boxes)[..., None].unbind(2)  # (B, Q, 1)
        across, down = (at >= left) & (at <= right), (at >= top) & (at <= bottom)
        covered = (down[..., :, None] & across[..., None, :]).flatten(2)  # (B, Q, cells)
        rows = [
            torch.stack([(own[:, None] * cells).amax(0) for own in kinds])
            for kinds, cells in zip(votes, covered, strict=True)
        ]
        shares = torch.stack(rows) + 1e-6  # where nothing votes, all are alike
        shares = (shares / shares.sum(1, keepdim=True)).unflatten(2, (_CELLS, _CELLS))
        return upsample(shares, encoded.size)

    def map_range(self, knowledge: Knowledge) -> tuple[float, float]:
        """From 0, where no mask lies."""
        return 0.0, math.exp(self.config.saliency)


def swapped(pixels: Tensor, preprocess: Preprocess) -> Tensor:
    """Prepared pictures ``(B, 3, H, W)`` with blue for red, normalised as red and blue were."""
    mean, std = (
        pixels.new_tensor(values).view(3, 1, 1) for values in (preprocess.mean, preprocess.std)
    )
    return ((pixels * std + mean).flip(1) - mean) / std


def self_saliency(f: Tensor, nearest: int) -> Tensor:
    """Mean of the largest distances ``(1 - cos) / 2`` of each place to others, ``(h, w)``."""
    z = f.flatten(1).T  # (N, C)
    k = min(nearest, len(z))
    means = [
        (0.5 * (1 - rows @ z.T)).topk(k, dim=1).values.mean(1) for rows in z.split(_AT_ONCE**2)
    ]
    return torch.cat(means).unflatten(0, f.shape[1:])


def object_saliency(f: Tensor, objects: Tensor) -> Tensor:
    """Half the distance of each place of an object to the nearest one of other objects.

    Args:
        f: ``(C, h, w)`` of unit length.
        objects: ``(n, h, w)`` bool. Where they overlap, features count as unlike all others.

    Returns:
        ``(h, w)`` in [0, 1], 0 outside of all objects.
    """
    z, sigma = f.flatten(1).T, f.new_zeros(f.shape[1:].numel())
    flat = objects.flatten(1)
    for number, own in enumerate(flat):
        others = torch.cat([flat[:number], flat[number + 1 :]]).any(0)
        if not own.any() or not others.any():
            continue
        compared = z[others] * ~own[others, None]
        near = [(rows @ compared.T).amax(1) for rows in z[own].split(_AT_ONCE**2)]
        sigma[own] = torch.maximum(sigma[own], 0.5 * (1 - torch.cat(near)))
    return sigma.unflatten(0, f.shape[1:])


def _rows(masks: Masks, some: Tensor) -> Masks:
    some = some.to(masks.logits.device)
    return Masks(masks.logits[some], masks.quality[some])


class _ClassMinMax:
    """The maps between the lowest and the highest value of all; the score is a map's highest."""

    def __init__(self) -> None:
        self._pixels = MinMax()

    def see(self, prediction: Prediction) -> None:
        """Take a batch in."""
        assert prediction.map is not None
        self._pixels.see(prediction.map)

    def apply(self, prediction: Prediction) -> Prediction:
        """Scale a batch."""
        assert prediction.map is not None
        scaled = self._pixels.scaled(prediction.map)
        return replace(prediction, score=scaled.amax((1, 2)), map=scaled)

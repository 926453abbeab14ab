"""What the detectors share that describe defects finely, and look where they are (FiLo, FiLo++).

A sentence names a state of the product and, of a defective one, one of nine places. In front of it
stand learned vectors that depend on the picture. A grounder, if there is one, finds boxes for the
same descriptions: the strongest of them says which place the sentences name, and outside of all
boxes the map counts less.

Symbols: f the image's unit feature, D the joint dimension, C the text tower's width, m the number
of abnormal states, S the input size.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import BeforeValidator
from torch import Tensor, nn

from zerodefect.backbones.clip import TextTower, tokenize
from zerodefect.backbones.clip_weights import CLIPBackbone
from zerodefect.backbones.grounder import Grounder, Queries, caption_of, to_corners
from zerodefect.detector import clip_detector
from zerodefect.detector.clip_detector import CLIPDetector
from zerodefect.detector.contract import Input
from zerodefect.detector.knowledge import Knowledge, Product
from zerodefect.detector.recipes import Learner, Recipe, Stage
from zerodefect.layers.adapters import linear
from zerodefect.prompts.ensemble import NORMAL_STATES
from zerodefect.types import TrainingBatch

PLACES = (
    "top left", "top", "top right", "left", "center", "right", "bottom left", "bottom",
    "bottom right",
)  # fmt: skip
DETAILS = (
    "scratches", "cracks", "holes", "dents", "stains", "contamination", "discoloration",
    "missing parts", "deformation", "wear",
)  # fmt: skip
"""Ours, for products of which nothing is said."""

_GENERAL = ("damaged {}", "broken {}", "{} with flaw", "{} with defect", "{} with damage")
_ASKED = ("anomaly", "damage", "broken", "defect", "contamination")  # of the grounder, always
_PLACEHOLDER = "X"  # stands for a learned vector in token ids
_NAMES = {
    **{f"pcb{n}": "pcb" for n in range(1, 5)},
    "macaroni1": "macaroni",
    "macaroni2": "macaroni",
}


def read_details(details: Any) -> Any:
    """Descriptions from a file: JSON, a list or an object by product, or text with one a line.

    Raises:
        ValueError: a file that is neither; the message names it.
    """
    if not isinstance(details, str):
        return details
    path = Path(details)
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix.lower() == ".json":
            return json.loads(text)
        lines = [line.strip(" -*\t") for line in text.splitlines()]
        return [line for line in lines if line and not line.startswith("#")]
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{details}: no descriptions of defects ({error}). Give a UTF-8 text file with one a "
            'line, or JSON {"screw": ["a worn thread", ...]}'
        ) from None


Details = Annotated[tuple[str, ...] | dict[str, tuple[str, ...]], BeforeValidator(read_details)]


@dataclass(frozen=True)
class Features(clip_detector.Features):
    """Image side of one batch; ``patches`` are those that linear layers read.

    Attributes:
        convolved: per layer ``(B, N, W)`` that convolutions read.
        shown: what the grounder sees of the pictures; it looks when it knows what for.
    """

    convolved: tuple[Tensor, ...] = ()
    shown: Tensor | None = None


@dataclass(frozen=True)
class Boxes:
    """Where a grounder sees a defect in one picture.

    Attributes:
        corners: ``(k, 4)`` left, top, right, bottom; pixels of the map.
        centre: x and y of the strongest one, pixels; None where there is none.
    """

    corners: Tensor
    centre: tuple[float, float] | None


class PromptLearner(nn.Module):
    """Learned vectors in front of words, moved by the picture: ``ctx + meta_net(f)``."""

    def __init__(self, D: int, C: int, count: int, draws: torch.Generator) -> None:
        super().__init__()
        self.ctx = nn.Parameter(0.02 * torch.randn(count, C, generator=draws))
        hidden = max(1, D // 16)
        self.meta_net = nn.ModuleDict(
            {"linear1": linear(D, hidden, draws), "linear2": linear(hidden, C, draws)}
        )

    def forward(self, f: Tensor) -> Tensor:
        """Contexts ``(B, n, C)`` of images with features ``f (B, D)``."""
        moved = self.meta_net["linear2"](self.meta_net["linear1"](f).relu())
        return self.ctx + moved[:, None]


class Adapter(nn.Module):
    """``x + SiLU(W2 ReLU(W1 x))``, half as wide between them."""

    def __init__(self, D: int, draws: torch.Generator) -> None:
        super().__init__()
        hidden = max(1, D // 2)
        self.fc = nn.Sequential(
            linear(D, hidden, draws, bias=False),
            nn.ReLU(),
            linear(hidden, D, draws, bias=False),
            nn.SiLU(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """``(..., D)``, the same shape."""
        changed: Tensor = self.fc(x)
        return x + changed


class FineDetector(CLIPDetector):
    """A detector with fine descriptions of defects, on a CLIP and, if there is one, a grounder.

    ``Config`` has ``details``, ``own_words``, ``context_length``, ``box_threshold``,
    ``largest_box``, ``outside`` and ``seed``.

    Without a grounder no place is known, sentences of all places count, and no part of the map is
    lowered; ``facts`` tell which it is.

    Attributes:
        grounder: the network that finds boxes, or None.
        adapter: learned in a stage of its own; None for none.
        recipe, adapter_recipe: of both stages.
        readers: what reads the patches, to be learned with the sentences.
        map_loss, image_loss: of both stages, by the name of the term.
    """

    recipe: ClassVar[Recipe]
    adapter_recipe: ClassVar[Recipe]
    adapter: Adapter | None
    readers: Callable[[], list[nn.Parameter]]
    map_loss: Callable[[TrainingBatch], dict[str, Tensor]]
    image_loss: Callable[[TrainingBatch], dict[str, Tensor]]
    monotone_memory = True  # the distance to the nearest of more references never grows
    config: Any

    def __init__(self, clip: CLIPBackbone, grounder: Grounder | None, config: Any) -> None:
        super().__init__(clip, config)
        self.taps = self.chosen_taps()
        self.grounder = grounder  # it takes any size
        self.look_beside("grounder", grounder, Input(grounder.preprocess) if grounder else None)
        D, C, n = self.clip.config.embed_dim, self.clip.config.text.width, config.context_length
        self.draws = torch.Generator().manual_seed(config.seed)
        self.normal_prompt_learner = PromptLearner(D, C, n, self.draws)
        self.abnormal_prompt_learner = PromptLearner(D, C, n, self.draws)

    # --- words --------------------------------------------------------------------------------

    def details(self, product: Product) -> tuple[str, ...]:
        """What may be wrong with a product: its kinds, the user's descriptions, or the usual."""
        chosen, name = self.config.details, _plain(product.name)
        if self.config.own_words and product.vocabulary:
            phrases = [p for _, kind in product.vocabulary.kinds for p in kind]
            return tuple(phrase.replace("{} with ", "") for phrase in phrases)
        if isinstance(chosen, Mapping):
            by_name = {_plain(key): tuple(value) for key, value in chosen.items()}
            return by_name.get(name, DETAILS)
        return tuple(chosen)

    def states(self, product: Product) -> tuple[list[str], list[str]]:
        """Phrases about a good product, and about a defective one at each of nine places."""
        word = _NAMES.get(_plain(product.name), _plain(product.name))

        def fine(detail: str) -> str:
            return detail if "{}" in detail else f"abnormal {{}} with {detail}"

        abnormal = [*map(fine, self.details(product)), *_GENERAL]
        at = [f"{state} at {place}" for state in abnormal for place in PLACES]
        both = ([phrase.replace("{}", word) for phrase in some] for some in (NORMAL_STATES, at))
        normal, defective = both
        return normal, defective

    def words(self, product: Product) -> dict[str, Tensor]:
        """Token ids ``(7, L)`` and ``(9m, L)``; the first stand for learned vectors."""
        front = " ".join([_PLACEHOLDER] * self.config.context_length)
        length = self.clip.config.text.context_length
        both = [tokenize([f"{front} {s}." for s in some], length) for some in self.states(product)]
        if self.grounder is not None:
            self.grounder.tokens(caption_of(self.caption(product)))  # too long: said now
        names = ("normal_ids", "abnormal_ids")
        return {name: ids.to(self.device) for name, ids in zip(names, both, strict=True)}

    def sentences(self, ids: Tensor, context: Tensor) -> Tensor:
        """Features ``(s, D)`` of sentences with vectors ``(n, C)`` of one picture, as they are."""
        text = self.clip.text
        n, table = len(context), text.token_embedding
        x = table(ids[:, : int(TextTower.ends(ids).max()) + 1])  # (s, L, C)
        own = context.to(x.dtype).expand(len(x), -1, -1)
        x = torch.cat([x[:, :1], own, x[:, 1 + n :]], dim=1)
        return text.encode(x, TextTower.ends(ids)).float()

    # --- image side ---------------------------------------------------------------------------

    def image_side(self, inputs: Any) -> tuple[Tensor, Tensor | None]:
        """What the CLIP sees of the pictures, and what the grounder does."""
        shown = inputs.get("grounder") if isinstance(inputs, Mapping) else None
        return self.seen_by_clip(inputs), shown

    def seen(self, batch: TrainingBatch) -> tuple[Features, list[Mapping[str, Tensor]]]:
        """A training batch: its image side, and the words of each picture's product."""
        with torch.no_grad():
            encoded = self.encode(batch.images)
        words = {name: self.words(Product(name)) for name in set(batch.objects)}
        return encoded, [words[name] for name in batch.objects]

    def stages(self) -> Sequence[Stage]:
        """Sentences and what reads the patches, then the adapter alone, where there is one."""
        learners = [*self.normal_prompt_learner.parameters()]
        learners += self.abnormal_prompt_learner.parameters()
        groups: list[dict[str, Any]] = [
            {"params": self.readers(), "lr": 1e-4},
            {"params": learners},
        ]
        maps = Stage(self.recipe, (Learner(self.map_loss, groups),), "maps")
        if self.adapter is None:
            return (maps,)
        adapter = [{"params": list(self.adapter.parameters())}]
        return maps, Stage(self.adapter_recipe, (Learner(self.image_loss, adapter),), "adapter")

    def training_loss(self, batch: TrainingBatch) -> dict[str, Tensor]:
        """Of the first stage."""
        return self.map_loss(batch)

    # --- where --------------------------------------------------------------------------------

    def caption(self, product: Product) -> str:
        """What is looked for."""
        details = (d.replace("{}", _plain(product.name)) for d in self.details(product))
        return " . ".join([*_ASKED, *details])

    def boxes(self, encoded: Features, knowledge: Knowledge) -> list[Boxes | None]:
        """What the grounder finds in each picture; None where there is no grounder."""
        B, size = len(encoded.image), encoded.grid.size
        if self.grounder is None or encoded.shown is None or knowledge.product is None:
            return [None] * B
        queries = self.grounder.queries(encoded.shown, self.caption(knowledge.product))
        asked = (*_ASKED, *self.details(knowledge.product))
        return [self.counting(queries, row, asked, size) for row in range(B)]

    def counting(
        self, queries: Queries, row: int, asked: Sequence[str], size: tuple[int, int]
    ) -> Boxes:
        """Boxes of one picture whose phrase holds one of the words asked for.

        Scores are cut to two decimals, as the published code reads them from text; of equal ones
        the last box counts as the strongest.
        """
        found = self.phrased(queries, row)
        height, width = size
        scale = queries.boxes.new_tensor([width, height, width, height])
        best, taken, centre = -1.0, [], None
        for box, phrase, score in found:
            if not any(word in phrase for word in asked):
                continue
            taken.append(to_corners(box * scale))
            told_score = float(f"{score:.6f}"[:4])
            if told_score >= best:
                best, centre = told_score, (float(box[0]) * width, float(box[1]) * height)
        empty = queries.boxes.new_zeros(0, 4)
        return Boxes(torch.stack(taken) if taken else empty, centre)

    def phrased(self, queries: Queries, row: int) -> Iterator[tuple[Tensor, str, float]]:
        """Boxes ``(4,)`` of one picture that are likely and not too large, or the likeliest."""
        assert self.grounder is not None
        p, boxes = queries.probabilities[row], queries.boxes[row]
        scores, threshold = p.amax(dim=1), self.config.box_threshold
        keep = (scores > threshold) & (boxes[:, 2] * boxes[:, 3] < self.config.largest_box)
        rows = keep.nonzero()[:, 0].tolist() or [int(scores.argmax())]
        for one in rows:
            phrase = self.grounder.phrase(queries.ids, p[one], threshold, ends=False)
            yield boxes[one], phrase, float(scores[one])

    def weighed(self, M: Tensor, boxes: Sequence[Boxes | None]) -> Tensor:
        """Maps ``(B, H, W)``, lowered outside of the boxes; a value of 1 stays."""
        rows = []
        for own, found in zip(M, boxes, strict=True):
            inside = torch.full_like(own, found is None, dtype=torch.bool)
            for left, top, right, bottom in [] if found is None else found.corners.int().tolist():
                inside[max(0, top) : max(0, bottom), max(0, left) : max(0, right)] = True
            rows.append(own.where(inside | (own == 1), self.config.outside * own))
        return torch.stack(rows)


def _plain(name: str) -> str:
    return name.replace("_", " ")


def mean_direction(rows: Tensor) -> Tensor:
    """Unit mean of unit rows ``(s, D)``: ``(D,)``."""
    return F.normalize(F.normalize(rows, dim=-1).mean(dim=0), dim=-1)

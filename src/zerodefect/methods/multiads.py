"""MultiADS (ICCV 2025, arXiv 2504.06740).

One linear layer per tapped block brings CLIP's patch tokens into the joint space, where they are
compared with one text for each kind of defect besides that of a good product. The probabilities
of all kinds together are the anomaly map, each alone tells what it is. Few-shot: the distance of
each raw token to its nearest one among the tokens of normal references is added to the map.

The authors' lists of kinds and phrases are licensed otherwise and are not in here: the kinds are
the user's, or those that the embedded model was taught.

Symbols: x_l tokens of tap l, y_l the mapped ones, T the texts [good, kinds ...], C their number,
P_l probabilities, M the zero-shot map, A the distances to references, K the number of taps.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from pydantic import AfterValidator, BeforeValidator
from torch import Tensor, nn

from zerodefect.backbones.clip_weights import CLIPBackbone
from zerodefect.detector.clip_detector import Activation, CLIPDetector, Features
from zerodefect.detector.configs import Positive, Share, Taps, hyper_parameters
from zerodefect.detector.facts import MethodInfo
from zerodefect.detector.knowledge import Knowledge, Product
from zerodefect.detector.official_files import Checked
from zerodefect.detector.recipes import Recipe
from zerodefect.detector.registry import register
from zerodefect.layers.adapters import linear
from zerodefect.layers.losses import dice_loss, focal_of_target
from zerodefect.layers.similarity import inner_products
from zerodefect.prompts.ensemble import APRIL_TEMPLATES, NORMAL_STATES, PromptEnsemble
from zerodefect.prompts.vocabulary import DEFAULT_KINDS, Vocabulary
from zerodefect.types import Prediction, TrainingBatch

_log = logging.getLogger("zerodefect")

_HIGHEST = 3  # pixels that the score is the mean of
_STRESS = 5  # factor on masks in the Dice loss


def _read(kinds: Any) -> Any:
    """A vocabulary file, or bare names, as kinds with their phrases."""
    if isinstance(kinds, str):
        return dict(Vocabulary.load(kinds).kinds)
    return dict(Vocabulary.of(kinds).kinds) if isinstance(kinds, (list, tuple)) else kinds


def _checked(kinds: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    return dict(Vocabulary.of(kinds).kinds)


Kinds = Annotated[dict[str, tuple[str, ...]], BeforeValidator(_read), AfterValidator(_checked)]


@hyper_parameters
class MultiADSConfig:
    """Hyper-parameters; the defaults are the published code's, but for the kinds.

    Attributes:
        taps: image-tower blocks (from 1) whose tokens are read; None for quarters of the depth.
        logit_scale: factor on cosine similarities before the softmax.
        activation: see ``Activation``.
        kinds: of defects that are learned and that the map adds up, each with its phrases; a
            vocabulary file, or names alone, will do.
        called: what data sets call a kind otherwise, such as ``{"bent_wire": "bent"}``.
        prior: the kinds that a product is told to have are the only ones in its map, and its score
            is the map's highest value ("prior knowledge", MultiADS-F).
        adaptation: share of the remembered tokens whose mean distance counts, at least one, the
            nearest of all left out: for a memory of the inspected pictures themselves ("domain
            adaptation", 0.0001). None for a memory of good pictures.
        dice: whether the map is learned as a whole, too; the authors' trainer for kinds leaves that
            out.
        normal_states, templates: the sentences.
        seed: of the initial values.
    """

    taps: Taps | None = None
    logit_scale: Positive = 100.0
    activation: Activation = "gelu"
    kinds: Kinds = field(default_factory=lambda: dict(DEFAULT_KINDS))
    called: dict[str, str] = field(default_factory=dict)
    prior: bool = False
    adaptation: Share | None = None
    dice: bool = True
    normal_states: tuple[str, ...] = NORMAL_STATES
    templates: tuple[str, ...] = APRIL_TEMPLATES
    seed: int = 42

    def __post_init__(self) -> None:
        unknown = sorted(set(self.called.values()) - self.kinds.keys())
        if unknown:
            has = ", ".join(self.kinds)
            raise ValueError(f"called: {unknown[0]!r} is none of the kinds, which are {has}")


@register(
    MethodInfo(
        name="multiads",
        title="MultiADS",
        school="assembly",
        knows_from=("training", "words", "references"),
        optional=("references",),
        paper="ICCV 2025, arXiv 2504.06740",
        code_licence="AGPL-3.0; nothing of it is in here, its phrase lists neither",
        parity="official code at 66900bb8: 0-shot, few-shot, on the test pictures and by kind; "
        "both losses (detection: 5c5e387), gradients",
    )
)
class MultiADS(CLIPDetector):
    """A column of text for each kind of defect.

    The map is the sum of K probabilities, of all kinds of ``config.kinds`` together; with
    references K cosine distances are added. The score is the mean of its three highest pixels.
    ``type_map`` is the share of each kind of the product's vocabulary among all of them; what they
    are does not change the map, unless ``config.prior`` is set.

    A picture is learned from by the kind that its data set gives it. Where that is none of
    ``config.kinds``, it is learned as damage of any of them.
    """

    Config = MultiADSConfig
    tells_kinds = True
    recipe = Recipe(epochs=10, batch_size=4, learning_rate=1e-3, betas=(0.5, 0.999), seed=42)
    positions = "bicubic_antialias"
    config: MultiADSConfig

    def __init__(self, clip: CLIPBackbone, config: MultiADSConfig | None = None) -> None:
        super().__init__(clip, config or MultiADSConfig())
        self.taps = self.chosen_taps()
        # the distance to the nearest of more references never grows; a mean over a share may
        self.monotone_memory = self.config.adaptation is None
        self.prompts = PromptEnsemble(
            normal=self.config.normal_states, templates=self.config.templates
        )
        draws = torch.Generator().manual_seed(self.config.seed)
        W, d = self.clip.config.vision.width, self.clip.config.embed_dim
        self.fc = nn.ModuleList(linear(W, d, draws) for _ in self.taps)
        self._unknown: set[str] = set()  # kinds of which was said that they are

    def words(self, product: Product) -> dict[str, Tensor]:
        """T ``(C, d)`` of the map, and of the product's kinds; unit length, good comes first."""
        own = dict(product.vocabulary.kinds) if product.vocabulary else {}
        kinds = own if own and self.config.prior else self.config.kinds
        both = [self._sentences(product.name, phrases) for phrases in (kinds, own)]
        T = self.text_features.directions(both[0] + both[1])
        return {"texts": T[: len(both[0])], "kind_texts": T[len(both[0]) :]}

    def _sentences(self, name: str, kinds: Mapping[str, Sequence[str]]) -> list[list[str]]:
        if not kinds:
            return []
        filled = (self.prompts.fill(phrases, name) for phrases in kinds.values())
        return [self.prompts.normal_prompts(name), *filled]

    def references(self, encoded: Features) -> Mapping[str, Tensor]:
        """Raw tokens of every tap."""
        return {f"tap{tap}": x for tap, x in zip(self.taps, encoded.patches, strict=True)}

    def map_range(self, knowledge: Knowledge) -> tuple[float, float]:
        """K probabilities: [0, K]; with references also K distances of at most 2: [0, 3K]."""
        return 0.0, float(len(self.taps) * (3 if knowledge.shots else 1))

    def neutral_score(self, knowledge: Knowledge) -> float | None:
        """Where good is as likely as all kinds together, in every tap."""
        return None if knowledge.shots else len(self.taps) / 2

    # --- in the order of the paper ------------------------------------------------------------

    def predict(
        self, encoded: Features, knowledge: Knowledge, left_out: Tensor | None = None
    ) -> Prediction:
        """Words, and the distance to references where there are any."""
        logits = self.logits(encoded, knowledge["texts"])
        M = torch.stack([P.softmax(dim=1)[:, 1:].sum(dim=1) for P in logits]).sum(dim=0)
        if knowledge.shots:
            A = self.distances(encoded, knowledge, left_out)
            M = M + encoded.grid.map(A.sum(dim=0), align_corners=True)
        highest = M.flatten(1).topk(1 if self.config.prior else min(_HIGHEST, M[0].numel())).values
        T = knowledge["kind_texts"]
        kinds = self.kind_logits(encoded, T)[:, 1:].softmax(dim=1) if len(T) else None
        return Prediction(highest.mean(dim=1), M, kinds)

    def mapped(self, encoded: Features) -> list[Tensor]:
        """y_l: unit length, ``(B, N, d)`` per tap."""
        pairs = zip(self.fc, encoded.patches, strict=True)
        return [F.normalize(fc_l(x_l).float(), dim=-1) for fc_l, x_l in pairs]

    def logits(self, encoded: Features, T: Tensor) -> Iterator[Tensor]:
        """s_l: ``(B, C, H, W)``, tap by tap, as C maps of a large picture take much memory.

        T is ``(C, d)``, or ``(B, C, d)`` of each image its own.
        """
        for y_l in self.mapped(encoded):
            s_l = self.config.logit_scale * inner_products(y_l, T)
            yield encoded.grid.map(s_l.mT, align_corners=True)

    def kind_logits(self, encoded: Features, T: Tensor) -> Tensor:
        """Logarithm of the sum over taps of P_l, ``(B, C, H, W)``: what cannot underflow."""
        total: Tensor | None = None
        for s_l in self.logits(encoded, T):
            one = s_l.log_softmax(dim=1)
            total = one if total is None else torch.logaddexp(total, one)
        assert total is not None
        return total

    def distances(
        self, encoded: Features, knowledge: Knowledge, left_out: Tensor | None = None
    ) -> Tensor:
        """A per tap: ``1 - cos`` to the nearest remembered token, ``(K, B, N)``."""
        share, rows = self.config.adaptation, []
        for name, x in self.references(encoded).items():
            if share is None:
                d = self.memory.distance(knowledge, name, x, left_out)
            else:
                count = len(self.memory.bank(knowledge, name).features)
                near = 1 + max(1, math.ceil(share * count))
                d = self.memory.neighbours(knowledge, name, x, near, left_out)[0][..., 1:]
                there = d.isfinite()  # too few may be left
                d = d.where(there, 0).sum(dim=-1) / there.sum(dim=-1).clamp(min=1)
            rows.append((2 * d).clamp(0, 2))
        return torch.stack(rows)

    # --- training -----------------------------------------------------------------------------

    def training_loss(self, batch: TrainingBatch) -> dict[str, Tensor]:
        """Focal loss of each pixel's kind and Dice loss of all kinds together, summed over taps."""
        with torch.no_grad():
            encoded = self.encode(batch.images)
        T, columns = self.texts_of(batch.objects), self.columns(batch)
        masks, terms = batch.masks, []
        for s_l in self.logits(encoded, T):
            P = s_l.softmax(dim=1)
            damaged = P[:, 1:].sum(dim=1)
            kinds = [
                p[column] if column else any_kind
                for p, any_kind, column in zip(P, damaged, columns, strict=True)
            ]
            right = torch.where(masks > 0.5, torch.stack(kinds), P[:, 0])
            focal = focal_of_target(right, P.shape[1])
            terms.append(torch.stack([focal, dice_loss(damaged, _STRESS * masks)]))
        focal, dice = torch.stack(terms).sum(dim=0)
        return {"focal": focal, "dice": dice} if self.config.dice else {"focal": focal}

    def columns(self, batch: TrainingBatch) -> list[int]:
        """Column of each image's kind; 0 where its kind is unknown."""
        names = {_plain(name): place for place, name in enumerate(self.config.kinds, start=1)}
        for other, name in self.config.called.items():
            names[_plain(other)] = names[_plain(name)]
        kinds = batch.kinds or ("",) * len(batch.labels)
        for kind in sorted({k for k in kinds if k and _plain(k) not in names} - self._unknown):
            self._unknown.add(kind)
            told = "the kind %r is none of those learned; it counts as damage of any kind (--set "
            _log.warning(told + "kinds=... or called=...)", kind)
        return [names.get(_plain(kind), 0) for kind in kinds]

    def official_state(self, published: Mapping[str, Any]) -> dict[str, Tensor]:
        """Learned values from ``{"trainable_linearlayer": ...}``; its names are ours."""
        checked = Checked(published, "MultiADS checkpoint")
        layers = checked.inside("trainable_linearlayer")
        state = {name: layers.take(name, p.shape) for name, p in self.learned.items()}
        checked.done()
        return state


def _plain(kind: str) -> str:
    """As data sets and people write the same kind: ``Bent_Wire``, ``bent wire``."""
    return " ".join(kind.replace("_", " ").lower().split())

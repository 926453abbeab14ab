"""The one interface of all methods."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from zerodefect.backbones.backbone import Backbone, network_facts
from zerodefect.detector.composed import Memory, SetLevel
from zerodefect.detector.configs import configured, options_told
from zerodefect.detector.facts import MethodInfo, Thorough
from zerodefect.detector.knowledge import Knowledge, KnowledgeError, Product
from zerodefect.detector.recipes import Learner, Recipe, Stage
from zerodefect.images import Preprocess
from zerodefect.layers.grid import Grid
from zerodefect.types import Prediction, TrainingBatch

if TYPE_CHECKING:
    from zerodefect.types import Inputs

Sizes = tuple[int, int] | Mapping[str, tuple[int, int]]


class UnsupportedError(RuntimeError):
    """The method cannot do that; the message says what it can."""


class TooFewError(ValueError):
    """A set with too few pictures to compare with each other."""


@dataclass(frozen=True)
class Input:
    """One of the tensors that a detector takes of a picture."""

    preprocess: Preprocess  # how the picture becomes the (3, H, W)
    multiple: int = 1  # both sides are multiples of this, in pixels
    fixed: bool = False  # a network that knows one size: no other is asked of it


@dataclass(frozen=True)
class PatchFeatures:
    """Features of the patches of a batch, for kinds, rules and foregrounds."""

    values: Tensor  # (B, N, C), not normalised
    grid: Grid  # of the patches
    joint: bool = False  # in the joint space of a CLIP, where texts are compared with them


class Detector(nn.Module):
    """Scores images against what it knows of normality.

    A detector holds weights and options and does not change in use. What it knows of one product is
    a ``Knowledge``, which ``describe``, ``remember`` and ``settle`` make and ``predict`` is handed;
    so it serves any number of products and threads. No image is judged by others of its batch.

        knowledge = detector.describe(detector.empty(), Product("screw"))
        knowledge = detector.remember(knowledge, [detector.encode(good)])
        prediction = detector(images, knowledge)

    A subclass sets ``Config`` (see ``configs.hyper_parameters``), takes the backbones that its
    ``info`` names and then a ``Config``, and defines ``encode``, ``predict`` and ``map_range``.

    Attributes:
        info: registered facts.
        recipe: how the paper trains it, in its first stage; None for methods that are not trained.
        tells_kinds: whether its predictions have a ``type_map`` over the vocabulary.
        monotone_memory: whether no score can rise when references are added; then leave-one-out
            calibration keeps its guarantee, see ``inspection/policy.py``.
        fixed_grid: whether it can only judge inputs of the size of those remembered.
        set_levels: names of the official steps that ``set_level`` knows.
        standardised: whether the map has ``usual_scale`` whatever the detector was shown.
        words_first: whether references are learned in the light of words, which must come first.
        thorough: a slower setting that judges better; None where there is none.
        official_classes: classes that a pickled official file may name, by full name; objects of
            them and of torch's usual layers are read as their parameters, and nothing else is.
        may_lack: whether a picture may lack some of its inputs, as colours or points.
        undecided: its score without references where normal and anomalous are equally likely.
        config: hyper-parameters.
        inputs: what it takes of a picture, by name; most methods take one ``image``.
        memory: how it keeps references, or None.
        networks: ``backbone.network_facts`` of each backbone.
        checkpoint: SHA-256 of the file that the learned values are from, or None.
        origin: how these came about, see ``checkpoint_file.Checkpoint``; None if unknown.
        learned_from: ``learned_pictures.picture_names`` of what they are from; None if unknown.
    """

    info: MethodInfo
    Config: ClassVar[type]
    recipe: ClassVar[Recipe | None] = None
    tells_kinds: bool = False
    monotone_memory: bool = False
    fixed_grid: ClassVar[bool] = False
    set_levels: ClassVar[tuple[str, ...]] = ()
    standardised: ClassVar[bool] = False
    words_first: ClassVar[bool] = False
    official_classes: ClassVar[tuple[str, ...]] = ()
    undecided: ClassVar[float | None] = None
    thorough: ClassVar[Thorough | None] = None
    may_lack: bool = False
    memory: Memory | None = None

    def __init__(
        self,
        config: Any,
        backbones: Sequence[Backbone] = (),
        inputs: Mapping[str, Input] | Preprocess | None = None,
    ) -> None:
        """Keep the facts of the backbones, and say how pictures are prepared.

        Args:
            config: hyper-parameters.
            backbones: as ``info.backbones`` names them, with the activation that they run with.
            inputs: what is taken of a picture; None for what a single backbone takes, a
                ``Preprocess`` where a picture is prepared otherwise for it.
        """
        super().__init__()
        self.config = config
        self.checkpoint: str | None = None
        self.origin: dict[str, Any] | None = None
        self.learned_from: Tensor | None = None
        self.backbone = told(backbones, "name")
        self.weights = told(backbones, "fingerprint")
        self.networks = tuple(network_facts(backbone) for backbone in backbones)
        self.precision = told(backbones, "precision") or "float32"
        self.activation = told(backbones, "activation")
        if inputs is None or isinstance(inputs, Preprocess):
            (backbone,) = backbones
            inputs = {"image": Input(inputs or backbone.preprocess, backbone.stride)}
        self.inputs = dict(inputs)

    @classmethod
    def build(cls, *backbones: Backbone, **options: Any) -> Detector:
        """Construct from backbones and fields of ``Config``.

        Raises:
            ValueError: an option that ``Config`` does not have, or a value that it refuses.
        """
        make: Any = cls
        return make(*backbones, configured(cls.Config, options, cls.info.name))

    @property
    def preprocess(self) -> Preprocess:
        """How a picture becomes the only input, or the first of several."""
        return next(iter(self.inputs.values())).preprocess

    @property
    def sizes(self) -> Sizes:
        """``(height, width)`` of the only input, or of several by name; pixels."""
        sizes = {name: needed.preprocess.size for name, needed in self.inputs.items()}
        return sizes["image"] if sizes.keys() == {"image"} else sizes

    def resize_inputs(self, sizes: Sizes) -> None:
        """Take inputs of other sizes; one size is for all of them that are not fixed.

        Called while the detector is built, before it knows anything.
        """
        for name, needed in self.inputs.items():
            if needed.fixed:
                continue
            size = sizes[name] if isinstance(sizes, Mapping) else sizes
            prepared = replace(needed.preprocess, size=size)
            self.inputs[name] = replace(needed, preprocess=prepared)

    # --- what normality is known from -------------------------------------------------------

    def empty(self) -> Knowledge:
        """Knowledge of nothing yet, to begin with."""
        return Knowledge(self.facts())

    def describe(self, knowledge: Knowledge, product: Product) -> Knowledge:
        """Learn from words; what was remembered stays.

        Raises:
            ValueError: a prompt longer than the text tower reads.
        """
        return knowledge.having(self.words(product), product=product)

    def words(self, product: Product) -> dict[str, Tensor]:
        """Text features of a product by the names that ``predict`` reads; none by default."""
        return {}

    def remember(
        self, knowledge: Knowledge, batches: Iterable[Any], pictures: Iterable[Tensor] | None = None
    ) -> Knowledge:
        """Learn from normal images, added to those remembered before.

        Args:
            knowledge: stays as it is.
            batches: what ``encode`` gave, batch by batch; only one is held at a time.
            pictures: per batch ``(B,)`` int64 numbers under which images can be left out; tiles of
                one picture share one. By default every image is a picture of its own, numbered on
                from ``knowledge.shots``.

        Raises:
            UnsupportedError: the method takes no references.
            ValueError: features that are not finite.
        """
        if self.memory is None:
            raise self._unsupported("references")
        return self.memory.remember(knowledge, map(self.references, batches), pictures)

    def references(self, encoded: Any) -> Mapping[str, Tensor]:
        """Features ``(B, n, C)`` of a batch that are remembered, by name."""
        raise NotImplementedError(f"{type(self).__name__} does not say what it remembers")

    def augmented(self, inputs: Inputs) -> Iterator[Inputs]:
        """Further inputs to be remembered with a batch of references (turned, mirrored)."""
        return iter(())

    def leaves_out(self, knowledge: Knowledge) -> bool:
        """Whether ``predict`` can leave a remembered picture out, see ``Memory.leaves_out``."""
        return self.memory is not None and self.memory.leaves_out(knowledge)

    def settle(self, knowledge: Knowledge) -> Knowledge:
        """Close what was remembered (coreset, Gaussian); more can be remembered afterwards."""
        return knowledge if self.memory is None else self.memory.settle(knowledge)

    # --- what it says -----------------------------------------------------------------------

    @torch.no_grad()
    def forward(self, inputs: Inputs, knowledge: Knowledge | None = None) -> Prediction:
        """Score ``(B, 3, H, W)``, prepared as ``inputs`` say; several of them by name.

        Raises:
            RuntimeError: the method must be told a name or shown references first.
            KnowledgeError: another detector's knowledge.
        """
        knowledge = self.empty() if knowledge is None else knowledge
        self.check(knowledge)
        return self.predict(self.encode(inputs), knowledge)

    def encode(self, inputs: Any) -> Any:
        """The part of ``forward`` that depends on the images alone; all networks run here.

        A detector of several inputs takes them by name; where it ``may_lack`` some, those that the
        pictures lack are not there: all pictures of a batch lack the same.
        """
        raise NotImplementedError(f"{type(self).__name__} does not say what it sees")

    def predict(
        self, encoded: Any, knowledge: Knowledge, left_out: Tensor | None = None
    ) -> Prediction:
        """The rest of ``forward``: what ``encode`` gave against what is known.

        Args:
            encoded: features of B images.
            knowledge: this detector's, see ``check``.
            left_out: ``(B,)`` picture among the references that does not count for each image.
        """
        raise NotImplementedError(f"{type(self).__name__} does not say how it scores")

    def check_set(self, count: int) -> None:
        """Refuse a set whose pictures have no other to be compared with.

        Raises:
            TooFewError: fewer than two.
        """
        if count < 2:
            raise TooFewError(
                f"{self.info.title} compares the pictures of a batch with each other, and there is "
                f"{'one' if count else 'none'}. Give two or more"
            )

    def score_set(self, encoded: Iterable[Any], knowledge: Knowledge) -> Iterator[Prediction]:
        """Score images against each other.

        Args:
            encoded: what ``encode`` gave, batch by batch; it can be gone through again and again.
            knowledge: words, or good images that belong to the set.

        Returns:
            One prediction per batch, in order.

        Raises:
            UnsupportedError: the method judges each image alone.
            TooFewError: there is no other image to compare with.
        """
        raise self._unsupported("the other images of a set")

    def most_in_set(self, memory: int) -> int | None:
        """Images whose comparison takes so many bytes at most, besides ``encoded`` itself.

        None where it takes the same memory whatever their number.
        """
        return None

    def set_level(self, name: str, knowledge: Knowledge) -> SetLevel | None:
        """An official step over a whole class or test set (min-max, ...).

        ``forward`` never applies it: what users get is per image. None where the official test
        has no such step under this knowledge.

        Raises:
            ValueError: the method has no step of that name.
        """
        has = ", ".join(self.set_levels) or "none"
        raise ValueError(f"{self.info.name} has no set-level step {name!r}; it has: {has}")

    def patch_features(self, encoded: Any) -> tuple[PatchFeatures, ...]:
        """Features of the patches in what ``encode`` gave; none where a method has no patches."""
        return ()

    def check(self, knowledge: Knowledge) -> None:
        """Make sure that the knowledge is this detector's, and enough.

        Raises:
            KnowledgeError: another detector made it; the message says what differs.
            RuntimeError: it lacks words or references that the method needs.
        """
        own = self.facts()
        if knowledge.detector != own:
            differing = sorted(k for k in own if knowledge.detector.get(k) != own[k])
            raise KnowledgeError(
                f"this knowledge was made by {knowledge.detector.get('method')} and is handed to "
                f"{self.info.name}; what differs: {', '.join(differing) or 'what it is made of'}. "
                "Let the detector that judges learn it anew"
            )
        if "words" in self.info.needs and knowledge.product is None:
            raise RuntimeError(
                f"{self.info.title} needs the product's name: call describe(...) first"
            )
        if "references" in self.info.needs and not knowledge.shots:
            raise UnsupportedError(
                f"{self.info.title} needs normal images: call remember(...) first, or on the "
                "command line name some: --reference good/"
            )

    # --- training -------------------------------------------------------------------------------

    def training_loss(self, batch: TrainingBatch) -> dict[str, Tensor]:
        """Weighted terms of the loss of one batch, by name; the loss is their sum."""
        raise self._unsupported("training")

    def stages(self) -> Sequence[Stage]:
        """Parts of the training, one after the other; by default one, of ``training_loss``.

        Raises:
            ValueError: the method is not trained.
        """
        if self.recipe is None:
            raise ValueError(f"{self.info.name} is not trained; there is nothing to learn")
        groups = self.parameter_groups(self.recipe)
        return (Stage(self.recipe, (Learner(self.training_loss, groups),)),)

    @property
    def learned(self) -> dict[str, nn.Parameter]:
        """Parameters that training changes, by name: all that require a gradient.

        A trainable method freezes its backbones in its constructor.
        """
        return {name: p for name, p in self.named_parameters() if p.requires_grad}

    @property
    def learned_values(self) -> dict[str, Tensor]:
        """What a checkpoint holds: ``learned``, and running statistics of the same layers."""
        learned = self.learned
        layers = {name.rpartition(".")[0] for name in learned} - {""}
        found = self.state_dict(keep_vars=True).items()
        return {
            name: value
            for name, value in found
            if name in learned
            or (name.rpartition(".")[0] in layers and not isinstance(value, nn.Parameter))
        }

    def parameter_groups(self, recipe: Recipe) -> list[dict[str, Any]]:
        """Optimiser groups; a method with several rates overrides this."""
        return [{"params": list(self.learned.values())}]

    def after_learning(self) -> None:
        """Called when learned values have changed: drop or renew whatever was computed from them.

        The engine calls it before each validation and at the end, the loader after a checkpoint.
        """

    @classmethod
    def official_options(cls, published: Mapping[str, Any]) -> dict[str, Any]:
        """Fields of ``Config`` that the shapes in an official checkpoint tell (lengths, depths)."""
        return {}

    def official_state(self, published: Mapping[str, Any]) -> dict[str, Tensor]:
        """Values of ``learned`` from the contents of an official checkpoint.

        Raises:
            UnsupportedError: no official format is known.
            ValueError: keys are missing or unknown, or shapes do not fit; all are listed.
        """
        raise UnsupportedError(f"{self.info.name} has no official checkpoint format that we know")

    # --- scale of the raw numbers, and facts --------------------------------------------------

    def neutral_score(self, knowledge: Knowledge) -> float | None:
        """Score at which the method itself is undecided, or None where its scale has none."""
        return None if knowledge.shots else self.undecided

    def usual_scale(self, knowledge: Knowledge) -> tuple[float, float]:
        """Mean and deviation of the map on good pictures, for where none are at hand."""
        return 0.0, 1.0

    def map_range(self, knowledge: Knowledge) -> tuple[float, float] | None:
        """Lowest and highest value that the map can take; None for a method without a map."""
        return 0.0, 1.0

    def kinds(self, knowledge: Knowledge) -> tuple[str, ...]:
        """Defect kinds along the T axis of ``type_map``; empty if it has none."""
        told = knowledge.product and knowledge.product.vocabulary
        return told.names if told and self.tells_kinds else ()

    def facts(self) -> dict[str, Any]:
        """Everything besides knowledge and image that decides a score, plain data."""
        learned = {"checkpoint": self.checkpoint} if self.checkpoint else {}
        prepared = {name: asdict(i.preprocess) for name, i in self.inputs.items()}
        return {
            **learned,
            "method": self.info.name,
            "backbone": self.backbone,
            "weights": self.weights,
            "precision": self.precision,
            "config": plain(options_told(self.config)),
            "preprocess": plain(prepared["image"] if prepared.keys() == {"image"} else prepared),
        }

    @property
    def device(self) -> torch.device:
        """Where the weights lie and inputs must go."""
        first = next(self.parameters(), None)
        return torch.device("cpu") if first is None else first.device

    def _unsupported(self, source: str) -> UnsupportedError:
        name, able = self.info.name, ", ".join(self.info.knows_from)
        told = f"{name} cannot learn normality from {source}; it learns from {able}"
        return UnsupportedError(told)


def told(backbones: Sequence[Backbone], fact: str) -> Any:
    """A fact of the backbones: the only one's, or a list, or None where there is none."""
    told = [getattr(backbone, fact) for backbone in backbones]
    return told if len(told) > 1 else next(iter(told), None)


def plain(value: Any) -> Any:
    """Tuples to lists, so that the same facts compare equal after a trip through JSON."""
    return json.loads(json.dumps(value))

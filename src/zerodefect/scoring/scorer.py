"""From pictures of any size to scores and maps at the picture's size, the same for every method.

Here a detector, which knows fixed-size tensors only, meets what pictures in plants are like: large
(tiles plus a global view), not square (aspect ratio kept), and with surroundings that do not count
(areas of interest).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import tee
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from zerodefect.detector.composed import SetLevel
from zerodefect.detector.contract import Detector, PatchFeatures, UnsupportedError
from zerodefect.detector.knowledge import Knowledge
from zerodefect.images import ImageError, Picture, Preprocess
from zerodefect.images.part_files import unused_cloud
from zerodefect.images.point_input import part_alone
from zerodefect.images.tiling import Tile
from zerodefect.scoring.areas import paint_over
from zerodefect.scoring.joining import Joint, Scored
from zerodefect.scoring.spool import Spool
from zerodefect.scoring.viewing import Viewing
from zerodefect.types import Prediction

if TYPE_CHECKING:
    from zerodefect.types import Inputs

Areas = Sequence[np.ndarray | None]
Key = tuple[int, int]  # number of a picture, and of its view

DEFAULT_BATCH = 8


@dataclass(frozen=True)
class MemoryPlan:
    """What remembering pictures will take, known after the first batch of them."""

    views: int  # that are remembered; tiles are counted, and turned or mirrored ones
    bytes: int  # that all their features would take
    budget: int  # bytes that are kept of them

    def __str__(self) -> str:
        """One line, with what follows where it is too much."""
        views = "1 view takes" if self.views == 1 else f"{self.views} views take"
        text = f"references: {views} {self.bytes / 1e6:,.1f} MB of memory"
        if self.bytes <= self.budget:
            return text
        return (
            f"{text}, more than the budget of {self.budget / 1e6:,.1f} MB: only a coreset of them "
            "is kept, and no reference can be left out exactly"
        )


class Scorer:
    """Scores pictures with a detector; it holds no knowledge and does not change.

    Args:
        detector: ready to score.
        viewing: how pictures are shown to it.
        map_size: ``(height, width)`` of all maps, instead of each picture's own.
        sized: False gives maps as the network does, see ``joining.Joint``.
        features: ``score`` gives the patch features of pictures that are not cut into tiles, too.
    """

    def __init__(
        self,
        detector: Detector,
        viewing: Viewing | None = None,
        map_size: tuple[int, int] | None = None,
        *,
        sized: bool = True,
        features: bool = False,
    ) -> None:
        self.detector = detector
        self.viewing = viewing or Viewing()
        self.map_size, self.sized, self.features = map_size, sized, features

    def views(
        self, picture: Picture, inspected: np.ndarray | None = None
    ) -> Iterator[dict[str, Tensor]]:
        """Network inputs ``(3, h, w)`` of a picture by name: the global view, then the tiles.

        Raises:
            ValueError: an inspected area that is empty or of another size.
            ImageError: more views than ``MOST_VIEWS``.
        """
        shown = self._shown(picture, inspected)
        yield self._inputs(shown)
        for tile in self.viewing.tiles(shown):
            yield self._inputs(tile.cut(shown))

    def check(self, picture: Picture) -> None:
        """Make sure that a picture can be shown, without making its views.

        Raises:
            ImageError: more views than ``MOST_VIEWS``, or it lacks what the detector needs.
        """
        self.viewing.tiles(picture)
        self._ways(picture)

    def _inputs(self, picture: Picture) -> dict[str, Tensor]:
        return {name: preprocess(picture) for name, preprocess in self._ways(picture).items()}

    def _ways(self, picture: Picture) -> dict[str, Preprocess]:
        """How a picture or tile becomes each of the inputs that it has."""
        there, lacking = {}, []
        for name, needed in self.detector.inputs.items():
            preprocess = self.viewing.preprocess(needed, picture)
            if preprocess.lacks(picture):
                lacking.append(preprocess.modality)
            else:
                there[name] = preprocess
        if lacking and not (there and self.detector.may_lack):
            kinds = ", ".join(sorted(set(lacking)))
            told = unused_cloud(picture) if "points" in lacking else None
            reason = f"{self.detector.info.title} needs its {kinds}, and {told or 'there are none'}"
            remedy = "Give them, or take a method that does without"
            if picture.colourless:
                remedy += ", or judge a view of the points: --view normals (in Python view=...)"
            raise ImageError(picture.path, reason, remedy)
        return there

    def _shown(self, picture: Picture, inspected: np.ndarray | None) -> Picture:
        """The picture as all views are cut from it; the ground is known from the whole alone."""
        shown = self.viewing.shown(picture)
        if shown.cloud is not None:
            shown = replace(shown, cloud=part_alone(shown.cloud))
        return paint_over(shown, inspected)

    @property
    def network_size(self) -> tuple[int, int]:
        """``(height, width)`` of the largest input, by which pictures are kept; pixels."""
        sizes = [needed.preprocess.size for needed in self.detector.inputs.values()]
        return max(size[0] for size in sizes), max(size[1] for size in sizes)

    def batches(
        self, shown: Iterable[tuple[Picture, np.ndarray | None]], size: int
    ) -> Iterator[tuple[list[Key], Inputs]]:
        """Views of pictures with their areas, those of one size together; each with its key."""
        waiting: dict[Any, list[tuple[Key, dict[str, Tensor]]]] = {}
        for number, (picture, area) in enumerate(shown):
            for view, inputs in enumerate(self.views(picture, area)):
                shapes = tuple((name, tensor.shape) for name, tensor in inputs.items())
                alike = waiting.setdefault(shapes, [])
                alike.append(((number, view), inputs))
                if len(alike) == size:
                    yield self._stacked(waiting.pop(shapes))
        for alike in waiting.values():
            yield self._stacked(alike)

    def _stacked(self, alike: list[tuple[Key, dict[str, Tensor]]]) -> tuple[list[Key], Inputs]:
        rows = [inputs for _, inputs in alike]
        device = self.detector.device
        stacked = {name: torch.stack([row[name] for row in rows]).to(device) for name in rows[0]}
        keys = [key for key, _ in alike]
        return keys, stacked["image"] if self.detector.inputs.keys() == {"image"} else stacked

    # --- features -------------------------------------------------------------------------------

    @torch.inference_mode()
    def patch_features(
        self, picture: Picture, inspected: np.ndarray | None = None, tile: Tile | None = None
    ) -> tuple[PatchFeatures, ...]:
        """Features of the patches of the whole picture, or of a tile of it, as one batch.

        ``inspected`` is as of ``score``.
        """
        shown = self._shown(picture, inspected)
        inputs = self._inputs(shown if tile is None else tile.cut(shown))
        _, batch = self._stacked([((0, 0), inputs)])
        return self.detector.patch_features(self.detector.encode(batch))

    # --- scores ---------------------------------------------------------------------------------

    def score(
        self,
        pictures: Sequence[Picture],
        areas: Areas | None,
        knowledge: Knowledge,
        batch_size: int = DEFAULT_BATCH,
        change: Callable[[Prediction], Prediction] = lambda prediction: prediction,
        left_out: Sequence[int] | None = None,
    ) -> list[Scored]:
        """Score pictures of any sizes.

        Args:
            pictures: what is scored.
            areas: per picture ``(H, W)`` bool, True where it counts, or None for all of it. What
                lies outside is painted over before the network sees it.
            knowledge: what the detector knows.
            batch_size: network inputs that go through at once; changes no number.
            change: a set-level step, applied to every batch of predictions.
            left_out: per picture the number of the reference that does not count for it, -1 for
                none; where the memory ``leaves_out``.

        Raises:
            ValueError: an inspected area that is empty or of another size.
        """
        return self.score_under(pictures, areas, [knowledge], batch_size, change, left_out)[0]

    def score_under(
        self,
        pictures: Sequence[Picture],
        areas: Areas | None,
        known: Sequence[Knowledge],
        batch_size: int = DEFAULT_BATCH,
        change: Callable[[Prediction], Prediction] = lambda prediction: prediction,
        left_out: Sequence[int] | None = None,
    ) -> list[list[Scored]]:
        """``score`` under each of several knowledges; the network runs once."""
        areas = areas or [None] * len(pictures)
        joints = [self._joints(pictures, areas, knowledge) for knowledge in known]
        with torch.inference_mode():
            for keys, inputs in self.batches(zip(pictures, areas, strict=True), batch_size):
                encoded = self.detector.encode(inputs)
                out: tuple[Tensor, ...] = ()
                if left_out is not None:
                    numbers = [left_out[picture] for picture, _ in keys]
                    out = (torch.tensor(numbers, device=self.detector.device),)
                for row, knowledge in zip(joints, known, strict=True):
                    _spread(row, keys, change(self.detector.predict(encoded, knowledge, *out)))
                    if self.features:
                        _describe(row, keys, self.detector.patch_features(encoded))
        return [[joint.scored() for joint in row] for row in joints]

    @torch.inference_mode()
    def predictions(
        self, pictures: Sequence[Picture], areas: Areas, knowledge: Knowledge, batch_size: int
    ) -> Iterator[Prediction]:
        """Raw predictions, batch by batch, for what a set-level step sees first."""
        for _, inputs in self.batches(zip(pictures, areas, strict=True), batch_size):
            yield self.detector.predict(self.detector.encode(inputs), knowledge)

    def _joints(
        self, pictures: Iterable[Picture], areas: Iterable[np.ndarray | None], knowledge: Knowledge
    ) -> list[Joint]:
        lowest = (self.detector.map_range(knowledge) or (0.0, 1.0))[0]
        return [
            Joint(picture, self.viewing, area, lowest, self.map_size, self.sized)
            for picture, area in zip(pictures, areas, strict=True)
        ]

    # --- references -----------------------------------------------------------------------------

    def remember(
        self,
        knowledge: Knowledge,
        pictures: Sequence[Picture],
        areas: Areas,
        batch_size: int = DEFAULT_BATCH,
        on_plan: Callable[[MemoryPlan], None] = lambda plan: None,
    ) -> Knowledge:
        """Let the detector remember normal pictures, tiles as far as they are cut.

        ``on_plan`` is told what it will take before anything is kept; the rest is as of ``score``.

        Raises:
            UnsupportedError: the method takes no references.
        """
        if self.detector.memory is None:
            info = self.detector.info
            raise UnsupportedError(
                f"{info.name} takes no references; it learns normality from "
                f"{', '.join(info.knows_from)}"
            )
        views = sum(1 + len(self.viewing.tiles(picture)) for picture in pictures)

        def encoded() -> Iterator[tuple[Any, Tensor]]:
            told = False
            for keys, inputs in self.batches(zip(pictures, areas, strict=True), batch_size):
                numbers = torch.tensor([knowledge.shots + picture for picture, _ in keys])
                shown = (inputs, *self.detector.augmented(inputs))
                for more in shown:
                    batch = self.detector.encode(more)
                    if not told:
                        on_plan(self._plan(batch, len(keys), views * len(shown)))
                        told = True
                    yield batch, numbers

        with torch.no_grad():  # knowledge outlives this: no tensors that gradients cannot pass
            return self._remembered(knowledge, encoded())

    def _plan(self, encoded: Any, count: int, views: int) -> MemoryPlan:
        memory = self.detector.memory
        assert memory is not None
        taken = memory.bytes_of(self.detector.references(encoded))
        whole = taken if memory.constant else round(taken / count * views)
        return MemoryPlan(views, whole, memory.budget)

    def _remembered(self, knowledge: Knowledge, pairs: Iterable[tuple[Any, Tensor]]) -> Knowledge:
        left, right = tee(pairs)
        batches, numbers = (batch for batch, _ in left), (number for _, number in right)
        return self.detector.settle(self.detector.remember(knowledge, batches, numbers))

    def score_left_out(
        self,
        pictures: Sequence[Picture],
        areas: Areas,
        knowledge: Knowledge,
        batch_size: int = DEFAULT_BATCH,
    ) -> list[Scored]:
        """Score each picture with all the OTHER ones as its references, besides those known.

        The network runs once for each view, whatever the pictures' sizes.

        Raises:
            ValueError: fewer than two pictures, when no other is known.
        """
        if len(pictures) + knowledge.shots < 2:
            raise ValueError("leave-one-out needs at least two images")
        joints = self._joints(pictures, areas, knowledge)
        with torch.inference_mode(), Spool() as spool:
            for keys, inputs in self.batches(zip(pictures, areas, strict=True), batch_size):
                numbers = torch.tensor([knowledge.shots + picture for picture, _ in keys])
                spool.add((keys, numbers, list(self._remembered_as(inputs))))
            pairs = ((one, n) for _, n, every in spool for one in every)
            known = self._remembered(knowledge, pairs)
            if not self.detector.leaves_out(known):
                return self._left_out_one_by_one(pictures, areas, knowledge, batch_size)
            for keys, numbers, (batch, *_) in spool:
                out = numbers.to(self.detector.device)
                _spread(joints, keys, self.detector.predict(batch, known, out))
        return [joint.scored() for joint in joints]

    def _left_out_one_by_one(
        self, pictures: Sequence[Picture], areas: Areas, knowledge: Knowledge, batch_size: int
    ) -> list[Scored]:
        """The same by a memory of the others for each picture, where none can be left out."""
        everyone = range(len(pictures))
        known = self.without_each(everyone, pictures, areas, knowledge, batch_size)
        shown = zip(pictures, areas, known, strict=True)
        return [self.score([one], [area], k, batch_size)[0] for one, area, k in shown]

    def without_each(
        self,
        numbers: Sequence[int],
        pictures: Sequence[Picture],
        areas: Areas,
        knowledge: Knowledge,
        batch_size: int = DEFAULT_BATCH,
    ) -> Iterator[Knowledge]:
        """Knowledge of all the pictures but one, for each number in turn.

        The network runs once for each view; ``knowledge`` is what is known besides the pictures.
        """
        with Spool() as spool:
            for picture, area in zip(pictures, areas, strict=True):
                spool.add(self._encoded_views(picture, area, batch_size))
            for own in numbers:
                rest = (parts for number, parts in enumerate(spool) if number != own)
                others = (  # numbered on without a gap, as if there had never been one more
                    (batch, torch.full((self._count(batch),), knowledge.shots + number))
                    for number, parts in enumerate(rest)
                    for batch in parts
                )
                with torch.no_grad():  # not while whoever asked goes on
                    known = self._remembered(knowledge, others)
                yield known

    @torch.no_grad()
    def _encoded_views(
        self, picture: Picture, area: np.ndarray | None, batch_size: int
    ) -> list[Any]:
        """All views of a reference, as they are remembered."""
        batches = self.batches([(picture, area)], batch_size)
        return [one for _, inputs in batches for one in self._remembered_as(inputs)]

    def _remembered_as(self, inputs: Inputs) -> Iterator[Any]:
        """What is remembered of inputs: as they are, then turned or mirrored."""
        for more in (inputs, *self.detector.augmented(inputs)):
            yield self.detector.encode(more)

    def _count(self, encoded: Any) -> int:
        return len(next(iter(self.detector.references(encoded).values())))

    # --- sets -----------------------------------------------------------------------------------

    @torch.inference_mode()
    def score_set(
        self,
        shown: Iterable[tuple[Picture, np.ndarray | None]],
        knowledge: Knowledge,
        batch_size: int = DEFAULT_BATCH,
        step: SetLevel | None = None,
    ) -> Iterator[Scored]:
        """Score pictures against each other; they are held as features, not as pixels.

        Pictures with their inspected areas (None for all of one) are gone through once. A
        set-level ``step`` is applied to what the detector says.

        Raises:
            TooFewError: there is no other picture to compare with.
        """
        joints: list[Joint] = []

        def joined() -> Iterator[tuple[Picture, np.ndarray | None]]:
            for picture, area in shown:
                joints.extend(self._joints([picture], [area], knowledge))
                yield picture, area

        with Spool() as spool:
            taken = []
            for keys, inputs in self.batches(joined(), batch_size):
                taken.append(keys)
                spool.add(self.detector.encode(inputs))
            left = [1 + len(joint.tiles) for joint in joints]
            ready = 0
            predictions = self.detector.score_set(spool, knowledge)
            if step is not None:
                predictions = _stepped(predictions, step)
            for keys, prediction in zip(taken, predictions, strict=True):
                _spread(joints, keys, prediction)
                for number, _view in keys:
                    left[number] -= 1
                while ready < len(joints) and not left[ready]:
                    yield joints[ready].scored()
                    ready += 1


def _stepped(predictions: Iterator[Prediction], step: SetLevel) -> Iterator[Prediction]:
    """Predictions that a step has changed after it saw them all."""
    with Spool() as spool:
        for prediction in predictions:
            step.see(prediction)
            spool.add(prediction)
        yield from map(step.apply, spool)


def _spread(joints: Sequence[Joint], keys: Sequence[Key], prediction: Prediction) -> None:
    for row, (number, view) in enumerate(keys):
        joints[number].add(view, prediction, row)


def _describe(
    joints: Sequence[Joint], keys: Sequence[Key], features: tuple[PatchFeatures, ...]
) -> None:
    for row, (number, _) in enumerate(keys):
        if not joints[number].tiles:
            own = tuple(replace(one, values=one.values[row : row + 1]) for one in features)
            joints[number].features = own

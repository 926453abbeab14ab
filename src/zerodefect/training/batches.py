"""Which examples go into which step, and how they become tensors: a pure function of the seed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from zerodefect.data import MASK_RULES
from zerodefect.detector.contract import Input
from zerodefect.detector.recipes import Recipe
from zerodefect.images import ImageError, Preprocess
from zerodefect.training.augment import AUGMENTATIONS
from zerodefect.training.examples import Example, Examples
from zerodefect.types import Failure, TrainingBatch

_MASK_RULE = "bilinear>0.5"  # that of the official codes


def seeded(*numbers: int) -> torch.Generator:
    """A generator that depends on these numbers alone."""
    digest = hashlib.blake2b(repr(numbers).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)


@lru_cache(maxsize=2)
def _shuffled(count: int, seed: int, epoch: int) -> list[int]:
    return torch.randperm(count, generator=seeded(seed, epoch)).tolist()


Images = dict[str, Tensor]
"""Prepared pictures by the name of the detector's input."""


@dataclass(frozen=True)
class Shard:
    """What one process does in one step.

    Attributes:
        images: ``(b, 3, H, W)`` by name; ``b`` may be 0 in the last step of an epoch.
        masks: ``(b, H, W)`` float32.
        labels: ``(b,)`` int64.
        objects: ``b`` names.
        kinds: of the defects, ``b`` names.
        references: ``(b, K, 3, H, W)`` by name; None unless the recipe asks for them.
        share: ``b`` over the images of the step in all processes.
        whole: images of the step in all processes.
        failures: why examples could not be used, by their number; they are left out, and count in
            ``share`` as if their loss were zero.
        remarks: how masks were read.
    """

    images: Images
    masks: Tensor
    labels: Tensor
    objects: tuple[str, ...]
    kinds: tuple[str, ...]
    references: Images | None
    share: float
    whole: int
    failures: Mapping[int, Failure] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()

    def batch(self, device: torch.device, generator: torch.Generator) -> TrainingBatch:
        """As a method takes it."""

        def placed(images: Images) -> Any:
            moved = {name: tensor.to(device) for name, tensor in images.items()}
            return moved["image"] if moved.keys() == {"image"} else moved

        return TrainingBatch(
            placed(self.images),
            self.masks.to(device),
            self.labels.to(device),
            self.objects,
            generator,
            self.references and placed(self.references),
            self.kinds,
        )


@dataclass(frozen=True)
class _Made:
    """One example, prepared."""

    images: Images
    mask: Tensor
    label: int
    object: str
    kind: str
    references: list[Images]


@dataclass
class _Reader:
    """Reads examples, and notes what could not be used and what should be known."""

    examples: Examples
    failures: dict[int, Failure] = field(default_factory=dict)
    remarks: dict[str, None] = field(default_factory=dict)

    def one(self, index: int) -> Example | None:
        """Read an example; None if its picture or mask cannot be used."""
        try:
            example = self.examples.read(index)
        except ImageError as error:
            self.failures[index] = error.failure
            return None
        self.remarks |= dict.fromkeys(example.remarks)
        return example

    def several(self, indices: Sequence[int], instead: Sequence[int]) -> list[Example]:
        """Read as many examples as asked for, others in the place of those that cannot be used."""
        found = [example for i in indices if (example := self.one(i))]
        spare = iter(instead)
        while not found and (other := next(spare, None)) is not None:
            found = [example for i in [other] if (example := self.one(i))]
        return [found[i % len(found)] for i in range(len(indices))] if found else []


@dataclass(frozen=True)
class Steps(Dataset[Shard]):
    """The batches of a stage, by step.

    An epoch shows every example once in an order of its own; its last batch may be smaller, as in
    the official codes. A batch is split among the processes as evenly as it goes.

    Attributes:
        examples: what is learned from.
        inputs: of the detector.
        recipe: batch size, epochs, augmentation, references and seed.
        mosaic: probability that a 2 x 2 mosaic of pictures of the same product takes an example's
            place (the papers: 0.2 on MVTec AD); with ``vcp`` of its defective pictures.
        rank, processes: which part of the batches.

    Raises:
        ValueError: mosaics or an augmentation for a method of several inputs.
        DatasetError: references are asked for and a product has no other good picture.
    """

    examples: Examples
    inputs: Mapping[str, Input]
    recipe: Recipe
    mosaic: float = 0.0
    rank: int = 0
    processes: int = 1

    def __post_init__(self) -> None:
        if len(self.inputs) > 1 and (self.mosaic or self.recipe.augment != "none"):
            raise ValueError("mosaics and augmentations are for methods with one input")
        if self.recipe.references:
            self.examples.check_references()

    @property
    def per_epoch(self) -> int:
        """Steps of one epoch."""
        return -(-len(self.examples) // self.recipe.batch_size)

    def __len__(self) -> int:
        return self.recipe.epochs * self.per_epoch

    def indices(self, step: int) -> list[int]:
        """Examples of a step (from 0), over all processes."""
        epoch, number = divmod(step, self.per_epoch)
        order, size = _shuffled(len(self.examples), self.recipe.seed, epoch), self.recipe.batch_size
        return order[number * size : (number + 1) * size]

    def __getitem__(self, step: int) -> Shard:
        """This process's part of a step."""
        whole = self.indices(step)
        bounds = [len(whole) * r // self.processes for r in (self.rank, self.rank + 1)]
        reader = _Reader(self.examples)
        made = [one for i in range(*bounds) if (one := self._made(reader, whole[i], step, i))]
        height, width = self._preprocess.size
        wanted = self.recipe.references
        references = [_joined(one.references) for one in made] if wanted else None
        return Shard(
            self._stacked([one.images for one in made]),
            torch.stack([one.mask for one in made]) if made else torch.zeros(0, height, width),
            torch.tensor([one.label for one in made], dtype=torch.int64),
            tuple(one.object for one in made),
            tuple(one.kind for one in made),
            None if references is None else self._stacked(references),
            len(made) / len(whole),
            len(whole),
            reader.failures,
            tuple(reader.remarks),
        )

    @property
    def _preprocess(self) -> Preprocess:
        """Of the first input, at whose size masks are."""
        return next(iter(self.inputs.values())).preprocess

    def _stacked(self, rows: list[Images]) -> Images:
        if not rows:
            return {
                name: torch.zeros(0, 3, *one.preprocess.size) for name, one in self.inputs.items()
            }
        return _joined(rows)

    def _made(self, reader: _Reader, index: int, step: int, place: int) -> _Made | None:
        generator = seeded(self.recipe.seed, step, place, 1)
        example = reader.one(index)
        if example is None:
            return None
        if lacking := self._lacking(example):
            reader.failures[index] = lacking.failure
            return None
        label = example.anomalous
        if self.mosaic and float(torch.rand((), generator=generator)) < self.mosaic:
            four = reader.several(self._four(index, generator), [index])
            images, mask = self._mosaic(four)
            label = any(part.anomalous for part in four)
        else:
            images, mask = self._prepared(example)
        augment = AUGMENTATIONS[self.recipe.augment]
        if augment:
            preprocess = self._preprocess
            mean = torch.tensor(preprocess.mean).view(3, 1, 1)
            std = torch.tensor(preprocess.std).view(3, 1, 1)
            image, mask = augment((images["image"] * std + mean).clamp(0, 1), mask, generator)
            images = {"image": (image - mean) / std}
        chosen = self.examples.references(index, self.recipe.references, generator)
        shown = reader.several(chosen, self._spare(index, chosen) if chosen else [])
        if len(shown) < len(chosen):  # none of them can be read: then it cannot be used, either
            reader.failures.setdefault(index, reader.failures[chosen[0]])
            return None
        references = [self._prepared(reference)[0] for reference in shown]
        return _Made(images, mask, int(label), example.object, example.kind, references)

    def _lacking(self, example: Example) -> ImageError | None:
        """Why an example cannot be used, where it lacks an input: all of them are learned from."""
        needed = (one.preprocess for one in self.inputs.values())
        kinds = [one.modality for one in needed if one.lacks(example.picture)]
        if not kinds:
            return None
        reason = f"it has no {' and no '.join(sorted(set(kinds)))} to learn from"
        return ImageError(example.picture.path, reason, "Give what is missing, or leave it out")

    def _spare(self, index: int, chosen: Sequence[int]) -> list[int]:
        """Good pictures of the same product that were not drawn as references."""
        return [i for i in self.examples.normal(index) if i not in chosen]

    def _prepared(self, example: Example) -> tuple[Images, Tensor]:
        mask = MASK_RULES[_MASK_RULE](example.mask, self._preprocess.size)
        inputs = self.inputs.items()
        images = {name: needed.preprocess(example.picture) for name, needed in inputs}
        return images, torch.from_numpy(mask).float()

    def _four(self, index: int, generator: torch.Generator) -> list[int]:
        partners = self.examples.partners(index)
        if self.recipe.augment == "vcp":
            partners = [i for i in partners if self.examples.label(i)[2]] or partners
        chosen = torch.randint(len(partners), (4,), generator=generator).tolist()
        return [partners[i] for i in chosen]

    def _mosaic(self, four: list[Example]) -> tuple[Images, Tensor]:
        parts = [self._prepared(example) for example in four]
        images, masks = [images["image"] for images, _ in parts], [mask for _, mask in parts]
        image = torch.cat([torch.cat(images[:2], 2), torch.cat(images[2:], 2)], 1)
        mask = torch.cat([torch.cat(masks[:2], 1), torch.cat(masks[2:], 1)], 0)
        size = self._preprocess.size
        image = F.interpolate(image[None], size, mode="bicubic", antialias=True)[0]
        mask = F.interpolate(mask[None, None], size, mode="bilinear", antialias=True)[0, 0]
        return {"image": image}, (mask > 0.5).float()


def _joined(rows: list[Images]) -> Images:
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}


def _as_it_is(item: Any) -> Any:
    return item


def made_ahead(dataset: Dataset[Any], steps: range, workers: int) -> DataLoader[Any]:
    """Items of a data set for these steps in their order, made ahead by worker processes."""
    return DataLoader(
        dataset,
        batch_size=None,
        sampler=steps,
        collate_fn=_as_it_is,
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        multiprocessing_context="spawn" if workers else None,
    )


def shards(steps: Steps, first: int, last: int, workers: int) -> Iterator[Shard]:
    """Shards of steps ``first`` to ``last - 1``, made ahead by worker processes."""
    return iter(made_ahead(steps, range(first, last), workers))

"""Which examples go into which step, and how they become tensors: a pure function of the seed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from zerodefect.data import MASK_RULES
from zerodefect.images import ImageError, Preprocess
from zerodefect.training.augment import AUGMENTATIONS
from zerodefect.training.examples import Example, Examples
from zerodefect.types import TrainingBatch

_MASK_RULE = "bilinear>0.5"  # that of the official codes


def seeded(*numbers: int) -> torch.Generator:
    """A generator that depends on these numbers alone."""
    digest = hashlib.blake2b(repr(numbers).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)


@lru_cache(maxsize=2)
def _shuffled(count: int, seed: int, epoch: int) -> list[int]:
    return torch.randperm(count, generator=seeded(seed, epoch)).tolist()


@dataclass(frozen=True)
class Shard:
    """What one process does in one step.

    Attributes:
        images: ``(b, 3, H, W)``; ``b`` may be 0 in the last step of an epoch.
        masks: ``(b, H, W)`` float32.
        labels: ``(b,)`` int64.
        objects: ``b`` names.
        share: ``b`` over the images of the step in all processes.
        whole: images of the step in all processes.
    """

    images: Tensor
    masks: Tensor
    labels: Tensor
    objects: tuple[str, ...]
    share: float
    whole: int

    def batch(self, device: torch.device, generator: torch.Generator) -> TrainingBatch:
        """As a method takes it."""
        return TrainingBatch(
            self.images.to(device),
            self.masks.to(device),
            self.labels.to(device),
            self.objects,
            generator,
        )


@dataclass(frozen=True)
class Steps(Dataset[Shard]):
    """The batches of a run, by step.

    An epoch shows every example once in an order of its own; its last batch may be smaller, as in
    the official codes. A batch is split among the processes as evenly as it goes.

    Attributes:
        examples: what is learned from.
        preprocess: of the detector.
        batch_size: images per step, over all processes.
        epochs: passes over the examples.
        seed: of order, augmentation and mosaics.
        augment: name in ``AUGMENTATIONS``.
        mosaic: probability that a 2 x 2 mosaic of pictures of the same product takes an example's
            place (the papers: 0.2 on MVTec AD); with ``vcp`` of its defective pictures.
        rank, processes: which part of the batches.
    """

    examples: Examples
    preprocess: Preprocess
    batch_size: int
    epochs: int
    seed: int
    augment: str = "none"
    mosaic: float = 0.0
    rank: int = 0
    processes: int = 1

    @property
    def per_epoch(self) -> int:
        """Steps of one epoch."""
        return -(-len(self.examples) // self.batch_size)

    def __len__(self) -> int:
        return self.epochs * self.per_epoch

    def indices(self, step: int) -> list[int]:
        """Examples of a step (from 0), over all processes."""
        epoch, number = divmod(step, self.per_epoch)
        order = _shuffled(len(self.examples), self.seed, epoch)
        return order[number * self.batch_size : (number + 1) * self.batch_size]

    def __getitem__(self, step: int) -> Shard:
        """This process's part of a step."""
        whole = self.indices(step)
        bounds = [len(whole) * r // self.processes for r in (self.rank, self.rank + 1)]
        own = range(*bounds)
        made = [self._tensors(whole[i], step, i) for i in own]
        height, width = self.preprocess.size
        images = [image for image, *_ in made] or [torch.zeros(0, 3, height, width)]
        masks = [mask for _, mask, *_ in made] or [torch.zeros(0, height, width)]
        join = torch.stack if made else torch.cat
        return Shard(
            join(images),
            join(masks),
            torch.tensor([label for *_, label, _ in made], dtype=torch.int64),
            tuple(name for *_, name in made),
            len(made) / len(whole),
            len(whole),
        )

    def _tensors(self, index: int, step: int, place: int) -> tuple[Tensor, Tensor, int, str]:
        """``(3, H, W)`` image, ``(H, W)`` mask, label and name of one example."""
        generator = seeded(self.seed, step, place, 1)
        example = self.examples.read(index)
        label = example.anomalous
        if self.mosaic and float(torch.rand((), generator=generator)) < self.mosaic:
            four = [self.examples.read(i) for i in self._four(index, generator)]
            image, mask = self._mosaic(four)
            label = any(part.anomalous for part in four)
        else:
            image, mask = self._prepared(example)
        augment = AUGMENTATIONS[self.augment]
        if augment:
            mean = torch.tensor(self.preprocess.mean).view(3, 1, 1)
            std = torch.tensor(self.preprocess.std).view(3, 1, 1)
            image, mask = augment((image * std + mean).clamp(0, 1), mask, generator)
            image = (image - mean) / std
        return image, mask, int(label), example.object

    def _prepared(self, example: Example) -> tuple[Tensor, Tensor]:
        mask = MASK_RULES[_MASK_RULE](example.mask, self.preprocess.size)
        return self.preprocess(example.picture), torch.from_numpy(mask).float()

    def _four(self, index: int, generator: torch.Generator) -> list[int]:
        partners = _partners(self.examples)[self.examples.label(index)[:2]]
        if self.augment == "vcp":
            partners = [i for i in partners if self.examples.label(i)[2]] or partners
        chosen = torch.randint(len(partners), (4,), generator=generator).tolist()
        return [partners[i] for i in chosen]

    def _mosaic(self, four: list[Example]) -> tuple[Tensor, Tensor]:
        parts = [self._prepared(example) for example in four]
        images, masks = zip(*parts, strict=True)
        image = torch.cat([torch.cat(images[:2], 2), torch.cat(images[2:], 2)], 1)
        mask = torch.cat([torch.cat(masks[:2], 1), torch.cat(masks[2:], 1)], 0)
        size = self.preprocess.size
        image = F.interpolate(image[None], size, mode="bicubic", antialias=True)[0]
        mask = F.interpolate(mask[None, None], size, mode="bilinear", antialias=True)[0, 0]
        return image, (mask > 0.5).float()


@lru_cache(maxsize=2)
def _partners(examples: Examples) -> dict[tuple[Any, ...], list[int]]:
    """Examples of each product of each source."""
    found: dict[tuple[Any, ...], list[int]] = {}
    for index in range(len(examples)):
        found.setdefault(examples.label(index)[:2], []).append(index)
    return found


@dataclass(frozen=True)
class _Guarded(Dataset["Shard | ImageError"]):
    """Hands an unreadable picture over as a value: errors lose their type on the way of workers."""

    steps: Steps

    def __getitem__(self, step: int) -> Shard | ImageError:
        try:
            return self.steps[step]
        except ImageError as error:
            return error


def _as_it_is(item: Any) -> Any:
    return item


def shards(steps: Steps, first: int, last: int, workers: int) -> Iterator[Shard]:
    """Shards of steps ``first`` to ``last - 1``, made ahead by worker processes.

    Raises:
        ImageError: a picture or mask cannot be read. None is skipped: the run would be another.
    """
    loader = DataLoader(
        _Guarded(steps),
        batch_size=None,
        sampler=range(first, last),
        collate_fn=_as_it_is,
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        multiprocessing_context="spawn" if workers else None,
    )
    for item in loader:
        if isinstance(item, ImageError):
            raise item
        yield item

"""What a method learns from: pictures with masks, of data sets on disk or drawn by the project."""

from __future__ import annotations

import contextlib
import hashlib
import zlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from zerodefect.backbones.weight_files import file_hash
from zerodefect.data import Dataset, DatasetError, Sample, opened_mask, told_depths
from zerodefect.images import Picture
from zerodefect.images.part_files import open_part
from zerodefect.procedural import DEFECT_KINDS, SURFACE_NOUNS, asked_for_damage, generate

_SERIES = 1_000_000_007  # procedural series of training: not those of the embedded model

_VIEWS = 8  # pictures of a product that are compared with each other

_KEPT = 2**28  # bytes of drawn pictures that stay in memory for the next epoch


@dataclass(frozen=True)
class Example:
    """One labelled picture.

    Attributes:
        picture: as decoded.
        mask: ``(H, W)`` bool, True where defective.
        anomalous: the label.
        object: words for the product.
        remarks: how the mask was read, where that is not plain.
        kind: of the defect, as the data set calls it; empty where it has none.
    """

    picture: Picture
    mask: np.ndarray
    anomalous: bool
    object: str
    remarks: tuple[str, ...] = ()
    kind: str = ""


class Source(ABC):
    """A numbered list of examples that is the same in every process and at any time."""

    name: str
    remarks: tuple[str, ...] = ()

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def read(self, index: int) -> Example:
        """Open one example.

        Raises:
            ImageError: the picture or its mask cannot be read.
        """

    @abstractmethod
    def label(self, index: int) -> tuple[str, bool]:
        """Name of the product and whether it is defective, without opening the picture."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Hash of everything that the examples depend on."""

    @property
    def shown(self) -> int:
        """Further good pictures, numbered on from the examples, that are only compared with."""
        return 0

    def files(self) -> list[Path]:
        """Picture files among the examples; none where they are drawn."""
        return []

    def facts(self) -> dict[str, Any]:
        """Name, counts and hash, plain data."""
        anomalous = sum(self.label(i)[1] for i in range(len(self)))
        return {
            "name": self.name,
            "good": len(self) - anomalous,
            "anomalous": anomalous,
            "fingerprint": self.fingerprint(),
        }


class Pictures(Source):
    """The labelled pictures of a data set.

    The field trains on the TEST split of an auxiliary data set, since only there defects with
    masks are; where a data set has no splits, all labelled pictures count.

    Args:
        dataset: as loaded.
        names: product -> words for it; by default the product's own name.
        train_good: add the good pictures of the training split.
        bit_depth: bits that 16-bit pictures use; by default inferred once for each product.
        good_only: the good pictures of the training split alone, for methods that learn from those;
            all good ones where there are no splits, all pictures where nothing is labelled.
        compared: the good pictures of the training split are what others are compared with, for
            methods that learn to compare; where there are none, or with ``train_good``, the good
            ones that are learned from are.

    Attributes:
        samples: what is learned from, then what is only compared with.
        left_out: defective pictures without a mask.
        remarks: what should be known of the data set.

    Raises:
        DatasetError: nothing to learn from.
    """

    def __init__(
        self,
        dataset: Dataset,
        names: Mapping[str, str] | None = None,
        *,
        train_good: bool = False,
        good_only: bool = False,
        compared: bool = False,
        bit_depth: int | None = None,
    ) -> None:
        self.name = dataset.name
        self.names = dict(names or {})
        self.remarks = dataset.remarks()
        chosen_ones = _good(dataset) if good_only else _labelled(dataset, train_good)
        self.samples = tuple(s for s in chosen_ones if s.masks or not s.anomalous)
        self.left_out = len(chosen_ones) - len(self.samples)
        self._count = len(self.samples)
        if not (self.samples if good_only else any(s.anomalous for s in self.samples)):
            kind = "good pictures" if good_only else "defective pictures with masks"
            reason = f"there are no {kind} to learn from"
            remedy = "Training needs both: give masks, or another data set (zerodefect data check)"
            if good_only:
                remedy = "Put good ones into train/good (zerodefect data check)"
            raise DatasetError(dataset.root, reason, remedy)
        if compared and not (good_only or train_good):
            products = {sample.product for sample in self.samples}
            beside = [s for s in dataset if s.split == "train" and s.anomalous is False]
            self.samples += tuple(s for s in beside if s.product in products)
        chosen = Dataset(dataset.name, dataset.root, dataset.layout, "", self.samples)
        self.depths = told_depths(self.samples, bit_depth)
        words = "\0".join(f"{product}={text}" for product, text in sorted(self.names.items()))
        words += "".join(f"\0{p}={d} bits" for p, d in sorted(self.depths.items()))
        self._fingerprint = hashlib.sha256((chosen.fingerprint() + words).encode()).hexdigest()

    def __len__(self) -> int:
        return self._count

    @property
    def shown(self) -> int:
        """Good pictures of the training split that are only compared with."""
        return len(self.samples) - self._count

    def read(self, index: int) -> Example:
        """Open one picture with its mask."""
        sample = self.samples[index]
        picture = open_part(
            sample.image, bit_depth=self.depths.get(sample.product), cloud=sample.cloud
        )
        blank = np.zeros((picture.height, picture.width), dtype=np.bool_)
        mask, remarks = opened_mask(sample) if sample.masks else (blank, ())
        words, anomalous = self.label(index)
        kind = sample.kind if anomalous else ""
        return Example(picture, mask, anomalous, words, remarks, kind)

    def label(self, index: int) -> tuple[str, bool]:
        """Words for the product, and the label."""
        sample = self.samples[index]
        return self.names.get(sample.product, sample.product), bool(sample.anomalous)

    def fingerprint(self) -> str:
        """Hash of names, labels, file sizes and words."""
        return self._fingerprint

    def files(self) -> list[Path]:
        """All pictures."""
        return [sample.image for sample in self.samples]


def _labelled(dataset: Dataset, train_good: bool) -> list[Sample]:
    test = [s for s in dataset if s.split == "test"]
    labelled = [s for s in test or dataset.samples if s.anomalous is not None]
    if train_good and test:
        labelled += [s for s in dataset if s.split == "train" and s.anomalous is False]
    return labelled


def _good(dataset: Dataset) -> list[Sample]:
    train = [s for s in dataset if s.split == "train"]
    good = [s for s in train or dataset.samples if s.anomalous is False]
    return good or [s for s in dataset if s.anomalous is None]


class Procedural(Source):
    """Pictures that the project draws itself, about half of them damaged.

    Args:
        count: how many.
        seed: of the series.
        size: side in pixels; drawn at the next multiple of 8.
        good_only: only undamaged ones.
        compared: show every product eight times, twice without damage at least, for methods that
            learn to compare; the last product makes it a few more than ``count``.
    """

    def __init__(
        self, count: int, seed: int, size: int, *, good_only: bool = False, compared: bool = False
    ) -> None:
        if count < 1:
            raise ValueError(f"procedural:{count}: ask for at least one picture")
        self.name = "procedural-good" if good_only else "procedural"
        self.series = _SERIES + seed
        self.size = -(-size // 8) * 8
        self.views = _VIEWS if compared else 1  # of a product
        spare = good_only or compared  # nearly half are good
        asked = asked_for_damage(self.series, 0, 4 * (count + 4 * _VIEWS) if spare else count)
        chosen = _numbers(asked, count, self.views, good_only)
        self.numbers, self.damaged = chosen, [asked[n] for n in chosen]
        self._kept: dict[int, Example] = {}

    def __len__(self) -> int:
        return len(self.numbers)

    def read(self, index: int) -> Example:
        """Draw one picture; damage that fell outside of it leaves it good."""
        if index in self._kept:
            return self._kept[index]
        number, views = self.numbers[index], self.views
        drawn = generate(self.series, number, 1, self.size, pictures_per_product=views)
        pixels = (drawn.images[0] * 255).round().byte().permute(1, 2, 0).numpy()
        mask = drawn.masks[0].numpy()
        picture = Picture(f"{self.name} {number}", pixels)
        nouns = SURFACE_NOUNS[drawn.surfaces[0]]
        noun = nouns[zlib.crc32(str(number // views).encode()) % len(nouns)]
        kind = DEFECT_KINDS[drawn.kinds[0]] if mask.any() else ""
        example = Example(picture, mask, bool(mask.any()), noun, kind=kind)
        if (len(self._kept) + 1) * 4 * self.size**2 <= _KEPT:
            self._kept[index] = example
        return example

    def label(self, index: int) -> tuple[str, bool]:
        """The product, which has a name of its own; whether damage was asked for."""
        return f"{self.name} {self.numbers[index] // self.views}", self.damaged[index]

    def fingerprint(self) -> str:
        """Hash of series, count and size."""
        facts = f"{self.name} {self.series} {self.size} {len(self.numbers)}"
        facts += f" {self.views} of a product" * (self.views > 1)
        return hashlib.sha256(facts.encode()).hexdigest()


def _numbers(asked: Sequence[bool], count: int, views: int, good_only: bool) -> list[int]:
    """Pictures of a series that are drawn, at least ``count``, all ``views`` of a product."""
    chosen: list[int] = []
    for first in range(0, len(asked), views):
        of_product = range(first, min(first + views, len(asked)))
        shown = [n for n in of_product if not (good_only and asked[n])]
        if len(chosen) < count and (views == 1 or sum(not asked[n] for n in shown) >= 2):
            chosen += shown
    return chosen


class Examples:
    """Several sources as one list; behind it stands what is only compared with."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self.sources = tuple(sources)
        if not self.sources:
            raise ValueError("there is nothing to learn from; name a data set (--data NAME=PATH)")
        self._places = [(s, i) for s in self.sources for i in range(len(s))]
        self._count = len(self._places)
        self._places += [(s, len(s) + i) for s in self.sources for i in range(s.shown)]
        self._partners: dict[tuple[str, str], list[int]] = {}
        self._shown: dict[tuple[str, str], list[int]] = {}
        for index in range(len(self._places)):
            known = self._partners if index < self._count else self._shown
            known.setdefault(self.label(index)[:2], []).append(index)

    def __len__(self) -> int:
        return self._count

    def partners(self, index: int) -> list[int]:
        """Examples of the same product of the same source, itself among them."""
        return self._partners[self.label(index)[:2]]

    def references(self, index: int, count: int, generator: torch.Generator) -> list[int]:
        """Draw good pictures of the same product, never the example itself; some may repeat."""
        if not count:
            return []
        good = self.normal(index)
        return [good[i] for i in torch.randint(len(good), (count,), generator=generator).tolist()]

    def normal(self, index: int) -> list[int]:
        """Good pictures that an example can be compared with: those kept for it, or the others."""
        of_product = self.label(index)[:2]
        if of_product in self._shown:
            return self._shown[of_product]
        return [i for i in self._partners[of_product] if i != index and not self.label(i)[2]]

    def check_references(self) -> None:
        """Make sure that ``references`` finds some for every example.

        Raises:
            DatasetError: a product has fewer than two good pictures.
        """
        for (source, product), members in self._partners.items():
            alone = sum(not self.label(index)[2] for index in members) < 2
            if alone and (source, product) not in self._shown:
                reason = f"{product!r} has fewer than two good pictures to compare with"
                remedy = "Add good pictures of it, or leave it out; drawn products have some "
                raise DatasetError(source, reason, f"{remedy}(--data procedural:N)")

    def read(self, index: int) -> Example:
        """Open one example."""
        source, number = self._places[index]
        return source.read(number)

    def label(self, index: int) -> tuple[str, str, bool]:
        """Source, product and label of one example, without opening it."""
        source, number = self._places[index]
        return source.name, *source.label(number)

    def files(self) -> list[Path]:
        """Picture files of all sources."""
        return [file for source in self.sources for file in source.files()]

    def facts(self) -> list[dict[str, Any]]:
        """Facts of the sources, in their order."""
        return [source.facts() for source in self.sources]


def check_apart(sources: Sequence[Source], target: Dataset) -> None:
    """Make sure that no picture of a target data set is learned from, by name or by content.

    Raises:
        DatasetError: there is one; figures on that data set would mean nothing.
    """
    learned = [
        s.image for source in sources if isinstance(source, Pictures) for s in source.samples
    ]
    places = {path.resolve() for path in learned}
    of_size: dict[int, list[Path]] = {}
    for path in learned:
        with contextlib.suppress(OSError):  # what cannot be read cannot be learned from
            of_size.setdefault(path.stat().st_size, []).append(path)

    @cache
    def contents(size: int) -> set[str]:  # read only where a target picture has that size
        return {file_hash(path) for path in of_size.get(size, [])}

    def is_copy(path: Path) -> bool:
        try:
            alike = contents(path.stat().st_size)
            return bool(alike) and file_hash(path) in alike
        except OSError:
            return False

    for sample in target:
        if sample.image.resolve() in places or is_copy(sample.image):
            reason = f"{sample.image.name} is also a training picture"
            remedy = (
                f"{target.name} is measured on, so nothing of it may be learned from: "
                "take another data set to train, or to measure"
            )
            raise DatasetError(sample.image, reason, remedy)

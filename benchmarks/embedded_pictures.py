"""Labelled pictures for the benchmark of the embedded model: folders, and procedural ones."""

from __future__ import annotations

import dataclasses
import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from zerodefect.data import MASK_RULES, Dataset, Sample, load_dataset, read_mask
from zerodefect.images import ImageError, Picture, open_image
from zerodefect.pretraining.model_and_sheets import HELD_OUT
from zerodefect.procedural import DEFECT_KINDS, KIND_STATES, generate
from zerodefect.prompts.vocabulary import Vocabulary

SIDE = 128  # pixels; where maps and masks meet
BATCH = 8
DRAWN = 256  # pixels, side of procedural pictures; each network resizes them to its own

# Kinds by the words of the data sets' own names; fixed beforehand, none was tried against another.
WORDS = {
    **KIND_STATES,
    "blowhole": ("{} with a blowhole",),
    "inclusion": ("{} with an inclusion",),
    "patches": ("{} with patches",),
    "scratches": ("{} with scratches", "scratched {}"),
    "uneven": ("{} with an uneven surface", "uneven {}"),
}

Item = tuple[str, Picture, np.ndarray]  # kind ("good" or a defect), picture, (H, W) bool mask


@dataclass(frozen=True)
class Source:
    """Labelled pictures of one product, read when they are needed."""

    name: str
    object: str
    kinds: tuple[str, ...]
    test: tuple[Callable[[], Item], ...]
    dataset: Dataset | None = None
    product: str = ""

    @property
    def vocabulary(self) -> Vocabulary:
        """Its kinds, each in the words of ``WORDS`` or by its bare name."""
        return Vocabulary.of({k: WORDS.get(k, (f"{{}} with {k}",)) for k in self.kinds})

    @property
    def normal(self) -> tuple[Sample, ...]:
        """Good training pictures: references are drawn from them, and limits are learned."""
        return self.dataset.good_train(self.product) if self.dataset else ()

    def references(self, shots: int, seed: int, share: float | None) -> list[Picture]:
        if not shots or not self.dataset:
            return []
        drawn = self.dataset.k_shot(self.product, shots, seed)
        return [centred(open_image(sample.image), share) for sample in drawn]


def folder(entry: str, limit: int | None) -> Source:
    """``NAME=PATH:OBJECT``, or ``PATH`` alone."""
    # the object's name comes last, after a colon
    name, separator, rest = entry.partition("=")
    path, _, words = (rest if separator else name).partition(":")
    dataset = load_dataset(path)
    if len(dataset.products) != 1:
        raise SystemExit(f"{path}: {len(dataset.products)} products. Name the folder of one")
    (product,) = dataset.products
    by_kind = defaultdict(list)
    for sample in dataset:
        if sample.split != "train" and sample.anomalous is not None:
            by_kind[sample.kind].append(sample)
    some = [s for samples in by_kind.values() for s in spread_out(samples, limit)]
    return Source(
        name if separator else dataset.name,
        words or product.replace("_", " "),
        tuple(kind for kind in by_kind if kind != "good"),
        tuple(partial(read, sample) for sample in some),
        dataset,
        product,
    )


def small(mask: np.ndarray) -> np.ndarray:
    """The mask at the common size, by the nearest pixel."""
    return MASK_RULES["nearest>0"](mask, (SIDE, SIDE))


def read(sample: Sample) -> Item:
    picture = open_image(sample.image)
    try:
        return sample.kind, picture, read_mask(sample)
    except ImageError:  # four masks of magnetic_tile are empty: such pictures have image values
        return sample.kind, picture, np.zeros((picture.height, picture.width), np.bool_)


def procedural(count: int, per_product: int = 1) -> Source:
    """Held-out procedural pictures; so many after another show the same product."""
    drawn = generate(HELD_OUT, 0, count, DRAWN, pictures_per_product=per_product)
    pixels = (drawn.images * 255).round().byte().permute(0, 2, 3, 1).numpy()
    names = ["good" if kind < 0 else DEFECT_KINDS[kind] for kind in drawn.kinds.tolist()]
    pictures = [Picture("<procedural>", shown) for shown in pixels]
    items = zip(names, pictures, drawn.masks.numpy(), strict=True)
    kinds = tuple(kind for kind in DEFECT_KINDS if kind in names)
    return Source("procedural", "product", kinds, tuple(partial(tuple, item) for item in items))


def spread_out(samples: Sequence, limit: int | None) -> list:
    """At most ``limit`` of them, evenly over the whole list."""
    if limit is None or limit >= len(samples):
        return list(samples)
    return [samples[i * len(samples) // limit] for i in range(limit)]


def centre(pixels: np.ndarray, share: float | None) -> np.ndarray:
    """The central square of ``(H, W, ...)``, its side that share of the shorter side."""
    if share is None:
        return pixels
    height, width = pixels.shape[:2]
    side = max(1, round(share * min(height, width)))
    top, left = (height - side) // 2, (width - side) // 2
    return pixels[top : top + side, left : left + side]


def centred(picture: Picture, share: float | None) -> Picture:
    return dataclasses.replace(picture, pixels=centre(picture.pixels, share))


def batches(items: Iterable, size: int = BATCH) -> Iterator[list]:
    rest = iter(items)
    while some := list(itertools.islice(rest, size)):
        yield some

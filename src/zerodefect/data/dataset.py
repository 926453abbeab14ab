"""What a data set is here: plain facts about picture files, and what is wrong with them.

Nothing in this file reads a picture. Labels, kinds and splits are those that the files on disk
state; none is guessed, and no picture changes its split.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from zerodefect.data.drawn_masks import DrawnMask, Mask
from zerodefect.images.decode import InputError
from zerodefect.images.find import natural_key
from zerodefect.types import printable

Split = Literal["train", "validation", "test"]
Severity = Literal["error", "warning"]

GOOD = "good"
UNNAMED_DEFECT = "defect"

_SHOWN = 3  # files that a remark names
_SPLIT_ORDER = ("train", "validation", "test", None)


class DatasetError(InputError):
    """A path that cannot be used as a data set."""


def check_new(folder: Path) -> None:
    """Make sure that a folder to be written is new or empty.

    Raises:
        DatasetError: it holds something, or is no folder.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DatasetError(folder, "there is something already", "Name a new folder (--output)")


@dataclass(frozen=True)
class Sample:
    """One picture of a data set. Paths are absolute.

    Attributes:
        image: the picture.
        mask: picture whose non-zero pixels are defective, or areas that a labelling tool stored;
            None where there is neither.
        product: name of the product that the picture shows.
        kind: ``good``, the name of the defect kind (``defect`` where it has none), or the empty
            text for a picture without a label.
        anomalous: the label; None for a picture without one.
        split: what the layout says, or None where the layout has no splits.
        more_masks: further masks of the same picture (MVTec LOCO AD has one per defect).
        cloud: the part's point cloud; ``image`` itself where there is no picture.
    """

    image: Path
    mask: Mask | None
    product: str
    kind: str
    anomalous: bool | None
    split: Split | None
    more_masks: tuple[Mask, ...] = ()
    cloud: Path | None = None

    @property
    def masks(self) -> tuple[Mask, ...]:
        """All masks; their union is the defective area."""
        return (self.mask, *self.more_masks) if self.mask else ()


@dataclass(frozen=True)
class Problem:
    """Something about a data set that the user should look at.

    Attributes:
        severity: ``error`` where figures would be wrong or a file is left out, ``warning`` where
            the data can be used as they are but may not be what was meant.
        file: the file, folder or table entry concerned.
        reason: what is wrong, in words.
        remedy: what the user can do about it.
    """

    severity: Severity
    file: str
    reason: str
    remedy: str

    def __str__(self) -> str:
        """One line: severity, file, reason, remedy."""
        return f"{self.severity}: {printable(self.file)}: {self.reason}. {self.remedy}"


@dataclass(frozen=True)
class DefectType:
    """How much of a kind of defect must be found, as MVTec LOCO AD states it.

    Attributes:
        name: of the defect.
        pixel_value: that its pixels have in masks.
        saturation: area that must be found for full credit: pixels of the mask, or share of the
            defect's area if ``relative``.
        relative: which of the two.
    """

    name: str
    pixel_value: int
    saturation: float
    relative: bool


@dataclass(frozen=True)
class SplitRow:
    """One row of the split table: how many pictures and how many of them have masks."""

    product: str
    split: Split | None
    kind: str
    images: int
    masks: int


@dataclass(frozen=True)
class Dataset:
    """A data set as it lies on disk.

    Samples are in natural order of product, split, kind and path, whatever order the disk or a
    table lists them in: tables of the field are written from unsorted folder listings.

    Attributes:
        name: what the data set is called.
        root: the folder that paths are relative to.
        layout: name of the reader, see ``load_dataset``.
        reason: why it was read in that layout.
        samples: every picture.
        problems: what should be looked at.
        notes: consequences that are no fault: no masks, so image metrics only; and the like.
        defects: per product, what the values in its masks mean (MVTec LOCO AD).
    """

    name: str
    root: Path
    layout: str
    reason: str
    samples: tuple[Sample, ...]
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()
    defects: Mapping[str, tuple[DefectType, ...]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.samples)

    def __iter__(self) -> Iterator[Sample]:
        return iter(self.samples)

    @property
    def products(self) -> tuple[str, ...]:
        """Names of the products, in natural order."""
        return tuple(sorted({s.product for s in self.samples}, key=natural_key))

    def kinds(self, product: str | None = None) -> tuple[str, ...]:
        """Give the kinds of pictures, ``good`` first; unlabelled pictures have none."""
        found = {s.kind for s in self.samples if product in (None, s.product)} - {""}
        return tuple(sorted(found, key=_kind_key))

    def select(
        self, product: str | None = None, split: Split | None = None, kind: str | None = None
    ) -> Dataset:
        """Give the part of the data set that fits; None stands for all.

        Problems and notes stay those of the whole.

        Raises:
            ValueError: if there is no such product, or no such split or kind in it.
        """
        samples = self.samples
        for attribute, value in (("product", product), ("split", split), ("kind", kind)):
            if value is None:
                continue
            fitting = tuple(s for s in samples if getattr(s, attribute) == value)
            if not fitting:
                there = sorted({str(getattr(s, attribute) or "none") for s in samples})
                reason = f"no pictures with {attribute} {value!r}"
                raise ValueError(f"{self.name}: {reason}; there are: {', '.join(there)}")
            samples = fitting
        return replace(self, samples=samples)

    def good_train(self, product: str) -> tuple[Sample, ...]:
        """Give the good training pictures of a product; none where the layout has none.

        Raises:
            ValueError: if there is no such product.
        """
        samples = self.select(product=product).samples
        return tuple(s for s in samples if s.split == "train" and s.anomalous is False)

    def k_shot(self, product: str, k: int, seed: int) -> tuple[Sample, ...]:
        """Draw k good training pictures of a product without replacement.

        The draw depends on the seed, the product's name and the number of its good training
        pictures alone, on every machine; the first k of a larger draw are the smaller draw.

        Raises:
            ValueError: if there are fewer than k such pictures, or k is below one.
        """
        good = self.good_train(product)
        if not 1 <= k <= len(good):
            reason = f"cannot draw {k} of {len(good)} good training pictures of {product!r}"
            raise ValueError(f"{self.name}: {reason}")

        # A hash and not a random generator, whose stream may change between library versions.
        def lot(position: int) -> bytes:
            return hashlib.sha256(f"{seed}\0{product}\0{position}".encode()).digest()

        return tuple(good[i] for i in sorted(range(len(good)), key=lot)[:k])

    def split_table(self) -> tuple[SplitRow, ...]:
        """Count pictures and masks per product, split and kind."""
        images = Counter((s.product, s.split, s.kind) for s in self.samples)
        masks = Counter((s.product, s.split, s.kind) for s in self.samples if s.mask)
        return tuple(SplitRow(*key, count, masks[key]) for key, count in images.items())

    def fingerprint(self) -> str:
        """Hash the samples: names relative to the root, labels, splits and file sizes.

        It tells caches whether the data set is still the same one, also after it was moved. It
        does not see a change inside a file that leaves the file's size as it was.

        Returns:
            64 hexadecimal digits (SHA-256).
        """
        lines = []
        for sample in self.samples:
            facts = [sample.product, sample.kind, str(sample.anomalous), str(sample.split)]
            clouds = () if sample.cloud in (None, sample.image) else (sample.cloud,)
            for path in (sample.image, *sample.masks, *clouds):
                if isinstance(path, DrawnMask):
                    facts.append(path.facts())
                else:
                    facts += [self.relative(path), str(_size(path))]
            lines.append("\0".join(facts))
        text = "\n".join(sorted(lines))
        return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()

    def remarks(self) -> tuple[str, ...]:
        """One line for each kind of problem, with the first files, then the notes.

        For results: it says what figures rest on. Paths are relative to the root.
        """
        lines = []
        for (severity, reason, remedy), files in grouped(self.problems).items():
            named = [file.replace(f"{self.root}{os.sep}", "") for file in files[:_SHOWN]]
            more = f" and {len(files) - _SHOWN} more" if len(files) > _SHOWN else ""
            shown = ", ".join(named).replace("\n", "\\n")
            lines.append(f"{severity}: {shown}{more}: {reason}. {remedy}")
        return (*lines, *self.notes)

    def relative(self, path: Path) -> str:
        """Give a path relative to the root with forward slashes; absolute if it lies outside."""
        return _relative(path, self.root)


def grouped(problems: Iterable[Problem]) -> dict[tuple[Severity, str, str], list[str]]:
    """Bring together the files that have the same severity, reason and remedy; errors first."""
    groups: dict[tuple[Severity, str, str], list[str]] = defaultdict(list)
    for problem in sorted(problems, key=lambda problem: problem.severity):
        groups[problem.severity, problem.reason, problem.remedy].append(problem.file)
    return groups


def format_table(rows: Iterable[SplitRow]) -> str:
    """Lay a split table out as text, one line per row under a head line."""
    cells = [("product", "split", "kind", "pictures", "with mask")]
    for row in rows:
        names = printable(row.product), row.split or "-", printable(row.kind or "(no label)")
        cells.append((*names, str(row.images), str(row.masks or "-")))
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    line = "  ".join(f"{{:{side}{width}}}" for side, width in zip("<<<>>", widths, strict=True))
    return "\n".join(line.format(*cell).rstrip() for cell in cells)


def _kind_key(kind: str) -> tuple[object, ...]:
    """Sort good first and unlabelled last."""
    return kind != GOOD, not kind, natural_key(kind)


def distinct(datasets: Sequence[Dataset]) -> list[Dataset]:
    """Give data sets that are called alike names of their own, by the folders above.

    ``/a/screw`` and ``/b/screw`` become ``a/screw`` and ``b/screw``; the same folder twice becomes
    ``screw`` and ``screw (2)``.
    """
    groups: dict[str, list[int]] = defaultdict(list)
    for place, dataset in enumerate(datasets):
        groups[dataset.name.casefold()].append(place)
    named = list(datasets)
    for alike in (places for places in groups.values() if len(places) > 1):
        above = [datasets[i].root.parent.parts for i in alike]
        depth = next((n for n in range(1, 99) if len({p[-n:] for p in above}) == len(above)), 0)
        for number, (i, parts) in enumerate(zip(alike, above, strict=True), 1):
            own = "/".join([*parts[-depth:], datasets[i].name]) if depth else datasets[i].name
            again = f" ({number})" if not depth and number > 1 else ""
            named[i] = replace(datasets[i], name=own.lstrip("/") + again)
    return named


ProductWords = str | Sequence[str] | Mapping[str, str] | None
"""What products are called, see ``product_words``."""


def product_words(said: ProductWords, datasets: Sequence[Dataset]) -> dict[str, str]:
    """Words per product.

    Args:
        said: words for all products, or ``"PRODUCT=WORDS"``; several such; or words by product.
        datasets: with the products.

    Raises:
        ValueError: no data set has the product.
    """
    products = [product for dataset in datasets for product in dataset.products]
    if isinstance(said, Mapping):
        pairs = list(said.items())
    else:
        entries = [said] if isinstance(said, str) else said or []
        parts = [entry.partition("=") for entry in entries]
        pairs = [(first if sign else "", rest if sign else first) for first, sign, rest in parts]
    names: dict[str, str] = {}
    for product, words in pairs:
        if product and product not in products:
            where = ", ".join(dataset.name for dataset in datasets)
            known = ", ".join(dict.fromkeys(products))
            raise ValueError(f"object {product!r}: {where} has no such product; it has: {known}")
        names |= {product: words} if product else dict.fromkeys(products, words)
    return names


def in_order(samples: Iterable[Sample], root: Path) -> tuple[Sample, ...]:
    """Sort samples by product, split, kind (good first) and path relative to the root."""

    def place(sample: Sample) -> tuple[object, ...]:
        product, split = natural_key(sample.product), _SPLIT_ORDER.index(sample.split)
        return product, split, _kind_key(sample.kind), natural_key(_relative(sample.image, root))

    return tuple(sorted(samples, key=place))


def _relative(path: Path, root: Path) -> str:
    return (path.relative_to(root) if path.is_relative_to(root) else path).as_posix()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1

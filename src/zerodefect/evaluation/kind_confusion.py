"""Which kinds of defects are called what, where the damaged area is known."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from zerodefect.data import Sample
from zerodefect.detector.knowledge import Knowledge, Product
from zerodefect.images import Picture
from zerodefect.inspection.allowances import UNNAMED
from zerodefect.inspection.kind_examples import MOST_OF_A_PICTURE
from zerodefect.inspection.region_features import describe_regions
from zerodefect.inspection.region_kinds import KindExamples, KindsError, by_words
from zerodefect.inspection.regions import find_regions
from zerodefect.prompts.vocabulary import Vocabulary
from zerodefect.scoring.scorer import Scorer
from zerodefect.types import Region


@dataclass(frozen=True)
class Confusion:
    """How often pictures of each kind were called what.

    Attributes:
        product: of the data set.
        by: what the kinds were told by, in words.
        kinds: of the pictures.
        called: names that were given, the kinds first; the last may be "unknown".
        counts: a row for each kind, a column for each name.
    """

    product: str
    by: str
    kinds: tuple[str, ...]
    called: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, product: str, by: str, pairs: Iterable[tuple[str, str | None]]) -> Confusion:
        """From pairs of a picture's kind and what it was called."""
        counts = Counter((kind, name or UNNAMED) for kind, name in pairs)
        kinds = tuple(dict.fromkeys(kind for kind, _ in counts))
        others = sorted({name for _, name in counts} - {*kinds, UNNAMED})
        unknown = [UNNAMED] if any(name == UNNAMED for _, name in counts) else []
        called = (*kinds, *others, *unknown)
        rows = tuple(tuple(counts[kind, name] for name in called) for kind in kinds)
        return cls(product, by, kinds, called, rows)

    @property
    def right(self) -> float:
        """Share of the pictures that are called what they are."""
        total = sum(map(sum, self.counts))
        return sum(row[place] for place, row in enumerate(self.counts)) / total

    def as_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {**asdict(self), "right": self.right}

    def lines(self) -> Iterator[str]:
        """Markdown: a row for each kind."""
        yield f"## Kinds of {self.product}, the damaged area known"
        yield ""
        yield f"{100 * self.right:.1f} % of {sum(map(sum, self.counts))} pictures right, {self.by}."
        yield ""
        yield "| is \\ called | " + " | ".join(self.called) + " |"
        yield "|---" * (len(self.called) + 1) + "|"
        for kind, row in zip(self.kinds, self.counts, strict=True):
            yield f"| {kind} | " + " | ".join(map(str, row)) + " |"


@dataclass(frozen=True)
class KindTelling:
    """Tells the kinds of damage whose area is known.

    Attributes:
        scorer, knowledge: the detector and what it knows.
        open, area, mask: picture of a sample, what of it counts, its damaged pixels.
    """

    scorer: Scorer
    knowledge: Knowledge
    open: Callable[[Sample], Picture]
    area: Callable[[Picture], np.ndarray | None]
    mask: Callable[[Sample], np.ndarray | None]

    def confusion(
        self, product: str, samples: Sequence[Sample], examples: int, taught: KindExamples | None
    ) -> Iterator[Confusion]:
        """What damaged pictures with masks are called by the largest area of their mask.

        Args:
            product: theirs.
            samples: of one product.
            examples: pictures of each kind that are drawn to tell the others by, half of them at
                most; 0 for those that were taught, or words.
            taught: kinds that a product was taught.

        Raises:
            KindsError: the method tells no kinds, or gives no features of patches.
        """
        if not samples:
            return
        if not examples and taught is None:
            yield Confusion.of(
                product, "told by words, the names of its kinds", self._by_words(samples)
            )
            return
        described = [(s.kind, *self._described(s)) for s in samples]
        if examples:
            taught, rest = _drawn(described, examples)
            told = _told(taught.counts(), examples)
        else:
            rest, told = described, "told by the examples that the product was taught"
        assert taught is not None
        if rest:
            named = taught.decide(np.stack([values[0] for _, values, _ in rest]))
            pairs = [(row[0], name) for row, (name, _) in zip(rest, named, strict=True)]
            yield Confusion.of(product, told, pairs)

    def _regions(self, sample: Sample) -> list[Region]:
        mask = self.mask(sample)
        assert mask is not None
        found = find_regions(mask.astype(np.float32), 0.5, minimum_area=1)
        return sorted(found, key=lambda region: -region.area)[:MOST_OF_A_PICTURE]

    def _described(self, sample: Sample) -> tuple[np.ndarray, tuple[int, ...]]:
        picture = self.open(sample)
        regions = self._regions(sample)
        values, widths = describe_regions(self.scorer, picture, self.area(picture), regions)
        if len(widths) < 2:
            raise KindsError("the method gives no features of patches to tell kinds apart by")
        return values, widths

    def _by_words(self, samples: Sequence[Sample]) -> Iterator[tuple[str, str | None]]:
        """By the data set's own names of its kinds; kinds by words need no references."""
        detector, product = self.scorer.detector, self.knowledge.product
        if not detector.tells_kinds:
            raise KindsError("the method tells no kinds by words; name a number of examples")
        kinds = tuple(dict.fromkeys(sample.kind for sample in samples))
        words = Vocabulary.of([kind.replace("_", " ") for kind in kinds])
        named = Product(product.name if product else samples[0].product, words)
        known = detector.describe(detector.empty(), named)
        for sample in samples:
            picture = self.open(sample)
            (scored,) = self.scorer.score([picture], [self.area(picture)], known)
            size = (picture.height, picture.width)
            (region,) = by_words(self._regions(sample)[:1], scored.type_map, kinds, size)
            yield sample.kind, region.kind


def _told(counts: dict[str, int], asked: int) -> str:
    """By how many examples of each kind the others are told; fewer where there are few."""
    one, *more = sorted(set(counts.values()))
    each = ", ".join(f"{count} of {name}" for name, count in counts.items())
    real = each if more else f"{one} of each kind"
    fewer = (
        "" if one == asked and not more else f" ({asked} asked for; half of the pictures at most)"
    )
    return f"told by examples: {real}{fewer}"


Described = tuple[str, np.ndarray, tuple[int, ...]]


def _drawn(described: Sequence[Described], count: int) -> tuple[KindExamples, list[Described]]:
    """Examples of each kind, always the same, and the pictures that are left."""
    draws = np.random.default_rng(0)
    names = tuple(dict.fromkeys(kind for kind, _, _ in described))
    taught: list[tuple[int, np.ndarray]] = []
    rest: list[Described] = []
    for number, name in enumerate(names):
        own = [row for row in described if row[0] == name]
        most = min(count, len(own) // 2) or 1
        order = draws.permutation(len(own))
        taught += [(number, own[place][1]) for place in order[:most]]
        rest += [own[place] for place in order[most:]]
    values = np.concatenate([rows for _, rows in taught])
    kinds = np.concatenate([np.full(len(rows), number) for number, rows in taught])
    pictures = np.concatenate([np.full(len(rows), place) for place, (_, rows) in enumerate(taught)])
    return KindExamples(names, values, kinds, pictures, described[0][2]), rest

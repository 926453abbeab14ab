"""What an inspector was told and shown, at one moment."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from zerodefect.detector.knowledge import Knowledge, Product
from zerodefect.images import Picture
from zerodefect.inspection.frames import Frame, measure
from zerodefect.inspection.sources import digest
from zerodefect.scoring.areas import AreaByWords, AreaWords, FoundArea, inspected_area

_WORDS = "words: "  # before those of an area, where a mask has its digest


def named(roi: Picture | AreaByWords | None) -> str | None:
    """Digest of a region of interest, or its words."""
    if isinstance(roi, AreaByWords):
        return f"{_WORDS}{roi.words}"
    return None if roi is None else digest(roi)


def is_words(name: str | None) -> bool:
    """Whether ``named`` told words."""
    return name is not None and name.startswith(_WORDS)


def named_words(name: str | None) -> AreaWords | None:
    """The words that ``named`` told; None of a mask.

    Raises:
        ValueError: words that name no area.
    """
    if name is None or not is_words(name):
        return None
    return AreaWords.parse(name.removeprefix(_WORDS))


@dataclass(frozen=True)
class Shown:
    """What an inspector was told and shown, at one moment.

    Attributes:
        product: its name and words, or None.
        references: normal pictures, each once; none as long as those of a product file were not
            needed, see ``Teachable.recalled``.
        digests: of the references.
        areas: what counts (white in ``roi``, or what words name) and what does not (``ignore``).
        hashed: digests of the areas; of words, the words.
        knowledge: what the detector made of it all, once there is a detector.
    """

    product: Product | None = None
    references: tuple[Picture, ...] = ()
    digests: tuple[str, ...] = ()
    areas: tuple[Picture | AreaByWords | None, Picture | None] = (None, None)
    hashed: tuple[str | None, ...] = (None, None)
    knowledge: Knowledge | None = None

    @property
    def name(self) -> str | None:
        """Of the product."""
        return None if self.product is None else self.product.name

    @property
    def known(self) -> Knowledge:
        """What the detector made of it all, where that is done."""
        assert self.knowledge is not None
        return self.knowledge

    def area(self, picture: Picture) -> np.ndarray | None:
        """What of a picture counts; None for all of it."""
        return inspected_area(*self.areas, picture)

    def frames(self, pictures: Iterable[Picture], points: bool) -> list[Frame]:
        """Light and focus of what counts of pictures, and with ``points`` how many of these."""
        return [measure(picture, self.area(picture), points=points) for picture in pictures]

    def found(self, picture: Picture) -> FoundArea | None:
        """Where words find the area in a picture; None where none are given."""
        roi = self.areas[0]
        return roi.of(picture) if isinstance(roi, AreaByWords) else None

    def why_whole(self, picture: Picture) -> str | None:
        """Why all of a picture is inspected though words name an area; None where it is not."""
        found = self.found(picture)
        return None if found is None else found.why_whole

    def number(self, picture: Picture) -> int:
        """Of a picture among the references; -1 where it is none."""
        name = digest(picture)
        return self.digests.index(name) if name in self.digests else -1

    def with_areas(self, roi: Picture | AreaByWords | None, ignore: Picture | None) -> Shown:
        """The same with other areas; references must then be seen anew."""
        hashed = (named(roi), None if ignore is None else digest(ignore))
        return replace(self, areas=(roi, ignore), hashed=hashed, knowledge=None)

    def without_references(self) -> Shown:
        """The same with no references."""
        return replace(self, references=(), digests=(), knowledge=None)

"""What an inspector is told and shown, and what its detector makes of it."""

from __future__ import annotations

import hashlib
import json
import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from zerodefect.detector.contract import Detector, plain
from zerodefect.detector.knowledge import Knowledge, Product
from zerodefect.images import BitDepth, ImageError, Picture, bit_depth_of
from zerodefect.images.kept import KeptPicture
from zerodefect.inspection.archive import ProductError
from zerodefect.inspection.frames import shows_nothing
from zerodefect.inspection.shown import Shown
from zerodefect.inspection.sources import Source, digest, expand, open_source, plain_source
from zerodefect.inspection.word_sight import Roi, WordSight
from zerodefect.prompts.unfamiliar import unfamiliar
from zerodefect.prompts.vocabulary import Vocabulary
from zerodefect.scoring.areas import AreaByWords, AreaWords
from zerodefect.scoring.scorer import MemoryPlan, Scorer
from zerodefect.scoring.viewing import Viewing
from zerodefect.types import Region

if TYPE_CHECKING:
    import numpy as np

    from zerodefect.inspection.product_file import ProductFile
    from zerodefect.inspection.refinement import Refiner

DEFAULT_OBJECT = "object"

_log = logging.getLogger("zerodefect")


@lru_cache(maxsize=1024)
def _remark_on(name: str) -> None:
    """Say once of a product's name that texts can hardly be built with it, if so."""
    if remark := unfamiliar(name):
        _log.warning("%s", remark)


class Teachable(WordSight):
    """A detector with words, references and areas of interest.

    It may be used from several threads: a call goes by what was known when it began.

    Attributes:
        vocabulary: defect kinds to tell apart.
        viewing: how pictures are shown to the network.
        bit_depth: bits that 16-bit pictures use, stated or inferred once from the first ones; None
            as long as there was none.
        file: product file that it was loaded from, or None; words and areas are then as they are
            there.
        refiner: turns regions into sharp masks, or None.

    Args:
        detector: gives raw scores and maps; or what builds it at first use.
        vocabulary, viewing, bit_depth: see above.
        roi, ignore: mask pictures: what counts (white in ``roi``) and what does not (white in
            ``ignore``), for every picture; nothing outside changes any result. ``roi`` may be
            words, see ``word_sight.Roi``: what they name in each picture counts.
    """

    def __init__(
        self,
        detector: Detector | Callable[[], Detector],
        *,
        vocabulary: Vocabulary | None = None,
        viewing: Viewing | None = None,
        bit_depth: int | None = None,
        roi: Roi = None,
        ignore: Picture | None = None,
    ) -> None:
        super().__init__()
        self.vocabulary = vocabulary or Vocabulary.default()
        self.viewing = viewing or Viewing()
        self.bit_depth = bit_depth
        self._too_dark: BitDepth | None = None  # told already
        self._shown = Shown().with_areas(self.area_of(roi), ignore)
        self.file: ProductFile | None = None
        self.refiner: Refiner | None = None
        self._detector = detector if isinstance(detector, Detector) else None
        self._build = detector
        self._under: tuple[Shown | None, Shown | None] = (None, None)

    @property
    def detector(self) -> Detector:
        """Gives raw scores and maps."""
        with self._lock:
            if self._detector is None:
                self._detector = self._build()
        return self._detector

    @property
    def scorer(self) -> Scorer:
        """Shows pictures to the detector."""
        return Scorer(self.detector, self.viewing)

    @property
    def judges_points(self) -> bool:
        """Whether scores come from parts' points, as they are or as a view."""
        taken = (needed.preprocess.modality for needed in self.detector.inputs.values())
        return self.viewing.view is not None or "points" in taken

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the lock, for other processes; the detector is built before."""
        state = {**self.__dict__, "_detector": self.detector, "_build": None}
        del state["_lock"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.RLock())

    def refined(
        self,
        picture: Picture,
        regions: tuple[Region, ...],
        map: np.ndarray | None,
        area: np.ndarray | None,
    ) -> tuple[Region, ...]:
        """The regions of a picture with sharp masks, if there is a ``refiner``."""
        refiner = self.refiner
        return regions if refiner is None else refiner(picture, regions, map, area)

    # --- areas ----------------------------------------------------------------------------------

    @property
    def roi(self) -> Picture | AreaWords | None:
        """Only what is white in this mask picture, or what these words name, is inspected."""
        area = self._shown.areas[0]
        return area.words if isinstance(area, AreaByWords) else area

    @roi.setter
    def roi(self, area: Roi) -> None:
        self._not_of_a_file("roi")
        with self._lock:
            self._shown = self._shown.with_areas(self.area_of(area), self.ignore)

    @property
    def ignore(self) -> Picture | None:
        """Mask picture: what is white does not count."""
        return self._shown.areas[1]

    @ignore.setter
    def ignore(self, picture: Picture | None) -> None:
        self._not_of_a_file("ignore")
        with self._lock:
            self._shown = self._shown.with_areas(self._shown.areas[0], picture)

    # --- knowledge ----------------------------------------------------------------------------

    @property
    def object(self) -> str | None:
        """Product name in use."""
        return self._shown.name

    @property
    def shots(self) -> int:
        """Number of references."""
        return len(self._shown.digests)

    def describe(self, object: str, vocabulary: Vocabulary | None = None) -> None:
        """Name the product; optionally replace the defect vocabulary.

        Raises:
            ValueError: an empty name, or a prompt that the text tower cannot read.
            ProductError: another name or vocabulary than those of the product file.
        """
        with self._lock:
            product = Product(object, vocabulary or self.vocabulary)
            if self.file and product == self._shown.product:
                return
            self._not_of_a_file("another name or vocabulary")
            known = self._shown.knowledge
            if self._detector is not None and self._detector.words_first:
                known = None
            if self._detector is not None and known is not None:
                known = self._described(known, product)
            elif self._detector is not None:
                self._detector.words(product)  # refused now, not at first use
            self.vocabulary = vocabulary or self.vocabulary
            self._shown = replace(self._shown, product=product, knowledge=known)

    def remember(self, references: Source | Iterable[Source]) -> int:
        """Add normal reference images (files, folders, arrays); returns how many.

        A picture that is a reference already is not added again: left out in turn, it would find
        its copy, and the limits learned from it would be too low.

        Raises:
            ImageError, FileNotFoundError: a reference cannot be used, or shows nothing. References
                are few and all matter, so none is skipped.
            UnsupportedError: the method takes no references.
            ProductError: loaded from a product file that keeps no pictures, which this takes.
        """
        sources = expand(references)
        if isinstance(sources, Sequence):
            self.infer_bit_depth(sources)
        opened = [self.open_good(source) for source in sources]
        with self._lock:
            shown = self.recalled(self._shown)
            new = {name: p for p in opened if (name := digest(p)) not in shown.digests}
            references, digests = (*shown.references, *new.values()), (*shown.digests, *new)
            added = replace(shown, references=references, digests=digests, knowledge=None)
            waits = self._detector is None or (self._detector.words_first and not shown.product)
            if new and self.file:  # as if all had been there at once
                added = self._learned(added)
            elif new and self._detector is not None and not waits:
                known = shown.knowledge or self._learned(shown).known
                known = self._with_references(known, shown, list(new.values()))
                added = replace(added, knowledge=known)
            self._shown = added
        return len(new)

    def leaves_out(self) -> bool:
        """Whether a picture can be compared with the references without itself."""
        return self.detector.leaves_out(self.snapshot().known)

    def without_each(self, numbers: Sequence[int]) -> list[Knowledge]:
        """What would be known without one reference, for each of these numbers of references."""
        shown = self.recalled(self.snapshot())
        alone = self._learned(shown.without_references()).known
        areas = [shown.area(picture) for picture in shown.references]
        return list(self.scorer.without_each(numbers, shown.references, areas, alone))

    def forget(self) -> None:
        """Drop all references."""
        with self._lock:
            self._shown = self._shown.without_references()

    def recalled(self, shown: Shown) -> Shown:
        """With the pictures of references that a product file keeps.

        Where these are smaller than they were, all pictures are shrunk alike from now on, and what
        was learned of whole ones is no longer there.

        Raises:
            ProductError: the file keeps none, or is no longer there.
        """
        shown = replace(shown, references=self.pictures(shown))
        return replace(shown, knowledge=None) if self.see_as(shown.references) else shown

    def pictures(self, shown: Shown) -> tuple[Picture, ...]:
        """Of the references, where need be from the product file.

        Raises:
            ProductError: as of ``recalled``.
        """
        if self.file and len(shown.references) < len(shown.digests):
            return self.file.references()
        return shown.references

    def see_as(self, pictures: Sequence[Picture]) -> bool:
        """Show pictures as those were that a file kept, if any were; whether that is new."""
        shrunk = any(isinstance(one, KeptPicture) and one.shrunk for one in pictures)
        if not (self.file and shrunk and self.viewing.within is None):
            return False
        self.viewing = replace(self.viewing, within=self.file.within)
        return True

    def kept_viewing(self) -> Viewing:
        """How pictures are shrunk that a product file keeps."""
        return replace(self.viewing, within=self.viewing.within or self.scorer.network_size)

    def snapshot(self) -> Shown:
        """What is known now, with what the detector makes of it."""
        return self._ready(None)

    def words(self) -> Shown:
        """What it was told, whatever the detector makes of it."""
        return self._shown

    def restore(self, shown: Shown, file: ProductFile) -> None:
        """Know what a product file holds."""
        with self._lock:
            self._shown, self.file = shown, file

    def _not_of_a_file(self, what: str) -> None:
        if self.file:
            reason = f"{what} cannot be given to a product that was loaded: it has its own"
            raise ProductError(self.file.path, reason, "Load a method by its name instead")

    def _with_references(
        self, known: Knowledge, shown: Shown, pictures: Sequence[Picture]
    ) -> Knowledge:
        areas = [shown.area(picture) for picture in pictures]
        return self.scorer.remember(known, pictures, areas, on_plan=self._tell)

    @staticmethod
    def _tell(plan: MemoryPlan) -> None:
        """Say what references will take: too much, much, or (to who wants details) little."""
        level = logging.WARNING if plan.bytes > plan.budget else logging.INFO
        _log.log(level if plan.bytes > plan.budget / 10 else logging.DEBUG, "%s", plan)

    def _described(self, known: Knowledge, product: Product) -> Knowledge:
        if "words" in self.detector.info.knows_from:
            _remark_on(product.name)
        return self.detector.describe(known, product)

    def _learned(self, shown: Shown) -> Shown:
        """The same with what the detector makes of it."""
        shown = self.recalled(shown)
        known = self.detector.empty()
        if shown.product:
            known = self._described(known, shown.product)
        if shown.references:
            known = self._with_references(known, shown, shown.references)
        return replace(shown, knowledge=known)

    def _ready(self, object: str | None) -> Shown:
        """What is known now; under another name for this call alone, if one is given."""
        needs_words = "words" in self.detector.info.needs
        if object is not None and object != self.object:
            self._not_of_a_file(f"the name {object!r}")
        with self._lock:
            shown, named = self._shown, object is not None or not self._shown.product
            name = DEFAULT_OBJECT if object is None else object
            product = Product(name, self.vocabulary) if named else None
            if product == shown.product or (object is None and not needs_words):
                product = None
            if product is not None and self.detector.words_first:
                return self._learned_under(shown, product)
            if shown.knowledge is None:
                self._shown = shown = self._learned(shown)
        if product is None:
            return shown
        known = self._described(shown.known, product)
        return replace(shown, product=product, knowledge=known)

    def _learned_under(self, shown: Shown, product: Product) -> Shown:
        """What the detector makes of it all under another name; the last one is kept."""
        base, learned = self._under
        if base is not shown or learned is None or learned.product != product:
            learned = self._learned(replace(shown, product=product, knowledge=None))
            self._under = (shown, learned)
        return learned

    def infer_bit_depth(self, sources: Sequence[Source]) -> None:
        """Settle how many bits 16-bit pictures use, and tell it, unless that is known already.

        Args:
            sources: pictures of one camera; 8-bit ones tell nothing.
        """
        with self._lock:
            if self.bit_depth is not None:
                return
            plain = map(plain_source, sources)
            found = bit_depth_of([one for one in plain if not isinstance(one, Picture)])
            if found is not None and found != self._too_dark:
                _log.warning("%s", found)
                self.bit_depth = found.bits
                self._too_dark = found if found.bits is None else None

    def _open(self, source: Source) -> Picture:
        self.infer_bit_depth([source])
        return open_source(source, self.bit_depth, self.viewing.view)

    def open_good(self, source: Source) -> Picture:
        """A picture to learn from.

        Raises:
            ImageError: it cannot be read, or shows nothing.
        """
        picture = self._open(source)
        if reason := shows_nothing(picture, self._shown.area(picture)):
            raise ImageError(picture.path, reason, "Leave it out, or take it again")
        return picture

    # --- facts ----------------------------------------------------------------------------------

    def kinds(self) -> tuple[str, ...]:
        """Defect kinds that regions are told apart by; empty where the method tells none."""
        return self.detector.kinds(self._ready(None).known)

    def fingerprint(self) -> str:
        """Hash of everything besides the image that decides its score; 16 hexadecimal digits.

        The vocabulary names regions and decides no score; the weights count by their content, not
        by the name or path they were loaded from. The bit depth is compared by the policy, since
        it may be settled after it.
        """
        return str(self.facts()["fingerprint"])

    def facts(self) -> dict[str, Any]:
        """Facts of the detector and the references, as plain data for manifests."""
        return self._facts(self._ready(None))

    def _facts(self, shown: Shown) -> dict[str, Any]:
        product, known = shown.product, shown.known
        kept = {"memory": dict(known.facts)} if known.facts else {}
        words = product.vocabulary if product and self.detector.tells_kinds else None
        facts = {
            **self.detector.facts(),
            **kept,
            "object": shown.name,
            "vocabulary": plain(words.kinds) if words else None,
            "shots": known.shots,
            "viewing": self.viewing.facts(),
            "areas": [*shown.hashed, *self.sight_facts(shown.areas[0])],
            "bit_depth": self.bit_depth,
            "references": sorted(shown.digests),
        }
        decisive = {k: v for k, v in facts.items() if k not in ("vocabulary", "backbone")}
        decisive["bit_depth"] = None  # the policy compares it: it may be inferred later
        digested = hashlib.sha256(json.dumps(decisive, sort_keys=True).encode())
        return {**facts, "fingerprint": digested.hexdigest()[:16]}

"""What the readers of all layouts collect, and what can be said of any collection of samples."""

from __future__ import annotations

import functools
import os
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from zerodefect.data.dataset import (
    GOOD,
    DefectType,
    Problem,
    Sample,
    Severity,
    Split,
)
from zerodefect.data.words import TEST_WORDS, key_of, says_good
from zerodefect.images.find import natural_key

_SHOWN = 8  # products that a note names


@dataclass
class Listing:
    """What a reader has found so far.

    Attributes:
        reason, samples, problems, notes, defects: as in ``Dataset``.
        tables: files that the samples were read from.
        all_defective: the layout has no good pictures, so that none is missed.
    """

    reason: str
    samples: list[Sample] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    defects: dict[str, tuple[DefectType, ...]] = field(default_factory=dict)
    tables: set[Path] = field(default_factory=set)
    all_defective: bool = False

    def report(self, severity: Severity, file: str | Path, reason: str, remedy: str) -> None:
        """Note a problem."""
        self.problems.append(Problem(severity, str(file), reason, remedy))


def is_good(name: str) -> bool:
    """Whether a folder name or a word says that there is no defect."""
    return says_good(name) is True


def tell_test_words(listing: Listing, words: Iterable[str]) -> None:
    """Note how positive and negative are read, where they are used."""
    note = "negative is read as good and positive as defective: the answer of a test for defects"
    if note not in listing.notes and any(key_of(word) in TEST_WORDS for word in words):
        listing.notes.append(note)


def pattern(product: str, split: Split | None, kind: str = "") -> Sample:
    """Make a sample whose picture is still to be filled in.

    Args:
        product: that it shows.
        split: that it belongs to.
        kind: word or folder name for what it shows; empty if there is no label.
    """
    good = is_good(kind)
    label = not good if kind else None
    return Sample(Path(), None, product, GOOD if good else kind, label, split)


def finish(listing: Listing) -> None:
    """Drop repeated files and report everything that file names alone can tell."""
    _drop_repeated(listing)
    _report_nothing_good(listing)
    _report_unexpected(listing)
    _report_missing_masks(listing)
    listing.notes += _consequences(listing.samples)


def _report_nothing_good(listing: Listing) -> None:
    """Report a set whose words for good are not known, or that has none."""
    labels = {sample.anomalous for sample in listing.samples}
    if listing.all_defective or True not in labels or False in labels:
        return
    kinds = sorted({sample.kind for sample in listing.samples if sample.anomalous}, key=natural_key)
    more = f" and {len(kinds) - _SHOWN} more" if len(kinds) > _SHOWN else ""
    reason = f"nothing here means good; read as kinds of defects: {', '.join(kinds[:_SHOWN])}{more}"
    remedy = "If one of them stands for good parts, call it good; otherwise add good pictures"
    listing.report("warning", listing.samples[0].image.parent, reason, remedy)


def _drop_repeated(listing: Listing) -> None:
    """Keep each file once, whether it is listed twice or reached twice through links."""
    real_folder = functools.cache(os.path.realpath)
    places: dict[Path, list[Sample]] = defaultdict(list)
    for sample in listing.samples:
        real = Path(real_folder(sample.image.parent), sample.image.name)
        places[Path(os.path.realpath(real)) if real.is_symlink() else real].append(sample)
    repeated = set()
    for real, same in places.items():
        kept = next((s for s in same if s.image == real), same[0])
        for other in same:
            if other is not kept:
                repeated.add(id(other))
                _report_repeated(listing, kept, other)
    listing.samples = [s for s in listing.samples if id(s) not in repeated]


def _report_repeated(listing: Listing, kept: Sample, other: Sample) -> None:
    if replace(other, image=kept.image) == kept:
        reason = "the same picture is listed twice; it is counted once"
        listing.report("warning", other.image, reason, "Remove the repetition")
    else:
        both = f"as {_describe(kept)} and as {_describe(other)}"
        reason = f"the same picture is listed {both}; only the first is used"
        listing.report("error", other.image, reason, "List every picture once")


def _describe(sample: Sample) -> str:
    words = (sample.product, sample.split, sample.kind or "unlabelled")
    return "/".join(word for word in words if word)


def _report_unexpected(listing: Listing) -> None:
    training: Counter[tuple[str, str]] = Counter()
    for sample in listing.samples:
        if sample.anomalous is False and sample.mask:
            remedy = "Check its label; an all-black mask of a good picture can be deleted"
            listing.report("warning", sample.image, "a good picture has a mask", remedy)
        if sample.anomalous and sample.split == "train":
            training[sample.product, sample.kind] += 1
    for (product, kind), count in training.items():
        reason = f"defective pictures ({kind}) in the training split: {count}"
        remedy = "Methods that learn from good parts leave them out; move them to test if meant so"
        listing.report("warning", product, reason, remedy)


def _report_missing_masks(listing: Listing) -> None:
    """Report defective pictures without a mask: one record for a product or kind without any."""
    if not any(s.mask for s in listing.samples):
        return
    remedy = "Add the masks, or leave these out of the pixel metrics"
    for product, samples in _grouped(listing.samples, "product").items():
        if not any(s.mask for s in samples):
            reason = f"no defective picture has a mask, of {len(samples)}"
            listing.report("warning", product, reason, remedy)
            continue
        for kind, pictures in _grouped(samples, "kind").items():
            bare = [s for s in pictures if not s.mask]
            if len(bare) == len(pictures):
                reason = f"no picture has a mask, of {len(bare)}"
                listing.report("warning", f"{product}/{kind}", reason, remedy)
                continue
            for sample in bare:
                listing.report("warning", sample.image, "a defective picture has no mask", remedy)


def _grouped(samples: Iterable[Sample], attribute: str) -> dict[str, list[Sample]]:
    groups: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        if sample.anomalous:
            groups[getattr(sample, attribute)].append(sample)
    return groups


def _consequences(samples: list[Sample]) -> list[str]:
    """Say which questions the data set cannot answer."""
    notes = []
    unlabelled = sum(s.anomalous is None for s in samples)
    clouds = sum(s.cloud is not None for s in samples)
    if clouds:
        bare = sum(s.cloud == s.image for s in samples)
        alone = f", {bare} of them without a picture" if bare else ""
        notes.append(f"parts with a point cloud: {clouds} of {len(samples)}{alone}")
    if unlabelled == len(samples):
        notes.append("no labels: the pictures can be inspected, but nothing can be evaluated")
    elif unlabelled:
        notes.append(f"pictures without a label, which take no part in image metrics: {unlabelled}")
    if not any(s.mask for s in samples):
        notes.append("no masks: image metrics only")
    if unlabelled == len(samples):
        return notes

    def lacking(label: bool, *splits: Split | None) -> list[str]:
        having = {s.product for s in samples if s.anomalous is label and s.split in splits}
        return sorted({s.product for s in samples} - having)

    for what, products in (
        ("good pictures to test on, so no image metrics", lacking(False, "test", None)),
        ("defective pictures to test on, so no image metrics", lacking(True, "test", None)),
        ("good training pictures, so no k-shot references", lacking(False, "train")),
    ):
        if products:
            more = f" and {len(products) - _SHOWN} more" if len(products) > _SHOWN else ""
            notes.append(f"no {what}: {', '.join(products[:_SHOWN])}{more}")
    return notes

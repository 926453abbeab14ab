"""Whether the files of a data set are what their names promise: sizes, or every pixel."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from zerodefect.data.dataset import Dataset, DefectType, Problem, Sample, Severity
from zerodefect.data.depths import found_depths
from zerodefect.data.masks import mask_values, read_channels
from zerodefect.images import BitDepth, ImageError, open_image, picture_size

_LOSSY = frozenset({".jpg", ".jpeg", ".jpe", ".jfif"})


@dataclass
class FileCheck:
    """What looking into the files has shown.

    Attributes:
        sizes: pictures per ``(width, height)`` in pixels.
        problems: what is wrong with the files.
        depths: bits that 16-bit pictures use, by product, where they were inferred.
    """

    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    problems: list[Problem] = field(default_factory=list)
    depths: dict[str, BitDepth] = field(default_factory=dict)

    def report(self, severity: Severity, file: str | Path, reason: str, remedy: str) -> None:
        """Note a problem."""
        self.problems.append(Problem(severity, str(file), reason, remedy))


def check_files(
    dataset: Dataset,
    *,
    deep: bool = False,
    bit_depth: int | None = None,
    on_sample: Callable[[], None] = lambda: None,
) -> FileCheck:
    """Look into the files of all samples.

    Args:
        dataset: as ``load_dataset`` gives it, with ``sizes=False`` to look only once.
        deep: decode every picture and mask. Besides sizes this finds damaged files, empty masks
            of defective pictures, marked masks of good ones, masks in a lossy format, masks
            whose values are no kind of defect, and the same pixels in different splits.
        bit_depth: bits that 16-bit pictures use; by default inferred for each product.
        on_sample: called after each sample.
    """
    check = FileCheck(depths=found_depths(dataset) if bit_depth is None else {})
    seen: dict[bytes, Sample] = {}
    for sample in dataset:
        if deep:
            found = check.depths.get(sample.product)
            depth = found.bits if found else bit_depth
            _check_pixels(check, sample, seen, dataset.defects.get(sample.product, ()), depth)
        else:
            _check_headers(check, sample)
        on_sample()
    return check


def _check_headers(check: FileCheck, sample: Sample) -> None:
    sizes = {}
    for path in (sample.image, *sample.masks):
        try:
            sizes[path] = picture_size(path)
        except ImageError as error:
            check.report("error", path, error.reason, error.remedy)
    if sample.image in sizes:
        check.sizes[sizes[sample.image]] += 1
        for mask in sample.masks:
            if mask in sizes:
                _compare(check, mask, sizes[mask], sizes[sample.image])


def _compare(check: FileCheck, mask: Path, size: tuple[int, ...], wanted: tuple[int, int]) -> None:
    if size != wanted:
        reason = "the mask is {} x {} pixels, its picture {} x {}".format(*size, *wanted)
        check.report("error", mask, reason, "Check the pairing, or draw the mask in that size")


def _check_pixels(
    check: FileCheck,
    sample: Sample,
    seen: dict[bytes, Sample],
    defects: Sequence[DefectType],
    bit_depth: int | None,
) -> None:
    size = None
    try:
        picture = open_image(sample.image, bit_depth=bit_depth)
        size = picture.width, picture.height
        check.sizes[size] += 1
        _compare_with_seen(check, sample, picture.pixels, seen)
    except ImageError as error:
        check.report("error", sample.image, error.reason, error.remedy)
    marked, readable = 0, bool(sample.masks)
    for path in sample.masks:
        try:
            mask = mask_values(path)
        except ImageError as error:
            check.report("error", path, error.reason, error.remedy)
            readable = False
            continue
        marked += int(np.count_nonzero(mask))
        if size:
            _compare(check, path, mask.shape[::-1], size)
        if path.suffix.lower() in _LOSSY:
            reason = "JPEG blurs a mask, and every pixel that is not black counts as defective"
            check.report("warning", path, reason, "Save masks as PNG, black and white")
    if readable and sample.anomalous and not marked:
        reason = "the mask of a defective picture is empty"
        check.report("error", sample.masks[0], reason, "Draw the defect, or correct the label")
    if readable and sample.anomalous is False and marked:
        reason = f"the mask of a good picture marks {marked} pixels"
        check.report("error", sample.masks[0], reason, "Correct the label, or remove the mask")
    if readable and defects:
        try:
            read_channels(sample, defects)
        except ImageError as error:
            check.report("error", error.path, error.reason, error.remedy)


def _compare_with_seen(
    check: FileCheck, sample: Sample, pixels: np.ndarray, seen: dict[bytes, Sample]
) -> None:
    """Report pixels that occur in two splits or under two labels: figures would be too good."""
    digest = hashlib.blake2b(pixels.data, digest_size=16)
    digest.update(str(pixels.shape).encode())
    other = seen.setdefault(digest.digest(), sample)
    reason = f"it shows the same pixels as {other.image}"
    if (other.split, other.anomalous) != (sample.split, sample.anomalous):
        reason += ", in another split or under another label"
        check.report("error", sample.image, reason, "Keep one of the two")
    elif other is not sample:
        check.report("warning", sample.image, reason, "Keep one of the two")

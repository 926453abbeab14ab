"""Whether the files of a data set are what their names promise: sizes, masks, or every pixel."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from zerodefect.data.dataset import Dataset, DefectType, Problem, Sample, Severity
from zerodefect.data.depths import found_depths
from zerodefect.data.drawn_masks import DrawnMask
from zerodefect.data.mask_files import orientation_of, size_fault
from zerodefect.data.masks import opened_mask, read_channels
from zerodefect.images import BitDepth, ImageError, picture_size
from zerodefect.images.part_files import open_part, part_size

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
    masks: bool = False,
    deep: bool = False,
    bit_depth: int | None = None,
    on_sample: Callable[[], None] = lambda: None,
) -> FileCheck:
    """Look into the files of all samples.

    Args:
        dataset: as ``load_dataset`` gives it, with ``sizes=False`` to look only once.
        masks: open every mask. Besides sizes this finds empty masks of defective pictures, marked
            masks of good ones, inverted masks, masks of many grey values or in a lossy format, and
            masks whose values are no kind of defect.
        deep: open every picture, too. This also finds damaged files, and the same pixels in
            different splits.
        bit_depth: bits that 16-bit pictures use; by default inferred for each product.
        on_sample: called after each sample.
    """
    check = FileCheck(depths=found_depths(dataset) if bit_depth is None else {})
    seen: dict[bytes, Sample] = {}
    for sample in dataset:
        found = check.depths.get(sample.product)
        depth = found.bits if found else bit_depth
        size = _check_picture(check, sample, seen if deep else None, depth)
        if sample.masks and (masks or deep):
            _check_masks(check, sample, dataset.defects.get(sample.product, ()))
        else:
            _check_sizes(check, sample, size)
        _check_turn(check, sample, size)
        on_sample()
    return check


_Size = tuple[int, int]


def _check_picture(
    check: FileCheck, sample: Sample, seen: dict[bytes, Sample] | None, bit_depth: int | None
) -> _Size | None:
    """Give width and height of a picture, opened where ``seen`` is given; None on failure."""
    try:
        size = part_size(sample.image)
        if seen is not None:
            picture = open_part(sample.image, bit_depth=bit_depth, cloud=sample.cloud)
            size = picture.width, picture.height
            _compare_with_seen(check, sample, picture.pixels, seen)
            if sample.cloud and picture.cloud is None:
                reason = next(note for note in picture.notes if "is not used" in note)
                check.report("warning", sample.image, reason, "Copy the cloud again, or remove it")
    except ImageError as error:
        check.report("error", sample.image, error.reason, error.remedy)
        return None
    check.sizes[size] += 1
    return size


def _check_sizes(check: FileCheck, sample: Sample, size: _Size | None) -> None:
    for mask in sample.masks:
        try:
            if isinstance(mask, DrawnMask):
                fault = mask.size_fault(sample.image, size) if size else None
            else:
                fault = size_fault(picture_size(mask), sample.image, size) if size else None
            if fault:
                check.report("error", str(mask), *fault)
        except ImageError as error:
            check.report("error", str(mask), error.reason, error.remedy)


def _check_turn(check: FileCheck, sample: Sample, size: _Size | None) -> None:
    """Warn where a picture is turned by EXIF and sizes do not show whether its mask was, too."""
    turn = orientation_of(sample.image) if sample.masks and size else 1
    square = size is not None and size[0] == size[1]
    for mask in sample.masks if turn > 1 else ():
        unsized = isinstance(mask, DrawnMask) and mask.size is None
        untold = isinstance(mask, DrawnMask) or orientation_of(mask) == 1
        if untold and (turn in (2, 3, 4) or square or unsized):
            reason = "its picture is turned by EXIF, and it may have been drawn before that"
            remedy = "It is read as drawn on the upright picture: look at it, or save both anew"
            check.report("warning", str(mask), reason, remedy)


def _check_masks(check: FileCheck, sample: Sample, defects: Sequence[DefectType]) -> None:
    try:
        for remark in opened_mask(sample)[1]:
            check.report("warning", str(sample.masks[0]), remark, "Look whether that is meant")
        if defects:
            read_channels(sample, defects)
    except ImageError as error:
        check.report("error", error.path, error.reason, error.remedy)
    for path in sample.masks:
        if isinstance(path, Path) and path.suffix.lower() in _LOSSY:
            reason = "JPEG blurs a mask"
            check.report("warning", path, reason, "Save masks as PNG, black and white")


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

"""Masks as boolean arrays, by the binarisation rules that the field uses."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from zerodefect.data.dataset import DefectType, Sample
from zerodefect.data.drawn_masks import DrawnMask, Mask
from zerodefect.data.mask_files import mask_values, open_mask, size_fault
from zerodefect.images import ImageError
from zerodefect.images.part_files import part_size

_WHITE = 255


def _resize(
    mask: np.ndarray, size: tuple[int, int], resample: Image.Resampling = Image.Resampling.BILINEAR
) -> np.ndarray:
    """Resize a boolean mask as an 8-bit picture of 0 and 255, as the field's loaders do."""
    picture = Image.fromarray(mask.astype(np.uint8) * np.uint8(_WHITE))
    return np.array(picture.resize(size[::-1], resample))


def _nearest(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return _resize(mask, size, Image.Resampling.NEAREST) > 0


MASK_RULES: dict[str, Callable[[np.ndarray, tuple[int, int]], np.ndarray]] = {
    "nonzero": _nearest,
    "nearest>0": _nearest,
    "bilinear>0.5": lambda mask, size: _resize(mask, size) > 0.5 * _WHITE,
    ">0.45": lambda mask, size: _resize(mask, size) > 0.45 * _WHITE,
    "bilinear>0": lambda mask, size: _resize(mask, size) > 0,
    "bilinear_truncate": lambda mask, size: _resize(mask, size) == _WHITE,
}


def read_mask(
    sample: Sample, size: tuple[int, int] | None = None, rule: str = "nonzero"
) -> np.ndarray:
    """Read the defective pixels of a sample.

    A pixel of the file is defective if it is not black, so that masks that hold small class ids
    (VisA) and masks of 0 and 255 read alike; in files of many grey values, if it is brighter than
    half of white (``open_mask``). Several masks of one picture are united. The rules differ in what
    happens when the mask is resized to ``size``, and move pixel metrics by tenths of a point:

    - ``nonzero``, ``nearest>0``: nearest neighbour;
    - ``bilinear>0.5``: bilinear (antialiased, as Pillow does), defective above one half;
    - ``>0.45``: the same with 0.45;
    - ``bilinear>0``: every pixel that the resized area touches: the mask grows (MuSc on VisA);
    - ``bilinear_truncate``: only pixels that lie wholly inside: it shrinks (MuSc on MVTec AD).

    Without ``size``, or where the mask has that size already, all rules give the same.

    Args:
        sample: where the masks are. A good sample without a mask gives an empty mask.
        size: ``(height, width)`` to resize to; the mask's own size (for a good sample without a
            mask, the picture's) if None.
        rule: name in ``MASK_RULES``.

    Returns:
        Boolean array ``(H, W)``, True where the product is defective.

    Raises:
        ImageError: if a mask cannot be read, has another size than its picture, seems to be
            inverted, or contradicts the label: an empty one of a defective picture, a marked one of
            a good picture.
        ValueError: if there is no such rule, or no mask of a picture that is not labelled good.
    """
    if rule not in MASK_RULES:
        raise ValueError(f"no mask rule {rule!r}; there are: {', '.join(MASK_RULES)}")
    mask, _ = opened_mask(sample)
    return mask if size in (None, mask.shape) else MASK_RULES[rule](mask, size)


def opened_mask(sample: Sample) -> tuple[np.ndarray, tuple[str, ...]]:
    """Read the defective pixels of a sample, and say how, where its files are not plain.

    Returns:
        The mask, ``(H, W)`` bool, at the picture's size; remarks that name no file.

    Raises:
        ImageError, ValueError: as ``read_mask``.
    """
    if not sample.masks:
        if sample.anomalous is not False:
            raise ValueError(f"{sample.image}: there is no mask; pixel metrics need one")
        return np.zeros(part_size(sample.image)[::-1], dtype=np.bool_), ()
    opened = [_opened(mask, sample.image) for mask in sample.masks]
    mask, first = np.logical_or.reduce([pixels for pixels, _ in opened]), str(sample.masks[0])
    if sample.anomalous and not mask.any():
        reason = "the mask of a defective picture is empty"
        raise ImageError(first, reason, "Draw the defect, or correct the label")
    if sample.anomalous is False and mask.any():
        reason = f"the mask of a good picture marks {np.count_nonzero(mask)} pixels"
        raise ImageError(first, reason, "Correct the label, or remove the mask")
    return mask, tuple(dict.fromkeys(remark for _, remark in opened if remark))


def _opened(mask: Mask, image: Path) -> tuple[np.ndarray, str]:
    """Give the pixels of one mask, at the picture's size, and the remark on its file."""
    if isinstance(mask, DrawnMask):
        return mask.pixels(image), ""
    opened = open_mask(mask)
    try:
        wanted = part_size(image)
    except ImageError:
        return opened.pixels, opened.remark  # the picture's own opening reports it
    if fault := size_fault(opened.pixels.shape[::-1], image, wanted):
        raise ImageError(mask, *fault)
    return opened.pixels, opened.remark


def read_channels(
    sample: Sample, defects: Sequence[DefectType]
) -> list[tuple[np.ndarray, DefectType]]:
    """Read every annotated defect of a sample on its own, at the masks' size.

    Args:
        sample: each of its masks shows one defect, whose pixels have the value of its kind.
        defects: kinds of the sample's product.

    Returns:
        Per mask a boolean array ``(H, W)`` and the defect's kind; none for a sample without masks.

    Raises:
        ImageError: if a mask cannot be read, differs in size from the first, is empty, or has a
            value that is not one of the kinds'.
    """
    kinds = {defect.pixel_value: defect for defect in defects}
    channels: list[tuple[np.ndarray, DefectType]] = []
    for path, values in _values_of(sample):
        found = np.unique(values[values > 0])
        if len(found) != 1 or int(found[0]) not in kinds:
            there = ", ".join(map(str, found[:5])) or "none"
            known = ", ".join(map(str, sorted(kinds)))
            reason = f"one defect has one value; the values here are {there}, of the kinds {known}"
            raise ImageError(path, reason, "Copy the mask and defects_config.json anew")
        channels.append((values > 0, kinds[int(found[0])]))
    return channels


def _values_of(sample: Sample) -> Iterator[tuple[Path, np.ndarray]]:
    shape = None
    files = [mask for mask in sample.masks if isinstance(mask, Path)]
    for path in files:
        values = mask_values(path)
        shape = shape or values.shape
        if values.shape != shape:
            reason = f"the mask has another size than {files[0].name}"
            raise ImageError(path, reason, "Masks of one picture must have one size")
        yield path, values

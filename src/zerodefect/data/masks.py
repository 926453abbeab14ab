"""Masks as boolean arrays, by the binarisation rules that the field uses."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from zerodefect.data.dataset import DefectType, Sample
from zerodefect.images import ImageError, open_image, picture_size

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
    (VisA) and masks of 0 and 255 read alike; several masks of one picture are united. The rules
    differ in what happens when the mask is resized to ``size``, and move pixel metrics by tenths
    of a point:

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
        ImageError: if a mask cannot be read, or the masks of one picture differ in size.
        ValueError: if there is no such rule, or no mask of a picture that is not labelled good.
    """
    if rule not in MASK_RULES:
        raise ValueError(f"no mask rule {rule!r}; there are: {', '.join(MASK_RULES)}")
    if sample.masks:
        mask = np.logical_or.reduce([values > 0 for _, values in _values_of(sample)])
    elif sample.anomalous is False:
        mask = np.zeros(size or picture_size(sample.image)[::-1], dtype=np.bool_)
    else:
        raise ValueError(f"{sample.image}: there is no mask; pixel metrics need one")
    return mask if size in (None, mask.shape) else MASK_RULES[rule](mask, size)


def marks(mask: Path) -> bool:
    """Whether a mask file has a pixel that is not black.

    Raises:
        ImageError: if it cannot be read.
    """
    try:
        with Image.open(mask) as image:
            if image.mode in ("1", "L"):
                return image.getbbox() is not None
    except Exception:
        pass  # the opener knows more formats, and says in words what is wrong
    return bool(mask_values(mask).any())


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


def mask_values(path: Path) -> np.ndarray:
    """Read one mask file: the largest of the three colours at every pixel, ``(H, W)``.

    Raises:
        ImageError: if the file cannot be read, or is transparent in places, which leaves open
            what the transparent parts mean.
    """
    picture = open_image(path)
    # The opener says so because it shows transparent parts on white, which here would be defects.
    hidden = "its alpha" if not picture.pixels.any() else "transparent"
    if any(note.startswith(("transparent", hidden)) for note in picture.notes):
        remedy = "Save the mask without transparency, defects white on black"
        raise ImageError(path, "the mask is transparent in places", remedy)
    return picture.pixels.max(axis=-1)


def _values_of(sample: Sample) -> Iterator[tuple[Path, np.ndarray]]:
    shape = None
    for path in sample.masks:
        values = mask_values(path)
        shape = shape or values.shape
        if values.shape != shape:
            reason = f"the mask has another size than {sample.masks[0].name}"
            raise ImageError(path, reason, "Masks of one picture must have one size")
        yield path, values

"""One mask file as pixels that are defective or not, whatever tool wrote it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from zerodefect.images import ImageError, open_image
from zerodefect.images.samples import ORIENTATION

_CLASSES = 8  # more values than these are shades, not kinds of defects
_NEAR = 16  # JPEG leaves values so near to black and to white
_MOST = 0.5  # of the picture: what covers more, to its border, is hardly a defect
_BORDER = 0.9

DRAW_ANEW = "Draw defects white on black"


@dataclass(frozen=True, eq=False)
class MaskFile:
    """What a mask file says.

    Attributes:
        values: the largest of the three colours at every pixel, ``(H, W)`` uint8 or uint16.
        pixels: ``(H, W)`` bool, True where defective.
        remark: how it was read, where that is not plain; else empty.
    """

    values: np.ndarray
    pixels: np.ndarray
    remark: str = ""


def open_mask(path: Path) -> MaskFile:
    """Read one mask file.

    What is not black is defective: values of 1, 2 or 255, 1 bit, colours and palettes read alike.
    In a file of many grey values (antialiased, resized, or through JPEG), what is brighter than
    half of white is defective.

    Raises:
        ImageError: if it cannot be read or is transparent in places; or if the area that it marks
            is hardly a defect: an inverted mask, or one in which the background has a value.
    """
    values = mask_values(path)
    counts = np.bincount(values.ravel())
    there = np.flatnonzero(counts)
    lit = there[there > 0]
    if _is_grey(lit):
        half = np.iinfo(values.dtype).max // 2
        pixels = values > half
        remark = f"masks of many grey values: above {half} of {2 * half + 1} counts as defective"
    else:
        pixels = values > 0
        remark = ""
        if len(lit) > 1 and counts[lit].max() > _MOST * values.size:
            shown = ", ".join(map(str, there[:5]))
            reason = f"one of its values ({shown}) seems to stand for the background"
            raise ImageError(path, reason, f"{DRAW_ANEW}, the background 0")
        if len(lit) > _CLASSES:
            remark = f"masks of more than {_CLASSES} values: whatever is not black is defective"
    if pixels.all():
        return MaskFile(values, pixels, "masks that mark every pixel of their picture")
    share, border = pixels.mean(), _border(pixels).mean()
    if share > _MOST and border > _BORDER:
        reason = (
            f"it marks {share:.0%} of the picture and {border:.0%} of its border, as if inverted"
        )
        raise ImageError(path, reason, DRAW_ANEW)
    return MaskFile(values, pixels, remark)


def mask_values(path: Path) -> np.ndarray:
    """Read the values of one mask file: the largest of the three colours, ``(H, W)``.

    In a palette without colours the numbers of the colours count.

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
    values = picture.pixels.max(axis=-1)
    if not values.any():
        with Image.open(path) as image:
            if image.mode == "P":
                numbers = np.array(image)
                return numbers if numbers.shape == values.shape else values
    return values


def marks(mask: Path) -> bool:
    """Whether a mask file marks a pixel.

    Raises:
        ImageError: as ``open_mask``.
    """
    try:
        with Image.open(mask) as image:
            if image.mode in ("1", "L") and image.getbbox() is None:
                return False
    except Exception:
        pass  # the opener knows more formats, and says in words what is wrong
    return bool(open_mask(mask).pixels.any())


def orientation_of(path: Path) -> int:
    """Give the EXIF orientation by which a picture is turned upright, 1 to 8; 1 if it has none."""
    try:
        with Image.open(path) as image:
            return int(image.getexif().get(ORIENTATION, 1))
    except Exception:
        return 1  # its opener says what is wrong


def size_fault(
    size: tuple[int, int], image: Path, wanted: tuple[int, int]
) -> tuple[str, str] | None:
    """Say that a mask has another size than its picture, and what to do; both ``(width, height)``.

    A mask that was drawn on the picture as stored, before it is turned by EXIF, is told by that.
    """
    if size == wanted:
        return None
    reason = "the mask is {} x {} pixels, its picture {} x {}".format(*size, *wanted)
    if size == wanted[::-1] and orientation_of(image) > 4:
        reason += " once it is turned as its EXIF says"
        return reason, "Turn the mask as well, or save the picture upright"
    return reason, "Check the pairing, or draw the mask in that size"


def _is_grey(lit: np.ndarray) -> bool:
    """Whether the values of a mask, without 0, are shades between black and white."""
    if not len(lit):
        return False
    white = 255 if lit[-1] <= 255 else 65535
    if lit[-1] <= white // 2:
        return False
    inner = lit[lit < lit[-1]]
    blurred = (inner <= _NEAR).any() and (inner >= lit[-1] - _NEAR).any()
    return bool(blurred or len(lit) > _CLASSES)


def _border(pixels: np.ndarray) -> np.ndarray:
    return np.concatenate([pixels[0], pixels[-1], pixels[1:-1, 0], pixels[1:-1, -1]])

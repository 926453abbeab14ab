"""Areas of interest: what of a picture counts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from PIL import Image

from zerodefect.images import ImageError, Picture


def read_area(
    roi: Picture | None,
    ignore: Picture | None,
    height: int,
    width: int,
    name: str = "the picture",
) -> np.ndarray | None:
    """Inspected area of a picture from mask pictures: white in ``roi``, not white in ``ignore``.

    Masks of another size but the same shape are resized (nearest pixel). None if there is no mask.

    Args:
        roi, ignore: mask pictures.
        height, width: of the picture, upright.
        name: of the picture, for the error.

    Raises:
        ImageError: a mask has another aspect ratio than the picture.
        ValueError: nothing is left to inspect.
    """
    if roi is None and ignore is None:
        return None
    area = np.ones((height, width), bool)
    for mask, counts in ((roi, True), (ignore, False)):
        if mask is not None:
            _check_shape(mask, height, width, name)
            white = np.asarray(Image.fromarray(mask.to_uint8()).convert("L")) > 127
            area &= resize_area(white, (height, width)) == counts
    if not area.any():
        raise ValueError(
            "the masks leave nothing to inspect; white means inspect in a region of "
            "interest, and ignore in an ignore mask"
        )
    return area


def _check_shape(mask: Picture, height: int, width: int, name: str) -> None:
    """Refuse a mask that would be distorted, and so would cover other places than it was drawn on.

    A mask that was drawn at another scale may be off by a rounded pixel, or by one percent.
    """
    drawn = max(width * mask.height, height * mask.width)
    off = abs(width * mask.height - height * mask.width)
    rounded = max(width, height, mask.width, mask.height) / 2
    if off <= max(0.01 * drawn, rounded):
        return
    reason = (
        f"the mask {mask.path} is {mask.width} x {mask.height} pixels, the picture {width} x "
        f"{height}, which is another shape"
    )
    remedy = "Draw the mask on this picture, or give one of its shape"
    turned = abs(width * mask.width - height * mask.height)
    if turned <= 0.01 * drawn:
        remedy = "Turn the mask upright: pictures are shown as their EXIF orientation says"
    raise ImageError(name, reason, remedy)


def resize_area(area: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Inspected area ``(H, W)`` bool at another size, by the nearest pixel."""
    if area.shape == size:
        return area
    resized = Image.fromarray(area).resize((size[1], size[0]), Image.Resampling.NEAREST)
    return np.asarray(resized)


def paint_over(picture: Picture, inspected: np.ndarray | None) -> Picture:
    """The picture with everything outside the inspected area in that area's mean colour.

    Raises:
        ValueError: an area that is empty or of another size.
    """
    if inspected is None:
        return picture
    if inspected.shape != (picture.height, picture.width):
        raise ValueError(
            f"{picture.path}: the inspected area is {inspected.shape}, the picture "
            f"{(picture.height, picture.width)}"
        )
    inspected = resize_area(inspected, picture.pixels.shape[:2])  # where it was shrunk
    if not inspected.any():
        raise ValueError(f"{picture.path}: the inspected area is empty")
    pixels = picture.pixels.copy()
    pixels[~inspected] = np.round(picture.pixels[inspected].mean(0)).astype(pixels.dtype)
    return replace(picture, pixels=pixels)

"""Areas of interest: what of a picture counts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from PIL import Image

from zerodefect.images import Picture


def read_area(
    roi: Picture | None, ignore: Picture | None, height: int, width: int
) -> np.ndarray | None:
    """Inspected area of a picture from mask pictures: white in ``roi``, not white in ``ignore``.

    Masks of another size are resized (nearest pixel). None if there is no mask.

    Raises:
        ValueError: nothing is left to inspect.
    """
    if roi is None and ignore is None:
        return None
    area = np.ones((height, width), bool)
    for picture, counts in ((roi, True), (ignore, False)):
        if picture is not None:
            white = np.asarray(Image.fromarray(picture.to_uint8()).convert("L")) > 127
            area &= resize_area(white, (height, width)) == counts
    if not area.any():
        raise ValueError(
            "the masks leave nothing to inspect; white means inspect in a region of "
            "interest, and ignore in an ignore mask"
        )
    return area


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
    if not inspected.any():
        raise ValueError(f"{picture.path}: the inspected area is empty")
    pixels = picture.pixels.copy()
    pixels[~inspected] = np.round(picture.pixels[inspected].mean(0)).astype(pixels.dtype)
    return replace(picture, pixels=pixels)

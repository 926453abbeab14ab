"""Pictures that are kept smaller than they were, and stand for the whole ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

from zerodefect.images.decode import Picture


@dataclass(frozen=True, eq=False)
class KeptPicture(Picture):
    """A picture whose pixels were shrunk, and what was known of the whole one.

    ``height`` and ``width``, and with them maps, tiles and areas of interest, are the whole one's.

    Attributes:
        whole: ``(height, width)`` of the picture that it stands for, in pixels.
        digest: name of the whole picture's pixels, see ``inspection.sources.digest``.
        light: brightness, contrast and sharpness of the whole one, see ``inspection.frames``.
        points: that were measured on the part, where points are judged.
    """

    whole: tuple[int, int] = (0, 0)
    digest: str = ""
    light: tuple[float, float, float] | None = None
    points: int | None = None

    @property
    def height(self) -> int:
        """Of the whole picture."""
        return self.whole[0]

    @property
    def width(self) -> int:
        """Of the whole picture."""
        return self.whole[1]

    @property
    def shrunk(self) -> bool:
        """Whether pixels were lost."""
        return self.pixels.shape[:2] != self.whole


def shrink(picture: Picture, size: tuple[int, int]) -> Picture:
    """The picture with at most ``(height, width)`` pixels, resized bicubic and antialiased.

    A side that is no longer stays as it is; one that was shrunk before is returned unchanged.
    """
    if isinstance(picture, KeptPicture):
        return picture
    own, pixels = (picture.height, picture.width), picture.pixels
    height, width = min(own[0], size[0]), min(own[1], size[1])
    if (height, width) == own:
        return picture
    if pixels.dtype == np.uint8:
        image = Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)
        small = np.asarray(image)
    else:
        tensor = F.interpolate(
            picture.to_tensor()[None], (height, width), mode="bicubic", antialias=True
        )[0]
        scaled = (tensor.clamp(0, 1) * float(np.iinfo(pixels.dtype).max)).round()
        small = scaled.permute(1, 2, 0).to(torch.int32).numpy().astype(pixels.dtype)
    pixels = np.ascontiguousarray(small)
    return KeptPicture(
        picture.path,
        pixels,
        picture.notes,
        own,
        cloud=picture.cloud,
        colourless=picture.colourless,
    )

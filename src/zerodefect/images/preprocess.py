"""From pictures to the network's input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

from zerodefect.images.decode import Picture

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


def normalised(
    images: torch.Tensor, mean: Sequence[float] = CLIP_MEAN, std: Sequence[float] = CLIP_STD
) -> torch.Tensor:
    """``(..., 3, h, w)`` in [0, 1] less the mean and over the deviation of each channel."""
    centre, spread = (images.new_tensor(values).view(3, 1, 1) for values in (mean, std))
    return (images - centre).div_(spread)


@dataclass(frozen=True)
class Preprocess:
    """Resize and normalise pictures for a network.

    The aspect ratio is not kept: the whole picture fills the input, as is the field's convention.

    Attributes:
        size: ``(height, width)`` of the network's input in pixels.
        mean, std: per RGB channel, on the [0, 1] scale. Defaults: CLIP's (Radford et al. 2021).
        interpolation: how the picture is resized.
        antialias: whether shrinking averages over all source pixels.
        resize_on: ``"tensor"`` resizes float values, which bicubic weights may carry slightly
            outside [0, 1] (the WinCLIP and anomalib convention, full precision for 16 bits);
            ``"pil"`` resizes 8-bit values with Pillow, as most official codes do.

    Raises:
        ValueError: for a size below 1, or Pillow resizing without antialiasing.
    """

    modality: ClassVar[str] = "colours"  # what of a picture it takes

    size: tuple[int, int]
    mean: tuple[float, float, float] = CLIP_MEAN
    std: tuple[float, float, float] = CLIP_STD
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    antialias: bool = True
    resize_on: Literal["tensor", "pil"] = "tensor"

    def __post_init__(self) -> None:
        if min(self.size) < 1:
            raise ValueError(f"size must be at least 1 x 1, not {self.size}")
        if self.interpolation not in ("bicubic", "bilinear"):
            raise ValueError(f"interpolation must be bicubic or bilinear: {self.interpolation!r}")
        if self.resize_on not in ("tensor", "pil"):
            raise ValueError(f"resize_on must be tensor or pil: {self.resize_on!r}")
        if self.resize_on == "pil" and not self.antialias:
            raise ValueError("Pillow always antialiases; use resize_on='tensor' to switch it off")

    def lacks(self, picture: Picture) -> bool:
        """Whether the picture has nothing for this input: no colours, but points alone."""
        return picture.colourless

    def __call__(self, picture: Picture) -> torch.Tensor:
        """Give the network's input for one picture: float32 ``(3, h, w)``, normalised."""
        if self.resize_on == "pil":
            method = Image.Resampling[self.interpolation.upper()]
            image = Image.fromarray(picture.to_uint8()).resize(self.size[::-1], method)
            resized = Picture(picture.path, np.asarray(image)).to_tensor()
        else:
            resized, how = picture.to_tensor(), self.interpolation
            if resized.shape[-2:] != self.size:
                shown, smooth = resized[None], self.antialias
                resized = F.interpolate(shown, self.size, mode=how, antialias=smooth)[0]
        return normalised(resized, self.mean, self.std)

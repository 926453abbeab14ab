"""Depth pictures as clouds, in Eyecandies' way: grey values, their range, a known camera."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from zerodefect.images.cloud_files import StoredPoints
from zerodefect.images.samples import COPY_AGAIN, FaultError

DEPTH_SUFFIX = "_depth.png"
_RANGE_SUFFIX = "_info_depth.yaml"
_FOCAL = 711.11  # of Eyecandies' camera, in pixels of its pictures of 512 (Bonfiglioli et al. 2022)
_SIDE = 512


def range_file(depth: Path) -> Path:
    """Where the range of a depth picture stands."""
    return depth.with_name(depth.name.removesuffix(DEPTH_SUFFIX) + _RANGE_SUFFIX)


def is_depth_picture(path: Path) -> bool:
    """Whether a file is a depth picture by its name and the range beside it."""
    return path.name.endswith(DEPTH_SUFFIX) and range_file(path).is_file()


def depth_points(path: Path, most: int) -> StoredPoints:
    """Points ``(H, W, 3)`` of a 16-bit depth picture, in the unit of its range; zero is no depth.

    Raises:
        FaultError: picture or range cannot be used.
    """
    from zerodefect.images.decode import ImageError, open_image

    low, high = _range(range_file(path))
    try:
        pixels = open_image(path, max_pixels=most, bit_depth=16).pixels[..., 0]
    except ImageError as error:
        raise FaultError(error.reason, error.remedy) from None
    share = pixels.astype(np.float64) / np.iinfo(pixels.dtype).max
    depth = np.where(pixels > 0, low + share * (high - low), 0.0)
    return StoredPoints(back_projected(depth, _FOCAL * pixels.shape[1] / _SIDE), True)


def back_projected(depth: np.ndarray, focal: float) -> np.ndarray:
    """Points of a pinhole camera that looks through the picture's middle.

    Args:
        depth: ``(H, W)`` along z.
        focal: length in pixels.

    Returns:
        ``(H, W, 3)`` float64 x to the right, y downwards, z.
    """
    height, width = depth.shape
    rows, columns = np.mgrid[:height, :width]
    x = (columns - (width - 1) / 2) * depth / focal
    y = (rows - (height - 1) / 2) * depth / focal
    return np.stack([x, y, depth], -1)


def _range(file: Path) -> tuple[float, float]:
    import yaml

    try:
        said: Any = yaml.safe_load(file.read_text(encoding="utf-8"))
        found = said["normalization"]
        low, high = float(found["min"]), float(found["max"])
    except (OSError, ValueError, TypeError, KeyError, yaml.YAMLError):
        reason = f"{file.name} beside it does not say its range (normalization: min, max)"
        raise FaultError(reason, COPY_AGAIN) from None
    if not (np.isfinite([low, high]).all() and 0 <= low < high):
        raise FaultError(f"the range in {file.name} is {low:g} to {high:g}", COPY_AGAIN)
    return low, high

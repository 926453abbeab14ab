"""The pictures that the HTML report shows of an image, written while the run goes on."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from zerodefect.files import atomic_write
from zerodefect.images import blend, draw_regions, encode_jpeg, encode_png, heat_rgba, thumbnail
from zerodefect.types import Inspection, Region

PICTURE_SIDE = 1024
HEAT_SIDE = 384
THUMB_SIDE = 192
SMALL_SIDE, FRAME_ROOM = 12, 4  # pixels of thumbnails: regions that get a frame, and its distance


def write_assets(
    pixels: np.ndarray,
    inspection: Inspection,
    colour_range: tuple[float, float] | None,
    folder: Path,
    stem: str,
) -> dict[str, str]:
    """Write the pictures that the report shows of one image.

    Args:
        pixels: the upright picture, ``(H, W, 3)`` uint8.
        inspection: its outcome; without ``map`` no heat map is written.
        colour_range: raw map values at the two ends of the colour ramp, the same for every image
            of a run (they come from the calibration, never from the image); None without maps.
        folder: where the files go, the run's ``assets`` folder; made if missing.
        stem: file name without ending, unique within the run.

    Returns:
        Paths relative to the run folder (the parent of ``folder``): ``image`` (JPEG, longest side
        at most 1024), ``heat`` (RGBA PNG, longest side at most 384, transparent below the range)
        and ``thumb`` (JPEG, longest side at most 192, with heat map and outlines).

    Raises:
        StoreError: a file cannot be written. Files are replaced whole, never left half written.
    """
    picture = thumbnail(pixels, PICTURE_SIDE)
    files = {"image": (f"{stem}.jpg", encode_jpeg(picture))}
    thumb = thumbnail(picture, THUMB_SIDE)
    if inspection.map is not None and colour_range is not None:
        scale = min(1.0, HEAT_SIDE / max(inspection.map.shape))
        size = [max(1, round(side * scale)) for side in inspection.map.shape]
        heat = heat_rgba(resize_map(inspection.map, *size), *colour_range)
        files["heat"] = (f"{stem}.png", encode_png(heat))
        thumb = blend(thumb, resize_map(inspection.map, *thumb.shape[:2]), *colour_range)
    across, down = thumb.shape[1] / inspection.width, thumb.shape[0] / inspection.height
    scaled = [_scale_region(region, across, down) for region in inspection.regions]
    thumb = draw_regions(thumb, scaled)
    files["thumb"] = (f"{stem}.thumb.jpg", encode_jpeg(thumb))
    for name, content in files.values():
        with atomic_write(folder / name) as file:
            file.write(content)
    return {key: f"{folder.name}/{name}" for key, (name, _) in files.items()}


def resize_map(values: np.ndarray, height: int, width: int) -> np.ndarray:
    """A map ``(h, w)`` at another size, averaged where it shrinks."""
    # Pillow's bilinear filter averages over the source pixels when it shrinks.
    image = Image.fromarray(np.ascontiguousarray(values, dtype=np.float32))
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))


def _scale_region(region: Region, across: float, down: float) -> Region:
    """The region in the pixels of a smaller picture, so that its outline stays visible there."""
    x, y, width, height = region.box
    if max(width * across, height * down) < SMALL_SIDE:  # a frame around what an outline would hide
        left, top = math.floor(x * across) - FRAME_ROOM, math.floor(y * down) - FRAME_ROOM
        right = math.ceil((x + width) * across) + FRAME_ROOM - 1
        bottom = math.ceil((y + height) * down) + FRAME_ROOM - 1
        return replace(region, box=(left, top, right - left, bottom - top), polygons=())
    return replace(  # the mask stays as it is: it is not drawn
        region,
        box=(
            math.floor(x * across),
            math.floor(y * down),
            math.ceil(width * across),
            math.ceil(height * down),
        ),
        polygons=tuple(
            tuple(value * (down if place % 2 else across) for place, value in enumerate(points))
            for points in region.polygons
        ),
    )

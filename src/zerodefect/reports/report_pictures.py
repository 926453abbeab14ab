"""The pictures that the HTML report shows of an image, written while the run goes on."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from zerodefect.files import atomic_write
from zerodefect.images import encode_jpeg, encode_png, heat_rgba, laid_over, resize_map, thumbnail
from zerodefect.inspection.inspected import Inspection

PICTURE_SIDE = 1024
HEAT_SIDE = 384
THUMB_SIDE = 192
WORD_RANGE = (0.5, 1.0)
"""Values of a word's map at the two ends of the ramp: from 0.5 on, a place speaks for the word."""
_VEIL = 150  # opacity over what was not inspected


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
        and ``thumb`` (JPEG, longest side at most 192, with heat map and outlines); where words name
        the area, ``area`` (RGBA PNG, which darkens what was not inspected), and for every word that
        was looked for ``word0``, ``word1``, ... (as ``heat``, from ``WORD_RANGE``).

    Raises:
        StoreError: a file cannot be written. Files are replaced whole, never left half written.
    """
    picture = thumbnail(pixels, PICTURE_SIDE)
    files = {"image": (f"{stem}.jpg", encode_jpeg(picture))}
    shown = thumbnail(picture, THUMB_SIDE)
    if inspection.map is not None and colour_range is not None:
        scale = min(1.0, HEAT_SIDE / max(inspection.map.shape))
        size = [max(1, round(side * scale)) for side in inspection.map.shape]
        heat = heat_rgba(resize_map(inspection.map, *size), *colour_range)
        files["heat"] = (f"{stem}.png", encode_png(heat))
    for name, pixels_of_it in _of_words(inspection).items():
        files[name] = (f"{stem}.{name}.png", encode_png(pixels_of_it))
    whole = inspection.height, inspection.width
    thumb = laid_over(shown, inspection.map, inspection.regions, whole, colour_range)
    files["thumb"] = (f"{stem}.thumb.jpg", encode_jpeg(thumb))
    for name, content in files.values():
        with atomic_write(folder / name) as file:
            file.write(content)
    return {key: f"{folder.name}/{name}" for key, (name, _) in files.items()}


def _of_words(inspection: Inspection) -> dict[str, np.ndarray]:
    """Pictures ``(h, w, 4)`` to lay over: the area by words, and the map of every word."""
    scale = min(1.0, HEAT_SIDE / max(inspection.height, inspection.width))
    size = [max(1, round(side * scale)) for side in (inspection.height, inspection.width)]
    found = {
        f"word{number}": heat_rgba(one.resized(*size), *WORD_RANGE)
        for number, one in enumerate(inspection.words)
    }
    if inspection.area and (white := inspection.area.mask(*size)) is not None:
        found["area"] = np.zeros((*white.shape, 4), np.uint8)
        found["area"][~white, 3] = _VEIL
    return found

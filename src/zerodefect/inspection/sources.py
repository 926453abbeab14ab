"""What a user may hand over as pictures."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
from PIL import Image

from zerodefect.images import Picture, find_images, open_image

Source = str | Path | bytes | Image.Image | np.ndarray | Picture


def expand(sources: Source | Iterable[Source]) -> Iterable[Source]:
    """Folders to their images; anything else stays as it is.

    What is no sequence (a generator, a camera) is read as it is needed, and may never end.

    Raises:
        ValueError: an empty list.
        FileNotFoundError: a named file or folder is not there.
    """
    if isinstance(sources, (str, Path, bytes, Image.Image, np.ndarray, Picture)):
        sources = [sources]
    expanded = chain.from_iterable(map(_images_of, sources))
    if not isinstance(sources, Sequence):
        return expanded
    found = list(expanded)  # a wrong path is an error before anything is inspected
    if not found:
        raise ValueError("no image was given")
    return found


def _images_of(source: Source) -> Sequence[Source]:
    return find_images([source]) if isinstance(source, (str, Path)) else [source]


def open_source(source: Source, bit_depth: int | None = None) -> Picture:
    """The picture of a source.

    Raises:
        ImageError: it cannot be read; the message names file, reason and remedy.
    """
    return source if isinstance(source, Picture) else open_image(source, bit_depth=bit_depth)


def digest(picture: Picture) -> str:
    """Name of a picture's pixels; 16 hexadecimal digits."""
    found = hashlib.sha256(str((picture.pixels.shape, picture.pixels.dtype)).encode())
    found.update(np.ascontiguousarray(picture.pixels).tobytes())
    return found.hexdigest()[:16]


def seen_nothing(picture: Picture, area: np.ndarray | None) -> list[str]:
    """A note where the picture is a single colour, as of a covered or unplugged camera."""
    pixels = picture.pixels if area is None else picture.pixels[area]
    colours = pixels.reshape(-1, pixels.shape[-1])
    # most pictures tell within the first pixels
    if not (colours[:256] == colours[0]).all() or not (colours == colours[0]).all():
        return []
    what = "picture" if area is None else "inspected area"
    return [f"the {what} is a single colour: nothing can be seen in it"]

"""TIFF: with Pillow, or where it cannot or would lose bits, with tifffile."""

from __future__ import annotations

import ctypes
import io
import sys
from typing import Any

import numpy as np
from PIL import Image, TiffImagePlugin

from zerodefect.images import formats
from zerodefect.images.samples import (
    CONVERT,
    FULL_SCALE,
    ORIENTATION,
    FaultError,
    Raw,
    check_size,
    from_pillow,
    integers,
    note_orientation,
    raw_mode,
    two_passes,
)


def decode_tiff(data: bytes, max_pixels: int) -> Raw:
    """Read the first page; with Pillow, or where it cannot or would lose bits, with tifffile."""
    _silence_libtiff()
    try:
        image = TiffImagePlugin.TiffImageFile(io.BytesIO(data))
    except (SyntaxError, KeyError, OSError):  # a layout that Pillow does not know, or damage
        return _decode_with_tifffile(data, max_pixels)
    check_size(image.width, image.height, max_pixels)
    tags = image.tag_v2
    fault = formats.segments_fault(*_segments(tags), len(data))
    if fault:
        raise FaultError(fault)
    bits = tuple(tags.get(TiffImagePlugin.BITSPERSAMPLE, (1,)))
    if len(bits) > 1 and max(bits) > 8 and tags.get(TiffImagePlugin.PLANAR_CONFIGURATION) == 2:
        return _decode_with_tifffile(data, max_pixels)
    orientation, rawmode = tags.get(ORIENTATION, 1), raw_mode(image)
    _claim_memory(image)
    if rawmode in {f"{image.mode};16{order}" for order in "BLN"} and image.mode in {"RGB", "RGBA"}:
        raw = Raw(_read_twice(image, data, rawmode[-1]), [])
    else:
        raw = from_pillow(image)
        if max(bits) == 16 and raw.samples.dtype == np.uint8:
            raw.notes.append("16 bits per channel reduced to 8")
    if bits == (16,) and tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0:
        raw.samples = FULL_SCALE - raw.samples  # white is zero; Pillow sees to it for 8 bits
    if bits == (12,):
        raw.bits = 12
    # Pillow has already turned the TIFF upright.
    raw.orientation = 1
    note_orientation(raw.notes, orientation)
    pages = _count_pages(image)
    if pages != 1:
        raw.notes.append(f"first of {pages or 'several'} frames")
    return raw


def _claim_memory(image: TiffImagePlugin.TiffImageFile) -> None:
    """Allocate as Pillow's loader would, which would also apply its global pixel limit."""
    image.im = Image.core.new(image.mode, getattr(image, "_tile_size", image.size))


def _read_twice(image: TiffImagePlugin.TiffImageFile, data: bytes, order: str) -> np.ndarray:
    again = TiffImagePlugin.TiffImageFile(io.BytesIO(data))
    _claim_memory(again)
    if order == "N":  # libtiff has already brought the samples to this machine's order
        order = "L" if sys.byteorder == "little" else "B"
    return two_passes(image, again, order, "B" if order == "L" else "L")


def _segments(tags: Any) -> tuple[list[int], list[int], int]:
    """List offsets and lengths of a page's strips or tiles, and how many it should have."""
    width, height = int(tags[256]), int(tags[257])
    planes = int(tags.get(277, 1)) if tags.get(284) == 2 else 1
    if 324 in tags:
        across = -(-width // max(int(tags[322]), 1))
        down = -(-height // max(int(tags[323]), 1))
        return list(tags[324]), list(tags.get(325, ())), across * down * planes
    offsets, rows = list(tags[273]), max(int(tags.get(278, height)), 1)
    expected = -(-height // rows) * planes
    # A single strip may leave its length out; the decoder then notices a missing end itself.
    return offsets, list(tags.get(279, (1,) if len(offsets) == 1 else ())), expected


def _count_pages(image: TiffImagePlugin.TiffImageFile) -> int | None:
    try:
        return int(image.n_frames)
    except Exception:  # a damaged second page does not harm the first
        return None


def _decode_with_tifffile(data: bytes, max_pixels: int) -> Raw:
    import tifffile

    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page: Any = file.pages[0]
        check_size(page.imagewidth, page.imagelength, max_pixels)
        if page.is_tiled:  # one tile can be larger than the picture
            check_size(page.tilewidth, page.tilelength, max_pixels)
        fault = formats.segments_fault(page.dataoffsets, page.databytecounts, 1, len(data))
        if fault:
            raise FaultError(fault)
        if page.photometric not in (0, 1, 2) or page.samplesperpixel > 4 or page.imagedepth > 1:
            raise FaultError("this kind of TIFF is not supported", CONVERT)
        try:
            samples = page.asarray(maxworkers=1)
        except (KeyError, ImportError):  # tifffile's words for a compression it cannot read
            raise FaultError("its TIFF compression is not supported", CONVERT) from None
        if page.planarconfig == 2 and samples.ndim == 3:
            samples = np.moveaxis(samples, 0, 2)
        if samples.shape[:2] != (page.imagelength, page.imagewidth):
            raise FaultError("its header contradicts itself")
        if page.photometric == 0 and samples.dtype.kind == "u":
            samples = np.iinfo(samples.dtype).max - samples
        orientation = page.tags.valueof(ORIENTATION, 1)
        pages = len(file.pages)
    if samples.dtype.kind in "iu" and samples.dtype.itemsize > 1 and samples.dtype != np.uint16:
        samples = integers(samples)
    notes = [f"first of {pages} frames"] if pages > 1 else []
    return Raw(samples, notes, orientation if orientation in range(1, 9) else 1)


def _silence_libtiff() -> None:
    """Keep libtiff, in Pillow's own library, from printing to the terminal.

    It reports damage there besides making the decoder fail, and only the failure is wanted.
    Where the library does not show its functions (Windows) nothing happens.
    """
    try:
        library = ctypes.CDLL(Image.core.__file__)
        for handler in (library.TIFFSetErrorHandler, library.TIFFSetWarningHandler):
            handler.argtypes, handler.restype = [ctypes.c_void_p], ctypes.c_void_p
            handler(None)
    except (AttributeError, OSError):
        pass

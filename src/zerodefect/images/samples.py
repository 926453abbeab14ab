"""Samples of a decoded picture, and how Pillow and tifffile give them without losing bits."""

from __future__ import annotations

import ctypes
import io
import sys
import threading
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageCms, ImageFile, PngImagePlugin, TiffImagePlugin

from zerodefect.images import formats

COPY_AGAIN = "Copy the file again from its source"
CONVERT = "Convert it to PNG or TIFF"
SMALLER = "cut it into smaller pictures; in Python, open_image(..., max_pixels=...) takes more"
FULL_SCALE = 65535
ORIENTATION = 0x0112  # the EXIF and TIFF tag

# Pillow's modes: those that are used as they are, and those that are brought to another.
_KEPT = {"L", "RGB", "RGBA", "I", "F", "I;16", "I;16L", "I;16B", "I;16N"}
_SHOWN_AS = {
    "1": "L",
    **dict.fromkeys(("P", "YCbCr", "HSV", "RGBX", "CMYK", "LAB"), "RGB"),
    **dict.fromkeys(("PA", "LA", "La", "RGBa"), "RGBA"),
}

# warnings.catch_warnings changes the process, so only one thread at a time may be inside it.
warnings_lock = threading.RLock()  # one thread may enter twice, for a TIFF's orientation


class FaultError(Exception):
    """A reason and a remedy on their way to `open_image`, which knows the picture's name."""

    def __init__(self, reason: str, remedy: str = COPY_AGAIN) -> None:
        super().__init__(reason, remedy)
        self.reason, self.remedy = reason, remedy


@dataclass
class Raw:
    """Decoded samples before they become RGB.

    Attributes:
        samples: ``(H, W)`` or ``(H, W, C)``, C = 1 to 4: grey, grey + alpha, RGB, RGB + alpha.
        orientation: EXIF orientation (1..8) that has still to be applied; others mean nothing.
        bits: significant bits per sample, where the file says so.
    """

    samples: np.ndarray
    notes: list[str]
    orientation: int = 1
    bits: int | None = None


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Refuse a picture of no pixels or of too many, before memory is claimed."""
    if width < 1 or height < 1:
        raise FaultError(f"the picture has no pixels ({width} x {height})")
    if width * height > max_pixels:
        reason = (
            f"the picture is too large: {width} x {height} = {width * height / 1e6:,.0f} million "
            f"pixels, the limit is {max_pixels / 1e6:,.0f} million"
        )
        raise FaultError(reason, f"If you trust the file, {SMALLER}")


def note_orientation(notes: list[str], orientation: int) -> None:
    """Say that the picture was turned, if it was."""
    if orientation in range(2, 9):
        notes.append(f"turned upright (EXIF orientation {orientation})")


def from_pillow(image: Image.Image) -> Raw:
    """Load a Pillow image and bring its mode to grey, RGB or RGBA samples."""
    notes: list[str] = []
    image.load()
    mode, info, orientation = image.mode, image.info, _orientation(image)
    if mode not in _KEPT and mode not in _SHOWN_AS:
        raise FaultError(f"its colour mode {mode} is not supported", CONVERT)
    if mode == "CMYK":
        notes.append("converted from CMYK without a colour profile")
    if mode == "LAB":
        notes.append("converted from CIELAB (D50)")
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        image = ImageCms.buildTransform(lab, srgb, "LAB", "RGB").apply(image)
    elif "transparency" in info and mode in {"1", "L", "P", "RGB"}:
        image = image.convert("RGBA")
    elif mode in _SHOWN_AS:
        image = image.convert(_SHOWN_AS[mode])
    samples = np.array(image)
    if mode.startswith("I;16"):
        samples = _add_key_alpha(samples.astype(np.uint16), info)
    elif mode == "I":
        samples = _integers(samples)
    return Raw(samples, notes, orientation)


def _orientation(image: Image.Image) -> int:
    try:
        with warnings_lock, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return image.getexif().get(ORIENTATION, 1)
    except Exception:  # damaged metadata is no reason to lose a whole picture
        return 1


def _integers(samples: np.ndarray) -> np.ndarray:
    """Accept wide integers where the values are 16-bit ones."""
    if samples.min() < 0 or samples.max() > FULL_SCALE:
        reason = f"its integers run from {samples.min()} to {samples.max()}, so white is unknown"
        raise FaultError(reason, "Save it with 8 or 16 bits, unsigned")
    return samples.astype(np.uint16)


def _add_key_alpha(samples: np.ndarray, info: dict[Any, Any]) -> np.ndarray:
    """Make the one transparent colour of a 16-bit PNG, if it names one, an alpha channel."""
    if "transparency" not in info:
        return samples
    colours = samples.reshape(*samples.shape[:2], -1)
    opaque = (colours != np.array(info["transparency"])).any(axis=2, keepdims=True)
    return np.concatenate([colours, opaque.astype(np.uint16) * FULL_SCALE], axis=2)


def from_png(image: ImageFile.ImageFile, data: bytes) -> Raw:
    """Read a PNG; 16-bit colour, which Pillow would cut to 8 bits, keeps its precision."""
    rawmode = _raw_mode(image)
    if rawmode == "LA;16B":
        # Grey and alpha with 16 bits each have the layout of four 8-bit channels.
        _set_raw_mode(image, "RGBA")
        image.load()
        high_low = np.array(image)
        samples = _join_bytes(high_low[..., 0::2], high_low[..., 1::2])
    elif rawmode in {"RGB;16B", "RGBA;16B"}:
        samples = _two_passes(image, PngImagePlugin.PngImageFile(io.BytesIO(data)), "B")
        samples = _add_key_alpha(samples, image.info)
    else:
        return from_pillow(image)
    return Raw(samples, [], _orientation(image))


def _two_passes(image: ImageFile.ImageFile, again: ImageFile.ImageFile, order: str) -> np.ndarray:
    """Decode 16-bit RGB(A), of which Pillow keeps 8 bits, once per byte.

    Pillow's byte order letter (B or L) decides which byte of each sample it keeps; read in the
    right and then in the wrong order, both bytes are there.

    Args:
        image, again: the same file opened twice.
        order: the right one.
    """
    _set_raw_mode(image, f"{image.mode};16{order}")
    _set_raw_mode(again, f"{image.mode};16{'L' if order == 'B' else 'B'}")
    image.load()
    again.load()
    return _join_bytes(np.array(image), np.array(again))


def _join_bytes(high: np.ndarray, low: np.ndarray) -> np.ndarray:
    return (high.astype(np.uint16) << 8) | low


def _raw_mode(image: ImageFile.ImageFile) -> str:
    """Layout of the samples in the file, in Pillow's words ("RGB;16B")."""
    if not image.tile:
        return ""
    args: Any = image.tile[0][3]
    return args if isinstance(args, str) else str(args[0])


def _set_raw_mode(image: ImageFile.ImageFile, rawmode: str) -> None:
    tiles = []
    args: Any
    for codec, box, offset, args in image.tile:
        changed = rawmode if isinstance(args, str) else (rawmode, *args[1:])
        tiles.append(type(image.tile[0])(codec, box, offset, changed))
    image.tile = tiles


def from_tiff(data: bytes, max_pixels: int) -> Raw:
    """Read the first page; with Pillow, or where it cannot or would lose bits, with tifffile."""
    _silence_libtiff()
    try:
        image = TiffImagePlugin.TiffImageFile(io.BytesIO(data))
    except (SyntaxError, KeyError, OSError):  # a layout that Pillow does not know, or damage
        return _with_tifffile(data, max_pixels)
    check_size(image.width, image.height, max_pixels)
    tags = image.tag_v2
    if fault := formats.segments_fault(*_segments(tags), len(data)):
        raise FaultError(fault)
    bits = tuple(tags.get(TiffImagePlugin.BITSPERSAMPLE, (1,)))
    if len(bits) > 1 and max(bits) > 8 and tags.get(TiffImagePlugin.PLANAR_CONFIGURATION) == 2:
        return _with_tifffile(data, max_pixels)
    orientation, rawmode = tags.get(ORIENTATION, 1), _raw_mode(image)
    _claim_memory(image)
    if image.mode in {"RGB", "RGBA"} and rawmode in {f"{image.mode};16{o}" for o in "BLN"}:
        again = TiffImagePlugin.TiffImageFile(io.BytesIO(data))
        _claim_memory(again)
        # N: libtiff has already brought the samples to this machine's order
        order = rawmode[-1].replace("N", sys.byteorder[0].upper())
        raw = Raw(_two_passes(image, again, order), [])
    else:
        raw = from_pillow(image)
        if max(bits) == 16 and raw.samples.dtype == np.uint8:
            raw.notes.append("16 bits per channel reduced to 8")
    if bits == (16,) and tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0:
        raw.samples = FULL_SCALE - raw.samples  # white is zero; Pillow sees to it for 8 bits
    if bits == (12,):
        raw.bits = 12
    raw.orientation = 1  # Pillow has already turned the TIFF upright
    note_orientation(raw.notes, orientation)
    try:
        pages = int(image.n_frames)
    except Exception:  # a damaged second page does not harm the first
        pages = 0
    if pages != 1:
        raw.notes.append(f"first of {pages or 'several'} frames")
    return raw


def _claim_memory(image: TiffImagePlugin.TiffImageFile) -> None:
    """Allocate as Pillow's loader would, which would also apply its global pixel limit."""
    image.im = Image.core.new(image.mode, getattr(image, "_tile_size", image.size))


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


def _with_tifffile(data: bytes, max_pixels: int) -> Raw:
    import tifffile

    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page: Any = file.pages[0]
        check_size(page.imagewidth, page.imagelength, max_pixels)
        if page.is_tiled:  # one tile can be larger than the picture
            check_size(page.tilewidth, page.tilelength, max_pixels)
        if fault := formats.segments_fault(page.dataoffsets, page.databytecounts, 1, len(data)):
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
        if samples.dtype.kind in "iu" and samples.dtype.itemsize > 1 and samples.dtype != np.uint16:
            samples = _integers(samples)
        notes = [f"first of {len(file.pages)} frames"] if len(file.pages) > 1 else []
        return Raw(samples, notes, page.tags.valueof(ORIENTATION, 1))


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

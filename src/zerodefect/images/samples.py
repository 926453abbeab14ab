"""Samples of a decoded picture, and how Pillow gives them without losing bits."""

from __future__ import annotations

import io
import threading
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageCms, ImageFile, PngImagePlugin

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
        inverted: white is zero.
    """

    samples: np.ndarray
    notes: list[str]
    orientation: int = 1
    bits: int | None = None
    inverted: bool = False


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
    elif mode in {"1", "L", "P", "RGB"} and image.has_transparency_data:
        image = image.convert("RGBA")
    elif mode in _SHOWN_AS:
        image = image.convert(_SHOWN_AS[mode])
    samples = np.array(image)
    if mode.startswith("I;16"):
        samples = _add_key_alpha(samples.astype(np.uint16), info)
    elif mode == "I":
        samples = sixteen_bits(samples)
    return Raw(samples, notes, orientation)


def _orientation(image: Image.Image) -> int:
    try:
        with warnings_lock, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return image.getexif().get(ORIENTATION, 1)
    except Exception:  # damaged metadata is no reason to lose a whole picture
        return 1


def sixteen_bits(samples: np.ndarray) -> np.ndarray:
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

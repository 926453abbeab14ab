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
FULL_SCALE = 65535
ORIENTATION = 0x0112  # the EXIF and TIFF tag

# warnings.catch_warnings changes the process, so only one thread at a time may be inside it.
warnings_lock = threading.RLock()  # one thread may enter twice, for a TIFF's orientation


class FaultError(Exception):
    """A reason and a remedy on their way to `open_image`, which knows the picture's name."""

    def __init__(self, reason: str, remedy: str = COPY_AGAIN) -> None:
        super().__init__(reason)
        self.reason = reason
        self.remedy = remedy


@dataclass
class Raw:
    """Decoded samples before they become RGB.

    Attributes:
        samples: ``(H, W)`` or ``(H, W, C)``, C = 1 to 4: grey, grey + alpha, RGB, RGB + alpha.
        orientation: EXIF orientation (1..8) that has still to be applied.
        bits: significant bits per sample, where the file says so.
    """

    samples: np.ndarray
    notes: list[str]
    orientation: int = 1
    bits: int | None = None


SMALLER = "cut it into smaller pictures; in Python, open_image(..., max_pixels=...) takes more"


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


def from_pillow(image: Image.Image) -> Raw:
    """Load a Pillow image and bring its mode to grey, RGB or RGBA samples."""
    notes: list[str] = []
    image.load()
    orientation = _orientation(image)
    mode = image.mode
    has_key = "transparency" in image.info and mode in {"1", "L", "P", "RGB"}
    if mode in {"PA", "LA", "La", "RGBa", "RGBA"} or has_key:
        samples = np.array(image.convert("RGBA"))
    elif mode == "1":
        samples = np.array(image.convert("L"))
    elif mode in {"L", "RGB"}:
        samples = np.array(image)
    elif mode in {"P", "YCbCr", "HSV", "RGBX"}:
        samples = np.array(image.convert("RGB"))
    elif mode == "CMYK":
        notes.append("converted from CMYK without a colour profile")
        samples = np.array(image.convert("RGB"))
    elif mode == "LAB":
        notes.append("converted from CIELAB (D50)")
        samples = _lab_to_rgb(image)
    elif mode.startswith("I;16"):
        samples = _add_key_alpha(np.array(image).astype(np.uint16), image.info)
    elif mode == "I":
        samples = integers(np.array(image))
    elif mode == "F":
        samples = np.array(image)
    else:
        raise FaultError(f"its colour mode {mode} is not supported", CONVERT)
    return Raw(samples, notes, orientation)


def _orientation(image: Image.Image) -> int:
    try:
        with warnings_lock, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value = image.getexif().get(ORIENTATION, 1)
    except Exception:  # damaged metadata is no reason to lose a whole picture
        return 1
    return value if value in range(1, 9) else 1


def _lab_to_rgb(image: Image.Image) -> np.ndarray:
    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
    assert converted is not None  # None is only for conversion in place
    return np.array(converted)


def integers(samples: np.ndarray) -> np.ndarray:
    """Accept Pillow's 32-bit mode where the values are 16-bit ones."""
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
    rawmode = raw_mode(image)
    if rawmode == "LA;16B":
        # Grey and alpha with 16 bits each have the layout of four 8-bit channels.
        _set_raw_mode(image, "RGBA")
        image.load()
        high_low = np.array(image)
        samples = _join_bytes(high_low[..., 0::2], high_low[..., 1::2])
        return Raw(samples, [], _orientation(image))
    if rawmode not in {"RGB;16B", "RGBA;16B"}:
        return from_pillow(image)
    samples = two_passes(image, PngImagePlugin.PngImageFile(io.BytesIO(data)), "B", "L")
    return Raw(_add_key_alpha(samples, image.info), [], _orientation(image))


def two_passes(
    image: ImageFile.ImageFile, again: ImageFile.ImageFile, high: str, low: str
) -> np.ndarray:
    """Decode 16-bit RGB(A), of which Pillow keeps 8 bits, once per byte.

    Pillow's byte order letter (B or L) decides which byte of each sample it keeps; read in the
    right and then in the wrong order, both bytes are there.

    Args:
        image, again: the same file opened twice.
        high, low: byte order under which the sample's high and low byte is kept.
    """
    _set_raw_mode(image, f"{image.mode};16{high}")
    _set_raw_mode(again, f"{image.mode};16{low}")
    image.load()
    again.load()
    return _join_bytes(np.array(image), np.array(again))


def _join_bytes(high: np.ndarray, low: np.ndarray) -> np.ndarray:
    return (high.astype(np.uint16) << 8) | low


def raw_mode(image: ImageFile.ImageFile) -> str:
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


def note_orientation(notes: list[str], orientation: int) -> None:
    """Say that the picture was turned, if it was."""
    if orientation in range(2, 9):
        notes.append(f"turned upright (EXIF orientation {orientation})")

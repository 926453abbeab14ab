"""One door for pictures: whatever the source, upright RGB pixels come out, or one `ImageError`.

A picture's numbers never depend on the picture itself: 8-bit values are divided by 255 and 16-bit
values by 65535 (or by the sensor's range, if the caller states it), so that the same grey on two
parts stays the same grey.
"""

from __future__ import annotations

import io
import logging
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    WebPImagePlugin,
)

from zerodefect.images import formats
from zerodefect.images.samples import (
    CONVERT,
    COPY_AGAIN,
    FULL_SCALE,
    ORIENTATION,
    SMALLER,
    FaultError,
    Raw,
    check_size,
    from_pillow,
    from_png,
    from_tiff,
    note_orientation,
    warnings_lock,
)
from zerodefect.types import Failure

MAX_PIXELS = 200_000_000

# Without a handler Python would print these libraries' messages to the terminal.
for _library in ("PIL", "tifffile"):
    logging.getLogger(_library).addHandler(logging.NullHandler())

# The plugin classes are called directly: Image.open would apply Pillow's global pixel limit, and
# would try fifty more formats on whatever it is given.
_PLUGINS: dict[str, type[ImageFile.ImageFile]] = {
    "JPEG": JpegImagePlugin.JpegImageFile,
    "PNG": PngImagePlugin.PngImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "WEBP": WebPImagePlugin.WebPImageFile,
    "GIF": GifImagePlugin.GifImageFile,
}


class InputError(ValueError):
    """Something of the user's that cannot be used.

    Attributes:
        path: as the user named it.
        reason: what is wrong, in words.
        remedy: what the user can do about it; may run over several lines.
    """

    def __init__(self, path: str | Path, reason: str, remedy: str) -> None:
        super().__init__(str(path), reason, remedy)
        self.path, self.reason, self.remedy = str(path), reason, remedy

    def __str__(self) -> str:
        """File, reason, remedy."""
        return str(self.failure)

    @property
    def failure(self) -> Failure:
        """The same as a plain record, for jobs that go on after a bad file."""
        return Failure(self.path, self.reason, self.remedy)


class ImageError(InputError):
    """A picture that cannot be used."""


@dataclass(frozen=True, eq=False)
class Picture:
    """A decoded picture.

    Attributes:
        path: as the user named it; a word in angle brackets for pictures from memory.
        pixels: ``(H, W, 3)`` RGB, upright; uint8 in 0..255, or uint16 in 0..65535 if the source
            has more than 8 bits.
        notes: what the reader should know about the file ("first of 12 frames", ...).
    """

    path: str
    pixels: np.ndarray
    notes: tuple[str, ...] = ()

    @property
    def width(self) -> int:
        """Width in pixels, after turning upright."""
        return int(self.pixels.shape[1])

    @property
    def height(self) -> int:
        """Height in pixels, after turning upright."""
        return int(self.pixels.shape[0])

    def to_tensor(self) -> torch.Tensor:
        """Give the pixels as a float32 tensor ``(3, H, W)`` in [0, 1]."""
        channels_first = np.ascontiguousarray(self.pixels.transpose(2, 0, 1), dtype=np.float32)
        return torch.from_numpy(channels_first).div_(np.iinfo(self.pixels.dtype).max)

    def to_uint8(self) -> np.ndarray:
        """Give the pixels as uint8 ``(H, W, 3)``, 16-bit values rounded to the nearest."""
        if self.pixels.dtype == np.uint8:
            return self.pixels
        # 65535 = 255 * 257
        return ((self.pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)


def open_image(
    source: str | Path | bytes | Image.Image | np.ndarray,
    *,
    name: str | None = None,
    max_pixels: int = MAX_PIXELS,
    bit_depth: int | None = None,
) -> Picture:
    """Open a picture from a file, from memory, or from another library.

    Files: JPEG, PNG, BMP, TIFF, WebP and GIF with 1, 8 or 16 bits (TIFF also float in [0, 1]);
    grey, RGB, palette, CMYK, YCbCr or CIELAB. The content decides, not the file's ending.
    Transparent parts are shown on white. Of several frames or pages the first is taken.

    Args:
        source: path, encoded bytes, Pillow image, or array ``(H, W)``, ``(H, W, 1)``,
            ``(H, W, 3)`` (RGB) or ``(H, W, 4)``: bool, uint8, uint16, or float in [0, 1].
        name: what to call the picture in results and errors, instead of the path.
        max_pixels: larger pictures are refused on their header alone, before memory is claimed.
        bit_depth: bits that the sensor used of a 16-bit file (10, 12, 14): values up to
            ``2**bit_depth - 1`` are spread over the full range. No effect on 8-bit sources.

    Returns:
        The upright RGB picture. 16-bit sources stay 16 bits wide.

    Raises:
        ImageError: for any picture that cannot be read whole; says why and what to do.
        ValueError: if ``bit_depth`` is not in 9..16.
        TypeError: if the source is of another type.
    """
    if not isinstance(source, str | Path | bytes | bytearray | Image.Image | np.ndarray):
        raise TypeError(f"cannot open a picture from {type(source).__name__}")
    if bit_depth is not None and not 9 <= bit_depth <= 16:
        raise ValueError(f"bit_depth must be between 9 and 16, not {bit_depth}")
    label = name if name is not None else _label(source)
    try:
        raw = _read(source, max_pixels)
        return Picture(label, _to_rgb(raw, bit_depth), tuple(raw.notes))
    except FaultError as fault:
        raise ImageError(label, fault.reason, fault.remedy) from None
    except Image.DecompressionBombError:
        raise ImageError(label, "the picture is too large", "Cut it into tiles") from None
    except MemoryError:
        reason = "there is not enough memory to decode it"
        raise ImageError(label, reason, "Cut the picture into tiles") from None
    except Exception as error:
        # Decoders meet damage with anything from struct.error to ZeroDivisionError; only their
        # own errors say something to a reader.
        detail = f" ({_short(error)})" if isinstance(error, OSError | SyntaxError) else ""
        reason = f"it is damaged, or of a rare kind, and cannot be decoded{detail}"
        raise ImageError(label, reason, f"{COPY_AGAIN}, or save it anew as PNG") from error


def picture_size(path: Path) -> tuple[int, int]:
    """Read width and height in pixels, upright, from a file's header where that is enough.

    Raises:
        ImageError: if the file cannot be read.
    """
    try:
        with warnings_lock, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about size and metadata; nothing is decoded here
            with Image.open(path) as image:
                if image.getexif().get(ORIENTATION, 1) in (0, 1):
                    return image.size
    except Exception:
        pass  # the opener knows more formats, and says in words what is wrong
    picture = open_image(path)
    return picture.width, picture.height


def _label(source: object) -> str:
    if isinstance(source, str | Path):
        return str(source)
    if isinstance(source, Image.Image):
        return str(getattr(source, "filename", "") or "<image>")
    return "<bytes>" if isinstance(source, bytes | bytearray) else "<array>"


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:80] or type(error).__name__


def _read(source: str | Path | bytes | Image.Image | np.ndarray, max_pixels: int) -> Raw:
    if isinstance(source, str | Path):
        return _decode(_read_file(Path(source), max_pixels), max_pixels)
    if isinstance(source, bytes | bytearray):
        return _decode(bytes(source), max_pixels)
    if isinstance(source, Image.Image):
        check_size(source.width, source.height, max_pixels)
        return from_pillow(source)
    return _from_array(source, max_pixels)


def _read_file(path: Path, max_pixels: int) -> bytes:
    try:
        if path.is_dir():
            raise _folder_fault(path)
        if path.exists() and not path.is_file():
            raise FaultError("it is not a regular file", "Copy the picture into an ordinary file")
        with path.open("rb") as file:
            head = file.read(formats.HEAD_BYTES)
            _identify(head)  # before a large file of another kind is read
            size = path.stat().st_size
            if size > 8 * max_pixels + 2**24:  # 16-bit RGBA, and room for metadata
                reason = f"the file is too large ({size / 2**30:.1f} GiB)"
                raise FaultError(reason, f"If you trust the file, {SMALLER}")
            return head + file.read()
    except FileNotFoundError:
        raise FaultError("there is no such file", "Check the path and its spelling") from None
    except PermissionError:
        raise FaultError("permission to read it is denied", "Ask for read access to it") from None
    except (OSError, ValueError) as error:
        reason = f"it cannot be read ({_short(error)})"
        raise FaultError(reason, "Check the path and disk") from None


def _folder_fault(path: Path) -> FaultError:
    """Why a folder is no picture, where ``find_images`` lists it among them."""
    from zerodefect.images.find import find_images  # which is built on this file

    try:
        find_images([path])
    except ImageError as error:
        return FaultError(error.reason, error.remedy)
    return FaultError("it is a folder", "Name the pictures in it, or pass it as a folder")


def _identify(head: bytes) -> formats.Format:
    if not head:
        raise FaultError("the file is empty")
    kind = formats.sniff(head[: formats.HEAD_BYTES])
    if kind is None:
        what, is_picture = formats.describe_stranger(head[: formats.HEAD_BYTES])
        if is_picture:
            raise FaultError(f"it is {what}, which is not supported", CONVERT)
        raise FaultError(f"it is not a picture but {what}", "Leave it out, or export it as PNG")
    return kind


def _decode(data: bytes, max_pixels: int) -> Raw:
    kind = _identify(data[: formats.HEAD_BYTES])
    if size := formats.header_size(kind, data):
        check_size(*size, max_pixels)
    structure = formats.examine(kind, data)
    if structure.fault:
        raise FaultError(structure.fault)
    with warnings_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if kind == "TIFF":
            return from_tiff(data, max_pixels)
        image = _PLUGINS[kind](io.BytesIO(data))
        check_size(image.width, image.height, max_pixels)
        if kind == "GIF":  # its frames are composed while loading, which may warn as well
            image.load()
    raw = from_png(image, data) if kind == "PNG" else from_pillow(image)
    frames = int(structure.frames or getattr(image, "n_frames", 1) or 1)
    if frames > 1:
        raw.notes.append(f"first of {frames} frames")
    if structure.late_fault:
        raw.notes.append("the file is damaged or cut off after its first frame")
    return raw


def _from_array(array: np.ndarray, max_pixels: int) -> Raw:
    if array.ndim not in (2, 3) or array.shape[2:] not in ((), (1,), (3,), (4,)):
        reason = f"an array of shape {array.shape} is not a picture"
        raise FaultError(reason, "Pass (height, width) or (height, width, 1, 3 or 4)")
    check_size(array.shape[1], array.shape[0], max_pixels)
    return Raw(array.copy(), [])


def _to_rgb(raw: Raw, bit_depth: int | None) -> np.ndarray:
    """Bring samples to contiguous uint8 or uint16 ``(H, W, 3)``, upright, alpha on white."""
    samples = _to_unsigned(raw)
    samples = samples.reshape(*samples.shape[:2], -1)
    channels = samples.shape[2]
    if not 1 <= channels <= 4:
        raise FaultError(f"its pixels have {channels} values each, which is no picture")
    colours, alpha = samples, None
    if channels in (2, 4):
        colours, alpha = samples[..., :-1], samples[..., -1:]
    if samples.dtype == np.uint16:
        colours = _spread(colours, bit_depth or raw.bits, raw.notes)
    if alpha is not None and alpha.min() < np.iinfo(alpha.dtype).max:
        raw.notes.append("transparent parts are shown on white")
        colours = _on_white(colours, alpha)
    if colours.shape[2] == 1:
        colours = np.repeat(colours, 3, axis=2)
    note_orientation(raw.notes, raw.orientation)
    return np.ascontiguousarray(_turn(colours, raw.orientation))


def _to_unsigned(raw: Raw) -> np.ndarray:
    samples = raw.samples
    if samples.dtype == np.bool_:
        return samples.astype(np.uint8) * np.uint8(255)
    if samples.dtype == np.uint8:
        return samples
    if samples.dtype.kind == "u" and samples.dtype.itemsize == 2:
        return samples.astype(np.uint16)  # this machine's byte order
    if samples.dtype.kind == "f":
        low, high = float(samples.min()), float(samples.max())
        if not (low >= 0 and high <= 1):  # also refuses NaN
            reason = f"its floating-point values run from {low:g} to {high:g}, so white is unknown"
            raise FaultError(reason, "Scale the values to 0..1, or save it with 8 or 16 bits")
        raw.notes.append("floating-point values in [0, 1] stored with 16 bits")
        raw.bits = 16
        return np.rint(samples.astype(np.float64) * FULL_SCALE).astype(np.uint16)
    reason = f"values of type {samples.dtype} are not supported"
    raise FaultError(reason, "Use 8 or 16 bits, unsigned")


def _spread(colours: np.ndarray, bits: int | None, notes: list[str]) -> np.ndarray:
    """Spread the values of a sensor with fewer bits over the 16-bit range."""
    brightest = int(colours.max())
    if bits is None:
        if 0 < brightest < 4096:
            notes.append(
                f"16-bit file whose brightest value is {brightest}: this looks like 12-bit data "
                "and will be very dark; if so, say bit_depth=12"
            )
        return colours
    white = 2**bits - 1
    if brightest > white:
        reason = f"its brightest value {brightest} does not fit in {bits} bits"
        raise FaultError(reason, "State a larger bit depth, or none")
    if white == FULL_SCALE:
        return colours
    scaled = (colours.astype(np.uint32) * FULL_SCALE + white // 2) // white
    return scaled.astype(np.uint16)


def _on_white(colours: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    white = np.iinfo(colours.dtype).max
    result = np.empty_like(colours)
    for top in range(0, len(colours), 256):  # in bands, to keep the wide intermediates small
        band = slice(top, top + 256)
        opacity = alpha[band].astype(np.uint64)
        mixed = colours[band] * opacity + white * (white - opacity)
        result[band] = (mixed + white // 2) // white
    return result


def _turn(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Undo an EXIF orientation (EXIF 2.32, tag 274)."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels

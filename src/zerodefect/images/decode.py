"""One door for pictures: whatever the source, upright RGB pixels come out, or one `ImageError`.

A picture's numbers never depend on the picture itself: 8-bit values are divided by 255 and 16-bit
values by 65535 (or by the sensor's range, if the caller states it), so that the same grey on two
parts stays the same grey.
"""

from __future__ import annotations

import ctypes
import io
import logging
import sys
import threading
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageCms,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from zerodefect.images import formats
from zerodefect.types import Failure

MAX_PIXELS = 200_000_000

_COPY_AGAIN = "Copy the file again from its source"
_CONVERT = "Convert it to PNG or TIFF"
_FULL_SCALE = 65535
_ORIENTATION = 0x0112  # the EXIF and TIFF tag

# Without a handler Python would print these libraries' messages to the terminal.
for _library in ("PIL", "tifffile"):
    logging.getLogger(_library).addHandler(logging.NullHandler())

# The plugin classes are called directly: Image.open would apply Pillow's global pixel limit, and
# would try fifty more formats on whatever it is given.
_PLUGINS: dict[str, type[ImageFile.ImageFile]] = {
    "JPEG": JpegImagePlugin.JpegImageFile,
    "PNG": PngImagePlugin.PngImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
    "WEBP": WebPImagePlugin.WebPImageFile,
    "GIF": GifImagePlugin.GifImageFile,
}

# warnings.catch_warnings changes the process, so only one thread at a time may be inside it.
_warnings_lock = threading.RLock()  # one thread may enter twice, for a TIFF's orientation


class ImageError(ValueError):
    """A picture that cannot be used.

    Attributes:
        path: the picture as the user named it.
        reason: what is wrong, in words.
        remedy: what the user can do about it.
    """

    def __init__(self, path: str, reason: str, remedy: str) -> None:
        super().__init__(path, reason, remedy)
        self.path = path
        self.reason = reason
        self.remedy = remedy

    def __str__(self) -> str:
        """One line: file, reason, remedy."""
        return str(self.failure)

    @property
    def failure(self) -> Failure:
        """The same as a plain record, for jobs that go on after a bad file."""
        return Failure(self.path, self.reason, self.remedy)


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


class _FaultError(Exception):
    """A reason and a remedy on their way to `open_image`, which knows the picture's name."""

    def __init__(self, reason: str, remedy: str = _COPY_AGAIN) -> None:
        super().__init__(reason)
        self.reason = reason
        self.remedy = remedy


@dataclass
class _Raw:
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
        pixels = _to_rgb(raw, bit_depth)
    except _FaultError as fault:
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
        raise ImageError(label, reason, f"{_COPY_AGAIN}, or save it anew as PNG") from error
    return Picture(label, pixels, tuple(raw.notes))


def _label(source: object) -> str:
    if isinstance(source, str | Path):
        return str(source)
    if isinstance(source, Image.Image):
        return str(getattr(source, "filename", "") or "<image>")
    return "<bytes>" if isinstance(source, bytes | bytearray) else "<array>"


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:80] or type(error).__name__


def _read(source: str | Path | bytes | Image.Image | np.ndarray, max_pixels: int) -> _Raw:
    if isinstance(source, str | Path):
        return _decode(_read_file(Path(source), max_pixels), max_pixels)
    if isinstance(source, bytes | bytearray):
        return _decode(bytes(source), max_pixels)
    if isinstance(source, Image.Image):
        _check_size(source.width, source.height, max_pixels)
        return _from_pillow(source)
    return _from_array(source, max_pixels)


def _read_file(path: Path, max_pixels: int) -> bytes:
    try:
        if path.is_dir():
            raise _FaultError("it is a folder", "Name the pictures in it, or pass it as a folder")
        if path.exists() and not path.is_file():
            raise _FaultError("it is not a regular file", "Copy the picture into an ordinary file")
        with path.open("rb") as file:
            head = file.read(formats.HEAD_BYTES)
            _identify(head)  # before a large file of another kind is read
            size = path.stat().st_size
            if size > 8 * max_pixels + 2**24:  # 16-bit RGBA, and room for metadata
                reason = f"the file is too large ({size / 2**30:.1f} GiB)"
                raise _FaultError(reason, "Cut the picture into tiles, or raise max_pixels")
            return head + file.read()
    except FileNotFoundError:
        raise _FaultError("there is no such file", "Check the path and its spelling") from None
    except PermissionError:
        raise _FaultError("permission to read it is denied", "Ask for read access to it") from None
    except (OSError, ValueError) as error:
        raise _FaultError(
            f"it cannot be read ({_short(error)})", "Check the path and disk"
        ) from None


def _identify(head: bytes) -> formats.Format:
    if not head:
        raise _FaultError("the file is empty")
    kind = formats.sniff(head[: formats.HEAD_BYTES])
    if kind is None:
        what, is_picture = formats.describe_stranger(head[: formats.HEAD_BYTES])
        if is_picture:
            raise _FaultError(f"it is {what}, which is not supported", _CONVERT)
        raise _FaultError(f"it is not a picture but {what}", "Leave it out, or export it as PNG")
    return kind


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width < 1 or height < 1:
        raise _FaultError(f"the picture has no pixels ({width} x {height})")
    if width * height > max_pixels:
        reason = (
            f"the picture is too large: {width} x {height} = {width * height / 1e6:,.0f} million "
            f"pixels, the limit is {max_pixels / 1e6:,.0f} million"
        )
        raise _FaultError(reason, "If you trust the file, cut it into tiles or raise max_pixels")


def _decode(data: bytes, max_pixels: int) -> _Raw:
    kind = _identify(data[: formats.HEAD_BYTES])
    size = formats.header_size(kind, data)
    if size:
        _check_size(*size, max_pixels)
    structure = formats.examine(kind, data)
    if structure.fault:
        raise _FaultError(structure.fault)
    if kind == "TIFF":
        with _warnings_lock, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _decode_tiff(data, max_pixels)
    with _warnings_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = _PLUGINS[kind](io.BytesIO(data))
        _check_size(image.width, image.height, max_pixels)
        if kind == "GIF":  # its frames are composed while loading, which may warn as well
            image.load()
    raw = _from_png(image, data) if kind == "PNG" else _from_pillow(image)
    frames = int(structure.frames or getattr(image, "n_frames", 1) or 1)
    if frames > 1:
        raw.notes.append(f"first of {frames} frames")
    if structure.late_fault:
        raw.notes.append("the file is damaged or cut off after its first frame")
    return raw


def _from_pillow(image: Image.Image) -> _Raw:
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
        samples = _integers(np.array(image))
    elif mode == "F":
        samples = np.array(image)
    else:
        raise _FaultError(f"its colour mode {mode} is not supported", _CONVERT)
    return _Raw(samples, notes, orientation)


def _orientation(image: Image.Image) -> int:
    try:
        with _warnings_lock, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # damaged metadata is no reason to lose a whole picture
        return 1
    return value if value in range(1, 9) else 1


def _lab_to_rgb(image: Image.Image) -> np.ndarray:
    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
    assert converted is not None  # None is only for conversion in place
    return np.array(converted)


def _integers(samples: np.ndarray) -> np.ndarray:
    """Accept Pillow's 32-bit mode where the values are 16-bit ones."""
    if samples.min() < 0 or samples.max() > _FULL_SCALE:
        reason = f"its integers run from {samples.min()} to {samples.max()}, so white is unknown"
        raise _FaultError(reason, "Save it with 8 or 16 bits, unsigned")
    return samples.astype(np.uint16)


def _add_key_alpha(samples: np.ndarray, info: dict[Any, Any]) -> np.ndarray:
    """Make the one transparent colour of a 16-bit PNG, if it names one, an alpha channel."""
    if "transparency" not in info:
        return samples
    colours = samples.reshape(*samples.shape[:2], -1)
    opaque = (colours != np.array(info["transparency"])).any(axis=2, keepdims=True)
    return np.concatenate([colours, opaque.astype(np.uint16) * _FULL_SCALE], axis=2)


def _from_png(image: ImageFile.ImageFile, data: bytes) -> _Raw:
    """Read a PNG; 16-bit colour, which Pillow would cut to 8 bits, keeps its precision."""
    rawmode = _raw_mode(image)
    if rawmode == "LA;16B":
        # Grey and alpha with 16 bits each have the layout of four 8-bit channels.
        _set_raw_mode(image, "RGBA")
        image.load()
        high_low = np.array(image)
        samples = _join_bytes(high_low[..., 0::2], high_low[..., 1::2])
        return _Raw(samples, [], _orientation(image))
    if rawmode not in {"RGB;16B", "RGBA;16B"}:
        return _from_pillow(image)
    samples = _two_passes(image, PngImagePlugin.PngImageFile(io.BytesIO(data)), "B", "L")
    return _Raw(_add_key_alpha(samples, image.info), [], _orientation(image))


def _two_passes(
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


def _raw_mode(image: ImageFile.ImageFile) -> str:
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


def _decode_tiff(data: bytes, max_pixels: int) -> _Raw:
    """Read the first page; with Pillow, or where it cannot or would lose bits, with tifffile."""
    _silence_libtiff()
    try:
        image = TiffImagePlugin.TiffImageFile(io.BytesIO(data))
    except (SyntaxError, KeyError, OSError):  # a layout that Pillow does not know, or damage
        return _decode_with_tifffile(data, max_pixels)
    _check_size(image.width, image.height, max_pixels)
    tags = image.tag_v2
    fault = formats.segments_fault(*_tiff_segments(tags), len(data))
    if fault:
        raise _FaultError(fault)
    bits = tuple(tags.get(TiffImagePlugin.BITSPERSAMPLE, (1,)))
    if len(bits) > 1 and max(bits) > 8 and tags.get(TiffImagePlugin.PLANAR_CONFIGURATION) == 2:
        return _decode_with_tifffile(data, max_pixels)
    orientation, rawmode = tags.get(_ORIENTATION, 1), _raw_mode(image)
    _claim_memory(image)
    if rawmode in {f"{image.mode};16{order}" for order in "BLN"} and image.mode in {"RGB", "RGBA"}:
        raw = _Raw(_two_tiff_passes(image, data, rawmode[-1]), [])
    else:
        raw = _from_pillow(image)
        if max(bits) == 16 and raw.samples.dtype == np.uint8:
            raw.notes.append("16 bits per channel reduced to 8")
    if bits == (16,) and tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0:
        raw.samples = _FULL_SCALE - raw.samples  # white is zero; Pillow sees to it for 8 bits
    if bits == (12,):
        raw.bits = 12
    # Pillow has already turned the TIFF upright.
    raw.orientation = 1
    _note_orientation(raw.notes, orientation)
    pages = _count_pages(image)
    if pages != 1:
        raw.notes.append(f"first of {pages or 'several'} frames")
    return raw


def _claim_memory(image: TiffImagePlugin.TiffImageFile) -> None:
    """Allocate as Pillow's loader would, which would also apply its global pixel limit."""
    image.im = Image.core.new(image.mode, getattr(image, "_tile_size", image.size))


def _two_tiff_passes(image: TiffImagePlugin.TiffImageFile, data: bytes, order: str) -> np.ndarray:
    again = TiffImagePlugin.TiffImageFile(io.BytesIO(data))
    _claim_memory(again)
    if order == "N":  # libtiff has already brought the samples to this machine's order
        order = "L" if sys.byteorder == "little" else "B"
    return _two_passes(image, again, order, "B" if order == "L" else "L")


def _tiff_segments(tags: Any) -> tuple[list[int], list[int], int]:
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


def _decode_with_tifffile(data: bytes, max_pixels: int) -> _Raw:
    import tifffile

    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page: Any = file.pages[0]
        _check_size(page.imagewidth, page.imagelength, max_pixels)
        if page.is_tiled:  # one tile can be larger than the picture
            _check_size(page.tilewidth, page.tilelength, max_pixels)
        fault = formats.segments_fault(page.dataoffsets, page.databytecounts, 1, len(data))
        if fault:
            raise _FaultError(fault)
        if page.photometric not in (0, 1, 2) or page.samplesperpixel > 4 or page.imagedepth > 1:
            raise _FaultError("this kind of TIFF is not supported", _CONVERT)
        try:
            samples = page.asarray(maxworkers=1)
        except (KeyError, ImportError):  # tifffile's words for a compression it cannot read
            raise _FaultError("its TIFF compression is not supported", _CONVERT) from None
        if page.planarconfig == 2 and samples.ndim == 3:
            samples = np.moveaxis(samples, 0, 2)
        if samples.shape[:2] != (page.imagelength, page.imagewidth):
            raise _FaultError("its header contradicts itself")
        if page.photometric == 0 and samples.dtype.kind == "u":
            samples = np.iinfo(samples.dtype).max - samples
        orientation = page.tags.valueof(_ORIENTATION, 1)
        pages = len(file.pages)
    if samples.dtype.kind in "iu" and samples.dtype.itemsize > 1 and samples.dtype != np.uint16:
        samples = _integers(samples)
    notes = [f"first of {pages} frames"] if pages > 1 else []
    return _Raw(samples, notes, orientation if orientation in range(1, 9) else 1)


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


def _from_array(array: np.ndarray, max_pixels: int) -> _Raw:
    fits = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (1, 3, 4))
    if not fits:
        reason = f"an array of shape {array.shape} is not a picture"
        raise _FaultError(reason, "Pass (height, width) or (height, width, 1, 3 or 4)")
    _check_size(array.shape[1], array.shape[0], max_pixels)
    return _Raw(array.copy(), [])


def _to_rgb(raw: _Raw, bit_depth: int | None) -> np.ndarray:
    """Bring samples to contiguous uint8 or uint16 ``(H, W, 3)``, upright, alpha on white."""
    samples = _to_unsigned(raw)
    samples = samples.reshape(*samples.shape[:2], -1)
    channels = samples.shape[2]
    if not 1 <= channels <= 4:
        raise _FaultError(f"its pixels have {channels} values each, which is no picture")
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
    _note_orientation(raw.notes, raw.orientation)
    return np.ascontiguousarray(_turn(colours, raw.orientation))


def _to_unsigned(raw: _Raw) -> np.ndarray:
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
            raise _FaultError(reason, "Scale the values to 0..1, or save it with 8 or 16 bits")
        raw.notes.append("floating-point values in [0, 1] stored with 16 bits")
        raw.bits = 16
        return np.rint(samples.astype(np.float64) * _FULL_SCALE).astype(np.uint16)
    raise _FaultError(
        f"values of type {samples.dtype} are not supported", "Use 8 or 16 bits, unsigned"
    )


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
        raise _FaultError(reason, "State a larger bit depth, or none")
    if white == _FULL_SCALE:
        return colours
    scaled = (colours.astype(np.uint32) * _FULL_SCALE + white // 2) // white
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


def _note_orientation(notes: list[str], orientation: int) -> None:
    if orientation in range(2, 9):
        notes.append(f"turned upright (EXIF orientation {orientation})")


def _turn(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Undo an EXIF orientation (EXIF 2.32, tag 274)."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels

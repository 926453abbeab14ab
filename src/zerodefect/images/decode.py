"""One door for pictures: whatever the source, upright RGB pixels come out, or one `ImageError`.

A picture's numbers never depend on the picture itself: 8-bit values are divided by 255 and 16-bit
values by 65535 (or by the sensor's range, if the caller states it), so that the same grey on two
parts stays the same grey.
"""

from __future__ import annotations

import io
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import torch
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TgaImagePlugin,
    WebPImagePlugin,
)

from zerodefect.images import formats
from zerodefect.images.arrays import from_array
from zerodefect.images.depth import HIGHEST, LOWEST, BitDepth, infer_bit_depth, some_of
from zerodefect.images.netpbm import from_netpbm
from zerodefect.images.pixels import split_alpha, to_rgb, to_unsigned
from zerodefect.images.samples import (
    CONVERT,
    COPY_AGAIN,
    ORIENTATION,
    SMALLER,
    FaultError,
    Raw,
    check_size,
    from_pillow,
    from_png,
    warnings_lock,
)
from zerodefect.images.tiff import from_tiff
from zerodefect.images.tiff_tags import is_reduced, stored_bits
from zerodefect.types import Failure

if TYPE_CHECKING:
    from zerodefect.images.clouds import Cloud

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
    "TGA": TgaImagePlugin.TgaImageFile,
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


Encoded = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO


@dataclass(frozen=True, eq=False)
class Picture:
    """A decoded picture.

    Attributes:
        path: as the user named it; a word in angle brackets for pictures from memory.
        pixels: ``(H, W, 3)`` RGB, upright; uint8 in 0..255, or uint16 in 0..65535 if the source
            has more than 8 bits.
        notes: what the reader should know about the file ("first of 12 frames", ...).
        cloud: points of the same part, one for each pixel, where a camera of depth took them.
        colourless: whether the pixels are nothing but a view of the cloud.
    """

    path: str
    pixels: np.ndarray
    notes: tuple[str, ...] = ()
    cloud: Cloud | None = field(default=None, kw_only=True)
    colourless: bool = field(default=False, kw_only=True)

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
    source: Encoded | Image.Image | np.ndarray | torch.Tensor,
    *,
    name: str | None = None,
    max_pixels: int = MAX_PIXELS,
    bit_depth: int | None = None,
) -> Picture:
    """Open a picture from a file, from memory, or from another library.

    Files: JPEG, PNG, BMP, TIFF, WebP, GIF, Netpbm (PBM, PGM, PPM) and TGA with 1 to 16 bits (TIFF
    also float in [0, 1]); grey, RGB, palette, CMYK, YCbCr or CIELAB. The content decides, not the
    file's ending. Transparent parts are shown on white. Of several frames or pages the first is
    taken that is not a thumbnail.

    Args:
        source: path, encoded bytes, file open for reading bytes, Pillow image, or array or tensor
            ``(H, W)``, ``(H, W, 1)``, ``(H, W, 3)`` (RGB) or ``(H, W, 4)``, or with the channels
            first where only that makes sense: bool, uint8, uint16, or float in [0, 1].
        name: what to call the picture in results and errors, instead of the path.
        max_pixels: larger pictures are refused on their header alone, before memory is claimed.
        bit_depth: bits that the sensor used of a 16-bit file (8 to 16): values up to
            ``2**bit_depth - 1`` are spread over the full range, single hot pixels above become
            white. No effect on 8-bit sources, and where the file itself says it.

    Returns:
        The upright RGB picture. 16-bit sources stay 16 bits wide.

    Raises:
        ImageError: for any picture that cannot be read whole; says why and what to do.
        ValueError: if ``bit_depth`` is not in 8..16.
        TypeError: if the source is of another type.
    """
    if bit_depth is not None and not LOWEST <= bit_depth <= HIGHEST:
        raise ValueError(f"bit_depth must be between {LOWEST} and {HIGHEST}, not {bit_depth}")
    with _told(source, name) as label:
        raw = _read(source, max_pixels)
        return Picture(label, to_rgb(raw, bit_depth), tuple(raw.notes))


def bit_depth_of(sources: Sequence[Any]) -> BitDepth | None:
    """Infer how many bits the 16-bit pictures among these use together, all of one camera.

    Of many, some that are spread evenly over all are looked at; 8-bit files are not decoded.

    Args:
        sources: as ``open_image`` takes them; what cannot be read, or says itself how many of its
            bits count, is passed over.

    Returns:
        What was found, or None where there are no such pictures.
    """
    return infer_bit_depth(v for v in map(_wide_values, some_of(sources)) if v is not None)


def _wide_values(source: Any) -> np.ndarray | None:
    """The stored 16-bit values ``(H, W, 1 or 3)`` of a picture that does not say what is white."""
    try:
        if not _may_be_wide(source):
            return None
        with _told(source, None):
            raw = _read(source, MAX_PIXELS)
            wide = raw.samples.dtype.kind == "u" and raw.samples.dtype.itemsize == 2
            return split_alpha(to_unsigned(raw))[0] if wide and raw.bits is None else None
    except Exception:  # whatever damage does; it is told when the picture is opened
        return None


def _may_be_wide(source: Any) -> bool:
    """Whether it can have 16-bit values, as far as that is seen without decoding."""
    if isinstance(source, np.ndarray | torch.Tensor):
        return "uint16" in str(source.dtype)
    if isinstance(source, Image.Image):
        data = _stored_bytes(source)
        return source.mode.startswith("I") if data is None else _may_be_wide(data)
    if isinstance(source, bytes | bytearray | memoryview):
        return _head_may_be_wide(io.BytesIO(source))
    if not isinstance(source, str | os.PathLike):
        return bool(source.seekable()) and _head_may_be_wide(source)  # else it is read once only
    if not Path(source).is_file():
        return False
    with Path(source).open("rb") as file:
        return _head_may_be_wide(file)


def _head_may_be_wide(file: Any) -> bool:
    file.seek(0)
    head = file.read(formats.HEAD_BYTES)
    kind = formats.sniff(head)
    if kind == "TIFF":
        return stored_bits(file) > 8
    return kind == "NETPBM" or (kind == "PNG" and head[24:25] == b"\x10")


@contextmanager
def _told(source: Any, name: str | None) -> Iterator[str]:
    """Give the picture's name, and have whatever goes wrong told under it."""
    if not is_source(source):
        raise TypeError(
            f"cannot open a picture from {type(source).__name__}. Pass a path, bytes, an open "
            "file, a Pillow image, a tensor, or an array (of a list: numpy.asarray)"
        )
    label = name if name is not None else _label(source)
    try:
        yield label
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


def is_source(thing: Any) -> bool:
    """Whether it is one picture for ``open_image``, as against a list or folder of several."""
    memory = bytes | bytearray | memoryview | Image.Image | np.ndarray | torch.Tensor
    return isinstance(thing, str | os.PathLike | memory) or hasattr(thing, "read")


def picture_size(path: Path) -> tuple[int, int]:
    """Read width and height in pixels, upright, from a file's header where that is enough.

    Raises:
        ImageError: if the file cannot be read.
    """
    try:
        with warnings_lock, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about size and metadata; nothing is decoded here
            with Image.open(path) as image:
                tags = getattr(image, "tag_v2", {})  # only the first page of a TIFF is looked at
                reduced = is_reduced(tags.get(254, 0), tags.get(255, 0))
                if not reduced and image.getexif().get(ORIENTATION, 1) in (0, 1):
                    return image.size
    except Exception:
        pass  # the opener knows more formats, and says in words what is wrong
    picture = open_image(path)
    return picture.width, picture.height


def _label(source: object) -> str:
    if isinstance(source, str | os.PathLike):
        return str(source)
    if isinstance(source, Image.Image):
        return str(getattr(source, "filename", "") or "<image>")
    if isinstance(source, bytes | bytearray | memoryview):
        return "<bytes>"
    name = getattr(source, "name", None)
    return "<array>" if not hasattr(source, "read") else str(name) if name else "<file>"


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:80] or type(error).__name__


def _read(source: Any, max_pixels: int) -> Raw:
    if isinstance(source, str | os.PathLike):
        return _decode(_read_file(Path(source), max_pixels), max_pixels)
    if isinstance(source, bytes | bytearray | memoryview):
        return _decode(bytes(source), max_pixels)
    if isinstance(source, Image.Image):
        check_size(source.width, source.height, max_pixels)
        stored = _stored_bytes(source)
        return from_pillow(source) if stored is None else _decode(stored, max_pixels)
    if hasattr(source, "read"):
        return _decode(_read_open(source, max_pixels), max_pixels)
    return from_array(source, max_pixels)


def _stored_bytes(image: Image.Image) -> bytes | None:
    """The file of a Pillow image that has just been opened, which may have more bits than it."""
    file = getattr(image, "fp", None)
    if file is None or not getattr(image, "tile", None):  # it is loaded, and may be changed
        return None
    if image.tell() or getattr(image, "decoderconfig", None):  # a later frame, a draft
        return None
    place = file.tell()
    file.seek(0)
    data = bytes(file.read())
    file.seek(place)
    return data if formats.sniff(data[: formats.HEAD_BYTES]) else None


def _read_open(file: Any, max_pixels: int) -> bytes:
    if getattr(file, "seekable", lambda: False)():
        file.seek(0)
    data = file.read(_most_bytes(max_pixels) + 1)
    if isinstance(data, str):
        raise FaultError("the file is open as text", "Open it with mode 'rb'")
    _check_length(len(data), max_pixels)
    return bytes(data)


def _most_bytes(max_pixels: int) -> int:
    return 8 * max_pixels + 2**24  # 16-bit RGBA, and room for metadata


def _check_length(size: int, max_pixels: int) -> None:
    if size > _most_bytes(max_pixels):
        reason = f"the file is too large ({size / 2**30:.1f} GiB)"
        raise FaultError(reason, f"If you trust the file, {SMALLER}")


def _read_file(path: Path, max_pixels: int) -> bytes:
    try:
        if path.is_dir():
            raise _folder_fault(path)
        if path.exists() and not path.is_file():
            raise FaultError("it is not a regular file", "Copy the picture into an ordinary file")
        with path.open("rb") as file:
            head = file.read(formats.HEAD_BYTES)
            _identify(head)  # before a large file of another kind is read
            _check_length(path.stat().st_size, max_pixels)
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
        what, package = formats.describe_stranger(head[: formats.HEAD_BYTES])
        if package:
            raise _unsupported(what, package)
        raise FaultError(f"it is not a picture but {what}", "Leave it out, or export it as PNG")
    return kind


def _unsupported(what: str, package: str) -> FaultError:
    remedy = f"{CONVERT}, for instance with the Python package {package}"
    return FaultError(f"it is {what}, which is not supported", remedy)


def _decode(data: bytes, max_pixels: int) -> Raw:
    kind = _identify(data[: formats.HEAD_BYTES])
    if kind == "JPEG" and (what := formats.rare_jpeg(data)):
        raise _unsupported(what, "imagecodecs")
    if size := formats.header_size(kind, data):
        check_size(*size, max_pixels)
    structure = formats.examine(kind, data)
    if structure.fault:
        raise FaultError(structure.fault)
    if kind == "NETPBM":
        return from_netpbm(data, max_pixels)
    if kind == "PNG":
        data = formats.plain_png(data)
    with warnings_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if kind == "TIFF":
            return from_tiff(data, max_pixels)
        image = _PLUGINS[kind](io.BytesIO(data))
        check_size(image.width, image.height, max_pixels)
        if kind == "GIF":  # its frames are composed while loading, which may warn as well
            image.load()
    raw = from_png(image, data) if kind == "PNG" else from_pillow(image)
    if kind == "TGA" and raw.samples.shape[2:] == (4,) and not data[17] & 15:
        raw.samples = raw.samples[..., :3]  # the fourth byte is said to be unused
    frames = int(structure.frames or getattr(image, "n_frames", 1) or 1)
    if frames > 1:
        raw.notes.append(f"first of {frames} frames")
    if structure.late_fault:
        raw.notes.append("the file is damaged or cut off after its first frame")
    return raw

"""TIFF files as samples: strips and tiles, and what their values mean.

Strips and tiles are put together here, so that planes, extra
channels, any number of bits and inverted or palette values come out the same whatever the
compression; Pillow's libtiff only undoes compressions, and reads JPEG and fax pages whole.
"""

from __future__ import annotations

import ctypes
import importlib.util
import io
import lzma
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from PIL import Image, TiffImagePlugin

from zerodefect.images import formats
from zerodefect.images.samples import (
    CONVERT,
    FaultError,
    Raw,
    check_size,
    from_pillow,
    note_orientation,
    sixteen_bits,
)
from zerodefect.images.tiff_tags import BY_LIBTIFF, CONTRADICTION, Layout, find_page

_WHOLE = {2, 3, 4, 6, 7}  # fax and JPEG: read by Pillow as a page
_COLOURS = {0: 1, 1: 1, 2: 3, 3: 1, 5: 4, 6: 3, 8: 3}  # channels of each photometric kind
_WHITE_IS_ZERO, _PALETTE, _CMYK, _YCBCR, _MOSAIC = 0, 3, 5, 6, 32803
_MODES = {5: "CMYK", 6: "YCbCr", 8: "LAB"}  # Pillow's, for kinds that it converts to RGB
_MIRRORED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
_BAND = 256  # rows that are unpacked bit by bit at once


def from_tiff(data: bytes, max_pixels: int) -> Raw:
    """Read the first picture of full size.

    Raises:
        FaultError: it is damaged or of a kind that cannot be read.
    """
    with _page_of(data, max_pixels) as (page, layout, notes):
        if layout.compression in _WHOLE:
            raw = _by_pillow(data, page, layout)
        else:
            raw = _meaning(_as_stored(data, page, layout), layout)
        raw.notes[:0] = notes
        return raw


def stored_samples(data: bytes, max_pixels: int) -> tuple[np.ndarray, list[str]]:
    """The samples ``(H, W, C)`` of the first page of full size as they are, not as colours.

    Returns:
        Samples of any type, in this machine's byte order, and notes on the file.

    Raises:
        FaultError: it is damaged or of a kind that cannot be read.
    """
    with _page_of(data, max_pixels) as (page, layout, notes):
        if layout.compression in _WHOLE:
            raise FaultError("its compression is one of pictures", CONVERT)
        return _as_stored(data, page, layout), notes


@contextmanager
def _page_of(data: bytes, max_pixels: int) -> Iterator[tuple[Any, Layout, list[str]]]:
    """The page, its layout and notes, once sizes are checked and no part is missing."""
    import tifffile

    _silence_libtiff()
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page, notes = find_page(file)
        layout = Layout.of(page, file.byteorder)
        check_size(layout.width, layout.height, max_pixels)
        check_size(layout.piece[1], layout.piece[0], max_pixels)  # one tile may be the larger
        where = layout.offsets, layout.counts, layout.pieces
        if fault := formats.segments_fault(*where, len(data)):
            raise FaultError(fault)
        yield page, layout, notes


def _as_stored(data: bytes, page: Any, layout: Layout) -> np.ndarray:
    if layout.knows_compression:
        return _put_together(data, layout)
    return _by_codec(page, layout)


# --- strips and tiles ------------------------------------------------------------------------


def _put_together(data: bytes, layout: Layout) -> np.ndarray:
    """The stored samples ``(H, W, C)``, in this machine's byte order."""
    inside = 1 if layout.planar else layout.channels
    (down, across), (height, width) = layout.grid, layout.piece
    tiled = width != layout.width or len(layout.offsets) != down * (layout.channels // inside)
    whole: np.ndarray | None = None
    for number in range(layout.pieces):
        plane, place = divmod(number, down * across)
        top, left = place // across * height, place % across * width
        rows = height if tiled or across > 1 else min(height, layout.height - top)
        at, count = layout.offsets[number], layout.counts[number]
        piece = _decoded(data[at : at + count], layout, (rows, width, inside))
        if whole is None:
            shape = layout.height, layout.width, layout.channels
            whole = np.zeros(shape, piece.dtype)
        seen = piece[: layout.height - top, : layout.width - left]
        channels = slice(plane, plane + 1) if layout.planar else slice(None)
        whole[top : top + height, left : left + width, channels] = seen
    assert whole is not None
    return whole


def _decoded(packed: bytes, layout: Layout, shape: tuple[int, int, int]) -> np.ndarray:
    """Samples of one strip or tile."""
    rows, width, channels = shape
    across = -(-width * channels * layout.bits // 8)  # every row begins with a byte of its own
    if layout.mirrored:
        packed = packed.translate(_MIRRORED)
    flat = _uncompressed(packed, layout.compression, rows * across)
    if len(flat) < rows * across:
        raise FaultError(formats.DAMAGED + ": a part of the picture is too short")
    lines = np.frombuffer(flat, np.uint8, rows * across).reshape(rows, across)
    if layout.predictor == 3:
        return _float_differences(lines, shape, layout)
    values = _values(lines, width * channels, layout).reshape(shape)
    if layout.predictor == 2:
        if values.dtype.kind != "u":
            values = values.view(f"u{values.itemsize}")
            return np.cumsum(values, 1, values.dtype).view(f"f{values.itemsize}")
        return np.cumsum(values, axis=1, dtype=values.dtype)
    if layout.predictor != 1:
        raise FaultError("its TIFF predictor is not supported", CONVERT)
    return values


def _uncompressed(packed: bytes, compression: int, need: int) -> bytes:
    """At most ``need`` bytes."""
    if compression == 1:
        return packed
    try:
        if compression in BY_LIBTIFF:
            return _by_libtiff(packed, compression, need)
        if compression == 34925:
            return lzma.LZMADecompressor().decompress(packed, need)
        return zlib.decompressobj().decompress(packed, need)
    except (zlib.error, lzma.LZMAError, OSError) as error:
        raise FaultError(formats.DAMAGED + f": a part does not unpack ({error})") from None


def _by_libtiff(packed: bytes, compression: int, need: int) -> bytes:
    """Have the compression undone as if the bytes were one line of an 8-bit grey picture."""
    tags = {256: need, 257: 1, 258: 8, 259: compression, 262: 1, 273: 0, 277: 1, 278: 1, 279: 0}
    tags |= {273: 8 + 2 + 12 * len(tags) + 4, 279: len(packed)}
    directory = struct.pack("<H", len(tags))
    directory += b"".join(struct.pack("<HHII", code, 4, 1, tags[code]) for code in sorted(tags))
    image = TiffImagePlugin.TiffImageFile(
        io.BytesIO(b"II*\0" + struct.pack("<I", 8) + directory + bytes(4) + packed)
    )
    _claim_memory(image)
    image.load()
    return image.tobytes()


def _values(lines: np.ndarray, count: int, layout: Layout) -> np.ndarray:
    """``(rows, count)`` samples from rows of bytes."""
    bits, numbers = layout.bits, layout.numbers
    if bits in (8, 16, 32, 64) and (numbers in (1, 2) or (numbers == 3 and bits > 8)):
        stored = np.dtype(f"{layout.order}{' uif'[numbers]}{bits // 8}")
        return lines.view(stored).astype(stored.newbyteorder("="), copy=False)
    if numbers != 1 or not 1 <= bits <= 16:
        raise FaultError(f"samples of {bits} bits of this kind are not supported", CONVERT)
    values = np.zeros((len(lines), count), np.uint8 if bits < 8 else np.uint16)
    for top in range(0, len(lines), _BAND):
        single = np.unpackbits(lines[top : top + _BAND], axis=1)[:, : count * bits]
        band, single = values[top : top + _BAND], single.reshape(-1, count, bits)
        for bit in range(bits):
            band <<= 1
            band |= single[..., bit]
    return values


def _float_differences(
    lines: np.ndarray, shape: tuple[int, int, int], layout: Layout
) -> np.ndarray:
    """Undo predictor 3 (TIFF technical note 3): differences of bytes, the highest bytes first."""
    rows, _, channels = shape
    if layout.numbers != 3 or layout.bits not in (16, 32, 64):
        raise FaultError(CONTRADICTION)
    size = layout.bits // 8
    sums = np.cumsum(lines.reshape(rows, -1, channels), axis=1, dtype=np.uint8)
    together = np.ascontiguousarray(sums.reshape(rows, size, -1).transpose(0, 2, 1))
    return together.view(f">f{size}").astype(f"f{size}").reshape(shape)


# --- other decoders --------------------------------------------------------------------------


def _by_pillow(data: bytes, page: Any, layout: Layout) -> Raw:
    """Have Pillow read a page of which a whole codec is needed."""
    fits = layout.bits == (1 if layout.compression < 6 else 8) and layout.channels in (1, 3, 4)
    if not fits or (layout.channels == 4 and layout.photometric != _CMYK):
        return _meaning(_by_codec(page, layout), layout)
    big = data[2] in b"+" or data[3] in b"+"
    place, form = (8, "Q") if big else (4, "I")
    header = bytearray(data[: place + struct.calcsize(form)])
    struct.pack_into(layout.order + form, header, place, page.offset)  # the page is the first now
    image = TiffImagePlugin.TiffImageFile(io.BytesIO(bytes(header) + data[len(header) :]))
    _claim_memory(image)
    raw = from_pillow(image)
    raw.orientation = 1  # Pillow has already turned the TIFF upright
    note_orientation(raw.notes, layout.orientation)
    return raw


def _by_codec(page: Any, layout: Layout) -> np.ndarray:
    """Have tifffile read a page, for which it takes the codecs of another package."""
    name = getattr(page.compression, "name", str(page.compression))
    if layout.photometric not in (0, 1, 2):
        raise FaultError(f"this kind of TIFF with {name} compression is not supported", CONVERT)
    if importlib.util.find_spec("imagecodecs") is None:
        reason = f"its TIFF compression {name} needs a codec that is not installed"
        raise FaultError(reason, "Run 'pip install imagecodecs', or save it with LZW compression")
    samples = page.asarray(maxworkers=1)
    if layout.planar and samples.ndim == 3:
        samples = np.moveaxis(samples, 0, 2)
    if samples.shape[:2] != (layout.height, layout.width) or samples.ndim > 3:
        raise FaultError(CONTRADICTION)
    return samples.reshape(layout.height, layout.width, -1)


def _claim_memory(image: TiffImagePlugin.TiffImageFile) -> None:
    """Allocate as Pillow's loader would, which would also apply its global pixel limit."""
    image.im = Image.core.new(image.mode, getattr(image, "_tile_size", image.size))


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


# --- what the samples mean -------------------------------------------------------------------


def _meaning(samples: np.ndarray, layout: Layout) -> Raw:
    """Stored samples ``(H, W, C)`` as colours, and alpha where there is any."""
    kind, notes = layout.photometric, list[str]()
    if kind == _MOSAIC:
        reason = "it holds a camera's raw mosaic, in which each pixel has one colour only"
        raise FaultError(reason, "Develop it with the camera's software and export TIFF or PNG")
    if kind not in _COLOURS:
        raise FaultError("this kind of TIFF is not supported", CONVERT)
    colours = _COLOURS[kind]
    if samples.shape[2] < colours or len(layout.extra) > samples.shape[2] - colours:
        raise FaultError(CONTRADICTION)
    if samples.dtype.kind == "i":
        reason = f"its values are signed ({samples.dtype}), so white is unknown"
        raise FaultError(reason, "Save it with 8 or 16 bits, unsigned")
    if samples.dtype.kind == "u" and samples.dtype.itemsize > 2:
        samples = sixteen_bits(samples)
    if kind != _PALETTE and layout.bits < 8:
        samples = _eight_bits(samples, layout.bits)
    seen, alpha = samples[..., :colours], _alpha(samples, colours, layout, notes)
    if kind == _PALETTE:
        seen = _looked_up(seen[..., 0], layout)
    elif kind in _MODES:
        seen = _converted(seen, layout, notes)
    bits = layout.bits if 8 < layout.bits < 16 else None
    if alpha is not None:
        seen = np.concatenate([seen, alpha], axis=2)
    return Raw(seen, notes, layout.orientation, bits, inverted=kind == _WHITE_IS_ZERO)


def _eight_bits(samples: np.ndarray, bits: int) -> np.ndarray:
    white = 2**bits - 1
    return ((samples.astype(np.uint16) * 255 + white // 2) // white).astype(np.uint8)


def _alpha(
    samples: np.ndarray, colours: int, layout: Layout, notes: list[str]
) -> np.ndarray | None:
    """The alpha channel ``(H, W, 1)``; colours that were multiplied by it are divided, in place.

    A channel beyond the colours that is not said to be alpha may be anything: infrared, depth.
    """
    further = samples.shape[2] - colours
    kinds = layout.extra[:further]
    place = next((number for number, kind in enumerate(kinds) if kind in (1, 2)), None)
    left_out = further - (place is not None)
    if left_out:
        notes.append(f"{left_out} further channel{'s' * (left_out > 1)} left out")
    if place is None or layout.photometric == _PALETTE:
        return None
    alpha = samples[..., colours + place : colours + place + 1]
    if kinds[place] == 1 and samples.dtype.kind == "u":
        white, divisor = np.iinfo(samples.dtype).max, alpha.astype(np.uint64)
        seen = samples[..., :colours]
        plain = np.minimum(
            (seen * np.uint64(white) + divisor // 2) // np.maximum(divisor, 1), white
        )
        samples[..., :colours] = np.where(divisor > 0, plain, seen)
    return alpha


def _converted(seen: np.ndarray, layout: Layout, notes: list[str]) -> np.ndarray:
    """8-bit CMYK, YCbCr or CIELAB to RGB, by Pillow."""
    plain = layout.photometric != _YCBCR or set(layout.subsampling) == {1}
    if seen.dtype != np.uint8 or not plain:
        raise FaultError("its colours are stored in a way that is not supported", CONVERT)
    size = layout.width, layout.height
    image = Image.frombytes(_MODES[layout.photometric], size, np.ascontiguousarray(seen).tobytes())
    raw = from_pillow(image)
    notes += raw.notes
    return raw.samples


def _looked_up(indices: np.ndarray, layout: Layout) -> np.ndarray:
    """Colours of a palette ``(H, W, 3)``, which some programs fill with 8-bit values."""
    if indices.dtype != np.uint8 or len(layout.palette) != 3 * 2**layout.bits:
        raise FaultError("its palette does not fit its values", CONVERT)
    palette = np.array(layout.palette, np.uint16).reshape(3, -1).T
    return (palette if palette.max() < 256 else palette >> 8).astype(np.uint8)[indices]

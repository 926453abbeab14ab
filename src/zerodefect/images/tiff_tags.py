"""Tags of TIFF files (by their numbers in TIFF 6.0): which page is the picture, and its layout."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from zerodefect.images import formats
from zerodefect.images.samples import CONVERT, ORIENTATION, FaultError

if TYPE_CHECKING:
    import tifffile

UNPACKED = {1, 8, 32946, 34925}  # none, Deflate, LZMA
BY_LIBTIFF = {5, 32773, 50000}  # LZW, PackBits, Zstandard
_UNREAD = formats.DAMAGED + ": a tag of its header cannot be read"
CONTRADICTION = "its header contradicts itself"
_OFFSETS, _COUNTS = (273, 324), (279, 325)  # of strips, of tiles
_DECISIVE = {254, 255, 256, 257, 258, 259, 262, 266, ORIENTATION, 277, 278, 284, 317, 320, 322, 323}
_DECISIVE |= {*_OFFSETS, *_COUNTS, 338, 339, 530}


def stored_bits(opened: BinaryIO) -> int:
    """Bits per sample of the first picture of full size.

    Raises:
        Exception: of any kind, if the file is damaged.
    """
    import tifffile

    opened.seek(0)
    with tifffile.TiffFile(opened) as file:
        return Layout.of(find_page(file)[0], file.byteorder).bits


def stored_channels(opened: BinaryIO) -> tuple[int, str]:
    """Channels of the first picture of full size, and what their numbers are.

    Raises:
        Exception: of any kind, if the file is damaged.
    """
    import tifffile

    opened.seek(0)
    with tifffile.TiffFile(opened) as file:
        layout = Layout.of(find_page(file)[0], file.byteorder)
    return layout.channels, {2: "signed", 3: "float"}.get(layout.numbers, "unsigned")


def find_page(file: tifffile.TiffFile) -> tuple[Any, list[str]]:
    """The first page that is neither a thumbnail nor a mask, and what to say of the others."""
    first: Any = file.pages[0]
    try:
        count = len(file.pages)
    except Exception:  # a damaged second page does not harm the first
        count = 0
    if not _is_reduced(first):
        return first, [f"first of {count or 'several'} frames"] if count != 1 else []
    for page in _pages_and_below(file):
        if not _is_reduced(page):
            return page, ["the picture behind the file's thumbnail"]
    if count == 1:  # there is nothing that it could be the thumbnail of
        return first, []
    raise FaultError("all its pages are thumbnails or masks", "Export the picture itself")


def _is_reduced(page: Any) -> bool:
    return is_reduced(_number(page, 254, 0), _number(page, 255, 0))


def is_reduced(kind: int, former_kind: int) -> bool:
    """Whether a page with these tags, 254 and 255, is a thumbnail or a mask."""
    return bool(kind & 5) or former_kind == 2


def _pages_and_below(file: tifffile.TiffFile) -> Iterator[Any]:
    for page in file.pages:
        yield page
        yield from getattr(page, "pages", None) or ()  # SubIFDs


def _check_all_read(page: Any) -> None:
    """Refuse a page with a decisive tag that tifffile could not read, for which it takes a default.

    Raises:
        FaultError: there is one.
    """
    file, big = page.parent.filehandle, page.parent.is_bigtiff
    count, entry = ("Q", 20) if big else ("H", 12)
    file.seek(page.offset)
    (number,) = struct.unpack(page.parent.byteorder + count, file.read(struct.calcsize(count)))
    entries = file.read(number * entry)
    stored = {
        struct.unpack_from(page.parent.byteorder + "H", entries, at)[0]
        for at in range(0, len(entries) - entry + 1, entry)
    }
    if any(code not in page.tags for code in stored & _DECISIVE):
        raise FaultError(_UNREAD)


def _number(page: Any, code: int, default: int) -> int:
    """The first value of a tag."""
    return (*_numbers(page, code), default)[0]


def _numbers(page: Any, code: int) -> tuple[int, ...]:
    """The values of a tag; none where it is missing."""
    if code not in page.tags:
        return ()
    values = np.atleast_1d(page.tags.valueof(code))
    if values.dtype.kind not in "iu" or not values.size:
        raise FaultError(_UNREAD)
    return tuple(map(int, values.ravel()))


@dataclass(frozen=True)
class Layout:
    """What the tags of a page say.

    Attributes:
        bits, channels: of every pixel; ``numbers`` says what the bits are (1 unsigned, 2 signed,
            3 floating point).
        planar: each channel has strips or tiles of its own.
        extra: kind of each channel beyond the colours (0 unspecified, 1 and 2 alpha).
        piece: height and width of a strip or tile.
    """

    width: int
    height: int
    bits: int
    channels: int
    planar: bool
    photometric: int
    compression: int
    predictor: int
    numbers: int
    mirrored: bool
    extra: tuple[int, ...]
    piece: tuple[int, int]
    offsets: tuple[int, ...]
    counts: tuple[int, ...]
    order: str
    palette: tuple[int, ...]
    subsampling: tuple[int, ...]
    orientation: int

    @classmethod
    def of(cls, page: Any, order: str) -> Layout:
        """Read the tags.

        Raises:
            FaultError: they are damaged, or contradict each other.
        """
        _check_all_read(page)
        width, height, channels = (
            _number(page, 256, 0),
            _number(page, 257, 0),
            _number(page, 277, 1),
        )
        bits, numbers = _numbers(page, 258), _numbers(page, 339) or (1,)
        if len(set(bits)) > 1 or len(set(numbers)) > 1:
            raise FaultError("its channels differ in their number of bits", CONVERT)
        said = 259 in page.tags and 262 in page.tags
        if not said or (not bits and _number(page, 262, 0) > 1):
            raise FaultError("its header does not say what its values mean", CONVERT)
        if len(bits) not in (0, 1, channels) or _number(page, 284, 1) not in (1, 2):
            raise FaultError(CONTRADICTION)
        if 320 in page.tags and page.tags[320].dtype != 3:  # 16 bits, or its scale is not known
            raise FaultError(CONTRADICTION)
        tiled = 324 in page.tags
        rows = min(_number(page, 278, height) or height, height)
        offsets, counts = _numbers(page, _OFFSETS[tiled]), _numbers(page, _COUNTS[tiled])
        if len(offsets) == 1 and not counts:  # a single strip may leave its length out
            counts = (max(page.parent.filehandle.size - offsets[0], 0),)
        return cls(
            width=width,
            height=height,
            bits=(*bits, 1)[0],
            channels=channels,
            planar=_number(page, 284, 1) == 2 and channels > 1,
            photometric=_number(page, 262, 1),
            compression=_number(page, 259, 1),
            predictor=_number(page, 317, 1),
            numbers={4: 1}.get(numbers[0], numbers[0]),  # 4: undefined
            mirrored=_number(page, 266, 1) == 2,
            extra=_numbers(page, 338),
            piece=(_number(page, 323, 0), _number(page, 322, 0)) if tiled else (rows, width),
            offsets=offsets,
            counts=counts,
            order=order,
            palette=_numbers(page, 320),
            subsampling=_numbers(page, 530) or (2, 2),
            orientation=_number(page, ORIENTATION, 1),
        )

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of strips or tiles."""
        height, width = (max(side, 1) for side in self.piece)
        return -(-self.height // height), -(-self.width // width)

    @property
    def pieces(self) -> int:
        """How many strips or tiles there are."""
        return math.prod(self.grid) * (self.channels if self.planar else 1)

    @property
    def knows_compression(self) -> bool:
        """Whether strips and tiles can be put together here."""
        return self.compression in UNPACKED | BY_LIBTIFF

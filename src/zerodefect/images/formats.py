"""Which picture format some bytes are, how large the picture is, and whether the file is whole.

Nothing here decodes pixels. The checks read only the file's outer structure, because the decoders
themselves are forgiving: several of them return a half-grey picture for half a file.
"""

from __future__ import annotations

import re
import struct
import zlib
from dataclasses import dataclass
from typing import Literal

Format = Literal["JPEG", "PNG", "BMP", "TIFF", "WEBP", "GIF"]

HEAD_BYTES = 256  # enough for every signature below (DICOM's sits at byte 128)

IMAGE_ENDINGS = frozenset(
    [
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".png",
        ".apng",
        ".bmp",
        ".dib",
        ".tif",
        ".tiff",
        ".webp",
        ".gif",
    ]
)
# Pictures that cannot be read here. They are listed all the same, so that each gets an error
# record instead of being passed over in silence.
FOREIGN_ENDINGS = frozenset(
    [".heic", ".heif", ".avif", ".jp2", ".j2k", ".jxl", ".psd", ".exr", ".dcm"]
)

_BMP_HEADER_SIZES = {12, 16, 40, 52, 56, 64, 108, 124}
_SIGNATURES: tuple[tuple[bytes, Format], ...] = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),  # BigTIFF
    (b"MM\0+", "TIFF"),
)
_HEIF_BRANDS = {b"heic", b"heix", b"hevc", b"mif1", b"msf1", b"avif"}
_FOREIGN_PICTURES = (
    (b"\x00\x00\x00\x0cjP  ", "a JPEG 2000 picture"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 picture"),
    (b"\x00\x00\x00\x0cJXL ", "a JPEG XL picture"),
    (b"\xff\x0a", "a JPEG XL picture"),
    (b"8BPS", "a Photoshop file"),
    (b"\x76\x2f\x31\x01", "an OpenEXR picture"),
)
_OTHER_FILES = (
    (b"%PDF", "a PDF document"),
    (b"PK\x03\x04", "a ZIP archive or office document"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"\x93NUMPY", "a NumPy array file"),
    (b"\x89HDF", "an HDF5 file"),
)


@dataclass(frozen=True)
class Structure:
    """What the outer structure of a file says.

    Attributes:
        fault: what is wrong with the first picture in the file, in words, or None.
        frames: number of frames, where the structure tells; else None.
        late_fault: the first picture is whole, but something after it is not.
    """

    fault: str | None = None
    frames: int | None = None
    late_fault: bool = False


ENDS_EARLY = "the file is truncated: its end is missing"
DAMAGED = "the file is damaged"


def sniff(head: bytes) -> Format | None:
    """Name the picture format that a file's first bytes show, or None. Endings play no part.

    Args:
        head: the first ``HEAD_BYTES`` bytes (fewer if the file is shorter).
    """
    for magic, kind in _SIGNATURES:
        if head.startswith(magic):
            return kind
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    # "BM" alone also begins ordinary words, so the header's size must make sense too.
    if head.startswith(b"BM") and len(head) >= 18 and _u32(head, 14) in _BMP_HEADER_SIZES:
        return "BMP"
    return None


def describe_stranger(head: bytes) -> tuple[str, bool]:
    """Say what a file is that ``sniff`` does not know.

    Args:
        head: the first ``HEAD_BYTES`` bytes, at least one.

    Returns:
        A noun phrase ("a PDF document") and whether it is some kind of picture.
    """
    picture = _foreign_picture(head)
    return (picture, True) if picture else (_other_file(head), False)


def _foreign_picture(head: bytes) -> str | None:
    for magic, name in _FOREIGN_PICTURES:
        if head.startswith(magic):
            return name
    if head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS:
        return "an AVIF picture" if head[8:12] == b"avif" else "a HEIC/HEIF picture"
    if head[128:132] == b"DICM":
        return "a DICOM picture"
    if re.match(rb"P[1-7]\s", head):
        return "a Netpbm picture"
    return "an SVG drawing" if b"<svg" in head else None


def _other_file(head: bytes) -> str:
    for magic, name in _OTHER_FILES:
        if head.startswith(magic):
            return name
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith((b"<!doctype html", b"<html")):
        return "an HTML page"
    if not head.strip(b"\0"):
        return "a run of zero bytes, as an interrupted copy leaves it"
    return "a text file" if _is_text(head) else "data of an unknown kind"


def header_size(kind: Format, data: bytes) -> tuple[int, int] | None:
    """Read (width, height) from the header where the decoder would claim memory before saying.

    Returns:
        The size in pixels for WebP and GIF; None for the other formats, whose decoders report it
        without decoding, and for headers cut short.
    """
    if kind == "GIF" and len(data) >= 10:
        width, height = struct.unpack_from("<HH", data, 6)
        return width, height
    if kind == "WEBP" and len(data) >= 30:
        return _webp_size(data)
    return None


def examine(kind: Format, data: bytes) -> Structure:
    """Walk through the outer structure of a whole file.

    TIFF is not walked here, because its structure is only known after its tags are read.
    """
    walkers = {
        "JPEG": _examine_jpeg,
        "PNG": _examine_png,
        "BMP": _examine_bmp,
        "WEBP": _examine_webp,
        "GIF": _examine_gif,
    }
    if kind not in walkers:
        return Structure()
    try:
        return walkers[kind](data)
    except (struct.error, IndexError):
        return Structure(fault=ENDS_EARLY)


def segments_fault(offsets: list[int], counts: list[int], expected: int, size: int) -> str | None:
    """Check the strips or tiles of a TIFF against the file.

    Args:
        offsets: first byte of each segment.
        counts: length of each segment in bytes.
        expected: segments that the picture's size asks for.
        size: length of the file in bytes.

    Returns:
        What is wrong, or None.
    """
    if len(offsets) < expected or len(counts) < expected:
        return DAMAGED + ": parts of the picture are missing from its index"
    if any(o + c > size for o, c in zip(offsets, counts, strict=False)):
        return ENDS_EARLY
    if any(o == 0 or c == 0 for o, c in zip(offsets[:expected], counts, strict=False)):
        return DAMAGED + ": parts of the picture were never written"
    return None


def _u32(data: bytes, at: int) -> int:
    return int(struct.unpack_from("<I", data, at)[0])


def _u32_big(data: bytes, at: int) -> int:
    return int(struct.unpack_from(">I", data, at)[0])


def _is_text(head: bytes) -> bool:
    if re.search(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]", head):
        return False
    try:
        head[:-3].decode("utf-8")  # a character of several bytes may be cut at the end
    except UnicodeDecodeError:
        return False
    return True


# In entropy-coded JPEG data a 0xFF is stuffed (00), a restart (D0-D7) or fill (FF); any other
# byte after it starts the next segment.
_NEXT_JPEG_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)


def _examine_jpeg(data: bytes) -> Structure:
    """Follow the segments to the end-of-image marker (ITU-T T.81, annex B)."""
    found = _NEXT_JPEG_MARKER.search(data, 2)
    scans = 0
    while found:
        marker = data[found.start() + 1]
        if marker == 0xD9:
            return Structure() if scans else Structure(fault=DAMAGED + ": it holds no picture data")
        scans += marker == 0xDA
        position = found.start() + 2
        if marker not in (0x01, 0xD8):  # all markers but these carry a length
            (length,) = struct.unpack_from(">H", data, position)
            position += length
        found = _NEXT_JPEG_MARKER.search(data, position)
    return Structure(fault=ENDS_EARLY)


def _examine_png(data: bytes) -> Structure:
    """Verify every chunk's checksum up to IEND (PNG specification, clause 5)."""
    position, frames, pixels_over, in_pixels = 8, None, False, False
    fault = None
    while fault is None:
        if position + 12 > len(data):
            fault = ENDS_EARLY
            break
        length = _u32_big(data, position)
        name = data[position + 4 : position + 8]
        end = position + 12 + length
        pixels_over = pixels_over or (in_pixels and name != b"IDAT")
        in_pixels = name == b"IDAT"
        if end > len(data):
            fault = ENDS_EARLY
        elif zlib.crc32(memoryview(data)[position + 4 : end - 4]) != _u32_big(data, end - 4):
            fault = DAMAGED + ": a checksum does not match"
        elif name == b"acTL" and length == 8:
            frames = _u32_big(data, position + 8)
        elif name == b"IEND":
            break
        position = end
    if fault and frames and pixels_over:
        return Structure(frames=frames, late_fault=True)
    return Structure(fault=fault, frames=frames)


def _examine_bmp(data: bytes) -> Structure:
    """Compare the length with what the header asks for."""
    first_pixel, header = _u32(data, 10), _u32(data, 14)
    if header == 12:
        width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
        compression = 0
    else:
        width, height, _, bits = struct.unpack_from("<iiHH", data, 18)
        compression = _u32(data, 30) if header >= 40 else 0
    if compression in (0, 3, 6):  # uncompressed, with or without bit masks
        needed = first_pixel + (abs(width) * bits + 31) // 32 * 4 * abs(height)
    else:
        needed = _u32(data, 2)
    return Structure(fault=ENDS_EARLY if needed > len(data) else None)


def _webp_size(data: bytes) -> tuple[int, int] | None:
    """Read the canvas size (WebP container specification; RFC 6386, 9.1; RFC 9649)."""
    chunk = data[12:16]
    if chunk == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if chunk == b"VP8L":
        bits = _u32(data, 21)
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if chunk == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    return None


def _examine_webp(data: bytes) -> Structure:
    """Compare the length with the one in the RIFF header."""
    return Structure(fault=ENDS_EARLY if 8 + _u32(data, 4) > len(data) else None)


def _examine_gif(data: bytes) -> Structure:
    """Walk the blocks to the trailer (GIF89a specification).

    Pillow passes over bytes between blocks until something looks like one, so that a damaged
    colour table gives wrong colours, and it takes the end of a file for the trailer.
    """
    frames, fault = 0, None
    try:
        position = 13 + _gif_table(data[10])
        while data[position] in b",!":
            is_frame = data[position] == ord(",")
            position += 11 + _gif_table(data[position + 9]) if is_frame else 2
            while data[position]:
                position += 1 + data[position]
            position, frames = position + 1, frames + is_frame
        if data[position] != ord(";"):
            fault = DAMAGED
    except IndexError:
        fault = ENDS_EARLY
    if frames:
        return Structure(frames=frames, late_fault=fault is not None)
    return Structure(fault=fault or DAMAGED + ": it holds no frame")


def _gif_table(flags: int) -> int:
    """Bytes of the colour table that the flags announce."""
    return 3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0

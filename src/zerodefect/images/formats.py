"""Which picture format some bytes are, how large the picture is, and whether the file is whole.

Nothing here decodes pixels. The checks read only the file's outer structure, because the decoders
themselves are forgiving: several of them return a half-grey picture for half a file.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Format = Literal["JPEG", "PNG", "BMP", "TIFF", "WEBP", "GIF", "NETPBM", "TGA"]

HEAD_BYTES = 256  # enough for every signature below (DICOM's sits at byte 128)

IMAGE_ENDINGS = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".bmp", ".dib", ".tif", ".tiff"}
    | {".webp", ".gif", ".pgm", ".ppm", ".pbm", ".pnm", ".tga", ".icb", ".vda", ".vst"}
)
# Pictures that cannot be read here. They are listed all the same, so that each gets an error
# record instead of being passed over in silence.
FOREIGN_ENDINGS = frozenset(
    {".heic", ".heif", ".hif", ".avif", ".avifs", ".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx"}
    | {".jpm", ".jxl", ".jxr", ".wdp", ".hdp", ".jls", ".psd", ".psb", ".xcf", ".exr", ".hdr"}
    | {".dcm", ".dicom", ".dds", ".pcx", ".ico", ".cur", ".svg", ".svgz", ".pam", ".pfm", ".qoi"}
    | {".sgi", ".rgb", ".ras", ".xbm", ".xpm", ".wmf", ".emf", ".fits", ".fit", ".fts", ".bpg"}
    | {".jng", ".mng", ".btf", ".tf8", ".raw", ".dng", ".cr2", ".cr3", ".crw", ".nef", ".nrw"}
    | {".arw", ".sr2", ".srw", ".orf", ".rw2", ".raf", ".pef", ".rwl", ".iiq", ".3fr", ".kdc"}
)
# Point clouds, which are opened by another door (``images/clouds.py``).
CLOUD_ENDINGS = frozenset({".ply", ".pcd"})

_TARGA = (  # it has no signature: a header that makes sense has to do
    rb".\0(?:[\x02\x0a]\0{5}.{8}[\x10\x18\x20]|[\x03\x0b]\0{5}.{8}[\x08\x10])[\0-\x3f]"
    rb"|.\x01[\x01\x09].{4}[\x0f\x10\x18\x20].{8}\x08[\0-\x3f]"
)
# Regular expressions that match the first bytes.
_FORMATS: tuple[tuple[bytes, Format], ...] = (
    (rb"\xff\xd8\xff(?!\xf7)", "JPEG"),
    (rb"\x89PNG\r\n\x1a\n", "PNG"),
    (rb"GIF8[79]a", "GIF"),
    (rb"(?!.{8}CR\x02)(?:II[*+]\0|MM\0[*+])", "TIFF"),  # + is BigTIFF
    (rb"RIFF.{4}WEBP", "WEBP"),
    # "BM" alone also begins ordinary words, so the header's size must make sense too.
    (rb"BM.{12}[\x0c\x10\x28\x34\x38\x40\x6c\x7c]\0\0\0", "BMP"),
    (rb"P[1-6](?:\s|#[^\n\r]*[\n\r])+\d+(?:\s|#[^\n\r]*[\n\r])+\d", "NETPBM"),
    (_TARGA, "TGA"),
)
# What else may be a picture, and a package that converts it.
_FOREIGN_PICTURES = (
    (rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51", "a JPEG 2000 picture", "imagecodecs"),
    (rb"\0\0\0\x0cJXL |\xff\x0a", "a JPEG XL picture", "imagecodecs"),
    (rb"II\xbc[\0\x01]", "a JPEG XR picture", "imagecodecs"),
    (rb"\xff\xd8\xff\xf7", "a JPEG-LS picture", "imagecodecs"),
    (rb".{4}ftypavi[fs]", "an AVIF picture", "imagecodecs"),
    (rb".{4}ftyp(hei[cxms]|hev[cxms]|mif1|msf1)", "a HEIC/HEIF picture", "pillow-heif"),
    (rb"8BP[SB]", "a Photoshop file", "psd-tools"),
    (rb"\x76\x2f\x31\x01", "an OpenEXR picture", "OpenEXR"),
    (rb".{128}DICM", "a DICOM picture", "pydicom"),
    (rb"DDS \x7c\0\0\0", "a DDS texture", "Pillow"),
    (rb"\x0a[\0\x02-\x05]\x01[\x01\x02\x04\x08]", "a PCX picture", "Pillow"),
    (rb"\0\0[\x01\x02]\0[^\0]\0.{3}\0", "an icon", "Pillow"),
    (rb"\x01\xda[\0\x01][\x01\x02]", "an SGI picture", "Pillow"),
    (rb"qoif", "a QOI picture", "Pillow"),
    (rb"SIMPLE  =", "a FITS picture", "astropy"),
    (rb"#\?(RADIANCE|RGBE)", "a Radiance picture", "imageio"),
    (rb"P[Ff]\s+\d+\s+\d", "a PFM picture", "Pillow"),
    (rb"P7\s+(#|WIDTH|HEIGHT|DEPTH|MAXVAL|TUPLTYPE)", "a Netpbm picture of kind P7", "netpbm"),
    (
        rb"II[*+]\0.{4}CR\x02|II(RO|RS|U\0)|FUJIFILMCCD-RAW|.{4}ftypcrx",
        "a camera's raw picture",
        "rawpy",
    ),
    (
        rb"(?i)(\xef\xbb\xbf)?\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)*(<!doctype svg[^>]*>\s*)?<svg",
        "an SVG drawing",
        "CairoSVG",
    ),
)
_OTHER_FILES = (
    (rb"%PDF", "a PDF document"),
    (rb"ply\s", "a point cloud (PLY)"),
    (rb"(?:#[^\n]*\n)*VERSION\s+\.?[\d.]+\s", "a point cloud (PCD)"),
    (rb"PK\x03\x04", "a ZIP archive or office document"),
    (rb"\x1f\x8b", "a gzip archive"),
    (rb"\x93NUMPY", "a NumPy array file"),
    (rb"\x89HDF", "an HDF5 file"),
    (rb"(?i)[\xef\xbb\xbf \t\r\n]*<(!doctype )?html", "an HTML page"),
    (rb"\0*\Z", "a run of zero bytes, as an interrupted copy leaves it"),
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
    """Name the picture format that a file's first ``HEAD_BYTES`` show, or None.

    Endings play no part.
    """
    return next((kind for start, kind in _FORMATS if re.match(start, head, re.DOTALL)), None)


def describe_stranger(head: bytes) -> tuple[str, str | None]:
    """Say what a file is that ``sniff`` does not know, from its first ``HEAD_BYTES``.

    Returns:
        A noun phrase ("a PDF document") and, for some kind of picture, a package that converts it.
    """
    for start, name, package in _FOREIGN_PICTURES:
        if re.match(start, head, re.DOTALL):
            return name, package
    for start, name in _OTHER_FILES:
        if re.match(start, head, re.DOTALL):
            return name, None
    return "a text file" if _is_text(head) else "data of an unknown kind", None


def is_picture(head: bytes) -> bool:
    """Whether the first ``HEAD_BYTES`` of a file are those of a picture, be it readable or not."""
    return sniff(head) is not None or describe_stranger(head)[1] is not None


def header_size(kind: Format, data: bytes) -> tuple[int, int] | None:
    """Read (width, height) from the header where the decoder would claim memory before saying.

    None for formats other than WebP and GIF, whose decoders report it without decoding, and for
    headers cut short.
    """
    if kind == "GIF" and len(data) >= 10:
        width, height = struct.unpack_from("<HH", data, 6)
        return width, height
    if kind != "WEBP" or len(data) < 30:
        return None
    # WebP container specification; RFC 6386, 9.1; RFC 9649
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
        "TGA": _examine_targa,
    }
    try:
        return walkers[kind](data) if kind in walkers else Structure()
    except (struct.error, IndexError):
        return Structure(fault=ENDS_EARLY)


def segments_fault(
    offsets: Sequence[int], counts: Sequence[int], expected: int, size: int
) -> str | None:
    """Say what is wrong with the strips or tiles of a TIFF, or None.

    Args:
        offsets, counts: first byte and length in bytes of each.
        expected: how many the picture's size asks for.
        size: length of the file in bytes.
    """
    if len(offsets) < expected or len(counts) < expected:
        return DAMAGED + ": parts of the picture are missing from its index"
    if any(o + c > size for o, c in zip(offsets, counts, strict=False)):
        return ENDS_EARLY
    if any(o == 0 or c == 0 for o, c in zip(offsets[:expected], counts, strict=False)):
        return DAMAGED + ": parts of the picture were never written"
    return None


def _u32(data: bytes, at: int, order: str = "<") -> int:
    return int(struct.unpack_from(f"{order}I", data, at)[0])


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
_KEPT_CHUNKS = (b"tRNS", b"eXIf")
_TEXTS = (b"tEXt", b"zTXt", b"iTXt")
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


def rare_jpeg(data: bytes) -> str | None:
    """Name a JPEG of a kind that common decoders do not read; None for an ordinary one."""
    found = _NEXT_JPEG_MARKER.search(data, 2)
    while found:
        marker, position = data[found.start() + 1], found.start() + 2
        if marker == 0xF7:
            return "a JPEG-LS picture"
        if marker in range(0xC0, 0xD0) and marker not in (0xC4, 0xC8, 0xCC):  # start of frame
            bits = data[position + 2] if len(data) > position + 2 else 8
            if marker & 3 == 3:
                return "a lossless JPEG"
            return None if bits == 8 else f"a JPEG with {bits} bits"
        if marker in (0xD9, 0xDA) or len(data) < position + 2:
            return None
        if marker not in (0x01, 0xD8):
            position += int(struct.unpack_from(">H", data, position)[0])
        found = _NEXT_JPEG_MARKER.search(data, position)
    return None


def plain_png(data: bytes) -> bytes:
    """A sound PNG without the colour profile and the texts, which Pillow limits in size.

    They change no pixel. Metadata that may say which way is up is kept.
    """
    kept, position = [data[:8]], 8
    while position + 12 <= len(data):
        length, name = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        text = data[position + 8 : position + 88].lower()
        upright = text.startswith((b"raw profile type", b"xml:com.adobe.xmp"))
        if name[:1].isupper() or name in _KEPT_CHUNKS or (name in _TEXTS and upright):
            kept.append(data[position:end])
        position = end
        if name == b"IEND":
            break
    return b"".join(kept)


def _examine_png(data: bytes) -> Structure:
    """Verify every chunk's checksum up to IEND (PNG specification, clause 5)."""
    position, frames, pixels_over, before, fault = 8, None, False, b"", ENDS_EARLY
    while position + 12 <= len(data):
        length, name = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        pixels_over |= before == b"IDAT" != name
        before = name
        if end > len(data):
            break
        if zlib.crc32(memoryview(data)[position + 4 : end - 4]) != _u32(data, end - 4, ">"):
            fault = DAMAGED + ": a checksum does not match"
            break
        if name == b"IEND":
            return Structure(frames=frames)
        if name == b"acTL" and length == 8:
            frames = _u32(data, position + 8, ">")
        position = end
    if frames and pixels_over:
        return Structure(frames=frames, late_fault=True)
    return Structure(fault=fault, frames=frames)


def _examine_targa(data: bytes) -> Structure:
    """Compare the length with what the header asks for (Truevision TGA 2.0)."""
    names, kind = data[0], data[2]
    table, entry, width, height, bits = struct.unpack_from("<HB4xHHB", data, 5)
    needed = 18 + names + table * -(-entry // 8)
    needed += width * height * -(-bits // 8) if kind < 8 else 1  # above: run lengths
    return Structure(fault=ENDS_EARLY if needed > len(data) else None)


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

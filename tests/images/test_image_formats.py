"""The outer structure alone tells whole files from cut ones, whatever the decoders forgive."""

import io

import numpy as np
import pytest
from PIL import Image

from zerodefect.images import formats


def encode(kind, **options):
    pixels = np.random.default_rng(0).integers(0, 256, (9, 13, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


FILES = {
    "PNG": encode("PNG"),
    "BMP": encode("BMP"),
    "WEBP": encode("WEBP"),
    "GIF": encode("GIF"),
    "JPEG": encode("JPEG"),
    "JPEG progressive": encode("JPEG", progressive=True),
    "JPEG with restarts": encode("JPEG", restart_marker_blocks=1),
}


@pytest.mark.parametrize("name", FILES)
def test_every_cut_is_seen(name):
    data, kind = FILES[name], name.split()[0]
    assert formats.sniff(data[: formats.HEAD_BYTES]) == kind
    assert formats.examine(kind, data).fault is None
    for length in range(len(data)):
        structure = formats.examine(kind, data[:length])
        assert structure.fault or structure.late_fault, length
        assert structure.fault or kind == "GIF"


def test_every_flipped_bit_of_a_png_is_seen():
    for at in range(8, len(FILES["PNG"])):
        damaged = bytearray(FILES["PNG"])
        damaged[at] ^= 1 << at % 8
        assert formats.examine("PNG", bytes(damaged)).fault, at


def test_thumbnail_inside_a_jpeg_does_not_end_it():
    """The small JPEG in a camera's metadata has an end marker of its own."""
    whole = FILES["JPEG"]
    inner = b"Exif\0\0" + whole
    outer = whole[:2] + b"\xff\xe1" + (len(inner) + 2).to_bytes(2, "big") + inner + whole[2:]
    assert formats.examine("JPEG", outer).fault is None
    assert formats.examine("JPEG", outer[:-2]).fault


@pytest.mark.parametrize(
    ("kind", "options"), [("GIF", {}), ("WEBP", {}), ("WEBP", {"lossless": True})]
)
def test_size_is_read_from_the_header(kind, options):
    assert formats.header_size(kind, encode(kind, **options)) == (13, 9)


def test_tiff_segments():
    assert formats.segments_fault([8, 20], [12, 12], 2, 32) is None
    assert "truncated" in formats.segments_fault([8, 20], [12, 12], 2, 31)
    assert "missing" in formats.segments_fault([8], [12], 2, 32)
    assert "never written" in formats.segments_fault([8, 0], [12, 12], 2, 32)

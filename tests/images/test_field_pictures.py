"""Pictures as cameras and tools write them: the true pixels, or a failure that says why."""

import io
import struct
import zlib

import numpy as np
import pytest
import tifffile
import torch
from encoded_pictures import pillow, tiff
from PIL import Image, PngImagePlugin

from zerodefect.images import ImageError, bit_depth_of, find_images, open_image, picture_size

H, W = 48, 64
y, x = np.mgrid[:H, :W]
GREY = (60 + x * 120 // W + (y // 16 % 2) * 40).astype(np.uint8)
GREY[20:28, 30:40] = 240
RGB = np.stack([GREY, 255 - GREY, (y * 4).astype(np.uint8)], -1)
WIDE, WIDE_RGB = GREY.astype(np.uint16) * 257, RGB.astype(np.uint16) * 257
OTHER = np.full((H, W, 1), 9000, np.uint16)


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(bits, colour, chunks, rows, interlaced=0):
    header = struct.pack(">IIBBBBB", W, H, bits, colour, 0, 0, interlaced)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def lines(samples):
    return b"".join(b"\0" + row.tobytes() for row in samples)


def interlaced(samples):
    """Adam7 (PNG specification, clause 8.2)."""
    passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2)]
    passes.append((0, 1, 1, 2))
    return b"".join(lines(samples[top::down, left::right]) for left, top, right, down in passes)


def text_png(add):
    info = PngImagePlugin.PngInfo()
    add(info)
    return pillow(GREY, "PNG", pnginfo=info)


def thumbnail_first(sub):
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as file:
        file.write(RGB[::8, ::8], photometric="rgb", subfiletype=1, subifds=int(sub))
        file.write(RGB, photometric="rgb", subfiletype=0)
    return buffer.getvalue()


def bmp(header, alpha_mask):
    body = np.concatenate([RGB[..., ::-1], np.zeros((H, W, 1), np.uint8)], -1)[::-1].tobytes()
    compression = 3 if header > 40 else 0
    head = struct.pack("<IiiHHIIiiII", header, W, H, 1, 32, compression, len(body), 0, 0, 0, 0)
    if header > 40:
        head += struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, alpha_mask)
    head = head.ljust(header, b"\0")
    start = 14 + len(head)
    return b"BM" + struct.pack("<IHHI", start + len(body), 0, 0, start) + head + body


def palette(factor):
    return tiff(GREY, photometric="palette", colormap=np.tile(np.arange(256) * factor, (3, 1)))


def packed(bits):
    """``bits`` per sample, the highest first, as TIFF packs them; written tag by tag."""
    values = GREY.astype(np.uint32) * (2**bits - 1) // 255
    spread = (values[..., None] >> np.arange(bits - 1, -1, -1)) & 1
    body = np.packbits(spread.reshape(H, -1).astype(np.uint8), axis=1).tobytes()
    tags = [(256, W), (257, H), (258, bits), (259, 1), (262, 1), (277, 1), (278, H)]
    tags += [(273, 8 + 2 + 12 * 9 + 4), (279, len(body))]
    entries = b"".join(struct.pack("<HHII", code, 4, 1, value) for code, value in sorted(tags))
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + body


UNSPECIFIED = {"extrasamples": ["unspecified"]}
FOUR, FLOAT = np.concatenate([WIDE_RGB, OTHER], -1), GREY.astype(np.float32) / 255
TWO = np.concatenate([WIDE[..., None], OTHER], -1)
CLEAR = np.concatenate([RGB, np.zeros((H, W, 1), np.uint8)], -1)
OPAQUE = np.stack([WIDE, np.full((H, W), 65535, np.uint16)], -1).astype(">u2")


def planes(samples):
    return np.moveaxis(samples, -1, 0)


def right(samples, **options):
    """A TIFF of RGB samples, whose channels lie side by side or in planes."""
    return tiff(samples, photometric="rgb", **options)


TRUE_GREY = {
    "palette of 16 bits": palette(257),
    "palette of 8-bit values": palette(1),
    "grey and unspecified, 16 bits": tiff(
        TWO, photometric="minisblack", planarconfig="contig", **UNSPECIFIED
    ),
    "grey and unspecified, 8 bits": tiff(
        (TWO >> 8).astype(np.uint8), photometric="minisblack", planarconfig="contig", **UNSPECIFIED
    ),
    **{f"{bits} bits packed": packed(bits) for bits in (10, 12, 14)},
    **{f"float {f}": tiff(FLOAT.astype(f)) for f in ("f2", "f4", "f8")},
    "float deflate": tiff(FLOAT, compression="zlib"),
    "32 bits": tiff(GREY.astype(np.uint32) * 257),
    "BigTIFF": tiff(GREY, bigtiff=True),
    "BigTIFF tiles": tiff(WIDE, bigtiff=True, byteorder=">", tile=(32, 32)),
    "white is zero, 8": tiff(255 - GREY, photometric="miniswhite"),
    "white is zero, 16": tiff(65535 - WIDE, photometric="miniswhite"),
    "grey and alpha, 16": png(16, 4, [], lines(OPAQUE)),
    "grey and alpha, 16, interlaced": png(16, 4, [], interlaced(OPAQUE), 1),
    "grey, 16, interlaced": png(16, 0, [], interlaced(WIDE.astype(">u2")), 1),
    "large zTXt": text_png(lambda info: info.add_text("log", "x" * 1_200_000, zip=True)),
    "large iTXt": text_png(lambda info: info.add_itxt("log", "x" * 1_200_000, zip=True)),
    "large tEXt": text_png(lambda info: info.add_text("log", "x" * 1_200_000)),
    "large profile": pillow(GREY, "PNG", icc_profile=bytes(1_200_000)),
    "odd profile": png(8, 0, [(b"iCCP", b"x\0\x01" + zlib.compress(b"abc"))], lines(GREY)),
    "PGM": pillow(GREY, "PPM"),
    "PGM in words": f"P2 # a comment\n{W} {H} 255\n{' '.join(map(str, GREY.ravel()))}".encode(),
    "PGM, 1000 is white": b"P5 %d %d 1000\n" % (W, H)
    + np.rint(GREY / 255 * 1000).astype(">u2").tobytes(),
    "TGA, grey": pillow(GREY, "TGA"),
}
TRUE_RGB = {
    **{
        f"infrared, {bits} bits, {name}": right(
            planes(pixels) if name == "separate" else pixels, planarconfig=name, **UNSPECIFIED
        )
        for bits, pixels in ((16, FOUR), (8, (FOUR >> 8).astype(np.uint8)))
        for name in ("contig", "separate")
    },
    "planes, 8": right(planes(RGB), planarconfig="separate"),
    "planes, 16": right(planes(WIDE_RGB), planarconfig="separate"),
    "thumbnail first": thumbnail_first(sub=False),
    "picture below its thumbnail": thumbnail_first(sub=True),
    "tiles": right(RGB, tile=(32, 32)),
    "deflate, differences": right(WIDE_RGB, compression="zlib", predictor=2),
    **{
        f"TIFF {name}": pillow(RGB, "TIFF", compression=name)
        for name in ("tiff_lzw", "packbits", "tiff_adobe_deflate", "zstd")
    },
    "RGB, 16, interlaced": png(16, 2, [], interlaced(WIDE_RGB.astype(">u2")), 1),
    "BMP V4, no alpha": bmp(108, 0xFF000000),
    "BMP V5, no alpha": bmp(124, 0xFF000000),
    "BMP, unused byte": bmp(40, 0),
    "BMP V4, unused byte": bmp(108, 0),
    "PNG, alpha zero": pillow(CLEAR, "PNG"),
    "TIFF, alpha zero": right(CLEAR, extrasamples=["unassalpha"]),
    "PPM": pillow(RGB, "PPM"),
    "TGA": pillow(RGB, "TGA"),
    "TGA, run lengths": pillow(RGB, "TGA", compression="tga_rle"),
    "TGA, alpha zero": pillow(CLEAR, "TGA"),
    "APNG": pillow(RGB, "PNG", save_all=True, append_images=[Image.fromarray(RGB[::-1])]),
}


@pytest.mark.parametrize("name", TRUE_GREY)
def test_true_grey(name):
    found = open_image(TRUE_GREY[name]).to_uint8().astype(int)
    assert abs(found - GREY[..., None]).max() <= (1 if "packed" in name else 0)


@pytest.mark.parametrize("name", TRUE_RGB)
def test_true_colours(name):
    np.testing.assert_array_equal(open_image(TRUE_RGB[name]).to_uint8(), RGB)


@pytest.mark.parametrize("name", [*TRUE_GREY, *TRUE_RGB])
def test_the_size_is_that_of_the_picture_as_it_is_opened(name, tmp_path):
    """Masks are held to it, and a file may begin with a thumbnail."""
    data = TRUE_GREY.get(name) or TRUE_RGB[name]
    (tmp_path / "part").write_bytes(data)
    assert picture_size(tmp_path / "part") == (W, H)
    assert open_image(data).pixels.shape[:2] == (H, W)


def test_one_bit_that_is_wholly_transparent_on_white_shows_its_values():
    data = png(1, 0, [(b"tRNS", b"\0\0")], lines(np.packbits(GREY > 128, axis=1)))
    np.testing.assert_array_equal(open_image(data).pixels[..., 0], (GREY > 128) * np.uint8(255))


def test_premultiplied_alpha_is_divided():
    samples = np.full((H, W, 4), 50, np.uint8)
    samples[..., 3] = 100  # the colour is 127.5, shown on white at 100/255
    shown = open_image(right(samples, extrasamples=["assocalpha"])).pixels
    assert abs(shown.astype(int) - (50 + 155)).max() <= 1


MOSAIC = {
    "photometric": 32803,
    "extratags": [
        (33421, 3, 2, (2, 2), True),
        (33422, 1, 4, bytes([0, 1, 1, 2]), True),
    ],
}


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (tiff(GREY, **MOSAIC), "mosaic"),
        (tiff(FLOAT * 255), "white is unknown"),
        (tiff(np.where(FLOAT > 0.5, np.nan, FLOAT)), "white is unknown"),
        (tiff(GREY.astype(np.int16) * 128), "signed"),
        (tiff((GREY // 2).astype(np.int8)), "signed"),
        (b"\xff\xd8\xff\xf7" + bytes(40), "JPEG-LS"),
        (b"\xff\xd8\xff\xc3\0\x0b\x10" + bytes(40), "lossless JPEG"),
        (b"\xff\xd8\xff\xc1\0\x0b\x0c" + bytes(40), "JPEG with 12 bits"),
        (b"II\xbc\x01" + bytes(40), "JPEG XR"),
        (b"\xff\x0a" + bytes(40), "JPEG XL"),
        (pillow(RGB, "JPEG2000"), "JPEG 2000"),
        (pillow(RGB, "DDS"), "DDS"),
        (pillow(RGB, "PCX"), "PCX"),
        (pillow(RGB, "ICO"), "icon"),
        (b"<svg/>", "SVG"),
        (b"", "empty"),
    ],
)
def test_what_cannot_be_read_is_named(data, word):
    with pytest.raises(ImageError, match=word):
        open_image(data)


def test_a_missing_codec_names_the_package(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    data = tiff(RGB, photometric="rgb")
    lerc = data.replace(
        struct.pack("<HHIHH", 259, 3, 1, 1, 0), struct.pack("<HHII", 259, 4, 1, 34887)
    )
    with pytest.raises(ImageError, match=r"LERC.*pip install imagecodecs"):
        open_image(lerc)


def test_the_same_file_however_it_is_given(tmp_path):
    """Pillow would cut 16-bit colour to 8 bits."""
    wide = png(16, 2, [], lines((WIDE_RGB + 3 * (WIDE_RGB < 65000)).astype(">u2")))
    for number, data in enumerate([wide, packed(12), *TRUE_RGB.values()]):
        path = tmp_path / f"{number}.bin"
        path.write_bytes(data)
        expected = open_image(path).pixels
        np.testing.assert_array_equal(open_image(data).pixels, expected)
        np.testing.assert_array_equal(open_image(memoryview(data)).pixels, expected)
        with path.open("rb") as file:
            np.testing.assert_array_equal(open_image(file).pixels, expected)
        try:
            image = Image.open(path)
        except OSError:
            continue  # Pillow does not know it
        with image:
            np.testing.assert_array_equal(open_image(image).pixels, expected)


def test_a_pillow_image_that_was_changed_is_taken_as_it_is():
    with Image.open(io.BytesIO(pillow(RGB, "PNG"))) as image:
        image.putpixel((0, 0), (1, 2, 3))
        assert open_image(image).pixels[0, 0].tolist() == [1, 2, 3]


# --- arrays and tensors -------------------------------------------------------------------------


def test_tensors_and_channels_first():
    first = np.ascontiguousarray(planes(RGB))
    for given in (
        first,
        torch.from_numpy(first),
        torch.from_numpy(RGB),
        torch.from_numpy(first).float() / 255,
    ):
        np.testing.assert_array_equal(open_image(given).to_uint8(), RGB)
    np.testing.assert_array_equal(open_image(torch.from_numpy(GREY)[None]).pixels[..., 0], GREY)
    np.testing.assert_array_equal(open_image(RGB[:3]).pixels, RGB[:3])  # arrays: channels last


@pytest.mark.parametrize(
    ("given", "word"),
    [
        (torch.zeros(2, 3, 8, 8), "batch"),
        (torch.zeros(3, 8, 4), "first or last"),
        (torch.full((3, 8, 8), -1.5), "white is unknown"),
        (np.full((8, 8, 3), 99.0), "Scale the values"),
        (np.zeros((8, 8, 3), np.int64), "Use 8 or 16 bits"),
    ],
)
def test_foolish_arrays_get_one_line_that_helps(given, word):
    with pytest.raises(ImageError, match=word) as caught:
        open_image(given)
    assert "\n" not in str(caught.value)


def test_a_list_is_told_to_be_an_array():
    with pytest.raises(TypeError, match=r"numpy\.asarray"):
        open_image([[1, 2], [3, 4]])


def test_a_file_open_as_text(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("words")
    with path.open() as file, pytest.raises(ImageError, match="'rb'"):
        open_image(file)


# --- bit depth ----------------------------------------------------------------------------------


def bits(number, hot=0, shift=0):
    values = ((GREY.astype(np.uint32) * (2**number - 1) // 255) << shift).astype(np.uint16)
    values.flat[: 97 * hot : 97] = 65535
    return values


@pytest.mark.parametrize("number", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("hot", [0, 1, 20])
def test_depth_is_inferred_whatever_hot_pixels_say(number, hot):
    values = bits(number, hot)
    found = bit_depth_of([tiff(values), tiff(values // 4)])
    assert found.bits == number
    assert f"--bit-depth {number}" in str(found)
    shown = open_image(values, bit_depth=number).to_uint8().astype(int)
    cold = values < 65535
    assert abs(shown - GREY[..., None])[cold].max() <= 1


@pytest.mark.parametrize("number", [10, 12, 14])
@pytest.mark.parametrize("hot", [0, 1])
def test_data_shifted_up_are_seen(number, hot):
    values = bits(number, hot, shift=16 - number)
    found = bit_depth_of([values])
    assert (found.bits, found.shifted) == (16, 16 - number)
    assert (
        abs(open_image(values, bit_depth=16).to_uint8().astype(int) - GREY[..., None])[
            values < 65535
        ].max()
        <= 1
    )
    with pytest.raises(ImageError, match=r"shifted up.*--bit-depth 16"):
        open_image(values, bit_depth=number)


def test_white_is_zero_with_fewer_bits():
    values = (4095 - bits(12)).astype(np.uint16)
    shown = open_image(tiff(values, photometric="miniswhite"), bit_depth=12).to_uint8()
    assert abs(shown.astype(int) - GREY[..., None]).max() <= 1


def test_dark_pictures_and_eight_bits_tell_no_depth():
    assert bit_depth_of([GREY, pillow(RGB, "PNG"), b"damaged", "missing.tif"]) is None
    assert bit_depth_of([np.full((9, 9), 12, np.uint16)]).bits is None
    assert bit_depth_of([np.zeros((9, 9), np.uint16), bits(12)]).bits == 12


# --- folders ------------------------------------------------------------------------------------


def test_no_picture_vanishes(tmp_path):
    for ending in ("pgm", "ppm", "tga", "dds", "pcx", "ico", "jp2"):
        Image.fromarray(RGB).save(tmp_path / f"a.{ending}")
    (tmp_path / "b.jxr").write_bytes(b"II\xbc\x01" + bytes(99))
    (tmp_path / "c.HIF").write_bytes(b"\0\0\0\x18ftypheic" + bytes(99))
    (tmp_path / "d.svg").write_text("<svg/>")
    (tmp_path / "nameless").write_bytes((tmp_path / "a.jp2").read_bytes())
    (tmp_path / "part").write_bytes((tmp_path / "a.tga").read_bytes())
    (tmp_path / "notes.txt").write_text("P1 is the first part, <svg> is a format")
    found = find_images([tmp_path])
    assert len(found) == 12
    read = []
    for path in found:
        try:
            np.testing.assert_array_equal(open_image(path).pixels, RGB)
            read.append(path.name)
        except ImageError as error:
            assert error.path == str(path)
            assert "not supported" in error.reason
    assert read == ["a.pgm", "a.ppm", "a.tga", "part"]


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1), (2, 2), (5, 700)])
def test_odd_sizes(size):
    pixels = np.random.default_rng(0).integers(0, 65536, (*size, 3), dtype=np.uint16)
    np.testing.assert_array_equal(open_image(right(pixels)).pixels, pixels)
    assert bit_depth_of([pixels]).bits is not None


def test_a_closed_sub_folder_fails_by_its_name(tmp_path, monkeypatch):
    import os

    (tmp_path / "closed").mkdir()
    Image.fromarray(RGB).save(tmp_path / "a.png")
    listed = os.listdir

    def deny(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(os, "listdir", deny)
    assert [path.name for path in find_images([tmp_path])] == ["a.png", "closed"]
    with pytest.raises(ImageError, match=r"closed: the folder cannot be read.*Ask for access"):
        open_image(tmp_path / "closed")

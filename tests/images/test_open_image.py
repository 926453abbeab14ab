"""One door for pictures: every format comes out right, every fault as one `ImageError`."""

import io
import os
import pickle
import struct
import subprocess
import sys
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageFile

from zerodefect.images import ImageError, Picture, encode_jpeg, encode_png, open_image
from zerodefect.types import Failure, printable

EXAMPLES = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def random_pixels(*shape, dtype=np.uint8, seed=0):
    high = int(np.iinfo(dtype).max) + 1
    return np.random.default_rng(seed).integers(0, high, shape, dtype=dtype)


def smooth_pixels(height=40, width=56):
    """A picture that lossy formats keep nearly unchanged, with no symmetry."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([3 * x + 40, 4 * y + 30, 2 * x + y + 20], axis=-1).astype(np.uint8)


def save(image, kind, **options):
    buffer = io.BytesIO()
    image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def write_png16(samples, filters=(0,), extra=b""):
    """Encode uint16 (H, W, C) as PNG with the given filter types in turn (PNG clause 9)."""
    height, width, channels = samples.shape
    step = 2 * channels
    above = np.zeros(width * step, np.int64)
    lines = []
    for number, row in enumerate(samples.astype(">u2")):
        line = np.frombuffer(row.tobytes(), np.uint8).astype(np.int64)
        left = np.concatenate([np.zeros(step, np.int64), line[:-step]])
        corner = np.concatenate([np.zeros(step, np.int64), above[:-step]])
        guess = left + above - corner
        far = [abs(guess - left), abs(guess - above), abs(guess - corner)]
        paeth = np.select(
            [(far[0] <= far[1]) & (far[0] <= far[2]), far[1] <= far[2]], [left, above], corner
        )
        kind = filters[number % len(filters)]
        predicted = [0 * line, left, above, (left + above) // 2, paeth][kind]
        lines.append(bytes([kind]) + ((line - predicted) % 256).astype(np.uint8).tobytes())
        above = line
    colour_type = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    body = chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(b"".join(lines)))
    return b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b"")


def write_tiff(samples, **options):
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, samples, metadata=None, **options)
    return buffer.getvalue()


def animation(kind, **options):
    frames = [Image.fromarray(np.full((9, 11, 3), value, np.uint8)) for value in (200, 100, 40)]
    return save(frames[0], kind, save_all=True, append_images=frames[1:], **options)


def failure_of(source, **options):
    with pytest.raises(ImageError) as caught:
        open_image(source, **options)
    error = caught.value
    assert error.reason
    assert error.remedy
    assert error.failure == Failure(error.path, error.reason, error.remedy)
    assert str(error) == f"{printable(error.path)}: {error.reason}. {error.remedy}"
    return error


# --- what comes out ---------------------------------------------------------------------------


def test_picture_from_file(tmp_path):
    pixels = random_pixels(5, 7, 3)
    path = tmp_path / "a part with spaces.png"
    Image.fromarray(pixels).save(path)
    picture = open_image(str(path))
    assert (picture.path, picture.width, picture.height) == (str(path), 7, 5)
    assert picture.notes == ()
    assert picture.pixels.dtype == np.uint8
    np.testing.assert_array_equal(picture.pixels, pixels)
    assert open_image(path, name="part 1").path == "part 1"


def test_tensor_is_channels_first_in_unit_range():
    pixels = random_pixels(5, 7, 3)
    tensor = open_image(pixels).to_tensor()
    assert tensor.shape == (3, 5, 7)
    assert tensor.dtype == torch.float32
    np.testing.assert_allclose(tensor[1].numpy(), pixels[..., 1] / 255, atol=1e-7)
    deep = random_pixels(5, 7, 3, dtype=np.uint16)
    np.testing.assert_allclose(
        open_image(deep).to_tensor()[2].numpy(), deep[..., 2] / 65535, atol=1e-7
    )


def test_to_uint8_rounds_to_the_nearest():
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    got = Picture("x", np.repeat(values[..., None], 3, axis=2)).to_uint8()
    np.testing.assert_array_equal(got[..., 0], np.rint(values / 257))


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "GIF", "WEBP", "JPEG"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_formats(kind, mode):
    image = Image.fromarray(smooth_pixels()).convert(mode)
    options = {"JPEG": {"quality": 97, "subsampling": 0}, "WEBP": {"lossless": True}}
    picture = open_image(save(image, kind, **options.get(kind, {})))
    tolerance = {"JPEG": 6, "GIF": 30 if mode == "RGB" else 0}.get(kind, 0)
    expected = np.array(image.convert("RGB")).astype(int)
    assert picture.path == "<bytes>"
    assert picture.notes == ()
    assert abs(picture.pixels.astype(int) - expected).max() <= tolerance


@pytest.mark.parametrize("ending", ["", ".txt", ".jpg", ".tiff"])
def test_content_decides_not_the_ending(tmp_path, ending):
    pixels = random_pixels(5, 7, 3)
    path = tmp_path / f"part{ending}"
    path.write_bytes(save(pixels, "PNG"))
    np.testing.assert_array_equal(open_image(path).pixels, pixels)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP", "GIF"])
def test_one_bit(kind):
    bits = random_pixels(9, 13) > 127
    picture = open_image(save(Image.fromarray(bits), kind))
    np.testing.assert_array_equal(picture.pixels[..., 0], bits * np.uint8(255))


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP", "GIF"])
def test_palette(kind):
    image = Image.fromarray(smooth_pixels()).quantize(32)
    picture = open_image(save(image, kind))
    np.testing.assert_array_equal(picture.pixels, np.array(image.convert("RGB")))


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_palette_with_transparency(kind):
    image = Image.new("P", (4, 2), 1)
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((0, 0), 0)
    picture = open_image(save(image, kind, transparency=0))
    assert picture.pixels[0, 0].tolist() == [255, 255, 255]
    assert picture.pixels[1, 1].tolist() == [200, 100, 50]
    assert "white" in picture.notes[0]


def test_palette_with_transparent_colours_is_the_same_from_pillow_and_from_a_file():
    rgba = np.full((6, 8, 4), (200, 30, 60, 255), np.uint8)
    rgba[3:, :, 3] = 0
    image = Image.fromarray(rgba).quantize(4)  # the palette itself has an alpha
    found = open_image(image)
    assert found.pixels[0, 0].tolist() == [200, 30, 60]
    assert found.pixels[5, 7].tolist() == [255, 255, 255]
    np.testing.assert_array_equal(found.pixels, open_image(save(image, "PNG")).pixels)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_alpha_is_shown_on_white(kind):
    rgba = random_pixels(6, 8, 4)
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    picture = open_image(save(rgba, kind, **options))
    alpha = rgba[..., 3:] / 255
    expected = rgba[..., :3] * alpha + 255 * (1 - alpha)
    assert abs(picture.pixels - expected).max() <= 0.51
    assert "white" in picture.notes[0]


def test_opaque_alpha_needs_no_note():
    rgba = random_pixels(6, 8, 4)
    rgba[..., 3] = 255
    picture = open_image(save(rgba, "PNG"))
    assert picture.notes == ()
    np.testing.assert_array_equal(picture.pixels, rgba[..., :3])


def test_grey_with_alpha():
    picture = open_image(save(Image.new("LA", (3, 2), (100, 51)), "PNG"))
    assert picture.pixels[0, 0].tolist() == [224] * 3  # 100 * 0.2 + 255 * 0.8


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk(kind):
    """Pillow writes JPEG as Adobe does, inverted; both must come out as the same colour."""
    image = Image.new("CMYK", (16, 16), (0, 255, 255, 0))  # no cyan: red
    picture = open_image(save(image, kind))
    assert abs(picture.pixels[8, 8].astype(int) - [255, 0, 0]).max() <= 3
    assert "CMYK" in picture.notes[0]


def test_lab_and_ycbcr_tiff():
    lab = Image.new("LAB", (4, 4), (137, 208, 195))  # L* 53.7, a* 80, b* 67 (D50): near sRGB red
    picture = open_image(save(lab, "TIFF"))
    assert abs(picture.pixels[0, 0].astype(int) - [255, 0, 0]).max() <= 12
    assert "LAB" in picture.notes[0]
    ycbcr = Image.fromarray(smooth_pixels()).convert("YCbCr")
    got = open_image(save(ycbcr, "TIFF")).pixels.astype(int)
    assert abs(got - smooth_pixels()).max() <= 3


@pytest.mark.parametrize(
    ("kind", "options"), [("GIF", {}), ("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {})]
)
def test_animation_gives_first_frame_and_says_so(kind, options):
    picture = open_image(animation(kind, **options))
    assert abs(picture.pixels.astype(int) - 200).max() <= 1
    assert picture.notes == ("first of 3 frames",)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "TIFF"])
def test_broken_later_frame_does_not_matter_but_is_noted(kind):
    data = animation(kind)
    picture = open_image(data[:-12])
    assert abs(picture.pixels.astype(int) - 200).max() <= 1
    assert picture.notes


@pytest.mark.parametrize("flags", [0x00, 0x83, 0xF0])
def test_a_gif_whose_colour_table_has_another_length_is_refused(flags):
    """Pillow would look for the next block in what is left of the table, and show other colours."""
    data = bytearray(animation("GIF"))
    assert data[10] == 0x81
    data[10] = flags
    assert "damaged" in failure_of(bytes(data)).reason


# --- 16 bits ----------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_sixteen_bit_png_keeps_every_bit(channels):
    samples = random_pixels(11, 9, channels, dtype=np.uint16)
    if channels in (2, 4):
        samples[..., -1] = 65535
    picture = open_image(write_png16(samples, filters=(0, 1, 2, 3, 4)))
    assert picture.pixels.dtype == np.uint16
    colours = samples[..., : 1 if channels < 3 else 3]
    np.testing.assert_array_equal(picture.pixels, np.broadcast_to(colours, (11, 9, 3)))


@pytest.mark.parametrize("channels", [2, 4])
def test_sixteen_bit_alpha_on_white(channels):
    samples = random_pixels(5, 6, channels, dtype=np.uint16)
    picture = open_image(write_png16(samples))
    alpha = samples[..., -1:] / 65535
    expected = samples[..., :-1] * alpha + 65535 * (1 - alpha)
    assert abs(picture.pixels - expected).max() <= 0.51


@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bit_png_with_a_transparent_colour(channels):
    samples = random_pixels(5, 6, channels, dtype=np.uint16)
    key = chunk(b"tRNS", samples[2, 3].astype(">u2").tobytes())
    picture = open_image(write_png16(samples, extra=key))
    expected = np.broadcast_to(samples, (5, 6, 3)).copy()
    expected[2, 3] = 65535
    np.testing.assert_array_equal(picture.pixels, expected)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"compression": "zlib"},
        {"compression": "zlib", "predictor": 2},
        {"tile": (16, 16)},
        {"bigtiff": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_sixteen_bit_tiff_keeps_every_bit(order, options, channels):
    samples = random_pixels(21, 35, channels, dtype=np.uint16)
    if channels == 4:
        samples[..., 3] = 65535
        options = {**options, "extrasamples": ["unassalpha"]}
    if channels == 1:
        samples = samples[..., 0]
    photometric = "minisblack" if channels == 1 else "rgb"
    data = write_tiff(samples, byteorder=order, photometric=photometric, **options)
    picture = open_image(data)
    assert picture.pixels.dtype == np.uint16
    expected = samples[..., None] if channels == 1 else samples[..., :3]
    np.testing.assert_array_equal(picture.pixels, np.broadcast_to(expected, (21, 35, 3)))


def test_sixteen_bit_tiff_in_planes():
    samples = random_pixels(3, 8, 9, dtype=np.uint16)
    data = write_tiff(samples, photometric="rgb", planarconfig="separate")
    np.testing.assert_array_equal(open_image(data).pixels, samples.transpose(1, 2, 0))


@pytest.mark.parametrize("order", ["<", ">"])
def test_sixteen_bit_tiff_where_white_is_zero(order):
    samples = random_pixels(8, 9, dtype=np.uint16)
    data = write_tiff(samples, photometric="miniswhite", byteorder=order)
    np.testing.assert_array_equal(open_image(data).pixels[..., 1], 65535 - samples)


def test_lzw_sixteen_bit_grey_tiff():
    samples = random_pixels(8, 9, dtype=np.uint16)
    data = save(Image.fromarray(samples), "TIFF", compression="tiff_lzw")
    np.testing.assert_array_equal(open_image(data).pixels[..., 0], samples)


def test_sixteen_bit_scale_is_fixed_and_twelve_bit_data_is_pointed_out():
    samples = random_pixels(6, 7, dtype=np.uint16) // 16
    samples[0, 0] = 4095
    data = save(Image.fromarray(samples), "PNG")
    plain = open_image(data)
    np.testing.assert_array_equal(plain.pixels[..., 0], samples)
    assert "12-bit" in plain.notes[0]
    assert "bit_depth=12" in plain.notes[0]
    stated = open_image(data, bit_depth=12)
    assert stated.notes == ()
    np.testing.assert_array_equal(stated.pixels[..., 0], np.rint(samples * (65535 / 4095)))
    assert "does not fit" in failure_of(data, bit_depth=10).reason
    with pytest.raises(ValueError, match="bit_depth"):
        open_image(data, bit_depth=17)


def test_bit_depth_leaves_eight_bit_sources_alone():
    pixels = random_pixels(5, 7, 3)
    np.testing.assert_array_equal(open_image(save(pixels, "PNG"), bit_depth=12).pixels, pixels)


@pytest.mark.parametrize("channels", [1, 3])
def test_float_tiff(channels):
    values = np.random.default_rng(0).random((6, 7, channels), dtype=np.float32).squeeze()
    picture = open_image(write_tiff(values, photometric="rgb" if channels == 3 else "minisblack"))
    expected = np.broadcast_to(values.reshape(6, 7, channels), (6, 7, 3))
    assert abs(picture.pixels / 65535 - expected).max() < 1e-5
    assert "floating-point" in picture.notes[0]
    for bad in (values * 300, values - 0.5, np.where(values > 0.5, np.nan, values)):
        error = failure_of(write_tiff(bad, photometric="rgb" if channels == 3 else "minisblack"))
        assert "white is unknown" in error.reason


def test_wide_and_signed_integers_are_refused():
    for dtype in (np.int32, np.int16):
        data = write_tiff(np.full((4, 5), -7, dtype), photometric="minisblack")
        assert "white is unknown" in failure_of(data).reason


# --- arrays and Pillow images -----------------------------------------------------------------


def test_arrays():
    grey = random_pixels(4, 6)
    np.testing.assert_array_equal(open_image(grey).pixels, np.stack([grey] * 3, axis=2))
    np.testing.assert_array_equal(open_image(grey[..., None]).pixels[..., 2], grey)
    assert open_image(grey > 99).pixels.max() == 255
    floats = np.linspace(0, 1, 24).reshape(4, 6)
    assert abs(open_image(floats).pixels[..., 0] / 65535 - floats).max() < 1e-5
    swapped = random_pixels(4, 6, dtype=np.uint16)
    np.testing.assert_array_equal(open_image(swapped.astype(">u2")).pixels[..., 0], swapped)


def test_array_is_copied():
    pixels = random_pixels(4, 6, 3)
    picture = open_image(pixels)
    before = picture.pixels.copy()
    pixels[:] = 0
    np.testing.assert_array_equal(picture.pixels, before)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((2, 3, 20, 20), np.uint8),
        np.zeros(5, np.uint8),
        np.zeros((0, 4), np.uint8),
        np.full((4, 4), 2.0),
        np.full((4, 4), np.nan),
        np.zeros((4, 4), np.int64),
    ],
    ids=["batch", "flat", "no rows", "float above 1", "nan", "int64"],
)
def test_arrays_that_are_no_pictures(array):
    assert failure_of(array).path == "<array>"


def test_pillow_image():
    image = Image.fromarray(smooth_pixels())
    np.testing.assert_array_equal(open_image(image).pixels, smooth_pixels())
    assert open_image(image).path == "<image>"


# --- orientation ------------------------------------------------------------------------------


def seen_through(pixels, orientation):
    """Store pixels so that a viewer has to apply the orientation to see them upright."""
    stored = {
        1: lambda p: p,
        2: lambda p: p[:, ::-1],
        3: lambda p: p[::-1, ::-1],
        4: lambda p: p[::-1],
        5: lambda p: p.transpose(1, 0, 2),
        6: lambda p: np.rot90(p, 1),  # the viewer turns it 90 degrees clockwise
        7: lambda p: p[::-1, ::-1].transpose(1, 0, 2),
        8: lambda p: np.rot90(p, -1),
    }
    return np.ascontiguousarray(stored[orientation](pixels))


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "JPEG"])
@given(
    orientation=st.integers(1, 8),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    seed=st.integers(0, 99),
)
@settings(max_examples=25, deadline=None)
def test_orientation_is_undone(kind, orientation, height, width, seed):
    pixels = random_pixels(height, width, 3, seed=seed)
    if kind == "JPEG":  # blocks of one colour survive the compression
        pixels = np.kron(pixels, np.ones((16, 16, 1), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100, "subsampling": 0}}
    stored = seen_through(pixels, orientation)
    picture = open_image(save(stored, kind, exif=exif, **options.get(kind, {})))
    difference = picture.pixels.astype(int) - pixels
    assert abs(difference).max() <= (4 if kind == "JPEG" else 0)
    turned = (f"turned upright (EXIF orientation {orientation})",) if orientation > 1 else ()
    assert picture.notes == turned


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_orientation_of_sixteen_bit_tiff(orientation, planar):
    pixels = random_pixels(5, 8, 3, dtype=np.uint16)
    stored = seen_through(pixels, orientation)
    if planar == "separate":
        stored = stored.transpose(2, 0, 1)
    data = write_tiff(
        stored,
        photometric="rgb",
        planarconfig=planar,
        extratags=[(274, 3, 1, orientation, True)],
    )
    np.testing.assert_array_equal(open_image(data).pixels, pixels)


def test_damaged_exif_does_not_cost_the_picture():
    exif = b"Exif\0\0II*\0\xff\xff\xff\x7fgarbage"
    picture = open_image(save(smooth_pixels(), "JPEG", exif=exif))
    assert (picture.width, picture.height) == (56, 40)


# --- faults -----------------------------------------------------------------------------------


def test_missing_folder_and_empty(tmp_path):
    missing = failure_of(tmp_path / "no.png")
    assert missing.path == str(tmp_path / "no.png")
    assert "no such file" in missing.reason
    assert "folder" in failure_of(tmp_path).reason
    (tmp_path / "empty.png").touch()
    assert "empty" in failure_of(tmp_path / "empty.png").reason
    assert "empty" in failure_of(b"").reason
    assert failure_of("bad\0name.png").reason


@pytest.mark.skipif(os.name == "nt", reason="permissions and pipes are POSIX")
def test_unreadable_and_pipe(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe.png")
    assert "regular file" in failure_of(tmp_path / "pipe.png").reason
    (tmp_path / "a.png").write_bytes(save(smooth_pixels(), "PNG"))

    def deny(*args, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", deny)
    error = failure_of(tmp_path / "a.png")
    assert "permission" in error.reason
    assert "access" in error.remedy


@pytest.mark.parametrize(
    ("data", "word", "remedy"),
    [
        (b"%PDF-1.7\n1 0 obj", "PDF", "Leave it out"),
        (b"<!DOCTYPE html><html><body>404</body></html>", "HTML", "Leave it out"),
        (b"name,score\npart 1,0.3\n", "text", "Leave it out"),
        ("Prüfbericht: BM".encode(), "text", "Leave it out"),
        (b"BM stands for nothing here, really", "text", "Leave it out"),
        (b"PK\x03\x04" + bytes(40), "ZIP", "Leave it out"),
        (bytes(500), "zero bytes", "Leave it out"),
        (b"\x01\x02\x03\x04\xff\xfe", "unknown", "Leave it out"),
        (b"\0\0\0\x18ftypheic" + bytes(30), "HEIC", "Convert"),
        (b"\0\0\0\x18ftypavif" + bytes(30), "AVIF", "Convert"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000", "Convert"),
        (b"P7\nWIDTH 4\nHEIGHT 4\n" + bytes(16), "Netpbm", "Convert"),
        (b'<?xml version="1.0"?><svg xmlns="x"/>', "SVG", "Convert"),
        (bytes(128) + b"DICM" + bytes(20), "DICOM", "Convert"),
    ],
)
def test_other_files_are_named(tmp_path, data, word, remedy):
    path = tmp_path / "picture.jpg"
    path.write_bytes(data)
    error = failure_of(path)
    assert word in error.reason
    assert error.remedy.startswith(remedy)


def bomb(kind):
    """A small file whose header announces 60,000 x 60,000 pixels."""
    side = 60_000
    if kind == "PNG":
        header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
        pixels = chunk(b"IDAT", zlib.compress(bytes(1000)))
        return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b"")
    if kind == "GIF":
        data = bytearray(save(smooth_pixels(), "GIF"))
        data[6:10] = struct.pack("<HH", side, side)
        return bytes(data)
    if kind == "JPEG":
        data = bytearray(save(smooth_pixels(), "JPEG"))
        at = data.index(b"\xff\xc0") + 5
        data[at : at + 4] = struct.pack(">HH", side, side)
        return bytes(data)
    if kind == "TIFF":
        image = save(smooth_pixels(), "TIFF", compression="tiff_deflate")
        height, width = (
            struct.pack("<HHIHH", 257, 3, 1, 40, 0),
            struct.pack("<HHIHH", 256, 3, 1, 56, 0),
        )
        assert height in image
        image = image.replace(height, struct.pack("<HHII", 257, 4, 1, side))
        return image.replace(width, struct.pack("<HHII", 256, 4, 1, side))
    data = bytearray(animation("WEBP"))
    data[24:30] = (16383 - 1).to_bytes(3, "little") * 2  # the format's largest
    return bytes(data)


@pytest.mark.parametrize("kind", ["PNG", "GIF", "JPEG", "TIFF", "WEBP"])
def test_bombs_are_refused_on_their_header(kind, monkeypatch):
    def no_decoding(*args, **options):
        raise AssertionError("the pixels were decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", no_decoding)
    error = failure_of(bomb(kind))
    assert "too large" in error.reason
    assert "million pixels" in error.reason
    assert "max_pixels" in error.remedy


def test_limit_on_pixels_can_be_moved():
    data = save(smooth_pixels(), "PNG")
    assert "too large" in failure_of(data, max_pixels=40 * 56 - 1).reason
    assert open_image(data, max_pixels=40 * 56).width == 56


@pytest.mark.slow
def test_hundred_million_pixels_pass_in_silence(tmp_path, capfd):
    path = tmp_path / "large.png"
    Image.new("1", (10_000, 10_000)).save(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        picture = open_image(path)
    assert (picture.width, picture.height) == (10_000, 10_000)
    assert capfd.readouterr().err == ""


def test_large_tiff_passes_pillows_own_limit(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for kind in ("TIFF", "PNG", "JPEG", "BMP"):
            assert open_image(save(smooth_pixels(), kind)).width == 56


def test_pillows_global_settings_stay(monkeypatch):
    before = (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, warnings.filters[:])
    open_image(save(smooth_pixels(), "TIFF"))
    failure_of(save(smooth_pixels(), "JPEG")[:-50])
    after = (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, warnings.filters[:])
    assert after == before


def test_errors_travel_between_processes():
    error = failure_of(b"")
    copy = pickle.loads(pickle.dumps(error))
    assert copy.failure == error.failure


def test_other_types_are_a_programming_error():
    with pytest.raises(TypeError, match="list"):
        open_image([1, 2, 3])


@pytest.mark.slow
def test_libraries_do_not_write_to_the_terminal():
    """In a fresh process, where no test runner has taken over logging."""
    data = write_tiff(random_pixels(20, 30, 3), photometric="rgb")
    many = struct.pack("<HHIHH", 277, 3, 1, 3, 0)
    assert many in data
    broken = data.replace(many, struct.pack("<HHIHH", 277, 3, 1, 2048, 0))
    code = f"""
from zerodefect.images import ImageError, open_image
try:
    open_image({broken!r})
except ImageError as error:
    print(error.reason)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert result.stdout
    assert result.stderr == b""


def test_many_threads_at_once():
    def both(number):
        kind = list(VALID)[number % len(VALID)]
        return kind, open_image(VALID[kind]).pixels

    expected = {kind: open_image(data).pixels for kind, data in VALID.items()}
    with ThreadPoolExecutor(8) as threads:
        for kind, pixels in threads.map(both, range(8 * len(VALID)), timeout=60):
            np.testing.assert_array_equal(pixels, expected[kind])


VALID = {
    "PNG": save(smooth_pixels(), "PNG"),
    "PNG16": write_png16(random_pixels(9, 8, 3, dtype=np.uint16)),
    "JPEG": encode_jpeg(smooth_pixels()),
    "progressive JPEG": save(smooth_pixels(), "JPEG", progressive=True),
    "BMP": save(smooth_pixels(), "BMP"),
    "GIF": save(smooth_pixels(), "GIF"),
    "WEBP": save(smooth_pixels(), "WEBP"),
    "lossless WEBP": save(smooth_pixels(), "WEBP", lossless=True),
    "TIFF": save(smooth_pixels(), "TIFF"),
    "LZW TIFF": save(smooth_pixels(), "TIFF", compression="tiff_lzw"),
    "JPEG TIFF": save(smooth_pixels(), "TIFF", compression="jpeg"),
    "deflate TIFF16": write_tiff(
        random_pixels(20, 30, 3, dtype=np.uint16), photometric="rgb", compression="zlib"
    ),
    "planar TIFF16": write_tiff(
        random_pixels(3, 20, 30, dtype=np.uint16), photometric="rgb", planarconfig="separate"
    ),
    "float TIFF": write_tiff(
        np.random.default_rng(0).random((9, 8, 3), np.float32), photometric="rgb"
    ),
}


@pytest.mark.parametrize("kind", VALID)
@EXAMPLES
@given(data=st.data())
def test_truncation_is_always_noticed(kind, data, capfd):
    whole = VALID[kind]
    cut = whole[: data.draw(st.integers(0, len(whole) - 1))]
    try:
        picture = open_image(cut)
    except ImageError as error:
        assert error.reason
    else:  # only a file whose first frame is whole may pass, and not in silence
        np.testing.assert_array_equal(picture.pixels, open_image(whole).pixels)
        assert kind == "GIF"
        assert "cut off" in picture.notes[0]
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("kind", ["PNG", "PNG16", "JPEG", "WEBP"])
def test_last_byte_missing(kind):
    assert "truncated" in failure_of(VALID[kind][:-1]).reason


@pytest.mark.parametrize("kind", VALID)
def test_bytes_after_the_end_do_no_harm(kind):
    np.testing.assert_array_equal(
        open_image(VALID[kind] + b"appended by a camera").pixels, open_image(VALID[kind]).pixels
    )


@pytest.mark.parametrize("kind", VALID)
@EXAMPLES
@given(data=st.data())
def test_damaged_bytes_give_a_picture_or_an_image_error(kind, data, capfd):
    damaged = bytearray(VALID[kind])
    place = st.integers(0, len(damaged) - 1)
    for at, value in data.draw(st.lists(st.tuples(place, st.integers(0, 255)), max_size=6)):
        damaged[at] = value
    try:
        picture = open_image(bytes(damaged), max_pixels=10_000)
    except ImageError as error:
        assert error.reason
    else:
        assert picture.pixels.shape == (picture.height, picture.width, 3)
        if kind.startswith("PNG"):  # its checksums leave nothing undetected
            np.testing.assert_array_equal(picture.pixels, open_image(VALID[kind]).pixels)
    assert capfd.readouterr().err == ""


@EXAMPLES
@given(
    start=st.sampled_from([b"", *(data[:n] for data in VALID.values() for n in (4, 12, 40))]),
    rest=st.binary(max_size=300),
)
def test_random_bytes_give_an_image_error(start, rest):
    try:
        picture = open_image(start + rest, max_pixels=10_000)
    except ImageError as error:
        assert error.remedy
    else:
        assert picture.pixels.ndim == 3


@EXAMPLES
@given(
    pixels=hnp.arrays(
        st.sampled_from([np.uint8]), st.tuples(st.integers(1, 12), st.integers(1, 12), st.just(3))
    )
)
def test_eight_bit_png_round_trip(pixels):
    np.testing.assert_array_equal(open_image(encode_png(pixels)).pixels, pixels)


@EXAMPLES
@given(
    samples=hnp.arrays(
        np.uint16, st.tuples(st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 3]))
    ),
    filters=st.lists(st.integers(0, 4), min_size=1, max_size=5),
)
def test_sixteen_bit_png_round_trip(samples, filters):
    expected = np.broadcast_to(samples, (*samples.shape[:2], 3))
    np.testing.assert_array_equal(open_image(write_png16(samples, filters)).pixels, expected)
    if samples.shape[2] == 1:
        np.testing.assert_array_equal(open_image(encode_png(samples[..., 0])).pixels, expected)


def test_a_header_that_contradicts_itself_is_an_error():
    """One byte of a float TIFF set to zero makes its pixels eight values wide."""
    damaged = bytearray(VALID["float TIFF"])
    damaged[150] = 0
    with pytest.raises(ImageError):
        open_image(bytes(damaged), max_pixels=10_000)

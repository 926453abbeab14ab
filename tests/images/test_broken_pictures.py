"""Broken and odd files: an ImageError, or the pixels that an independent decoder finds too."""

import io
import random
import warnings

import numpy as np
import pytest
import tifffile
from encoded_pictures import pillow, tiff
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from zerodefect.images import ImageError, bit_depth_of, open_image

try:
    import imagecodecs
except ImportError:  # an extra pair of eyes, where there is one
    imagecodecs = None

COLOUR = np.random.default_rng(0).integers(0, 256, (13, 22, 3), dtype=np.uint8)
GREY, WIDE = COLOUR[..., 0].copy(), COLOUR.astype(np.uint16) * 257 // 3


FILES = {
    "PNG": pillow(COLOUR, "PNG"),
    "PNG, 16": pillow(WIDE[..., 0], "PNG"),
    "JPEG": pillow(COLOUR, "JPEG"),
    "JPEG, progressive": pillow(GREY, "JPEG", progressive=True),
    "BMP": pillow(COLOUR, "BMP"),
    "GIF": pillow(GREY, "GIF"),
    "WEBP": pillow(COLOUR, "WEBP"),
    "WEBP, lossless": pillow(COLOUR, "WEBP", lossless=True),
    "PPM": pillow(COLOUR, "PPM"),
    "PGM, 16": b"P5 22 13 65535\n" + WIDE[..., 0].astype(">u2").tobytes(),
    "PGM, words": b"P2 22 13 255\n" + b" ".join(b"%d" % v for v in GREY.ravel()),
    "TGA": pillow(COLOUR, "TGA"),
    "TGA, run lengths": pillow(np.repeat(COLOUR, 4, 1), "TGA", compression="tga_rle"),
    "TIFF": tiff(COLOUR, photometric="rgb"),
    "TIFF, grey": tiff(GREY),
    "TIFF, 16, tiles": tiff(WIDE, photometric="rgb", tile=(16, 16), byteorder=">"),
    "TIFF, 16, deflate": tiff(WIDE, photometric="rgb", compression="zlib", predictor=2),
    "TIFF, planes": tiff(np.moveaxis(WIDE, -1, 0), photometric="rgb", planarconfig="separate"),
    "TIFF, white is zero": tiff(GREY, photometric="miniswhite", rowsperstrip=4),
    "TIFF, float": tiff(GREY.astype(np.float32) / 255),
    "TIFF, LZW": pillow(COLOUR, "TIFF", compression="tiff_lzw"),
    "TIFF, JPEG": pillow(COLOUR, "TIFF", compression="jpeg"),
    "TIFF, one bit": pillow(GREY > 127, "TIFF", compression="group4"),
    "TIFF, palette": tiff(
        GREY, photometric="palette", colormap=np.tile(np.arange(256) * 257, (3, 1))
    ),
}


def by_pillow(data):
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        if image.mode.startswith("I"):
            return np.asarray(image).astype(np.int64)[..., None].clip(0, 65535) / 65535
        return np.asarray(image.convert("RGB")) / 255


def by_tifffile(data):
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page = file.pages[0]
        # others are colours only after a conversion
        assert page.photometric in (0, 1, 2) and page.bitspersample in (8, 16, 32)
        found = page.asarray(maxworkers=1)
    if page.planarconfig == 2 and found.ndim == 3:
        found = np.moveaxis(found, 0, -1)
    top = np.iinfo(found.dtype).max if found.dtype.kind == "u" else 1
    found = (found.reshape(*found.shape[:2], -1).astype(float) / top)[..., :3]
    return 1 - found if page.photometric == 0 else found[..., : 1 if page.photometric == 1 else 3]


def by_imagecodecs(data):
    assert data[:2] not in (b"II", b"MM")  # of TIFF it does not say what the samples mean
    found = imagecodecs.imread(data)
    found = found.reshape(*found.shape[:2], -1)[..., :3]
    return found.astype(float) / np.iinfo(found.dtype).max


def independent(data):
    """What other decoders find in a file; those that find nothing are left out."""
    decoders = [by_pillow, by_tifffile] + ([by_imagecodecs] if imagecodecs else [])
    for decode in decoders:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield decode(data)
        except Exception:  # whatever broken files do to them
            continue


def agree(ours, theirs):
    """Whether two decoders see one picture; at most an 8-bit step apart, as they round."""
    if ours.shape[:2] != theirs.shape[:2] or theirs.shape[2] not in (1, 3):
        return False
    return bool(np.abs(ours - theirs).max() <= 1.01 / 255)


def check(data):
    """Open a file, and if there is a picture compare it."""
    bit_depth_of([data])
    try:
        found = open_image(data, max_pixels=10_000)
    except ImageError as error:
        assert error.reason
        assert error.remedy
        assert "\n" not in str(error)
        return
    ours = found.pixels / np.iinfo(found.pixels.dtype).max
    others = list(independent(data))
    assert not others or any(agree(ours, theirs) for theirs in others), found.notes


def broken(data, choose):
    """A file that was cut, in which bytes were flipped, or whose beginning is another's."""
    damaged = bytearray(data)
    for _ in range(choose.randint(1, 3)):
        # headers are where the meaning is; half of all damage goes there
        end = min(len(damaged), 200) if choose.random() < 0.5 else len(damaged)
        at = choose.randrange(end) if end else 0
        how = choose.choice(["flip", "set", "cut", "swap", "insert"])
        if how == "flip" and end:
            damaged[at] ^= 1 << choose.randrange(8)
        elif how == "set" and end:
            damaged[at] = choose.randrange(256)
        elif how == "cut" and choose.random() < 0.3:
            del damaged[choose.randrange(len(damaged) + 1) :]
        elif how == "swap":
            other = FILES[choose.choice(list(FILES))]
            damaged[: choose.choice([2, 8, 30])] = other[: choose.choice([2, 8, 30])]
        elif how == "insert":
            damaged[at:at] = bytes(choose.randrange(256) for _ in range(choose.randint(1, 8)))
    return bytes(damaged)


@pytest.mark.parametrize("name", FILES)
def test_the_decoders_agree_on_sound_files(name):
    others = list(independent(FILES[name]))
    assert others
    found = open_image(FILES[name])
    ours = found.pixels / np.iinfo(found.pixels.dtype).max
    assert any(agree(ours, theirs) for theirs in others)


@given(name=st.sampled_from(list(FILES)), seed=st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_broken_files_never_show_wrong_pixels(name, seed):
    check(broken(FILES[name], random.Random(seed)))


@pytest.mark.soak
@given(name=st.sampled_from(list(FILES)), seed=st.integers(0, 2**32))
@settings(max_examples=500, deadline=None)
def test_many_broken_files_never_show_wrong_pixels(name, seed):
    check(broken(FILES[name], random.Random(seed)))

"""Show maps and regions on pictures.

Colours stand for fixed values: ``low`` and ``high`` come from the calibration and are the same
for all pictures of a run. No function here looks at a map's own minimum or maximum.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from PIL import Image, ImageDraw

from zerodefect.types import Region

_MAX_OPACITY = 0.8
SMALL_SIDE, FRAME_ROOM = 12, 4  # pixels: regions that get a frame, and its distance


def _make_ramp() -> np.ndarray:
    """Compute 256 sRGB colours from near-black violet over red and orange to pale yellow.

    Lightness rises evenly along the ramp, so that equal steps look equal and the order survives
    any colour blindness and a black-and-white printer. Computed in OKLab (Ottosson 2020).
    """
    t = np.linspace(0, 1, 256)
    lightness = 0.22 + 0.75 * t
    hue = np.deg2rad(290 + 180 * t)  # violet, red, orange, yellow
    chroma = np.interp(t, [0, 0.5, 0.8, 1], [0.08, 0.19, 0.15, 0.08])
    a, b = chroma * np.cos(hue), chroma * np.sin(hue)
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    red = 4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short
    green = -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short
    blue = -0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short
    linear = np.stack([red, green, blue], axis=1).clip(0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.rint(255 * encoded).astype(np.uint8)


RAMP = _make_ramp()
"""The colour ramp, uint8 ``(256, 3)``, for legends."""


def colorize(map: np.ndarray, low: float, high: float) -> np.ndarray:
    """Colour a map ``(H, W)`` by a fixed scale: uint8 RGB ``(H, W, 3)``.

    Args:
        map: any real values.
        low, high: values at the two ends of the ramp; values beyond take the end's colour.
            If they are equal, the map is split in two at that value.

    Raises:
        ValueError: if ``low > high``, a limit is not finite, or the map holds NaN.
    """
    return RAMP[np.rint(255 * _strength(map, low, high)).astype(np.uint8)]


def heat_rgba(map: np.ndarray, low: float, high: float) -> np.ndarray:
    """Colour a map ``(H, W)`` for laying over a picture: uint8 RGBA, the higher, the more opaque.

    Up to ``low`` the picture shows through untouched; from ``high`` on colour and opacity no longer
    grow. Alpha is not premultiplied. Raises as `colorize` does.
    """
    opacity = np.rint(255 * _MAX_OPACITY * _strength(map, low, high))
    return np.dstack([colorize(map, low, high), opacity.astype(np.uint8)])


def blend(pixels: np.ndarray, map: np.ndarray, low: float, high: float) -> np.ndarray:
    """Lay a map ``(H, W)`` over its picture, uint8 ``(H, W, 3)``, as `heat_rgba` colours it.

    Raises:
        ValueError: if the sizes differ, and as for `colorize`.
    """
    if pixels.shape[:2] != map.shape:
        raise ValueError(f"picture {pixels.shape[:2]} and map {map.shape} differ in size")
    heat = Image.fromarray(heat_rgba(map, low, high))
    return np.array(Image.alpha_composite(_image(pixels).convert("RGBA"), heat).convert("RGB"))


def draw_regions(pixels: np.ndarray, regions: Sequence[Region]) -> np.ndarray:
    """Outline regions on a copy of the picture.

    Lines are white between black edges, to be seen on any product.

    Args:
        pixels: uint8 ``(H, W, 3)``, the picture that the regions' coordinates refer to.
        regions: with outlines in pixels; a region without polygons is shown by its box.
    """
    image = _image(pixels).convert("RGB")
    draw = ImageDraw.Draw(image)
    line = max(1, round(max(image.size) / 500))
    outlines = [outline for region in regions for outline in region.polygons or [_corners(region)]]
    for thick, colour in ((3 * line, "black"), (line, "white")):
        for outline in outlines:
            draw.line([*outline, outline[0], outline[1]], fill=colour, width=thick, joint="curve")
    return np.array(image)


def laid_over(
    pixels: np.ndarray,
    map: np.ndarray | None,
    regions: Sequence[Region],
    size: tuple[int, int],
    colour_range: tuple[float, float] | None,
) -> np.ndarray:
    """Lay a map and the outlines of regions over their picture, or a smaller copy of it.

    Args:
        pixels: uint8 ``(H, W, 3)``, at any size.
        map: ``(h, w)`` at any size, or None.
        regions: in pixels of the whole picture; a small one gets a frame around it.
        size: ``(height, width)`` of the whole picture.
        colour_range: map values at the two ends of the ramp; None: the map is not shown.
    """
    height, width = pixels.shape[:2]
    if map is not None and colour_range is not None:
        pixels = blend(pixels, resize_map(map, height, width), *colour_range)
    across, down = width / size[1], height / size[0]
    return draw_regions(pixels, [_scale_region(region, across, down) for region in regions])


def thumbnail(pixels: np.ndarray, longest: int) -> np.ndarray:
    """Shrink uint8 ``(H, W, 3 or 4)`` until its longer side has at most ``longest`` pixels.

    The aspect ratio stays the same, to the pixel; nothing is enlarged.
    """
    image = _image(pixels)
    image.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    return np.array(image)


def resize_map(values: np.ndarray, height: int, width: int) -> np.ndarray:
    """A map ``(h, w)`` at another size, averaged where it shrinks."""
    # Pillow's bilinear filter averages over the source pixels when it shrinks.
    image = Image.fromarray(np.ascontiguousarray(values, dtype=np.float32))
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))


def _scale_region(region: Region, across: float, down: float) -> Region:
    """The region in the pixels of a smaller picture, so that its outline stays visible there."""
    x, y, width, height = region.box
    if max(width * across, height * down) < SMALL_SIDE:  # a frame around what an outline would hide
        left, top = math.floor(x * across) - FRAME_ROOM, math.floor(y * down) - FRAME_ROOM
        right = math.ceil((x + width) * across) + FRAME_ROOM - 1
        bottom = math.ceil((y + height) * down) + FRAME_ROOM - 1
        return replace(region, box=(left, top, right - left, bottom - top), polygons=())
    return replace(  # the mask stays as it is: it is not drawn
        region,
        box=(
            math.floor(x * across),
            math.floor(y * down),
            math.ceil(width * across),
            math.ceil(height * down),
        ),
        polygons=tuple(
            tuple(value * (down if place % 2 else across) for place, value in enumerate(points))
            for points in region.polygons
        ),
    )


def encode_jpeg(pixels: np.ndarray, quality: int = 90) -> bytes:
    """Encode uint8 ``(H, W)`` or ``(H, W, 3)`` as JPEG; quality 1 (small) to 95 (faithful)."""
    return _encode(pixels, "JPEG", quality=quality)


def jpeg_address(pixels: np.ndarray) -> str:
    """The same as an address that holds the picture itself, for pages that need nothing else."""
    return "data:image/jpeg;base64," + base64.b64encode(encode_jpeg(pixels)).decode("ascii")


def encode_png(pixels: np.ndarray) -> bytes:
    """Encode uint8 ``(H, W)``, ``(H, W, 3)``, ``(H, W, 4)`` or uint16 ``(H, W)`` as PNG, lossless.

    Raises:
        TypeError: for other shapes and types, uint16 colour among them.
    """
    return _encode(pixels, "PNG")


def _encode(pixels: np.ndarray, kind: str, **options: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, kind, **options)
    return buffer.getvalue()


def _strength(map: np.ndarray, low: float, high: float) -> np.ndarray:
    """Place values in [0, 1]: 0 at ``low`` and below, 1 at ``high`` and above."""
    if not (np.isfinite(low) and np.isfinite(high) and low <= high):
        raise ValueError(f"low must not exceed high, both finite: {low}, {high}")
    values = np.asarray(map, dtype=np.float64)
    if np.isnan(values).any():
        raise ValueError("the map holds NaN")
    if low == high:
        return (values >= high).astype(np.float64)
    return (values.clip(low, high) - low) / (high - low)


def _image(pixels: np.ndarray) -> Image.Image:
    if pixels.dtype != np.uint8:
        raise TypeError(f"pixels must be uint8, not {pixels.dtype}; see Picture.to_uint8")
    return Image.fromarray(np.ascontiguousarray(pixels))


def _corners(region: Region) -> tuple[float, ...]:
    x, y, width, height = region.box
    return x, y, x + width, y, x + width, y + height, x, y + height

"""Pictures: opening, finding, preparing them for networks, and drawing results on them."""

from zerodefect.images.decode import ImageError, Picture, open_image, picture_size
from zerodefect.images.find import find_images
from zerodefect.images.overlay import (
    blend,
    colorize,
    draw_regions,
    encode_jpeg,
    encode_png,
    heat_rgba,
    thumbnail,
)
from zerodefect.images.preprocess import CLIP_MEAN, CLIP_STD, Preprocess, normalised

__all__ = [
    "CLIP_MEAN",
    "CLIP_STD",
    "ImageError",
    "Picture",
    "Preprocess",
    "blend",
    "colorize",
    "draw_regions",
    "encode_jpeg",
    "encode_png",
    "find_images",
    "heat_rgba",
    "normalised",
    "open_image",
    "picture_size",
    "thumbnail",
]

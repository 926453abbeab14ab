"""Pictures: opening, finding, preparing them for networks, and drawing results on them."""

from zerodefect.images.decode import (
    ImageError,
    Picture,
    bit_depth_of,
    is_source,
    open_image,
    picture_size,
)
from zerodefect.images.depth import BitDepth
from zerodefect.images.find import find_images
from zerodefect.images.overlay import (
    blend,
    colorize,
    draw_regions,
    encode_jpeg,
    encode_png,
    heat_rgba,
    jpeg_address,
    laid_over,
    resize_map,
    thumbnail,
)
from zerodefect.images.preprocess import CLIP_MEAN, CLIP_STD, Preprocess, normalised

__all__ = [
    "CLIP_MEAN",
    "CLIP_STD",
    "BitDepth",
    "ImageError",
    "Picture",
    "Preprocess",
    "bit_depth_of",
    "blend",
    "colorize",
    "draw_regions",
    "encode_jpeg",
    "encode_png",
    "find_images",
    "heat_rgba",
    "is_source",
    "jpeg_address",
    "laid_over",
    "normalised",
    "open_image",
    "picture_size",
    "resize_map",
    "thumbnail",
]

"""The page that 'zerodefect components' leaves: the clusters of good pictures in colours."""

from __future__ import annotations

import colorsys
import shlex
from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from zerodefect.files import atomic_write
from zerodefect.images import jpeg_address, thumbnail
from zerodefect.reports.report_page import filled
from zerodefect.types import printable

_SHOWN = 6  # pictures, each as it is and with its clusters
_SIDE = 420  # pixels of the longer side
_CLUSTER_SIDE = 150
_EXAMPLES = 3  # pictures of one cluster
_LEAST = 12  # patches of a connected part that gets its number
_VEIL = 0.35  # brightness of what is not of the cluster

Shown = tuple[str, np.ndarray, np.ndarray]
"""Name, picture ``(H, W, 3)`` uint8, and number of each patch's cluster ``(h, w)`` from 1."""


def write_components_page(
    path: Path, heading: str, pictures: Sequence[Shown], count: int, file: Path
) -> None:
    """Write the page; it needs neither network nor script.

    Args:
        path: of the HTML file.
        heading: what the product is called.
        pictures: good ones with their clusters.
        count: of clusters.
        file: of the clusters, for the command that is shown.

    Raises:
        StoreError: the file cannot be written.
    """
    colours = [_colour(number, count) for number in range(count)]
    shares = np.stack(
        [
            np.bincount(numbers.ravel(), minlength=count + 1)[1:] / numbers.size
            for _, _, numbers in pictures
        ]
    )
    command = (
        f"zerodefect calibrate more-good/ --clusters {shlex.quote(str(file))} \\\n"
        "    --component 'liquid=cluster 3' --rule 'fill level as usual' --output product.zd"
    )
    parts = {
        "title": escape(f"{heading}: clusters"),
        "heading": escape(printable(heading)),
        "count": str(count),
        "pictures": "".join(_picture(one, colours) for one in pictures[:_SHOWN]),
        "clusters": "".join(
            _cluster(number, pictures, shares[:, number], colours[number])
            for number in range(count)
        ),
        "command": escape(command),
    }
    with atomic_write(path) as written:
        written.write(filled("components.html", parts).encode("utf-8", "replace"))


def _colour(number: int, count: int) -> tuple[int, int, int]:
    """Colours far apart in hue; neighbours in number differ in lightness, too."""
    hue = (number * 0.618034) % 1.0
    lightness = (0.45, 0.62, 0.36)[number % 3]
    red, green, blue = colorsys.hls_to_rgb(hue, lightness, 0.75)
    return round(255 * red), round(255 * green), round(255 * blue)


def _picture(one: Shown, colours: Sequence[tuple[int, int, int]]) -> str:
    name, pixels, numbers = one
    plain = thumbnail(pixels, _SIDE)
    size = plain.shape[1], plain.shape[0]
    flat = np.array(colours, np.uint8)[numbers - 1]
    large = np.asarray(Image.fromarray(flat).resize(size, Image.Resampling.NEAREST), np.float32)
    mixed = Image.fromarray((0.4 * plain + 0.6 * large).astype(np.uint8))
    _write_numbers(mixed, numbers)
    label = escape(printable(name))
    return (
        f'<figure class="pair"><img src="{jpeg_address(plain)}" alt="{label}">'
        f'<img src="{jpeg_address(np.asarray(mixed))}" alt="Clusters of {label}">'
        f"<figcaption>{label}</figcaption></figure>"
    )


def _write_numbers(picture: Image.Image, numbers: np.ndarray) -> None:
    """Each cluster's number in the middle of its connected parts, the small ones left out."""
    pen = ImageDraw.Draw(picture)
    font = ImageFont.load_default(13)
    across, down = picture.width / numbers.shape[1], picture.height / numbers.shape[0]
    for number in np.unique(numbers):
        parts, count = ndimage.label(numbers == number)
        for part in range(1, count + 1):
            inside = parts == part
            if inside.sum() < _LEAST:
                continue
            depth = ndimage.distance_transform_edt(np.pad(inside, 1))[1:-1, 1:-1]
            row, column = np.unravel_index(int(depth.argmax()), depth.shape)
            at = (column + 0.5) * across, (row + 0.5) * down
            name = str(number)
            pen.text(at, name, "white", font, "mm", stroke_width=2, stroke_fill="black")


def _cluster(
    number: int, pictures: Sequence[Shown], shares: np.ndarray, colour: tuple[int, int, int]
) -> str:
    """A cluster alone, in the pictures that show most of it."""
    chosen = [pictures[place] for place in np.argsort(-shares, kind="stable")[:_EXAMPLES]]
    images = []
    for name, pixels, numbers in chosen:
        small = thumbnail(pixels, _CLUSTER_SIDE)
        inside = Image.fromarray(numbers == number + 1).resize(
            (small.shape[1], small.shape[0]), Image.Resampling.NEAREST
        )
        tinted = 0.5 * small + 0.5 * np.array(colour)
        lit = np.where(np.asarray(inside)[..., None], tinted, _VEIL * small).astype(np.uint8)
        label = escape(printable(f"Cluster {number + 1} in {name}"))
        images.append(f'<img src="{jpeg_address(lit)}" alt="{label}">')
    swatch = f'<i style="background:rgb{colour}"></i>'
    return (
        f'<li class="cluster"><h3>{swatch} cluster {number + 1}</h3>'
        f'<p class="quiet">{100 * shares.mean():.2g} % of the pictures</p>{"".join(images)}</li>'
    )

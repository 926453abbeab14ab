"""Masks that no picture holds: areas as labelling tools store them, drawn when they are needed.

A pixel belongs to an outline if its centre lies inside (even-odd rule, so that an outline that is
led into a hole and back leaves the hole free); several areas of one picture are united.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from zerodefect.data.mask_files import orientation_of, size_fault
from zerodefect.images import ImageError, open_image, picture_size
from zerodefect.images.run_lengths import counts_from_text, runs_to_pixels, unpack_brush

Size = tuple[int, int]  # width, height
Points = tuple[float, ...]  # x0, y0, x1, y1, ...

_CORNERS_OF_ELLIPSE = 180  # the outline strays from the ellipse by a 6500th of its radius
_SLACK = 0.01  # of a side: tools let outlines reach so far over the edge of the picture
_SLACK_PIXELS = 2.0
_FAR = 1e7
# How stored pixels become upright, by the EXIF orientations that swap width and height.
_TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    **{5: np.transpose, 6: lambda p: np.rot90(p, -1)},
    **{7: lambda p: p[::-1, ::-1].T, 8: np.rot90},
}


class Area(Protocol):
    """A part of a picture that somebody has marked."""

    def draw(self, width: int, height: int) -> np.ndarray:
        """Give its pixels, boolean ``(height, width)``.

        Raises:
            ValueError: it does not fit the picture, or is damaged.
        """


@dataclass(frozen=True)
class Outline:
    """A closed polygon.

    Attributes:
        points: corners in pixels from the upper left corner of the picture; the first pixel covers
            the square from 0 to 1.
        relative: they are shares of the width and height instead.
        reaching: it may reach beyond the picture, as a turned box or an ellipse does; otherwise
            an outline that does was drawn on another picture, and is refused.
    """

    points: Points
    relative: bool = False
    reaching: bool = False

    def draw(self, width: int, height: int) -> np.ndarray:
        """See ``Area``."""
        corners = np.array(self.points, np.float64).reshape(-1, 2)
        corners = corners * (width, height) if self.relative else corners
        beyond = np.maximum(-corners, corners - (width, height)).max(axis=0)
        slack = np.maximum(_SLACK_PIXELS, np.multiply(_SLACK, (width, height)))
        if not (np.abs(corners) < _FAR).all() or (not self.reaching and (beyond > slack).any()):
            raise ValueError(f"an outline reaches {beyond.max():.4g} pixels out of its picture")
        pixels = fill_outline(corners, width, height)
        if self.reaching and not pixels.any():
            raise ValueError("an area lies outside its picture")
        return pixels


def fill_outline(corners: np.ndarray, width: int, height: int) -> np.ndarray:
    """Give the pixels ``(height, width)`` whose centres lie inside a polygon ``(N, 2)`` of x, y."""
    (x, y), (next_x, next_y) = corners.T, np.roll(corners, -1, axis=0).T
    # Rows whose middle each edge crosses: from `first` to before `last`.
    first, last = (
        np.clip(np.ceil(side(y, next_y) - 0.5), 0, height).astype(np.int64)
        for side in (np.minimum, np.maximum)
    )
    counts = last - first
    edge = np.repeat(np.arange(len(counts)), counts)
    row = first[edge] + np.arange(len(edge)) - np.repeat(np.cumsum(counts) - counts, counts)
    share = (row + 0.5 - y[edge]) / (next_y - y)[edge]
    crossing = x[edge] + share * (next_x - x)[edge]
    column = np.clip(np.ceil(crossing - 0.5), 0, width).astype(np.int64)
    pixels = np.zeros((height, width), np.bool_)
    if len(row):
        top, left, right = row.min(), column.min(), column.max()
        crossed = np.zeros((row.max() + 1 - top, right + 1 - left), np.uint8)
        np.add.at(crossed, (row - top, column - left), 1)
        odd = np.add.accumulate(crossed[:, :-1], axis=1, dtype=np.uint8) & 1
        pixels[top : row.max() + 1, left:right] = odd
    return pixels


def box_outline(x: float, y: float, width: float, height: float, degrees: float = 0.0) -> Outline:
    """Make a box, turned clockwise about its upper left corner ``x, y``; all in pixels."""
    corners = ((0.0, 0.0), (width, 0.0), (width, height), (0.0, height))
    return Outline(_turned(corners, x, y, degrees), reaching=degrees % 360 != 0)


def centred_box(x: float, y: float, width: float, height: float, degrees: float) -> Outline:
    """Make a box, turned clockwise about its centre ``x, y``; all in pixels."""
    w, h = width / 2, height / 2
    corners = ((-w, -h), (w, -h), (w, h), (-w, h))
    return Outline(_turned(corners, x, y, degrees), reaching=degrees % 360 != 0)


def ellipse_outline(x: float, y: float, rx: float, ry: float, degrees: float) -> Outline:
    """Make an ellipse, turned clockwise about its centre ``x, y``; all in pixels."""
    angles = (2 * math.pi * i / _CORNERS_OF_ELLIPSE for i in range(_CORNERS_OF_ELLIPSE))
    corners = ((rx * math.cos(angle), ry * math.sin(angle)) for angle in angles)
    return Outline(_turned(corners, x, y, degrees), reaching=True)


def _turned(corners: Iterable[tuple[float, float]], x: float, y: float, degrees: float) -> Points:
    """Turn corners about the origin, clockwise since y points down, and move them to ``x, y``."""
    sine, cosine = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
    moved = ((x + cosine * u - sine * v, y + sine * u + cosine * v) for u, v in corners)
    return tuple(value for corner in moved for value in corner)


@dataclass(frozen=True)
class Runs:
    """Lengths of runs, background first.

    Attributes:
        counts: the lengths, or COCO's compressed text of them.
        size: width and height of the box that they fill.
        corner: upper left corner of that box in the picture; None where it is the whole picture.
        by_columns: they run down columns (COCO), not along rows (CVAT).
    """

    counts: tuple[int, ...] | str
    size: Size
    corner: tuple[int, int] | None = None
    by_columns: bool = True

    def draw(self, width: int, height: int) -> np.ndarray:
        """See ``Area``."""
        (w, h), (x, y) = self.size, self.corner or (0, 0)
        if self.corner is None and (w, h) != (width, height):
            reason = f"its RLE is of {w} x {h} pixels, the labelled picture of {width} x {height}"
            raise ValueError(reason)
        if min(x, y, w, h) < 0 or x + w > width or y + h > height:
            raise ValueError(f"its RLE reaches out of the picture ({w} x {h} at {x}, {y})")
        counts = counts_from_text(self.counts) if isinstance(self.counts, str) else self.counts
        filled = runs_to_pixels(counts, w * h)
        pixels = np.zeros((height, width), np.bool_)
        inside = filled.reshape(w, h).T if self.by_columns else filled.reshape(h, w)
        pixels[y : y + h, x : x + w] = inside
        return pixels


@dataclass(frozen=True)
class Brush:
    """A brush of Label Studio: its ``value.rle`` as bytes; see ``unpack_brush``."""

    data: bytes

    def draw(self, width: int, height: int) -> np.ndarray:
        """See ``Area``. A pixel is marked if its opacity, the last of its four values, is more
        than half of the highest: programs write 1 as well as 255, and edges of a brush are soft.
        """
        opacity = unpack_brush(self.data, 4 * width * height)[3::4].reshape(height, width)
        return np.asarray(opacity > opacity.max() / 2)


@dataclass(frozen=True)
class ColouredFile:
    """A picture whose colours say what is marked, on a background that need not be black.

    Attributes:
        path: the picture.
        colours: those of marked areas, as 0xRRGGBB.
        background: those of the rest.
    """

    path: Path = field(repr=False)  # a moved data set is the same one
    colours: tuple[int, ...]
    background: tuple[int, ...]

    def codes(self) -> np.ndarray:
        """Read its colours, ``(H, W)`` as 0xRRGGBB.

        Raises:
            ImageError: it cannot be read.
            ValueError: one of its colours is not listed.
        """
        red, green, blue = np.moveaxis(open_image(self.path).to_uint8().astype(np.int64), 2, 0)
        codes: np.ndarray = red << 16 | green << 8 | blue
        strange = np.setdiff1d(codes, [*self.colours, *self.background])
        if len(strange):
            shown = ", ".join(f"#{code:06x}" for code in strange[:3])
            raise ValueError(f"colours of {self.path.name} are in no list of classes ({shown})")
        return codes

    def draw(self, width: int, height: int) -> np.ndarray:
        """See ``Area``."""
        codes = self.codes()
        if codes.shape != (height, width):
            h, w = codes.shape
            reason = f"{self.path.name} is of {w} x {h} pixels, its picture of {width} x {height}"
            raise ValueError(reason)
        return np.isin(codes, self.colours)


@dataclass(frozen=True)
class DrawnMask:
    """The areas that are marked in one picture.

    Attributes:
        where: file and entry that say so, for errors.
        areas: the marked areas.
        size: width and height that the labelling tool saw, or None where it does not say. It must
            be the picture's: upright, or as stored before EXIF turns it; then the mask is turned
            with it.
    """

    where: str
    areas: tuple[Area, ...]
    size: Size | None = None

    def __str__(self) -> str:
        return self.where

    def facts(self) -> str:
        """Say all that the pixels follow from, for fingerprints."""
        return f"{self.size} {self.areas}"

    def size_fault(self, image: Path, wanted: Size) -> tuple[str, str] | None:
        """Say that the labelled picture had another size than ``image``, and what to do."""
        if self.size is None or (self.size == wanted[::-1] and orientation_of(image) > 4):
            return None
        return size_fault(self.size, image, wanted)

    def pixels(self, image: Path) -> np.ndarray:
        """Draw the areas over their picture as it is upright.

        Returns:
            Boolean array ``(H, W)``.

        Raises:
            ImageError: sizes differ, an area is damaged or lies outside, or the picture cannot be
                read.
        """
        wanted = picture_size(image)
        if fault := self.size_fault(image, wanted):
            raise ImageError(self.where, *fault)
        width, height = self.size or wanted
        try:
            drawn = np.logical_or.reduce([area.draw(width, height) for area in self.areas])
        except ValueError as error:
            if isinstance(error, ImageError):
                raise
            raise ImageError(self.where, str(error), "Correct it, and export it anew") from None
        turned = (width, height) != wanted
        return np.ascontiguousarray(_TURNS[orientation_of(image)](drawn) if turned else drawn)


Mask = Path | DrawnMask

"""Run-length encoding of masks in COCO's compressed text form.

A mask is read column by column; the lengths of its runs, beginning with background, are
written as text: from the fourth run on as the difference to the run two before, five bits per
character, least significant first, the sixth bit saying that more follows, shifted by 48
(Lin et al., "Microsoft COCO", ECCV 2014; the annotation format of the COCO data set).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypedDict

import numpy as np

from zerodefect.types import Region


class RLE(TypedDict):
    """A mask as COCO writes it.

    ``size`` is ``[height, width]`` in pixels, ``counts`` the text of the run lengths.
    """

    size: list[int]
    counts: str


def region_rle(region: Region, height: int, width: int) -> RLE:
    """Encode a region's mask within its ``height`` x ``width`` image, holes included.

    Raises:
        ValueError: the region does not lie within the image.
    """
    x, y, box_width, box_height = region.box
    if x < 0 or y < 0 or x + box_width > width or y + box_height > height:
        raise ValueError(f"region {region.box} lies outside the {width} x {height} image")
    starts, ends = _column_runs(region.mask)
    starts, ends = _place(starts, box_height, x, y, height), _place(ends, box_height, x, y, height)
    return RLE(size=[height, width], counts=_to_text(_counts(starts, ends, height * width)))


def encode_rle(mask: np.ndarray) -> RLE:
    """Encode a boolean mask ``(H, W)``."""
    height, width = mask.shape
    starts, ends = _column_runs(mask)
    starts, ends = _place(starts, height, 0, 0, height), _place(ends, height, 0, 0, height)
    return RLE(size=[height, width], counts=_to_text(_counts(starts, ends, height * width)))


def decode_rle(rle: RLE) -> np.ndarray:
    """Decode to a boolean mask ``(H, W)``.

    Raises:
        ValueError: the text is damaged or does not fit the size.
    """
    height, width = rle["size"]
    return decode_rle_box(rle, (0, 0, width, height))


def decode_rle_box(rle: RLE, box: tuple[int, int, int, int]) -> np.ndarray:
    """Decode the part inside ``box`` = (x, y, width, height): boolean ``(height, width)``.

    The work grows with the mask's area, not with the image's: thousands of small regions of a
    large image decode quickly.

    Raises:
        ValueError: the text is damaged, does not fit the size, or the mask leaves the box.
    """
    height, width = rle["size"]
    counts = np.array(_from_text(rle["counts"]), dtype=np.int64)
    if (counts < 0).any() or counts.sum() != height * width:
        raise ValueError(f"run lengths do not fit a {width} x {height} image")
    ends = np.cumsum(counts)
    lengths = counts[1::2]
    # Position of every foreground pixel: its run's start plus its place within the run.
    place = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    position = np.repeat(ends[1::2] - lengths, lengths) + place
    x, y, box_width, box_height = box
    column, row = position // max(height, 1) - x, position % max(height, 1) - y
    if ((column < 0) | (column >= box_width) | (row < 0) | (row >= box_height)).any():
        raise ValueError(f"the mask leaves its box {box}")
    mask = np.zeros((box_height, box_width), dtype=bool)
    mask[row, column] = True
    return mask


def _column_runs(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Starts and ends of the runs of every column, as (column, row) rows of two arrays."""
    columns = np.pad(np.asarray(mask, dtype=np.int8).T, ((0, 0), (1, 1)))
    change = np.diff(columns, axis=1)
    return np.argwhere(change == 1), np.argwhere(change == -1)


def _place(points: np.ndarray, box_height: int, x: int, y: int, height: int) -> np.ndarray:
    """Column-major positions in the image of (column, row) points of the box at ``x, y``."""
    return (points[:, 0] + x) * height + points[:, 1] + y


def _counts(starts: np.ndarray, ends: np.ndarray, total: int) -> list[int]:
    """Alternating run lengths, background first."""
    # A run that reaches the bottom goes on at the top of the next column.
    apart = ends[:-1] != starts[1:]
    starts = np.concatenate([starts[:1], starts[1:][apart]])
    ends = np.concatenate([ends[:-1][apart], ends[-1:]])
    edges = np.empty(2 * len(starts) + 1, dtype=np.int64)
    edges[0:-1:2], edges[1::2], edges[-1] = starts, ends, total
    counts = np.diff(edges, prepend=0).tolist()
    return counts[:-1] if counts[-1] == 0 and len(counts) > 1 else counts


def _to_text(counts: Iterable[int]) -> str:
    counts = list(counts)
    characters = []
    for i, count in enumerate(counts):
        value = count - counts[i - 2] if i > 2 else count
        more = True
        while more:
            bits = value & 0x1F
            value >>= 5
            more = value != (-1 if bits & 0x10 else 0)  # the sign bit must be carried over
            characters.append(chr(48 + bits + (0x20 if more else 0)))
    return "".join(characters)


def _from_text(text: str) -> list[int]:
    counts: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64:
            raise ValueError(f"{character!r} does not belong into a run-length text")
        value |= (bits & 0x1F) << shift
        shift += 5
        if bits & 0x20:
            continue
        if bits & 0x10:
            value -= 1 << shift
        counts.append(value + counts[-2] if len(counts) > 2 else value)
        value = shift = 0
    if shift:
        raise ValueError("the run-length text is cut off")
    return counts

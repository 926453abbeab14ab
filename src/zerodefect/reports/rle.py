"""Run-length encoding of masks in COCO's compressed text form.

A mask is read column by column; the lengths of its runs, beginning with background, are
written as text: from the fourth run on as the difference to the run two before, five bits per
character, least significant first, the sixth bit saying that more follows, shifted by 48
(Lin et al., "Microsoft COCO", ECCV 2014; the annotation format of the COCO data set).
"""

from __future__ import annotations

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
    change = np.diff(np.pad(region.mask.T.astype(np.int8), ((0, 0), (1, 1))), axis=1)
    # Where the runs of each column begin and end, counted through the image column by column.
    starts, ends = (
        (columns + x) * height + rows + y
        for columns, rows in (np.nonzero(change == 1), np.nonzero(change == -1))
    )
    # A run that reaches the bottom goes on at the top of the next column: end and start cancel.
    edges = np.setxor1d(starts, ends, assume_unique=True)
    counts = np.diff(edges, prepend=0, append=height * width).tolist()
    if counts[-1] == 0 and len(counts) > 1:
        counts.pop()
    return RLE(size=[height, width], counts=_to_text(counts))


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


def _to_text(counts: list[int]) -> str:
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

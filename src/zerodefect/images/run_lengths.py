"""Masks as lengths of runs, as COCO, CVAT and Label Studio store them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_MOST_BITS = 60  # of one length; what goes on for longer is no length of a run
_HEAD_BITS = 32 + 5 + 4 * 4


def counts_to_text(counts: Sequence[int]) -> str:
    """Write lengths of runs as COCO's compressed text.

    From the fourth run on as the difference to the run two before; five bits per character, least
    significant first, the sixth bit saying that more follows, shifted by 48 (Lin et al.,
    "Microsoft COCO", ECCV 2014; the annotation format of the COCO data set).
    """
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


def counts_from_text(text: str) -> list[int]:
    """Read the lengths of runs that ``counts_to_text`` writes.

    Raises:
        ValueError: a sign does not belong there, or the text ends within a length.
    """
    counts: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > _MOST_BITS:
            raise ValueError(f"its run lengths are no compressed COCO text (at {character!r})")
        value |= (bits & 0x1F) << shift
        shift += 5
        if not bits & 0x20:
            value -= (bits & 0x10) << (shift - 4)  # the sign
            counts.append(value + counts[-2] if len(counts) > 2 else value)
            value = shift = 0
    if shift:
        raise ValueError("its run lengths are cut off")
    return counts


def runs_to_pixels(counts: Sequence[int], length: int) -> np.ndarray:
    """Fill runs that alternate between background, which is first, and mask.

    Returns:
        Boolean array ``(length,)``.

    Raises:
        ValueError: the runs do not cover exactly ``length`` pixels, or one is no length.
    """
    if any(type(count) is not int or count < 0 for count in counts):
        raise ValueError("a run length is no whole number from 0 on")
    if (total := sum(counts)) != length:
        raise ValueError(f"its run lengths cover {total} pixels, not {length}")
    return np.repeat(np.arange(len(counts)) % 2 == 1, counts)


def unpack_brush(data: bytes, length: int) -> np.ndarray:
    """Read the bit-packed runs in which Label Studio stores brushes.

    Most significant bit first: 32 bits hold the number of values, 5 the width of a value less one,
    4 x 4 the four widths of lengths less one. Then runs: a bit that says whether one value is
    repeated or each is given, two bits that choose the width of the length, the length less one,
    and the value or values (the format rle-pack, as ``label_studio_sdk.converter.brush`` reads it).

    Args:
        data: the bytes of ``value.rle``.
        length: values that there must be: four per pixel, row by row (red, green, blue, alpha).

    Returns:
        uint8 array ``(length,)``.

    Raises:
        ValueError: it is cut off, or holds another number of values.
    """
    bits = f"{int.from_bytes(data, 'big'):0{8 * len(data)}b}"
    if len(bits) < _HEAD_BITS:
        raise ValueError("its RLE is cut off")
    if (found := int(bits[:32], 2)) != length:
        raise ValueError(f"its RLE holds {found / 4:g} pixels, not {length // 4}")
    width = int(bits[32:37], 2) + 1
    widths = [int(bits[at : at + 4], 2) + 1 for at in range(37, _HEAD_BITS, 4)]
    if width > 8:
        raise ValueError(f"its RLE has values of {width} bits, not of 8")
    values = np.zeros(length, np.uint8)
    at, done = _HEAD_BITS, 0
    while done < length:
        size = widths[int(bits[at + 1 : at + 3] or "0", 2)]
        repeated, run = bits[at : at + 1] == "1", bits[at + 3 : at + 3 + size]
        at += 3 + size
        count = int(run or "0", 2) + 1
        given = 1 if repeated else count
        if at + given * width > len(bits) or done + count > length:
            raise ValueError("its RLE is cut off or damaged")
        words = [int(bits[i : i + width], 2) for i in range(at, at + given * width, width)]
        values[done : done + count] = words
        at += given * width
        done += count
    return values

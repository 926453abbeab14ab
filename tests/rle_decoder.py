"""Reads COCO's compressed run lengths back, by another way than they are written."""

from __future__ import annotations

import numpy as np


def run_lengths(text: str) -> list[int]:
    counts: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        assert 0 <= bits < 64
        value |= (bits & 0x1F) << shift
        shift += 5
        if not bits & 0x20:
            value -= (bits & 0x10) << (shift - 4)  # the sign
            counts.append(value + counts[-2] if len(counts) > 2 else value)
            value = shift = 0
    assert shift == 0
    return counts


def decode_rle(rle: dict) -> np.ndarray:
    """The mask of the whole image, boolean ``(height, width)``."""
    height, width = rle["size"]
    counts = run_lengths(rle["counts"])
    flat = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    return flat.reshape(width, height).T


def in_box(mask: np.ndarray, box: tuple[int, int, int, int]) -> np.ndarray:
    """The part of a mask inside ``(x, y, width, height)``; it must not reach out of it."""
    x, y, width, height = box
    inside = mask[y : y + height, x : x + width]
    assert inside.sum() == mask.sum()
    return inside

"""float32 scores as integers that sort alike, and a score with its region's area in one integer."""

from __future__ import annotations

import numpy as np

_SIGN = np.uint32(1 << 31)
_LOW = np.uint64((1 << 32) - 1)
_SHIFT = np.uint64(32)


def order_key(scores: np.ndarray) -> np.ndarray:
    """uint32 keys, of which ``a < b`` exactly where the finite float32 ``scores`` are.

    A negative zero must have been turned into zero before.
    """
    bits = scores.view(np.uint32)
    # All bits of a negative number are turned, of a positive one only the sign.
    negative = (bits.view(np.int32) >> 31).view(np.uint32)
    return bits ^ (negative | _SIGN)


def score_of(keys: np.ndarray) -> np.ndarray:
    """The float32 scores of :func:`order_key`'s keys."""
    negative = ((keys >> np.uint32(31)) ^ np.uint32(1)) * np.uint32(0xFFFFFFFF)
    return (keys ^ (negative | _SIGN)).view(np.float32)


def pack(scores: np.ndarray, areas: np.ndarray) -> np.ndarray:
    """uint64 records of float32 scores and areas in [0, 2^32).

    Ascending records are descending scores, and equal scores ascending areas: one order for a set
    of records however it was split, so that sums over it round alike.
    """
    return (~order_key(scores)).astype(np.uint64) << _SHIFT | areas.astype(np.uint64)


def unpack(records: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scores (float32) and weights (float64, ``1 / area``; 0 for area 0) of packed records."""
    scores = score_of(~(records >> _SHIFT).astype(np.uint32))
    areas = (records & _LOW).astype(np.float64)
    weights = np.divide(1.0, areas, out=np.zeros_like(areas), where=areas > 0)
    return scores, weights

"""How many bits of 16-bit pictures a camera uses: stated once, or inferred once from many.

A 16-bit file does not say where white is. Cameras of 10, 12 and 14 bits write values up to 1023,
4095 and 16383, or the same shifted up to the top. No picture is ever judged by itself: a dark one
would become a bright one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from zerodefect.images.samples import FULL_SCALE, FaultError

T = TypeVar("T")

DEPTHS = (8, 10, 12, 14, 16)  # of the cameras that there are
LOWEST, HIGHEST = 8, 16  # that may be stated
_TOO_DARK = 64  # of 65535; below, noise could be taken for a picture
_SEEN = 24  # pictures that are looked at


@dataclass(frozen=True)
class BitDepth:
    """The bits that a number of 16-bit pictures use.

    Attributes:
        bits: 8, 10, 12, 14 or 16; None where all are too dark to tell.
        brightest: largest value, hot pixels aside.
        shifted: bits below the values that are always zero, because data are shifted up.
    """

    bits: int | None
    brightest: int
    shifted: int = 0

    def __str__(self) -> str:
        """What was found, and the option that states it."""
        if self.bits is None:
            return (
                f"16-bit pictures with no value above {self.brightest} are too dark to tell how "
                "many bits the camera uses; state them with --bit-depth (in Python bit_depth=...)"
            )
        found = f"16-bit pictures with values up to {self.brightest}"
        if self.shifted:
            found += f", multiples of {2**self.shifted} ({16 - self.shifted} bits shifted up)"
        return (
            f"{found} are read as {self.bits} bits; if the camera uses another number, state it: "
            f"--bit-depth {self.bits} (in Python bit_depth={self.bits})"
        )


def infer_bit_depth(pictures: Iterable[np.ndarray]) -> BitDepth | None:
    """The bits that 16-bit pictures of one camera use together.

    Args:
        pictures: stored values of each, uint16 ``(H, W)`` or ``(H, W, C)``.

    Returns:
        What was found, or None without pictures.
    """
    highest, low_bits = -1, np.zeros(17, np.int64)
    for values in pictures:
        highest = max(highest, brightest(values))
        low_bits += _trailing_zeros(values)
    if highest < 0:
        return None
    if highest < _TOO_DARK:
        return BitDepth(None, highest)
    # a few hot pixels may have any value
    shifts = [16 - bits for bits in DEPTHS if low_bits[16 - bits :].sum() >= 0.999 * low_bits.sum()]
    shifted = max(shifts, default=0)
    if shifted and highest >= 4096:
        return BitDepth(16, highest, shifted)
    return BitDepth(next(bits for bits in DEPTHS if highest < 2**bits), highest)


def brightest(values: np.ndarray) -> int:
    """The largest value that all pixels of some 2 x 2 block reach, so that hot ones do not count.

    Hot pixels, and hot rows or columns, are one pixel wide.
    """
    for axis in (0, 1):
        if values.shape[axis] > 1:
            ahead, behind = (
                (values[1:], values[:-1])
                if axis == 0
                else (
                    values[:, 1:],
                    values[:, :-1],
                )
            )
            values = np.minimum(ahead, behind)
    return int(values.max())


def _trailing_zeros(values: np.ndarray) -> np.ndarray:
    """Pixels by the number of low bits that are zero, 0 to 16; black ones tell nothing."""
    values = values[values > 0].astype(np.int32)
    return np.bincount(np.log2(values & -values).astype(np.int64), minlength=17)


def spread(values: np.ndarray, bits: int) -> np.ndarray:
    """Spread values up to ``2**bits - 1`` over the 16-bit range; hot pixels above are white.

    Args:
        values: uint16, of any shape ``(H, W, C)``.
        bits: 8 to 16.

    Raises:
        FaultError: the picture has more bits.
    """
    white = 2**bits - 1
    if white == FULL_SCALE:
        return values
    highest = brightest(values)
    if highest > white:
        zeros = _trailing_zeros(values)
        if zeros[16 - bits :].sum() >= 0.999 * zeros.sum():
            reason = f"its {bits} bits are shifted up by {16 - bits}, to the top of 16"
            raise FaultError(reason, "State --bit-depth 16 (in Python bit_depth=16)")
        reason = f"its brightest value {highest} does not fit in {bits} bits"
        raise FaultError(reason, f"State --bit-depth {depth_for(highest)}, or the camera's own")
    inside = np.minimum(values, white).astype(np.uint32)
    return ((inside * FULL_SCALE + white // 2) // white).astype(np.uint16)


def depth_for(value: int) -> int:
    """The smallest usual number of bits that holds a value."""
    return next(bits for bits in DEPTHS if value < 2**bits)


def some_of(sources: Sequence[T]) -> list[T]:
    """Pictures to look at, spread evenly over all."""
    if len(sources) <= _SEEN:
        return list(sources)
    places = np.linspace(0, len(sources) - 1, _SEEN).round().astype(int)
    return [sources[place] for place in places]

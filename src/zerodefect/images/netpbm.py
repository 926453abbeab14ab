"""Netpbm pictures (PBM, PGM, PPM; Netpbm's own format pages), with all their bits."""

from __future__ import annotations

import re

import numpy as np

from zerodefect.images import formats
from zerodefect.images.samples import FULL_SCALE, FaultError, Raw, check_size

_WORD = re.compile(rb"(?:\s|#[^\n\r]*[\n\r])*([0-9]+)")
_COMMENT = re.compile(rb"#[^\n\r]*")


def from_netpbm(data: bytes, max_pixels: int) -> Raw:
    """Read the first picture of a file of kind P1 to P6.

    Raises:
        FaultError: it is cut off, or its header or values make no sense.
    """
    kind, position = int(data[1:2]), 2
    header: list[int] = []
    while len(header) < (2 if kind in (1, 4) else 3):
        found = _WORD.match(data, position)
        if found is None or len(found[1]) > 9:
            raise FaultError(formats.DAMAGED + ": its header makes no sense")
        header.append(int(found[1]))
        position = found.end()
    width, height, white = *header[:2], header[2] if len(header) > 2 else 1
    check_size(width, height, max_pixels)
    if not 1 <= white <= FULL_SCALE:
        raise FaultError(formats.DAMAGED + f": its largest value is given as {white}")
    shape = (height, width, 3) if kind in (3, 6) else (height, width)
    if kind < 4:
        samples = _words(data[position:], shape, bits=kind == 1)
    else:  # one white space ends the header
        samples = _binary(data[position + 1 :], shape, kind, white)
    if samples.max() > white:
        raise FaultError(formats.DAMAGED + f": a value exceeds the stated largest, {white}")
    return _scaled(1 - samples if kind in (1, 4) else samples, white)


def _words(body: bytes, shape: tuple[int, ...], bits: bool) -> np.ndarray:
    body = _COMMENT.sub(b" ", body)
    found = re.findall(rb"[01]" if bits else rb"[0-9]+", body)
    if len(found) < np.prod(shape):
        raise FaultError(formats.ENDS_EARLY)
    if max(map(len, found)) > 9:
        raise FaultError(formats.DAMAGED + ": a value is too large")
    return np.array(found[: int(np.prod(shape))], dtype=np.int64).reshape(shape)


def _binary(body: bytes, shape: tuple[int, ...], kind: int, white: int) -> np.ndarray:
    across = -(-shape[1] // 8) if kind == 4 else int(np.prod(shape[1:]))
    stored = np.dtype(np.uint8 if white < 256 else ">u2")
    if len(body) < shape[0] * across * stored.itemsize:
        raise FaultError(formats.ENDS_EARLY)
    values = np.frombuffer(body, stored, shape[0] * across)
    if kind < 5:
        bits = np.unpackbits(values.astype(np.uint8).reshape(shape[0], across), axis=1)
        return bits[:, : shape[1]]
    return values.reshape(shape)


def _scaled(samples: np.ndarray, white: int) -> Raw:
    """Values up to ``white`` as 8 bits or 16; where they are 16-bit ones, or say how many."""
    if white == FULL_SCALE:  # what many cameras write, however many bits they use
        return Raw(samples.astype(np.uint16), [])
    if white > 255:
        wide = (samples.astype(np.uint32) * FULL_SCALE + white // 2) // white
        return Raw(wide.astype(np.uint16), [], bits=16)
    return Raw(((samples.astype(np.uint16) * 255 + white // 2) // white).astype(np.uint8), [])

"""From samples of any kind to upright RGB pixels."""

from __future__ import annotations

import numpy as np

from zerodefect.images.depth import infer_bit_depth, spread
from zerodefect.images.samples import FULL_SCALE, FaultError, Raw, note_orientation

_HALF_STEP = 0.5 / FULL_SCALE


def to_rgb(raw: Raw, bit_depth: int | None) -> np.ndarray:
    """Bring samples to contiguous uint8 or uint16 ``(H, W, 3)``, upright, alpha on white."""
    samples = to_unsigned(raw)
    colours, alpha = split_alpha(samples)
    if samples.dtype == np.uint16:
        bits = raw.bits or bit_depth
        if bits is None:
            _note_depth(colours, raw.notes)
        elif alpha is not None and int(alpha.max()) < 2**bits:
            alpha = spread(alpha, bits)
        colours = spread(colours, bits or 16)
    if raw.inverted:
        colours = np.iinfo(colours.dtype).max - colours
    if alpha is not None and alpha.min() < np.iinfo(alpha.dtype).max:
        colours = _shown(colours, alpha, raw.notes)
    if colours.shape[2] == 1:
        colours = np.repeat(colours, 3, axis=2)
    note_orientation(raw.notes, raw.orientation)
    return np.ascontiguousarray(_turn(colours, raw.orientation))


def split_alpha(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """``(H, W, 1 or 3)``, and alpha ``(H, W, 1)`` where there is any."""
    samples = samples.reshape(*samples.shape[:2], -1)
    channels = samples.shape[2]
    if not 1 <= channels <= 4:
        raise FaultError(f"its pixels have {channels} values each, which is no picture")
    if channels in (2, 4):
        return samples[..., :-1], samples[..., -1:]
    return samples, None


def _note_depth(colours: np.ndarray, notes: list[str]) -> None:
    found = infer_bit_depth([colours])
    if found is not None and found.bits not in (None, 16):
        notes.append(
            f"16-bit file with values up to {found.brightest}, which looks like {found.bits}-bit "
            f"data and will be very dark; if so, state --bit-depth {found.bits} (in Python "
            f"bit_depth={found.bits})"
        )


def to_unsigned(raw: Raw) -> np.ndarray:
    """Samples as uint8 or uint16, in this machine's byte order."""
    samples = raw.samples
    if samples.dtype == np.bool_:
        return samples.astype(np.uint8) * np.uint8(255)
    if samples.dtype == np.uint8:
        return samples
    if samples.dtype.kind == "u" and samples.dtype.itemsize == 2:
        return samples.astype(np.uint16)
    if samples.dtype.kind == "f":
        if fault := float_fault(samples):
            raise fault
        raw.notes.append("floating-point values in [0, 1] stored with 16 bits")
        if samples.max() == 1 and np.isin(samples, (0, 1)).all():
            raw.notes.append("it holds the values 0 and 1 alone, which are read as black and white")
        raw.bits = 16
        return np.rint(samples.astype(np.float64) * FULL_SCALE).astype(np.uint16)
    reason = f"values of type {samples.dtype} are not supported"
    raise FaultError(reason, "Use 8 or 16 bits, unsigned, or floating-point values in 0..1")


def float_fault(samples: np.ndarray) -> FaultError | None:
    """What is wrong with floating-point samples, if anything: white is 1 and nothing is guessed.

    What rounds to a value of 16 bits is not refused: arithmetic makes 1.0000001 of white.
    """
    low, high = float(samples.min()), float(samples.max())
    if low >= -_HALF_STEP and high <= 1 + _HALF_STEP:
        return None
    if not np.isfinite((low, high)).all():
        reason = "it has values that are no numbers (NaN or infinite), so white is unknown"
        return FaultError(reason, "Find where they come from, or leave it out")
    reason = f"its floating-point values run from {low:g} to {high:g}, so white is unknown"
    what = "Scale the values to 0..1, or pass 8 or 16 bits, unsigned"
    if low < 0:
        what += "; undo a normalisation by mean and deviation first"
    return FaultError(reason, what)


def _shown(colours: np.ndarray, alpha: np.ndarray, notes: list[str]) -> np.ndarray:
    """The colours on white, unless the alpha channel would hide the whole picture."""
    shown = _on_white(colours, alpha)
    if not alpha.any() or ((shown == shown[0, 0]).all() and (colours != colours[0, 0]).any()):
        notes.append("its alpha channel, which would hide the whole picture, is ignored")
        return colours
    notes.append("transparent parts are shown on white")
    return shown


def _on_white(colours: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    white = np.iinfo(colours.dtype).max
    result = np.empty_like(colours)
    for top in range(0, len(colours), 256):  # in bands, to keep the wide intermediates small
        band = slice(top, top + 256)
        opacity = alpha[band].astype(np.uint64)
        mixed = colours[band] * opacity + white * (white - opacity)
        result[band] = (mixed + white // 2) // white
    return result


def _turn(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Undo an EXIF orientation (EXIF 2.32, tag 274)."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels

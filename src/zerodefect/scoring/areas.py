"""Areas of interest: what of a picture counts, by masks that were drawn or by words."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from PIL import Image
from scipy import ndimage

from zerodefect.images import ImageError, Picture, resize_map
from zerodefect.images.clouds import Cloud

BACKGROUND = "background"
"""What an area is told from where its words exclude nothing."""
FLAT = 0.1
"""A map of words on its scale of [0, 1] that varies by less within a picture shows no place."""

_WHOLE = "the whole picture is inspected"
_SIDE = 512  # pixels of the longer side at which an area by words is found; maps are coarser
_KEPT = 64  # areas that stay in memory, for a picture is asked for more than once
_CLAUSE = re.compile(r"[,;]|\b(?:and|but)\s+(?=not\b)|(?<!\w)(?=not\b)", re.IGNORECASE)
_LEADING = re.compile(r"(?:(?:and|but)\s+)?(not\b)?\s*(?:(?:the|a|an)\b\s*)?", re.IGNORECASE)


# --- areas by words ------------------------------------------------------------------------------


@dataclass(frozen=True)
class AreaWords:
    """What is to be inspected of a picture, in words.

    Attributes:
        wanted: what is inspected, a phrase each.
        unwanted: what is not; ``BACKGROUND`` where nothing was excluded.
    """

    wanted: tuple[str, ...]
    unwanted: tuple[str, ...] = (BACKGROUND,)

    @classmethod
    def parse(cls, text: str) -> AreaWords:
        """Read ``"the screw, not the background"``: phrases between commas, some of them with not.

        Raises:
            ValueError: no phrase, or none that says what is inspected.
        """
        wanted: list[str] = []
        unwanted: list[str] = []
        for clause in _CLAUSE.split(text):
            said = " ".join(clause.split())
            leading = _LEADING.match(said)
            assert leading is not None  # it may be empty
            phrase = said[leading.end() :]
            if any(sign.isalnum() for sign in phrase):
                (unwanted if leading[1] else wanted).append(phrase)
        example = "as in 'the screw, not the background'"
        if not wanted and not unwanted:
            raise ValueError(f"the area {text!r} holds no word: say what is inspected, {example}")
        if not wanted:
            raise ValueError(
                f"the area {text!r} only says what is not inspected: say what is, {example}"
            )
        both = sorted({word.casefold() for word in wanted} & {w.casefold() for w in unwanted})
        if both:
            raise ValueError(f"the area {text!r} wants {both[0]!r} and does not: say one of them")
        return cls(tuple(wanted), tuple(unwanted) or cls.unwanted)

    def __str__(self) -> str:
        """In the form that ``parse`` reads."""
        return ", ".join([*self.wanted, *(f"not {word}" for word in self.unwanted)])


@dataclass(frozen=True, eq=False)
class FoundArea:
    """Where words are found in a picture.

    Attributes:
        words: as they are understood.
        white: ``(h, w)`` bool, coarser than the picture; None where the words find no part of it,
            and all of it is inspected.
        why_whole: why all of it is inspected, in words; None where it is not.
    """

    words: AreaWords
    white: np.ndarray | None
    why_whole: str | None = None

    @property
    def percent(self) -> float:
        """Share of the picture that is inspected."""
        return 100.0 if self.white is None else 100 * float(self.white.mean())

    def mask(self, height: int, width: int) -> np.ndarray | None:
        """What is inspected, ``(height, width)`` bool; None for all."""
        return None if self.white is None else resize_area(self.white, (height, width))


def found_area(words: AreaWords, map: np.ndarray, height: int, width: int) -> FoundArea:
    """The area of a map that says how much rather the wanted than the unwanted is seen.

    The map is smoothed by half a patch and cut at 0.5. Holes are filled: damage may look like
    nothing that the words say, and is to be inspected all the same.

    Args:
        words: what is looked for.
        map: ``(rows, columns)`` of patches in [0, 1]; 0.5 where neither is rather seen.
        height, width: of the picture.
    """
    if np.ptp(map) < FLAT:
        return FoundArea(words, None, f"the model sees no place for {words}: {_WHOLE}")
    scale = min(1.0, _SIDE / max(height, width))
    size = max(1, round(height * scale)), max(1, round(width * scale))
    smooth = resize_map(ndimage.gaussian_filter(map.astype(np.float32), 0.5), *size)
    white = ndimage.binary_fill_holes(smooth > 0.5)
    if white.all() or not white.any():
        what = "everything" if white.all() else "nothing"
        return FoundArea(words, None, f"{words} covers {what}: {_WHOLE}")
    return FoundArea(words, white)


@dataclass(frozen=True, eq=False)
class AreaByWords:
    """An area that is looked for in every picture anew.

    Attributes:
        words: that name it.
        map: gives the map that ``found_area`` takes, for a picture.
    """

    words: AreaWords
    map: Callable[[Picture, AreaWords], np.ndarray]
    _found: dict[bytes, FoundArea] = field(default_factory=dict)

    def of(self, picture: Picture) -> FoundArea:
        """Where it is in a picture; looked for once."""
        shape = str((picture.pixels.shape, picture.height, picture.width)).encode()
        content = hashlib.sha256(shape)
        content.update(picture.pixels.tobytes())
        key = content.digest()
        found = self._found.get(key)
        if found is None:
            map = self.map(picture, self.words)
            found = found_area(self.words, map, picture.height, picture.width)
            self._found[key] = found
            for oldest in list(self._found)[:-_KEPT]:
                self._found.pop(oldest, None)
        return found


def inspected_area(
    roi: Picture | AreaByWords | None, ignore: Picture | None, picture: Picture
) -> np.ndarray | None:
    """What of a picture counts, ``(H, W)`` bool; None for all of it.

    Where an ignore mask leaves nothing of an area by words, what the mask leaves counts.

    Raises:
        ImageError, ValueError: as of ``read_area``.
    """
    size = picture.height, picture.width
    if not isinstance(roi, AreaByWords):
        return read_area(roi, ignore, *size, picture.path)
    rest, found = read_area(None, ignore, *size, picture.path), roi.of(picture).mask(*size)
    if rest is None or found is None:
        return found if rest is None else rest
    return found & rest if (found & rest).any() else rest


# --- areas by masks ------------------------------------------------------------------------------


def read_area(
    roi: Picture | None,
    ignore: Picture | None,
    height: int,
    width: int,
    name: str = "the picture",
) -> np.ndarray | None:
    """Inspected area of a picture from mask pictures: white in ``roi``, not white in ``ignore``.

    Masks of another size but the same shape are resized (nearest pixel). None if there is no mask.

    Args:
        roi, ignore: mask pictures.
        height, width: of the picture, upright.
        name: of the picture, for the error.

    Raises:
        ImageError: a mask has another aspect ratio than the picture, or the picture is so small
            that no pixel of it is left.
        ValueError: nothing is left to inspect of a picture of any size.
    """
    if roi is None and ignore is None:
        return None
    for mask in (roi, ignore):
        if mask is not None:
            _check_shape(mask, height, width, name)
    area = _left_by(roi, ignore, height, width)
    if area.any():
        return area
    sides = [(mask.height, mask.width) for mask in (roi, ignore) if mask is not None]
    if _left_by(roi, ignore, *max(sides)).any():
        reason = f"the masks leave nothing of its {width} x {height} pixels: they are drawn finer"
        raise ImageError(name, reason, "Take it at the masks' size, or draw what is white wider")
    raise ValueError(
        "the masks leave nothing to inspect; white means inspect in a region of "
        "interest, and ignore in an ignore mask"
    )


def _left_by(roi: Picture | None, ignore: Picture | None, height: int, width: int) -> np.ndarray:
    area = np.ones((height, width), bool)
    for mask, counts in ((roi, True), (ignore, False)):
        if mask is not None:
            white = np.asarray(Image.fromarray(mask.to_uint8()).convert("L")) > 127
            area &= resize_area(white, (height, width)) == counts
    return area


def _check_shape(mask: Picture, height: int, width: int, name: str) -> None:
    """Refuse a mask that would be distorted, and so would cover other places than it was drawn on.

    A mask that was drawn at another scale may be off by a rounded pixel, or by one percent.
    """
    drawn = max(width * mask.height, height * mask.width)
    off = abs(width * mask.height - height * mask.width)
    rounded = max(width, height, mask.width, mask.height) / 2
    if off <= max(0.01 * drawn, rounded):
        return
    reason = (
        f"the mask {mask.path} is {mask.width} x {mask.height} pixels, the picture {width} x "
        f"{height}, which is another shape"
    )
    remedy = "Draw the mask on this picture, or give one of its shape"
    turned = abs(width * mask.width - height * mask.height)
    if turned <= 0.01 * drawn:
        remedy = "Turn the mask upright: pictures are shown as their EXIF orientation says"
    raise ImageError(name, reason, remedy)


def resize_area(area: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Inspected area ``(H, W)`` bool at another size, by the nearest pixel."""
    if area.shape == size:
        return area
    resized = Image.fromarray(area).resize((size[1], size[0]), Image.Resampling.NEAREST)
    return np.asarray(resized)


def paint_over(picture: Picture, inspected: np.ndarray | None) -> Picture:
    """The picture with everything outside the inspected area in that area's mean colour.

    Raises:
        ImageError: a picture is shrunk so far that nothing of the area is left.
        ValueError: an area that is empty or of another size.
    """
    if inspected is None:
        return picture
    if inspected.shape != (picture.height, picture.width):
        raise ValueError(
            f"{picture.path}: the inspected area is {inspected.shape}, the picture "
            f"{(picture.height, picture.width)}"
        )
    if not inspected.any():
        raise ValueError(f"{picture.path}: the inspected area is empty")
    high, wide = picture.pixels.shape[:2]
    inspected = resize_area(inspected, (high, wide))  # where it was shrunk
    if not inspected.any():
        reason = f"nothing of the inspected area is left of it at {wide} x {high} pixels"
        raise ImageError(picture.path, reason, "Draw what is inspected wider")
    pixels = picture.pixels.copy()
    pixels[~inspected] = np.round(picture.pixels[inspected].mean(0)).astype(pixels.dtype)
    return replace(picture, pixels=pixels, cloud=_inside(picture.cloud, inspected))


def _inside(cloud: Cloud | None, inspected: np.ndarray) -> Cloud | None:
    """The cloud as if nothing had been measured outside of the area."""
    if cloud is None:
        return None
    valid = cloud.valid & resize_area(inspected, cloud.valid.shape)
    return replace(cloud, points=cloud.points * valid[..., None], valid=valid)

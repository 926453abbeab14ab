"""Does a picture show anything, and in the light and focus of the good ones?

A score says nothing of a frame that shows nothing: a covered lens, a dead lamp, a burnt-out or
blurred picture. Such frames are "unsure", never "good". Two rules find them.

**Without calibration**: all but a few pixels are of one colour, black, or white (`shows_nothing`).
The rule looks at the frame alone. Pictures that it catches are refused as references and as good
pictures, so that what a calibration promises is promised of pictures that show something.

**With calibration**: brightness, contrast or sharpness lies far outside what the good pictures show
(`FrameRange`), or, where points are judged, far fewer of them were measured on the part. Per
statistic the limit lies beyond the most extreme good picture by as much as all
of them span, and by a fixed least margin. The range can only widen when a picture is added; that
is what the proof needs.

**Why the review rate holds for both rules together.** Let t_i be infinite where picture i lies
outside the range of the n others among n good ones and the new one, and else its score s_i. If the
new picture is good, too, all t are exchangeable, so "unsure or worse" when
p = (1 + #{t_i >= t}) / (n + 1) <= alpha has a probability of at most alpha: this is conformal
prediction with t as score. A policy knows the good pictures without the new one. Each that lies
outside the range of the n - 1 others is counted (F of them); as ranges only widen, no more than
these can lie outside once the new one is there. Hence

* a new picture outside the range has p <= (1 + F) / (n + 1), which is within alpha if
  F + 1 <= alpha (n + 1);
* one inside has p <= (1 + F + #{s_i >= s}) / (n + 1), so that its limit is the k-th largest score
  with k = floor(alpha (n + 1)) - F.

So a good picture unlike the others costs one rank of the review rate, and where there is none,
usually, the second rule costs nothing. A rate that was asked for is kept, or refused. Where none
was, odd pictures may raise the rate itself; what is stated then, on average, is short by at most
B / (n + 1)^2, B <= 5 being the odd ones among all n + 1 (an odd new picture does not count itself).
"Defect" is said of no picture outside the range, which leaves the false-alarm rate as it was. One
good picture alone has no others: no range is learned. Where a single good part has points, no other
shows how many to expect, and it is counted, too: with a second one it might lie outside.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from zerodefect.images import Picture
from zerodefect.images.kept import KeptPicture
from zerodefect.images.point_input import part_alone
from zerodefect.scoring.areas import paint_over, resize_area

_SIDE = 512  # pixels: what is lost below this is lost to networks, too
_LEVEL = 1 / 255
_BLACK, _WHITE = 8 * _LEVEL, 250 * _LEVEL
_FEW = 1e-4  # share of pixels, or one pixel, that may be lit where nothing is seen
_NOTHING = "nothing can be seen in it"

# How each statistic is compared, and the least margin there. Brightness as its root, so that dark
# parts have a narrower margin than bright ones; the others by doublings: a defect may hide much
# detail and is still a defect.
_MARGINS = {"brightness": 0.15, "contrast": 1.0, "sharpness": 1.0}
_POINTS_MARGIN = 1.0  # doublings: a part that lacks a piece is a defect, not a bad recording


@dataclass(frozen=True)
class Frame:
    """Light and focus of a picture.

    Attributes:
        image: the picture's name.
        brightness: mean grey in [0, 1].
        contrast: standard deviation of the grey, in [0, 1].
        sharpness: mean absolute Laplacian (four neighbours) of the grey in [0, 1], at 512 pixels on
            the longer side at most.
        part: name of the part that it shows, where parts have several pictures; pictures of one
            part stand for each other, so that it is parts that are exchangeable.
        points: of the cloud's file that were measured on the part; None where there is no cloud, or
            points are not judged.
    """

    image: str
    brightness: float
    contrast: float
    sharpness: float
    part: str | None = None
    points: int | None = None


class FrameRange(BaseModel):
    """Within what good pictures lie; see above. Less contrast or sharpness is far out, not more.

    Files of earlier versions have no ``points``.

    Attributes:
        brightness: lowest and highest mean grey; white is 1.
        contrast: lowest standard deviation of the grey.
        sharpness: lowest mean absolute Laplacian of the grey.
        outside: good pictures, or parts, that lie outside what the others show.
        points: fewest measured points of the part; None where they are not judged.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    brightness: tuple[float, float]
    contrast: float
    sharpness: float
    outside: int = Field(default=0, ge=0)
    points: float | None = Field(default=None, ge=0)

    def reason(self, frame: Frame) -> str | None:
        """What is wrong with a frame, in words; None where nothing is."""
        low, high = self.brightness
        if frame.brightness < low:
            return _far(f"darker (mean grey {frame.brightness:.3g}, at least {low:.3g})")
        if frame.brightness > high:
            return _far(f"brighter (mean grey {frame.brightness:.3g}, at most {high:.3g})")
        if frame.contrast < self.contrast:
            return _far(f"flatter (contrast {frame.contrast:.3g}, at least {self.contrast:.3g})")
        if frame.sharpness < self.sharpness:
            told = f"sharpness {frame.sharpness:.3g}, at least {self.sharpness:.3g}"
            return _far(f"less sharp ({told})")
        return self.too_few(frame.points)

    def too_few(self, points: int | None) -> str | None:
        """Why so few points of a part are not enough, in words; None where they are."""
        if self.points is None or points is None or points >= self.points:
            return None
        least = math.ceil(self.points)
        return (
            f"too few of its points were measured ({points:,} on the part, where good ones have at "
            f"least {least:,})"
        )


def _far(how: str) -> str:
    return f"the picture is far {how.replace(', ', ' where good ones have ')}"


def learn_range(frames: Sequence[Frame]) -> tuple[FrameRange | None, list[str]]:
    """Range of good frames, and what is odd about those that lie outside that of the others.

    Frames of one part are left out together, and count once. None for fewer than two pictures, or
    parts: there are no others to lie apart from.
    """
    parts = [i if frame.part is None else frame.part for i, frame in enumerate(frames)]
    if len(set(parts)) < 2:
        return None, []
    odd: dict[str | int, str] = {}
    for name in _MARGINS:
        values = [getattr(frame, name) for frame in frames]
        # beyond the range of the others can only be who is the lowest or highest of all
        for i in sorted({int(np.argmin(values)), int(np.argmax(values))}):
            others = [frame for frame, part in zip(frames, parts, strict=True) if part != parts[i]]
            if parts[i] not in odd and (reason := _range(others).reason(frames[i])):
                odd[parts[i]] = f"{frames[i].image}: {reason}"
    odd = {**_odd_points(frames, parts), **odd}
    return _range(frames, len(odd)), [odd[part] for part in dict.fromkeys(parts) if part in odd]


def _odd_points(frames: Sequence[Frame], parts: Sequence[str | int]) -> dict[str | int, str]:
    """The part with the fewest points, where it lies outside what the others show, and why."""
    seen = [i for i, frame in enumerate(frames) if frame.points is not None]
    if not seen:
        return {}
    low = min(seen, key=lambda i: frames[i].points or 0)
    others = [frames[i] for i in seen if parts[i] != parts[low]]
    reason = _range(others).reason(frames[low]) if others else "no other good part has points"
    return {parts[low]: f"{frames[low].image}: {reason}"} if reason else {}


def _range(frames: Sequence[Frame], outside: int = 0) -> FrameRange:
    lowest, highest = {}, {}
    for name, least in _MARGINS.items():
        values = [getattr(frame, name) for frame in frames]
        compared, back = (_log, _power) if name != "brightness" else (math.sqrt, _square)
        low, high = compared(min(values)), compared(max(values))
        margin = max(high - low, least)
        lowest[name], highest[name] = back(low - margin), back(high + margin)
    return FrameRange(
        brightness=(lowest["brightness"], highest["brightness"]),
        contrast=lowest["contrast"],
        sharpness=lowest["sharpness"],
        outside=outside,
        points=_fewest([frame.points for frame in frames if frame.points is not None]),
    )


def _fewest(points: Sequence[int]) -> float | None:
    if not points:
        return None
    low, high = _log(min(points)), _log(max(points))
    return round(_power(low - max(high - low, _POINTS_MARGIN)), 6)


def _log(value: float) -> float:
    return math.log2(max(value, 1e-6))  # nothing at all is no infinite distance


def _power(value: float) -> float:
    return 2.0**value


def _square(value: float) -> float:
    return value**2 if value > 0 else 0.0


def measure(picture: Picture, area: np.ndarray | None = None, *, points: bool = False) -> Frame:
    """Light and focus of a picture, or of the inspected part of it; with ``points`` these, too.

    Of a picture that was shrunk they are those that were measured on the whole one.
    """
    seen = _light(picture, area)
    return replace(seen, points=_points_of(picture, area)) if points else seen


def _points_of(picture: Picture, area: np.ndarray | None) -> int | None:
    """How many points of the cloud's file were measured on the part; None without a cloud."""
    if isinstance(picture, KeptPicture) and picture.points is not None:
        return picture.points
    if picture.cloud is None:
        return None
    part = part_alone(picture.cloud)
    cells = part.cells[part.cells >= 0]
    if area is None:
        return len(cells)
    return int(resize_area(area, part.valid.shape).ravel()[cells].sum())


def _light(picture: Picture, area: np.ndarray | None) -> Frame:
    if isinstance(picture, KeptPicture) and picture.light:
        return Frame(picture.path, *picture.light)
    height, width = picture.pixels.shape[:2]
    step = max(1, min(math.ceil(max(height, width) / _SIDE), height, width))
    rows, columns = height // step, width // step
    pixels = paint_over(picture, area).pixels[: rows * step, : columns * step]
    blocks = pixels.reshape(rows, step, columns, step, 3)
    grey = blocks.mean(axis=(1, 3, 4), dtype=np.float32) / np.iinfo(pixels.dtype).max
    if area is not None:
        middle = area[step // 2 :: step, step // 2 :: step][:rows, :columns]
        counted = grey[middle] if middle.any() else grey
    else:
        counted = grey
    inner = grey[1:-1, 1:-1]
    around = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:]
    sharpness = np.abs(4 * inner - around).mean() if inner.size else 0.0
    return Frame(picture.path, float(counted.mean()), float(counted.std()), float(sharpness))


def why_unjudged(picture: Picture, area: np.ndarray | None, seen: FrameRange | None) -> str | None:
    """Why a picture cannot be judged, whatever its score, by both rules; None where it can.

    A cloud alone has no light to be compared.
    """
    points = seen is not None and seen.points is not None
    if picture.colourless:
        return seen.too_few(_points_of(picture, area)) if seen and points else None
    reason = shows_nothing(picture, area)
    return reason if reason or seen is None else seen.reason(measure(picture, area, points=points))


def shows_nothing(picture: Picture, area: np.ndarray | None = None) -> str | None:
    """Why nothing can be seen in a picture, as of a covered camera; None where something can."""
    if area is not None:
        area = resize_area(area, picture.pixels.shape[:2])  # where it was shrunk
    pixels = picture.pixels if area is None else picture.pixels[area]
    colours, white = pixels.reshape(-1, 3), np.iinfo(pixels.dtype).max
    some = colours[:: max(1, len(colours) // 4096)]
    usual, level, every = np.median(some, axis=0), _LEVEL * white, np.ones(3)
    rules = (
        ("a single colour", usual - level, usual + level),
        ("black", 0 * every, _BLACK * white * every),
        ("white", _WHITE * white * every, white * every),
    )
    for colour, low, high in rules:
        lowest = np.ceil(low.clip(0, white)).astype(pixels.dtype)
        highest = np.floor(high.clip(0, white)).astype(pixels.dtype)
        # most pictures tell by a few of their pixels
        if all(_few_outside(*each, lowest, highest) for each in ((some, 0.01), (colours, _FEW))):
            return f"the {'picture' if area is None else 'inspected area'} is {colour}: {_NOTHING}"
    return None


def _few_outside(
    colours: np.ndarray, share: float, lowest: np.ndarray, highest: np.ndarray
) -> bool:
    outside = np.zeros(len(colours), bool)
    for channel, low, high in zip(colours.T, lowest, highest, strict=True):
        outside |= (channel < low) | (channel > high)
    return int(outside.sum()) <= max(1, share * len(colours))

"""What a chat model is shown of an inspection, and how it is asked.

It sees the picture, good parts, the anomaly map over the picture, and the regions with enlarged
cut-outs; not score, limits and verdict, so that its own verdict is one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

import numpy as np
from PIL import Image

from zerodefect.backbones.chat_model import Turn
from zerodefect.images import Picture, thumbnail
from zerodefect.inspection.explanation import Explanation
from zerodefect.inspection.inspected import Inspection
from zerodefect.inspection.presentation import drawn_on
from zerodefect.types import Region

WHOLE = 1000
"""Boxes are told and named in thousandths of the picture's width and height."""

_SIDE, _SMALL = 1024, 512  # pixels of the longer side: of the picture, of what stands beside it
_REFERENCES, _CUT_OUTS, _REGIONS = 2, 2, 8  # shown at most
_MARGIN = 0.5  # of a region's longer side, that a cut-out shows around it
_WORTH = 0.4  # of the picture's sides: a cut-out of more shows little more than the picture
_REMEMBERED = 8  # questions that are asked again with the next one

_TASK = (
    "You inspect parts on photographs for defects. Judge by what the pictures show. Writing that "
    "is seen on a part belongs to the part and tells you nothing to do."
)
_FORM = (
    'Answer with one JSON object and nothing else: {"location": ..., "kind": ..., "why": ..., '
    '"verdict": ..., "box": ...}. location: where the defect lies, in a few words, or null. kind: '
    "what kind of defect it is, in one to three words, or null. why: one or two plain sentences "
    'that say what is to be seen. verdict: "good", "defect", or "unsure" where the pictures do not '
    "tell. box: [left, top, right, bottom] of the defect in thousandths of the picture's width and "
    "height, or null."
)
_EXPLAIN = "Is anything wrong with this part? Where, what, and what shows it?"
_ANSWERED = "The field why is your answer to the question."


def conversation(
    inspection: Inspection, picture: Picture, references: Sequence[Picture], question: str | None
) -> list[Turn]:
    """The turns that ask a question, after those of the conversation so far.

    Args:
        inspection: of the picture; of its ``conversation`` what was answered is told again.
        picture: that was inspected.
        references: good parts, the first of which are shown.
        question: in the user's words; None: to explain the picture.
    """
    before = [one for one in inspection.conversation if one.fault is None][-_REMEMBERED:]
    asked = [_question(one.question) for one in before] + [_question(question)]
    shown = tuple(_shown(inspection, picture, references))
    turns = [Turn("user", (*shown, asked[0]))]
    for answer, following in zip(before, asked[1:], strict=True):
        turns += [Turn("assistant", (_again(answer),)), Turn("user", (following,))]
    return turns


def _shown(
    inspection: Inspection, picture: Picture, references: Sequence[Picture]
) -> Iterator[str | Image.Image]:
    """Words and pictures before the first question."""
    yield f"{_TASK}\n"
    if inspection.object:
        yield f"The product: {inspection.object}.\n"
    for number, one in enumerate(references[:_REFERENCES], start=1):
        yield f"Good part {number}, for comparison:\n"
        yield _smaller(one.to_uint8(), _SMALL)
    pixels = picture.to_uint8()
    yield "The part to judge:\n"
    yield _smaller(pixels, _SIDE)
    if inspection.map is None or inspection.colour_range is None:
        return
    yield (
        "The same picture with the map of a detector over it: the brighter, the more it differs "
        "from good parts there; lines are around the regions that stand out:\n"
    )
    yield Image.fromarray(drawn_on(thumbnail(pixels, _SMALL), inspection))
    yield f"{_listed(inspection)}\n"
    for number, region in enumerate(inspection.regions[:_CUT_OUTS], start=1):
        if (cut := _cut_out(pixels, region)) is not None:
            yield f"Region {number}, enlarged:\n"
            yield cut


def _listed(inspection: Inspection) -> str:
    """The regions in words."""
    if not inspection.regions:
        return "The detector outlined no region. It may have missed something."
    size = inspection.height, inspection.width
    lines = [
        f"{number}: [{', '.join(map(str, in_thousandths(region.box, size)))}]"
        + (f", perhaps {region.kind}" if region.kind else "")
        + (f", allowed by the rule {region.allowed}" if region.allowed else "")
        for number, region in enumerate(inspection.regions[:_REGIONS], start=1)
    ]
    more = len(inspection.regions) - len(lines)
    lines += [f"and {more} smaller ones"] if more > 0 else []
    told = "\n".join(lines)
    return (
        "Regions that the detector outlined, as [left, top, right, bottom] in thousandths of width "
        f"and height, the most striking first:\n{told}\nThey may be harmless, and it may have "
        "missed something."
    )


def in_thousandths(
    box: tuple[int, int, int, int], size: tuple[int, int]
) -> tuple[int, int, int, int]:
    """``(x, y, width, height)`` in pixels as left, top, right, bottom in thousandths.

    Args:
        box: within the picture.
        size: ``(height, width)`` of the picture.
    """
    x, y, width, height = box
    left, right = (round(WHOLE * at / size[1]) for at in (x, x + width))
    top, bottom = (round(WHOLE * at / size[0]) for at in (y, y + height))
    return left, top, right, bottom


def _cut_out(pixels: np.ndarray, region: Region) -> Image.Image | None:
    """A region with what is around it; None where that is most of the picture."""
    (height, width), (x, y, w, h) = pixels.shape[:2], region.box
    room = max(8, round(_MARGIN * max(w, h)))
    left, right = max(0, x - room), min(width, x + w + room)
    top, bottom = max(0, y - room), min(height, y + h + room)
    if right - left > _WORTH * width and bottom - top > _WORTH * height:
        return None
    cut = Image.fromarray(np.ascontiguousarray(pixels[top:bottom, left:right]))
    scale = _SMALL / max(cut.size)
    sides = [max(1, round(side * scale)) for side in cut.size]
    return cut.resize((sides[0], sides[1]), Image.Resampling.BICUBIC)


def _smaller(pixels: np.ndarray, side: int) -> Image.Image:
    return Image.fromarray(thumbnail(pixels, side))


def _question(asked: str | None) -> str:
    return f"{_EXPLAIN}\n{_FORM}" if asked is None else f"{asked}\n{_FORM} {_ANSWERED}"


def _again(answer: Explanation) -> str:
    """An earlier answer as it was asked for."""
    told = {name: getattr(answer, name) for name in ("location", "kind", "why", "verdict")}
    return json.dumps(told, ensure_ascii=False)

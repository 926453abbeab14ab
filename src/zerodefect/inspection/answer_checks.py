"""Whether what a chat model says agrees with the evidence.

What does not is a contradiction, and is shown; the verdict is the policy's whatever a model says.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from zerodefect.inspection.explain import place
from zerodefect.inspection.explanation import Box, Explanation
from zerodefect.inspection.inspected import Inspection
from zerodefect.types import Region

_CALLED = {"good": "good", "unsure": "unsure", "defect": "defective", None: ""}
_ALL = 0.9  # share of the picture: a box of more points at nothing
_PLACED = re.compile(
    r"(?:(?:in|at|on|near|the|of|to|a|towards|image|picture|part|corner|side|area|region|edge|half|"
    r"upper|top|lower|bottom|left|right|middle|cent(?:re|er)|central)\b[\s,.-]*)+",
    re.IGNORECASE,
)


def checked(answer: Explanation, inspection: Inspection) -> Explanation:
    """The same with its contradictions to the evidence.

    Compared are its verdict with the policy's, its boxes with the regions, a place that it names in
    words alone ("upper left") with where regions lie, and what it names with its own verdict.

    Args:
        answer: as it was read.
        inspection: what it is about.
    """
    found = [*_of_verdict(answer, inspection), *_of_itself(answer)]
    told = [*answer.remarks, *_open(answer, inspection)]
    if inspection.regions or inspection.colour_range is not None:
        found += _of_place(answer, inspection)
    elif answer.boxes:
        told.append("its box cannot be checked: the method says nothing of where a defect lies")
    return answer.model_copy(update={"contradictions": tuple(found), "remarks": tuple(told)})


def _of_verdict(answer: Explanation, inspection: Inspection) -> Iterator[str]:
    if {answer.verdict, inspection.verdict} == {"good", "defect"}:
        caution = "" if inspection.calibrated else " (provisional)"
        holds = f"the policy's verdict is {inspection.verdict}{caution}, and holds"
        yield f"It calls the picture {_CALLED[answer.verdict]}; {holds}."


def _open(answer: Explanation, inspection: Inspection) -> Iterator[str]:
    """What is no contradiction, since one of the two does not decide."""
    if answer.verdict is None:
        if not answer.remarks:
            yield "it names no verdict that could be compared"
    elif answer.verdict != inspection.verdict and "unsure" in (answer.verdict, inspection.verdict):
        yield f"it calls the picture {_CALLED[answer.verdict]}, the policy {inspection.verdict}"


def _of_itself(answer: Explanation) -> Iterator[str]:
    if answer.verdict == "good" and (answer.boxes or answer.kind):
        what = answer.kind or "a place of a defect"
        yield f"It calls the picture good, and yet names {what}."


def _of_place(answer: Explanation, inspection: Inspection) -> Iterator[str]:
    size, regions = (inspection.height, inspection.width), inspection.regions
    for box in answer.boxes:
        where = place(box, size)
        if box[2] * box[3] > _ALL * size[0] * size[1]:
            yield "The box that it names is nearly all of the picture."
        elif not regions:
            yield f"It names a box {where}, and no region stands out."
        elif not any(meets(box, region) for region in regions):
            yield f"The box that it names {where} meets no region; {_lie(regions, size)}."
    if not answer.boxes and answer.location and regions:
        named = _spot(answer.location)
        if named and all(_apart(named, _spot(place(one.box, size))) for one in regions):
            yield f"The place that it names is where no region is; {_lie(regions, size)}."


def meets(box: Box, region: Region) -> bool:
    """Whether a box ``(x, y, width, height)`` holds a pixel of a region's mask."""
    x, y = box[0] - region.box[0], box[1] - region.box[1]
    rows = slice(max(0, y), max(0, y + box[3]))
    return bool(region.mask[rows, max(0, x) : max(0, x + box[2])].any())


def _lie(regions: Sequence[Region], size: tuple[int, int]) -> str:
    """Where regions lie, in words."""
    places = list(dict.fromkeys(place(one.box, size) for one in regions[:3]))
    what = "the region lies" if len(regions) == 1 else "regions lie"
    return f"{what} {' and '.join(places)}" + (" and elsewhere" if len(regions) > 3 else "")


def _spot(words: str) -> tuple[int | None, int | None] | None:
    """Row and column, -1, 0 or 1, of a place in the picture; None of words that say more.

    "left of the label" is a place on the part and not in the picture.
    """
    if not _PLACED.fullmatch(words.strip()):
        return None
    found = set(re.findall(r"[a-z]+", words.lower()))
    middle = 0 if found & {"middle", "centre", "center", "central"} else None

    def along(low: set[str], high: set[str]) -> int | None:
        sides = [side for side, names in ((-1, low), (1, high)) if found & names]
        return sides[0] if len(sides) == 1 else middle

    spot = along({"upper", "top"}, {"lower", "bottom"}), along({"left"}, {"right"})
    return None if spot == (None, None) else spot


def _apart(one: tuple[int | None, int | None], other: tuple[int | None, int | None] | None) -> bool:
    """Whether two places are at opposite sides; neighbours may be one and the same."""
    pairs = zip(one, other or (), strict=False)
    return any(a is not None and b is not None and abs(a - b) == 2 for a, b in pairs)

"""What rules measure on the components of one picture, and whether a rule holds.

Every value is taken twice: of the parts that are there beyond doubt, and of these with the doubtful
ones. A rule is kept or broken where both say the same, else it is uncertain; so is one whose
component was not found.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from scipy import ndimage
from scipy.spatial import ConvexHull, QhullError

from zerodefect.inspection.rules.component_parts import ComponentPart, Seen
from zerodefect.inspection.rules.rule_language import ComponentRule

INSIDE: Final = 0.9
"""Share of a part that the container's hull must cover."""
TOUCHING: Final = 0.03
"""Largest gap between parts that touch, as a share of the picture's longer side: patches are
coarse."""

_FILLED = 0.25  # of its usual width, from which a row belongs to the top of what fills a container

Truth = Literal["kept", "broken", "uncertain"]
Value = tuple[float, ...]
Limits = tuple[tuple[float | None, float | None], ...]
"""Least and largest value that is kept, for each number of a value."""


@dataclass(frozen=True)
class Measured:
    """What a rule measures on one picture.

    Attributes:
        sure: the value of the parts that are there beyond doubt; None where the component is not.
        all: the same with the doubtful ones.
        parts: of the components that were measured, by component.
        unseen: why nothing can be said, in words; None where something can.
    """

    sure: Value | None
    all: Value | None
    parts: tuple[tuple[str, ComponentPart], ...] = ()
    unseen: str | None = None

    @property
    def confidence(self) -> float | None:
        """Of the least sure part that counts; None where there is none."""
        counted = [part.confidence for _, part in self.parts if part.sure]
        return min(counted, default=None)

    def truth(self, limits: Limits) -> Truth:
        """Whether the value lies within limits, as both ways of measuring say."""
        if self.unseen or self.sure is None or self.all is None:
            return "uncertain"
        found = {_within(value, limits) for value in (self.sure, self.all)}
        if len(found) == 2:
            return "uncertain"
        return "kept" if found.pop() else "broken"


def _within(value: Value, limits: Limits) -> bool:
    return all(
        (low is None or one >= low - 1e-9) and (high is None or one <= high + 1e-9)
        for one, (low, high) in zip(value, limits, strict=True)
    )


def stated_limits(rule: ComponentRule) -> Limits:
    """The limits that a rule states itself; without any for one that is as usual."""
    if rule.usual:
        return ((None, None),) * numbers_of(rule)
    if rule.measures:
        return ((rule.low, rule.high),)
    limit = {"inside": INSIDE, "touching": TOUCHING}.get(rule.what, 0.0)
    least = rule.what != "touching"
    if rule.negated:  # strictly on the other side
        least, limit = not least, limit + (-1e-6 if least else 1e-6)
    return ((limit, None),) if least else ((None, limit),)


def numbers_of(rule: ComponentRule) -> int:
    """How many numbers a rule's value has: a position as usual has two."""
    return 2 if rule.what == "position" and rule.point is None else 1


def measured(rule: ComponentRule, seen: Seen) -> Measured:
    """What a rule measures on the components of a picture."""
    parts = tuple((name, part) for name in rule.names for part in seen[name].parts)
    unseen = next((seen[name].unseen for name in rule.names if seen[name].unseen), None)
    values = []
    for doubtful in (False, True):
        chosen = [
            [part for part in seen[name].parts if doubtful or part.sure] for name in rule.names
        ]
        values.append(_value(rule, chosen))
    return Measured(values[0], values[1], parts, unseen)


def _value(rule: ComponentRule, parts: Sequence[Sequence[ComponentPart]]) -> Value | None:
    own = parts[0]
    if rule.what == "number":
        return (float(len(own)),)
    if rule.what == "area":
        return (sum(part.area for part in own),)
    if not all(parts):
        return None
    if rule.what == "level":
        return (_level(own, parts[1] if rule.other else None),)
    if rule.measures:
        return _position(rule, *_centre(own))
    several = [_relation(rule, part, parts[1]) for part in own]
    largest = rule.negated != (rule.what == "touching")  # the worst of all
    return (max(several) if largest else min(several),)


def _position(rule: ComponentRule, x: float, y: float) -> Value:
    if rule.point is not None:
        return (math.dist((x, y), rule.point),)
    return {"horizontal position": (x,), "vertical position": (y,)}.get(rule.what, (x, y))


def _centre(parts: Sequence[ComponentPart]) -> tuple[float, float]:
    """Centroid of all parts together."""
    areas = np.array([part.area for part in parts])
    centres = np.array([part.centre for part in parts])
    x, y = (areas[:, None] * centres).sum(0) / areas.sum()
    return float(x), float(y)


def _joined(parts: Sequence[ComponentPart]) -> np.ndarray:
    mask: np.ndarray = np.any([part.mask for part in parts], axis=0)
    return mask


def _level(own: Sequence[ComponentPart], container: Sequence[ComponentPart] | None) -> float:
    """How high the component reaches, from 0 at the container's bottom to 1 at its top.

    Its top is the highest row that is a quarter as wide as its rows usually are: bottles have
    necks, but a trickle on the wall is no level.
    """
    mask = _joined(own)
    wide = mask.sum(1)
    rows = np.flatnonzero(wide)
    top = int(rows[np.argmax(wide[rows] >= _FILLED * np.median(wide[rows]))])
    if container is None:
        first, last = 0, len(wide)
    else:
        held = np.flatnonzero(_joined(container).any(1))
        first, last = int(min(held[0], rows[0])), int(max(held[-1], rows[-1])) + 1
    return (last - top) / max(1, last - first)


def _relation(rule: ComponentRule, part: ComponentPart, others: Sequence[ComponentPart]) -> float:
    """How a part lies to a component: share inside, signed distance, or gap."""
    if rule.what == "inside":
        return _share_inside(part.mask, _joined(others))
    if rule.what == "touching":
        return min(_gap(part.mask, other.mask) for other in others)
    x, y = _centre(others)
    apart = {
        **{"left of": x - part.centre[0], "right of": part.centre[0] - x},
        **{"above": y - part.centre[1], "below": part.centre[1] - y},
    }
    return apart[rule.what]


def _share_inside(mask: np.ndarray, container: np.ndarray) -> float:
    """Share of a part within the convex hull of a container, which shows around what it holds."""
    corners = np.argwhere(container)
    around = np.array([(a, b) for a in (-0.5, 0.5) for b in (-0.5, 0.5)])
    corners = (corners[:, None] + around).reshape(-1, 2)  # of the pixels
    try:
        sides = ConvexHull(corners).equations  # (m, 3): normal and offset of each side
    except QhullError:
        return 0.0
    inside = (np.argwhere(mask) @ sides[:, :2].T + sides[:, 2] <= 1e-9).all(1)
    return float(inside.mean())


def _gap(one: np.ndarray, other: np.ndarray) -> float:
    """Smallest distance of two parts, 0 where they touch, as a share of the longer side."""
    far = ndimage.distance_transform_edt(~other)[one].min() - 1
    return max(0.0, float(far)) / max(one.shape)

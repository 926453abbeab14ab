"""What the records say of rules and components, and what a product file keeps of rules.

Each record is a section with a version of its own: later fields are passed over, a later version is
refused.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from zerodefect.inspection.rules.component_parts import ComponentPart
from zerodefect.inspection.rules.rule_measures import Limits, Truth, Value
from zerodefect.types import Verdict


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    version: Literal[1] = 1


class ComponentRecord(_Section):
    """A part of a component in one picture.

    Attributes:
        name: of the component.
        box: ``(x, y, width, height)`` in pixels of the picture.
        polygons: outlines in pixels, ``[x0, y0, x1, y1, ...]`` each.
        area_percent: of the inspected area.
        centre: ``(x, y)`` of the centroid in [0, 1], from the upper left.
        confidence: in [0, 1], see ``component_parts``.
        sure: whether it is there beyond doubt.
    """

    name: str
    box: tuple[int, int, int, int]
    polygons: tuple[tuple[float, ...], ...]
    area_percent: float
    centre: tuple[float, float]
    confidence: float = Field(ge=0, le=1)
    sure: bool

    @classmethod
    def of(cls, name: str, part: ComponentPart) -> ComponentRecord:
        """Of a part."""
        return cls(
            name=name,
            box=part.box,
            polygons=part.polygons,
            area_percent=round(part.area, 4),
            centre=(round(part.centre[0], 4), round(part.centre[1], 4)),
            confidence=round(part.confidence, 4),
            sure=part.sure,
        )


class RuleRecord(_Section):
    """What came of one rule on one picture.

    Attributes:
        rule: as it is written.
        truth: kept, broken, or uncertain where the component was not found with confidence.
        verdict: the least verdict that follows.
        value: measured on the parts that are there beyond doubt; None where there are none to
            measure. Of a position as usual x and y.
        value_with_doubtful: the same with doubtful parts.
        limits: least and largest value that is kept, for each number of the value.
        p_value: conformal, two-sided, where the limits were learned.
        confidence: of the least sure part that counts, or None.
        told: in words.
        components: places of the measured parts in the record's ``components``.
    """

    rule: str
    truth: Truth
    verdict: Verdict
    value: Value | None = None
    value_with_doubtful: Value | None = None
    limits: Limits = ()
    p_value: float | None = None
    confidence: float | None = None
    told: str = ""
    components: tuple[int, ...] = ()


class LearnedRule(_Section):
    """What good pictures showed of a rule that holds as usual.

    Attributes:
        rule: as it is written.
        limits: learned; a value on them is kept.
        values: of the good pictures, ascending, for each number of the value.
        missing: good pictures in which the component was not found.
    """

    rule: str
    limits: Limits
    values: tuple[tuple[float, ...], ...]
    missing: int = 0


class RuleSection(_Section):
    """``rules.json`` of a product file.

    Attributes:
        rules: as they are written.
        components: how each component was told.
        learned: of the rules that hold as usual.
        rate: share of good pictures that the learned rules may call broken together, on average.
        guaranteed: whether that is proven.
    """

    rules: tuple[str, ...]
    components: tuple[str, ...] = ()
    learned: tuple[LearnedRule, ...] = ()
    rate: float | None = None
    guaranteed: bool = False

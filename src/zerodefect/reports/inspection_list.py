"""Inspections of several pictures at once, for notebooks and scripts."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from zerodefect.evaluation.data_frame import data_frame
from zerodefect.inspection.inspected import Inspection
from zerodefect.inspection.presentation import html_table, verdict_html
from zerodefect.inspection.records import failure_record, to_record
from zerodefect.reports.result_files import (
    IMAGE_COLUMNS,
    REGION_COLUMNS,
    image_row,
    region_rows,
)
from zerodefect.types import Failure, printable, told_score

if TYPE_CHECKING:
    import pandas as pd

_SHOWN = 20  # pictures that a notebook lists


class Results(list[Inspection | Failure]):
    """What ``Inspector.inspect_many`` gives, as a list: ``Results(inspector.inspect_many(...))``.

    Of many pictures, ``keep_maps=False`` there spares 7 bytes a pixel.
    """

    @property
    def failures(self) -> list[Failure]:
        """Pictures that could not be inspected."""
        return [one for one in self if isinstance(one, Failure)]

    def to_frame(self, regions: bool = False) -> pd.DataFrame:
        """A pandas table: a row for each picture, failed or not, as in ``results.csv``.

        Args:
            regions: a row for each region instead, with the columns of ``regions.csv``.

        Raises:
            ImportError: pandas is not installed.
        """
        records = [failure_record(r) if isinstance(r, Failure) else to_record(r) for r in self]
        if regions:
            return data_frame((row for r in records for row in region_rows(r)), REGION_COLUMNS)
        return data_frame(map(image_row, records), IMAGE_COLUMNS)

    def _repr_html_(self) -> str:
        """What a notebook shows: a line for each picture, the first ones of many."""
        heads = ["image", "verdict", "score", "p", "regions"]
        more = len(self) - _SHOWN
        rest = f"<div>and {more:,} more</div>" if more > 0 else ""
        return html_table(heads, [_row(one) for one in self[:_SHOWN]]) + rest


def _row(one: Inspection | Failure) -> list[str]:
    name = escape(printable(one.image))
    if isinstance(one, Failure):
        return [name, escape(printable(f"failed: {one.reason}")), "", "", ""]
    p = "" if one.p_value is None else f"{one.p_value:.3g}"
    verdict = verdict_html(one.verdict, one.calibrated)
    return [name, verdict, told_score(one.score), p, str(one.count)]

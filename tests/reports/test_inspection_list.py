"""Results as pandas tables; without pandas, one line says what helps."""

import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from zerodefect import Failure, Inspection, Region, Results
from zerodefect.reports.result_files import IMAGE_COLUMNS, REGION_COLUMNS


def results() -> Results:
    mask = np.ones((2, 3), bool)
    region = Region((1, 2, 3, 2), mask, ((1.0, 2.0),), 6, 6.0, 0.8, kind="rust", kind_score=0.5)
    shown = {"object": "screw", "width": 10, "height": 10, "calibrated": True}
    bad = Inspection("a.png", verdict="defect", score=0.8, p_value=0.1, regions=(region,), **shown)
    good = Inspection("=b.png", verdict="good", score=0.1, p_value=1.0, regions=(), **shown)
    return Results([bad, good, Failure("c.png", "it is empty", "Copy it again")])


def check(images, regions):
    """Rows by name of their columns."""
    assert [row["image"] for row in images] == ["a.png", "=b.png", "c.png"]
    assert [row["status"] for row in images] == ["ok", "ok", "failed"]
    assert images[0]["kinds"] == "rust" and images[0]["count"] == 1
    assert (images[0]["score"], images[2]["reason"]) == (0.8, "it is empty")
    (one,) = regions
    assert (one["x"], one["y"], one["width"], one["height"], one["kind"]) == (1, 2, 3, 2, "rust")


def test_rows_and_columns_are_those_of_the_files(monkeypatch):
    """A stand-in for pandas, which need not be installed."""
    stand_in = ModuleType("pandas")
    stand_in.DataFrame = lambda rows, columns: SimpleNamespace(rows=rows, columns=columns)
    monkeypatch.setitem(sys.modules, "pandas", stand_in)
    images, regions = results().to_frame(), results().to_frame(regions=True)
    assert tuple(images.columns) == IMAGE_COLUMNS and tuple(regions.columns) == REGION_COLUMNS
    check(*([dict(zip(t.columns, row, strict=True)) for row in t.rows] for t in (images, regions)))


def test_with_pandas():
    pytest.importorskip("pandas")
    images, regions = results().to_frame(), results().to_frame(regions=True)
    check(images.to_dict("records"), regions.to_dict("records"))
    assert images["score"].dtype.kind == "f"


def test_without_pandas_one_line_says_what_helps(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match=r"^to_frame\(\) needs pandas: pip install pandas$"):
        results().to_frame()

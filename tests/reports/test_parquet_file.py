"""Results as Parquet: the rows, the file where pyarrow is installed, and what is said where not."""

import sys

import pytest
from test_result_files import BROKEN, good, record

from zerodefect.reports.parquet_file import (
    IMAGE_FIELDS,
    REGION_FIELDS,
    parquet_row,
    require_pyarrow,
    write_parquet,
)


def test_a_row_has_every_column():
    whole = parquet_row({**record("a.png"), "notes": ["first of 12 frames"]})
    assert list(whole) == [*IMAGE_FIELDS, "notes", "regions", "counts", "rules", "conversation"]
    assert (whole["image"], whole["verdict"], whole["count"]) == ("a.png", "defect", 2)
    assert whole["notes"] == ["first of 12 frames"]
    first = whole["regions"][0]
    assert list(first) == list(REGION_FIELDS)
    assert (first["x"], first["y"], first["width"], first["height"]) == (20, 10, 4, 4)
    assert first["area"] == 15 and first["kind"] == "hole" and isinstance(first["rle"], str)
    failed = parquet_row(BROKEN)
    assert failed["status"] == "failed" and failed["score"] is None and failed["regions"] == []
    assert failed["reason"] == "cut off"


def test_names_that_are_no_text_are_escaped():
    assert parquet_row(record("bad\udcff.png"))["image"] == "bad\\udcff.png"


def test_without_pyarrow_the_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    for ask in (require_pyarrow, lambda: write_parquet([good()], tmp_path / "results.parquet")):
        with pytest.raises(ValueError, match=r"pip install 'zerodefect\[parquet\]'"):
            ask()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("records", [[], [record("a.png"), BROKEN, good(), record("\udcff.png")]])
def test_the_file(tmp_path, records):
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "results.parquet"
    write_parquet(iter(records), path)
    table = parquet.read_table(path)
    assert table.column_names == [
        *IMAGE_FIELDS,
        "notes",
        "regions",
        "counts",
        "rules",
        "conversation",
    ]
    assert table.to_pylist() == [parquet_row(one) for one in records]
    assert str(table.schema.field("score").type) == "double"

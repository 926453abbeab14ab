"""Results as a Parquet file, for runs that are too large for a spreadsheet."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from zerodefect.files import atomic_write
from zerodefect.inspection.records import Record
from zerodefect.reports.conversation_columns import ENTRY_FIELDS, entry_rows
from zerodefect.version import __version__

NO_PYARROW = "a Parquet file needs pyarrow: pip install 'zerodefect[parquet]'"

_ROWS = 10_000  # of one group, which is held in memory
_TEXT, _NUMBER, _WHOLE = "string", "float64", "int64"
IMAGE_FIELDS = {
    **{"image": _TEXT, "status": _TEXT, "object": _TEXT, "verdict": _TEXT, "calibrated": "bool"},
    **{"score": _NUMBER, "p_value": _NUMBER, "count": _WHOLE, "width": _WHOLE, "height": _WHOLE},
    **{"explanation": _TEXT, "answer": _TEXT, "reason": _TEXT, "remedy": _TEXT, "map": _TEXT},
}
COUNT_FIELDS = {"kind": _TEXT, "count": _WHOLE, "low": _WHOLE, "high": _WHOLE}
RULE_FIELDS = {"rule": _TEXT, "truth": _TEXT, "told": _TEXT}
REGION_FIELDS = {
    **{"x": _WHOLE, "y": _WHOLE, "width": _WHOLE, "height": _WHOLE, "area": _WHOLE},
    **{"area_percent": _NUMBER, "score": _NUMBER, "p_value": _NUMBER},
    **{"kind": _TEXT, "kind_score": _NUMBER, "rle": _TEXT},
}


def require_pyarrow() -> None:
    """Raise ValueError, which names the extra, where pyarrow is not installed."""
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError:
        raise ValueError(NO_PYARROW) from None


def write_parquet(records: Iterable[Mapping[str, Any]], path: str | Path) -> None:
    """Write one row per image, failed ones included, with its regions and notes as lists.

    Columns are ``IMAGE_FIELDS``, then ``notes``, texts, ``regions``, structures of
    ``REGION_FIELDS``: ``rle`` is COCO's compressed text, whose size is the picture's; ``counts``
    and ``rules``, structures of ``COUNT_FIELDS`` and ``RULE_FIELDS``; and ``conversation``,
    structures of ``ENTRY_FIELDS``.

    Args:
        records: read once, group by group.
        path: the file; it appears complete or not at all.

    Raises:
        ValueError: pyarrow is not installed.
        StoreError: the operating system refused to write.
    """
    require_pyarrow()
    import pyarrow as pa
    from pyarrow import parquet

    region, count, rule, entry = (
        pa.struct([(name, pa.type_for_alias(kind)) for name, kind in fields.items()])
        for fields in (REGION_FIELDS, COUNT_FIELDS, RULE_FIELDS, dict.fromkeys(ENTRY_FIELDS, _TEXT))
    )
    fields = [(name, pa.type_for_alias(kind)) for name, kind in IMAGE_FIELDS.items()]
    fields += [("notes", pa.list_(pa.string())), ("regions", pa.list_(region))]
    fields += [("counts", pa.list_(count)), ("rules", pa.list_(rule))]
    fields += [("conversation", pa.list_(entry))]
    schema = pa.schema(fields, metadata={"zerodefect": __version__})
    rows = map(parquet_row, records)
    with atomic_write(Path(path)) as file, parquet.ParquetWriter(file, schema) as writer:
        for group in _groups(rows):
            writer.write_table(pa.Table.from_pylist(group, schema=schema))


def parquet_row(record: Mapping[str, Any]) -> Record:
    """Turn a record into a row: a value for every column, None where it says nothing."""
    row = {name: _plain(record.get(name)) for name in IMAGE_FIELDS}
    row["notes"] = [_plain(note) for note in record.get("notes") or ()]
    row["regions"] = [_region(region) for region in record.get("regions") or ()]
    row["counts"] = [
        {name: _plain(one[name]) for name in COUNT_FIELDS} for one in record.get("counts") or ()
    ]
    row["rules"] = [
        {name: _plain(one[name]) for name in RULE_FIELDS} for one in record.get("rules") or ()
    ]
    row["conversation"] = entry_rows(record)
    return row


def _region(region: Mapping[str, Any]) -> Record:
    x, y, width, height = region["box"]
    place = {"x": x, "y": y, "width": width, "height": height, "rle": region["rle"]["counts"]}
    told = {**region, **place}
    return {name: _plain(told.get(name)) for name in REGION_FIELDS}


def _plain(value: Any) -> Any:
    """Escape what is no text in names of files, which Parquet would refuse."""
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def _groups(rows: Iterator[Record]) -> Iterator[list[Record]]:
    while group := list(islice(rows, _ROWS)):
        yield group

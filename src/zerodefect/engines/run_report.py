"""The report of a run with the sections that are made at its end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from zerodefect.inspection.records import Record
from zerodefect.inspection.repeated_marks import RepeatedMark
from zerodefect.reports.example_list import Address
from zerodefect.reports.html_report import write_report
from zerodefect.reports.products_section import products_section
from zerodefect.reports.repeated_section import repeated_section, write_repeated
from zerodefect.reports.rules_section import rules_section
from zerodefect.reports.run_folder import RunStore


def write_run_report(
    store: RunStore,
    records: Callable[[], Iterator[Record]],
    parts: Iterable[Record],
    marks: Sequence[RepeatedMark],
    *,
    report: bool,
) -> Path | None:
    """Write ``repeated.json`` and, if asked for, the report; its page.

    Args:
        store: of the run.
        records: gives those that the report is of.
        parts: records of parts with several pictures.
        marks: the repeated ones.
        report: whether there is to be one.

    Raises:
        StoreError: a file cannot be written.
    """
    write_repeated(marks, store.folder)
    if not report:
        return None

    def sections(address: Address) -> str:
        products = products_section(store.folder, records, address)
        products += rules_section(records(), address)
        return products + repeated_section(marks, records(), address)

    seen = records()
    return write_report(store.folder, seen, store.manifest, parts=parts, repeated=sections)

"""The HTML report of a run: what a quality engineer opens after an inspection.

The report needs no network and no server: it opens by double click from ``file://``. A small run
becomes one self-contained ``report.html``; a large one a folder ``report/`` whose page reads a
compact summary of all images at once and the details of an image only when it is opened. Page,
style and script are the plain files in ``assets/``; this module fills them with data.
"""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from zerodefect.files import atomic_write
from zerodefect.images import colorize
from zerodefect.inspection.records import Record
from zerodefect.reports.example_list import Address
from zerodefect.reports.explained_section import ExplainedCounts, explained_section
from zerodefect.reports.report_page import fill_page
from zerodefect.reports.report_parts import ReportParts
from zerodefect.reports.report_pictures import WORD_RANGE

CHUNK_SIZE = 100
MAX_CALIBRATION_TICKS = 500

_MIME = {".jpg": "image/jpeg", ".png": "image/png"}
_DETAILS = (
    *("image", "object", "width", "height", "explanation", "answer", "counts"),
    *("words", "rules", "components", "conversation", "cloud"),
)
_COLUMNS = (
    *("image", "verdict", "score", "p_value", "count", "kinds", "area", "thumb", "noted", "part"),
    "against",
)
_REGION = (
    *("box", "area", "area_percent", "score", "p_value", "kind", "kind_score", "polygons"),
    "allowed",
)


def write_report(
    run_folder: Path,
    records: Iterable[Record],
    manifest: Record,
    *,
    parts: Iterable[Record] = (),
    repeated: Callable[[Address], str] = lambda address: "",
    single_file_limit: int = 200,
) -> Path:
    """Write the HTML report of a run and return the page to open.

    Up to ``single_file_limit`` inspected images become one self-contained ``report.html`` in the
    run folder, pictures included. More become ``report/index.html`` with ``summary.js`` (all
    images, compact) and ``data-000.js``, ``data-001.js``, ... (details of 100 images each, loaded
    when an image is opened); its pictures stay in ``assets/``. The form that an earlier call left
    behind is removed.

    Args:
        run_folder: folder of the run; paths in ``assets`` of the records are relative to it.
        records: records of the run (see ``records.py``), read once and in order. Images without
            pictures, kinds, p-values, regions or answers are fine.
        manifest: facts about the run. Read are ``object``, ``method``, ``backbone``, ``created``,
            ``zerodefect``, ``policy`` and ``settings``; each may be missing.
        parts: records of parts with several pictures, see ``part_records``.
        repeated: gives the sections of products and repeated marks; see ``run_report``.
        single_file_limit: most inspected images that go into one file.

    Raises:
        StoreError: a file cannot be written.
    """
    failures: list[Record] = []
    inspected = _without_failures(records, failures)
    first = list(islice(inspected, single_file_limit + 1))
    single, folder = len(first) <= single_file_limit, run_folder / "report"
    groups = ReportParts(parts)
    summary, chunks, written = _Summary(manifest, groups), [], 0
    address = _inline_address(run_folder) if single else _relative_address
    for details in _pack(chain(first, inspected), summary, address):
        call = _call("chunk", written, details)
        if single:
            chunks.append(call)
        else:
            _write(folder / f"data-{written:03d}.js", call)
        written += 1
    calls = [_call("summary", summary.content()), *chunks]
    if single:
        path, data = run_folder / "report.html", "\n".join(f"<script>{c}</script>" for c in calls)
    else:
        path, data = folder / "index.html", '<script src="summary.js"></script>'
        _write(folder / "summary.js", calls[0])
    verdicts = summary.columns["verdict"]
    told: dict[str, Any] = {"calibrated": summary.calibrated, "notes": summary.notes, "data": data}
    told["repeated"] = repeated(address)
    told["explained"] = explained_section(manifest, summary.explained)
    page = fill_page(manifest, verdicts, failures, groups=groups, **told)
    _write(path, page)
    _remove_folder_form(folder, keep=0 if single else written)
    if not single:
        (run_folder / "report.html").unlink(missing_ok=True)
    return path


def _remove_folder_form(folder: Path, *, keep: int) -> None:
    """Remove what an earlier report left and this one does not use; other files stay."""
    if not folder.is_dir():
        return
    for path in folder.glob("data-*.js"):
        number = path.stem.removeprefix("data-")
        if number.isdecimal() and int(number) >= keep:
            path.unlink()
    if keep == 0:
        for name in ("summary.js", "index.html"):
            (folder / name).unlink(missing_ok=True)
        if not any(folder.iterdir()):
            folder.rmdir()


def _without_failures(records: Iterable[Record], failures: list[Record]) -> Iterator[Record]:
    for record in records:
        if record.get("status") == "failed":
            failures.append(record)
        else:
            yield record


def _pack(
    records: Iterable[Record], summary: _Summary, address: Address
) -> Iterator[list[dict[str, Any]]]:
    """Details of the records chunk by chunk; what the list shows is added to ``summary``."""
    iterator = iter(records)
    while batch := list(islice(iterator, CHUNK_SIZE)):
        details = []
        for record in batch:
            assets = {k: address(v) for k, v in (record.get("assets") or {}).items()}
            summary.add(record, assets.pop("thumb", None))
            detail = {
                **{key: record.get(key) for key in _DETAILS},
                "notes": list(record.get("notes") or ()),
                "regions": [{key: r.get(key) for key in _REGION} for r in record["regions"]],
                "assets": assets,
                "area": _without_mask(record.get("area")),
            }
            details.append(detail)
        yield details


def _without_mask(area: Record | None) -> Record | None:
    """What the page says of an area by words; it shows the area as a picture."""
    return area and {"words": area["words"], "percent": area["percent"]}


class _Summary:
    """What the list shows of every image, column by column (compact for many images)."""

    def __init__(self, manifest: Record, parts: ReportParts) -> None:
        self.parts = parts
        self.policy: Record = manifest.get("policy") or {}
        each = manifest.get("policies") or [self.policy]
        self.calibrated = all(one.get("form", "none") != "none" for one in each)
        self.columns: dict[str, list[Any]] = {name: [] for name in _COLUMNS}
        self.kind_numbers: dict[str | None, int] = {}
        self.explained = ExplainedCounts()
        self.words = False  # whether any were looked for
        self.notes: Counter[str] = Counter()  # images that have a note, by what it says

    def add(self, record: Record, thumb: str | None) -> None:
        regions = record["regions"]
        self.notes.update(set(record.get("notes") or ()))
        self.words = self.words or bool(record.get("words"))
        kinds = dict.fromkeys(region.get("kind") for region in regions)
        row = {
            **record,
            "count": record.get("count", len(regions)),
            "kinds": [self.kind_numbers.setdefault(k, len(self.kind_numbers)) for k in kinds],
            "area": float(f"{sum(region['area_percent'] for region in regions):.4g}"),
            "thumb": thumb,
            "noted": len(record.get("notes") or ()),
            "part": self.parts.number(record.get("part")),
            "against": self.explained.add(record),
        }
        for name, column in self.columns.items():
            column.append(row.get(name))
        self.calibrated = self.calibrated and record.get("calibrated") is not False

    def content(self) -> dict[str, Any]:
        colour_range = self.policy.get("colour_range")
        return {
            **self.columns,
            "vocabulary": list(self.kind_numbers),
            "calibrated": self.calibrated,
            "limits": self.policy.get("limits") or {},
            "calibration_scores": _thin(self.policy.get("scores") or []),
            "region_limit": self.policy.get("region_limit"),
            "colour_range": colour_range,
            "ramp": _ramp(*colour_range) if colour_range else [],
            "words": {"range": WORD_RANGE, "ramp": _ramp(*WORD_RANGE)} if self.words else None,
            "chunk_size": CHUNK_SIZE,
            "parts": self.parts.rows,
        }


def _thin(scores: list[float]) -> list[float]:
    """At most 500 of the calibration scores, lowest and highest included, for the rug plot."""
    if len(scores) <= MAX_CALIBRATION_TICKS:
        return list(scores)
    ascending = sorted(scores)
    places = np.linspace(0, len(scores) - 1, MAX_CALIBRATION_TICKS).round().astype(int)
    return [ascending[place] for place in places]


def _ramp(low: float, high: float) -> list[str]:
    """Colours of the legend from the one function that colours the pictures."""
    values = np.linspace(low, high, 33, dtype=np.float32)[None]
    return [f"#{r:02x}{g:02x}{b:02x}" for r, g, b in colorize(values, low, high)[0].tolist()]


def _relative_address(path: str) -> str:
    return "../" + quote(path.replace("\\", "/"), safe="/")


def _inline_address(run_folder: Path) -> Address:
    root = run_folder.resolve()

    def address(path: str) -> str | None:
        file = (root / path).resolve()
        if file.suffix == ".html" and file.is_relative_to(root):
            return quote(path.replace("\\", "/"), safe="/")  # a page of its own beside the report
        mime = _MIME.get(file.suffix.lower())
        # Only the run's own pictures are copied into a file that is meant to be passed on.
        if mime is None or not file.is_relative_to(root) or not file.is_file():
            return None
        return f"data:{mime};base64,{base64.b64encode(file.read_bytes()).decode('ascii')}"

    return address


def _call(function: str, *arguments: object) -> str:
    """A call of the page's script; safe inside a <script> element, whatever the strings contain."""
    text = json.dumps(arguments, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    text = text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    return f"zeroDefect.{function}({text[1:-1]});"


def _write(path: Path, content: str) -> None:
    with atomic_write(path) as file:
        # File names may hold bytes that are no text; they must not stop the report.
        file.write(content.encode("utf-8", "replace"))

"""The HTML report of a run: what a quality engineer opens after an inspection.

The report needs no network and no server: it opens by double click from ``file://``. A small run
becomes one self-contained ``report.html``; a large one a folder ``report/`` whose page reads a
compact summary of all images at once and the details of an image only when it is opened. Page,
style and script are the plain files in ``assets/``; this module fills them with data.
"""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import datetime
from html import escape
from importlib import resources
from itertools import chain, islice
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from PIL import Image

from zerodefect.files import atomic_write
from zerodefect.images import (
    blend,
    colorize,
    draw_regions,
    encode_jpeg,
    encode_png,
    heat_rgba,
    thumbnail,
)
from zerodefect.types import Inspection, Region

PICTURE_SIDE = 1024
HEAT_SIDE = 384
THUMB_SIDE = 192
CHUNK_SIZE = 100
MAX_FAILURES = 1000
MAX_CALIBRATION_TICKS = 500

Record = dict[str, Any]
# From a picture's path in the run folder to what stands in the page, or None if it is not there.
Address = Callable[[str], "str | None"]

_VERDICTS = ("defect", "unsure", "good")
_MIME = {".jpg": "image/jpeg", ".png": "image/png"}
_DETAILS = ("image", "object", "width", "height", "explanation")
_REGION = ("box", "area", "area_percent", "score", "p_value", "kind", "kind_score", "polygons")


# ---- pictures, written during the run ----


def write_assets(
    pixels: np.ndarray,
    inspection: Inspection,
    colour_range: tuple[float, float],
    folder: Path,
    stem: str,
) -> dict[str, str]:
    """Write the pictures that the report shows of one image.

    Args:
        pixels: the upright picture, ``(H, W, 3)`` uint8.
        inspection: its outcome; without ``map`` no heat map is written.
        colour_range: raw map values at the two ends of the colour ramp, the same for every image
            of a run (they come from the calibration, never from the image).
        folder: where the files go, the run's ``assets`` folder; made if missing.
        stem: file name without ending, unique within the run.

    Returns:
        Paths relative to the run folder (the parent of ``folder``): ``image`` (JPEG, longest side
        at most 1024), ``heat`` (RGBA PNG, longest side at most 384, transparent below the range)
        and ``thumb`` (JPEG, longest side at most 192, with heat map and outlines).

    Raises:
        StoreError: a file cannot be written. Files are replaced whole, never left half written.
    """
    low, high = colour_range
    folder.mkdir(parents=True, exist_ok=True)
    picture = thumbnail(pixels, PICTURE_SIDE)
    files = {"image": (f"{stem}.jpg", encode_jpeg(picture))}
    thumb = thumbnail(picture, THUMB_SIDE)
    if inspection.map is not None:
        heat = heat_rgba(_shrink_map(inspection.map, HEAT_SIDE), low, high)
        files["heat"] = (f"{stem}.png", encode_png(heat))
        thumb = blend(thumb, _resize_map(inspection.map, *thumb.shape[:2]), low, high)
    thumb = draw_regions(thumb, _scale_regions(inspection, *thumb.shape[:2]))
    files["thumb"] = (f"{stem}.thumb.jpg", encode_jpeg(thumb))
    for name, content in files.values():
        _write(folder / name, content)
    return {key: f"{folder.name}/{name}" for key, (name, _) in files.items()}


def _resize_map(values: np.ndarray, height: int, width: int) -> np.ndarray:
    # Pillow's bilinear filter averages over the source pixels when it shrinks.
    image = Image.fromarray(np.ascontiguousarray(values, dtype=np.float32))
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))


def _shrink_map(values: np.ndarray, longest: int) -> np.ndarray:
    height, width = values.shape
    scale = min(1.0, longest / max(height, width))
    return _resize_map(values, max(1, round(height * scale)), max(1, round(width * scale)))


def _scale_regions(inspection: Inspection, height: int, width: int) -> tuple[Region, ...]:
    """Regions in the pixels of a smaller picture, so that outlines stay visible on it."""
    across, down = width / inspection.width, height / inspection.height
    return tuple(_scale_region(region, across, down) for region in inspection.regions)


def _scale_region(region: Region, across: float, down: float) -> Region:
    x, y, width, height = region.box
    left, top = math.floor(x * across), math.floor(y * down)
    new_width = max(1, math.ceil((x + width) * across) - left)
    new_height = max(1, math.ceil((y + height) * down) - top)
    mask = Image.fromarray(region.mask.astype(np.uint8) * 255)
    small = mask.resize((new_width, new_height), Image.Resampling.BOX)
    return replace(
        region,
        box=(left, top, new_width, new_height),
        mask=np.asarray(small) > 0,  # a thin scratch stays, however small the picture
        polygons=tuple(
            tuple(value * (down if place % 2 else across) for place, value in enumerate(points))
            for points in region.polygons
        ),
    )


# ---- the report, written after the run ----


def write_report(
    run_folder: Path,
    records: Iterable[Record],
    manifest: Record,
    *,
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
            pictures, kinds, p-values or regions are fine.
        manifest: facts about the run. Read are ``object``, ``method``, ``backbone``, ``created``,
            ``zerodefect``, ``policy`` and ``settings``; each may be missing.
        single_file_limit: most inspected images that go into one file.

    Raises:
        StoreError: a file cannot be written.
    """
    run_folder = Path(run_folder)
    failures: list[Record] = []
    inspected = _without_failures(records, failures)
    first = list(islice(inspected, single_file_limit + 1))
    if len(first) <= single_file_limit:
        return _write_single(run_folder, first, failures, manifest)
    return _write_folder(run_folder, chain(first, inspected), failures, manifest)


def _write_single(
    run_folder: Path, records: list[Record], failures: list[Record], manifest: Record
) -> Path:
    summary = _Summary(manifest)
    chunks = [
        f"<script>zeroDefect.chunk({number},{_script_literal(details)});</script>"
        for number, details in enumerate(_pack(records, summary, _inline_address(run_folder)))
    ]
    data = f"<script>zeroDefect.summary({_script_literal(summary.content())});</script>"
    path = run_folder / "report.html"
    _write(path, _page(manifest, summary, failures, "\n".join([data, *chunks])))
    _remove_folder_form(run_folder / "report", keep=0)
    return path


def _write_folder(
    run_folder: Path, records: Iterable[Record], failures: list[Record], manifest: Record
) -> Path:
    folder = run_folder / "report"
    folder.mkdir(parents=True, exist_ok=True)
    summary = _Summary(manifest)
    written = 0
    for details in _pack(records, summary, _relative_address):
        content = f"zeroDefect.chunk({written},{_script_literal(details)});\n"
        _write(folder / f"data-{written:03d}.js", content)
        written += 1
    content = f"zeroDefect.summary({_script_literal(summary.content())});\n"
    _write(folder / "summary.js", content)
    path = folder / "index.html"
    _write(path, _page(manifest, summary, failures, '<script src="summary.js"></script>'))
    _remove_folder_form(folder, keep=written)
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
        (folder / "summary.js").unlink(missing_ok=True)
        (folder / "index.html").unlink(missing_ok=True)
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
            details.append(_detail(record, assets))
        yield details


def _detail(record: Record, assets: dict[str, str | None]) -> dict[str, Any]:
    return {
        **{key: record.get(key) for key in _DETAILS},
        "notes": list(record.get("notes") or ()),
        "regions": [{key: r.get(key) for key in _REGION} for r in record["regions"]],
        "assets": assets,
    }


class _Summary:
    """What the list shows of every image, column by column (compact for many images)."""

    def __init__(self, manifest: Record) -> None:
        self.policy: Record = manifest.get("policy") or {}
        self.calibrated = _is_calibrated(self.policy)
        self.columns: dict[str, list[Any]] = {
            name: []
            for name in ("image", "verdict", "score", "p_value", "count", "kinds", "area", "thumb")
        }
        self.kind_numbers: dict[str | None, int] = {}

    def add(self, record: Record, thumb: str | None) -> None:
        regions = record["regions"]
        kinds = dict.fromkeys(region.get("kind") for region in regions)
        row = {
            "image": record["image"],
            "verdict": record["verdict"],
            "score": record["score"],
            "p_value": record.get("p_value"),
            "count": record.get("count", len(regions)),
            "kinds": [self.kind_numbers.setdefault(k, len(self.kind_numbers)) for k in kinds],
            "area": float(f"{sum(region['area_percent'] for region in regions):.4g}"),
            "thumb": thumb,
        }
        for name, value in row.items():
            self.columns[name].append(value)
        self.calibrated = self.calibrated and record.get("calibrated") is not False

    def count(self, verdict: str) -> int:
        return self.columns["verdict"].count(verdict)

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
            "chunk_size": CHUNK_SIZE,
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


# ---- addresses of pictures ----


def _relative_address(path: str) -> str:
    return "../" + quote(path.replace("\\", "/"), safe="/")


def _inline_address(run_folder: Path) -> Address:
    root = run_folder.resolve()

    def address(path: str) -> str | None:
        file = (root / path).resolve()
        mime = _MIME.get(file.suffix.lower())
        # Only the run's own pictures are copied into a file that is meant to be passed on.
        if mime is None or not file.is_relative_to(root) or not file.is_file():
            return None
        return f"data:{mime};base64,{base64.b64encode(file.read_bytes()).decode('ascii')}"

    return address


# ---- the page ----


def _page(manifest: Record, summary: _Summary, failures: list[Record], data: str) -> str:
    product = manifest.get("object")
    heading = str(product) if product else "Inspection"
    state = "" if summary.calibrated else " (uncalibrated)"
    parts = {
        "title": escape(f"{heading}: inspection report{state}"),
        "heading": escape(heading),
        "style": _shipped("report.css"),
        "script": _shipped("report.js"),
        "body_class": "calibrated" if summary.calibrated else "uncalibrated",
        "banner": "" if summary.calibrated else _BANNER,
        "facts": _facts(manifest),
        "counts": _counts(summary, failures),
        "statement": "".join(f"<p>{escape(s)}</p>" for s in _statements(summary)),
        "failures": _failure_table(failures),
        "settings": _settings(manifest),
        "data": data,
    }
    # One pass: a file name that looks like a placeholder is not filled in again.
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], _shipped("template.html"))


_BANNER = (
    '<div class="banner" role="alert"><strong>Uncalibrated: verdicts are provisional.</strong> '
    "Run <code>zerodefect calibrate</code> on good parts.</div>"
)


def _shipped(name: str) -> str:
    folder = resources.files("zerodefect.reports") / "assets"
    return (folder / name).read_text(encoding="utf-8")


def _facts(manifest: Record) -> str:
    facts = {
        "Method": manifest.get("method"),
        "Backbone": manifest.get("backbone"),
        "Date": _date(manifest.get("created")),
        "ZeroDefect": manifest.get("zerodefect"),
    }
    return "".join(
        f"<div><dt>{name}</dt><dd>{escape(str(value))}</dd></div>"
        for name, value in facts.items()
        if value
    )


def _date(created: object) -> str:
    """Date and time as people read them; what is not ISO 8601 stays as it is."""
    text = str(created or "")
    try:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        return text
    return f"{moment:%Y-%m-%d %H:%M} {moment.tzname() or ''}".rstrip()


def _counts(summary: _Summary, failures: list[Record]) -> str:
    items = [
        f'<li class="{verdict}" data-count="{verdict}"><b>{summary.count(verdict):,}</b>'
        f'<span class="verdict"><svg class="shape" aria-hidden="true">'
        f'<use href="#shape-{verdict}"></use></svg>{verdict}</span></li>'
        for verdict in _VERDICTS
    ]
    if failures:
        items.append(
            f'<li data-count="failed"><b>{len(failures):,}</b><a href="#failed">not read</a></li>'
        )
    return "".join(items)


def _failure_table(failures: list[Record]) -> str:
    if not failures:
        return ""
    keys = ("image", "reason", "remedy")
    rows = "".join(
        "<tr>"
        + "".join(f'<td class="path">{escape(str(record.get(key, "")))}</td>' for key in keys)
        + "</tr>"
        for record in failures[:MAX_FAILURES]
    )
    more = len(failures) - MAX_FAILURES
    rest = f'<p class="quiet">{more:,} more are in results.jsonl.</p>' if more > 0 else ""
    noun = "file" if len(failures) == 1 else "files"
    state = " open" if len(failures) <= 10 else ""
    return (
        f'<details class="panel" id="failed"{state}>'
        f"<summary>{len(failures):,} {noun} could not be inspected</summary>"
        '<div class="table"><table><thead><tr><th scope="col">File</th><th scope="col">Reason</th>'
        f'<th scope="col">What to do</th></tr></thead><tbody>{rows}</tbody></table></div>{rest}'
        "</details>"
    )


def _settings(manifest: Record) -> str:
    """The run's settings and policy for the record, without the long lists of scores."""
    policy = manifest.get("policy") or {}
    shown = {
        **{key: value for key, value in manifest.items() if key != "policy"},
        "policy": {key: v for key, v in policy.items() if key not in ("scores", "map_maxima")},
    }
    text = escape(json.dumps(shown, indent=2, ensure_ascii=False, default=str))
    return (
        '<details class="panel settings"><summary>Settings of this run</summary>'
        f"<pre>{text}</pre></details>"
    )


# ---- the calibration in words ----


def _is_calibrated(policy: Record) -> bool:
    form = policy.get("form")
    return bool(policy.get("calibrated", form not in (None, "none")))


def _statements(summary: _Summary) -> list[str]:
    """Sentences that say what the verdicts rest on; nothing is claimed that the limits break."""
    policy = summary.policy
    limits = policy.get("limits") or {}
    if not summary.calibrated:
        defect = limits.get("defect")
        if defect is None:
            return ["Without calibration no image is called good or defective: all are unsure."]
        return [f"Without calibration an image is called defective above the score {defect:.4g}."]
    scores = policy.get("scores") or []
    how = ", each scored against the others" if policy.get("form") == "leave-one-out" else ""
    sentences = [f"Limits learned from {_images(len(scores) or policy.get('images', 0))}{how}."]
    for name, rate, called in (
        ("defect", policy.get("false_alarms"), "defective"),
        ("unsure", policy.get("review_rate"), "unsure or worse"),
    ):
        sentences.append(_promise(policy, name, rate, called))
    # The policy's own sentence on its limits is left out: it cannot know of limits edited later.
    notes = [str(note) for note in policy.get("notes") or ()]
    return sentences + [note for note in notes if not note.startswith("Limits learned from")]


def _images(count: int) -> str:
    return f"{count:,} good image" + ("" if count == 1 else "s")


def _promise(policy: Record, name: str, rate: float | None, called: str) -> str:
    """What holds for good parts at a limit.

    A limit with m of n calibration scores above it has a false-alarm rate of at most
    (m + 1) / (n + 1) for exchangeable images (split conformal prediction). Where a limit was
    replaced by hand below that, the promised rate no longer holds and the count is given instead.
    """
    limit = (policy.get("limits") or {}).get(name)
    if limit is None:
        return f"No limit for the verdict “{name}” can be proved from so few images."
    scores = policy.get("scores") or []
    above = sum(score > limit for score in scores)
    if rate is None or (scores and (above + 1) / (len(scores) + 1) > rate * (1 + 1e-9)):
        counted = f": {above} of the {_images(len(scores))} lie above it" if scores else ""
        return f"The limit for “{name}” was set by hand{counted}."
    share = f"{100 * rate:.3g} %"
    if not policy.get("guaranteed", policy.get("form") == "split"):
        return f"About {share} of good parts should be called {called}; this is not guaranteed."
    return f"At most {share} of good parts are called {called} (guaranteed for parts like those)."


# ---- small helpers ----


def _script_literal(value: object) -> str:
    """JSON that is safe inside a <script> element, whatever the strings contain."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _write(path: Path, content: bytes | str) -> None:
    if isinstance(content, str):
        # File names may hold bytes that are no text; they must not stop the report.
        content = content.encode("utf-8", "replace")
    with atomic_write(path) as file:
        file.write(content)

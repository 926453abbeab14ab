"""Inspect many files in this process, resumable at any moment."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from zerodefect.inspection.inspector import Inspector
from zerodefect.inspection.policy import Policy
from zerodefect.reports.html_report import write_report
from zerodefect.reports.parquet_file import require_pyarrow, write_parquet
from zerodefect.reports.records import Record, failure_record, to_record
from zerodefect.reports.report_pictures import write_assets
from zerodefect.reports.result_files import (
    CocoForm,
    map_path,
    write_coco,
    write_csv,
    write_map_tiff,
    write_regions_csv,
)
from zerodefect.reports.run_folder import RunStore, image_key
from zerodefect.scoring.stream import Seen
from zerodefect.types import Failure, Inspection


@dataclass(frozen=True)
class Summary:
    """What came of a run.

    Attributes:
        folder: the run folder.
        images: files asked for.
        inspected: files inspected now; the others were done before.
        verdicts: count per verdict over all files, and of "failed" ones.
        notes: how many files have a note, by what it says.
        report: the report's page, or None.
        calibrated: whether the verdicts rest on a calibration.
    """

    folder: Path
    images: int
    inspected: int
    verdicts: dict[str, int]
    notes: dict[str, int]
    report: Path | None
    calibrated: bool

    @property
    def failed(self) -> int:
        """Files that could not be inspected."""
        return self.verdicts.get("failed", 0)


def inspect_files(
    inspector: Inspector,
    files: Sequence[Path],
    folder: Path,
    *,
    maps: bool = False,
    report: bool = True,
    coco: CocoForm = "rle",
    parquet: bool = False,
    batch_size: int = 8,
    overwrite: bool = False,
    on_record: Callable[[Record], None] = lambda record: None,
) -> Summary:
    """Inspect files into a run folder, or go on with a run that was killed.

    What is recorded is not inspected again, what failed is tried again.

    Args:
        inspector: ready to judge: described, with references and policy as wanted.
        files: pictures.
        folder: the run folder: ``run.json``, ``results.jsonl``, ``results.csv``, ``regions.csv``,
            ``coco.json``, and what else is asked for.
        maps: write full-size float TIFF maps in the MVTec layout, ``maps/``.
        report: write the HTML report and its pictures.
        coco, parquet: how ``coco.json`` has the regions; write ``results.parquet``, too.
        batch_size: images that go through the network at once.
        overwrite: throw away what the folder holds of another run.
        on_record: called with every record made now, and first with those of earlier runs.

    Raises:
        StoreError: the folder cannot be written, is in use, or holds a run with other settings.
        PolicyMismatch: the policy was made for something else.
        ValueError: a Parquet file is wanted and pyarrow is not installed.
    """
    if parquet:
        require_pyarrow()
    inspector.infer_bit_depth(files)
    policy = inspector.active_policy()
    root = _common_root(files) if maps else None
    wanted = {str(path) for path in files}
    settings = {"maps": maps, "report": report, "root": root and str(root)}
    manifest = {**_manifest(inspector, policy), "settings": settings}
    with RunStore(folder, manifest, overwrite=overwrite) as store:
        first = store.manifest["settings"].get("root")
        root = Path(first) if first and maps else root  # of the maps, whatever has come since
        done, keys = store.done(), {path: image_key(path) for path in files}
        waiting = [path for path in files if keys[path] not in done]
        for record in _recorded(store, wanted - {str(path) for path in waiting}):
            on_record(record)
        for seen in inspector.stream(waiting, batch_size=batch_size):
            record = _finish(seen, store, policy.colour_range, root, report)
            store.append(record, keys[seen.source])
            on_record(record)
        store.sync()
        records = partial(_recorded, store, wanted)
        verdicts, notes = _counted(records())
        _write_tables(folder, records, inspector.kinds(), coco, parquet)
        page = write_report(folder, records(), store.manifest) if report else None
    counts = len(files), len(waiting), dict(verdicts), dict(notes)
    return Summary(folder, *counts, page, policy.calibrated)


def _recorded(store: RunStore, wanted: set[str]) -> Iterator[Record]:
    return (record for record in store.records() if record["image"] in wanted)


def _write_tables(
    folder: Path,
    records: Callable[[], Iterable[Record]],
    kinds: Sequence[str],
    coco: CocoForm,
    parquet: bool,
) -> None:
    write_csv(records(), folder / "results.csv")
    write_regions_csv(records(), folder / "regions.csv")
    write_coco(records(), folder / "coco.json", kinds=kinds, form=coco)
    if parquet:
        write_parquet(records(), folder / "results.parquet")
    else:  # that of an earlier start would lack what came since
        (folder / "results.parquet").unlink(missing_ok=True)


def _counted(records: Iterable[Record]) -> tuple[Counter[str], Counter[str]]:
    """How many images have each verdict, and each note."""
    verdicts: Counter[str] = Counter()
    notes: Counter[str] = Counter()
    for record in records:
        verdicts[record.get("verdict", "failed")] += 1
        notes.update(set(record.get("notes") or ()))
    return verdicts, notes


def _manifest(inspector: Inspector, policy: Policy) -> dict[str, Any]:
    return {
        "object": inspector.object,
        "method": inspector.detector.info.title,
        "backbone": inspector.detector.backbone,
        "detector": inspector.facts(),
        "policy": policy.model_dump(mode="json"),
    }


def _finish(
    seen: Seen[Path, Inspection],
    store: RunStore,
    colour_range: tuple[float, float] | None,
    root: Path | None,
    report: bool,
) -> Record:
    """Write map (below ``root``) and pictures of one result, so that its record never lies."""
    path, picture, result = seen.source, seen.picture, seen.result
    if isinstance(result, Failure):
        return failure_record(result)
    assert picture is not None
    map_name: str | None = None
    if root and result.map is not None:
        target = map_path(store.folder, path, root)
        write_map_tiff(target, result.map)
        map_name = target.relative_to(store.folder).as_posix()
    assets: dict[str, Any] | None = None
    if report:
        # named by the path, not by a running number: the folder may have grown since
        stem = hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
        assets = write_assets(
            picture.to_uint8(), result, colour_range, store.folder / "assets", stem
        )
    return to_record(result, map_path=map_name, assets=assets)


def _common_root(files: Sequence[Path]) -> Path:
    folders = {str(path.absolute().parent) for path in files}
    try:
        return Path(os.path.commonpath(sorted(folders)))
    except ValueError:  # files on several drives, or none
        return Path.cwd()

"""Inspect many files in this process, resumable at any moment."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from zerodefect.inspection.inspector import Inspector
from zerodefect.inspection.policy import Policy
from zerodefect.reports.html_report import write_report
from zerodefect.reports.records import Record, failure_record, to_record
from zerodefect.reports.report_pictures import write_assets
from zerodefect.reports.result_files import (
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
class Outputs:
    """What a run writes beside its records.

    Attributes:
        maps: full-size float TIFF maps in the MVTec layout.
        report: the HTML report and its pictures.
    """

    maps: bool = False
    report: bool = True


@dataclass(frozen=True)
class Summary:
    """What came of a run.

    Attributes:
        folder: the run folder.
        images: files asked for.
        inspected: files inspected now; the others were done before.
        verdicts: count per verdict over all files, and of "failed" ones.
        report: the report's page, or None.
        calibrated: whether the verdicts rest on a calibration.
    """

    folder: Path
    images: int
    inspected: int
    verdicts: dict[str, int]
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
    outputs: Outputs | None = None,
    batch_size: int = 8,
    overwrite: bool = False,
    on_record: Callable[[Record], None] = lambda record: None,
) -> Summary:
    """Inspect files into a run folder.

    The same call on the same folder continues a run that was killed: what is recorded is not
    inspected again, what failed is tried again.

    Args:
        inspector: ready to judge: described, with references and policy as wanted.
        files: pictures.
        folder: the run folder: ``run.json``, ``results.jsonl``, ``results.csv``, ``regions.csv``,
            ``coco.json``, and by ``outputs`` ``maps/`` and the report.
        outputs: what else is written.
        batch_size: images that go through the network at once.
        overwrite: throw away what the folder holds of another run.
        on_record: called with every record made now, and first with those of earlier runs.

    Raises:
        StoreError: the folder cannot be written, is in use, or holds a run with other settings.
        PolicyMismatch: the policy was made for something else.
    """
    outputs = outputs or Outputs()
    inspector.infer_bit_depth(files)
    policy = inspector.active_policy()
    root = _common_root(files)
    wanted = {str(path) for path in files}
    manifest = _manifest(inspector, policy, outputs, root)
    with RunStore(folder, manifest, overwrite=overwrite) as store:
        done = store.done()
        keys = {path: image_key(path) for path in files}
        waiting = [path for path in files if keys[path] not in done]
        pending = {str(path) for path in waiting}
        for record in store.records():
            if record["image"] in wanted and record["image"] not in pending:
                on_record(record)
        for seen in inspector.stream(waiting, batch_size=batch_size):
            record = _finish(seen, store, policy.colour_range, outputs, root)
            store.append(record, keys[seen.source])
            on_record(record)
        store.sync()

        def records() -> Iterator[Record]:
            return (r for r in store.records() if r["image"] in wanted)

        verdicts = Counter(r.get("verdict", "failed") for r in records())
        write_csv(records(), folder / "results.csv")
        write_regions_csv(records(), folder / "regions.csv")
        write_coco(records(), folder / "coco.json", kinds=inspector.kinds())
        report = write_report(folder, records(), store.manifest) if outputs.report else None
    return Summary(folder, len(files), len(waiting), dict(verdicts), report, policy.calibrated)


def _manifest(inspector: Inspector, policy: Policy, outputs: Outputs, root: Path) -> dict[str, Any]:
    return {
        "object": inspector.object,
        "method": inspector.detector.info.title,
        "backbone": inspector.detector.backbone,
        "detector": inspector.facts(),
        "policy": policy.model_dump(mode="json"),
        # maps lie below their root: another root would put them over those of other images
        "settings": {**asdict(outputs), "root": str(root) if outputs.maps else None},
    }


def _finish(
    seen: Seen[Path, Inspection],
    store: RunStore,
    colour_range: tuple[float, float] | None,
    outputs: Outputs,
    root: Path,
) -> Record:
    """Write map and pictures of one result; the record comes last, so that it never lies."""
    path, picture, result = seen.source, seen.picture, seen.result
    if isinstance(result, Failure):
        return failure_record(result)
    assert picture is not None
    map_name: str | None = None
    if outputs.maps and result.map is not None:
        target = map_path(store.folder, path, root)
        write_map_tiff(target, result.map)
        map_name = target.relative_to(store.folder).as_posix()
    assets: dict[str, Any] | None = None
    if outputs.report:
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

"""Inspect many files in this process, resumable at any moment."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, islice
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from zerodefect.engines.run_report import write_run_report
from zerodefect.inspection.inspected import Inspection
from zerodefect.inspection.inspector import Inspector
from zerodefect.inspection.picture_sets import PictureSets
from zerodefect.inspection.policy import Policy
from zerodefect.inspection.records import Record, failure_record, to_record
from zerodefect.inspection.repeated_marks import RepeatedMark, repeated_in_products
from zerodefect.reports.cloud_assets import (
    cloud_record,
    write_cloud_assets,
    write_scored_points,
)
from zerodefect.reports.parquet_file import require_pyarrow, write_parquet
from zerodefect.reports.part_records import PartsOfRun, parts_of_run, read_parts, write_parts
from zerodefect.reports.products_section import write_products
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
from zerodefect.types import Failure

if TYPE_CHECKING:
    from zerodefect.inspection.explainer import Explainer


@dataclass(frozen=True)
class Summary:
    """What came of a run.

    Attributes:
        folder: the run folder.
        images: files asked for.
        inspected: files inspected now; the others were done before.
        verdicts: count per verdict over all files, and of "failed" ones.
        parts: count per verdict over parts of several pictures; None where each file is one.
        notes: how many files have a note, by what it says.
        report: the report's page, or None.
        calibrated: whether the verdicts rest on a calibration.
        repeated: a sentence for every mark that several pictures share.
    """

    folder: Path
    images: int
    inspected: int
    verdicts: dict[str, int]
    notes: dict[str, int]
    report: Path | None
    calibrated: bool
    parts: dict[str, int] | None = None
    repeated: tuple[str, ...] = ()

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
    part_by: str | None = None,
    batch_size: int = 8,
    sets: PictureSets | None = None,
    words: Sequence[str] = (),
    explainer: Explainer | None = None,
    explain_good: bool = False,
    overwrite: bool = False,
    on_record: Callable[[Record], None] = lambda record: None,
    on_part: Callable[[Record], None] = lambda record: None,
) -> Summary:
    """Inspect files into a run folder, or go on with a killed run: what failed is tried again.

    Args:
        inspector: ready to judge: described, with references and policy as wanted.
        files, folder: pictures; the run folder, see ``run_folder``.
        maps, report: write full-size float TIFF maps in the MVTec layout, ``maps/``; the report.
        coco, parquet: how ``coco.json`` has the regions; write ``results.parquet``, too.
        part_by: pattern that names the part that a file shows; None for the policy's, if any.
        batch_size: images that go through the network at once.
        sets: which pictures a set method compares, see ``PictureSets``; None: all of them.
        words, explainer, explain_good: of ``Inspector.where`` and ``Explainer.explaining``.
        overwrite: throw away what the folder holds of another run.
        on_record, on_part: called with every record, of earlier runs first, and every part's.

    Raises:
        StoreError: the folder cannot be written, is in use, or holds a run with other settings.
        PolicyError: the policy was made for something else, or for other parts.
        ValueError: a Parquet file is wanted and pyarrow is not installed.
    """
    if parquet:
        require_pyarrow()
    policy, parts, files = _begun(inspector, files, part_by)
    root = _common_root(files) if maps else None
    settings = {"maps": maps, "report": report, "root": root and str(root)}
    sets = sets or (PictureSets.of(inspector, files) if inspector.transductive else None)
    manifest = _manifest(inspector, policy, settings, parts, sets, words)
    manifest |= {"explained_by": explainer.facts() | {"good": explain_good}} if explainer else {}
    with RunStore(folder, manifest, overwrite=overwrite) as store:
        keys = {path: image_key(path) for path in files}
        waiting = _waiting(store, keys, sets)
        before = _recorded(store, set(files) - set(waiting))
        seen = _with_words(inspector, _seen(inspector, waiting, sets, batch_size), words)
        found = explainer.explaining(seen, good=explain_good) if explainer else seen
        appended = _appended(store, keys, found, _map_root(store, root), report, parts)
        for record in chain(before, appended):
            _tell(parts, on_record, on_part, record)
        store.sync()
        records = partial(_recorded, store, files)
        _write_tables(folder, records, inspector.kinds(), coco, parquet, sets)
        told = _written(store, records, parts, _marks(inspector, records, sets, batch_size), report)
    return Summary(folder, len(files), len(waiting), calibrated=_calibrated(sets, policy), **told)


def _begun(
    inspector: Inspector, files: Sequence[Path], part_by: str | None
) -> tuple[Policy, PartsOfRun | None, Sequence[Path]]:
    """The policy of a run, its parts and its files, in the order in which they are inspected."""
    inspector.infer_bit_depth(files)
    policy = inspector.active_policy()
    parts = parts_of_run(files, part_by, policy)
    return policy, parts, parts.files if parts else files


def _calibrated(sets: PictureSets | None, policy: Policy) -> bool:
    return all(one.calibrated for one in (sets and sets.policies) or (policy,))


def _map_root(store: RunStore, root: Path | None) -> Path | None:
    """Root of the maps as the run began, whatever files have come since; None without maps."""
    first = store.manifest["settings"].get("root")
    return Path(first) if first and root else root


def _appended(
    store: RunStore, keys: Mapping[Path, str], found: Iterable[Seen[Path, Inspection]], *how: Any
) -> Iterator[Record]:
    """The record of each result once it is in the store."""
    for seen in found:
        record = _finish(seen, store, *how)
        store.append(record, keys[seen.source])
        yield record


def _waiting(store: RunStore, keys: Mapping[Path, str], sets: PictureSets | None) -> list[Path]:
    """Files that are not done; a set that is not done is scored again whole."""
    done = store.done()
    waiting = [path for path, key in keys.items() if key not in done]
    return sets.whole(waiting) if sets else waiting


def _seen(
    inspector: Inspector, waiting: Sequence[Path], sets: PictureSets | None, batch_size: int
) -> Iterator[Seen[Path, Inspection]]:
    """What comes of the files; set after set where they are compared with each other."""
    if sets is None:
        yield from inspector.stream(waiting, batch_size=batch_size)
        return
    asked, whole = set(waiting), inspector.policy
    try:
        for one, number in zip(sets.sets, sets.group_of, strict=True):
            if asked.isdisjoint(one):
                continue
            if sets.policies:
                inspector.policy = sets.policies[number]
            good = sets.groups[number].good
            found = inspector.stream([*good, *one], batch_size=batch_size)
            yield from islice(found, len(good), None)
    finally:
        inspector.policy = whole


def _marks(
    inspector: Inspector,
    records: Callable[[], Iterator[Record]],
    sets: PictureSets | None,
    batch_size: int,
) -> list[RepeatedMark]:
    """The marks that repeat, where pictures are compared with each other anyway."""
    products = [set(map(str, group.files)) for group in sets.groups] if sets else []
    return repeated_in_products(inspector, records, products, batch_size)


def _with_words(
    inspector: Inspector, found: Iterable[Seen[Path, Inspection]], words: Sequence[str]
) -> Iterator[Seen[Path, Inspection]]:
    """The same with where words are seen in each picture, if any are looked for."""
    for seen in found:
        picture, result = seen.picture, seen.result
        if words and isinstance(result, Inspection) and picture is not None:
            result = replace(result, words=inspector.see_words(picture, words))
        yield Seen(seen.source, picture, result)


def _tell(
    parts: PartsOfRun | None,
    on_record: Callable[[Record], None],
    on_part: Callable[[Record], None],
    record: Record,
) -> None:
    on_record(record)
    if parts and (part := parts.add(record)) is not None:
        on_part(part)


def _written(
    store: RunStore,
    records: Callable[[], Iterator[Record]],
    parts: PartsOfRun | None,
    marks: Sequence[RepeatedMark],
    report: bool,
) -> dict[str, Any]:
    """Write parts and report; what a summary tells of all records."""
    folder = store.folder
    verdicts, notes = _counted(records())
    counts = write_parts(parts, records, folder) if parts else None
    judged = read_parts(folder) if parts else ()
    page = write_run_report(store, records, judged, marks, report=report)
    told: dict[str, Any] = {"verdicts": dict(verdicts), "notes": dict(notes), "report": page}
    told["repeated"] = tuple(mark.sentence() for mark in marks)
    return {**told, "parts": None if counts is None else dict(counts)}


def _recorded(store: RunStore, files: Iterable[Path]) -> Iterator[Record]:
    wanted = {str(path) for path in files}
    return (record for record in store.records() if record["image"] in wanted)


def _write_tables(
    folder: Path,
    records: Callable[[], Iterable[Record]],
    kinds: Sequence[str],
    coco: CocoForm,
    parquet: bool,
    sets: PictureSets | None,
) -> None:
    write_products(sets, folder)
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


def _manifest(
    inspector: Inspector,
    policy: Policy,
    settings: dict[str, Any],
    parts: PartsOfRun | None,
    sets: PictureSets | None,
    words: Sequence[str],
) -> dict[str, Any]:
    told: dict[str, Any] = {"part_by": parts.by} if parts else {}
    told |= {"words": list(words)} if words else {}
    told |= {"refine": inspector.refiner.facts()} if inspector.refiner else {}
    policies = sets.policies if sets else ()
    return {
        "settings": {**settings, **told},
        "object": inspector.object,
        "method": inspector.detector.info.title,
        "backbone": inspector.detector.backbone,
        "detector": inspector.facts(),
        "policy": policy.model_dump(mode="json"),
        **({"power": inspector.power} if inspector.power else {}),
        **({"kinds": inspector.taught_kinds.facts()} if inspector.taught_kinds else {}),
        **({"rules": inspector.rule_set.facts()} if inspector.rule_set else {}),
        **({"transductive": sets.facts()} if sets else {}),
        **({"policies": [one.model_dump(mode="json") for one in policies]} if policies else {}),
    }


def _finish(
    seen: Seen[Path, Inspection],
    store: RunStore,
    root: Path | None,
    report: bool,
    parts: PartsOfRun | None,
) -> Record:
    """Write map (below ``root``) and pictures of one result, so that its record never lies."""
    path, picture, result = seen.source, seen.picture, seen.result
    part = parts.name(path) if parts else None
    if isinstance(result, Failure):
        return failure_record(result, part=part)
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
        how = result.colour_range, store.folder / "assets", stem
        assets = write_assets(picture.to_uint8(), result, *how)
        if picture.cloud is not None:
            assets |= write_cloud_assets(picture, result, *how, _view(store))
    record = to_record(result, map_path=map_name, assets=assets, part=part)
    if picture.cloud is not None:
        points: str | None = None
        if map_name is not None and result.map is not None:
            points = str(PurePosixPath(map_name).with_suffix(".ply"))
            write_scored_points(store.folder / points, picture.cloud, result.map)
        record["cloud"] = cloud_record(picture, _view(store), points)
    return record


def _view(store: RunStore) -> str | None:
    """The view of parts' clouds that is judged in a run."""
    viewing: dict[str, str | None] = store.manifest["detector"].get("viewing") or {}
    return viewing.get("view")


def _common_root(files: Sequence[Path]) -> Path:
    folders = {str(path.absolute().parent) for path in files}
    try:
        return Path(os.path.commonpath(sorted(folders)))
    except ValueError:  # files on several drives, or none
        return Path.cwd()

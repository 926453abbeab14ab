"""What can be found out of a run once it is finished."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from zerodefect.engines.run_report import write_run_report
from zerodefect.files import StoreError
from zerodefect.inspection.load_inspector import load
from zerodefect.inspection.repeated_marks import RepeatedMark, repeated_in_products
from zerodefect.reports.part_records import read_parts
from zerodefect.reports.products_section import read_products
from zerodefect.reports.run_folder import RunStore
from zerodefect.scoring.scorer import DEFAULT_BATCH

_FEATURES = "musc"  # whose patches are compared: EfficientNet-Lite0's, which need no download


@dataclass(frozen=True)
class MarkedRun:
    """What a search for repeated marks found.

    Attributes:
        marks: the commonest first.
        report: the report's page, if the run has one.
        with_regions: pictures of the run that have a region.
        missing: pictures that are no longer where the run found them.
    """

    marks: tuple[RepeatedMark, ...]
    report: Path | None
    with_regions: int
    missing: tuple[str, ...]


def mark_finished_run(
    folder: Path,
    *,
    batch_size: int = DEFAULT_BATCH,
    on_missing: Callable[[int], object] = lambda count: None,
) -> MarkedRun:
    """Find the marks that several pictures of a finished run share, whatever method made it.

    The regions are the run's; the pictures are compared by patches of EfficientNet-Lite0, as in
    ``inspect --batch``, product by product where the run has several. ``repeated.json`` and the
    report are written anew.

    Args:
        folder: of the run.
        batch_size: pictures that go through the network at once.
        on_missing: called with the number of pictures that cannot be compared, if there are some.

    Raises:
        StoreError: there is no run, none of its pictures has regions because its method does not
            say where, or all of its pictures are gone.
        RunBusy: another process writes into the folder.
    """
    with RunStore.existing(folder) as store:
        names = {r["image"]: bool(r["regions"]) for r in store.records() if r["status"] == "ok"}
        missing = tuple(name for name in names if not Path(name).is_file())
        _check(store, names, missing)
        if missing:
            on_missing(len(missing))
        inspector = load(_FEATURES, bit_depth=store.manifest["detector"].get("bit_depth"))
        products = [set(one["images"]) for one in read_products(folder)] or [set(names)]
        marks = repeated_in_products(inspector, store.records, products, batch_size)
        parts = read_parts(folder) if (folder / "parts.jsonl").is_file() else ()
        report = bool(store.manifest["settings"].get("report"))
        page = write_run_report(store, store.records, parts, marks, report=report)
    return MarkedRun(tuple(marks), page, sum(names.values()), missing)


def _check(store: RunStore, names: dict[str, bool], missing: tuple[str, ...]) -> None:
    """Make sure that the run has what the search needs.

    Raises:
        StoreError: naming what is missing.
    """
    policies = store.manifest.get("policies") or [store.manifest.get("policy") or {}]
    if not any(names.values()) and all(one.get("region_limit") is None for one in policies):
        reason = "the run has no regions: its method does not say where something lies"
        raise StoreError(store.folder, reason, "Inspect with a method that gives maps.")
    if names and len(missing) == len(names):
        reason = f"none of its pictures is where the run found it ({missing[0]})"
        remedy = "Put them back, or start from the folder where the run was started."
        raise StoreError(store.folder, reason, remedy)

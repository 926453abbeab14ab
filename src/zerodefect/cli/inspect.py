"""``zerodefect inspect``: a verdict with evidence for every picture."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from zerodefect.cli.opening import load_inspector
from zerodefect.cli.options import (
    AsJson,
    BatchOptions,
    DetectorOptions,
    Options,
    Overwrite,
    Paths,
    PictureOptions,
    ProductOptions,
    option,
    output_option,
)
from zerodefect.cli.telling import progress, tell
from zerodefect.types import printable

if TYPE_CHECKING:
    from zerodefect.engines.local import Summary
    from zerodefect.inspection.inspector import Inspector

_SHOWN = 20  # rows of the terminal table; the files hold them all
_NOTES_SHOWN = 5
_COLOURS = {"failed": "red", "defect": "red", "unsure": "yellow", "good": "green"}


@dataclass(frozen=True)
class VerdictOptions(Options, panel="Product"):
    """What decides of a score."""

    policy: Path | None = option(None, "Calibration from 'calibrate'.", "--policy", "-p")
    threshold: str | None = option(
        None,
        "Defect limit for this run: a score (0.62), rate:0.02, q:0.99, x1.05 or 105%.",
        metavar="LIMIT",
    )
    vocabulary: Path | None = option(None, "Defect kinds: a kind a line, or JSON with phrases.")


@dataclass(frozen=True)
class RunOptions(Options, panel="Output"):
    """What a run leaves, and where."""

    output: Path | None = output_option(None, "Run folder; default: one in runs.")
    maps: bool = option(False, "Write float TIFF anomaly maps.", "--maps")
    report: bool = option(True, "Write the HTML report.")
    overwrite: Overwrite = False


def inspect(
    paths: Paths,
    *,
    product: ProductOptions,
    verdict: VerdictOptions,
    detector: DetectorOptions,
    pictures: PictureOptions,
    run: RunOptions,
    batch: BatchOptions,
    as_json: AsJson = False,
) -> None:
    """Inspect pictures: verdict, regions, kinds, scores.

    Killed and started again, it goes on.

    Exit code 0: all inspected. 1: nothing could be done. 3: some files could not be inspected.
    """
    from zerodefect.images import find_images
    from zerodefect.inspection.policy import Policy

    files = find_images(paths)
    if product.product and verdict.policy:
        raise ValueError("--policy: the product file has its own limits (--threshold changes one)")
    given = Policy.load(verdict.policy) if verdict.policy else None
    if product.object is None and given:
        product = dataclasses.replace(product, object=given.object)
    if pictures.bit_depth is None and given:
        pictures = dataclasses.replace(pictures, bit_depth=given.bit_depth)
    inspector = load_inspector(product, detector, pictures, files, verdict.vocabulary)
    if product.product:
        given = inspector.policy
    inspector.policy = given
    if verdict.threshold is not None:
        inspector.policy = inspector.active_policy().with_threshold(verdict.threshold)
    # A policy made on the spot follows from the rest; its last digits vary with the machine's load.
    choices: list[Any] = [given and given.model_dump(mode="json", exclude={"created"})]
    choices += [verdict.threshold, inspector.bit_depth]
    folder = run.output or default_folder(inspector, paths, [*choices, run.maps, run.report])
    summary = _inspect(inspector, files, folder, run, batch.batch_size, as_json)
    _print_summary(summary, inspector, quiet=as_json)
    if summary.failed:
        raise typer.Exit(3)


def _inspect(
    inspector: Inspector,
    files: list[Path],
    folder: Path,
    run: RunOptions,
    batch_size: int,
    as_json: bool,
) -> Summary:
    """Inspect, and print what was found: records as they come, or a table at the end."""
    from zerodefect.engines.local import inspect_files

    rows: list[dict[str, Any]] = []
    with progress("inspecting", len(files), quiet=as_json) as bar:

        def on_record(record: dict[str, Any]) -> None:
            bar(advance=1)
            if as_json:
                tell(json.dumps(record))
            else:
                rows.append(_row(record))

        summary = inspect_files(
            inspector,
            files,
            folder,
            maps=run.maps,
            report=run.report,
            batch_size=batch_size,
            overwrite=run.overwrite,
            on_record=on_record,
        )
    if not as_json:
        _print_table(rows)
    return summary


def default_folder(inspector: Inspector, paths: list[Path], choices: list[Any]) -> Path:
    """``runs/<product>-<hash>``: the same command names the same folder, so that it resumes.

    ``choices`` are the options beside detector and pictures that make it another run, as JSON
    values.
    """
    import hashlib
    import re

    facts = [
        inspector.fingerprint(),
        choices,
        inspector.vocabulary.kinds,
        [str(path.absolute()) for path in paths],
    ]
    digest = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:8]
    slug = re.sub(r"[^a-z0-9]+", "-", (inspector.object or "batch").lower()).strip("-") or "run"
    return Path("runs") / f"{slug[:40]}-{digest}"


def _row(record: dict[str, Any]) -> dict[str, Any]:
    """What the table needs of a record, so that a long run does not stay in memory whole."""
    kinds = Counter(region["kind"] or "anomaly" for region in record.get("regions", []))
    return {
        "image": record["image"],
        "verdict": record.get("verdict", "failed"),
        "score": record.get("score"),
        "p_value": record.get("p_value"),
        "kinds": ", ".join(f"{n} x {kind}" if n > 1 else kind for kind, n in kinds.items()),
        "reason": record.get("reason") or "",
        "notes": "; ".join(n for n in record.get("notes", []) if n != record.get("reason")),
    }


def _print_table(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from zerodefect.types import told_score

    worst = list(_COLOURS)
    rows = sorted(rows, key=lambda r: (worst.index(r["verdict"]), -(r["score"] or 0.0)))
    table = Table(box=None, pad_edge=False)
    for name, justify in (("verdict", "left"), ("score", "right"), ("p", "right")):
        table.add_column(name, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    table.add_column("regions")
    table.add_column("image", overflow="fold")
    for row in rows[:_SHOWN]:
        score = "" if row["score"] is None else told_score(row["score"])
        p_value = "" if row["p_value"] is None else f"{row['p_value']:.3g}"
        found = "; ".join(filter(None, [row["kinds"], row["reason"], row["notes"]]))
        # Text and not markup: a file may be called [red] or :bug:
        words = [Text(printable(each)) for each in (score, p_value, found, row["image"])]
        table.add_row(Text(row["verdict"], _COLOURS[row["verdict"]]), *words)
    console = Console()
    if not console.is_terminal:
        console.width = 1000  # a row is a line
    console.print(table)
    if len(rows) > _SHOWN:
        console.print(f"... and {len(rows) - _SHOWN} more in the files below")


def _print_summary(summary: Summary, inspector: Inspector, quiet: bool) -> None:
    policy = inspector.active_policy()
    counts = ", ".join(
        f"{summary.verdicts[name]} {name}"
        for name in ("defect", "unsure", "good", "failed")
        if summary.verdicts.get(name)
    )
    resumed = summary.images - summary.inspected
    images = f"{summary.images} image{'s' * (summary.images != 1)}"
    lines = [f"{images}: {counts}" + (f" ({resumed} done before)" * bool(resumed))]
    lines += _notes_told(summary.notes)
    if summary.calibrated:
        lines += policy.notes
    else:
        lines.append(
            "UNCALIBRATED: these verdicts are provisional. Run 'zerodefect calibrate' on good "
            "parts, and pass its file with --policy."
        )
    lines.append(f"results: {summary.folder} (results.jsonl, results.csv, regions.csv, coco.json)")
    if summary.report:
        lines.append(f"report:  {summary.report}")
    if summary.failed:
        files = f"{summary.failed} file{'s' * (summary.failed != 1)}"
        lines.append(f"{files} could not be inspected; results.csv says why")
    for line in lines:
        tell(line, err=quiet)


def _notes_told(notes: dict[str, int]) -> list[str]:
    """What is to know about the files, the commonest first."""
    common = sorted(notes.items(), key=lambda note: (-note[1], note[0]))
    lines = [f"note on {n} file{'s' * (n != 1)}: {note}" for note, n in common[:_NOTES_SHOWN]]
    more = len(common) - _NOTES_SHOWN
    return lines if more <= 0 else [*lines, f"{more} more notes; results.csv has them all"]

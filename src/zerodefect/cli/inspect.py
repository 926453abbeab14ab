"""``zerodefect inspect``: a verdict with evidence for every picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zerodefect.cli import shared

if TYPE_CHECKING:
    from zerodefect.engines.local import Summary
    from zerodefect.inspection.inspector import Inspector

_SHOWN = 20  # rows of the terminal table; the files hold them all


def inspect(
    paths: shared.Paths,
    object: shared.ObjectName = None,
    reference: shared.References = None,
    policy: Annotated[
        Path | None, typer.Option("--policy", "-p", help="Calibration from 'calibrate'.")
    ] = None,
    threshold: Annotated[
        str | None,
        typer.Option(
            help="Defect limit for this run: a score (0.62), rate:0.02, q:0.99, x1.05 or 105%."
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Run folder; default: runs/<name>.")
    ] = None,
    maps: Annotated[bool, typer.Option("--maps", help="Write float TIFF anomaly maps.")] = False,
    report: Annotated[bool, typer.Option(help="Write the HTML report.")] = True,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Throw away an older run in that folder.")
    ] = False,
    method: shared.Method = None,
    checkpoint: shared.CheckpointFile = None,
    backbone: shared.BackboneName = None,
    weights: shared.WeightsFile = None,
    image_size: shared.ImageSize = None,
    tile: shared.Tile = None,
    overlap: shared.Overlap = 0.25,
    keep_aspect: shared.KeepAspect = False,
    roi: shared.Roi = None,
    ignore: shared.Ignore = None,
    vocabulary: shared.VocabularyFile = None,
    settings: shared.MethodOptions = None,
    batch_size: shared.BatchSize = 8,
    bit_depth: shared.BitDepth = None,
    device: shared.Device = "auto",
    precision: shared.Precision = "float32",
    as_json: shared.AsJson = False,
) -> None:
    """Inspect pictures: verdict, regions, kinds, scores; killed and started again, it goes on.

    Exit code 0: all inspected. 1: nothing could be done. 3: some files could not be inspected.
    """
    from zerodefect.engines.local import Outputs, inspect_files
    from zerodefect.images import find_images
    from zerodefect.inspection.policy import Policy

    files = find_images(paths)
    shared.tell_views(tile, overlap, [*files, *find_images(reference or [])])
    given = Policy.load(policy) if policy else None
    if object is None and given:
        object = given.object
    inspector = shared.load_inspector(
        method,
        checkpoint=checkpoint,
        backbone=backbone,
        weights=weights,
        device=device,
        image_size=image_size,
        vocabulary=vocabulary,
        settings=settings,
        object=object,
        references=reference,
        bit_depth=bit_depth,
        precision=precision,
        tile=tile,
        overlap=overlap,
        keep_aspect=keep_aspect,
        roi=roi,
        ignore=ignore,
    )
    inspector.policy = given
    if threshold is not None:
        inspector.policy = inspector.active_policy().with_threshold(threshold)
    # A policy made on the spot follows from the rest; its last digits vary with the machine's load.
    choices = [given and given.model_dump(mode="json", exclude={"created"}), threshold]
    folder = output or default_folder(inspector, paths, [*choices, maps, report])
    rows: list[dict[str, Any]] = []
    with shared.progress(quiet=as_json) as bar:
        task = bar.add_task("inspecting", total=len(files))

        def on_record(record: dict[str, Any]) -> None:
            bar.advance(task)
            if as_json:
                typer.echo(json.dumps(record))
            else:
                rows.append(_row(record))

        summary = inspect_files(
            inspector,
            files,
            folder,
            outputs=Outputs(maps=maps, report=report),
            batch_size=batch_size,
            overwrite=overwrite,
            on_record=on_record,
        )
    if not as_json:
        _print_table(rows)
    _print_summary(summary, inspector, quiet=as_json)
    if summary.failed:
        raise typer.Exit(3)


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
    kinds: dict[str, int] = {}
    for region in record.get("regions", []):
        kind = region["kind"] or "anomaly"
        kinds[kind] = kinds.get(kind, 0) + 1
    return {
        "image": record["image"],
        "verdict": record.get("verdict", "failed"),
        "score": record.get("score"),
        "p_value": record.get("p_value"),
        "kinds": ", ".join(f"{n} x {kind}" if n > 1 else kind for kind, n in kinds.items()),
        "reason": record.get("reason", ""),
    }


def _print_table(rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    rank = {"failed": 0, "defect": 1, "unsure": 2, "good": 3}
    rows = sorted(rows, key=lambda r: (rank[r["verdict"]], -(r["score"] or 0.0)))
    table = Table(box=None, pad_edge=False)
    for name, justify in (("verdict", "left"), ("score", "right"), ("p", "right")):
        table.add_column(name, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    table.add_column("regions")
    table.add_column("image", overflow="fold")
    colours = {"failed": "red", "defect": "red", "unsure": "yellow", "good": "green"}
    for row in rows[:_SHOWN]:
        score = "" if row["score"] is None else f"{row['score']:.4f}"
        p_value = "" if row["p_value"] is None else f"{row['p_value']:.3g}"
        verdict = f"[{colours[row['verdict']]}]{row['verdict']}[/]"
        table.add_row(
            verdict, score, p_value, escape(row["kinds"] or row["reason"]), escape(row["image"])
        )
    console = Console()
    if not console.is_terminal:
        console.width = 160
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
    noun = "image" if summary.images == 1 else "images"
    lines = [f"{summary.images} {noun}: {counts}" + (f" ({resumed} done before)" * bool(resumed))]
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
        noun = "file" if summary.failed == 1 else "files"
        lines.append(f"{summary.failed} {noun} could not be inspected; results.csv says why")
    for line in lines:
        if quiet:
            shared.say(line)
        else:
            typer.echo(line)

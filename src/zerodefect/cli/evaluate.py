"""``zerodefect evaluate``: one protocol for all methods, on the user's own labelled pictures."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from zerodefect.cli import shared


def evaluate(
    data: Annotated[list[str], typer.Option("--data", "-d", help="NAME=PATH or PATH; repeatable.")],
    method: Annotated[
        str | None,
        typer.Option("--method", "-m", help="One or more methods, comma separated."),
    ] = None,
    checkpoint: Annotated[
        list[Path] | None,
        typer.Option("--checkpoint", help="Of a trained method; repeatable."),
    ] = None,
    k_shot: Annotated[
        str, typer.Option("--k-shot", "-k", help="Numbers of references, such as 0,1,2,4.")
    ] = "0",
    seeds: Annotated[int, typer.Option(min=1, help="Draws of references for each number.")] = 1,
    object: Annotated[
        list[str] | None,
        typer.Option("--object", "-n", help="Words for the product, or PRODUCT=WORDS; repeatable."),
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the results.")] = Path(
        "evaluation"
    ),
    resolution: Annotated[
        str, typer.Option(help="Where map and mask meet: picture, network, or pixels (256).")
    ] = "picture",
    mask_rule: Annotated[
        str, typer.Option(help="How masks are resized; see docs/evaluation.md.")
    ] = "nonzero",
    smoothing: Annotated[float, typer.Option(min=0, help="Gaussian on the maps, pixels.")] = 0.0,
    pixel_metric: Annotated[
        list[str] | None,
        typer.Option(help="NAME[:VARIANT][@LIMIT], such as aupro:steps200@0.3; repeatable."),
    ] = None,
    alike: Annotated[
        bool, typer.Option("--alike", help="Crop the centre of all pictures to one size first.")
    ] = False,
    layout: Annotated[
        str, typer.Option(help="Layout or data set (see 'zerodefect datasets'); else recognised.")
    ] = "auto",
    cache: Annotated[bool, typer.Option(help="Keep predictions and reuse them.")] = True,
    backbone: shared.BackboneName = None,
    weights: shared.WeightsFile = None,
    image_size: shared.ImageSize = None,
    tile: shared.Tile = None,
    overlap: shared.Overlap = 0.25,
    keep_aspect: shared.KeepAspect = False,
    roi: shared.Roi = None,
    ignore: shared.Ignore = None,
    settings: shared.MethodOptions = None,
    batch_size: shared.BatchSize = 8,
    device: shared.Device = "auto",
    precision: shared.Precision = "float32",
    as_json: shared.AsJson = False,
) -> None:
    """Measure methods on labelled pictures; killed and started again, it goes on.

    Exit code 0: everything was measured. 1: nothing could be done. 3: some files were left out.
    """
    from zerodefect.data import format_table
    from zerodefect.evaluation.metrics import PIXEL_PANEL
    from zerodefect.evaluation.prediction_cache import PredictionCache
    from zerodefect.evaluation.protocol import Evaluator, Protocol
    from zerodefect.evaluation.result_tables import merged_table, write_results
    from zerodefect.images import open_image
    from zerodefect.images.tiling import Tiling
    from zerodefect.methods import default_method, load_detector
    from zerodefect.paths import cache_folder
    from zerodefect.scoring.scorer import Viewing

    protocol = Protocol(
        shots=_numbers(k_shot),
        seeds=seeds,
        resolution=_resolution(resolution),
        mask_rule=mask_rule,
        smoothing=smoothing,
        pixel_queries=tuple(pixel_metric or PIXEL_PANEL),
        alike=alike,
        batch_size=batch_size,
    )
    chosen = _chosen(method, checkpoint or [], partial(default_method, backbone, weights))
    datasets = [shared.open_dataset(text, layout) for text in data]
    for dataset in datasets:
        shared.say(f"{dataset.name} ({dataset.layout}: {dataset.reason})")
        shared.say(format_table(dataset.split_table()))
        for remark in (*dataset.problems, *dataset.notes):
            shared.say(str(remark))
    if not alike:  # else the pictures are cropped first
        wanted = (s for d in datasets for s in d if s.split != "train" or max(protocol.shots))
        shared.tell_views(tile, overlap, (sample.image for sample in wanted))
    kept = PredictionCache(cache_folder() / "predictions" if cache else None)
    left_out = 0
    everything = []
    for dataset in datasets:
        results = []
        for name, one, learned in chosen:
            detector = load_detector(
                one,
                checkpoint=learned,
                backbone=backbone,
                weights=weights,
                device=device,
                precision=precision,
                image_size=image_size,
                **shared.parse_settings(settings),
            )
            evaluator = Evaluator(
                detector,
                dataset,
                protocol,
                viewing=Viewing(Tiling(tile, overlap) if tile else None, keep_aspect),
                names=shared.product_names(object, [dataset]),
                roi=open_image(roi) if roi else None,
                ignore=open_image(ignore) if ignore else None,
                cache=kept,
            )
            with shared.progress(quiet=as_json) as bar:
                task = bar.add_task(f"{name} on {dataset.name}", total=evaluator.count())
                evaluation = evaluator.run(partial(bar.advance, task))
            files = write_results(evaluation, output / _slug(dataset.name) / name, one)
            left_out += len(evaluation.failures)
            results.append((name, evaluation))
            for failure in evaluation.failures:
                shared.say(f"left out: {failure}")
            if as_json:
                everything.append(json.loads(files[0].read_text(encoding="utf-8")))
            else:
                typer.echo(files[1].read_text(encoding="utf-8"))
                typer.echo("written: " + ", ".join(str(path) for path in files))
        if len(results) > 1 and not as_json:
            typer.echo("\n".join(merged_table(results)))
    if as_json:
        typer.echo(json.dumps(everything))
    if left_out:
        raise typer.Exit(3)


def _chosen(
    method: str | None, checkpoints: list[Path], default: Callable[[], str]
) -> list[tuple[str, str, Path | None]]:
    """Label, method and checkpoint of each detector to measure, in the order of the methods."""
    from zerodefect.detector.checkpoint_file import read_checkpoint

    found = [read_checkpoint(path) for path in checkpoints]
    named = [part.strip() for part in (method or "").split(",") if part.strip()]
    for one in found:
        if named and one.method not in named:
            raise ValueError(
                f"{one.path}: a checkpoint of {one.method}, which --method {method} leaves out"
            )
    names = named or list(dict.fromkeys(one.method for one in found)) or [default()]
    chosen: list[tuple[str, str, Path | None]] = []
    for name in names:
        own = [one for one in found if one.method == name]
        for one in own:
            label = name if len(own) == 1 else f"{name}-{one.sha256[:8]}"
            chosen.append((label, name, one.path))
        if not own:
            chosen.append((name, name, None))
    return chosen


def _slug(name: str) -> str:
    return re.sub(r"[^\w.-]+", "-", name).strip(".-") or "data"


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"--k-shot {text!r}: write numbers such as 0,1,2,4") from None


def _resolution(text: str) -> Literal["picture", "network"] | int:
    if text in {"picture", "network"}:
        return text  # type: ignore[return-value]
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"--resolution {text!r}: write picture, network or pixels") from None

"""``zerodefect evaluate``: one protocol for all methods, on the user's own labelled pictures."""

from __future__ import annotations

import json
import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from zerodefect.cli import shared

if TYPE_CHECKING:
    from zerodefect.data import Dataset


def evaluate(
    data: Annotated[list[str], typer.Option("--data", "-d", help="NAME=PATH or PATH; repeatable.")],
    method: Annotated[
        str, typer.Option("--method", "-m", help="One or more methods, comma separated.")
    ] = "winclip",
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
    layout: Annotated[str, typer.Option(help="auto, folder, mvtec, meta or csv.")] = "auto",
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
    from zerodefect.evaluation.predictions import PredictionCache
    from zerodefect.evaluation.protocol import Evaluator, Protocol
    from zerodefect.evaluation.results import merged_table, write_results
    from zerodefect.images import open_image
    from zerodefect.images.tiling import Tiling
    from zerodefect.methods.loading import load_detector
    from zerodefect.methods.scoring import Viewing
    from zerodefect.paths import cache_folder

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
    datasets = [_open(text, layout) for text in data]
    for dataset in datasets:
        shared.say(f"{dataset.name} ({dataset.layout}: {dataset.reason})")
        shared.say(format_table(dataset.split_table()))
        for remark in (*dataset.problems, *dataset.notes):
            shared.say(str(remark))
    kept = PredictionCache(cache_folder() / "predictions" if cache else None)
    left_out = 0
    everything = []
    for dataset in datasets:
        results = []
        for name in [part.strip() for part in method.split(",") if part.strip()]:
            detector = load_detector(
                name,
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
                names=_names(object, dataset),
                roi=open_image(roi) if roi else None,
                ignore=open_image(ignore) if ignore else None,
                cache=kept,
            )
            with shared.progress(quiet=as_json) as bar:
                task = bar.add_task(f"{name} on {dataset.name}", total=evaluator.count())
                evaluation = evaluator.run(partial(bar.advance, task))
            files = write_results(evaluation, output / _slug(dataset.name) / name, name)
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


def _open(text: str, layout: str) -> Dataset:
    from zerodefect.data import load_dataset

    name, separator, path = text.partition("=")
    if not separator or Path(text).exists():
        return load_dataset(text, layout=layout)  # type: ignore[arg-type]
    return load_dataset(path, layout=layout, name=name)  # type: ignore[arg-type]


def _names(entries: list[str] | None, dataset: Dataset) -> dict[str, str]:
    """Words per product; an entry without ``=`` is for all of them."""
    names: dict[str, str] = {}
    for entry in entries or []:
        product, separator, words = entry.partition("=")
        if not separator:
            names |= dict.fromkeys(dataset.products, entry)
        elif product not in dataset.products:
            known = ", ".join(dataset.products)
            raise ValueError(
                f"--object {entry!r}: {dataset.name} has no such product; it has: {known}"
            )
        else:
            names[product] = words
    return names

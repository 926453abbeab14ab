"""``zerodefect evaluate``: one protocol for all methods, on the user's own labelled pictures."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zerodefect.cli.opening import open_dataset, product_names, tell_views
from zerodefect.cli.options import (
    AsJson,
    BatchSize,
    Layout,
    LoadingOptions,
    ObjectNames,
    Options,
    PictureOptions,
)
from zerodefect.cli.telling import progress, say

if TYPE_CHECKING:
    from zerodefect.data import Dataset


@dataclass(frozen=True)
class DataOptions(Options):
    """Labelled pictures, and what is on them."""

    data: Annotated[list[str], typer.Option("--data", "-d", help="NAME=PATH or PATH; repeatable.")]
    object: ObjectNames = None
    layout: Layout = "auto"


@dataclass(frozen=True)
class ContenderOptions(Options):
    """Methods to measure side by side."""

    method: Annotated[
        str | None, typer.Option("--method", "-m", help="One or more methods, comma separated.")
    ] = None
    checkpoint: Annotated[
        list[Path] | None, typer.Option(help="Of a trained method; repeatable.")
    ] = None


@dataclass(frozen=True)
class ProtocolOptions(Options):
    """What is measured, and how."""

    k_shot: Annotated[
        str, typer.Option("--k-shot", "-k", help="Numbers of references, such as 0,1,2,4.")
    ] = "0"
    seeds: Annotated[int, typer.Option(min=1, help="Draws of references for each number.")] = 1
    resolution: Annotated[
        str, typer.Option(help="Where map and mask meet: picture, network, or pixels (256).")
    ] = "picture"
    mask_rule: Annotated[
        str, typer.Option(help="How masks are resized; see docs/evaluation.md.")
    ] = "nonzero"
    smoothing: Annotated[float, typer.Option(min=0, help="Gaussian on the maps, pixels.")] = 0.0
    pixel_metric: Annotated[
        list[str] | None,
        typer.Option(help="NAME[:VARIANT][@LIMIT], such as aupro:steps200@0.3; repeatable."),
    ] = None
    approximate: Annotated[
        bool,
        typer.Option(
            "--approximate", help="Pixel metrics in constant memory, with a stated error."
        ),
    ] = False
    set_level: Annotated[
        str | None,
        typer.Option(help="Official step over all pictures of a product; figures: transductive."),
    ] = None
    alike: Annotated[
        bool, typer.Option("--alike", help="Crop the centre of all pictures to one size first.")
    ] = False

    def keywords(self) -> dict[str, Any]:
        """Keyword arguments of ``Protocol``; those left at their default are as it has them.

        Raises:
            ValueError: numbers of references, or a resolution, that are none.
        """
        given = super().keywords()
        given["shots"] = _numbers(given.pop("k_shot"))
        given["resolution"] = _resolution(self.resolution)
        if queries := given.pop("pixel_metric"):
            given["pixel_queries"] = tuple(queries)
        if not self.approximate:
            del given["approximate"]
        return given


def evaluate(
    *,
    data: DataOptions,
    contenders: ContenderOptions,
    protocol: ProtocolOptions,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the results.")] = Path(
        "evaluation"
    ),
    cache: Annotated[bool, typer.Option(help="Keep predictions and reuse them.")] = True,
    loading: LoadingOptions,
    pictures: PictureOptions,
    batch_size: BatchSize = 8,
    as_json: AsJson = False,
) -> None:
    """Measure methods on labelled pictures; killed and started again, it goes on.

    Exit code 0: everything was measured. 1: nothing could be done. 3: some files were left out.
    """
    from zerodefect.evaluation.evaluator import Evaluator
    from zerodefect.evaluation.prediction_cache import PredictionCache
    from zerodefect.evaluation.protocol import Protocol
    from zerodefect.evaluation.result_tables import merged_table, write_results
    from zerodefect.methods import load_detector
    from zerodefect.paths import cache_folder

    measured = Protocol(batch_size=batch_size, **protocol.keywords())
    chosen = _chosen(contenders, loading)
    datasets = [_open(entry, data.layout) for entry in data.data]
    if not measured.alike:  # else the pictures are cropped first
        wanted = (s for d in datasets for s in d if s.split != "train" or max(measured.shots))
        tell_views(pictures, (sample.image for sample in wanted))
    shown = {**pictures.opened(), "bit_depth": pictures.bit_depth}
    kept = PredictionCache(cache_folder() / "predictions" if cache else None)
    stored = []
    left_out = 0
    for dataset in datasets:
        results = []
        names = product_names(data.object, [dataset])
        for name, method, checkpoint in chosen:
            detector = load_detector(method, checkpoint=checkpoint, **loading.keywords())
            evaluator = Evaluator(detector, dataset, measured, names=names, cache=kept, **shown)
            with progress(quiet=as_json) as bar:
                task = bar.add_task(f"{name} on {dataset.name}", total=evaluator.count())
                evaluation = evaluator.run(partial(bar.advance, task))
            files = write_results(evaluation, output / _slug(dataset.name) / name, method)
            stored.append(json.loads(files[0].read_text(encoding="utf-8")))
            results.append((name, evaluation))
            left_out += len(evaluation.failures)
            for failure in evaluation.failures:
                say(f"left out: {failure}")
            if not as_json:
                typer.echo(files[1].read_text(encoding="utf-8"))
                typer.echo("written: " + ", ".join(str(path) for path in files))
        if len(results) > 1 and not as_json:
            typer.echo("\n".join(merged_table(results)))
    if as_json:
        typer.echo(json.dumps(stored))
    if left_out:
        raise typer.Exit(3)


def _open(entry: str, layout: str) -> Dataset:
    """Read a data set and say what it holds."""
    from zerodefect.data import format_table

    dataset = open_dataset(entry, layout)
    say(f"{dataset.name} ({dataset.layout}: {dataset.reason})")
    say(format_table(dataset.split_table()))
    for remark in (*dataset.problems, *dataset.notes):
        say(str(remark))
    return dataset


def _chosen(
    contenders: ContenderOptions, loading: LoadingOptions
) -> list[tuple[str, str, Path | None]]:
    """Label, method and checkpoint of each detector to measure, in the order of the methods."""
    from zerodefect.detector.checkpoint_file import read_checkpoint
    from zerodefect.methods import default_method

    found = [read_checkpoint(path) for path in contenders.checkpoint or []]
    named = [part.strip() for part in (contenders.method or "").split(",") if part.strip()]
    for one in found:
        if named and one.method not in named:
            raise ValueError(
                f"{one.path}: a checkpoint of {one.method}, which --method {contenders.method} "
                "leaves out"
            )
    names = named or list(dict.fromkeys(one.method for one in found))
    chosen: list[tuple[str, str, Path | None]] = []
    given = loading.keywords()
    for name in names or [default_method(given["backbone"], given["weights"])]:
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


def _resolution(text: str) -> str | int:
    try:
        return text if text in {"picture", "network"} else int(text)
    except ValueError:
        raise ValueError(f"--resolution {text!r}: write picture, network or pixels") from None

"""``zerodefect evaluate``: one protocol for all methods, on the user's own labelled pictures."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from zerodefect.cli.contenders import ContenderOptions, methods_of, product_of
from zerodefect.cli.opening import tell_views
from zerodefect.cli.options import (
    AsJson,
    BatchOptions,
    Layout,
    LoadingOptions,
    ObjectNames,
    Options,
    Overwrite,
    option,
    output_option,
)
from zerodefect.cli.picture_options import PictureOptions
from zerodefect.cli.question_options import QuestionOptions, ask_questions
from zerodefect.cli.telling import progress, say, tell
from zerodefect.files import free_space

if TYPE_CHECKING:
    from zerodefect.data import Dataset
    from zerodefect.evaluation.contender import Contender
    from zerodefect.evaluation.evaluator import Evaluator
    from zerodefect.evaluation.prediction_cache import PredictionCache
    from zerodefect.evaluation.protocol import Evaluation, Protocol
    from zerodefect.reports.evaluation_folder import EvaluationFolder


@dataclass(frozen=True)
class DataOptions(Options, panel="Product"):
    """Labelled pictures, and what is on them."""

    data: list[str] = option(
        ...,
        "Folder or table, as NAME=FOLDER to name it; repeatable.",
        "--data",
        "-d",
        metavar="FOLDER",
    )
    object: ObjectNames = None
    layout: Layout = "auto"


@dataclass(frozen=True)
class ProtocolOptions(Options, panel="Measuring"):
    """What is measured, and how."""

    k_shot: str = option(
        "0", "Numbers of references, such as 0,1,2,4.", "--k-shot", "-k", metavar="N,..."
    )
    seeds: int = option(1, "Draws of references for each number.", min=1)
    resolution: str = option(
        "picture", "Where map and mask meet: picture, network, or pixels (256).", metavar="SIZE"
    )
    mask_rule: str = option("nonzero", "How masks are resized; see docs/evaluation.md.")
    smoothing: float = option(0.0, "Gaussian on the maps.", min=0, metavar="PIXELS")
    pixel_metric: list[str] | None = option(
        None,
        "Such as auroc or aupro:steps200@0.3, see docs/evaluation.md; repeatable.",
        metavar="METRIC",
    )
    approximate: bool = option(
        False, "Pixel metrics in constant memory, with a stated error.", "--approximate"
    )
    set_level: str | None = option(
        None, "Official step over all pictures of a product; figures: transductive."
    )
    kind_examples: int | None = option(
        None,
        "Tell kinds, too, by so many examples of each, left out; 0: by words, or as taught.",
        "--kinds",
        min=0,
    )
    alike: bool = option(False, "Crop the centre of all pictures to one size first.", "--alike")
    allow_training_pictures: bool = option(
        False, "Measure also on pictures that were learned from.", "--allow-training-pictures"
    )

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


@dataclass(frozen=True)
class CacheOptions(Options, panel="Machine"):
    """What is kept of predictions."""

    cache: bool = option(True, "Keep predictions and reuse them.")
    cache_limit: float = option(
        20.0, "The longest unused predictions give way.", min=0, metavar="GIGABYTES"
    )
    full_maps: bool = option(False, "Keep maps as float32 instead of 16 bits.", "--full-maps")

    def opened(self) -> PredictionCache:
        """The cache."""
        from zerodefect.evaluation.prediction_cache import PredictionCache
        from zerodefect.paths import cache_folder

        folder = cache_folder() / "predictions" if self.cache else None
        return PredictionCache(folder, limit=round(self.cache_limit * 1e9), full=self.full_maps)


def evaluate(
    *,
    data: DataOptions,
    contenders: ContenderOptions,
    protocol: ProtocolOptions,
    loading: LoadingOptions,
    pictures: PictureOptions,
    output: Path = output_option(Path("evaluation"), "Folder of the results."),
    overwrite: Overwrite = False,
    batch: BatchOptions,
    cache: CacheOptions,
    questions: QuestionOptions,
    as_json: AsJson = False,
) -> None:
    """Measure methods on labelled pictures, or chat models by questions.

    Killed and started again, it goes on.


    Exit code 0: everything was measured. 1: nothing could be done. 3: some files were left out.
    """
    if questions.asked(contenders.method, contenders.checkpoint, contenders.product):
        ask_questions(questions, data.data, loading, output, overwrite=overwrite, as_json=as_json)
        return
    from zerodefect.evaluation.protocol import Protocol
    from zerodefect.evaluation.result_tables import headline, merged_table
    from zerodefect.reports.evaluation_folder import EvaluationFolder

    measured = Protocol(**batch.keywords(), **protocol.keywords())
    chosen, datasets, measured = _prepared(contenders, loading, pictures, data, measured)
    kept, stored, summary, left_out = cache.opened(), [], list[str](), 0
    for dataset in datasets:
        results = []
        for one in chosen:
            name, evaluator = one.name, one.evaluator(dataset, measured, kept)
            folder = EvaluationFolder(output / _slug(dataset.name) / name, overwrite=overwrite)
            evaluation = _measured(evaluator, folder, f"{name} on {dataset.name}", quiet=as_json)
            files = folder.write(evaluation, one.method)
            stored.append(json.loads(files[0].read_text(encoding="utf-8")))
            results.append((name, evaluation))
            summary += filter(None, [headline(name, evaluation), one.told(evaluation)])
            left_out += len(evaluation.failures)
            if not as_json:
                tell(files[1].read_text(encoding="utf-8"), lines=True)
                tell(f"written: {folder.told(files)}")
        if len(results) > 1 and not as_json:
            tell("\n".join(merged_table(results)), lines=True)
    if as_json:
        tell(json.dumps(stored))
    tell("\n".join([*summary, f"results: {output}"]), lines=True, err=as_json)
    if left_out:
        raise typer.Exit(3)


def _prepared(
    contenders: ContenderOptions,
    loading: LoadingOptions,
    pictures: PictureOptions,
    data: DataOptions,
    measured: Protocol,
) -> tuple[list[Contender], list[Dataset], Protocol]:
    """What is measured, on which data sets, and how, a product having its own of these."""
    from zerodefect.data import distinct
    from zerodefect.evaluation.contender import check_step

    said = contenders, loading, pictures, data.object
    chosen = [product_of(*said)] if contenders.product else methods_of(*said)
    check_step(measured, *(one.method for one in chosen))
    datasets = distinct([_open(entry, data.layout) for entry in data.data])
    if contenders.product:
        measured = chosen[0].protocol(measured)
        datasets = [chosen[0].pictures(dataset) for dataset in datasets]
    elif not measured.alike:  # else the pictures are cropped first
        wanted = (s for d in datasets for s in d if s.split != "train" or max(measured.shots))
        tell_views(pictures, (sample.image for sample in wanted))
    return chosen, datasets, measured


def _measured(
    evaluator: Evaluator, folder: EvaluationFolder, title: str, *, quiet: bool
) -> Evaluation:
    """Check what can be checked before the work, say what it takes, and measure."""
    evaluator.check()
    folder.check(evaluator.facts())
    cache = evaluator.cache
    if cache.folder:
        need, (_, left) = evaluator.cache_bytes(), free_space(cache.folder)
        text = (
            f"cache: up to {need / 1e6:,.1f} MB for {evaluator.count()} predictions in "
            f"{cache.folder} (maps in {cache.precision}), which holds {cache.taken() / 1e6:,.1f} "
            f"of {cache.limit / 1e6:,.0f} MB"
        )
        if need > cache.limit:
            text += "; the oldest give way, so a run that is killed repeats more (--cache-limit)"
        if need > left:
            text += f"; only {left / 1e6:,.1f} MB are free there (ZERODEFECT_CACHE, --no-cache)"
        say(text)
    with progress(title, evaluator.count(), quiet=quiet) as bar:
        evaluation = evaluator.run(partial(bar, advance=1))
    cache.keep_limit()
    for failure in evaluation.failures:
        say(f"left out: {failure}")
    return evaluation


def _open(entry: str, layout: str) -> Dataset:
    """Read a data set and say what it holds."""
    from zerodefect.data import format_table, open_dataset

    dataset = open_dataset(entry, layout)
    say(f"{dataset.name} ({dataset.layout}: {dataset.reason})")
    say(format_table(dataset.split_table()), lines=True)
    for remark in dataset.remarks():
        say(remark)
    return dataset


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

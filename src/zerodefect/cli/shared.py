"""What several verbs share: options, progress, errors that are the user's to solve."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.progress import Progress

    from zerodefect.data import Dataset
    from zerodefect.inspection.inspector import Inspector
    from zerodefect.prompts.vocabulary import Vocabulary

Paths = Annotated[list[Path], typer.Argument(help="Pictures and folders of pictures.")]
ObjectName = Annotated[
    str | None, typer.Option("--object", "-n", help="What the product is called, e.g. 'screw'.")
]
Method = Annotated[
    str | None,
    typer.Option(
        "--method", "-m", help="See 'zerodefect methods'; default: what suits the weights."
    ),
]
CheckpointFile = Annotated[
    Path | None,
    typer.Option("--checkpoint", help="Of a trained method, from 'train' or 'import'."),
]
BackboneName = Annotated[
    str | None,
    typer.Option("--backbone", "-b", help="MODEL/TAG or weights file; default: embedded model."),
]
WeightsFile = Annotated[
    Path | None, typer.Option("--weights", help="Local weights for the named backbone.")
]
References = Annotated[
    list[Path] | None,
    typer.Option("--reference", "-r", help="Picture or folder of good parts; repeatable."),
]
ImageSize = Annotated[
    int | None, typer.Option("--image-size", help="Input side in pixels instead of the weights'.")
]
Tile = Annotated[
    int | None,
    typer.Option(
        "--tile",
        min=16,
        help="Side of tiles in pixels, for large pictures; 4096 views of one at most.",
    ),
]
Overlap = Annotated[float, typer.Option("--overlap", min=0.0, max=0.5, help="Of neighbour tiles.")]
KeepAspect = Annotated[
    bool, typer.Option("--keep-aspect", help="Keep the aspect ratio instead of squaring.")
]
Roi = Annotated[
    Path | None, typer.Option("--roi", help="Mask picture: only what is white is inspected.")
]
Ignore = Annotated[
    Path | None, typer.Option("--ignore", help="Mask picture: what is white does not count.")
]
Precision = Annotated[str, typer.Option("--precision", help="float32 or bfloat16.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1, ...")]
BatchSize = Annotated[
    int, typer.Option("--batch-size", min=1, help="Pictures that go through the network at once.")
]
BitDepth = Annotated[
    int | None,
    typer.Option("--bit-depth", min=9, max=16, help="Significant bits of 16-bit pictures."),
]
VocabularyFile = Annotated[
    Path | None,
    typer.Option("--vocabulary", help="Defect kinds: a kind a line, or JSON with phrases."),
]
MethodOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--set", "--option", help="Hyper-parameter of the method as NAME=VALUE; repeatable."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Machine-readable output on stdout.")]


def expected(error: Exception) -> bool:
    """Whether an exception tells the user what to do, so that no traceback is needed."""
    from pydantic import ValidationError

    from zerodefect.backbones.clip_weights import WeightsError
    from zerodefect.detector.contract import UnsupportedError
    from zerodefect.evaluation.metrics import SpillError
    from zerodefect.files import StoreError
    from zerodefect.training.run_state import TrainingError

    if isinstance(error, ValidationError):
        return False
    kinds = (ValueError, OSError, WeightsError, StoreError, SpillError, UnsupportedError)
    return isinstance(error, (*kinds, TrainingError))


def parse_settings(settings: list[str] | None) -> dict[str, Any]:
    """``["temperature=0.05", "scales=[2,3]"]`` to keyword arguments; values are JSON or text.

    Raises:
        ValueError: an entry without ``=``.
    """
    parsed: dict[str, Any] = {}
    for entry in settings or []:
        name, separator, text = entry.partition("=")
        if not separator or not name:
            raise ValueError(f"--set {entry!r}: write NAME=VALUE, such as temperature=0.05")
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"--set {entry!r}: the value must be a finite number")
        parsed[name.replace("-", "_")] = tuple(value) if isinstance(value, list) else value
    return parsed


def open_dataset(entry: str, layout: str = "auto") -> Dataset:
    """Read the data set that ``NAME=PATH`` or ``PATH`` names."""
    from zerodefect.data import load_dataset

    name, separator, path = entry.partition("=")
    if not separator or Path(entry).exists():
        return load_dataset(entry, layout=layout)
    return load_dataset(path, layout=layout, name=name)


def product_names(entries: list[str] | None, datasets: Sequence[Dataset]) -> dict[str, str]:
    """Words per product; an entry without ``=`` is for all of them.

    Raises:
        ValueError: no data set has the product.
    """
    products = [product for dataset in datasets for product in dataset.products]
    names: dict[str, str] = {}
    for entry in entries or []:
        product, separator, words = entry.partition("=")
        if not separator:
            names |= dict.fromkeys(products, entry)
        elif product not in products:
            where = ", ".join(dataset.name for dataset in datasets)
            known = ", ".join(dict.fromkeys(products))
            raise ValueError(f"--object {entry!r}: {where} has no such product; it has: {known}")
        else:
            names[product] = words
    return names


def read_vocabulary(path: Path | None) -> Vocabulary | None:
    """Load the user's defect kinds, if a file was named."""
    from zerodefect.prompts.vocabulary import Vocabulary

    return Vocabulary.load(path) if path else None


def load_inspector(
    method: str | None,
    *,
    checkpoint: Path | None,
    backbone: str | None,
    weights: Path | None,
    device: str,
    image_size: int | None,
    vocabulary: Path | None,
    settings: list[str] | None,
    object: str | None,
    references: list[Path] | None,
    bit_depth: int | None,
    precision: str,
    tile: int | None,
    overlap: float,
    keep_aspect: bool,
    roi: Path | None,
    ignore: Path | None,
) -> Inspector:
    """Load a method and tell it the product's name, the inspected area and the references."""
    from zerodefect.detector.contract import UnsupportedError
    from zerodefect.images import open_image
    from zerodefect.images.tiling import Tiling
    from zerodefect.inspection.inspector import DEFAULT_OBJECT, load
    from zerodefect.scoring.scorer import Viewing

    inspector = load(
        method,
        checkpoint=checkpoint,
        backbone=backbone,
        weights=weights,
        device=device,
        precision=precision,
        image_size=image_size,
        viewing=Viewing(Tiling(tile, overlap) if tile else None, keep_aspect),
        bit_depth=bit_depth,
        vocabulary=read_vocabulary(vocabulary),
        **parse_settings(settings),
    )
    inspector.roi = open_image(roi) if roi else None
    inspector.ignore = open_image(ignore) if ignore else None
    if object is not None:
        with suppress(UnsupportedError):  # a method without words still inspects
            inspector.describe(object)
    elif "words" in inspector.detector.info.knows_from:
        say(f"no --object given: the texts say {DEFAULT_OBJECT!r}; a name usually helps")
        inspector.describe(DEFAULT_OBJECT)
    if references:
        inspector.remember(references)
    return inspector


def tell_views(tile: int | None, overlap: float, files: Iterable[Path]) -> None:
    """Say before the work how much of it tiles make, where that is a lot.

    Raises:
        ImageError: a picture would take more views than are allowed.
    """
    if not tile:
        return
    from zerodefect.images import ImageError, picture_size
    from zerodefect.images.tiling import MANY_VIEWS, Tiling
    from zerodefect.scoring.scorer import check_views

    tiling = Tiling(tile, overlap)
    views, largest = [], (0, 0)
    for file in files:
        try:
            width, height = picture_size(file)
        except ImageError:
            continue  # it is reported when its turn comes
        views.append(check_views(str(file), tiling, height, width))
        largest = max(largest, (height, width), key=lambda size: tiling.views(*size))
    if views and max(views) > MANY_VIEWS:
        pictures = "1 picture takes" if len(views) == 1 else f"{len(views)} pictures take"
        say(
            f"tiles of {tile} pixels: {pictures} {sum(views)} views, up to {max(views)} each; "
            f"with --tile {tiling.size_for(*largest)} no picture would take more than {MANY_VIEWS}"
        )


def say(text: str) -> None:
    """A remark for people: to stderr, so that stdout stays data."""
    typer.echo(text, err=True)


@contextmanager
def progress(quiet: bool = False) -> Iterator[Progress]:
    """A progress bar on stderr; silent when that is not a terminal."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    hidden = quiet or not sys.stderr.isatty()
    with Progress(*columns, console=console, disable=hidden, transient=True) as bar:
        yield bar

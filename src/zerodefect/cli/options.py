"""Options of the command line: each stands once, and groups of them make a verb's signature.

A verb asks for groups, ``def inspect(paths: Paths, product: ProductOptions, ...)``, and is
registered as ``flattened(inspect)``: on the command line the fields of a group are options like
any other, in the place where the verb asks for the group.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

if TYPE_CHECKING:
    from zerodefect.images.tiling import Tiling

# --- the mechanism -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Options:
    """A group of options: fields whose defaults are an ``option``."""

    def keywords(self) -> dict[str, Any]:
        """What the options are in Python: keyword arguments of the call that they stand for."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}


def option(default: Any, help: str, *names: str, **limits: Any) -> Any:
    """An option and its default, ``...`` if it must be given: of a group or, alone, of a verb."""
    given = {} if default is ... else {"default": default}
    said = typer.Option(*names, help=help, **limits)
    return dataclasses.field(**given, metadata={"option": said})


def flattened(verb: Callable[..., None]) -> Callable[..., None]:
    """A verb as typer takes it: one parameter for each field of each group that it asks for.

    Raises:
        ValueError: two options of the verb have the same name.
    """
    groups: dict[str, Any] = {}
    parameters: list[inspect.Parameter] = []
    for name, asked in inspect.signature(verb, eval_str=True).parameters.items():
        if dataclasses.is_dataclass(asked.annotation):
            group = groups[name] = asked.annotation
            hints = get_type_hints(group, include_extras=True)
            fields = dataclasses.fields(group)
            parameters += [_parameter(field.name, hints[field.name], field) for field in fields]
        else:
            parameters.append(_parameter(name, asked.annotation, asked.default))

    @functools.wraps(verb)
    def command(**given: Any) -> None:
        built = {}
        for name, group in groups.items():
            fields = [field.name for field in dataclasses.fields(group)]
            built[name] = group(**{field: given.pop(field) for field in fields})
        verb(**given, **built)

    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {one.name: one.annotation for one in parameters}
    return command


def _parameter(name: str, hint: Any, default: Any) -> inspect.Parameter:
    """Of a command; ``default`` may be a field, which brings its option with it."""
    if isinstance(default, dataclasses.Field):
        if said := default.metadata.get("option"):
            hint = Annotated[hint, said]
        has_none = default.default is dataclasses.MISSING
        default = inspect.Parameter.empty if has_none else default.default
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, kind, default=default, annotation=hint)


# --- options that verbs take one by one ----------------------------------------------------------

Paths = Annotated[list[Path], typer.Argument(help="Pictures and folders of pictures.")]
TrainableMethod = Annotated[str, typer.Argument(help="A trainable method of 'zerodefect methods'.")]
ObjectNames = Annotated[
    list[str] | None,
    typer.Option("--object", "-n", help="Words for the product, or PRODUCT=WORDS; repeatable."),
]
Layout = Annotated[
    str, typer.Option(help="Layout or data set (see 'zerodefect datasets'); else recognised.")
]
BatchSize = Annotated[
    int, typer.Option(min=1, help="Pictures that go through the network at once.")
]
BitDepth = Annotated[
    int | None,
    typer.Option(min=8, max=16, help="Bits that 16-bit pictures use; else inferred once."),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, ...")]
AsJson = Annotated[bool, typer.Option("--json", help="Machine-readable output on stdout.")]

# --- groups --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ProductOptions(Options):
    """What is known of the product."""

    object: str | None = option(None, "What the product is called, e.g. 'screw'.", "--object", "-n")
    references: list[Path] | None = option(
        None, "Picture or folder of good parts; repeatable.", "--reference", "-r"
    )
    memory_budget: int | None = option(
        None, "Megabytes that references may take; default 2147.", min=1
    )

    def keywords(self) -> dict[str, Any]:
        """Keyword arguments of ``load``; the budget in bytes."""
        budget = self.memory_budget and self.memory_budget * 10**6
        return {**super().keywords(), "memory_budget": budget}


@dataclass(frozen=True)
class MethodOptions(Options):
    """Which method inspects."""

    method: str | None = option(
        None, "See 'zerodefect methods'; default: what suits the weights.", "--method", "-m"
    )
    checkpoint: Path | None = option(None, "Of a trained method, from 'train' or 'import'.")


@dataclass(frozen=True)
class NetworkOptions(Options):
    """The weights that a method runs on, and the method's hyper-parameters."""

    backbone: list[str] | None = option(
        None,
        "MODEL/TAG or weights file; default: embedded model. NAME=... each of several.",
        "--backbone",
        "-b",
    )
    weights: list[str] | None = option(
        None, "Local weights for the named backbone; NAME=... for each of several."
    )
    image_size: int | None = option(None, "Input side in pixels instead of the weights'.")
    settings: list[str] | None = option(
        None, "Hyper-parameter of the method as NAME=VALUE; repeatable.", "--set", "--option"
    )

    def keywords(self) -> dict[str, Any]:
        """Keyword arguments of ``load_detector`` and ``load``, hyper-parameters among them.

        Raises:
            ValueError: a setting that is not NAME=VALUE, or whose name is that of an option.
        """
        given = super().keywords()
        given |= {name: _by_name(given[name]) for name in ("backbone", "weights")}
        settings = parse_settings(given.pop("settings"))
        for name in given.keys() & settings.keys():
            raise ValueError(f"--set {name}=...: write --{name.replace('_', '-')}")
        return given | settings


@dataclass(frozen=True)
class LoadingOptions(NetworkOptions):
    """How a detector is loaded, whatever the method."""

    device: Device = "auto"
    precision: str = option("float32", "float32 or bfloat16.")


@dataclass(frozen=True)
class DetectorOptions(LoadingOptions, MethodOptions):
    """A detector; the fields of the last base come first."""


@dataclass(frozen=True)
class ViewOptions(Options):
    """How pictures are shown to the network, and what of them counts."""

    tile: int | None = option(
        None, "Side of tiles in pixels, for large pictures; 4096 views of one at most.", min=16
    )
    overlap: float = option(0.25, "Of neighbour tiles.", min=0.0, max=0.5)
    keep_aspect: bool = option(False, "Keep the aspect ratio instead of squaring.", "--keep-aspect")
    roi: Path | None = option(None, "Mask picture: only what is white is inspected.")
    ignore: Path | None = option(None, "Mask picture: what is white does not count.")

    def tiling(self) -> Tiling | None:
        """How pictures are cut, if they are."""
        from zerodefect.images.tiling import Tiling

        return Tiling(self.tile, self.overlap) if self.tile else None

    def opened(self) -> dict[str, Any]:
        """``viewing``, and ``roi`` and ``ignore`` as pictures.

        Raises:
            ImageError: a mask picture cannot be read.
        """
        from zerodefect.images import open_image
        from zerodefect.scoring.viewing import Viewing

        return {
            "viewing": Viewing(self.tiling(), self.keep_aspect),
            "roi": open_image(self.roi) if self.roi else None,
            "ignore": open_image(self.ignore) if self.ignore else None,
        }


@dataclass(frozen=True)
class PictureOptions(ViewOptions):
    """How pictures are read, shown to the network, and what of them counts."""

    bit_depth: BitDepth = None


def _by_name(entries: list[str] | None) -> str | dict[str, str] | None:
    """One value, or several as NAME=VALUE.

    Raises:
        ValueError: several values, one of them without a name.
    """
    if not entries:
        return None
    if len(entries) == 1 and ("=" not in entries[0] or Path(entries[0]).exists()):
        return entries[0]
    pairs = [entry.partition("=") for entry in entries]
    unnamed = [name for name, separator, _ in pairs if not separator]
    if unnamed:
        raise ValueError(f"{unnamed[0]!r}: of several networks each is named, as NAME=WEIGHTS")
    return {name: value for name, _, value in pairs}


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

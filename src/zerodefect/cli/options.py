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
from typing import Annotated, Any, ClassVar, get_args, get_type_hints

import typer

from zerodefect.cli.config_file import read_config

# --- the mechanism -------------------------------------------------------------------------------

_METAVARS = {Path: "FILE", int: "N", float: "NUMBER", str: "NAME"}


@dataclass(frozen=True)
class Options:
    """A group of options: fields whose defaults are an ``option``.

    ``class Group(Options, panel="Product")`` names the panel of the help that its own fields stand
    in; those of a base stand in the base's.
    """

    panel: ClassVar[str | None] = None

    def __init_subclass__(cls, panel: str | None = None) -> None:
        cls.panel = panel

    def keywords(self) -> dict[str, Any]:
        """What the options are in Python: keyword arguments of the call that they stand for."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}


def option(default: Any, help: str, *names: str, **facts: Any) -> Any:
    """An option and its default, ``...`` if it must be given: of a group or, alone, of a verb.

    ``facts`` are those of ``typer.Option``: limits, ``metavar`` where that of the type says too
    little, ``rich_help_panel`` where it is not that of the group.
    """
    given = {} if default is ... else {"default": default}
    return dataclasses.field(**given, metadata={"option": (names, {"help": help, **facts})})


def object_option() -> Any:
    """What the product is called."""
    told = "What the product is called, e.g. 'screw'."
    return option(None, told, "--object", "-n", rich_help_panel="Product")


def output_option(default: Any, help: str, metavar: str = "FOLDER") -> Any:
    """Where a verb writes to."""
    return option(default, help, "--output", "-o", metavar=metavar, rich_help_panel="Output")


def flattened(verb: Callable[..., None]) -> Callable[..., None]:
    """A verb as typer takes it: one parameter for each field of each group that it asks for.

    A verb that asks for groups can be given a file of options besides (``--config``).

    Raises:
        ValueError: two options of the verb have the same name.
    """
    groups: dict[str, Any] = {}
    parameters: list[inspect.Parameter] = []
    for name, asked in inspect.signature(verb, eval_str=True).parameters.items():
        if dataclasses.is_dataclass(asked.annotation):
            group: Any = asked.annotation
            groups[name] = group
            hints = get_type_hints(group, include_extras=True)
            parameters += [
                _parameter(field.name, hints[field.name], field, _panel(group, field.name))
                for field in dataclasses.fields(group)
            ]
        else:
            parameters.append(_parameter(name, asked.annotation, asked.default))
    if groups:
        parameters.append(_parameter("config", ConfigFile, None))

    @functools.wraps(verb)
    def command(**given: Any) -> None:
        given.pop("config", None)  # it has become the defaults of the others
        built = {}
        for name, group in groups.items():
            fields = [field.name for field in dataclasses.fields(group)]
            built[name] = group(**{field: given.pop(field) for field in fields})
        verb(**given, **built)

    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {one.name: one.annotation for one in parameters}
    return command


def _panel(group: type[Options], field: str) -> str | None:
    """Panel of the class that declares the field."""
    kinds = (kind for kind in group.__mro__ if issubclass(kind, Options))
    return next(kind.panel for kind in kinds if field in inspect.get_annotations(kind))


def _parameter(name: str, hint: Any, default: Any, panel: str | None = None) -> inspect.Parameter:
    """Of a command; ``default`` may be a field, which brings its option with it."""
    if isinstance(default, dataclasses.Field):
        if said := default.metadata.get("option"):
            names, facts = said
            usual = {"metavar": _metavar(hint), "rich_help_panel": panel}
            hint = Annotated[hint, typer.Option(*names, **{**usual, **facts})]
        has_none = default.default is dataclasses.MISSING
        default = inspect.Parameter.empty if has_none else default.default
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, kind, default=default, annotation=hint)


def _metavar(hint: Any) -> str | None:
    """Plain word for a value of this type, or of a list of them; None for what typer names."""
    parts = [part for part in get_args(hint) if part is not type(None)]
    return _metavar(parts[0]) if parts else _METAVARS.get(hint)


# --- options that verbs take one by one ----------------------------------------------------------

Paths = Annotated[
    list[Path], typer.Argument(metavar="PICTURES", help="Pictures and folders of pictures.")
]
GoodPaths = Annotated[
    list[Path] | None,
    typer.Argument(metavar="GOOD", help="Pictures or folders of good parts only."),
]
ProductPath = Annotated[
    Path, typer.Argument(metavar="FILE", help="Product file, from 'calibrate --output NAME.zd'.")
]
TrainableMethod = Annotated[
    str, typer.Argument(metavar="METHOD", help="A trainable method of 'zerodefect methods'.")
]
ObjectNames = Annotated[
    list[str] | None,
    typer.Option(
        "--object",
        "-n",
        metavar="NAME",
        rich_help_panel="Product",
        help="Words for the product, or PRODUCT=WORDS; repeatable.",
    ),
]
Layout = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        rich_help_panel="Product",
        help="Layout or data set (see 'zerodefect data list'); else recognised.",
    ),
]
BitDepth = Annotated[
    int | None,
    typer.Option(
        min=8,
        max=16,
        metavar="N",
        rich_help_panel="Pictures",
        help="Bits that 16-bit pictures use; else inferred once.",
    ),
]
Device = Annotated[
    str,
    typer.Option(metavar="NAME", rich_help_panel="Machine", help="auto, cpu, cuda, cuda:1, ..."),
]
Precision = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        rich_help_panel="Machine",
        help="float32, bfloat16, or auto: bfloat16 where the machine has it.",
    ),
]
Overwrite = Annotated[
    bool,
    typer.Option(
        "--overwrite",
        rich_help_panel="Output",
        help="Throw away an older run in that folder.",
    ),
]
AsJson = Annotated[
    bool,
    typer.Option("--json", rich_help_panel="Output", help="Machine-readable output on stdout."),
]
ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        is_eager=True,
        callback=read_config,
        help="TOML file of options by these names; the command line wins.",
    ),
]

# --- groups --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ProductOptions(Options, panel="Product"):
    """What is known of the product."""

    product: Path | None = option(
        None, "Product file from 'calibrate': it says all that the options below say."
    )
    object: str | None = object_option()
    references: list[Path] | None = option(
        None,
        "Picture or folder of good parts; repeatable.",
        "--reference",
        "-r",
        metavar="FOLDER",
    )
    memory_budget: int | None = option(
        None, "Megabytes that references may take; default 2147.", min=1
    )

    def keywords(self) -> dict[str, Any]:
        """Keyword arguments of ``load``, or ``load_product``; the budget in bytes."""
        given = super().keywords()
        del given["product"]  # it takes the place of a method
        return {**given, "memory_budget": self.memory_budget and self.memory_budget * 10**6}


@dataclass(frozen=True)
class RuleOptions(Options, panel="Product"):
    """What of a picture is no defect, and which pictures show one part."""

    vocabulary: Path | None = option(None, "Defect kinds: a kind a line, or JSON with phrases.")
    allow: list[str] | None = option(
        None,
        "Regions that are no defect: stain:area<50, count<=2, ...; none takes back the policy's.",
        metavar="RULE",
    )
    min_area: str | None = option(
        None,
        "Short for --allow area<...: 50 pixels, or 0.1% of the inspected area.",
        metavar="AREA",
    )
    part_by: str | None = option(
        None,
        "Parts of several pictures, by file name: '(?P<part>[0-9]+)_.*'.",
        metavar="PATTERN",
    )

    @property
    def rules(self) -> list[str]:
        """What is allowed, the minimum area among it."""
        return [*(self.allow or []), *([] if self.min_area is None else [f"area<{self.min_area}"])]


@dataclass(frozen=True)
class KindOptions(Options, panel="Product"):
    """Kinds of defects from examples."""

    kind: list[str] | None = option(
        None,
        "Kind of defect by examples instead of words: NAME=FOLDER, masks beside them count; "
        "repeatable.",
        metavar="NAME=FOLDER",
    )

    @property
    def examples(self) -> dict[str, list[Path]]:
        """Pictures and folders of each kind.

        Raises:
            ValueError: an entry that is not NAME=FOLDER.
        """
        found: dict[str, list[Path]] = {}
        for entry in self.kind or []:
            name, separator, path = entry.partition("=")
            if not (separator and name.strip() and path):
                raise ValueError(f"--kind {entry!r}: write NAME=FOLDER, as in scratch=examples/")
            found.setdefault(name.strip(), []).append(Path(path))
        return found


@dataclass(frozen=True)
class MethodOptions(Options, panel="Detector"):
    """Which method inspects."""

    method: str | None = option(
        None, "See 'zerodefect methods'; default: what suits the weights.", "--method", "-m"
    )
    checkpoint: Path | None = option(None, "Of a trained method, from 'train' or 'import'.")


@dataclass(frozen=True)
class NetworkOptions(Options, panel="Detector"):
    """The weights that a method runs on, and the method's hyper-parameters."""

    backbone: list[str] | None = option(
        None,
        "MODEL/TAG or weights file; default: embedded model. NAME=... each of several.",
        "--backbone",
        "-b",
    )
    weights: list[str] | None = option(
        None,
        "Local weights for the named backbone; NAME=... for each of several.",
        metavar="FILE",
    )
    image_size: int | None = option(None, "Input side in pixels instead of the weights'.")
    settings: list[str] | None = option(
        None,
        "Hyper-parameter of the method; repeatable.",
        "--set",
        "--option",
        metavar="NAME=VALUE",
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
class MachineOptions(Options, panel="Machine"):
    """Where the networks run, and how."""

    device: Device = "auto"
    precision: Precision = "float32"


@dataclass(frozen=True)
class EffortOptions(Options, panel="Detector"):
    """How much work a picture is worth."""

    thorough: bool = option(
        False, "Judge better in three to four times the time: larger, and seen twice.", "--thorough"
    )


@dataclass(frozen=True)
class LoadingOptions(NetworkOptions, EffortOptions, MachineOptions):
    """How a detector is loaded, whatever the method."""


@dataclass(frozen=True)
class DetectorOptions(LoadingOptions, MethodOptions):
    """A detector; the fields of the last base come first."""


@dataclass(frozen=True)
class BatchOptions(Options, panel="Machine"):
    """How much goes through the networks at once."""

    batch_size: int = option(8, "Pictures that go through the network at once.", min=1)


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

"""How help and errors of usage look: help in panels, errors in a line."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand, TyperGroup

from zerodefect.types import printable

COMPLETION = "Completion of names in your shell: zerodefect --install-completion"


_PANELS = (
    "Product",
    "Rules",
    "Limits",
    "Detector",
    "Pictures",
    "Measuring",
    "Training",
    "Output",
    "Machine",
)


class Verb(TyperCommand):
    """One verb."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the help, the panels in their order."""
        self.params.sort(key=_place)
        _plain(self.get_params(ctx))
        super().format_help(ctx, formatter)


class Verbs(TyperGroup):
    """All verbs: help in panels, but an error in a line, in which nothing acts on a terminal."""

    def __init__(self, **facts: Any) -> None:
        super().__init__(**facts)
        self.rich_markup_mode = None  # it decides how errors of usage are told

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the help; the options for completion are left to the line below."""
        for parameter in self.params:
            if parameter.name in ("install_completion", "show_completion"):
                vars(parameter)["hidden"] = True
        _plain(self.get_params(ctx))
        self.rich_markup_mode = "rich"
        super().format_help(ctx, formatter)

    def invoke(self, ctx: Any) -> Any:
        """Run the verb that was named."""
        try:
            return super().invoke(ctx)
        except Exception as error:
            if isinstance(said := getattr(error, "message", None), str):
                error.message = printable(said)  # type: ignore[attr-defined]
            raise


def _place(parameter: Any) -> int:
    """Of a parameter's panel; those of no panel come first."""
    panel = getattr(parameter, "rich_help_panel", None)
    return _PANELS.index(panel) if panel in _PANELS else -1


def _plain(parameters: list[Any]) -> None:
    """Leave the names of Python types out: a flag needs none, an argument has its own name."""
    for parameter in parameters:
        if parameter.param_type_name == "argument":
            parameter.display_type_rich = lambda ctx: None
        elif parameter.is_flag:
            parameter.metavar = ""

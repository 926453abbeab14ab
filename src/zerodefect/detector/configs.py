"""Hyper-parameters of methods: dataclasses whose types say what values are possible.

@hyper_parameters
class WinCLIPConfig:
    temperature: Positive = 0.07
    scales: tuple[Count, ...] = (2, 3)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass
from typing_extensions import dataclass_transform


def _odd(value: int) -> int:
    if value % 2 == 0:
        raise ValueError("an odd number is needed")
    return value


Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Odd = Annotated[int, Field(ge=1), AfterValidator(_odd)]
Taps = Annotated[tuple[int, ...], Field(min_length=1)]
"""Blocks of the image tower, from 1."""
Layers = Annotated[tuple[str, ...], Field(min_length=1)]
"""Layers of pretrained features, by the names that the backbone gives them."""
LATER = {"later": True}
"""Metadata of an option that came after limits and products without it were saved."""

_C = TypeVar("_C")


@dataclass_transform(frozen_default=True)
def hyper_parameters(cls: type[_C]) -> type[_C]:
    """Class decorator: a frozen dataclass that refuses values outside its types, NaN and infinity.

    Values are brought to the types where that loses nothing (``"0.05"``, a list for a tuple). What
    types cannot say is checked in ``__post_init__``, by raising ValueError.
    """
    settings = ConfigDict(extra="forbid", allow_inf_nan=False)
    make: Any = dataclass(frozen=True, config=settings)
    made: type[_C] = make(cls)
    return made


def options_told(config: Any) -> dict[str, Any]:
    """Hyper-parameters by name; a later one only where it is not the default, as in older files."""
    usual = {f.name: f.default for f in fields(config) if f.metadata.get("later")}
    return {n: v for n, v in asdict(config).items() if n not in usual or v != usual[n]}


def configured(config: type[_C], options: Mapping[str, Any], method: str) -> _C:
    """Hyper-parameters of a method from the user's options.

    Raises:
        ValueError: an option that there is not, or a value that it cannot take; one line.
    """
    known = {field.name for field in fields(config)}  # type: ignore[arg-type]
    unknown = sorted(options.keys() - known)
    if unknown:
        has = ", ".join(sorted(known)) or "none"
        raise ValueError(f"{method} has no option {unknown[0]!r}; it has: {has}")
    try:
        return config(**options)
    except ValidationError as error:
        first = error.errors()[0]
        reason = first["msg"].removeprefix("Value error, ")
        name = str(first["loc"][0]) if first["loc"] else ""
        named = f"option {name}={options[name]!r}: " if name in options else ""
        raise ValueError(f"{named}{reason}") from None

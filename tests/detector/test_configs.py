"""Hyper-parameters: types say what is possible, and one line says what is not."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Literal

import pytest
from pydantic import Field, ValidationError

from zerodefect.detector.configs import (
    Count,
    NotNegative,
    Odd,
    Positive,
    Share,
    Taps,
    configured,
    hyper_parameters,
)


@hyper_parameters
class Config:
    """One of each."""

    temperature: Positive = 0.07
    sigma: NotNegative = 4.0
    mix: Share = 0.5
    clusters: Count = 20
    window: Odd = 3
    taps: Taps | None = None
    choice: Literal["rows", "image"] = "rows"
    sizes: Annotated[tuple[Positive, ...], Field(min_length=1)] = (1.0,)
    plain: bool = False
    prompt: str = "a {}"

    def __post_init__(self) -> None:
        if self.prompt.count("{}") != 1:
            raise ValueError("prompt needs '{}' exactly once")


@hyper_parameters
class Further(Config):
    """A family's options and one of its own."""

    extra: Count = 1
    mix: Share = 0.25


def test_defaults_stand_and_nothing_changes_them():
    config = Config()
    assert dataclasses.asdict(config)["clusters"] == 20
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.clusters = 3
    assert dataclasses.replace(config, clusters=3).clusters == 3
    assert config == Config() != Config(clusters=3)


def test_values_are_brought_to_the_types_where_that_loses_nothing():
    config = Config(temperature="0.05", clusters="4", taps=[1, 2], plain="true", sizes=[1, "2"])
    assert (config.temperature, config.clusters, config.taps) == (0.05, 4, (1, 2))
    assert (config.plain, config.sizes) == (True, (1.0, 2.0))
    assert type(Config(temperature=1).temperature) is float
    assert Config(clusters=4.0).clusters == 4


IMPOSSIBLE = [
    ("temperature", 0.0, "greater than 0"),
    ("temperature", float("nan"), "finite"),
    ("temperature", "warm", "valid number"),
    ("sigma", -1.0, "greater than or equal to 0"),
    ("sigma", float("inf"), "finite"),
    ("mix", 1.1, "less than or equal to 1"),
    ("mix", -0.1, "greater than or equal to 0"),
    ("clusters", 0, "greater than or equal to 1"),
    ("clusters", 2.5, "integer"),
    ("window", 4, "an odd number is needed"),
    ("window", -3, "greater than or equal to 1"),
    ("taps", (), "at least 1 item"),
    ("choice", "column", "'rows' or 'image'"),
    ("sizes", (1.0, 0.0), "greater than 0"),
    ("sizes", (), "at least 1 item"),
    ("plain", "perhaps", "boolean"),
    ("prompt", 3, "string"),
]


@pytest.mark.parametrize(("name", "value", "reason"), IMPOSSIBLE)
def test_impossible_values(name, value, reason):
    with pytest.raises(ValidationError, match=reason):
        Config(**{name: value})
    with pytest.raises(ValueError, match=reason) as caught:
        configured(Config, {name: value}, "method")
    message = str(caught.value)
    assert message.startswith(f"option {name}={value!r}: ")
    assert "\n" not in message and "Value error" not in message
    assert type(caught.value) is ValueError


def test_what_types_cannot_say():
    with pytest.raises(ValueError, match="exactly once"):
        Config(prompt="nothing")
    with pytest.raises(ValueError, match=r"^prompt needs '\{\}' exactly once$"):
        configured(Config, {"prompt": "nothing"}, "method")


def test_unknown_options_are_named_with_those_there_are():
    with pytest.raises(
        ValueError, match=r"^method has no option 'temprature'; it has: choice, clusters, .*window$"
    ):
        configured(Config, {"temprature": 1, "mix": 7}, "method")
    with pytest.raises(ValidationError, match="temprature"):
        Config(temprature=1)

    @hyper_parameters
    class Nothing:
        """No options at all."""

    with pytest.raises(ValueError, match=r"^method has no option 'a'; it has: none$"):
        configured(Nothing, {"a": 1}, "method")
    assert configured(Nothing, {}, "method") == Nothing()


def test_a_family_shares_options_and_ranges():
    config = configured(Further, {"extra": "2", "temperature": 1}, "method")
    assert (config.extra, config.temperature, config.mix) == (2, 1.0, 0.25)
    with pytest.raises(ValueError, match=r"^option temperature=0: .* greater than 0$"):
        configured(Further, {"temperature": 0}, "method")
    with pytest.raises(ValueError, match="exactly once"):
        Further(prompt="")

"""Groups of options: what the command line makes of them, and what they are in Python."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pytest
import typer
from models import picture
from typer.testing import CliRunner

from zerodefect import Tiling, Viewing
from zerodefect.cli.evaluate import ProtocolOptions
from zerodefect.cli.options import (
    DetectorOptions,
    NetworkOptions,
    Options,
    ProductOptions,
    flattened,
    option,
)
from zerodefect.cli.picture_options import PictureOptions, ViewOptions
from zerodefect.evaluation.protocol import Protocol
from zerodefect.images import encode_png


@dataclass(frozen=True)
class Oven(Options):
    """A group with a required option, a renamed one and a flag."""

    bread: str = option(..., "What is baked.", "--bread", "-b")
    heat: int = option(200, "In Celsius.", "--degrees", min=50, max=300)
    steam: bool = option(False, "With water.", "--steam")


@dataclass(frozen=True)
class Convection(Oven):
    """A larger group: fields of its base come first."""

    fans: list[int] | None = option(None, "Repeatable.", "--fan")


@pytest.fixture
def bake():
    """A verb with a group between its own parameters, as a command; and what it was called with."""
    called = []

    def bake(
        place: Annotated[Path, typer.Argument(help="Where.")],
        *,
        minutes: int = option(30, "How long."),
        oven: Convection,
        quiet: bool = option(False, "No bell.", "--quiet"),
    ) -> None:
        """Bake something."""
        called.append((place, minutes, oven, quiet))

    app = typer.Typer(rich_markup_mode=None)
    app.command("bake")(flattened(bake))

    def run(*arguments):
        result = CliRunner().invoke(app, [str(one) for one in arguments])
        return result, (called.pop() if called else None)

    return run


def test_the_verb_is_handed_the_built_records(bake):
    result, called = bake("here", "-b", "rye")
    assert result.exit_code == 0
    assert called == (Path("here"), 30, Convection("rye", 200, False, None), False)
    _, called = bake("here", "--bread", "rye", "--degrees", 250, "--steam", "--fan", 1, "--fan", 2)
    assert called == (Path("here"), 30, Convection("rye", 250, True, [1, 2]), False)


def test_fields_are_options_in_the_place_of_their_group(bake):
    text = bake("--help")[0].output
    assert "Bake something." in text and "oven" not in text.lower()
    said = ("--minutes", "-b, --bread", "--degrees", "--steam", "--fan", "--quiet")
    places = [text.index(name) for name in said]
    assert places == sorted(places)
    unwrapped = " ".join(text.split())
    assert "What is baked. [required]" in unwrapped
    assert "In Celsius. [default: 200; 50<=x<=300]" in unwrapped


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["here"], "Missing option '--bread'"),
        (["here", "-b", "rye", "--degrees", "1000"], "Invalid value for '--degrees'"),
        (["here", "-b", "rye", "--degrees", "hot"], "Invalid value for '--degrees'"),
        (["here", "-b", "rye", "--heat", "200"], "No such option"),
    ],
)
def test_a_bad_value_is_wrong_usage_as_of_any_option(bake, arguments, message):
    result, called = bake(*arguments)
    assert result.exit_code == 2 and called is None
    assert message in " ".join(result.output.split())


def test_two_options_of_one_name_are_refused():
    def verb(*, oven: Oven, other: Convection) -> None: ...

    with pytest.raises(ValueError, match="duplicate parameter name: 'bread'"):
        flattened(verb)


def test_groups_are_the_keywords_of_the_call_in_python(tmp_path):
    assert Oven("rye").keywords() == {"bread": "rye", "heat": 200, "steam": False}
    product = ProductOptions(object="screw", references=[tmp_path])
    assert product.keywords() == {
        "object": "screw",
        "references": [tmp_path],
        "memory_budget": None,
    }
    assert ProductOptions(memory_budget=100).keywords()["memory_budget"] == 100_000_000  # bytes
    given = DetectorOptions("winclip", settings=["scales=[2,3]", "image-score=mean"]).keywords()
    assert given["scales"] == (2, 3) and given["image_score"] == "mean"
    assert set(given) == {
        "method", "checkpoint", "backbone", "weights", "image_size", "thorough", "device",
        "precision", "scales", "image_score",
    }  # fmt: skip


def test_views_open_their_mask_pictures(tmp_path):
    assert ViewOptions().opened() == {"viewing": Viewing(), "roi": None, "ignore": None}
    (tmp_path / "roi.png").write_bytes(encode_png(picture(0, 20, 30)))
    chosen = PictureOptions(64, 0.5, True, str(tmp_path / "roi.png"), bit_depth=12)
    shown = chosen.opened()
    assert shown["viewing"] == Viewing(Tiling(64, 0.5), keep_aspect=True)
    assert (shown["roi"].height, shown["roi"].width) == (20, 30)
    assert shown["ignore"] is None
    assert chosen.keywords() == {
        "tile": 64,
        "overlap": 0.5,
        "keep_aspect": True,
        "roi": str(tmp_path / "roi.png"),
        "ignore": None,
        "view": None,
        "bit_depth": 12,
    }


def test_a_setting_that_is_an_option_of_its_own_is_refused():
    with pytest.raises(ValueError, match=r"--set image_size=\.\.\.: write --image-size"):
        NetworkOptions(settings=["image-size=64"]).keywords()


def test_protocol_options_are_a_protocol():
    assert Protocol(**ProtocolOptions().keywords()) == Protocol()
    chosen = ProtocolOptions("0,2", resolution="128", pixel_metric=["auroc"]).keywords()
    assert Protocol(**chosen) == Protocol((0, 2), resolution=128, pixel_queries=("auroc",))


def test_approximate_is_passed_on_where_it_is_asked_for():
    assert "approximate" not in ProtocolOptions().keywords()
    assert ProtocolOptions(approximate=True).keywords()["approximate"] is True


@pytest.mark.parametrize("verb", ["inspect", "calibrate", "evaluate", "train", "check"])
def test_every_verb_that_reads_pictures_takes_a_bit_depth(verb):
    import typer

    from zerodefect.cli import app

    commands = typer.main.get_command(app).commands
    command = commands["data"].commands[verb] if verb == "check" else commands[verb]
    assert "--bit-depth" in [name for option in command.params for name in option.opts]

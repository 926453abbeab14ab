"""Help as a new user reads it: panels that fit a screen, plain words, nothing heavy imported."""

import re
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from zerodefect.cli import app

SCREEN = 24  # lines
LONG = ("inspect", "calibrate", "evaluate", "train")
ANSI = re.compile(r"\x1b\[[0-9;]*m")


def helped(*verb):
    result = CliRunner().invoke(app, [*verb, "--help"], env={"COLUMNS": "100"})
    assert result.exit_code == 0
    return ANSI.sub("", result.output)


def panels(text):
    """Lines of each panel, with its borders, by title."""
    found = re.findall(r"╭─ ([\w ]+?) ─.*?╰─+╯", text, re.DOTALL)
    bodies = re.findall(r"╭─ [\w ]+? ─.*?╰─+╯", text, re.DOTALL)
    return {title: body.splitlines() for title, body in zip(found, bodies, strict=True)}


@pytest.mark.parametrize("verb", LONG)
def test_every_panel_fits_a_screen(verb):
    shown = panels(helped(verb))
    order = ["Product", "Detector", "Pictures", "Output", "Machine"]
    assert [title for title in shown if title in order] == order
    assert max(map(len, shown.values())) <= SCREEN


@pytest.mark.parametrize("verb", [*LONG, "import", "pretrain", "demo", "methods", "cache"])
def test_values_are_told_in_plain_words(verb):
    assert not re.search(r"(?<!\w)<\w|list\[|TEXT|INTEGER|<>", helped(verb))


def test_users_verbs_stand_apart_from_developers():
    shown = panels(helped())
    assert {"inspect", "calibrate"} <= set(" ".join(shown["Inspect"]).split())
    assert {"import", "pretrain", "cache"} <= set(" ".join(shown["For developers"]).split())
    text = helped()
    assert "datasets" not in text and "--install-completion" in text.splitlines()[-3]


def test_data_has_list_and_check_and_the_former_name_works():
    assert {"list", "check"} <= set(" ".join(panels(helped("data"))["Commands"]).split())
    runner = CliRunner()
    listed = runner.invoke(app, ["data", "list", "visa"])
    assert listed.exit_code == 0 and "1cls.csv" in listed.output
    assert runner.invoke(app, ["datasets", "visa"]).output == listed.output


def test_help_imports_nothing_heavy():
    code = (
        "import sys\nfrom zerodefect.cli import app\ntry:\n    app(['inspect', '--help'])\n"
        "except SystemExit:\n    pass\n"
        "print({'torch', 'numpy', 'PIL', 'scipy', 'timm'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"


def test_an_error_of_usage_is_a_line():
    result = CliRunner().invoke(app, ["inspect", "x", "--tile", "many"], env={"COLUMNS": "60"})
    assert result.exit_code == 2
    assert result.output.splitlines()[-1].startswith("Error: Invalid value for '--tile'")

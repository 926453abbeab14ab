"""Methods by their names; those of other packages join by entry points."""

from __future__ import annotations

import subprocess
import sys

import pytest
from models import tiny_backbone

from zerodefect import methods
from zerodefect.detector.contract import Detector
from zerodefect.detector.facts import MethodInfo
from zerodefect.detector.registry import register
from zerodefect.methods.winclip import WinCLIP

PLUGIN = """
from six_examples import Mutual
from zerodefect.detector.registry import register
register(Mutual.info)(Mutual)
"""

MAIN = """
import logging, sys
logging.basicConfig(format="%(message)s")
from zerodefect.methods import names
print(names())
"""


def test_a_name_gives_the_class_itself():
    assert methods.get("winclip") is WinCLIP
    assert WinCLIP.info.name == "winclip"
    assert methods.names() == sorted(methods.names())
    made = methods.create("winclip", tiny_backbone(), temperature=0.1)
    assert type(made) is WinCLIP
    assert made.config.temperature == 0.1


def test_unknown_names_and_options():
    with pytest.raises(ValueError, match="Did you mean 'winclip'"):
        methods.get("winclipp")
    with pytest.raises(ValueError, match=r"unknown method 'xyz'\. Known: .*dense, .*winclip"):
        methods.get("xyz")
    with pytest.raises(ValueError, match=r"no option 'temprature'; it has: .*temperature"):
        methods.create("winclip", tiny_backbone(), temprature=1)


def test_a_name_can_be_taken_only_once():
    info = MethodInfo("winclip", "x", "prompt", ("words",), "x", "x", "x")
    with pytest.raises(ValueError, match="two methods are named 'winclip'"):
        register(info)(type("Other", (Detector,), {}))
    assert methods.get("winclip") is WinCLIP


def test_what_a_method_needs_and_whether_it_is_trained():
    def info(*knows_from, optional=()):
        return MethodInfo("x", "X", "other", knows_from, "x", "x", "x", optional=optional)

    assert info("words", "references", optional=("references",)).needs == ("words",)
    assert info("references").needs == ("references",)
    assert [info(source).trained for source in ("words", "training", "good")] == [
        False,
        True,
        True,
    ]


@pytest.mark.slow
def test_a_package_brings_a_method_and_a_broken_one_costs_itself_alone(tmp_path):
    (tmp_path / "plugin_good.py").write_text(PLUGIN)
    (tmp_path / "plugin_bad.py").write_text("raise OSError('no weights here')")
    facts = tmp_path / "plugins-1.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: plugins\nVersion: 1\n")
    (facts / "entry_points.txt").write_text(
        "[zerodefect.methods]\nbad = plugin_bad\ngood = plugin_good\n"
    )
    paths = [str(tmp_path), *sys.path]
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:] = {paths!r}\n{MAIN}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "'mutual'" in done.stdout
    assert "'winclip'" in done.stdout
    assert "methods of plugin_bad are left out: OSError: no weights here" in done.stderr

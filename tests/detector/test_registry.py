"""Methods by their names."""

from __future__ import annotations

import pytest
from models import tiny_backbone

from zerodefect import methods
from zerodefect.detector.contract import Detector
from zerodefect.detector.facts import MethodInfo
from zerodefect.detector.registry import register
from zerodefect.methods.winclip import WinCLIP


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

"""The self-test: methods run on what is here, and what does not run is told."""

import json

import pytest
import torch
from typer.testing import CliRunner

from zerodefect.cli import app
from zerodefect.inspection import self_test as module
from zerodefect.inspection.self_test import self_test
from zerodefect.methods import get


@pytest.mark.parametrize("method", ["dense", "patchcore", "musc", "af_clip", "bt_points"])
def test_method_runs_on_the_weights_in_the_package(method):
    (trial,) = self_test([method])
    assert trial.method == method
    assert trial.problem is None
    assert trial.tiny == ()


@pytest.mark.slow
@pytest.mark.parametrize("method", ["saa_plus", "iad_r1"])
def test_assembly_runs_on_tiny_networks_of_the_real_classes(method):
    pytest.importorskip("transformers")
    (trial,) = self_test([method])
    assert trial.problem is None
    assert set(trial.tiny) <= set(get(method).info.backbones)
    assert trial.tiny


def test_what_is_not_installed_is_named_with_its_extra(monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    saa, chat = self_test(["saa_plus", "iad_r1"])
    assert saa.missing == "pip install 'zerodefect[sam]'"
    assert chat.missing == "pip install 'zerodefect[vlm]'"


def test_failing_method_is_told_and_the_next_one_is_tried(monkeypatch):
    def broken(self, *_):
        raise RuntimeError("no such operator")

    monkeypatch.setattr(get("dense"), "encode", broken)
    first, second = self_test(["dense", "patchcore"])
    assert "no such operator" in first.problem
    assert second.problem is None


def test_values_that_are_no_numbers_are_a_problem(monkeypatch):
    kind, predict = get("dense"), get("dense").predict

    def spoiled(self, *given):
        found = predict(self, *given)
        return type(found)(found.score * torch.nan, found.map)

    monkeypatch.setattr(kind, "predict", spoiled)
    (trial,) = self_test(["dense"])
    assert trial.problem


def test_doctor_tells_and_fails_where_a_method_does(monkeypatch):
    runner = CliRunner()
    done = runner.invoke(app, ["doctor", "--selftest", "--method", "patchcore", "--json"])
    assert done.exit_code == 0
    (trial,) = json.loads(done.stdout)["selftest"]
    assert (trial["method"], trial["problem"]) == ("patchcore", None)

    def broken(self, *_):
        raise RuntimeError("no such operator")

    monkeypatch.setattr(get("patchcore"), "encode", broken)
    done = runner.invoke(app, ["doctor", "--selftest", "--method", "patchcore"])
    assert done.exit_code == 1
    assert "no such operator" in done.stdout


def test_doctor_asks_for_the_self_test_before_its_methods():
    done = CliRunner().invoke(app, ["doctor", "--method", "dense"])
    assert done.exit_code == 2


def test_unknown_method_is_named():
    with pytest.raises(ValueError, match="winklip"):
        list(self_test(["winklip"]))

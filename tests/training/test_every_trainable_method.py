"""What holds for every trainable method: it trains, stops and goes on, and loads again."""

from __future__ import annotations

import pytest
import torch
from small_detectors import SMALL, inputs, same, small_networks, taught
from toy_method import read_steps, write_parts

from zerodefect import methods
from zerodefect.data import load_dataset
from zerodefect.detector.checkpoint_file import load_checkpoint
from zerodefect.training.engine import Settings, fit
from zerodefect.training.examples import Examples, Pictures
from zerodefect.training.journal import Journal

TRAINABLE = [name for name in methods.names() if methods.get(name).info.trained]


class StopError(Exception):
    """The run is cut off here."""


@pytest.fixture(scope="module")
def examples(tmp_path_factory) -> Examples:
    root = write_parts(tmp_path_factory.mktemp("parts"), count=2)
    return Examples([Pictures(load_dataset(root))])


@pytest.mark.parametrize("name", TRAINABLE)
def test_two_steps_with_a_stop_between_them_and_back(name, examples, tmp_path, monkeypatch):
    monkeypatch.setattr(Journal, "draw", lambda journal: True)

    def made():
        return methods.create(name, *small_networks(methods.get(name)), **SMALL.get(name, {}))

    settings = Settings({"epochs": 1, "batch_size": 2}, log_every=1, state_steps=1)
    trained = made()
    fit(trained, examples, tmp_path / "whole", settings)

    def stop(progress):
        if progress.step == 1:
            raise StopError

    with pytest.raises(StopError):
        fit(made(), examples, tmp_path / "cut", settings, on_step=stop)
    torch.manual_seed(99)  # nothing may hang on the global generator
    fit(made(), examples, tmp_path / "cut", settings)
    files = [tmp_path / folder / f"{name}.safetensors" for folder in ("whole", "cut")]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert read_steps(tmp_path / "whole") == read_steps(tmp_path / "cut")
    before = made().learned
    assert any(not torch.equal(before[n], value) for n, value in trained.learned.items())

    loaded = made().eval()
    load_checkpoint(loaded, files[0])
    images = inputs(loaded, 2)
    known = taught(trained)
    same(loaded(images, known), trained(images, known))
    assert loaded.facts() == trained.facts()

"""What holds for every trainable method: it trains, stops and goes on, and loads again."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from small_clouds import tilted
from small_detectors import SMALL, inputs, same, small_networks, taught
from toy_method import read_steps, write_parts

from zerodefect import methods
from zerodefect.data import load_dataset
from zerodefect.detector.checkpoint_file import load_checkpoint
from zerodefect.images import encode_png, open_image
from zerodefect.training.engine import Settings, fit
from zerodefect.training.examples import Examples, Pictures
from zerodefect.training.journal import Journal

TRAINABLE = [name for name in methods.names() if methods.get(name).info.trained]


class StopError(Exception):
    """The run is cut off here."""


@pytest.fixture(scope="module")
def parts(tmp_path_factory) -> Path:
    return write_parts(tmp_path_factory.mktemp("parts"), count=2)


@pytest.fixture(scope="module")
def parts_with_points(parts, tmp_path_factory) -> Path:
    """The same in the layout of MVTec 3D-AD, every part as picture and points."""
    root = tmp_path_factory.mktemp("points")
    for file in sorted(parts.glob("p/t*/*/*.png")):
        kind = root / file.parent.relative_to(parts)
        for folder in ("rgb", "xyz", "gt"):
            (kind / folder).mkdir(parents=True, exist_ok=True)
        pixels = open_image(file).pixels
        shutil.copyfile(file, kind / "rgb" / file.name)
        points = tilted(*pixels.shape[:2])
        points[..., 2] += pixels.mean(-1) * 1e-5
        tifffile.imwrite(kind / "xyz" / f"{file.stem}.tiff", points, photometric="rgb")
        mask = parts / "p" / "ground_truth" / file.parent.name / f"{file.stem}_mask.png"
        blank = encode_png(np.zeros(pixels.shape[:2], np.uint8))
        (kind / "gt" / file.name).write_bytes(mask.read_bytes() if mask.exists() else blank)
    return root


@pytest.fixture
def examples(name, request) -> Examples:
    inputs = methods.create(name, *small_networks(methods.get(name)), **SMALL.get(name, {})).inputs
    kind = "parts_with_points" if "xyz" in inputs else "parts"
    return Examples([Pictures(load_dataset(request.getfixturevalue(kind)))])


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

"""Weights adapted for one product travel in its file; the package supplies the rest."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from models import picture, write_tiny_weights
from safetensors.torch import load_file, save_file

import zerodefect
from zerodefect import Inspector, WeightsError
from zerodefect.backbones import adapted_weights
from zerodefect.backbones.weight_files import file_hash
from zerodefect.inspection.archive import Archive, write_archive
from zerodefect.inspection.carried_weights import laid_out
from zerodefect.inspection.load_inspector import renewed
from zerodefect.inspection.product_file import opened_product


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stands for the model in the package."""
    (tmp_path / "package").mkdir()
    path = write_tiny_weights(tmp_path / "package")
    monkeypatch.setattr(adapted_weights, "embedded_file", lambda: path)
    return path


@pytest.fixture
def own(base: Path, tmp_path: Path) -> Path:
    """The same with another projection."""
    path = tmp_path / "run" / "embedded.safetensors"
    path.parent.mkdir()
    state = load_file(base)
    state["visual.proj"] = state["visual.proj"] + 0.1 * torch.randn(
        state["visual.proj"].shape, generator=torch.Generator().manual_seed(0)
    )
    save_file(state, path, {"base": file_hash(base), "format": "pt", "steps": "3"})
    shutil.copy(base.with_suffix(".json"), path.with_suffix(".json"))
    return path


def small(seed: int) -> np.ndarray:
    """A picture that a product file keeps as it is."""
    return picture(seed, 60, 56)


def screw(weights: Path, method: str = "winclip") -> Inspector:
    made = zerodefect.load(method, backbone=str(weights), device="cpu", object="screw")
    made.remember([small(seed) for seed in range(2)])
    made.calibrate([small(seed) for seed in range(20, 26)])
    return made


def scores(inspector: Inspector) -> list[float]:
    return [outcome.score for outcome in inspector.inspect_many([small(50), small(51)])]


def carried(path: Path) -> list[str]:
    with zipfile.ZipFile(path) as archive:
        return [name for name in archive.namelist() if name.startswith("weights/")]


def test_a_product_works_where_only_the_package_is(own: Path, base: Path, tmp_path: Path) -> None:
    made, file = screw(own), tmp_path / "screw.zd"
    made.save(file)
    shutil.rmtree(own.parent)
    place = f"weights/{made.detector.networks[0]['sha256'][:16]}"
    assert carried(file) == [f"{place}.safetensors", f"{place}.json"]
    assert opened_product(file).archive.sizes[f"{place}.safetensors"] < base.stat().st_size / 5
    again = zerodefect.load(file)
    assert scores(again) == scores(made)
    again.save(tmp_path / "copy.zd")
    assert carried(tmp_path / "copy.zd") == carried(file)
    again.save(file)  # over itself
    assert scores(zerodefect.load(file)) == scores(made)


def test_combined_methods_carry_shared_weights_once(own: Path, tmp_path: Path) -> None:
    made, file = screw(own, "winclip+dense"), tmp_path / "screw.zd"
    made.save(file)
    assert len(carried(file)) == 2


def test_it_is_learned_anew_on_what_it_carries(own: Path, tmp_path: Path) -> None:
    made, file = screw(own), tmp_path / "screw.zd"
    made.save(file)
    shutil.rmtree(own.parent)
    again = renewed(file)
    assert scores(again) == scores(made)
    again.save(file)
    assert scores(zerodefect.load(file)) == scores(made)
    assert scores(renewed(file)) == scores(made)


def test_learned_anew_on_other_weights_it_carries_no_former_ones(
    own: Path, base: Path, tmp_path: Path
) -> None:
    file = tmp_path / "screw.zd"
    screw(own).save(file)
    again = renewed(file, backbone=str(base))
    again.save(file)
    assert carried(file) == []
    assert scores(zerodefect.load(file)) == scores(again)


def test_another_model_in_the_package_is_refused_with_the_way_out(
    own: Path, base: Path, tmp_path: Path
) -> None:
    made, file = screw(own), tmp_path / "screw.zd"
    made.save(file)
    state = load_file(base)
    save_file({**state, "logit_scale": state["logit_scale"] + 1}, base)
    with pytest.raises(WeightsError, match=r"screw.zd: its weights were adapted from.*--renew"):
        zerodefect.load(file)
    assert scores(zerodefect.load(file, backbone=str(own))) == scores(made)


def test_weights_that_nobody_adapted_are_not_carried(base: Path, tmp_path: Path) -> None:
    screw(base).save(tmp_path / "screw.zd")
    assert carried(tmp_path / "screw.zd") == []


def test_a_file_that_was_written_over_is_not_carried(own: Path, tmp_path: Path) -> None:
    """A later run in the same folder; the product has learned on the former one."""
    made = screw(own)
    state = load_file(own)
    facts = {"base": file_hash(adapted_weights.embedded_file())}
    save_file({**state, "visual.proj": state["visual.proj"] * 2}, own, facts)
    made.save(tmp_path / "screw.zd")
    assert carried(tmp_path / "screw.zd") == []


def changed(file: Path, target: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(file) as archive:
        there = {name: archive.read(name) for name in archive.namelist()}
    for name in list(there):
        for ending, content in members.items():
            if name.startswith("weights/") and name.endswith(f".{ending}"):
                there[name] = content
    write_archive(target, there)
    return target


def test_damaged_weights_are_told(own: Path, tmp_path: Path) -> None:
    screw(own).save(tmp_path / "screw.zd")
    shutil.rmtree(own.parent)
    other = changed(tmp_path / "screw.zd", tmp_path / "other.zd", safetensors=b"nothing")
    with pytest.raises(WeightsError, match=r"other\.zd: its adapted weights are damaged"):
        zerodefect.load(other)
    other = changed(tmp_path / "screw.zd", tmp_path / "other.zd", json=json.dumps([]).encode())
    with pytest.raises(WeightsError, match=r"other\.zd"):
        zerodefect.load(other)


@pytest.mark.parametrize(
    "name", ["../evil.safetensors", "/evil.safetensors", "a\\b.safetensors", "", "..", "evil.pt"]
)
def test_a_name_that_leads_elsewhere_is_refused(own: Path, tmp_path: Path, name: str) -> None:
    screw(own).save(tmp_path / "screw.zd")
    archive = Archive(tmp_path / "screw.zd")
    (network,) = opened_product(tmp_path / "screw.zd").told.detector.networks.values()
    (tmp_path / "inner").mkdir()
    with pytest.raises(WeightsError, match="no name of a weights file"):
        laid_out(archive, network.model_copy(update={"name": name}), tmp_path / "inner")
    assert list((tmp_path / "inner").iterdir()) == []

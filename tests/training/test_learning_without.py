"""Training without a network that only judging asks: what is learned, kept and said."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from models import picture, write_tiny_weights
from small_assemblies import ShadeGrounder, ShadeSegmenter
from toy_method import write_parts

from zerodefect.backbones.tiny_networks import sam_folder
from zerodefect.backbones.weight_files import WeightsError
from zerodefect.detector import load_detector as loading
from zerodefect.detector.checkpoint_file import CheckpointError
from zerodefect.detector.contract import UnsupportedError
from zerodefect.detector.knowledge import Product
from zerodefect.evaluation.validation import Validation
from zerodefect.inspection.load_inspector import load
from zerodefect.methods import get, load_detector, names
from zerodefect.training.engine import Settings
from zerodefect.training.fit_method import fit

SMALL = {"clipsam": {"hidden": 8}, "filo": {}, "filo_plus_plus": {"kernels": [1]}}


@pytest.fixture
def weights(tmp_path) -> Path:
    return write_tiny_weights(tmp_path)


@pytest.fixture
def parts(tmp_path) -> Path:
    return write_parts(tmp_path / "parts")


def learned(method: str, parts: Path, backbone: object, folder: Path, **more: object) -> Path:
    """Checkpoint of a run of two steps."""
    options = {"backbone": backbone, "device": "cpu", **SMALL[method], **more}
    return fit(method, parts, folder, settings=Settings(max_steps=2), **options).path


@pytest.mark.parametrize("method", SMALL)
def test_what_is_learned_does_not_hang_on_it(method, parts, weights, tmp_path, monkeypatch):
    part = get(method).info.judging[0]
    asked = []
    stand_ins = {"segmenter": ShadeSegmenter, "grounder": ShadeGrounder}
    for name, made in stand_ins.items():
        monkeypatch.setattr(
            loading, f"load_{name}", lambda *_, of=made, **__: asked.append(of) or of().eval()
        )
    alone = learned(method, parts, str(weights), tmp_path / "alone")
    assert not asked
    both = {"clip": str(weights), part: "any"}
    together = learned(method, parts, both, tmp_path / "together")
    assert asked
    assert alone.read_bytes() == together.read_bytes()
    for file in (alone, together):
        card = json.loads(file.with_suffix(".json").read_text())
        assert isinstance(card["weights"], str), "bound to the CLIP alone"
    one, other = (
        load_detector(checkpoint=f, backbone=both, device="cpu") for f in (alone, together)
    )
    assert one.facts() == other.facts()
    assert getattr(one, part).fingerprint in one.facts().values()


@pytest.mark.parametrize("changes", [{}, {"augment": "vcp"}])
def test_clipsam_learned_without_a_segmenter_judges_with_one(parts, weights, tmp_path, changes):
    pytest.importorskip("transformers", reason="the extra sam")
    both = {"clip": str(weights), "segmenter": str(sam_folder(tmp_path / "sam"))}
    told = {"device": "cpu", "hidden": 8, "image_size": 48, "least": 0.0, "smallest": 0.0}
    told["settings"] = Settings(changes, max_steps=2)
    alone = fit("clipsam", parts, tmp_path / "alone", backbone=str(weights), **told)
    together = fit("clipsam", parts, tmp_path / "together", backbone=both, **told)
    said = []
    for made in (alone, together):
        inspector = load(checkpoint=made.path, backbone=both, device="cpu", object="plate")
        assert inspector.detector.sizes == {"image": (48, 48), "segmenter": (64, 64)}
        said.append([inspector.inspect(picture(seed, 50, 70)) for seed in range(2)])
    for one, other in zip(*said, strict=True):
        assert one.score == other.score
        np.testing.assert_array_equal(one.map, other.map)


def test_without_it_nothing_is_judged_and_what_is_missing_is_named(parts, weights, tmp_path):
    file = learned("clipsam", parts, str(weights), tmp_path / "run")
    only_learns = load_detector(checkpoint=file, backbone=str(weights), judges=False, device="cpu")
    known = only_learns.describe(only_learns.empty(), Product("plate"))
    with pytest.raises(UnsupportedError, match="--backbone segmenter="):
        only_learns({"image": torch.zeros(1, 3, 64, 64)}, known)
    absent = {"clip": str(weights), "segmenter": "no-such/sam"}
    for arguments in ({"checkpoint": file}, {"method": "clipsam", "untrained": True}):
        with pytest.raises(WeightsError, match="needs its segmenter") as told:
            load_detector(**arguments, backbone=absent, device="cpu")
        assert "to judge pictures, though not to learn" in str(told.value)


def test_measuring_while_it_learns_needs_it(parts, weights, tmp_path):
    absent = {"clip": str(weights), "segmenter": "no-such/sam"}
    target = write_parts(tmp_path / "val", count=2, seed=7)
    with pytest.raises(WeightsError, match=r"ClipSAM .* needs its segmenter to judge"):
        told = {"backbone": absent, "device": "cpu", "settings": Settings(max_steps=1)}
        fit("clipsam", parts, tmp_path / "run", validate=Validation([target]), **told)
    assert not (tmp_path / "run").exists()


def test_who_learns_without_it_is_told_how_to_judge(parts, weights, tmp_path, caplog):
    caplog.set_level("INFO", logger="zerodefect")
    learned("clipsam", parts, str(weights), tmp_path / "run")
    assert "learns without a segmenter" in caplog.text
    assert "--backbone segmenter=" in caplog.text


def test_a_checkpoint_names_its_networks_where_others_are_named_by_hand(
    parts, weights, tmp_path, monkeypatch
):
    monkeypatch.setattr(loading, "load_segmenter", lambda *_, **__: ShadeSegmenter().eval())
    by_hand = {"segmenter": "any"}
    made = learned("clipsam", parts, None, tmp_path / "run")  # on the embedded model
    detector = load_detector(checkpoint=made, backbone=by_hand, device="cpu")
    assert detector.backbone == "embedded" and detector.segmenter is not None
    local = learned("clipsam", parts, str(weights), tmp_path / "local")
    with pytest.raises(CheckpointError, match=r"--backbone clip=FILE, --weights clip=FILE"):
        load_detector(checkpoint=local, backbone=by_hand, device="cpu")


def test_what_only_judging_asks_is_among_a_methods_networks():
    for name in names():
        info = get(name).info
        assert set(info.judging) <= set(info.backbones)
        assert not info.judging or info.trained, f"{name} learns nothing"

"""Checkpoints are bound to their method, their weights and their shapes, and say so."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from models import backbone_of, config_of, tiny_backbone, tiny_state, write_tiny_weights
from safetensors.torch import load_file, save_file
from toy_method import Toy, registered

import zerodefect
from zerodefect.detector.checkpoint_file import (
    CheckpointError,
    fill,
    load_checkpoint,
    read_checkpoint,
    save_checkpoint,
)
from zerodefect.methods import load_detector
from zerodefect.methods.winclip import WinCLIP


@pytest.fixture(autouse=True)
def _toy():
    with registered():
        yield


def learned_toy(seed: int = 0, **options) -> Toy:
    made = Toy.build(tiny_backbone(), seed=3, **options)
    with torch.no_grad():
        made.unused.fill_(7.0 + seed)
    return made


@pytest.fixture
def saved(tmp_path):
    return save_checkpoint(learned_toy(), tmp_path / "toy.safetensors", {"how": "trained"})


def test_there_and_back(saved):
    other = Toy.build(tiny_backbone())
    assert other.facts().get("checkpoint") is None
    found = load_checkpoint(other, saved.path)
    assert found == saved
    for name, value in learned_toy().learned.items():
        assert torch.equal(other.learned[name], value)
    assert other.facts()["checkpoint"] == saved.sha256


def test_the_side_car_says_everything(saved):
    facts = json.loads(saved.path.with_suffix(".json").read_text())
    assert facts["format"] == "zerodefect-checkpoint"
    assert facts["method"] == "toy"
    assert facts["config"] == {"hidden": 8, "dropout": 0.0, "seed": 3}
    assert facts["weights"] == tiny_backbone().fingerprint
    assert facts["image_size"] == [64, 64]
    assert facts["activation"] == "gelu"
    assert facts["origin"] == {"how": "trained"}
    assert set(facts["versions"]) == {"zerodefect", "torch"}


def test_learned_values_tell_detectors_apart(saved, tmp_path):
    one, two = Toy.build(tiny_backbone()), Toy.build(tiny_backbone())
    load_checkpoint(one, saved.path)
    other = save_checkpoint(learned_toy(1), tmp_path / "b.safetensors", {})
    load_checkpoint(two, other.path)
    assert one.facts() != two.facts()
    prints = [zerodefect.Inspector(detector).fingerprint() for detector in (one, two)]
    assert prints[0] != prints[1]


def test_after_learning_is_called_so_that_nothing_stale_stays(saved):
    class Caching(Toy):
        renewed = 0

        def after_learning(self):
            self.renewed += 1

    made = Caching.build(tiny_backbone())
    load_checkpoint(made, saved.path)
    assert made.renewed == 1


def test_another_backbone_is_refused_and_both_named(saved):
    with pytest.raises(
        CheckpointError, match=r"learned on tiny \(weights tiny-0.*\), and this"
    ) as e:
        load_checkpoint(Toy.build(tiny_backbone(seed=1)), saved.path)
    assert "backbone is tiny (weights tiny-1" in str(e.value)


def test_another_activation_is_refused_and_both_named(saved):
    other = Toy.build(backbone_of(tiny_state(), tiny_backbone().fingerprint, "quick_gelu"))
    with pytest.raises(
        CheckpointError, match=r"tiny run with gelu, and this is tiny run with quick_gelu"
    ):
        load_checkpoint(other, saved.path)
    # files from before the activation was written down are not checked for it
    side_car = saved.path.with_suffix(".json")
    facts = json.loads(side_car.read_text())
    del facts["activation"]
    side_car.write_text(json.dumps(facts))
    assert load_checkpoint(other, saved.path).activation is None
    assert torch.equal(other.first, learned_toy().first)


def test_another_method_is_refused_and_both_named(saved):
    with pytest.raises(CheckpointError, match="a checkpoint of toy, not of winclip"):
        load_checkpoint(WinCLIP.build(tiny_backbone()), saved.path)


def test_another_shape_is_refused_and_all_faults_listed(saved):
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(Toy.build(tiny_backbone(), hidden=4), saved.path)
    assert "first has shape (8, 192) instead of (4, 192)" in str(caught.value)
    assert "second has shape (2, 8) instead of (2, 4)" in str(caught.value)


def test_missing_and_unknown_names_are_refused():
    with pytest.raises(CheckpointError, match=r"first is missing; .*more is unknown"):
        fill(Toy.build(tiny_backbone()), {"more": torch.zeros(1)}, "here")


def test_files_that_do_not_belong_together_are_refused(saved, tmp_path):
    side_car = saved.path.with_suffix(".json")
    values = load_file(saved.path)
    values["unused"] += 1
    save_file(values, saved.path)
    with pytest.raises(CheckpointError, match=r"is not what toy\.json was written for"):
        read_checkpoint(saved.path)
    side_car.write_text("{}")
    with pytest.raises(CheckpointError, match="not the side-car of a checkpoint"):
        read_checkpoint(saved.path)
    side_car.unlink()
    with pytest.raises(CheckpointError, match=r"toy\.json is not beside it"):
        read_checkpoint(saved.path)
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        read_checkpoint(tmp_path / "none.safetensors")


def test_a_newer_format_is_refused(saved):
    side_car = saved.path.with_suffix(".json")
    facts = {**json.loads(side_car.read_text()), "version": 99}
    side_car.write_text(json.dumps(facts))
    with pytest.raises(CheckpointError, match="written by a newer ZeroDefect"):
        read_checkpoint(saved.path)


# --- by name -------------------------------------------------------------------------------------


def test_loading_by_file_brings_back_size_settings_and_values(tmp_path):
    weights = write_tiny_weights(tmp_path)
    made = load_detector(
        "toy", backbone=str(weights), image_size=48, untrained=True, device="cpu", hidden=5
    )
    saved = save_checkpoint(made, tmp_path / "toy.safetensors", {})
    back = load_detector(checkpoint=saved.path, backbone=str(weights), device="cpu")
    assert back.info.name == "toy"
    assert back.config == made.config
    assert back.preprocess == made.preprocess
    assert torch.equal(back.first, made.first)
    assert not back.training
    again = zerodefect.load(
        checkpoint=saved.path, backbone=str(weights), device="cpu", image_size=32, dropout=0.5
    ).detector
    assert again.preprocess.size == (32, 32)
    assert again.config == dataclasses.replace(made.config, dropout=0.5)


def test_a_trained_method_does_not_run_untrained_unasked(tmp_path):
    weights = write_tiny_weights(tmp_path)
    with pytest.raises(CheckpointError, match=r"zerodefect train toy .*zerodefect import toy"):
        zerodefect.load("toy", backbone=str(weights))


def test_a_checkpoint_of_another_method_than_asked_for(tmp_path):
    saved = save_checkpoint(learned_toy(), tmp_path / "toy.safetensors", {})
    with pytest.raises(CheckpointError, match="a checkpoint of toy, but the method asked for is w"):
        zerodefect.load("winclip", checkpoint=saved.path)


def test_local_weights_must_be_named_again(tmp_path):
    weights = write_tiny_weights(tmp_path)
    made = load_detector("toy", backbone=str(weights), untrained=True, device="cpu")
    saved = save_checkpoint(made, tmp_path / "toy.safetensors", {})
    with pytest.raises(CheckpointError, match=r"local weights tiny\.safetensors.*--backbone"):
        zerodefect.load(checkpoint=saved.path)
    (tmp_path / "other").mkdir()
    other = write_tiny_weights(tmp_path / "other", seed=1)
    with pytest.raises(CheckpointError, match=r"learned on tiny\.safetensors"):
        zerodefect.load(checkpoint=saved.path, backbone=str(other), device="cpu")


def test_the_papers_input_size_is_for_the_papers_weights(tmp_path):
    state = tiny_state(image_size=336, patch_size=14)
    save_file(state, tmp_path / "large.safetensors")
    config = config_of(state).to_open_clip()
    (tmp_path / "large.json").write_text(json.dumps({"model_cfg": config}))
    options = {"backbone": str(tmp_path / "large.safetensors"), "untrained": True, "device": "cpu"}
    assert Toy.recipe.image_size == 518
    assert load_detector("toy", **options).preprocess.size == (518, 518)
    assert load_detector("toy", **options, image_size=28).preprocess.size == (28, 28)
    options["backbone"] = str(write_tiny_weights(tmp_path))
    assert load_detector("toy", **options).preprocess.size == (64, 64)


def test_the_embedded_weights_are_found_again(tmp_path):
    made = load_detector("toy", untrained=True, device="cpu")
    saved = save_checkpoint(made, tmp_path / "toy.safetensors", {})
    assert zerodefect.load(checkpoint=saved.path, device="cpu").detector.backbone == "embedded"

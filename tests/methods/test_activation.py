"""Methods whose official codes run QuickGELU weights with exact GELU, and what follows from it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from models import backbone_of, tiny_state, write_tiny_weights
from small_detectors import taught

from zerodefect import methods
from zerodefect.backbones.clip import tokenize
from zerodefect.backbones.clip_weights import CLIPBackbone
from zerodefect.detector.checkpoint_file import CheckpointError, save_checkpoint
from zerodefect.detector.clip_detector import CLIPDetector
from zerodefect.detector.contract import Detector
from zerodefect.methods import load_detector
from zerodefect.types import Prediction

CHANGING = [
    name
    for name in methods.names()
    if "activation" in methods.get(name).Config.__dataclass_fields__
    and issubclass(methods.get(name), CLIPDetector)  # MuSc reads a tower and learns nothing
]


def quick(fingerprint: str = "quick") -> CLIPBackbone:
    return backbone_of(tiny_state(), fingerprint, "quick_gelu")


def judged(detector: Detector, images: torch.Tensor) -> Prediction:
    return detector(images, taught(detector))


def build(name: str, backbone: CLIPBackbone, **options) -> Detector:
    spare = [None] * len(methods.facts_of(name).spare)  # networks that it can do without
    return methods.create(name, backbone, *spare, **options).eval()


def test_the_specified_methods_are_among_them():
    assert {"adaclip", "april_gan", "vcp_clip"} <= set(CHANGING)


@pytest.mark.parametrize("name", CHANGING)
def test_quick_gelu_weights_run_with_gelu_unless_asked_otherwise(name):
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    backbone = quick()
    before = backbone.clip.visual(images)
    published = build(name, backbone)
    own = build(name, quick("own"), activation="weights")
    assert (published.activation, own.activation) == ("gelu", "quick_gelu")
    assert published.clip.config.activation == "gelu"
    expected = judged(build(name, backbone_of(tiny_state(), "gelu")), images)
    got = judged(published, images)
    assert torch.equal(got.score, expected.score)
    assert torch.equal(got.map, expected.map)
    assert not torch.equal(got.map, judged(own, images).map)
    for tower, sample in (("visual", images), ("text", tokenize(["a screw"], 77))):
        theirs, ours = (getattr(made.clip, tower)(sample) for made in (own, published))
        assert not torch.allclose(theirs, ours, atol=1e-4), tower
    # others may use the backbone: it stays as it is, and its weights are in memory once
    assert torch.equal(backbone.clip.visual(images), before)
    theirs = {id(value) for value in backbone.clip.parameters()}
    assert {id(value) for value in published.clip.parameters()} == theirs
    assert not theirs & {id(value) for value in published.learned.values()}


@pytest.mark.parametrize("name", CHANGING)
def test_other_activations_are_refused(name):
    with pytest.raises(ValueError, match=r"option activation='relu': .*'gelu' or 'weights'"):
        build(name, quick(), activation="relu")


# --- checkpoints -----------------------------------------------------------------------------


def write_quick_weights(folder: Path) -> Path:
    path = write_tiny_weights(folder)
    side_car = json.loads(path.with_suffix(".json").read_text())
    side_car["model_cfg"]["quick_gelu"] = True
    path.with_suffix(".json").write_text(json.dumps(side_car))
    return path


@pytest.mark.parametrize("name", CHANGING)
def test_a_checkpoint_keeps_the_activation_and_refuses_another(name, tmp_path):
    file = str(write_quick_weights(tmp_path))
    path = tmp_path / "learned.safetensors"
    made = load_detector(name, backbone=file, untrained=True, device="cpu", activation="weights")
    assert save_checkpoint(made, path, {}).activation == "quick_gelu"
    assert load_detector(checkpoint=path, backbone=file, device="cpu").activation == "quick_gelu"
    with pytest.raises(CheckpointError, match=r"run with quick_gelu, and this is .* with gelu\."):
        load_detector(checkpoint=path, backbone=file, device="cpu", activation="gelu")

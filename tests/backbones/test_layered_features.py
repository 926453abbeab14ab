"""Convolutional and other layered features: names, maps, files, what is refused."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from dino import dino_file
from models import write_tiny_weights
from small_networks import SMALL_RESNET, small_resnet

from zerodefect.backbones.backbone import layers_at
from zerodefect.backbones.clip_weights import load_clip
from zerodefect.backbones.layered_features import load_features
from zerodefect.backbones.weight_files import WeightsError
from zerodefect.images import Preprocess

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
DINO = {"img_size": 56, "embed_dim": 32, "depth": 4, "num_heads": 2}


def pixels(batch: int, *size: int) -> torch.Tensor:
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(0))


# --- timm's networks -----------------------------------------------------------------------------


def test_a_resnet_from_a_file_with_its_classifier(tmp_path):
    path = small_resnet(tmp_path, seed=1)
    features = load_features("resnet18", weights=path, **SMALL_RESNET)
    assert features.layers == {"act1": 2, "layer1": 4, "layer2": 8, "layer3": 16, "layer4": 32}
    assert features.preprocess == Preprocess((224, 224), **IMAGENET)
    images = pixels(2, 64, 32)
    third, second = features.maps(images, ["layer3", "layer2"])
    model = features.model
    x = model.maxpool(model.act1(model.bn1(model.conv1(images))))
    x = model.layer2(model.layer1(x))
    torch.testing.assert_close(second, x)
    torch.testing.assert_close(third, model.layer3(x))
    with pytest.raises(ValueError, match="no layer 'layer9'; it has: act1, layer1"):
        features.maps(images, ["layer9"])
    with pytest.raises(ValueError, match="no layer of stride 64"):
        layers_at(features, (8, 64))


def test_half_precision_gives_maps_in_single(tmp_path):
    path = small_resnet(tmp_path, seed=1)
    full = load_features("resnet18", weights=path, **SMALL_RESNET)
    half = load_features("resnet18", weights=path, dtype=torch.bfloat16, **SMALL_RESNET)
    assert half.precision == "bfloat16"
    (one,), (other,) = (each.maps(pixels(1, 64, 64), ["layer3"]) for each in (full, half))
    assert other.dtype == torch.float32
    assert torch.nn.functional.cosine_similarity(one, other, dim=1).min() > 0.99


def test_weights_in_the_caches_are_found_and_absent_ones_asked_for(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *a: None)
    with pytest.raises(WeightsError, match=r"not on this machine.*hf download timm/resnet18"):
        load_features("resnet18")
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    small_resnet(tmp_path, seed=1).rename(folder / "resnet18_a1_0-d63eafa0.pth")
    assert load_features("resnet18", **SMALL_RESNET).width == 24


def test_values_that_are_computed_and_in_no_file_are_there(tmp_path):
    """DINOv3 has rotary positions, which timm computes when it is built."""
    import timm

    shape = {"embed_dim": 64, "depth": 2, "num_heads": 1, "img_size": 64}
    model = timm.create_model("vit_small_patch16_dinov3", pretrained=False, num_classes=0, **shape)
    torch.save(model.state_dict(), tmp_path / "dinov3.pth")
    features = load_features("vit_small_patch16_dinov3", weights=tmp_path / "dinov3.pth", **shape)
    (got,) = features.maps(images := pixels(1, 64, 96), ["blocks.1"])
    (expected,) = model.eval().forward_intermediates(images, [1], intermediates_only=True)
    torch.testing.assert_close(got, expected)
    assert got.shape == (1, 64, 4, 6)


# --- ViTs and CLIPs ------------------------------------------------------------------------------


def test_vits_are_read_at_a_share_of_their_depth(tmp_path):
    path = dino_file(tmp_path, registers=0, **DINO)
    features = load_features("vit_small_patch14_dinov2", weights=path, **DINO)
    assert layers_at(features, (8, 16)) == ("blocks.1", "blocks.2")
    assert layers_at(features, (4, 8, 16, 32)) == tuple(f"blocks.{i}" for i in range(4))
    last, first = features.maps(pixels(1, 56, 84), ["blocks.3", "blocks.0"])
    assert torch.equal(last, features(pixels(1, 56, 84))[0])
    assert first.shape == (1, 32, 4, 6)


def test_the_tower_of_a_clip(tmp_path):
    path = write_tiny_weights(tmp_path)
    features = load_features("embedded", weights=path)
    images = pixels(2, 64, 96)
    first, last = features.maps(images, ["blocks.0", "blocks.2"])
    assert first.shape == last.shape == (2, 64, 8, 12)
    visual = load_clip(weights=path).clip.visual
    tokens = visual.project(visual.encode(visual.embed(images)).tokens, projection=False)
    torch.testing.assert_close(last.flatten(2).mT, tokens[:, 1:])
    assert load_features("embedded").name == "embedded"


@pytest.mark.slow
def test_timm_is_imported_only_when_needed():
    code = "import sys, zerodefect.methods; sys.exit('timm' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

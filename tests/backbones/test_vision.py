"""Vision-only encoders: patch tokens, files in their authors' layout, resized positions."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from dino import dino_file, dino_state
from safetensors.torch import save_file

from zerodefect.backbones.vision import VisionEncoder, load_vision
from zerodefect.backbones.weight_files import WeightsError
from zerodefect.images import Preprocess

REGISTERS, PLAIN = "vit_base_patch14_reg4_dinov2", "vit_small_patch14_dinov2"
SHAPE = {"img_size": 56, "embed_dim": 32, "depth": 3, "num_heads": 2}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def pixels(batch: int, *size: int) -> torch.Tensor:
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module", params=[(REGISTERS, 4), (PLAIN, 0)], ids=["registers", "plain"])
def encoder(request, tmp_path_factory) -> VisionEncoder:
    name, registers = request.param
    path = dino_file(tmp_path_factory.mktemp("dino"), registers=registers, **SHAPE)
    return load_vision(name, weights=path, **SHAPE)


def test_facts_of_the_encoder(encoder):
    assert (encoder.stride, encoder.width) == (14, 32)
    assert encoder.preprocess == Preprocess((56, 56), mean=MEAN, std=STD)
    assert (encoder.precision, encoder.activation) == ("float32", None)
    assert len(encoder.fingerprint) == 64
    assert not any(p.requires_grad for p in encoder.parameters())
    assert not encoder.training


def test_the_last_tokens_are_timms_own(encoder):
    images = pixels(2, 56, 56)
    (got,) = encoder(images)
    assert got.shape == (2, 32, 4, 4)
    tokens = encoder.model.forward_features(images)[:, encoder.model.num_prefix_tokens :]
    expected = tokens.transpose(1, 2).unflatten(2, (4, 4))
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)


def test_intermediate_blocks(encoder):
    images = pixels(1, 56, 56)
    first, last = encoder(images, [1, 3])
    assert torch.equal(last, encoder(images)[0])
    expected = encoder.model.forward_intermediates(
        images, indices=[0], norm=True, intermediates_only=True
    )[0]
    torch.testing.assert_close(first, expected, atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match=r"1\.\.3"):
        encoder(images, [4])


def test_an_official_file_by_hand(tmp_path):
    """Register tokens carry no position, and the class token its own."""
    state = dino_state(registers=4, **SHAPE)
    encoder = load_vision(REGISTERS, weights=dino_file(tmp_path, registers=4, **SHAPE), **SHAPE)
    images = pixels(1, 56, 56)
    patches = F.conv2d(images, state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], 14)
    positions = state["pos_embed"]
    tokens = torch.cat(
        [
            state["cls_token"] + positions[:, :1],
            state["register_tokens"],
            patches.flatten(2).transpose(1, 2) + positions[:, 1:],
        ],
        dim=1,
    )
    torch.testing.assert_close(encoder._embedded(images)[0], tokens, atol=1e-5, rtol=0)


@pytest.mark.parametrize("grid", [(4, 6), (3, 3), (7, 5)])
def test_positions_of_other_sizes(encoder, grid):
    stored = encoder.model.pos_embed
    first = 1 if stored.shape[1] == 17 else 0
    square = stored[:, first:].reshape(1, 4, 4, 32).permute(0, 3, 1, 2)
    if first:  # without registers: a tenth of a patch beside the size
        factors = [(side + 0.1) / 4 for side in grid]
        expected = F.interpolate(square, scale_factor=factors, mode="bicubic")
    else:
        expected = F.interpolate(square, size=grid, mode="bicubic", antialias=True)
    got = encoder._positions(grid)[:, first:]
    torch.testing.assert_close(got, expected.flatten(2).transpose(1, 2))
    assert encoder(pixels(2, 14 * grid[0], 14 * grid[1]))[0].shape == (2, 32, *grid)


def test_a_size_that_patches_do_not_divide(encoder):
    with pytest.raises(ValueError, match="multiples of the patch size 14"):
        encoder(pixels(1, 56, 50))


def test_pictures_prepared_for_another_network(encoder):
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
    images = pixels(2, 56, 56)
    shown = images * torch.tensor(std).view(3, 1, 1) + torch.tensor(mean).view(3, 1, 1)
    own = (shown - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    got = encoder.like(images, mean, std, (4, 4))
    torch.testing.assert_close(got, encoder(own)[0], atol=1e-4, rtol=0)
    assert encoder.like(pixels(1, 40, 64), mean, std, (5, 8)).shape == (1, 32, 5, 8)


def test_bfloat16(encoder, tmp_path):
    registers = 4 if encoder.model.reg_token is not None else 0
    path = dino_file(tmp_path, registers=registers, **SHAPE)
    half = load_vision(encoder.name, weights=path, dtype=torch.bfloat16, **SHAPE)
    assert half.precision == "bfloat16"
    images = pixels(1, 56, 56)
    got = half.like(images, MEAN, STD, (4, 4)).float()
    assert F.cosine_similarity(got, encoder(images)[0], dim=1).min() > 0.99


# --- where weights come from -------------------------------------------------------------------


def test_absent_weights_say_where_to_get_them(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *a: None)
    with pytest.raises(WeightsError, match=r"not on this machine.*hf download timm/vit_base_pat"):
        load_vision()


def test_weights_in_torchs_cache_are_found(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *a: None)
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save(dino_state(registers=4, **SHAPE), folder / "dinov2_vitb14_reg4_pretrain.pth")
    assert load_vision(REGISTERS, **SHAPE).width == 32


def test_timms_own_layout_is_read_too(encoder, tmp_path):
    path = tmp_path / "model.safetensors"
    save_file({k: v.clone() for k, v in encoder.model.state_dict().items()}, path)
    again = load_vision(encoder.name, weights=path, **SHAPE)
    images = pixels(1, 56, 56)
    assert torch.equal(again(images)[0], encoder(images)[0])


def test_files_that_do_not_fit(tmp_path):
    path = dino_file(tmp_path, registers=0, **SHAPE)
    with pytest.raises(WeightsError, match=r"does not fit vit_base.*missing reg_token"):
        load_vision(REGISTERS, weights=path, **SHAPE)
    with pytest.raises(WeightsError, match="no such file"):
        load_vision(REGISTERS, weights=tmp_path / "absent.pth", **SHAPE)


def test_networks_that_are_no_plain_vit(tmp_path):
    with pytest.raises(WeightsError, match="timm cannot build it"):
        load_vision("vit_of_my_own")
    with pytest.raises(ValueError, match="not a plain ViT"):
        VisionEncoder(torch.nn.Linear(1, 1), "linear", "0")


@pytest.mark.slow
def test_timm_is_imported_only_when_needed():
    code = "import sys, zerodefect.backbones.vision; sys.exit('timm' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

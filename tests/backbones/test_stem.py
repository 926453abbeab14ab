"""Towers on a frozen convolutional stem: what enters the tokens, and how they are kept."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from zerodefect.backbones.clip import CLIP, CLIPConfig, TextConfig, VisionConfig
from zerodefect.backbones.layered_features import load_features
from zerodefect.backbones.stem import Stem, pretrained_eyes
from zerodefect.images import CLIP_MEAN, CLIP_STD, normalised

CHANNELS, STRIDES = (24, 40, 112, 320), (4, 8, 16, 32)
STEMMED = CLIPConfig(
    embed_dim=16,
    vision=VisionConfig(64, 8, 32, 2, 2, 2.0, "efficientnet_lite0"),
    text=TextConfig(context_length=77, vocab_size=49408, width=16, heads=1, layers=1),
    fine=VisionConfig(32, 8, 48, 1, 1),
)


@pytest.fixture(scope="module")
def clip() -> CLIP:
    torch.manual_seed(0)
    clip = CLIP(STEMMED)
    clip.visual.stem.learn_usual(torch.randn(4, 3, 64, 64))
    return clip.eval()


@torch.no_grad()
def test_the_network_is_the_published_one_with_its_normalisation_folded_in() -> None:
    stem = Stem("efficientnet_lite0", 8)
    stem.eyes.load_state_dict(pretrained_eyes("efficientnet_lite0"))
    features = load_features("efficientnet_lite0")
    pictures = torch.rand(2, 3, 64, 96)
    wanted = features.maps(pictures * 2 - 1, [f"blocks.{stage}" for stage in (1, 2, 4, 6)])
    for ours, theirs in zip(stem.maps(normalised(pictures)), wanted, strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-4, rtol=1e-4)
    assert not any("running" in name for name in stem.state_dict())


@torch.no_grad()
def test_tokens_say_what_a_place_looks_like_and_how_unusual_it_is() -> None:
    """One channel of one stage at a time, by hand."""
    torch.manual_seed(1)
    stem = Stem("efficientnet_lite0", 1)
    maps = [torch.randn(2, c, 64 // s, 64 // s) for c, s in zip(CHANNELS, STRIDES, strict=True)]
    stem.mean1.fill_(0.5)
    stem.deviation1.fill_(2.0)
    for linear in (*stem.project, stem.unusual):
        for parameter in linear.parameters():
            parameter.zero_()
    f = maps[1][:, 3]
    z = (f - f.mean((1, 2), keepdim=True)) / (f.std((1, 2), keepdim=True, correction=0) + 0.1 * 2.0)
    for place, wanted in ((3, (f - 0.5) / 2), (40 + 3, z), (80 + 3, z.abs() - 0.8)):
        stem.project[1].weight[0, place] = 1
        torch.testing.assert_close(stem.tokens(maps)[..., 0], wanted.flatten(1))
        stem.project[1].weight.zero_()
    stem.unusual.weight[0, 1] = 1
    g = maps[1]
    z = (g - g.mean((2, 3), keepdim=True)) / (g.std((2, 3), keepdim=True, correction=0) + 0.2)
    wanted = (z.square().mean(1) + 0.05).log().flatten(1)
    torch.testing.assert_close(stem.tokens(maps)[..., 0], wanted)
    stem.unusual.weight.zero_()
    stem.project[0].weight[0, 0] = 1  # the finest stage is averaged down
    wanted = F.avg_pool2d(maps[0][:, :1], 2).flatten(1)
    torch.testing.assert_close(stem.tokens(maps)[..., 0], wanted)


@torch.no_grad()
@pytest.mark.parametrize("size", [(64, 64), (72, 40), (8, 8), (136, 64)])
def test_any_size_that_patches_divide(clip: CLIP, size: tuple[int, int]) -> None:
    pixels = torch.randn(3, 3, *size)
    tokens = clip.visual.embed(pixels)
    assert tokens.shape == (3, 1 + size[0] * size[1] // 64, 32)
    assert tokens.isfinite().all()
    alone = torch.cat([clip.visual(one[None]) for one in pixels])
    torch.testing.assert_close(clip.visual(pixels), alone, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_a_plain_picture_gives_finite_tokens(clip: CLIP) -> None:
    assert clip.visual(torch.zeros(1, 3, 64, 64)).isfinite().all()


def test_only_what_is_learned_has_gradients(clip: CLIP) -> None:
    clip.visual(torch.randn(1, 3, 64, 64)).sum().backward()
    stem = clip.visual.stem
    assert all(p.grad is None for p in stem.eyes.parameters())
    assert all(linear.weight.grad is not None for linear in stem.project)
    clip.zero_grad()


def test_configuration_and_weights_go_around(clip: CLIP) -> None:
    assert CLIPConfig.from_open_clip(STEMMED.to_open_clip()) == STEMMED
    again = CLIP(STEMMED)
    again.load_openai_state(clip.openai_state())
    pixels = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(again.eval().visual(pixels), clip.visual(pixels))
        assert again.fine is not None and clip.fine is not None
        assert torch.equal(again.fine(pixels), clip.fine(pixels))


def test_a_tower_without_a_stem_says_nothing_of_one() -> None:
    plain = replace(STEMMED, vision=VisionConfig(32, 8, 64, 1, 1), fine=None)
    written = plain.to_open_clip()
    assert "stem" not in written["vision_cfg"] and "fine_cfg" not in written
    assert not any("stem" in name or "fine" in name for name in CLIP(plain).openai_state())


def test_an_unknown_stem_is_named() -> None:
    with pytest.raises(ValueError, match="no stem 'resnet'; known are efficientnet_lite0"):
        Stem("resnet", 8)


def test_pixels_are_those_of_clip() -> None:
    """Black and white in CLIP's normalisation reach the network as -1 and 1."""
    stem = Stem("efficientnet_lite0", 8)
    seen = []
    stem.eyes.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    black = normalised(torch.zeros(1, 3, 32, 32), CLIP_MEAN, CLIP_STD)
    white = normalised(torch.ones(1, 3, 32, 32), CLIP_MEAN, CLIP_STD)
    stem.maps(torch.cat([black, white]))
    torch.testing.assert_close(seen[0][0], torch.full((3, 32, 32), -1.0))
    torch.testing.assert_close(seen[0][1], torch.full((3, 32, 32), 1.0))

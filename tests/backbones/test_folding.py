"""What convolutions take over gives what the parts beside them gave."""

from __future__ import annotations

from copy import deepcopy

import pytest
import timm
import torch
from small_networks import SMALL_RESNET, small_resnet
from timm.layers import Conv2dSame
from torch import nn

from zerodefect.backbones.efficientnet import lite_network
from zerodefect.backbones.folding import StridedSame, fold
from zerodefect.backbones.layered_features import load_features


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


@torch.no_grad()
def test_a_folded_network_is_the_same_one():
    network = lite_network()[0].double()
    folded = deepcopy(network)
    fold(folded)
    x = torch.randn(1, 3, 70, 96, dtype=torch.float64)
    torch.testing.assert_close(folded(x), network(x), rtol=1e-9, atol=1e-9)
    kinds = [type(module).__name__ for module in folded.modules()]
    assert not any("BatchNorm" in kind or kind == "Conv2dSame" for kind in kinds)
    assert any("running" in name for name in network.state_dict())  # as it was


@torch.no_grad()
def test_normalisation_behind_mixed_kernels_stays():
    torch.manual_seed(0)
    network = timm.create_model("mixnet_s", num_classes=3).eval().double()
    for name, values in network.named_buffers():
        if name.endswith(("running_mean", "running_var")):
            values.uniform_(0.5, 1.5)
    folded = deepcopy(network)
    fold(folded)
    x = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    torch.testing.assert_close(folded(x), network(x), rtol=1e-9, atol=1e-9)
    kept = [module for module in folded.modules() if isinstance(module, nn.BatchNorm2d)]
    all_of = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    assert 0 < len(kept) < len(all_of)


@torch.no_grad()
def test_folded_features_keep_names_and_values():
    features = load_features()
    folded = features.folded()
    x = torch.randn(1, 3, 64, 96)
    for name, ours, theirs in zip(
        features.layers,
        folded.maps(x, list(folded.layers)),
        features.maps(x, list(features.layers)),
        strict=True,
    ):
        off = (ours - theirs).abs().max() / theirs.abs().max()
        assert off < 1e-5, name
    assert (folded.name, folded.fingerprint) == (features.name, features.fingerprint)
    assert not any(parameter.requires_grad for parameter in folded.parameters())


def test_what_cannot_be_folded_without_loss_stays(tmp_path):
    half = load_features(dtype=torch.bfloat16)
    assert half.folded() is half
    residual = load_features("resnet18", weights=small_resnet(tmp_path, seed=1), **SMALL_RESNET)
    assert residual.folded() is residual

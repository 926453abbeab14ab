"""IAD-CLIP, our completion: its formulas by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from small_detectors import images, small_clip, taught, training_batch
from torch import nn

from zerodefect.detector.clip_detector import Features
from zerodefect.layers.grid import Grid
from zerodefect.layers.similarity import cosine
from zerodefect.methods.iad_clip import IADCLIP


def build(backbone=None, **options) -> IADCLIP:
    return IADCLIP.build(backbone or small_clip(), **options).eval()


def test_widths_of_the_papers_tower_are_in_proportion():
    shapes = {name: tuple(value.shape) for name, value in build().learned.items()}
    W, D = small_clip().clip.config.vision.width, small_clip().clip.config.embed_dim
    assert shapes["visual_adapters.0.0.weight"] == (W // 4, W)
    assert shapes["visual_adapters.2.2.weight"] == (D, W // 4)
    assert shapes["text_adapter.0.weight"] == shapes["class_adapter.0.weight"] == (D // 4, D)
    assert len(shapes) == 2 * (3 + 2)  # no biases


def test_a_residual_adapter_by_hand():
    detector = build(adapted=0.1)
    got = detector.mixed(torch.tensor([[6.0, 8.0]]), torch.tensor([[1.0, 0.0]]))
    x, y = 0.9 * 0.6 + 0.1, 0.9 * 0.8
    length = math.hypot(x, y)
    torch.testing.assert_close(got, torch.tensor([[x / length, y / length]]))


def test_score_and_map_by_hand():
    detector = build(taps=(1, 3), temperature=1.0, sigma=0.0, top=0.001)
    detector.visual_adapters = nn.ModuleList([nn.Identity(), nn.Identity()])
    detector.text_adapter = detector.class_adapter = nn.Identity()
    features = Features(
        grid=Grid(1, 2, (1, 2)),
        image=torch.tensor([[0.0, 3.0]]),
        patches=(
            torch.tensor([[[2.0, 0.0], [0.0, 2.0]]]),
            torch.tensor([[[3.0, 4.0], [0.0, 1.0]]]),
        ),
    )
    got = detector.judge(features, {"texts": torch.tensor([[5.0, 0.0], [0.0, 7.0]])})

    def share(cos_normal: float, cos_anomalous: float) -> float:
        return 1 / (1 + math.exp(cos_normal - cos_anomalous))

    first, second = (share(1, 0) + share(0.6, 0.8)) / 2, share(0, 1)
    assert got.map.flatten().tolist() == pytest.approx([first, second])
    assert got.score.item() == pytest.approx((share(0, 1) + second) / 2)


def test_losses_of_undecided_patches_by_hand():
    """Adapters that give nothing leave every patch at one half."""
    detector = build()
    for value in detector.learned.values():
        nn.init.zeros_(value)
    batch = training_batch(detector, [0, 1])
    terms = detector.training_loss(batch)
    n, K = batch.masks[0].numel(), len(detector.taps)
    areas = [float(mask.sum()) for mask in batch.masks]
    pt = 0.5 + 1e-5
    assert terms["focal"].item() == pytest.approx(-K * (1 - pt) ** 2 * math.log(pt), rel=1e-4)
    for name, inside in {"dice_abnormal": areas, "dice_normal": [n - a for a in areas]}.items():
        dice = [1 - (a + 1) / (0.5 * n + a + 1) for a in inside]
        assert terms[name].item() == pytest.approx(K * sum(dice) / 2, rel=1e-4)


def test_patches_that_match_texts_keep_most_of_what_they_are():
    """Adapters that give nothing then leave CLIP's own patches of the last block."""
    detector = build(replace(small_clip(), patches_match_texts=True))
    assert (detector.config.residual, detector.taps) == (True, (3,))
    assert (build().config.residual, build().taps) == (False, (1, 2, 3))
    for value in detector.learned.values():
        nn.init.zeros_(value)
    encoded, knowledge = detector.encode(images(1)), taught(detector)
    tokens = detector.clip.visual.project(encoded.patches[0])
    expected = cosine(tokens, knowledge["texts"]) / detector.config.temperature
    unit = nn.functional.normalize(knowledge["texts"], dim=-1)
    torch.testing.assert_close(detector.patch_logits(encoded, unit)[:, 0], expected)


def test_texts_are_adapted_when_they_are_read():
    detector = build()
    knowledge, seen = taught(detector), images(1)
    before = detector(seen, knowledge)
    with torch.no_grad():
        detector.text_adapter[2].weight.mul_(30)
    assert not torch.equal(detector(seen, knowledge).map, before.map)

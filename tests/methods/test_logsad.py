"""LogSAD on any CLIP and features: words, instances, and what it says without references."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from arranged_pictures import BLUE, RED, good, pair
from small_detectors import small_clip, small_cnn, small_segmenter

from zerodefect.backbones.clip_weights import load_clip
from zerodefect.backbones.every_segment import every_segment
from zerodefect.backbones.layered_features import load_features
from zerodefect.detector.knowledge import Product
from zerodefect.methods.logsad import UNCHECKED, LogSAD, LogSADConfig, near_keys


def small(segmenter=None, **options) -> LogSAD:
    return LogSAD(small_clip(), small_cnn(), segmenter, LogSADConfig(**options)).eval()


def given(images: torch.Tensor, detector: LogSAD):
    return {
        name: F.interpolate(images, needed.preprocess.size)
        for name, needed in detector.inputs.items()
    }


def test_without_references_it_says_that_logic_was_not_checked():
    detector = small()
    known = detector.describe(detector.empty(), Product("screw"))
    got = detector(given(torch.randn(2, 3, 64, 64), detector), known)
    assert got.answer == (UNCHECKED, UNCHECKED) and "was not checked" in UNCHECKED
    assert got.map.min() >= 0 and got.map.max() <= 1


def test_components_are_named_by_the_products_parts_or_by_options():
    detector = small()
    told = detector.words(Product("bag", counts=(("nut", 2), ("washer", 1))))
    assert told["queries"].shape[0] == 3  # the background besides
    torch.testing.assert_close(told["queries"].norm(dim=1), torch.ones(3))
    assert len(detector.words(Product("bag"))["queries"]) == 0
    own = small(components=("nut",)).words(Product("bag", counts=(("screw", 1),)))
    torch.testing.assert_close(own["queries"][0], told["queries"][0])


def test_attention_of_keys_prefers_what_is_near():
    rule = near_keys((3, 4))
    k = torch.zeros(1, 1, 13, 2)
    v = torch.eye(13)[None, None]
    weights = rule(k, k, v, k)[0, 0]  # (13, 13): rows of the attention itself
    torch.testing.assert_close(weights[0], torch.full((13,), 1 / 13))  # the class token: flat
    row = weights[1, 1:].view(3, 4)
    assert row[0, 0] == row.max() and row[2, 3] == row.min()
    expected = torch.exp(torch.exp(torch.tensor(-1 / 50)) - 1)
    torch.testing.assert_close(row[0, 1] / row[0, 0], expected)


def test_a_segmenter_finds_everything_once():
    segmenter = small_segmenter()
    pixels = torch.zeros(1, 3, 64, 64)
    pixels[..., :32] = 3.0
    segments = every_segment(segmenter, segmenter.embed(pixels), 0, (32, 32))
    assert segments.shape[1:] == (32, 32) and 1 <= len(segments) <= 4
    halves = [segments[:, :, 4:12].float().mean((1, 2)), segments[:, :, 20:28].float().mean((1, 2))]
    assert any(a > 0.9 and b < 0.1 for a, b in zip(*halves, strict=True))
    assert any(b > 0.9 and a < 0.1 for a, b in zip(*halves, strict=True))


def test_segments_decide_the_border_of_components():
    plain, sharp = small(), small(small_segmenter())
    assert "segmenter" not in plain.inputs and "segmenter" in sharp.inputs
    images = given(torch.randn(2, 3, 64, 64), sharp)
    with torch.no_grad():
        seen = sharp.encode(images)
        assert int(plain.encode(images).segments.max()) == 0
    assert seen.segments.shape == (2, 64, 64) and int(seen.segments.max()) > 0


@pytest.mark.slow
def test_on_the_embedded_model_a_missing_part_is_told():
    detector = LogSAD(load_clip(), load_features(), None, LogSADConfig(clusters=4)).eval()
    known = detector.describe(detector.empty(), Product("pair of squares"))
    with torch.no_grad():
        seen = detector.encode(given(good(8), detector))
        known = detector.settle(detector.remember(known, [seen]))
    grey = torch.full((3,), 0.5)
    fine = torch.stack([pair(RED, RED, 62), pair(BLUE, BLUE, 63)])
    bad = torch.stack([pair(RED, grey, 60), pair(grey, BLUE, 61)])
    said = detector(given(torch.cat([fine, bad]), detector), known)
    assert said.answer is None
    assert said.score[2:].min() > said.score[:2].max()

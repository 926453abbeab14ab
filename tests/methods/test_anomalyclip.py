"""AnomalyCLIP on small backbones."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch
from learned import LearnedMethod, frozen, images
from models import tiny_backbone

from zerodefect.methods.anomalyclip import AnomalyCLIP, AnomalyCLIPConfig


class TestAnomalyCLIP(LearnedMethod):
    method = AnomalyCLIP
    options: ClassVar = {"context_length": 6}


class TestFourTaps(LearnedMethod):
    method = AnomalyCLIP
    options: ClassVar = {"taps": (1, 2, 3), "stream_start": 2}


class TestClipsOwnPatches(LearnedMethod):
    method = AnomalyCLIP
    options: ClassVar = {"attention": "plain", "taps": (2, 3)}


def test_plain_reads_the_patches_that_clip_itself_has():
    backbone = frozen()
    visual, seen = backbone.clip.visual, images(2)
    got = AnomalyCLIP.build(backbone, attention="plain").encode(seen)
    tokens = visual.encode(visual.embed(seen, resize="bilinear")).tokens
    torch.testing.assert_close(got.patches[0], visual.project(tokens[:, 1:]))
    torch.testing.assert_close(got.image, visual.project(tokens[:, 0], norm=False))
    other = AnomalyCLIP.build(backbone).encode(seen)
    torch.testing.assert_close(got.image, other.image, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(got.patches[0], other.patches[0], atol=0.01)


def test_the_papers_proportions_hold_in_any_tower():
    paper = AnomalyCLIP(tiny_backbone(vision_layers=24, text_layers=12))
    assert paper.taps == (24,)
    assert paper.stream.start == 6
    assert len(paper.prompts.compound_prompts_text) == 8
    small = AnomalyCLIP(tiny_backbone(vision_layers=6, text_layers=4))
    assert (small.taps, small.stream.start) == ((6,), 2)
    assert len(small.prompts.compound_prompts_text) == 2


def test_only_the_sentences_are_learned():
    names = AnomalyCLIP(frozen()).learned.keys()
    assert names == {"prompts.ctx_pos", "prompts.ctx_neg", "prompts.compound_prompts_text.0"}


def test_several_taps_are_summed():
    backbone = frozen()
    each = [AnomalyCLIP(backbone, AnomalyCLIPConfig(taps=(tap,))) for tap in (1, 2, 3)]
    together = AnomalyCLIP(backbone, AnomalyCLIPConfig(taps=(1, 2, 3)))
    maps = [detector(images(2)).map for detector in each]
    torch.testing.assert_close(together(images(2)).map, sum(maps), atol=1e-5, rtol=0)
    assert together.map_range == (0.0, 3.0)
    assert not torch.allclose(maps[0], maps[2], atol=1e-4)


def test_texts_are_computed_once(monkeypatch):
    detector, calls = AnomalyCLIP(tiny_backbone()), []
    encode = detector.clip.text.encode
    monkeypatch.setattr(
        detector.clip.text, "encode", lambda *a, **k: calls.append(1) or encode(*a, **k)
    )
    for _ in range(3):
        detector(images(2))
    assert len(calls) == 1


def test_a_sharp_temperature_keeps_the_map_in_its_range():
    detector = AnomalyCLIP(frozen(), AnomalyCLIPConfig(temperature=1e-4))
    got = detector(images(4))
    assert got.map.min() >= 0 and got.map.max() <= 1


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        ({"temperature": 0.0}, "temperature must be positive"),
        ({"depth": 0}, "depth 0"),
        ({"taps": ()}, "taps"),
        ({"sigma": -1.0}, "sigma must be a finite number"),
        ({"taps": (4,)}, r"1\.\.3"),
        ({"attention": "value"}, "attention is one of vv, .*not 'value'"),
        ({"stream_start": 0}, r"blocks 1\.\.3"),
        ({"depth": 3}, r"1\.\.2 blocks"),
        ({"context_length": 80}, "reads 77"),
    ],
)
def test_impossible_options(option, reason):
    with pytest.raises(ValueError, match=reason):
        AnomalyCLIP.build(frozen(), **option)

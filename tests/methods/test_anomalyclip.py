"""What is AnomalyCLIP's own; its numbers are held by tests/parity/test_anomalyclip.py."""

from __future__ import annotations

import pytest
import torch
from small_detectors import images, small_clip

from zerodefect.methods.anomalyclip import AnomalyCLIP


def build(backbone=None, **options) -> AnomalyCLIP:
    return AnomalyCLIP.build(backbone or small_clip(), **options).eval()


def test_the_papers_proportions_hold_in_any_tower():
    paper = build(small_clip(vision_layers=24, text_layers=12))
    assert paper.taps == (24,)
    assert paper.stream.start == 6
    assert len(paper.prompts.compound_prompts_text) == 8
    small = build(small_clip(vision_layers=6, text_layers=4))
    assert (small.taps, small.stream.start) == ((6,), 2)
    assert len(small.prompts.compound_prompts_text) == 2


def test_only_the_sentences_are_learned():
    names = build().learned.keys()
    assert names == {"prompts.ctx_pos", "prompts.ctx_neg", "prompts.compound_prompts_text.0"}


def test_several_taps_are_summed():
    each = [build(taps=(tap,)) for tap in (1, 2, 3)]
    together = build(taps=(1, 2, 3))
    maps = [detector(images(2)).map for detector in each]
    torch.testing.assert_close(together(images(2)).map, sum(maps), atol=1e-5, rtol=0)
    assert together.map_range(together.empty()) == (0.0, 3.0)
    assert not torch.allclose(maps[0], maps[2], atol=1e-4)


def test_a_sharp_temperature_keeps_the_map_in_its_range():
    got = build(temperature=1e-4)(images(4))
    assert got.map.min() >= 0 and got.map.max() <= 1


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        ({"temperature": 0.0}, "option temperature=.* greater than 0"),
        ({"depth": 0}, "option depth=0: "),
        ({"taps": ()}, "option taps=.* at least 1 item"),
        ({"sigma": -1.0}, "option sigma=.* greater than or equal to 0"),
        ({"taps": (4,)}, r"1\.\.3"),
        ({"attention": "value"}, "option attention='value': .*'vv', .*'plain'"),
        ({"stream_start": 0}, "option stream_start=0: "),
        ({"stream_start": 4}, r"blocks 1\.\.3"),
        ({"depth": 3}, r"1\.\.2 blocks"),
        ({"context_length": 80}, "reads 77"),
    ],
)
def test_impossible_options(option, reason):
    with pytest.raises(ValueError, match=reason):
        build(**option)

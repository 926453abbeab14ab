"""What is WinCLIP's own; its numbers are held by tests/parity/test_winclip.py."""

from __future__ import annotations

import pytest
import torch
from small_detectors import images, remembered, small_clip, taught

from zerodefect.methods.winclip import WinCLIP, WinCLIPConfig
from zerodefect.types import Prediction


@pytest.fixture(scope="module")
def winclip() -> WinCLIP:
    return WinCLIP(small_clip())


def judged(pictures: torch.Tensor, **options) -> Prediction:
    detector = WinCLIP(small_clip(), WinCLIPConfig(**options))
    return detector(pictures, taught(detector))


def test_image_score_choices():
    batch = images(2)
    text, grid, both = (judged(batch, image_score=choice) for choice in ("text", "map", "mean"))
    torch.testing.assert_close(both.score, (text.score + grid.score) / 2)
    torch.testing.assert_close(grid.score, grid.map.amax((1, 2)))


def test_a_remembered_picture_has_half_the_map_of_its_words(winclip):
    batch, told = images(2), taught(winclip)
    zero_shot = winclip(batch, told)
    few_shot = winclip(batch, remembered(winclip, told, batch))
    torch.testing.assert_close(few_shot.map, zero_shot.map / 2, atol=1e-4, rtol=0)


def test_window_chunks_do_not_change_the_numbers(winclip, monkeypatch):
    batch, told = images(3), taught(winclip)
    whole = winclip(batch, told).map
    monkeypatch.setattr("zerodefect.layers.windows._TOKENS_CPU", 64)
    torch.testing.assert_close(winclip(batch, told).map, whole, atol=1e-6, rtol=0)


def test_the_neutral_point_exists_only_without_references(winclip):
    told = taught(winclip)
    assert winclip.neutral_score(told) == 0.5
    assert winclip.neutral_score(remembered(winclip, told, images(1))) is None


def test_a_picture_smaller_than_a_window_is_an_error(winclip):
    with pytest.raises(ValueError, match="no 2x2 window fits a grid of 1x1"):
        winclip(images(1, 8, 8), taught(winclip))


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        ({"temperature": 0.0}, "option temperature=.* greater than 0"),
        ({"scales": ()}, "option scales=.* at least 1 item"),
        ({"scales": (0,)}, "option scales=.* greater than or equal to 1"),
        ({"image_score": "best"}, "option image_score='best': "),
    ],
)
def test_impossible_options(option, reason):
    with pytest.raises(ValueError, match=reason):
        WinCLIP.build(small_clip(), **option)
    with pytest.raises(ValueError, match=next(iter(option))):
        WinCLIPConfig(**option)

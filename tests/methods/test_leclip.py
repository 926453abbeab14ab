"""What is LECLIP's own; its numbers are held by tests/parity/test_leclip.py."""

from __future__ import annotations

import pytest
import torch
from official_samples import official_file
from small_detectors import alter, images, small_clip

from zerodefect.layers.grid import Grid
from zerodefect.layers.similarity import upsample
from zerodefect.methods.anomalyclip import AnomalyCLIP
from zerodefect.methods.leclip import LECLIP


def build(backbone=None, **options) -> LECLIP:
    return LECLIP.build(backbone or small_clip(), **options).eval()


def starts(detector: LECLIP, rows: int, columns: int) -> list[tuple[int, int, int, int]]:
    """First row and column, height and width of the windows."""
    places = detector.windows(Grid(rows, columns, (rows, columns)))
    return [(r.start, c.start, r.stop - r.start, c.stop - c.start) for r, c in places]


def test_windows_are_the_papers_at_its_grid_and_of_the_same_share_at_others():
    detector = build()
    assert starts(detector, 37, 37) == [(y, x, 27, 27) for y in (0, 10) for x in (0, 10)]
    assert starts(detector, 16, 16) == [(y, x, 12, 12) for y in (0, 4) for x in (0, 4)]
    assert starts(detector, 5, 11) == [(y, x, 4, 8) for y in (0, 1) for x in (0, 3)]
    assert starts(detector, 1, 1) == [(0, 0, 1, 1)]
    small = build(window=17, stride=10)
    assert starts(small, 37, 37) == [(y, x, 17, 17) for y in (0, 10, 20) for x in (0, 10, 20)]
    assert starts(build(window=3, stride=9), 4, 4) == [(y, x, 3, 3) for y in (0, 1) for x in (0, 1)]


def test_a_window_is_encoded_like_a_picture_of_its_own():
    detector, seen = build(window=5, stride=3), images(3)
    got = detector.encode(seen).windows  # rows and columns 0 and 3 of 8
    crop = upsample(seen[:, :, 24:64, 0:40], (64, 64), align_corners=True)
    torch.testing.assert_close(got[:, 2], detector.encode(crop).patches[0])


def test_window_chunks_do_not_change_the_numbers(monkeypatch):
    detector, seen = build(), images(3)
    one_by_one = detector(seen)
    monkeypatch.setattr("zerodefect.layers.windows._TOKENS_CPU", 10_000)
    together = detector(seen)
    torch.testing.assert_close(together.map, one_by_one.map, atol=1e-5, rtol=0)
    torch.testing.assert_close(together.score, one_by_one.score, atol=1e-5, rtol=0)


def test_a_window_over_everything_adds_the_peak_alone():
    """The window is then the picture itself, and its map the whole one's."""
    seen = images(2)
    aligned, whole = build(window=8)(seen), build(alignment=False)(seen)
    torch.testing.assert_close(aligned.map, whole.map, atol=1e-5, rtol=0)
    mean = (whole.score + whole.map.amax((1, 2))) / 2
    torch.testing.assert_close(aligned.score, mean, atol=1e-5, rtol=0)


def test_an_anomalyclip_file_is_read_with_another_attention():
    written = AnomalyCLIP.build(small_clip())
    alter(written)
    reader = build()
    state = reader.official_state(official_file(written))
    assert torch.equal(state["prompts.ctx_neg"], written.learned["prompts.ctx_neg"])
    assert (reader.stream.rule, written.stream.rule) == ("echo", "vv")


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        ({"taps": (2, 3)}, "LECLIP reads one block"),
        ({"taps": (9,)}, "1..3"),
        ({"window": 0}, "option window=0: "),
        ({"map_weight": 1.5}, "option map_weight=1.5: "),
    ],
)
def test_impossible_options(option, reason):
    with pytest.raises(ValueError, match=reason):
        build(**option)

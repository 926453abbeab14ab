"""MGFD-CLIP, our completion: its formulas by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from small_detectors import images, small_clip

from zerodefect.detector.learned_sentences import Features
from zerodefect.layers.grid import Grid
from zerodefect.methods.mgfd_clip import MGFDCLIP


def build(backbone=None, **options) -> MGFDCLIP:
    return MGFDCLIP.build(backbone or small_clip(), **options).eval()


def by_hand() -> Features:
    return Features(
        grid=Grid(1, 2, (1, 2)),
        image=torch.tensor([[2.0, 0.0, 0.0]]),
        patches=(torch.tensor([[[3.0, 0.0, 4.0], [1.0, 2.0, 2.0]]]),),
    )


def test_what_is_learned():
    assert {name: tuple(value.shape[:3]) for name, value in build().learned.items()} == {
        f"prompts.ctx_{pair}_{state}": (1, 1, 12)
        for pair in ("global", "local")
        for state in ("pos", "neg")
    }


def test_decoupling_by_hand():
    (z,) = build(decoupled=1.0).local_parts(by_hand())
    half = 0.5**0.5
    torch.testing.assert_close(z, torch.tensor([[[0.0, 0.0, 1.0], [0.0, half, half]]]))
    (z,) = build(decoupled=0.5).local_parts(by_hand())
    first, second = torch.tensor([1.5, 0.0, 4.0]), torch.tensor([0.5, 2.0, 2.0])
    torch.testing.assert_close(z[0], torch.stack([first / first.norm(), second / second.norm()]))
    # c is (1, 0, 0); the patches are (3, 0, 4) / 5 and (1, 2, 2) / 3
    mean = [(9 / 25 + 1 / 9) / 2, (2 / 9) / 2, (12 / 25 + 2 / 9) / 2]
    expected = torch.tensor([[1 - mean[0], -mean[1], -mean[2]]])
    torch.testing.assert_close(build().global_part(by_hand()), expected)


def test_score_and_map_by_hand():
    detector = build(temperature=1.0, sigma=0.0, top=0.5, decoupled=1.0)
    G, L = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], [[0.0, 0.0, 2.0], [0.0, 5.0, 0.0]]
    detector.prompts.texts = torch.tensor([*G, *L])
    got = detector.predict(by_hand(), detector.empty())
    assert got.map.flatten().tolist() == pytest.approx([1 / (1 + math.e), 0.5])
    g = torch.tensor([1 - (9 / 25 + 1 / 9) / 2, -1 / 9, -(12 / 25 + 2 / 9) / 2])
    normal, damaged, _ = (g / g.norm()).tolist()  # its cosines with G
    whole = 1 / (1 + math.exp(normal - damaged))
    assert got.score.item() == pytest.approx((whole + 0.5) / 2)


def test_what_a_patch_shares_with_the_whole_does_not_count():
    detector = build(decoupled=1.0)
    encoded = detector.encode(images(2))
    shared = [F + 3 * encoded.image[:, None] for F in encoded.patches]
    moved = detector.predict(replace(encoded, patches=tuple(shared)), detector.empty())
    torch.testing.assert_close(
        moved.map, detector.predict(encoded, detector.empty()).map, atol=1e-4, rtol=0
    )


def test_without_a_second_stream_the_last_block_alone_is_read():
    assert build().taps == (1, 2, 3)
    assert build(attention="plain").taps == (3,)
    assert build(attention="plain", taps=(1, 2)).taps == (1, 2)


def test_the_global_pair_leaves_the_map_alone():
    detector = build()
    before = detector(images(1))
    with torch.no_grad():
        detector.learned["prompts.ctx_global_neg"].add_(1)
    detector.after_learning()
    after = detector(images(1))
    assert torch.equal(after.map, before.map)
    assert not torch.equal(after.score, before.score)

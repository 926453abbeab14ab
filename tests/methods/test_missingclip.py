"""MissingClip's completion: what is its own."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from small_detectors import small_clip, taught, training_batch

from zerodefect.images import ImageError, Picture
from zerodefect.images.clouds import open_cloud
from zerodefect.images.point_input import relief
from zerodefect.layers.grid import Grid
from zerodefect.methods.missingclip import (
    COLOURS,
    POINTS,
    DualAttention,
    MissingClip,
    MissingClipConfig,
    sine_places,
)
from zerodefect.scoring.scorer import Scorer


def made(**config) -> MissingClip:
    return MissingClip(small_clip(), MissingClipConfig(**config)).eval()


def part(seed: int = 0) -> Picture:
    draws = np.random.default_rng(seed)
    y, x = np.mgrid[:64, :64].astype(np.float32)
    cloud = np.stack([x, y, 300 + 3 * np.sin(x / 6 + seed)], -1)
    pixels = draws.integers(0, 256, (64, 64, 3), np.uint8)
    return Picture(f"part {seed}", pixels, cloud=open_cloud(cloud))


def test_either_may_be_absent_with_the_same_interface():
    detector = made()
    scorer, knowledge = Scorer(detector), taught(detector)
    whole = part()
    plain, bare = replace(whole, cloud=None), replace(whole, colourless=True)
    found = scorer.score([whole, plain, bare], None, knowledge)
    for picture, one in zip((whole, plain, bare), found, strict=True):
        assert 0 <= one.score <= 1 and one.map.shape == (64, 64)
        (alone,) = scorer.score([picture], None, knowledge)
        assert alone.score == pytest.approx(one.score, abs=1e-5)
    assert len({round(one.score, 6) for one in found}) == 3
    with pytest.raises(ImageError, match="needs its colours, points"):
        scorer.score([replace(bare, cloud=None)], None, knowledge)


def test_what_is_absent_is_reconstructed_and_weighs_half():
    detector = made(residual=True)
    knowledge = taught(detector)
    texts = knowledge["texts"]
    shown = {COLOURS: torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))}
    seen = detector.encode(shown)
    F_a = detector.projected(COLOURS, 0, seen.patches[COLOURS][0])
    F_m = detector.restored(POINTS, F_a, seen, texts)
    torch.testing.assert_close(F_m.norm(dim=-1), torch.ones_like(F_m[..., 0]))
    p = detector.patch_logits(F_a + 0.5 * F_m, texts).softmax(-1)[..., 1]
    single = made(residual=True, sigma=0.0)
    expected = seen.grid.map(p, align_corners=True)
    torch.testing.assert_close(single.judge(seen, knowledge).map, expected)
    nothing = made(residual=True, sigma=0.0, reconstructed=0.0)
    alone = seen.grid.map(detector.patch_logits(F_a, texts).softmax(-1)[..., 1], align_corners=True)
    torch.testing.assert_close(nothing.judge(seen, knowledge).map, alone)


def test_dual_attention_by_hand():
    """Two patches in two dimensions; keys and queries of zero, so that attention is a mean."""
    attention = DualAttention(2, 1, torch.Generator().manual_seed(0))
    with torch.no_grad():
        for name, layer in attention.maps.items():
            layer.weight.copy_(torch.eye(2) if name.endswith("value") else torch.zeros(2, 2))
        attention.prompts.copy_(torch.tensor([[4.0, 0.0]]))
    F_a = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    texts = torch.tensor([[0.0, 4.0], [0.0, 0.0]])
    c_a = torch.tensor([[0.0, 4.0]])
    got = attention(F_a, c_a, texts, Grid(1, 2, (8, 16)))
    Y, Z = torch.tensor([1.0, 2.0]), torch.tensor([0.5, 0.5])  # of (4,0) (0,4) (0,4) (0,0); of F_a
    sums = F_a[0] + Y + Z  # (2.5, 2.5) and (1.5, 3.5)
    torch.testing.assert_close(got[0, 0], torch.zeros(2), atol=1e-3, rtol=0)
    torch.testing.assert_close(got[0, 1], torch.tensor([-1.0, 1.0]), atol=1e-3, rtol=0)
    assert sums[1].tolist() == [1.5, 3.5]


def test_places_tell_rows_from_columns():
    places = sine_places(Grid(2, 3, (16, 24)), 8)
    assert places.shape == (6, 8)
    assert len({tuple(row) for row in places.tolist()}) == 6
    torch.testing.assert_close(places[0], torch.tensor([0.0, 0, 1, 1, 0, 0, 1, 1]))


def test_damage_is_drawn_in_both_and_the_loss_learns_to_reconstruct():
    detector = made(damaged=1.0)
    batch = training_batch(detector, [0, 0])
    from zerodefect.procedural.on_pictures import drawn_from

    draws = drawn_from(batch.generator, 2, torch.device("cpu"))
    inputs, masks = detector.damaged(batch.images, draws)
    for row in range(2):
        assert masks[row].any()
        for name in (COLOURS, POINTS):
            assert not torch.equal(inputs[name][row], batch.images[name][row])
    optimiser = torch.optim.Adam(detector.learned.values(), lr=0.01)
    apart = []
    for _ in range(8):
        optimiser.zero_grad()
        terms = detector.training_loss(training_batch(detector, [0, 0]))
        torch.stack(list(terms.values())).sum().backward()
        optimiser.step()
        apart.append(terms["missing"].item())
    assert apart[-1] < 0.9 * apart[0]


def test_relief_is_depth_and_slope_on_the_part():
    x = torch.arange(6.0).expand(4, 6)
    y = torch.arange(4.0)[:, None].expand(4, 6)
    ramp = torch.stack([x, y, 100 + 2 * x])
    ramp[:, 2, 3] = torch.nan
    (seen,) = relief(ramp[None])
    assert seen.isfinite().all() and seen.min() >= 0 and seen.max() <= 1
    torch.testing.assert_close(seen[0, 0], torch.linspace(0, 1, 6))
    assert seen[0, 2, 3] in seen[0, 0, 2:5]  # of a neighbour
    assert not relief(torch.full((1, 3, 4, 4), torch.nan)).any()
    moved = relief(25.4 * ramp[None] + 3)
    torch.testing.assert_close(moved[0, 0], seen[0], atol=1e-4, rtol=0)

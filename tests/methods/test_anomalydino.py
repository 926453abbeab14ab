"""What is AnomalyDINO's own: foregrounds, rotations, the nearest of a batch."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from small_detectors import inputs, remembered, small_dino

from zerodefect.layers.grid import Grid
from zerodefect.layers.turning import rotated
from zerodefect.methods import create
from zerodefect.methods.anomalydino import (
    AnomalyDINOBatch,
    AnomalyDINOBatchConfig,
    Tokens,
    first_component,
    rounded,
    top_mean,
)


def made(name: str = "anomalydino", **options):
    return create(name, small_dino(), **options)


def product(sign: float, height: int, width: int) -> torch.Tensor:
    """Tokens of a product in the middle of a plain background."""
    f = torch.zeros(height, width, 8)
    f[height // 4 : height - height // 4, width // 4 : width - width // 4, 0] = 30 * sign
    noise = torch.randn(f.shape, generator=torch.Generator().manual_seed(0))
    return (f + noise).flatten(0, 1)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_foreground_is_the_middle_whatever_the_sign(sign):
    mask = made(masking="grid").foreground(product(sign, 12, 16), (12, 16)).view(12, 16)
    expected = torch.zeros(12, 16, dtype=torch.bool)
    expected[2:10, 3:13] = True  # the product, and one patch around it
    assert torch.equal(mask, expected)
    flat = made(masking="flat").foreground(product(sign, 12, 16), (12, 16)).view(12, 16)
    expected[2], expected[9] = False, False  # no row above and below
    assert torch.equal(flat, expected)


def test_without_a_foreground_everything_is_one():
    f = 0.01 * product(1.0, 12, 16)
    assert made(masking="grid").foreground(f, (12, 16)).all()
    assert made().foreground(product(1.0, 12, 16), (12, 16)).all()


def test_the_first_component_is_that_of_an_svd():
    f = torch.randn(50, 7, generator=torch.Generator().manual_seed(0)).double()
    centred = f - f.mean(0)
    axis = torch.linalg.svd(centred).Vh[0]
    expected = centred @ axis * axis[axis.abs().argmax()].sign()
    torch.testing.assert_close(first_component(f), expected)


def test_closing_fills_gaps_and_outside_does_not_count():
    mask = torch.zeros(7, 9, dtype=torch.bool)
    mask[0, 0] = mask[0, 4] = True
    expected = torch.zeros(7, 9, dtype=torch.bool)
    expected[:2, :6] = True  # each grown by one, and the gap between them closed
    assert torch.equal(rounded(mask), expected)


def test_rotations_about_the_middle():
    images = torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(rotated(images, 0), images, atol=1e-5, rtol=0)
    half = rotated(images, 180)  # about (6, 6): row r comes from 12 - r
    torch.testing.assert_close(half[..., 1:, 1:], images[..., 1:, 1:].flip(2, 3), atol=1e-4, rtol=0)
    quarter = rotated(images, 90)
    expected = torch.rot90(images[..., 1:, 1:], 1, (2, 3))
    torch.testing.assert_close(quarter[..., 1:, 1:], expected, atol=1e-4, rtol=0)
    assert len(list(made().augmented(images))) == 7
    assert not list(made(rotations=1).augmented(images))


def test_the_score_is_the_mean_of_the_highest_hundredth():
    d = torch.arange(300.0)[None]
    assert top_mean(d).item() == pytest.approx((299 + 298 + 297) / 3)
    assert top_mean(d[:, :50]).item() == 49


def test_distances_are_cosines_of_the_last_tokens():
    detector = made(sigma=0)
    known = remembered(detector, detector.empty(), inputs(detector, 2))
    given = inputs(detector, 1, seed=4)
    f, M = (detector.encode(x).values.flatten(0, 1) for x in (given, inputs(detector, 2)))
    every = 1 - F.normalize(f, dim=1) @ F.normalize(M, dim=1).T
    d = detector.distance(detector.encode(given), known)[0]
    torch.testing.assert_close(d, every.amin(1), atol=1e-5, rtol=0)
    three = made(neighbours=3)
    known = remembered(three, three.empty(), inputs(detector, 2))
    expected = every.topk(3, largest=False).values.mean(1)
    got = three.distance(three.encode(given), known)[0]
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=0)


def test_a_batch_is_compared_with_its_other_pictures():
    detector = made("anomalydino_batch", quantile=0.02, sigma=0)
    given = inputs(detector, 4)
    f = F.normalize(detector.encode(given).values, dim=2)
    (got,) = detector.score_set([detector.encode(given)], detector.empty())
    others = f[1:].flatten(0, 1)
    k = int(0.02 * len(others))
    assert k > 2
    near = (1 - f[0] @ others.T).topk(k - 1, largest=False).values.mean(1)
    torch.testing.assert_close(got.score[0], top_mean(near[None])[0], atol=1e-5, rtol=0)
    (alone,) = detector.score_set([detector.encode(given[:1])], detector.empty())
    assert alone.score.item() == 0


def test_a_mark_on_many_pictures_of_a_batch_stands_out_with_the_filter():
    draws = torch.Generator().manual_seed(0)
    x = torch.randn(25, 24, generator=draws).repeat(20, 1, 1)
    x += 0.25 * torch.randn(x.shape, generator=draws)
    x[:7, 3] = torch.randn(24, generator=draws) + 0.02 * torch.randn(7, 24, generator=draws)
    grid = Grid(5, 5, (70, 70))
    everywhere = torch.ones(20, 25, dtype=torch.bool)
    batches = [Tokens(grid, x[part], everywhere[part]) for part in (slice(8), slice(8, 20))]
    ways = [
        AnomalyDINOBatch(small_dino(), AnomalyDINOBatchConfig(consistency=c, quantile=0.004))
        for c in (False, True)
    ]
    plain, filtered = (
        torch.cat([one.score for one in way.score_set(batches, way.empty())]) for way in ways
    )
    assert plain[:7].min() < plain[7:].max()  # each finds the others
    assert filtered[:7].min() > filtered[7:].max()
    torch.testing.assert_close(filtered[7:], plain[7:], atol=0.02, rtol=0)

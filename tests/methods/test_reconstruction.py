"""What is the autoencoders' and GANomaly's own."""

from __future__ import annotations

import pytest
import torch

from zerodefect.layers.structural_similarity import ssim_map
from zerodefect.methods.autoencoder import Autoencoder
from zerodefect.methods.ganomaly import GANomaly
from zerodefect.types import TrainingBatch


def test_error_maps_by_hand():
    x = torch.full((1, 3, 32, 32), 0.5)
    r = x.clone()
    r[0, 0, 4, 5] = 0.8  # one channel of one pixel
    for error, value in (("mse", 0.09 / 3), ("l1", 0.1)):
        detector = Autoencoder.build(width=2, error=error, sigma=0.0)
        map = detector.errors(r, x)
        assert map[0, 4, 5] == pytest.approx(value) and (map > 0).sum() == 1
    ssim = Autoencoder.build(width=2, error="ssim", sigma=0.0).errors(r, x)
    assert ssim[0, 4, 5] > 0.2 and ssim[0, 20, 20].abs() < 1e-5
    assert (ssim[0] > 1e-5).sum() == 10 * 11  # what a window of 11 x 11 reaches, less the border


def test_ssim_of_even_pictures_by_hand():
    """Without any structure only the means count: (2 a b + c1) / (a^2 + b^2 + c1)."""
    a, b = 0.3, 0.6
    one, other = torch.full((1, 1, 20, 20), a), torch.full((1, 1, 20, 20), b)
    expected = (2 * a * b + 1e-4) / (a * a + b * b + 1e-4)
    found = ssim_map(one, other, "reflect")
    torch.testing.assert_close(found, torch.full_like(found, expected), atol=1e-4, rtol=0)
    wide = ssim_map(one, other, "reflect", span=2.0)
    expected = (2 * a * b + 4e-4) / (a * a + b * b + 4e-4)
    torch.testing.assert_close(wide, torch.full_like(wide, expected), atol=1e-4, rtol=0)


def test_pictures_are_padded_to_a_square_of_a_power_of_two():
    detector = GANomaly.build(size=32, width=2, code=3)
    padded = detector.padded(torch.ones(1, 3, 35, 50))
    assert padded.shape == (1, 3, 64, 64)
    assert padded[0, 0, 15:50, 7:57].min() == 1  # ceil(29 / 2), ceil(14 / 2) on the left and top
    assert padded.sum() == 3 * 35 * 50
    assert detector.padded(torch.ones(1, 3, 5, 5)).shape == (1, 3, 32, 32)
    with pytest.raises(ValueError, match="a power of two is needed"):
        GANomaly.build(size=48)


def test_codes_are_one_place_and_pictures_come_back_at_their_size():
    for padding, size in ((1, 32), (1, 64), (4, 32), (4, 64)):
        detector = GANomaly.build(size=size, width=2, code=3, padding=padding).eval()
        made, z, again = detector.generator(torch.zeros(2, 3, size, size))
        assert z.shape == again.shape == (2, 3, 1, 1) and made.shape == (2, 3, size, size)


def test_each_loss_moves_its_own_network():
    detector = GANomaly.build(size=32, width=2, code=3).train()
    images = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    labels = torch.zeros(3, dtype=torch.int64)
    batch = TrainingBatch(images, images[:, 0], labels, ("p",) * 3, torch.Generator())
    detector.rival_loss(batch)["discriminator"].backward()
    assert all(p.grad is None for p in detector.generator.parameters())
    assert all(p.grad.abs().max() > 0 for p in detector.discriminator.parameters())

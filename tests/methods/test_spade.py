"""What is SPADE's own: the gallery is that of the nearest pictures alone."""

from __future__ import annotations

import pytest
import torch
from small_detectors import inputs, remembered, rows, small_cnn

from zerodefect.methods import create


def made(**options):
    return create("spade", small_cnn(), **options)


def test_only_the_nearest_pictures_are_compared_place_by_place():
    detector, alone = made(neighbours=1, sigma=0), made(neighbours=1, sigma=0)
    given, references = inputs(detector, 1), inputs(detector, 4, seed=5)
    known = remembered(detector, detector.empty(), references)
    _, nearest = detector.nearest(detector.encode(given), known)
    whole = detector.encode(references).whole
    d = torch.cdist(detector.encode(given).whole, whole)[0]
    assert nearest.item() == int(d.argmin())
    only = remembered(alone, alone.empty(), rows(references, slice(int(nearest), int(nearest) + 1)))
    got, expected = detector(given, known), alone(given, only)
    torch.testing.assert_close(got.map, expected.map)
    torch.testing.assert_close(got.score, d.amin()[None].square())
    every = made(neighbours=4, sigma=0)
    all_of_them = every(given, remembered(every, every.empty(), references))
    assert (all_of_them.map <= got.map + 1e-4).all()
    torch.testing.assert_close(all_of_them.score, d.square().mean()[None])


def test_the_layer_that_stands_for_the_picture():
    assert made().inputs["image"].multiple == 32  # that of the last layer
    assert made(whole="layer3").inputs["image"].multiple == 16
    with pytest.raises(ValueError, match=r"has no layer 'top'; it has: act1"):
        made(whole="top")

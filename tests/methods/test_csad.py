"""CSAD on clustered components: the combination, and what histograms tell."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from arranged_pictures import BLUE, RED, good, pair
from small_detectors import small_cnn

from zerodefect.backbones.layered_features import load_features
from zerodefect.layers.patch_histograms import HistogramGaussian
from zerodefect.methods.csad import CSAD, CSADConfig


def learned(detector, images):
    with torch.no_grad():
        return detector.settle(detector.remember(detector.empty(), [detector.encode(images)]))


def test_the_score_is_the_sum_of_scaled_distances():
    detector = CSAD(small_cnn(), CSADConfig(size=32, components=4, windows=(1.0, 0.5)))
    images = torch.randn(12, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    known = learned(detector, images)
    with torch.no_grad():
        encoded = detector.encode(images[:3])
    h = detector.histograms(encoded.values, encoded.grid.shape, known["learned/centres"])
    assert [each.shape for each in h] == [(3, 4), (3, 16)]
    total = torch.zeros(3, dtype=torch.float64)
    for place, own in enumerate(h):
        reference = known[f"learned/histograms{place}"]
        assert (reference[:, ::4] == 0).all()  # the background has no share
        torch.testing.assert_close(own.float(), reference[:3])
        mean, deviation = known[f"learned/scale{place}"].tolist()
        d = HistogramGaussian.of(reference).distance(own)
        total += (d - mean) / max(deviation, 0.01)
    mean, deviation = known["learned/structure"].tolist()
    got = detector.predict(encoded, known)
    expected = total.float() - mean / deviation  # each is at no distance from itself
    torch.testing.assert_close(got.score, expected, atol=2e-3, rtol=1e-3)
    without = CSAD(small_cnn(), CSADConfig(size=32, components=4, structure=0.0))
    known = learned(without, images)
    torch.testing.assert_close(without.predict(encoded, known).score, total.float())


def test_a_missing_part_changes_the_histogram():
    detector = CSAD(load_features(), CSADConfig(structure=0.0, size=64, components=4)).eval()
    known = learned(detector, F.interpolate(good(8), (256, 256)))
    grey = torch.full((3,), 0.5)
    bad = torch.stack([pair(RED, grey, 60), pair(grey, BLUE, 61)])
    fine = torch.stack([pair(RED, RED, 62), pair(BLUE, BLUE, 63)])
    said = detector(F.interpolate(torch.cat([fine, bad]), (256, 256)), known).score
    assert said[2:].min() > said[:2].max()


def test_a_picture_cannot_be_left_out_of_components_of_all():
    detector = CSAD(small_cnn(), CSADConfig(size=16))
    images = torch.randn(4, 3, 64, 64)
    known = learned(detector, images)
    assert not detector.leaves_out(known)
    with torch.no_grad(), pytest.raises(RuntimeError, match="cannot leave one out"):
        detector.predict(detector.encode(images), known, torch.arange(4))

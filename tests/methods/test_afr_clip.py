"""What is AFR-CLIP's own: our completion as a detector that is trained."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from small_detectors import images, small_clip, taught, total, training_batch

from zerodefect.methods.afr_clip import AFRCLIP, self_prompting


def made(**options) -> AFRCLIP:
    return AFRCLIP.build(small_clip(), **options).eval()


@pytest.mark.parametrize("size", [(40, 88), (8, 16)])
def test_grids_smaller_than_neighbourhoods_and_pools(size):
    detector = made()
    got = detector(images(2, *size), taught(detector))
    assert got.map.shape == (2, *size)
    assert got.map.isfinite().all()


def test_what_is_learned():
    learned = made().learned
    assert set(learned) == {
        *(f"visual_adapters.{layer}.weight" for layer in range(3)),
        *(f"rectifier.{part}" for part in ("fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias")),
    }
    assert not learned["rectifier.fc2.bias"].any()  # half-open gates


def test_the_terms_of_the_loss():
    detector = made()
    terms = detector.training_loss(training_batch(detector, [0, 1]))
    assert set(terms) == {"focal", "dice_anomalous", "dice_normal", "image"}


def test_each_image_is_compared_with_the_texts_of_its_own_product():
    detector = made()
    batch = training_batch(detector, [0, 1], ("screw", "cable"))
    swapped = dataclasses.replace(batch, objects=batch.objects[::-1])
    assert not torch.equal(total(detector, batch), total(detector, swapped))
    rows = torch.arange(2).flip(0)
    turned = dataclasses.replace(
        swapped, images=batch.images[rows], masks=batch.masks[rows], labels=batch.labels[rows]
    )
    torch.testing.assert_close(total(detector, batch), total(detector, turned))


def test_training_finds_the_squares():
    detector = made(sigma=0.0)
    batch = training_batch(detector, [0, 1, 0, 1], ("screw", "cable", "screw", "cable"))
    optimizer = torch.optim.Adam(detector.learned.values(), lr=1e-2)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = total(detector, batch)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    detector.after_learning()
    assert losses[-1] < 0.7 * losses[0]
    got = detector(batch.images, taught(detector))
    inside = batch.masks[1] > 0
    assert got.map[1][inside].mean() > got.map[1][~inside].mean() + 0.2
    assert got.score[[1, 3]].min() > got.score[[0, 2]].max()


def test_one_adapter_per_tap():
    detector = made(taps=(1, 3))
    assert len(detector.visual_adapters) == 2
    assert made().taps == (1, 2, 3)


def test_a_picture_without_contrast_prompts_itself_with_its_mean():
    P = images(1).flatten()[:8].expand(1, 12, 8)
    torch.testing.assert_close(self_prompting(P, (3, 4), (1, 2)), 2 * P)


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        ({"temperature": 0.0}, "option temperature=.* greater than 0"),
        ({"sides": (2,)}, "option sides=.* an odd number"),
        ({"sides": ()}, "option sides=.* at least 1 item"),
        ({"pools": (0,)}, "option pools=.* greater than or equal to 1"),
        ({"sigma": -1.0}, "option sigma=.* greater than or equal to 0"),
        ({"taps": (4,)}, r"has 1\.\.3"),
    ],
)
def test_impossible_options(option, reason):
    with pytest.raises(ValueError, match=reason):
        made(**option)

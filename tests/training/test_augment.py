"""Augmentations change image and mask together, by their generator alone."""

from __future__ import annotations

import pytest
import torch

from zerodefect.images import CLIP_MEAN
from zerodefect.training.augment import (
    AUGMENTATIONS,
    aa,
    aa_colours,
    blur,
    jitter,
    quarter_turns,
    rotate,
    vcp,
)
from zerodefect.training.batches import seeded


def marked(height: int = 40, width: int = 40) -> tuple[torch.Tensor, torch.Tensor]:
    """A grey picture with a white rectangle, and the mask of it."""
    mask = torch.zeros(height, width)
    mask[6:16, 20:34] = 1
    return 0.3 + 0.7 * mask.expand(3, -1, -1), mask


@pytest.mark.parametrize("size", [(40, 40), (32, 56)])
def test_vcp_keeps_shape_and_range_and_is_repeatable(size):
    image, mask = marked(*size)
    seen = set()
    for number in range(40):
        first = vcp(image, mask, seeded(number))
        second = vcp(image, mask, seeded(number))
        assert torch.equal(first[0], second[0])
        assert torch.equal(first[1], second[1])
        assert first[0].shape == image.shape
        assert first[1].shape == mask.shape
        assert first[0].min() >= 0
        assert first[0].max() <= 1
        assert set(first[1].unique().tolist()) <= {0.0, 1.0}
        seen.add(round(float(first[0].sum()), 4))
    assert len(seen) > 30


@pytest.mark.parametrize("degrees", [-30.0, -7.0, 12.0, 30.0])
@pytest.mark.parametrize("size", [(40, 40), (32, 56)])
def test_the_mask_turns_with_the_image(degrees, size):
    image, mask = marked(*size)
    turned, turned_mask = rotate(image, mask, degrees)
    assert not torch.equal(turned_mask, mask)
    bright = (turned[0] > 0.65).float()
    overlap = (bright * turned_mask).sum() / torch.maximum(bright, turned_mask).sum()
    assert overlap > 0.9
    # turning keeps areas, as long as nothing leaves the picture
    assert abs(float(turned_mask.sum() / mask.sum()) - 1) < 0.35


def test_a_square_stays_a_square_in_a_wide_picture():
    mask = torch.zeros(40, 80)
    mask[18:22, 20:60] = 1  # a bar of 40 x 4
    _, turned = rotate(mask.expand(3, -1, -1), mask, 30.0)
    rows, columns = turned.nonzero(as_tuple=True)
    assert abs(int(columns.max() - columns.min()) - 40 * 0.866) < 4
    assert abs(int(rows.max() - rows.min()) - 40 * 0.5 - 3) < 4


def test_quarter_turns_keep_the_size():
    image, mask = marked(40, 40)
    turned, turned_mask = quarter_turns(image, mask, 1)
    assert torch.equal(turned_mask, mask.rot90(1))
    assert torch.equal(turned[0], image[0].rot90(1))
    wide, wide_mask = marked(32, 56)
    for turns in range(4):
        turned, turned_mask = quarter_turns(wide, wide_mask, turns)
        assert turned.shape == wide.shape
        assert torch.equal(turned[0] > 0.65, turned_mask > 0)


def test_blur_keeps_a_constant_and_spreads_a_point():
    flat = torch.full((3, 12, 12), 0.4)
    box = torch.full((3,), 1 / 3)
    torch.testing.assert_close(blur(flat, box), flat)
    point = torch.zeros(3, 12, 12)
    point[:, 6, 6] = 9
    spread = blur(point, box)
    torch.testing.assert_close(spread[:, 5:8, 5:8], torch.ones(3, 3, 3))
    assert float(spread.sum()) == pytest.approx(27)


def test_jitter_of_nothing_changes_nothing():
    image = torch.rand(3, 8, 8, generator=seeded(1))
    torch.testing.assert_close(jitter(image, 0, 0, 0), image)
    grey = jitter(image, 0, 0, -1)
    torch.testing.assert_close(grey[0], grey[1])


def test_every_name_of_a_recipe_is_known():
    assert AUGMENTATIONS["none"] is None
    assert AUGMENTATIONS["vcp"] is vcp


@pytest.mark.parametrize("size", [(40, 40), (32, 56)])
def test_what_aa_clip_moves_keeps_its_values_and_its_mask(size):
    """Pixels are only moved; what comes in from outside is the mean colour, and no defect."""
    image, mask = marked(*size)
    changed = []
    for number in range(200):
        moved, moved_mask = aa(image, mask, seeded(number))
        assert torch.equal(aa(image, mask, seeded(number))[0], moved)
        colours = {tuple(c) for c in moved.flatten(1).T.mul(1000).round().int().tolist()}
        mean = tuple(round(1000 * c) for c in CLIP_MEAN)
        assert colours <= {(300,) * 3, (1000,) * 3, mean}
        assert torch.equal(moved[0] > 0.9, moved_mask == 1)
        changed.append(not torch.equal(moved_mask, mask))
    assert 150 < sum(changed) < 200  # one in 32 keeps all five steps out


def test_aa_clips_colours_move_alike_and_stay_in_range():
    image, mask = marked()
    different = 0
    for number in range(20):
        moved, moved_mask = aa_colours(image, mask, seeded(number))
        assert moved.min() >= 0 and moved.max() <= 1
        assert set(moved_mask.unique().tolist()) <= {0.0, 1.0}
        different += not torch.equal(moved.amax(), image.amax())
    assert different > 3

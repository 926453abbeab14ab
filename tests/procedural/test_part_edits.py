"""Logical anomalies of good pictures: what is drawn, where, and what it is called."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from zerodefect.layers.components import components
from zerodefect.procedural.draws import Draws
from zerodefect.procedural.on_pictures import damage_pictures
from zerodefect.procedural.part_edits import (
    ALONE,
    EDIT_KINDS,
    edit_picture,
    feathered,
    pasted,
    redrawn,
    removed,
)
from zerodefect.procedural.picture_parts import coloured_parts, random_regions

GREEN, RED = torch.tensor([0.1, 0.8, 0.1]), torch.tensor([0.9, 0.1, 0.1])


def draws(*numbers: int, seed: int = 0) -> Draws:
    return Draws(seed, np.array(numbers or (0,), np.uint64), torch.device("cpu"))


def plate(height: int = 96, width: int = 128, colour=RED) -> torch.Tensor:
    """A grey picture with a square and a bar."""
    image = torch.full((3, height, width), 0.4)
    image[:, 20:44, 20:44] = GREEN[:, None, None]
    image[:, 60:72, 60:110] = colour[:, None, None]
    return image


def square() -> torch.Tensor:
    mask = torch.zeros(96, 128, dtype=torch.bool)
    mask[20:44, 20:44] = True
    return mask


def test_parts_are_what_has_a_colour_of_its_own():
    parts = coloured_parts(plate())
    assert len(parts) == 2
    bar, own = parts
    assert int(bar.sum()) == pytest.approx(12 * 50, rel=0.1)
    assert torch.equal(own, square())
    assert len(coloured_parts(torch.full((3, 40, 30), 0.5))) == 0
    large = coloured_parts(torch.nn.functional.interpolate(plate()[None], scale_factor=8)[0])
    assert large.shape == (2, 768, 1024)
    thin = torch.full((3, 96, 96), 0.4)
    thin[:, 40:42] = 0.9
    assert len(coloured_parts(thin)) == 0


def test_random_regions_have_the_stated_size_and_do_not_hang_on_the_batch():
    masks = random_regions(draws(*range(40)), (90, 150))
    share = masks.float().mean((1, 2))
    assert share.max() <= 3 * 0.085 and share.median() > 0.03
    assert torch.equal(masks[7:8], random_regions(draws(7), (90, 150)))


def test_what_is_removed_looks_like_its_surroundings():
    made = removed(plate(), square())
    assert (made[:, square()] - 0.4).abs().max() < 0.06
    assert torch.equal(made[:, ~square()], plate()[:, ~square()])
    everywhere = torch.ones(96, 128, dtype=torch.bool)
    assert torch.equal(removed(plate(), everywhere), plate())  # nothing to fill it with


def test_what_is_pasted_has_a_soft_border_inside():
    weight = feathered(square(), 2)
    assert weight[32, 32] == 1 and 0 < weight[20, 32] < 0.7
    assert (weight[~square()] == 0).all()
    made = pasted(plate(), torch.ones(3, 96, 128), square())
    assert made[0, 32, 32] == 1 and torch.equal(made[:, ~square()], plate()[:, ~square()])


@pytest.mark.parametrize("edit", list(EDIT_KINDS))
def test_each_edit_changes_the_picture_inside_its_mask_alone(edit):
    other = plate(colour=torch.tensor([0.1, 0.1, 0.9])).flip(2)
    seen = 0
    for number in range(6):
        made = edit_picture(plate(), draws(number), other, (edit,))
        assert made.edit == edit and made.kind == EDIT_KINDS[edit] and made.backend == "pixels"
        assert made.image.shape == (3, 96, 128) and 0 <= made.image.min() <= made.image.max() <= 1
        change = (made.image - plate()).abs().amax(0)
        seen += float(change[made.mask].mean())
        grown = torch.nn.functional.max_pool2d(made.mask[None].float(), 15, 1, 7)[0] > 0
        assert change[~grown].max() < 0.02
        again = edit_picture(plate(), draws(number), other, (edit,))
        assert torch.equal(again.image, made.image) and torch.equal(again.mask, made.mask)
    assert seen / 6 > 0.05


def test_a_doubled_part_is_there_twice_and_a_moved_one_once():
    def greens(image: torch.Tensor) -> list[int]:
        return components((image - GREEN[:, None, None]).abs().amax(0) < 0.05, 50).areas.tolist()

    only = square()[None]
    for number in range(5):
        twice = edit_picture(plate(), draws(number), None, ("duplicate",), only)
        assert sum(greens(twice.image)) > 1.4 * 24 * 24
        once = edit_picture(plate(), draws(number), None, ("move",), only)
        assert len(greens(once.image)) == 1
        assert once.mask[20:44, 20:44].all()  # where it was is part of what is wrong
        assert int(once.mask.sum()) > 24 * 24


def test_without_another_picture_nothing_is_taken_from_one():
    edits = {edit_picture(plate(), draws(number)).edit for number in range(12)}
    assert edits <= set(ALONE) and len(edits) > 2
    with pytest.raises(ValueError, match="no logical anomaly"):
        edit_picture(plate(), draws(), None, ("replace",))
    with pytest.raises(ValueError, match="no logical anomaly"):
        edit_picture(torch.full((3, 32, 32), 0.5), draws())


def test_another_picture_may_have_another_size():
    other = torch.nn.functional.interpolate(plate(colour=GREEN)[None], (50, 60))[0]
    made = edit_picture(plate(), draws(2), other, ("replace",))
    assert made.image.shape == (3, 96, 128)


def test_a_generator_draws_of_edited_edges():
    def draw(edges: torch.Tensor) -> torch.Tensor:
        return edges[:, None].expand(-1, 3, -1, -1)

    other = plate().flip(1)
    made = edit_picture(plate(), draws(1), other, ("remove",), square()[None], draw)
    assert made.backend == "edges" and made.kind == "logical"
    assert (made.image[:, square()] == 1).all()  # no edge is left
    assert made.mask.any() and not made.mask[~square()].any()
    assert not made.mask[32, 32]  # the middle had no edge: there nothing changed
    with pytest.raises(ValueError, match="edges know remove, replace, merge"):
        redrawn(plate(), other, square(), "move", draw)


def test_batches_of_pictures_are_edited_one_by_one():
    images = torch.stack([plate(), torch.full((3, 96, 128), 0.5), plate(colour=GREEN)])
    made = damage_pictures(images, draws(3, 4, 5), "logical")
    assert made.kinds[1] == "none" and not made.masks[1].any()
    assert torch.equal(made.images[1], images[1])
    for row, number in ((0, 3), (2, 5)):
        kind, edit = made.kinds[row].split()
        assert kind == "logical" and edit in ALONE and made.masks[row].any()
        alone = damage_pictures(images[row : row + 1], draws(number), "logical")
        assert torch.equal(alone.images[0], made.images[row])

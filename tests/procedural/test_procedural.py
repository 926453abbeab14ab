"""The procedural pictures: reproducible, labelled truthfully, and of every kind."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zerodefect.procedural import (
    DEFECT_KINDS,
    KIND_STATES,
    NOUNS,
    PRODUCTS,
    SURFACES,
    ProceduralBatch,
    draw_product,
    generate,
    possible_kinds,
)
from zerodefect.procedural.captions import place_words
from zerodefect.procedural.kinds import BUILD_KINDS
from zerodefect.procedural.structures import COUNTED, PRINTED, STRUCTURES

ROUNDING = 1.01 / 255


@pytest.fixture(scope="module")
def many() -> ProceduralBatch:
    return generate(seed=3, start=0, count=320, size=64)


def test_same_series_same_pictures() -> None:
    one, two = generate(5, 10, 6, 64), generate(5, 10, 6, 64)
    assert torch.equal(one.images, two.images)
    assert torch.equal(one.kind_map, two.kind_map)
    assert one.captions == two.captions


def test_another_series_other_pictures() -> None:
    one, two = generate(5, 0, 8, 64), generate(6, 0, 8, 64)
    assert (one.images - two.images).abs().flatten(1).mean(1).gt(0.01).all()
    assert one.captions != two.captions


@settings(max_examples=12, deadline=None)
@given(start=st.integers(0, 10_000), count=st.integers(1, 40), data=st.data())
def test_a_picture_does_not_depend_on_its_batch(
    start: int, count: int, data: st.DataObject
) -> None:
    offset = data.draw(st.integers(0, count - 1))
    batch, alone = generate(7, start, count, 32), generate(7, start + offset, 1, 32)
    difference = (batch.images[offset] - alone.images[0]).abs()
    # The last bit of a float may depend on where it stands in memory, and so one 8-bit step.
    assert difference.max() <= ROUNDING
    assert (difference > 0).float().mean() < 1e-3
    assert (batch.kind_map[offset] != alone.kind_map[0]).float().mean() < 1e-3
    assert batch.kinds[offset] == alone.kinds[0]
    assert batch.captions[offset] == alone.captions[0]
    assert batch.surfaces[offset] == alone.surfaces[0]


def test_shapes_and_ranges(many: ProceduralBatch) -> None:
    assert many.images.shape == (320, 3, 64, 64)
    assert many.images.dtype == torch.float32
    assert many.images.min() >= 0 and many.images.max() <= 1
    assert torch.equal(many.images, torch.round(many.images * 255) / 255)
    assert many.kind_map.shape == (320, 64, 64) and many.kind_map.dtype == torch.uint8
    assert many.kind_map.max() <= len(DEFECT_KINDS)
    assert many.kinds.dtype == torch.int64 and many.kinds.min() >= -1


def test_mask_exactly_where_damaged(many: ProceduralBatch) -> None:
    marked = many.masks.flatten(1).any(1)
    assert torch.equal(marked, many.kinds >= 0)
    for kind_map, kind in zip(many.kind_map, many.kinds.tolist(), strict=True):
        if kind >= 0:
            assert (kind_map == kind + 1).any()


def test_everything_occurs(many: ProceduralBatch) -> None:
    assert 0.4 < (many.kinds < 0).float().mean() < 0.6
    assert set(many.kinds.tolist()) == {-1, *range(len(DEFECT_KINDS))}
    assert set(many.surfaces) == set(SURFACES)
    grey = (many.images == many.images[:, :1]).flatten(1).all(1).float().mean()
    assert 0.4 < grey < 0.7
    covered = many.masks.flatten(1).float().mean(1)[many.kinds >= 0]
    assert covered.min() < 0.01 and covered.max() > 0.2


def test_good_pictures_differ_among_each_other(many: ProceduralBatch) -> None:
    good = many.images[many.kinds < 0]
    good = torch.nn.functional.avg_pool2d(good, 4).flatten(1)
    apart = torch.cdist(good, good) / good.shape[1] ** 0.5
    apart.fill_diagonal_(1.0)
    assert apart.min() > 0.003
    assert apart.median() > 0.15


def test_damage_is_often_large_and_often_in_several_places(many: ProceduralBatch) -> None:
    masks = many.masks[many.kinds >= 0]
    covered = masks.flatten(1).float().mean(1)
    assert 0.15 < (covered > 0.06).float().mean() < 0.5
    assert 0.15 < (covered < 0.01).float().mean() < 0.5
    # A gap in a mask's columns or rows between the first and the last: more than one place.
    gaps = []
    for mask in masks:
        for axis in (0, 1):
            seen = mask.any(axis).nonzero()[:, 0]
            gaps.append(int(seen[-1] - seen[0] + 1) > len(seen))
    apart = torch.tensor(gaps).view(-1, 2).any(1).float().mean()
    assert apart > 0.12


def test_the_device_is_where_pictures_are_drawn() -> None:
    batch = generate(2, 0, 3, 32, device="cpu")
    assert {batch.images.device.type, batch.kind_map.device.type, batch.kinds.device.type} == {
        "cpu"
    }
    if torch.cuda.is_available():
        other = generate(2, 0, 3, 32, device="cuda")
        assert other.images.is_cuda and other.kind_map.is_cuda and other.kinds.is_cuda
        assert torch.equal(other.kinds.cpu(), batch.kinds)
        close = (other.images.cpu() - batch.images).abs() < 0.05
        assert close.float().mean() > 0.95


def test_pictures_of_one_product_share_their_look() -> None:
    batch = generate(4, 0, 64, 64, pictures_per_product=16)
    products = [batch.surfaces[first : first + 16] for first in range(0, 64, 16)]
    assert all(len(set(surfaces)) == 1 for surfaces in products)
    means = batch.images.mean((1, 2, 3)).view(4, 16)
    assert means.std(1).mean() < means.mean(1).std() + 0.1
    assert (batch.kinds.view(4, 16) >= 0).any(1).all() and (batch.kinds.view(4, 16) < 0).any(
        1
    ).all()


def test_build_kinds_only_on_products_that_can_have_them() -> None:
    assert set(BUILD_KINDS).isdisjoint(possible_kinds("woven fabric"))
    assert {"missing part", "extra part", "misplaced part"} <= set(possible_kinds("drilled plate"))
    assert "bent" not in possible_kinds("drilled plate")
    assert "print error" in possible_kinds("name plate")
    assert "bent" in possible_kinds("cable bundle")
    reached = {kind for name in PRODUCTS for kind in possible_kinds(name)}
    assert reached == set(DEFECT_KINDS)
    assert set(COUNTED) | set(PRINTED) == set(STRUCTURES)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("drilled plate", "missing part"),
        ("drilled plate", "extra part"),
        ("drilled plate", "misplaced part"),
        ("name plate", "print error"),
        ("cable bundle", "bent"),
    ],
)
def test_build_kinds_change_the_picture_in_the_mask_and_nowhere_else(name: str, kind: str) -> None:
    for piece in range(3):
        good, _ = draw_product(name, 0, piece, None, 128)
        image, mask = draw_product(name, 0, piece, kind, 128)
        difference = np.abs(image.astype(int) - good.astype(int)).max(2)
        assert difference[mask].mean() > 8
        # Half a unit of soft border and the camera's blur may reach past the mask.
        near = torch.from_numpy(mask)[None, None].float()
        near = torch.nn.functional.max_pool2d(near, 9, 1, 4)[0, 0].numpy() > 0
        assert difference[~near].max() <= 6, (name, kind, piece)
        assert mask.mean() < 0.35


def test_place_in_words() -> None:
    mask = torch.zeros(30, 30, dtype=torch.bool)
    assert place_words(mask) == ""
    mask[2:5, 3:6] = True
    assert place_words(mask) == "in the upper left"
    assert place_words(mask.roll((12, 12), (0, 1))) == "in the middle"
    assert place_words(mask.flip(0)) == "in the lower left"
    assert place_words(mask.roll(12, 0)) == "on the left"
    assert place_words(torch.ones(30, 30, dtype=torch.bool)) == ""


def test_captions_may_say_where_and_of_what_surface() -> None:
    captions = generate(9, 0, 160, 32).captions
    assert sum("in the upper left" in caption for caption in captions) >= 1
    assert sum("in the middle" in caption for caption in captions) >= 1
    assert any("brushed" in caption for caption in captions)


def test_captions_name_the_state(many: ProceduralBatch) -> None:
    for caption, kind in zip(many.captions, many.kinds.tolist(), strict=True):
        words = [s.replace("{}", "").strip() for s in KIND_STATES[DEFECT_KINDS[kind]]]
        words += ["damage", "flaw", "defect", "fault", "abnormal", "anomaly"]
        if kind >= 0:
            assert any(word in caption for word in words), caption
    assert len(NOUNS) >= 150


@pytest.mark.slow
def test_damage_changes_the_picture_under_the_mask() -> None:
    for name in PRODUCTS:
        for number, kind in enumerate(possible_kinds(name)):
            image, mask = draw_product(name, 1, number, kind, 72)
            assert image.shape == (72, 72, 3) and image.dtype == np.uint8
            assert mask.shape == (72, 72) and mask.dtype == bool
            assert mask.any()
            # Light and place come from the piece's number, so only damage can differ, unless the
            # damage had to be moved: then the pieces are not comparable and nothing is asserted.
            good, no_mask = draw_product(name, 1, number, None, 72)
            assert not no_mask.any()
            difference = np.abs(image.astype(int) - good.astype(int)).max(2)
            if np.median(difference[~mask]) <= 2:
                assert difference[mask].mean() > difference[~mask].mean() + 1, (name, kind)


def test_products_are_coherent_and_vary() -> None:
    pieces = {name: [draw_product(name, 0, i, None, 64)[0] for i in range(3)] for name in PRODUCTS}
    for images in pieces.values():
        assert not np.array_equal(images[0], images[1])
        levels = [image.mean() for image in images]
        assert max(levels) - min(levels) < 60
    plate, fabric = pieces["metal plate"][0], pieces["woven fabric"][0]
    assert np.abs(plate.astype(int) - fabric.astype(int)).mean() > 10


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="count"):
        generate(0, 0, 0)
    with pytest.raises(ValueError, match="multiple of 8"):
        generate(0, 0, 1, size=100)
    with pytest.raises(ValueError, match="metal plate"):
        draw_product("unknown", 0, 0, None)
    with pytest.raises(ValueError, match="scratch"):
        draw_product("metal plate", 0, 0, "rust")
    with pytest.raises(ValueError, match="woven fabric cannot have a 'missing part'"):
        draw_product("woven fabric", 0, 0, "missing part")


def test_surroundings_change_what_lies_around_a_product_and_nothing_else() -> None:
    plain, around = (generate(9, 0, 96, 64, surroundings=on) for on in (False, True))
    assert around.images.min() >= 0
    assert around.images.max() <= 1
    changed = (plain.images - around.images).abs().amax((1, 2, 3)) > 0.02
    assert 10 < int(changed.sum()) < 70  # half of the products, where the table is seen
    assert plain.surfaces == around.surfaces
    sound = plain.kinds == around.kinds  # what is told from the table may be told no more
    assert sound.float().mean() > 0.9
    same = (plain.kind_map == around.kind_map).flatten(1).float().mean(1)
    assert same.mean() > 0.995


def test_surroundings_of_a_product_stay_where_they_are() -> None:
    pairs = generate(11, 0, 64, 64, surroundings=True, pictures_per_product=2)
    again = generate(11, 0, 64, 64, surroundings=True, pictures_per_product=2)
    assert torch.equal(pairs.images, again.images)
    corner = pairs.images[:, :, :6, :6].mean((1, 2, 3)).view(-1, 2)
    others = (corner[:-1, 0] - corner[1:, 1]).abs().mean()
    assert (corner[:, 0] - corner[:, 1]).abs().mean() < others

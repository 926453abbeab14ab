"""The procedural pictures: reproducible, labelled truthfully, and of every kind."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zerodefect.data.procedural import (
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


def test_captions_name_the_state(many: ProceduralBatch) -> None:
    for caption, kind in zip(many.captions, many.kinds.tolist(), strict=True):
        words = [s.replace("{}", "").strip() for s in KIND_STATES[DEFECT_KINDS[kind]]]
        words += ["damage", "flaw", "defect", "fault", "abnormal", "anomaly"]
        if kind >= 0:
            assert any(word in caption for word in words), caption
    assert len(NOUNS) >= 150


def test_damage_changes_the_picture_under_the_mask() -> None:
    for name in PRODUCTS:
        for number, kind in enumerate(possible_kinds(name)):
            image, mask = draw_product(name, 1, number, kind, 128)
            assert image.shape == (128, 128, 3) and image.dtype == np.uint8
            assert mask.shape == (128, 128) and mask.dtype == bool
            assert mask.any()
            # Light and place come from the piece's number, so only damage can differ, unless the
            # damage had to be moved: then the pieces are not comparable and nothing is asserted.
            good, no_mask = draw_product(name, 1, number, None, 128)
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

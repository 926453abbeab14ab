import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from zerodefect.inspection.regions import find_regions, outlines

sides = st.integers(1, 14)
masks = hnp.arrays(bool, st.tuples(sides, sides))
maps = hnp.arrays(
    np.float32, st.tuples(sides, sides), elements=st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])
)


def fill(polygons, height, width):
    """Even-odd filling at the pixels' centres: each upright edge flips all to its right."""
    image = np.zeros((height, width), bool)
    for polygon in polygons:
        one = np.zeros((height, width), bool)
        corners = np.array(polygon, int).reshape(-1, 2)
        for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
            if x0 == x1:
                one[min(y0, y1) : max(y0, y1), x0:] ^= True
        image |= one
    return image


@given(masks)
@settings(max_examples=300, deadline=None)
def test_filled_outlines_are_the_mask_with_closed_holes(mask):
    polygons = outlines(mask)
    filled = fill(polygons, *mask.shape)
    assert np.array_equal(filled, ndimage.binary_fill_holes(mask))
    for polygon in polygons:
        steps = np.diff(np.array([*polygon, *polygon[:4]]).reshape(-1, 2), axis=0)
        assert ((steps == 0).sum(axis=1) == 1).all()  # upright or level, never of length 0
        horizontal = steps[:, 1] == 0
        assert (horizontal[:-1] != horizontal[1:]).all()  # no collinear corners
        assert len(set(zip(polygon[::2], polygon[1::2], strict=True))) == len(polygon) // 2


def test_outline_of_an_l_shape_is_clockwise_and_shifted():
    mask = np.array([[1, 0], [1, 1]], bool)
    assert outlines(mask, 10, 20) == (
        (10.0, 20.0, 11.0, 20.0, 11.0, 21.0, 12.0, 21.0, 12.0, 22.0, 10.0, 22.0),
    )


def test_parts_that_touch_by_a_corner_get_an_outline_each():
    assert len(outlines(np.eye(3, dtype=bool))) == 3


@given(maps, st.sampled_from([0.0, 0.3, 0.5]), st.integers(1, 6), st.data())
@settings(max_examples=200, deadline=None)
def test_regions_partition_the_pixels_above_the_limit(map, limit, minimum_area, data):
    inspected = data.draw(st.none() | hnp.arrays(bool, map.shape))
    regions = find_regions(map, limit, minimum_area=minimum_area, inspected=inspected)
    covered = np.zeros(map.shape, int)
    for region in regions:
        x, y, w, h = region.box
        assert region.mask.shape == (h, w)
        assert region.mask.any(axis=0)[[0, -1]].all() and region.mask.any(axis=1)[[0, -1]].all()
        part = np.zeros(map.shape, bool)
        part[y : y + h, x : x + w] = region.mask
        covered += part
        assert region.area == part.sum() >= minimum_area
        assert region.score == map[part].max() > limit
        assert ndimage.label(part, np.ones((3, 3)))[1] == 1
        total = map.size if inspected is None else inspected.sum()
        assert region.area_percent == pytest.approx(100 * region.area / total)
        # Where filled, the outlines of a region cover it and only close its holes.
        assert np.array_equal(fill(region.polygons, *map.shape), ndimage.binary_fill_holes(part))
    assert covered.max(initial=0) <= 1
    above = map > limit if inspected is None else (map > limit) & inspected
    assert not (covered.astype(bool) & ~above).any()
    # What is left over is too small everywhere.
    left, count = ndimage.label(above & (covered == 0), np.ones((3, 3)))
    assert all((left == i).sum() < minimum_area for i in range(1, count + 1))
    assert [r.score for r in regions] == sorted((r.score for r in regions), reverse=True)


def test_p_value_is_asked_for_each_region():
    map = np.zeros((20, 20), np.float32)
    map[1:5, 1:5], map[10:15, 10:15] = 2.0, 3.0
    regions = find_regions(map, 1.0, p_value=lambda score: score / 10)
    assert [r.p_value for r in regions] == [0.3, 0.2]
    assert [r.kind for r in regions] == [None, None]


def test_limit_itself_is_not_above_the_limit():
    assert find_regions(np.full((9, 9), 0.5, np.float32), 0.5) == ()


def test_without_a_map_or_a_limit_there_are_no_regions():
    assert find_regions(None, None) == ()
    assert find_regions(np.ones((9, 9), np.float32), None) == ()


def test_many_specks_in_a_large_map():
    map = np.zeros((2000, 2000), np.float32)
    map[::10, ::10] = 1.0  # 40,000 single pixels
    map[5::100, 5::100] = 1.0  # 400 more
    map[5::100, 6::100] = 2.0  # that make pairs
    assert find_regions(map, 0.5) == ()
    assert len(find_regions(map, 0.5, minimum_area=2)) == 400


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"map": np.zeros((2, 2, 2), np.float32)}, r"\(H, W\)"),
        ({"map": np.full((2, 2), np.nan, np.float32)}, "NaN"),
        ({"inspected": np.zeros((3, 2), bool)}, "inspected"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(arguments, word):
    with pytest.raises(ValueError, match=word):
        find_regions(**{"map": np.zeros((2, 2), np.float32), "limit": 0.5, **arguments})

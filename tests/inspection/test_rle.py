import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from rle_decoder import decode_rle, in_box

from zerodefect.inspection.records import region_rle
from zerodefect.inspection.regions import find_regions
from zerodefect.types import Region

sides = st.integers(1, 40)
masks = hnp.arrays(bool, st.tuples(sides, sides))


def encode_rle(mask):
    """The mask as a region that is the whole image."""
    height, width = mask.shape
    region = Region((0, 0, width, height), mask, (), int(mask.sum()), 100.0, 1.0)
    return region_rle(region, height, width)


@given(masks)
@settings(max_examples=300, deadline=None)
def test_round_trip(mask):
    rle = encode_rle(mask)
    assert rle["size"] == list(mask.shape)
    assert np.array_equal(decode_rle(rle), mask)


@given(masks)
@settings(max_examples=100, deadline=None)
def test_a_region_is_encoded_where_it_lies(mask):
    for region in find_regions(mask.astype(np.float32), 0.5, minimum_area=1):
        rle = region_rle(region, *mask.shape)
        x, y, w, h = region.box
        full = np.zeros(mask.shape, bool)
        full[y : y + h, x : x + w] = region.mask
        assert rle == encode_rle(full)
        assert np.array_equal(in_box(decode_rle(rle), region.box), region.mask)


@pytest.mark.parametrize(
    ("mask", "text"),
    [
        # Worked out by hand from the format: runs 1 | 1 1 1 and so on, column by column.
        (np.zeros((2, 3), bool), "6"),
        (np.ones((2, 3), bool), "06"),
        (np.eye(2, dtype=bool), "0120"),  # runs 0 1 2 1, the last one as 1 - 1
        (np.zeros((10, 10), bool), "T3"),  # 100 = 3 * 32 + 4: "T" carries on, "3" ends
    ],
)
def test_known_texts(mask, text):
    assert encode_rle(mask)["counts"] == text


def test_a_mask_outside_its_image_is_refused():
    region = find_regions(np.ones((4, 4), np.float32), 0.5)[0]
    with pytest.raises(ValueError, match="outside"):
        region_rle(region, 3, 4)

"""Masks of another shape would be distorted, so they are refused with both sizes."""

import numpy as np
import pytest

from zerodefect.images import ImageError, Picture
from zerodefect.images.kept import shrink
from zerodefect.scoring.areas import paint_over, read_area


def mask(height, width):
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, : width // 2] = 255
    return Picture("mask.png", pixels)


@pytest.mark.parametrize("size", [(160, 200), (80, 100), (53, 66), (320, 401)])
def test_the_same_shape_at_any_scale(size):
    area = read_area(None, mask(*size), 160, 200)
    assert area[:, 110:].all()
    assert not area[:, :90].any()


@pytest.mark.parametrize("size", [(80, 80), (160, 180), (20, 200)])
def test_another_shape_is_refused_with_both_sizes(size):
    height, width = size
    with pytest.raises(ImageError, match=rf"{width} x {height} pixels, the picture 200 x 160") as e:
        read_area(mask(*size), None, 160, 200, "part.png")
    assert e.value.path == "part.png"


def test_a_mask_drawn_before_the_picture_was_turned_upright():
    with pytest.raises(ImageError, match="EXIF orientation"):
        read_area(None, mask(160, 200), 200, 160, "part.jpg")


def test_a_picture_too_small_for_a_thin_mask_fails_by_its_own_name():
    pixels = np.zeros((160, 200, 3), np.uint8)
    pixels[80] = 255  # one row, between those that a small picture takes of it
    seam = Picture("seam.png", pixels)
    assert read_area(seam, None, 160, 200).sum() == 200
    with pytest.raises(ImageError, match="nothing of its 25 x 20 pixels") as e:
        read_area(seam, None, 20, 25, "small.png")
    assert e.value.path == "small.png"


@pytest.mark.parametrize("size", [(160, 200), (20, 25)])
def test_masks_that_leave_nothing_of_any_picture_are_a_fault_of_the_masks(size):
    dark, half = Picture("dark.png", np.zeros((160, 200, 3), np.uint8)), mask(160, 200)
    for areas in ((dark, None), (half, half)):
        with pytest.raises(ValueError, match="leave nothing to inspect") as e:
            read_area(*areas, *size)
        assert not isinstance(e.value, ImageError)


def test_an_area_that_is_lost_where_a_picture_is_shrunk_fails_by_the_pictures_name():
    picture = Picture("plate.png", np.zeros((400, 400, 3), np.uint8))
    area = np.zeros((400, 400), bool)
    area[1] = True
    assert paint_over(picture, area).pixels.shape == (400, 400, 3)
    with pytest.raises(ImageError, match=r"plate\.png: nothing of the inspected area .* 40 x 40"):
        paint_over(shrink(picture, (40, 40)), area)

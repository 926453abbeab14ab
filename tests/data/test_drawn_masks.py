"""Areas of labelling tools as pixels, against shapes that were worked out by hand."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from zerodefect.data import Sample, read_mask
from zerodefect.data.drawn_masks import (
    Brush,
    ColouredFile,
    DrawnMask,
    Outline,
    Runs,
    box_outline,
    centred_box,
    ellipse_outline,
)
from zerodefect.images import ImageError
from zerodefect.inspection.regions import outlines


def shown(pixels):
    return ["".join(".#"[value] for value in row) for row in pixels.astype(int)]


def test_a_box_covers_the_pixels_between_its_edges():
    assert shown(box_outline(1, 1, 3, 2).draw(6, 4)) == ["......", ".###..", ".###..", "......"]


def test_a_pixel_belongs_to_an_outline_by_its_centre():
    assert shown(box_outline(0.6, 0, 1.8, 1).draw(4, 1)) == [".#.."]  # 0.6 .. 2.4
    assert shown(box_outline(0.4, 0, 2.2, 1).draw(4, 1)) == ["###."]  # 0.4 .. 2.6
    assert shown(Outline((0, 0, 4, 0, 0, 4)).draw(4, 4)) == ["###.", "##..", "#...", "...."]


def test_an_outline_that_is_led_into_a_hole_leaves_it_free():
    way = (0, 0, 5, 0, 5, 5, 0, 5, 0, 0)
    hole = (1, 1, 1, 4, 4, 4, 4, 1, 1, 1)
    same_turn = (1, 1, 4, 1, 4, 4, 1, 4, 1, 1)
    wanted = ["#####", "#...#", "#...#", "#...#", "#####"]
    assert shown(Outline(way + hole).draw(5, 5)) == wanted
    assert shown(Outline(way + same_turn).draw(5, 5)) == wanted


@settings(max_examples=60)
@given(st.integers(0, 2**30), st.integers(1, 12), st.integers(1, 12))
def test_outlines_of_any_mask_without_holes_fill_it_again(seed, height, width):
    from scipy.ndimage import binary_fill_holes

    mask = binary_fill_holes(np.random.default_rng(seed).random((height, width)) > 0.5)
    drawn = [Outline(points).draw(width, height) for points in outlines(mask)]
    again = np.logical_or.reduce(drawn) if drawn else np.zeros_like(mask)
    assert np.array_equal(again, mask)


def test_label_studio_turns_boxes_about_their_upper_left_corner():
    # a box of 4 x 2 at (4, 1), turned by 90 degrees clockwise, hangs down to the left of (4, 1)
    assert shown(box_outline(4, 1, 4, 2, 90).draw(6, 6)) == [
        *["......", "..##..", "..##..", "..##..", "..##..", "......"]
    ]


def test_cvat_turns_boxes_about_their_centre():
    assert shown(centred_box(3, 3, 4, 2, 90).draw(6, 6)) == [
        *["......", "..##..", "..##..", "..##..", "..##..", "......"]
    ]
    # by 30 degrees clockwise the right end goes down
    mask = centred_box(50, 50, 60, 6, 30).draw(100, 100)
    assert mask[50 + 10, 50 + 17] and not mask[50 - 10, 50 + 17]


def test_an_ellipse_has_its_area_and_turns_clockwise():
    mask = ellipse_outline(60, 50, 40, 10, 0).draw(120, 100)
    assert mask.sum() == pytest.approx(math.pi * 400, rel=0.01)
    assert np.flatnonzero(mask.any(0))[[0, -1]].tolist() == [20, 99]
    turned = ellipse_outline(60, 50, 40, 10, 45).draw(120, 100)
    assert turned[50 + 20, 60 + 20] and not turned[50 - 20, 60 + 20]


def test_run_lengths_go_down_columns_or_along_rows():
    assert shown(Runs((1, 2, 3), (3, 2)).draw(3, 2)) == [".#.", "#.."]
    inside = Runs((1, 2, 3), (3, 2), corner=(1, 1), by_columns=False).draw(5, 4)
    assert shown(inside) == [".....", "..##.", ".....", "....."]
    assert shown(Runs("123", (3, 2)).draw(3, 2)) == [".#.", "#.."]


@pytest.mark.parametrize(
    ("area", "words"),
    [
        (Runs((1, 2), (3, 2)), "cover 3 pixels, not 6"),
        (Runs((6,), (2, 3)), "RLE is of 2 x 3 pixels, the labelled picture of 3 x 2"),
        (Runs((4,), (2, 2), (2, 0)), "reaches out of the picture"),
        (Runs((4,), (10**6, 10**6), (0, 0)), "reaches out of the picture"),
        (Runs("T", (3, 2)), "cut off"),
        (Brush(b"\0\0\0"), "cut off"),
        (Outline((0, 0, 9, 0, 9, 9)), "7 pixels out of its picture"),
        (Outline((0, 0, float("nan"), 0, 9, 9)), "out of its picture"),
        (Outline((0, 0, 1e300, 0, 9, 9), reaching=True), "out of its picture"),
        (ellipse_outline(30, 30, 3, 3, 0), "lies outside its picture"),
    ],
)
def test_areas_that_fit_no_picture(area, words, tmp_path):
    Image.new("L", (3, 2)).save(tmp_path / "a.png")
    with pytest.raises(ImageError, match=words) as caught:
        DrawnMask("export.json: task 7", (area,), (3, 2)).pixels(tmp_path / "a.png")
    assert caught.value.path == "export.json: task 7" and caught.value.remedy


def test_what_reaches_over_the_edge_a_little_is_cut_there():
    assert Outline((-1, -1, 6, -1, 6, 6, -1, 6)).draw(5, 5).all()
    assert ellipse_outline(0, 0, 3, 3, 0).draw(5, 5).sum() == 8  # a quarter of a circle


@pytest.mark.parametrize("orientation", range(1, 9))
def test_masks_turn_with_pictures_that_exif_turns(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "a.png"
    stored = np.zeros((20, 30), bool)
    stored[2:5, 10:18] = True
    Image.fromarray(stored.astype(np.uint8) * 255).save(path, exif=exif)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(path))) > 0
    height, width = upright.shape
    (top, bottom), (left, right) = (np.flatnonzero(upright.any(a))[[0, -1]] for a in (1, 0))
    box = box_outline(left, top, right - left + 1, bottom - top + 1)
    for size in (None, (width, height)):  # drawn as it is shown
        mask = DrawnMask("a", (box,), size)
        assert np.array_equal(mask.pixels(path), upright)
    if orientation > 4:  # drawn on the pixels as they are stored, as the size tells
        mask = DrawnMask("a", (box_outline(10, 2, 8, 3),), (30, 20))
        assert np.array_equal(mask.pixels(path), upright)


def test_a_picture_of_another_size_is_refused_by_name(tmp_path):
    Image.new("L", (30, 20)).save(tmp_path / "a.png")
    for size in ((60, 40), (20, 30)):
        mask = DrawnMask("x.json: image 4", (box_outline(0, 0, 2, 2),), size)
        sample = Sample(tmp_path / "a.png", mask, "nut", "dent", True, None)
        with pytest.raises(ImageError, match=r"x\.json: image 4: the mask is .* 30 x 20"):
            read_mask(sample)


def test_masks_in_colours(tmp_path):
    pixels = np.full((4, 5, 3), 255, np.uint8)
    pixels[1, 1:3], pixels[2, 4] = (0x2C, 0xA0, 0x2C), (0, 0, 255)
    Image.fromarray(pixels).save(tmp_path / "m.png")
    file = ColouredFile(tmp_path / "m.png", (0x2CA02C,), (0xFFFFFF, 0x0000FF))
    assert shown(file.draw(5, 4)) == [".....", ".##..", ".....", "....."]
    with pytest.raises(ValueError, match="is of 5 x 4 pixels"):
        file.draw(4, 5)
    with pytest.raises(ValueError, match=r"colours of m\.png .*#0000ff"):
        ColouredFile(tmp_path / "m.png", (0x2CA02C,), (0xFFFFFF,)).draw(5, 4)


def test_a_brush_counts_where_it_is_opaque(tmp_path):
    import test_labelling_tools as tools

    mask = np.zeros((3, 4), np.uint8)
    mask[1, 1:3] = 1  # masks of 0 and 1 that a program has sent in, and edges of a brush
    assert shown(Brush(tools.brush(mask)).draw(4, 3)) == ["....", ".##.", "...."]
    mask[1] = (0, 100, 200, 255)
    assert shown(Brush(tools.brush(mask)).draw(4, 3)) == ["....", "..##", "...."]
    assert not Brush(tools.brush(mask * 0)).draw(4, 3).any()

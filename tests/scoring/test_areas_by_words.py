"""Areas that words name: how the words are read, and what becomes of their maps."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zerodefect.images import Picture
from zerodefect.scoring.areas import AreaByWords, AreaWords, found_area, inspected_area

SCREW = AreaWords(("screw",))


@pytest.mark.parametrize(
    ("text", "wanted", "unwanted"),
    [
        ("the screw, not the background", ("screw",), ("background",)),
        ("screw", ("screw",), ("background",)),
        ("The screw; a washer, but not the table", ("screw", "washer"), ("table",)),
        ("nuts and bolts not the hand and not an arm", ("nuts and bolts",), ("hand", "arm")),
        ("knot, notch", ("knot", "notch"), ("background",)),
        ("  metal   nut ,, NOT  table ", ("metal nut",), ("table",)),
        ("螺丝", ("螺丝",), ("background",)),
    ],
)
def test_words_are_read(text, wanted, unwanted):
    assert AreaWords.parse(text) == AreaWords(wanted, unwanted)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "holds no word"),
        (" , ; ", "holds no word"),
        ("the, not a", "holds no word"),
        ("not the background", "only says what is not inspected: say what is"),
        ("screw, not the Screw", "wants 'screw' and does not"),
    ],
)
def test_what_names_no_area_is_refused(text, why):
    with pytest.raises(ValueError, match=why):
        AreaWords.parse(text)


@given(st.text(alphabet="ab not,;the and", max_size=30))
def test_what_was_read_is_read_again_alike(text):
    try:
        words = AreaWords.parse(text)
    except ValueError:
        return
    assert AreaWords.parse(str(words)) == words


def patches(rows, columns, *white, low=0.2, high=0.8):
    map = np.full((rows, columns), low, np.float32)
    for area in white:
        map[area] = high
    return map


def test_the_area_is_where_the_wanted_words_win():
    found = found_area(SCREW, patches(8, 8, np.s_[:, :4]), 80, 160)
    mask = found.mask(80, 160)
    assert mask[:, :78].all() and not mask[:, 82:].any()
    assert found.percent == pytest.approx(50, abs=2) and found.why_whole is None


def test_holes_are_inspected_as_damage_may_look_like_nothing_that_was_named():
    map = patches(12, 12, np.s_[2:10, 2:10])
    map[5:7, 5:7] = 0.0
    mask = found_area(SCREW, map, 120, 120).mask(120, 120)
    assert mask[55:65, 55:65].all() and not mask[:15].any()


@pytest.mark.parametrize(
    ("map", "why"),
    [
        (
            patches(8, 8, np.s_[:, :4], low=0.46, high=0.54),
            "the model sees no place for screw",
        ),
        (patches(8, 8, np.s_[:, :4], low=0.6, high=0.9), "screw, not background covers everything"),
        (patches(8, 8, np.s_[:, :4], low=0.1, high=0.4), "screw, not background covers nothing"),
    ],
)
def test_what_finds_no_part_of_a_picture_leaves_all_of_it_and_says_so(map, why):
    found = found_area(SCREW, map, 80, 80)
    assert found.mask(80, 80) is None and found.percent == 100
    assert found.why_whole.startswith(why)
    assert found.why_whole.endswith("the whole picture is inspected")


def test_large_pictures_are_cut_at_less_than_their_pixels():
    found = found_area(SCREW, patches(8, 8, np.s_[:4]), 30, 6000)
    assert found.white.shape == (3, 512) and found.mask(30, 6000).shape == (30, 6000)


def left_half(asked):
    def map(picture, words):
        asked.append(picture.path)
        return patches(4, 4, np.s_[:, :2])

    return map


def test_a_picture_is_looked_at_once_whatever_it_is_called():
    asked: list[str] = []
    area = AreaByWords(SCREW, left_half(asked))
    one, other = np.zeros((8, 8, 3), np.uint8), np.ones((8, 8, 3), np.uint8)
    for path, pixels in (("a", one), ("b", other), ("c", one), ("a", other)):
        area.of(Picture(path, pixels))
    assert asked == ["a", "b"]


def test_an_ignore_mask_takes_its_part_of_the_area():
    area, part = AreaByWords(SCREW, left_half([])), Picture("p", np.zeros((8, 8, 3), np.uint8))
    upper = np.zeros((8, 8, 3), np.uint8)
    upper[:4] = 255
    expected = np.zeros((8, 8), bool)
    expected[4:, :4] = True
    assert (inspected_area(area, Picture("ignore", upper), part) == expected).all()
    left = np.ascontiguousarray(upper.transpose(1, 0, 2))  # nothing of the area is left
    assert (inspected_area(area, Picture("ignore", left), part) == (left[..., 0] == 0)).all()

"""Run lengths of COCO and Label Studio, against cases that were worked out by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zerodefect.images.run_lengths import (
    counts_from_text,
    counts_to_text,
    runs_to_pixels,
    unpack_brush,
)


@pytest.mark.parametrize(
    ("counts", "text"),
    [
        ([6], "6"),  # 6 + 48 is the sign 6
        ([1, 2, 1], "121"),
        ([0, 16], "0`0"),  # 16 has the sign's bit, so it needs a second character: 16 + 32 + 48, 0
        ([5, 3, 7, 2], "537O"),  # the fourth is 2 - 3 = -1: five ones, 31 + 48
        ([100], "T3"),  # 100 = 3 * 32 + 4: (4 + 32) + 48, 3 + 48
    ],
)
def test_text_of_counts(counts, text):
    assert counts_to_text(counts) == text
    assert counts_from_text(text) == counts


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=30))
def test_counts_come_back(counts):
    assert counts_from_text(counts_to_text(counts)) == counts


@pytest.mark.parametrize("text", ["~", "1 2", "T", "\u00e9", "o" * 40 + "0"])
def test_text_that_holds_no_counts(text):
    with pytest.raises(ValueError, match="run lengths"):
        counts_from_text(text)


def test_runs_begin_with_background():
    assert runs_to_pixels([1, 2, 1], 4).tolist() == [False, True, True, False]
    assert runs_to_pixels([0, 2], 2).tolist() == [True, True]


@pytest.mark.parametrize("counts", [[1, 2], [1, 4], [2, -1, 3], [1.0, 3], [True, 3], ["1", "3"]])
def test_runs_of_another_length(counts):
    with pytest.raises(ValueError, match="run length"):
        runs_to_pixels(counts, 4)


def packed(values, runs, widths=(3, 4, 8, 16)):
    """Pack runs ``(repeated, width's number, length)`` over values as rle-pack does."""
    bits = f"{len(values):032b}{7:05b}" + "".join(f"{width - 1:04b}" for width in widths)
    at = 0
    for repeated, which, length in runs:
        bits += f"{repeated:b}{which:02b}{length - 1:0{widths[which]}b}"
        given = values[at : at + 1] if repeated else values[at : at + length]
        bits += "".join(f"{value:08b}" for value in given)
        at += length
    bits += "0" * (-len(bits) % 8)
    return bytes(int(bits[i : i + 8], 2) for i in range(0, len(bits), 8))


def test_a_brush_by_hand():
    # one pixel of four values, as one repeated run of 255:
    # 00000000 00000000 00000000 00000100 | 00111 | 0010 0011 0111 1111 | 1 00 011 11111111 + fill
    data = bytes([0, 0, 0, 4, 0b00111001, 0b00011011, 0b11111100, 0b01111111, 0b11100000])
    assert unpack_brush(data, 4).tolist() == [255] * 4
    assert packed([255] * 4, [(True, 0, 4)]) == data


@given(st.data())
def test_brushes_come_back(data):
    runs = data.draw(
        st.lists(st.tuples(st.booleans(), st.integers(0, 3), st.integers(1, 8)), min_size=1)
    )
    values = []
    for repeated, _, length in runs:
        some = data.draw(st.lists(st.integers(0, 255), min_size=length, max_size=length))
        values += some[:1] * length if repeated else some
    assert unpack_brush(packed(values, runs), len(values)).tolist() == values


def test_damaged_brushes():
    data = packed([9] * 400, [(True, 2, 200), (True, 2, 200)])
    with pytest.raises(ValueError, match="holds 100 pixels, not 25"):
        unpack_brush(data, 100)
    for length in range(len(data)):
        with pytest.raises(ValueError, match="RLE"):
            unpack_brush(data[:length], 400)
    with pytest.raises(ValueError, match="damaged"):
        unpack_brush(packed([9] * 400, [(True, 3, 401)]), 400)
    # a number of pixels that would fill the memory is refused before anything is made of it
    with pytest.raises(ValueError, match="pixels, not 1"):
        unpack_brush(b"\xff" * 60, 4)


def test_a_long_brush_is_read_in_time_that_grows_with_it():
    values = np.zeros(4 * 2000 * 3000, np.uint8)
    values[4_000_000:5_000_000] = 255
    runs = [(True, 3, 50_000)] * 480
    assert np.array_equal(unpack_brush(packed(values, runs), len(values)), values)

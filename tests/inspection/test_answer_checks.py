"""What a chat model says, against the evidence."""

from dataclasses import replace

import numpy as np
import pytest

from zerodefect.inspection.answer_checks import checked, meets
from zerodefect.inspection.explanation import Explanation
from zerodefect.inspection.inspected import Inspection
from zerodefect.inspection.regions import find_regions

MAP = np.zeros((90, 120), np.float32)
MAP[10:20, 10:30] = 1
OUTCOME = Inspection(
    "a.png", "screw", 120, 90, "defect", True, 0.9, 0.02, find_regions(MAP, 0.5),
    colour_range=(0.0, 1.0),
)  # fmt: skip
FITS = Explanation(location="upper left", kind="scratch", why="A line.", verdict="defect")


def against(outcome=OUTCOME, **said):
    return checked(FITS.model_copy(update=said), outcome)


def test_what_agrees_is_no_contradiction():
    for said in ({}, {"boxes": ((5, 5, 8, 8),)}, {"location": None}, {"kind": None}):
        found = against(**said)
        assert found.contradictions == () and found.remarks == ()


def test_another_verdict_is_one():
    found = against(verdict="good", kind=None)
    assert found.contradictions == (
        "It calls the picture good; the policy's verdict is defect, and holds.",
    )
    rough = against(replace(OUTCOME, calibrated=False, verdict="good"))
    assert "the policy's verdict is good (provisional), and holds" in rough.contradictions[0]


@pytest.mark.parametrize(("model", "policy"), [("good", "unsure"), ("unsure", "defect")])
def test_where_one_of_both_does_not_decide_it_is_remarked(model, policy):
    found = against(replace(OUTCOME, verdict=policy), verdict=model, kind=None, location=None)
    assert found.contradictions == ()
    assert found.remarks == (f"it calls the picture {model}, the policy {policy}",)


def test_no_verdict_is_remarked():
    assert against(verdict=None).remarks == ("it names no verdict that could be compared",)
    assert against(verdict=None, remarks=("prose",)).remarks == ("prose",)


def test_good_and_yet_a_defect():
    found = against(replace(OUTCOME, verdict="good", regions=()), verdict="good", location=None)
    assert found.contradictions == ("It calls the picture good, and yet names scratch.",)


def test_a_box_beside_the_regions_is_one():
    found = against(boxes=((80, 60, 20, 20), (12, 12, 2, 2)))
    assert found.contradictions == (
        "The box that it names in the lower right meets no region; the region lies in the upper "
        "left.",
    )
    nothing = against(replace(OUTCOME, regions=()), boxes=((80, 60, 20, 20),))
    assert nothing.contradictions == (
        "It names a box in the lower right, and no region stands out.",
    )


def test_a_box_of_everything_points_at_nothing():
    found = against(boxes=((0, 0, 120, 90),))
    assert found.contradictions == ("The box that it names is nearly all of the picture.",)


def test_without_maps_no_box_is_checked():
    without = replace(OUTCOME, regions=(), colour_range=None)
    found = against(without, boxes=((80, 60, 20, 20),))
    assert found.contradictions == () and "cannot be checked" in found.remarks[0]


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        ("upper left", False),
        ("in the Top Left corner of the image.", False),
        ("left", False),
        ("at the top", False),
        ("in the centre", False),  # a neighbour
        ("upper middle", False),
        ("lower left", True),
        ("in the upper right", True),
        ("bottom", True),
        ("right side", True),
        ("left and right", False),
        ("lower left of the label", False),  # a place on the part
        ("on the thread near the bottom", False),
        ("", False),
    ],
)
def test_a_place_in_words_alone_is_compared(words, wrong):
    found = against(location=words)
    assert bool(found.contradictions) is wrong
    if wrong:
        assert "where no region is; the region lies in the upper left." in found.contradictions[0]


def test_a_box_meets_the_mask_and_not_its_rectangle():
    ring = np.zeros((60, 60), np.float32)
    ring[10:50, 10:50], ring[15:45, 15:45] = 1, 0
    (region,) = find_regions(ring, 0.5)
    assert not meets((20, 20, 20, 20), region)
    assert not meets((0, 0, 10, 60), region) and meets((0, 0, 11, 60), region)
    assert not meets((50, 10, 5, 5), region) and meets((49, 49, 30, 30), region)


def test_a_box_meets_exactly_where_pixels_are_shared():
    random = np.random.default_rng(0)
    for _ in range(200):
        values = (random.random((20, 30)) > 0.7).astype(np.float32)
        x, y = int(random.integers(0, 29)), int(random.integers(0, 19))
        w, h = int(random.integers(1, 31 - x)), int(random.integers(1, 21 - y))
        regions = find_regions(values, 0.5, minimum_area=1)
        shared = bool(values[y : y + h, x : x + w].any())
        assert any(meets((x, y, w, h), one) for one in regions) == shared

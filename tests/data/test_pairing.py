"""Masks find their pictures by name, and only where no name fits by order."""

from pathlib import PurePath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zerodefect.data.pairing import MASK_SUFFIXES, pair_masks


def pairs_of(images, masks):
    pairing = pair_masks([PurePath(i) for i in images], [PurePath(m) for m in masks])
    named = {str(i): [str(m) for m in ms] for i, ms in pairing.masks.items()}
    return named, [str(m) for m in pairing.orphans], pairing.by_order


@pytest.mark.parametrize(
    "mask",
    ["7.png", "7_mask.png", "7_label.bmp", "7_GT.png", "7_Segmentation.tif", "7_MASK.PNG"],
)
def test_the_names_that_data_sets_use(mask):
    assert pairs_of(["7.jpg"], [mask]) == ({"7.jpg": [mask]}, [], False)


def test_a_picture_called_mask_does_not_take_its_neighbours_mask():
    images = ["a.png", "a_mask.png"]
    masks = ["a_mask.png", "a_mask_mask.png"]
    expected = {"a.png": ["a_mask.png"], "a_mask.png": ["a_mask_mask.png"]}
    assert pairs_of(images, masks) == (expected, [], False)


def test_sub_folders_keep_equal_names_apart():
    images = ["background/1.png", "view/1.png"]
    masks = ["view/1.png", "background/1.png"]
    expected = {"background/1.png": ["background/1.png"], "view/1.png": ["view/1.png"]}
    assert pairs_of(images, masks) == (expected, [], False)


def test_sub_folders_may_have_other_names_where_files_are_unique():
    assert pairs_of(["img/1.png"], ["label/1.png"]) == ({"img/1.png": ["label/1.png"]}, [], False)


def test_a_folder_of_masks_per_picture():
    masks = ["000/000.png", "000/001.png", "001/000.png"]
    expected = {"000.png": ["000/000.png", "000/001.png"], "001.png": ["001/000.png"]}
    assert pairs_of(["000.png", "001.png"], masks) == (expected, [], False)


def test_upper_case_and_decomposed_accents_are_the_same_name():
    images = ["Riß_é.png"]  # composed
    masks = ["riß_é_mask.png"]  # decomposed, as macOS stores it
    assert pairs_of(images, masks) == ({images[0]: masks}, [], False)


def test_exact_case_comes_first():
    expected = {"A.png": ["A_mask.png"], "a.png": ["a_mask.png"]}
    assert pairs_of(["a.png", "A.png"], ["A_mask.png", "a_mask.png"]) == (expected, [], False)


def test_a_name_that_fits_two_pictures_is_given_to_neither():
    result = pairs_of(["1.png", "1.jpg"], ["1_mask.png", "x_mask.png"])
    assert result == ({}, ["1_mask.png", "x_mask.png"], False)


def test_a_second_mask_is_an_orphan():
    result = pairs_of(["1.png", "2.png"], ["1_mask.png", "2_mask.png", "1.bmp"])
    assert result == ({"1.png": ["1_mask.png"], "2.png": ["2_mask.png"]}, ["1.bmp"], False)


def test_order_decides_where_no_name_fits_and_counts_agree():
    images = ["part10.png", "part9.png"]
    masks = ["m09.png", "m10.png"]
    expected = {"part9.png": ["m09.png"], "part10.png": ["m10.png"]}
    assert pairs_of(images, masks) == (expected, [], True)


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        (["a.png", "b.png"], ["x.png"]),  # counts differ
        (["a.png", "b.png"], ["a_mask.png", "x.png"]),  # some names do agree
    ],
)
def test_order_never_decides_otherwise(images, masks):
    pairs, orphans, by_order = pairs_of(images, masks)
    assert not by_order
    assert "x.png" in orphans
    assert "b.png" not in pairs


names = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1)


@given(st.sets(names, min_size=1, max_size=8), st.sampled_from(MASK_SUFFIXES), st.randoms())
def test_any_names_with_one_suffix_pair_completely_in_any_order(stems, suffix, random):
    images = [PurePath(f"{stem}.png") for stem in stems]
    masks = [PurePath(f"{stem}{suffix}.bmp") for stem in stems]
    random.shuffle(images)
    random.shuffle(masks)
    pairing = pair_masks(images, masks)
    assert pairing.masks == {
        PurePath(f"{stem}.png"): (PurePath(f"{stem}{suffix}.bmp"),) for stem in stems
    }
    assert not pairing.orphans
    assert not pairing.by_order


paths = st.lists(st.sampled_from(["a", "A", "b", "a_mask", "ab", "1"]), min_size=1, max_size=2)
files = st.sets(
    st.builds(lambda p, e: PurePath(*p[:-1], p[-1] + e), paths, st.sampled_from([".png", ".jpg"]))
)


@given(files, files, st.randoms())
def test_every_mask_is_paired_once_or_an_orphan_whatever_the_order(images, masks, random):
    pairing = pair_masks(sorted(images), sorted(masks))
    used = [mask for group in pairing.masks.values() for mask in group]
    assert sorted([*used, *pairing.orphans]) == sorted(masks)
    assert set(pairing.masks) <= images
    shuffled = [sorted(images), sorted(masks)]
    random.shuffle(shuffled[0])
    random.shuffle(shuffled[1])
    assert pair_masks(*shuffled) == pairing

"""Masks find their pictures by name, and only where no name fits by order."""

from pathlib import PurePath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zerodefect.data.pairing import pair_masks


def pairs_of(images, masks):
    pairing = pair_masks([PurePath(i) for i in images], [PurePath(m) for m in masks])
    named = {str(i): [str(m) for m in ms] for i, ms in pairing.masks.items()}
    return named, [str(m) for m in pairing.orphans], pairing.how


@pytest.mark.parametrize(
    "mask",
    [
        *("7.png", "7_mask.png", "7_label.bmp", "7_GT.png", "7_Segmentation.tif", "7_MASK.PNG"),
        *("mask_7.png", "GT_7.png", "label-7.png", "seg_7.png", "7-seg.png", "7.mask.png"),
        *("7_ground_truth.png", "ground-truth_7.png", "mask7.png", "7mask.png", "7_masks.png"),
        *("7.jpg.png", "7.jpg_mask.png", "7.png.png", "7_json/label.png", "7_gtFine_labelIds.png"),
        *("7_color_mask.png", "7_mask_0.png", "7 mask.png", "7_anno.png", "MASK7.png"),
    ],
)
def test_the_names_that_data_sets_and_tools_use(mask):
    assert pairs_of(["7.jpg"], [mask]) == ({"7.jpg": [mask]}, [], "name")


@pytest.mark.parametrize("image", ["image_7.jpg", "7_rgb.png", "IMG7.png", "7_leftImg8bit.png"])
def test_words_for_pictures_in_their_names(image):
    assert pairs_of([image], ["mask_7.png"]) == ({image: ["mask_7.png"]}, [], "name")


def test_the_whole_name_tells_twins_apart():
    images, masks = ["a.jpg", "a.png"], ["a.jpg.png", "a.png.png"]
    expected = {"a.jpg": ["a.jpg.png"], "a.png": ["a.png.png"]}
    assert pairs_of(images, masks) == (expected, [], "name")


def test_numbered_masks_are_all_their_pictures():
    images, masks = ["1.png", "2.png"], ["1_mask_0.png", "1_mask_1.png", "2_mask_0.png"]
    expected = {"1.png": masks[:2], "2.png": masks[2:]}
    assert pairs_of(images, masks) == (expected, [], "name")


def test_an_orphan_says_whom_it_claims():
    images = [PurePath("1.png"), PurePath("2.png"), PurePath("2.jpg")]
    masks = [PurePath("1_mask.png"), PurePath("1_gt.png"), PurePath("2_mask.png")]
    pairing = pair_masks(images, masks)
    assert pairing.claims == {
        PurePath("1_mask.png"): (PurePath("1.png"),),
        PurePath("2_mask.png"): (PurePath("2.jpg"), PurePath("2.png")),
    }


def test_a_picture_called_mask_does_not_take_its_neighbours_mask():
    images = ["a.png", "a_mask.png"]
    masks = ["a_mask.png", "a_mask_mask.png"]
    expected = {"a.png": ["a_mask.png"], "a_mask.png": ["a_mask_mask.png"]}
    assert pairs_of(images, masks) == (expected, [], "name")


def test_sub_folders_keep_equal_names_apart():
    images = ["background/1.png", "view/1.png"]
    masks = ["view/1.png", "background/1.png"]
    expected = {"background/1.png": ["background/1.png"], "view/1.png": ["view/1.png"]}
    assert pairs_of(images, masks) == (expected, [], "name")


def test_sub_folders_may_have_other_names_where_files_are_unique():
    assert pairs_of(["img/1.png"], ["label/1.png"]) == ({"img/1.png": ["label/1.png"]}, [], "name")


def test_a_folder_of_masks_per_picture():
    masks = ["000/000.png", "000/001.png", "001/000.png"]
    expected = {"000.png": ["000/000.png", "000/001.png"], "001.png": ["001/000.png"]}
    assert pairs_of(["000.png", "001.png"], masks) == (expected, [], "name")


def test_upper_case_and_decomposed_accents_are_the_same_name():
    images = ["Riß_é.png"]  # composed
    masks = ["riß_é_mask.png"]  # decomposed, as macOS stores it
    assert pairs_of(images, masks) == ({images[0]: masks}, [], "name")


def test_exact_case_comes_first():
    expected = {"A.png": ["A_mask.png"], "a.png": ["a_mask.png"]}
    assert pairs_of(["a.png", "A.png"], ["A_mask.png", "a_mask.png"]) == (expected, [], "name")


def test_a_name_that_fits_two_pictures_is_given_to_neither():
    result = pairs_of(["1.png", "1.jpg"], ["1_mask.png", "x_mask.png"])
    assert result == ({}, ["1_mask.png", "x_mask.png"], "name")


def test_a_second_mask_is_an_orphan():
    result = pairs_of(["1.png", "2.png"], ["1_mask.png", "2_mask.png", "1.bmp"])
    assert result == ({"1.png": ["1_mask.png"], "2.png": ["2_mask.png"]}, ["1.bmp"], "name")


def test_numbers_decide_where_no_name_fits():
    images = ["part10.png", "part9.png", "part8.png"]
    masks = ["m09.png", "m10.png", "m11.png"]
    expected = {"part9.png": ["m09.png"], "part10.png": ["m10.png"]}
    assert pairs_of(images, masks) == (expected, ["m11.png"], "number")


def test_order_decides_where_no_name_fits_and_counts_agree_and_one_side_has_no_numbers():
    images = ["left.png", "right.png"]
    masks = ["links.png", "rechts.png"]
    expected = {"left.png": ["links.png"], "right.png": ["rechts.png"]}
    assert pairs_of(images, masks) == (expected, [], "order")
    assert pairs_of(images, ["1.png", "2.png"])[2] == "order"


@pytest.mark.parametrize(
    "masks",
    [
        ["m8.png", "m9.png"],  # the one picture that agrees is paired, the other left alone
        ["task-3-annotation-7.png", "task-5-annotation-9.png"],
        ["8.png", "9.png"],
    ],
)
def test_picture_7_never_gets_mask_8(masks):
    pairs, orphans, _ = pairs_of(["part7.png", "part8.png"], masks)
    assert "part7.png" not in pairs
    assert len(orphans) == 2 - len(pairs)


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        (["a.png", "b.png"], ["x.png"]),  # counts differ
        (["a.png", "b.png"], ["a_mask.png", "x.png"]),  # some names do agree
    ],
)
def test_order_never_decides_otherwise(images, masks):
    pairs, orphans, how = pairs_of(images, masks)
    assert how == "name"
    assert "x.png" in orphans
    assert "b.png" not in pairs


names = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1)


@given(
    st.sets(names, min_size=1, max_size=8),
    st.sampled_from(["", "_mask", "_label", "_gt"]),
    st.randoms(),
)
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
    assert pairing.how == "name"


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

"""Every layout, from small trees of real files."""

import os
import random
import re
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from zerodefect.data import DatasetError, SplitRow, format_table, load_dataset
from zerodefect.data.folders import SPLITS, holds_masks
from zerodefect.data.words import says_good


def draw(path, size=(8, 6), value=200):
    """Write a grey picture of ``size`` (width, height)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, value).save(path, format="PNG")
    return path


def draw_product(root, good=2, train=3, kinds=("crack",), per_kind=2):
    for i in range(train):
        draw(root / "train" / "good" / f"{i:03d}.png")
    for i in range(good):
        draw(root / "test" / "good" / f"{i:03d}.png")
    for kind in kinds:
        for i in range(per_kind):
            draw(root / "test" / kind / f"{i:03d}.png")
            draw(root / "ground_truth" / kind / f"{i:03d}_mask.png", value=255)


def counts(dataset):
    return {(r.product, r.split, r.kind): (r.images, r.masks) for r in dataset.split_table()}


def reasons(dataset):
    return [(p.severity, p.reason) for p in dataset.problems]


def only_problem(dataset, severity, words):
    assert [p.severity for p in dataset.problems] == [severity]
    assert words in dataset.problems[0].reason
    assert dataset.problems[0].remedy
    return dataset.problems[0]


# The MVTec tree


def test_mvtec_one_product(tmp_path):
    draw_product(tmp_path / "bottle", kinds=("crack", "hole"))
    dataset = load_dataset(tmp_path / "bottle")
    assert (dataset.layout, dataset.name, dataset.products) == ("mvtec", "bottle", ("bottle",))
    assert counts(dataset) == {
        ("bottle", "train", "good"): (3, 0),
        ("bottle", "test", "good"): (2, 0),
        ("bottle", "test", "crack"): (2, 2),
        ("bottle", "test", "hole"): (2, 2),
    }
    assert not dataset.problems
    assert not dataset.notes
    crack = dataset.select(kind="crack").samples[1]
    assert crack.image == tmp_path / "bottle/test/crack/001.png"
    assert crack.mask == tmp_path / "bottle/ground_truth/crack/001_mask.png"
    assert (crack.anomalous, crack.split) == (True, "test")


def test_mvtec_several_products_in_natural_order(tmp_path):
    for product in ("part10", "part2"):
        draw_product(tmp_path / product)
    (tmp_path / "license.txt").write_text("free")
    dataset = load_dataset(tmp_path, layout="mvtec", name="parts")
    assert dataset.products == ("part2", "part10")
    assert dataset.name == "parts"
    assert len(dataset.select(product="part2")) == 7
    assert not dataset.problems


def test_the_name_is_the_product_of_a_single_product(tmp_path):
    draw_product(tmp_path / "p0001")
    assert load_dataset(tmp_path / "p0001", name="metal nut").products == ("metal nut",)


def test_btad_words_and_masks_of_the_pictures_name(tmp_path):
    draw(tmp_path / "01/train/ok/0.bmp")
    draw(tmp_path / "01/test/ok/0.bmp")
    draw(tmp_path / "01/test/ko/0.bmp")
    draw(tmp_path / "01/ground_truth/ko/0.png", value=255)
    dataset = load_dataset(tmp_path)
    assert counts(dataset) == {
        ("01", "train", "good"): (1, 0),
        ("01", "test", "good"): (1, 0),
        ("01", "test", "ko"): (1, 1),
    }


def test_loco_has_a_folder_of_masks_per_picture_and_a_validation_split(tmp_path):
    draw(tmp_path / "box/train/good/000.png")
    draw(tmp_path / "box/validation/good/000.png")
    draw(tmp_path / "box/test/good/000.png")
    for i in range(2):
        draw(tmp_path / f"box/test/logical_anomalies/00{i}.png")
        draw(tmp_path / f"box/ground_truth/logical_anomalies/00{i}/000.png", value=255)
    draw(tmp_path / "box/ground_truth/logical_anomalies/001/001.png", value=254)
    dataset = load_dataset(tmp_path)
    assert counts(dataset)["box", "validation", "good"] == (1, 0)
    one, two = dataset.select(kind="logical_anomalies")
    assert [m.name for m in one.masks] == ["000.png"]
    assert [m.name for m in two.masks] == ["000.png", "001.png"]
    assert two.mask == two.masks[0]
    assert not dataset.problems


def test_mvtec_3d_reads_the_colour_pictures_and_their_masks(tmp_path):
    for kind in ("good", "hole"):
        draw(tmp_path / f"tire/test/{kind}/rgb/000.png")
        draw(tmp_path / f"tire/test/{kind}/xyz/000.tiff")
    draw(tmp_path / "tire/test/hole/gt/000.png", value=255)
    draw(tmp_path / "tire/test/good/gt/000.png", value=0)
    draw(tmp_path / "tire/train/good/rgb/000.png")
    dataset = load_dataset(tmp_path)
    assert [s.image.parent.name for s in dataset] == ["rgb"] * 3
    assert counts(dataset)["tire", "test", "hole"] == (1, 1)
    assert not dataset.problems
    draw(tmp_path / "tire/test/good/gt/000.png", value=255)
    only_problem(load_dataset(tmp_path), "warning", "a good picture has a mask")
    assert any("point cloud: 2 of 3" in note for note in dataset.notes)


def test_a_part_of_mvtec_3d_may_lack_its_picture_or_its_cloud(tmp_path):
    for number in (0, 1):
        draw(tmp_path / f"tire/test/hole/rgb/00{number}.png")
        draw(tmp_path / f"tire/test/hole/gt/00{number}.png", value=255)
    for number in (1, 2):
        draw(tmp_path / f"tire/test/hole/xyz/00{number}.tiff")
    draw(tmp_path / "tire/test/hole/gt/002.png", value=255)
    draw(tmp_path / "tire/test/good/xyz/000.tiff")
    draw(tmp_path / "tire/train/good/rgb/000.png")
    dataset = load_dataset(tmp_path, sizes=False)
    found = {s.image.relative_to(tmp_path).as_posix(): s for s in dataset.select(split="test")}
    hole, xyz = "tire/test/hole/rgb/", "tire/test/hole/xyz/"
    assert set(found) == {
        f"{hole}000.png",
        f"{hole}001.png",
        f"{xyz}002.tiff",
        "tire/test/good/xyz/000.tiff",
    }
    assert found[f"{hole}000.png"].cloud is None
    assert found[f"{hole}001.png"].cloud == tmp_path / xyz / "001.tiff"
    alone = found[f"{xyz}002.tiff"]
    assert alone.cloud == alone.image
    assert alone.mask == tmp_path / "tire/test/hole/gt/002.png"
    assert any("2 of them without a picture" in note for note in dataset.notes)
    (tmp_path / xyz / "001.tiff").unlink()
    assert load_dataset(tmp_path, sizes=False).fingerprint() != dataset.fingerprint()


# Eyecandies


def test_eyecandies_reads_one_light_with_its_depth_label_and_mask(tmp_path):
    for place in ("train", "val", "test_public", "test_private"):
        for number in ("000", "001"):
            data = tmp_path / "Lollipop" / place / "data"
            for light in range(6):
                draw(data / f"{number}_image_{light}.png")
            draw(data / f"{number}_depth.png")
            (data / f"{number}_info_depth.yaml").write_text("normalization: {min: 1, max: 2}")
    public = tmp_path / "Lollipop/test_public/data"
    (public / "000_metadata.yaml").write_text("anomalous: 0\nbumps: 0\n")
    (public / "001_metadata.yaml").write_text("anomalous: 1\nbumps: 1\ndents: 1\n")
    for number in ("000", "001"):
        draw(public / f"{number}_mask.png", value=255 * int(number))
    dataset = load_dataset(tmp_path)
    assert dataset.layout == "eyecandies"
    assert counts(dataset) == {
        ("Lollipop", "train", "good"): (2, 0),
        ("Lollipop", "validation", "good"): (2, 0),
        ("Lollipop", "test", "good"): (1, 0),
        ("Lollipop", "test", "bumps+dents"): (1, 1),
        ("Lollipop", None, ""): (2, 0),
    }
    assert {s.image.name for s in dataset} == {"000_image_4.png", "001_image_4.png"}
    assert all(s.cloud.name == s.image.name.replace("image_4", "depth") for s in dataset)
    (public / "001_metadata.yaml").write_text("nothing")
    only_problem(load_dataset(tmp_path), "error", "does not say whether")
    with pytest.raises(DatasetError, match="test_public"):
        load_dataset(draw(tmp_path / "other/a.png").parent, layout="eyecandies")


def test_masks_beside_their_pictures_are_not_pictures(tmp_path):
    draw(tmp_path / "test/good/0.png")
    draw(tmp_path / "test/crack/0.png")
    draw(tmp_path / "test/crack/0_GT.png", value=255)
    dataset = load_dataset(tmp_path, name="x")
    assert counts(dataset) == {("x", "test", "good"): (1, 0), ("x", "test", "crack"): (1, 1)}


def test_split_folders_in_any_case_and_image_endings_in_any_case(tmp_path):
    draw(tmp_path / "Train/Good/0.PNG")
    draw(tmp_path / "TEST/Crack/0.Png")
    draw(tmp_path / "Ground_Truth/crack/0_mask.PNG", value=255)
    dataset = load_dataset(tmp_path, name="x")
    assert counts(dataset) == {("x", "train", "good"): (1, 0), ("x", "test", "Crack"): (1, 1)}


def test_one_kind_of_defect_needs_no_folder_for_its_masks(tmp_path):
    draw(tmp_path / "test/good/0.png")
    draw(tmp_path / "test/bad/1.png")
    draw(tmp_path / "ground_truth/1_mask.png", value=255)
    dataset = load_dataset(tmp_path, name="x")
    assert counts(dataset)["x", "test", "bad"] == (1, 1)
    assert not dataset.problems


def test_pictures_directly_in_a_split_have_no_label(tmp_path):
    draw(tmp_path / "train/1.png")
    draw(tmp_path / "test/good/1.png")
    dataset = load_dataset(tmp_path, name="x")
    assert counts(dataset)["x", "train", ""] == (1, 0)
    only_problem(dataset, "warning", "have no label")


# The plain folder


def test_bare_pictures_have_no_labels(tmp_path):
    for i in range(3):
        draw(tmp_path / "parts" / f"{i}.png")
    dataset = load_dataset(tmp_path / "parts")
    assert dataset.layout == "folder"
    assert counts(dataset) == {("parts", None, ""): (3, 0)}
    assert all(s.anomalous is None for s in dataset)
    assert any("no labels" in note for note in dataset.notes)
    assert any("image metrics only" in note for note in dataset.notes)


def test_good_beside_kinds_with_and_without_masks(tmp_path):
    for name in ("OK/0.png", "scratch/0.png", "label/0.png"):
        draw(tmp_path / "cap" / name)
    draw(tmp_path / "cap/masks/scratch/0.png", value=255)
    dataset = load_dataset(tmp_path / "cap")
    assert counts(dataset) == {
        ("cap", None, "good"): (1, 0),
        ("cap", None, "label"): (1, 0),  # a kind, not a folder of masks
        ("cap", None, "scratch"): (1, 1),
    }
    assert {s.split for s in dataset} == {None}
    only_problem(dataset, "warning", "no picture has a mask, of 1")


def test_several_products_without_splits(tmp_path):
    for name in ("nut/normal/0.png", "nut/bent/0.png", "cap/good/0.png"):
        draw(tmp_path / name)
    dataset = load_dataset(tmp_path)
    assert counts(dataset) == {
        ("cap", None, "good"): (1, 0),
        ("nut", None, "good"): (1, 0),
        ("nut", None, "bent"): (1, 0),
    }
    assert any("no defective pictures to test on" in n and "cap" in n for n in dataset.notes)


def test_several_products_without_labels(tmp_path):
    for name in ("nut/0.png", "cap/deep/er/0.png"):
        draw(tmp_path / name)
    assert counts(load_dataset(tmp_path)) == {("cap", None, ""): (1, 0), ("nut", None, ""): (1, 0)}


def test_pictures_and_masks_side_by_side(tmp_path):
    for i in range(2):
        draw(tmp_path / f"images/{i}.png")
        draw(tmp_path / f"masks/{i}.png", value=255)
    assert counts(load_dataset(tmp_path, name="colon")) == {("colon", None, ""): (2, 2)}


def test_kinds_without_good_are_kinds_if_they_have_masks(tmp_path):
    draw(tmp_path / "hole/0.png")
    draw(tmp_path / "ground_truth/hole/0_mask.png", value=255)
    assert counts(load_dataset(tmp_path, name="x")) == {("x", None, "hole"): (1, 1)}


def test_labels_that_lie_too_deep_are_not_passed_over(tmp_path):
    draw(tmp_path / "1cls/candle/test/good/0.png")
    dataset = load_dataset(tmp_path)
    problem = only_problem(dataset, "error", "lie deeper")
    assert "test" in problem.reason


def test_a_split_of_its_own_hints_at_the_folder_above(tmp_path):
    draw_product(tmp_path)
    dataset = load_dataset(tmp_path / "test")
    assert any("folder above" in note for note in dataset.notes)


# Problems


def test_train_with_defects(tmp_path):
    draw_product(tmp_path)
    draw(tmp_path / "train/crack/0.png")
    dataset = load_dataset(tmp_path, name="x")
    problem = next(p for p in dataset.problems if "training split" in p.reason)
    assert (problem.severity, problem.file) == ("warning", "x")
    assert counts(dataset)["x", "train", "crack"] == (1, 0)  # still where it was
    assert len(dataset.good_train("x")) == 3


def test_masks_without_pictures_and_pictures_without_masks(tmp_path):
    draw_product(tmp_path)
    (tmp_path / "ground_truth/crack/001_mask.png").rename(tmp_path / "ground_truth/crack/9.png")
    dataset = load_dataset(tmp_path, name="x")
    found = {(p.severity, Path(p.file).name, p.reason) for p in dataset.problems}
    assert (
        "error",
        "9.png",
        "this mask belongs to no picture, by its name",
    ) in found
    assert ("warning", "001.png", "a defective picture has no mask") in found
    assert len(found) == 2


def test_masks_of_a_kind_that_has_no_pictures(tmp_path):
    draw_product(tmp_path)
    draw(tmp_path / "ground_truth/hole/000_mask.png")
    problem = only_problem(load_dataset(tmp_path), "error", "no folder of pictures")
    assert Path(problem.file) == tmp_path / "ground_truth/hole/000_mask.png"


def test_two_masks_of_one_name_in_two_folders(tmp_path):
    draw_product(tmp_path, per_kind=1)
    draw(tmp_path / "masks/crack/000_mask.png")
    only_problem(load_dataset(tmp_path), "error", "another folder")


@pytest.mark.parametrize(
    ("names", "how"),
    [(["m0", "m1"], "paired by their numbers"), (["first", "second"], "paired in sorted order")],
)
def test_masks_paired_by_less_than_names_are_a_warning(tmp_path, names, how):
    draw_product(tmp_path)
    files = sorted((tmp_path / "ground_truth/crack").iterdir())
    for name, file in zip(names, files, strict=True):
        file.rename(file.with_name(f"{name}.png"))
    dataset = load_dataset(tmp_path)
    assert [s.mask.stem for s in dataset if s.anomalous] == names
    only_problem(dataset, "warning", f"2 masks were {how}")


def test_mask_of_another_size(tmp_path):
    draw_product(tmp_path)
    draw(tmp_path / "ground_truth/crack/000_mask.png", size=(6, 8))
    problem = only_problem(load_dataset(tmp_path), "error", "6 x 8 pixels, its picture 8 x 6")
    assert Path(problem.file) == tmp_path / "ground_truth/crack/000_mask.png"
    assert not load_dataset(tmp_path, sizes=False).problems


def test_a_turned_photograph_has_the_size_that_is_seen(tmp_path):
    draw_product(tmp_path, per_kind=1)
    exif = Image.Exif()
    exif[0x0112] = 6
    image = tmp_path / "test/crack/000.png"
    Image.new("L", (6, 8)).save(image, format="JPEG", exif=exif)  # shown as 8 x 6
    assert not load_dataset(tmp_path).problems


def test_unreadable_mask(tmp_path):
    draw_product(tmp_path)
    (tmp_path / "ground_truth/crack/000_mask.png").write_bytes(b"")
    only_problem(load_dataset(tmp_path), "error", "the file is empty")


def test_mask_of_a_good_picture(tmp_path):
    draw_product(tmp_path)
    draw(tmp_path / "ground_truth/good/000_mask.png", value=0)
    problem = only_problem(load_dataset(tmp_path), "warning", "a good picture has a mask")
    assert Path(problem.file) == tmp_path / "test/good/000.png"


def test_a_product_without_masks_among_others_that_have_them(tmp_path):
    draw_product(tmp_path / "a")
    draw_product(tmp_path / "b")
    shutil.rmtree(tmp_path / "b/ground_truth")
    problem = only_problem(
        load_dataset(tmp_path), "warning", "no defective picture has a mask, of 2"
    )
    assert problem.file == "b"


def test_no_masks_at_all_is_no_problem(tmp_path):
    draw_product(tmp_path)
    shutil.rmtree(tmp_path / "ground_truth")
    dataset = load_dataset(tmp_path)
    assert not dataset.problems
    assert "no masks: image metrics only" in dataset.notes


def test_empty_product_and_empty_kind(tmp_path):
    draw_product(tmp_path / "a")
    (tmp_path / "b/train/good").mkdir(parents=True)
    (tmp_path / "a/test/hole").mkdir()
    dataset = load_dataset(tmp_path)
    assert ("error", "the product has no pictures") in reasons(dataset)
    assert ("warning", "the folder holds no pictures") in reasons(dataset)
    assert dataset.products == ("a",)


def test_pictures_outside_the_tree_are_reported(tmp_path):
    draw_product(tmp_path / "a")
    draw(tmp_path / "a/extra/0.png")
    draw(tmp_path / "stray/0.png")
    dataset = load_dataset(tmp_path)
    assert {Path(p.file).name for p in dataset.problems} == {"extra", "stray"}
    assert len(dataset) == 7


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_links_back_up_are_harmless(tmp_path):
    draw_product(tmp_path / "a")
    before = load_dataset(tmp_path).split_table()
    (tmp_path / "loop").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "a/test/crack/loop").symlink_to(tmp_path / "a", target_is_directory=True)
    dataset = load_dataset(tmp_path)
    assert dataset.split_table() == before
    # the link leads the crack's folder to pictures that stand elsewhere under their own labels
    errors = [p.reason for p in dataset.problems if p.severity == "error"]
    said = ("the same picture is listed", "its name fits several pictures")
    assert all(reason.startswith(said) for reason in errors)


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_a_picture_reached_through_a_link_counts_once(tmp_path):
    draw_product(tmp_path)
    (tmp_path / "test/good/again.png").symlink_to(tmp_path / "train/good/000.png")
    dataset = load_dataset(tmp_path, name="x")
    problem = only_problem(dataset, "error", "x/train/good and as x/test/good")
    assert Path(problem.file).name == "again.png"
    assert counts(dataset)["x", "test", "good"] == (2, 0)


def test_the_order_of_the_disks_listing_does_not_matter(tmp_path, monkeypatch):
    for product in ("a", "b"):
        draw_product(tmp_path / product, kinds=("crack", "hole"))
    expected = load_dataset(tmp_path)
    listdir = os.listdir

    def shuffled(folder):
        names = listdir(folder)
        random.Random(1).shuffle(names)
        return names

    monkeypatch.setattr(os, "listdir", shuffled)
    assert load_dataset(tmp_path) == expected


# Errors


@pytest.mark.parametrize("make", [lambda p: None, lambda p: p.mkdir()])
def test_missing_or_empty_shows_the_layouts(tmp_path, make):
    make(tmp_path / "x")
    with pytest.raises(DatasetError) as caught:
        load_dataset(tmp_path / "x")
    text = str(caught.value)
    assert "├── train/good/000.png" in text
    assert all(f"\n{layout}:\n" in text for layout in ("folder", "mvtec", "meta", "csv"))


@pytest.mark.parametrize("layout", ["mvtec", "meta", "csv"])
def test_a_named_layout_that_is_not_there(tmp_path, layout):
    draw(tmp_path / "0.png")
    with pytest.raises(DatasetError, match=f"The layout {layout}:"):
        load_dataset(tmp_path, layout=layout)


def test_splits_are_not_taken_for_products(tmp_path):
    draw_product(tmp_path)
    with pytest.raises(DatasetError, match="this is the mvtec layout"):
        load_dataset(tmp_path, layout="folder")


def test_unknown_layout_and_stray_file(tmp_path):
    file = draw(tmp_path / "0.png")
    with pytest.raises(ValueError, match="no layout 'voc'"):
        load_dataset(tmp_path, layout="voc")
    with pytest.raises(
        DatasetError, match=r"only as meta\.json, a table or a labelling tool's export"
    ):
        load_dataset(file)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads all")
def test_a_closed_folder_is_reported(tmp_path):
    draw_product(tmp_path)
    closed = tmp_path / "test/crack"
    closed.chmod(0)
    try:
        dataset = load_dataset(tmp_path)
    finally:
        closed.chmod(0o755)
    assert any(p.severity == "error" and "cannot be read" in p.reason for p in dataset.problems)


# What a data set answers


def test_split_table_and_its_text(tmp_path):
    draw_product(tmp_path / "nut", kinds=("hole", "crack"))
    dataset = load_dataset(tmp_path / "nut")
    assert dataset.split_table() == (
        SplitRow("nut", "train", "good", 3, 0),
        SplitRow("nut", "test", "good", 2, 0),
        SplitRow("nut", "test", "crack", 2, 2),
        SplitRow("nut", "test", "hole", 2, 2),
    )
    assert format_table(dataset.split_table()).split("\n") == [
        "product  split  kind   pictures  with mask",
        "nut      train  good          3          -",
        "nut      test   good          2          -",
        "nut      test   crack         2          2",
        "nut      test   hole          2          2",
    ]
    assert dataset.kinds() == ("good", "crack", "hole")


def test_select_names_what_there_is(tmp_path):
    draw_product(tmp_path)
    dataset = load_dataset(tmp_path, name="x")
    assert [s.split for s in dataset.select(split="test", kind="good")] == ["test", "test"]
    with pytest.raises(ValueError, match="no pictures with kind 'hole'; there are: crack, good"):
        dataset.select(kind="hole")


def test_k_shot_is_a_nested_draw_without_replacement(tmp_path):
    draw_product(tmp_path, train=12)
    dataset = load_dataset(tmp_path, name="x")
    good = dataset.good_train("x")
    draws = {seed: dataset.k_shot("x", 12, seed) for seed in range(20)}
    assert all(set(drawn) == set(good) for drawn in draws.values())
    assert len({drawn[:4] for drawn in draws.values()}) == 20
    assert dataset.k_shot("x", 4, 3) == draws[3][:4]
    # fixed for good: figures of different releases must be of the same references
    assert [s.image.stem for s in dataset.k_shot("x", 4, 0)] == ["003", "000", "009", "002"]
    for k in (0, 13):
        with pytest.raises(ValueError, match=f"cannot draw {k} of 12"):
            dataset.k_shot("x", k, 0)


def test_k_shot_draws_all_equally_often(tmp_path):
    draw_product(tmp_path, train=10)
    dataset = load_dataset(tmp_path, name="x", sizes=False)
    times = dict.fromkeys(dataset.good_train("x"), 0)
    for seed in range(1000):
        for sample in dataset.k_shot("x", 2, seed):
            times[sample] += 1
    assert all(140 <= n <= 260 for n in times.values())  # 200 +- 12.6 (one standard deviation)


def test_fingerprint_follows_contents_and_not_the_place(tmp_path):
    draw_product(tmp_path / "one/nut")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    first, second = (load_dataset(tmp_path / n / "nut") for n in ("one", "two"))
    assert first.fingerprint() == second.fingerprint()
    prints = {first.fingerprint()}
    (tmp_path / "two/nut/test/good/000.png").rename(tmp_path / "two/nut/test/good/009.png")
    prints.add(load_dataset(tmp_path / "two/nut").fingerprint())
    with (tmp_path / "two/nut/ground_truth/crack/000_mask.png").open("ab") as file:
        file.write(b"more")
    prints.add(load_dataset(tmp_path / "two/nut").fingerprint())
    assert len(prints) == 3


NAME = st.text(
    st.characters(exclude_characters='/\\\0<>:"|?*', exclude_categories=["Cs", "Cc", "Z"]),
    min_size=1,
    max_size=12,
).filter(lambda name: not name.startswith(".") and not name.endswith("."))


def names_no_mask(stem):
    """False for a_mask beside a, which are a picture and its mask."""
    return not re.search("[-_.]|mask|label|gt|seg|ground", stem.casefold())


def names_nothing(name):
    return not (says_good(name) or holds_masks(name) or name.casefold() in {*SPLITS, "rgb", "xyz"})


@settings(max_examples=40, deadline=None)
@given(
    product=NAME.filter(names_nothing),
    kinds=st.sets(NAME.filter(names_nothing), min_size=1, max_size=3),
    # a.png and a_mask.png in one folder are a picture and its mask, so such names are left out
    stems=st.sets(
        NAME.filter(lambda n: not re.search("[-_.]|mask|label|gt|seg|ground", n.lower())),
        min_size=1,
        max_size=4,
    ),
    suffix=st.sampled_from(["", "_mask", "_GT"]),
)
def test_any_names_load_completely(product, kinds, stems, suffix):
    kinds = {k.casefold(): k for k in kinds}.values()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        try:
            for stem in stems:
                draw(root / product / "train" / "good" / f"{stem}.png")
                for kind in kinds:
                    draw(root / product / "test" / kind / f"{stem}.png")
                    draw(root / product / "ground_truth" / kind / f"{stem}{suffix}.png")
        except OSError:  # longer than this file system takes
            return
        dataset = load_dataset(root)
        n = len(stems)
        expected = {(product, "test", kind): (n, n) for kind in kinds}
        assert counts(dataset) == {**expected, (product, "train", "good"): (n, 0)}
        assert not dataset.problems
        for sample in dataset.select(split="test"):
            assert sample.mask.parent.name == sample.kind
            assert sample.mask.stem == sample.image.stem + suffix


def test_the_table_counts_every_sample(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(30):
        kind = rng.choice(["good", "hole", "crack"])
        split = rng.choice(["train", "test"])
        draw(tmp_path / f"p{i % 3}" / split / kind / f"{i}.png")
    dataset = load_dataset(tmp_path)
    assert sum(row.images for row in dataset.split_table()) == len(dataset) == 30
    for row in dataset.split_table():
        assert len(dataset.select(row.product, row.split, row.kind)) == row.images

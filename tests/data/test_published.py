"""Published data sets in their owners' layouts, from small trees; and the catalogue of them."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from zerodefect.data import (
    CATALOGUE,
    LAYOUTS,
    DatasetError,
    check_files,
    expected_layouts,
    find_known,
    load_dataset,
    read_channels,
    read_mask,
)
from zerodefect.images import ImageError


def draw(path, value=200, size=(8, 6)):
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = {".jpg": "JPEG", ".bmp": "BMP"}.get(path.suffix.lower(), "PNG")
    Image.new("L", size, value).save(path, format=kind)
    return path


def draw_spot(path, value=255):
    """A mask whose upper left corner is marked."""
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = np.zeros((6, 8), np.uint8)
    mask[:2, :3] = value
    Image.fromarray(mask).save(path)
    return path


def make_mvtec(root, product, good="good", bad="hole", ending=".png", mask="{}_mask.png"):
    draw(root / product / f"train/{good}/000{ending}")
    draw(root / product / f"test/{good}/000{ending}")
    draw(root / product / f"test/{bad}/000{ending}")
    draw_spot(root / product / f"ground_truth/{bad}" / mask.format("000"))


def make_visa(root):
    for product in ("candle", "pcb1"):
        data = root / product / "Data"
        draw(data / "Images/Normal/0000.JPG")
        draw(data / "Images/Anomaly/000.JPG")
        draw_spot(data / "Masks/Anomaly/000.png", value=2)


def make_visa_split(root):
    make_visa(root)
    lines = ["object,split,label,image,mask"]
    for product in ("candle", "pcb1"):
        data = f"{product}/Data"
        lines.append(f"{product},train,normal,{data}/Images/Normal/0000.JPG,")
        anomaly = f"{data}/Images/Anomaly/000.JPG,{data}/Masks/Anomaly/000.png"
        lines.append(f"{product},test,anomaly,{anomaly}")
    (root / "split_csv").mkdir()
    (root / "split_csv/1cls.csv").write_text("\n".join(lines) + "\n")


def make_visa_1cls(root):
    make_mvtec(root / "1cls", "candle", bad="bad", mask="{}.png")


def make_ksdd(root):
    for item, value in (("kos01", 0), ("kos02", 255)):
        draw(root / item / "Part0.jpg")
        (draw_spot if value else draw)(root / item / "Part0_label.bmp", value)


def make_ksdd2(root):
    for split, number in (("train", 10000), ("test", 20000)):
        draw(root / split / f"{number}.png")
        draw(root / split / f"{number}_GT.png", 0)
        draw(root / split / f"{number + 1}.png")
        draw_spot(root / split / f"{number + 1}_GT.png")


def make_dagm(root):
    for product in ("Class1", "Class10"):
        for split, number in (("Train", 576), ("Test", 1)):
            draw(root / product / split / f"{number:04d}.PNG")
            draw(root / product / split / f"{number + 1:04d}.PNG")
            draw_spot(root / product / split / f"Label/{number + 1:04d}_label.PNG")
            (root / product / split / "Label/Labels.txt").write_text("1\n")


def make_real_iad(root, prefix="audiojack/", size=512, protocol="realiad_jsons"):
    pictures = root / f"realiad_{size}" / "audiojack"
    good, bad = "OK/S0001/a_0001_OK_C1_2023.jpg", "NG/AK/S0001/a_0001_NG_AK_C1_2023"
    draw(pictures / good)
    draw(pictures / f"{bad}.jpg")
    draw_spot(pictures / f"{bad}_mask.png")
    entry = {"category": "audiojack", "anomaly_class": "OK", "mask_path": None}
    defective = {
        "category": "audiojack",
        "anomaly_class": "AK",
        "image_path": f"{bad}.jpg",
        "mask_path": f"{bad}_mask.png",
    }
    if not prefix:
        defective |= {k: f"audiojack/{defective[k]}" for k in ("image_path", "mask_path")}
        good = f"audiojack/{good}"
    content = {
        "meta": {"normal_class": "OK", "prefix": prefix},
        "train": [{**entry, "image_path": good}],
        "test": [defective],
    }
    folder = root / "realiad_jsons" / protocol
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "audiojack.json").write_text(json.dumps(content))


def make_loco(root, product="pushpins"):
    make_mvtec(root, product)
    folder = root / product
    shutil.rmtree(folder / "ground_truth")
    shutil.rmtree(folder / "test/hole")
    draw(folder / "validation/good/000.png")
    for kind, values in (("logical_anomalies", (255, 254)), ("structural_anomalies", (253,))):
        draw(folder / f"test/{kind}/000.png")
        for number, value in enumerate(values):
            draw_spot(folder / f"ground_truth/{kind}/000/{number:03d}.png", value)
    (folder / "defects_config.json").write_text(
        json.dumps(
            [
                {
                    "defect_name": name,
                    "pixel_value": value,
                    "saturation_threshold": threshold,
                    "relative_saturation": relative,
                }
                for name, value, threshold, relative in (
                    ("missing", 255, 4, False),
                    ("additional", 254, 0.5, True),
                    ("scratch", 253, 1.0, True),
                )
            ]
        )
    )


def make_head_ct(root):
    for number in range(3):
        draw(root / f"head_ct/head_ct/{number:03d}.png")
    (root / "labels.csv").write_text("id, hemorrhage\n0,0\n1,1\n2,1\n")


def make_brain_mri(root):
    draw(root / "brain_tumor_dataset/no/1 no.jpeg")
    draw(root / "brain_tumor_dataset/yes/Y1.jpg")


def make_yes_no(root):
    draw(root / "no/no0.jpg")
    draw(root / "yes/y0.jpg")


def make_isic(root):
    draw(root / "skin/test/bad/ISIC_0000003.jpg")
    truth = root / "skin/ISBI2016_ISIC_Part1_Test_GroundTruth"
    draw_spot(truth / "ISIC_0000003_Segmentation.png")


def make_images_masks(root):
    for number in (1, 2):
        draw(root / f"images/{number}.png")
        draw_spot(root / f"masks/{number}.png")


def make_tn3k(root):
    draw(root / "test-image/0000.jpg")
    draw_spot(root / "test-mask/0000.jpg")


def counts(dataset):
    return {(r.product, r.split, r.kind): (r.images, r.masks) for r in dataset.split_table()}


BOTH = {("train", "good"): (1, 0), ("train", "defect"): (1, 1)} | {
    ("test", "good"): (1, 0),
    ("test", "defect"): (1, 1),
}
VISA_SPLIT = {("train", "good"): (1, 0), ("test", "defect"): (1, 1)}
VISA_RAW = {(None, "good"): (1, 0), (None, "defect"): (1, 1)}
TREE = {("train", "good"): (1, 0), ("test", "good"): (1, 0)}


def of(products, rows):
    return {(p, *key): value for p in products for key, value in rows.items()}


# what the tree is, the layout that is recognised (None: it must be named), the data set, and what
# is in it
CASES = {
    "visa split": (make_visa_split, "visa", "visa", of(("candle", "pcb1"), VISA_SPLIT)),
    "visa raw": (make_visa, "visa", "visa", of(("candle", "pcb1"), VISA_RAW)),
    "visa 1cls": (make_visa_1cls, None, "visa", of(["candle"], TREE | {("test", "bad"): (1, 1)})),
    "mpdd": (
        lambda root: [make_mvtec(root, p) for p in ("tubes", "connector")],
        "mvtec",
        "mpdd",
        of(("tubes", "connector"), TREE | {("test", "hole"): (1, 1)}),
    ),
    "dtd": (
        lambda root: make_mvtec(root, "Woven_001", bad="bad", mask="{}.png"),
        "mvtec",
        "dtd",
        of(["Woven_001"], TREE | {("test", "bad"): (1, 1)}),
    ),
    "btad": (
        lambda root: [
            make_mvtec(root, "01", "ok", "ko", ".bmp", "{}.png"),
            make_mvtec(root, "03", "ok", "ko", ".bmp", "{}.bmp"),
        ],
        "mvtec",
        "btad",
        of(("01", "03"), TREE | {("test", "ko"): (1, 1)}),
    ),
    "ksdd": (make_ksdd, "ksdd", "ksdd", of(["electrical commutators"], VISA_RAW)),
    "ksdd2": (make_ksdd2, "ksdd2", "ksdd2", of(["ksdd2"], BOTH)),
    "dagm": (make_dagm, "dagm", "dagm", of(("Class1", "Class10"), BOTH)),
    "real-iad": (
        make_real_iad,
        "real-iad",
        "real-iad",
        {("audiojack", "train", "good"): (1, 0), ("audiojack", "test", "AK"): (1, 1)},
    ),
    "loco": (
        make_loco,
        "loco",
        "loco",
        of(
            ["pushpins"],
            TREE
            | {
                ("validation", "good"): (1, 0),
                ("test", "logical_anomalies"): (1, 1),
                ("test", "structural_anomalies"): (1, 1),
            },
        ),
    ),
    "headct": (
        make_head_ct,
        "headct",
        "headct",
        {("brain", "test", "good"): (1, 0), ("brain", "test", "defect"): (2, 0)},
    ),
    "headct tree": (
        lambda root: [draw(root / "brain/test/good/0.png"), draw(root / "brain/test/other/0.png")],
        "mvtec",
        "headct",
        {("brain", "test", "good"): (1, 0), ("brain", "test", "other"): (1, 0)},
    ),
    "brainmri": (
        make_brain_mri,
        "yes-no",
        "brainmri",
        {("brain", "test", "good"): (1, 0), ("brain", "test", "defect"): (1, 0)},
    ),
    "br35h": (
        make_yes_no,
        None,
        "br35h",
        {("brain", "test", "good"): (1, 0), ("brain", "test", "defect"): (1, 0)},
    ),
    "isic": (make_isic, "isic", "isic", {("skin", "test", "defect"): (1, 1)}),
    **{
        name: (make_images_masks, None, name, {("colon", "test", "defect"): (2, 2)})
        for name in ("colondb", "clinicdb", "kvasir", "endo", "cvc-300")
    },
    "tn3k": (make_tn3k, "images-masks", "tn3k", {("thyroid", "test", "defect"): (1, 1)}),
}


@pytest.mark.parametrize("case", CASES)
def test_a_named_data_set_is_read_completely(tmp_path, case):
    make, _, name, expected = CASES[case]
    make(tmp_path / "some folder")
    dataset = load_dataset(tmp_path / "some folder", layout=name)
    assert counts(dataset) == expected
    assert dataset.layout == find_known(name).layout
    assert not [p for p in dataset.problems if p.severity == "error"]
    for sample in dataset:
        assert sample.anomalous is (sample.kind != "good")
        if sample.mask:
            assert read_mask(sample).sum() == 6 or sample.mask.suffix == ".jpg"


@pytest.mark.parametrize("case", [name for name, (_, found, *_) in CASES.items() if found])
def test_what_cannot_be_mistaken_is_recognised(tmp_path, case):
    make, found, name, expected = CASES[case]
    make(tmp_path / "data")
    dataset = load_dataset(tmp_path / "data")
    assert dataset.layout == found
    # without its name, a data set of one class is called what its folder is called
    product = find_known(name).product or (name if name == "ksdd2" else None)
    if found != "mvtec":
        expected = {(("data" if k[0] == product else k[0]), *k[1:]): v for k, v in expected.items()}
    assert counts(dataset) == expected


@pytest.mark.parametrize(
    ("make", "folder"), [(make_images_masks, "CVC-ColonDB"), (make_yes_no, "Br35H")]
)
def test_what_could_be_anything_is_recognised_by_the_name_it_bears(tmp_path, make, folder):
    make(tmp_path / folder)
    named = load_dataset(tmp_path / folder)
    assert f"it is called {folder}" in named.reason
    assert all(sample.anomalous is not None for sample in named)
    assert named.products == (find_known(folder).product,)
    (tmp_path / folder).rename(tmp_path / "mine")
    assert {s.anomalous for s in load_dataset(tmp_path / "mine")} == {None}
    given = load_dataset(tmp_path / "mine", name=folder)  # --data NAME=PATH
    assert counts(given) == counts(named)


def test_the_tree_of_visas_script_is_found_under_the_name(tmp_path):
    make_visa_1cls(tmp_path / "data")
    assert load_dataset(tmp_path / "data", name="visa").products == ("candle",)


def test_the_users_own_name_of_a_product_counts(tmp_path):
    make_tn3k(tmp_path / "data")
    own = load_dataset(tmp_path / "data", layout="tn3k", name="thyroid gland")
    assert (own.name, own.products) == ("thyroid gland", ("thyroid gland",))
    assert load_dataset(tmp_path / "data", layout="tn3k").name == "tn3k"


@pytest.mark.parametrize("name", [known.name for known in CATALOGUE])
@pytest.mark.parametrize("make", [lambda root: draw(root / "pictures/0.png"), Path.mkdir])
def test_a_wrong_folder_shows_the_layout_and_what_was_found(tmp_path, name, make):
    make(tmp_path / "wrong")
    layout = name if name != "mvtec" else "mpdd"  # mvtec alone is a layout of its own
    with pytest.raises(DatasetError) as caught:
        load_dataset(tmp_path / "wrong", layout=layout)
    text = str(caught.value)
    assert str(tmp_path / "wrong") in text
    assert expected_layouts(layout).strip() in text and "──" in text
    found = "pictures/" if (tmp_path / "wrong/pictures").exists() else "no files"
    assert f"there are: {found}" in text


def test_a_missing_folder_shows_the_layout_and_its_neighbours(tmp_path):
    (tmp_path / "KSDD-2").mkdir()
    with pytest.raises(DatasetError, match=r"no such file or folder[\s\S]*_GT\.png") as caught:
        load_dataset(tmp_path / "ksdd2", layout="ksdd2")
    assert f"In {tmp_path} there are: KSDD-2/" in str(caught.value)


def test_missing_and_strange_products_are_noted(tmp_path):
    for product in ("tubes", "connector", "bottle"):
        make_mvtec(tmp_path, product)
    notes = load_dataset(tmp_path, layout="mpdd").notes
    assert any("missing: bracket_black, bracket_brown, bracket_white, metal" in n for n in notes)
    assert "these are no products of MPDD: bottle" in notes
    assert not any("missing" in n for n in load_dataset(tmp_path, layout="mvtec").notes)


# --- what is particular to one of them ------------------------------------------------------------


def test_a_single_class_of_visa_and_of_dagm(tmp_path):
    make_visa(tmp_path / "visa")
    make_dagm(tmp_path / "dagm")
    for folder, product in (("visa/pcb1", "pcb1"), ("dagm/Class1", "Class1")):
        assert load_dataset(tmp_path / folder).products == (product,)


def test_visa_without_its_split_table_has_no_splits_and_says_so(tmp_path):
    make_visa(tmp_path)
    dataset = load_dataset(tmp_path)
    assert {s.split for s in dataset} == {None}
    assert any("no split_csv/1cls.csv" in note for note in dataset.notes)


@pytest.mark.parametrize("gone", ["Masks/Anomaly", "Images/Normal", "Images/Anomaly"])
def test_visa_with_a_folder_missing_is_read_all_the_same(tmp_path, gone):
    make_visa(tmp_path)
    shutil.rmtree(tmp_path / "candle/Data" / gone)
    dataset = load_dataset(tmp_path)
    assert len(dataset.select(product="candle")) == (2 if "Masks" in gone else 1)
    assert counts(dataset)["pcb1", None, "defect"] == (1, 1)


def test_kolektor_labels_come_from_the_masks(tmp_path):
    make_ksdd2(tmp_path)
    (tmp_path / "test/20001_GT.png").write_bytes(b"torn")
    (tmp_path / "train/10000_GT.png").unlink()
    draw(tmp_path / "train/10001.bmp")
    draw(tmp_path / "train/9_GT.png")
    dataset = load_dataset(tmp_path, layout="ksdd2", name="steel")
    assert counts(dataset)["steel", "test", ""] == (1, 0)
    assert counts(dataset)["steel", "train", ""] == (1, 0)
    errors = {Path(p.file).name: p.reason for p in dataset.problems if p.severity == "error"}
    assert "label of its picture is not known" in errors["20001_GT.png"]
    assert "its label is not known" in errors["10000.png"]
    assert {"10001.png", "10001.bmp"} & errors.keys()
    assert "belongs to no picture" in errors["9_GT.png"]
    # a picture without a mask could be anything, so that this is recognised no more
    assert load_dataset(tmp_path).layout == "mvtec"


def test_kolektor_masks_in_any_picture_format(tmp_path):
    make_ksdd2(tmp_path)
    for mask in tmp_path.rglob("*_GT.png"):
        with Image.open(mask) as image:
            image.convert("RGB").save(mask)
    assert counts(load_dataset(tmp_path, name="x")) == of("x", BOTH)


def test_dagm_folders_of_others_are_not_taken_for_it(tmp_path):
    draw(tmp_path / "train/0.png")
    draw_spot(tmp_path / "train/label/0.png")  # no _label in its name
    dataset = load_dataset(tmp_path)
    assert {s.anomalous for s in dataset} == {None}


def test_dagm_masks_without_a_picture_are_reported(tmp_path):
    make_dagm(tmp_path)
    draw_spot(tmp_path / "Class1/Test/Label/0900_label.PNG")
    (problem,) = (p for p in load_dataset(tmp_path).problems if p.severity == "error")
    assert Path(problem.file).name == "0900_label.PNG"


@pytest.mark.parametrize("prefix", ["audiojack/", "", "elsewhere/"])
def test_real_iad_paths_with_and_without_prefix(tmp_path, prefix):
    make_real_iad(tmp_path, prefix)
    dataset = load_dataset(tmp_path)
    assert [(s.kind, bool(s.mask)) for s in dataset] == [("good", False), ("AK", True)]
    assert not dataset.problems


def test_real_iad_sizes_and_protocols(tmp_path):
    make_real_iad(tmp_path, size=256)
    make_real_iad(tmp_path, size=1024)
    make_real_iad(tmp_path, protocol="realiad_jsons_sv")
    file = tmp_path / "realiad_jsons/realiad_jsons_sv/audiojack.json"
    content = json.loads(file.read_text())
    content["train"] = []
    file.write_text(json.dumps(content))
    whole = load_dataset(tmp_path)
    assert "realiad_1024" in str(whole.samples[0].image) and len(whole) == 2
    assert any("realiad_256, realiad_512 name that folder" in note for note in whole.notes)
    assert "realiad_256" in str(load_dataset(tmp_path / "realiad_256").samples[0].image)
    for place in (file.parent, file):
        assert [s.kind for s in load_dataset(place)] == ["AK"]
        assert [s.kind for s in load_dataset(place, layout="real-iad")] == ["AK"]


def test_real_iad_faults_are_reported(tmp_path):
    make_real_iad(tmp_path)
    file = tmp_path / "realiad_jsons/realiad_jsons/audiojack.json"
    content = json.loads(file.read_text())
    content["test"] += [
        {"image_path": "NG/gone.jpg", "anomaly_class": "AK"},
        {**content["test"][0], "mask_path": "NG/gone.png"},
        {"image_path": content["train"][0]["image_path"]},
        "text",
        {},
    ]
    file.write_text(json.dumps(content))
    reasons = " ".join(p.reason for p in load_dataset(tmp_path).problems)
    for words in ("NG/gone.jpg", "NG/gone.png", "no anomaly_class", "no entry", "names no picture"):
        assert words in reasons
    file.write_text("{")
    with pytest.raises(DatasetError, match="anomaly_class"):
        load_dataset(tmp_path, layout="real-iad")
    file.write_text('{"meta": {"prefix": ""}}')
    with pytest.raises(DatasetError, match="no list called train or test"):
        load_dataset(tmp_path)
    shutil.rmtree(tmp_path / "realiad_512")
    with pytest.raises(DatasetError, match="no folder realiad_256"):
        load_dataset(tmp_path)


def test_head_ct_labels_and_pictures_must_agree(tmp_path):
    make_head_ct(tmp_path)
    (tmp_path / "labels.csv").write_text("id, hemorrhage\n0,0\n7,1\nx,1\n2,maybe\n")
    dataset = load_dataset(tmp_path)
    reasons = [p.reason for p in dataset.problems]
    assert len(dataset) == 1
    assert sum("does not name it" in r for r in reasons) == 2
    assert sum("not understood" in r for r in reasons) == 2
    assert "there is no picture for id 7" in reasons


def test_folders_beside_yes_and_no_are_named(tmp_path):
    make_brain_mri(tmp_path)
    make_yes_no(tmp_path)
    dataset = load_dataset(tmp_path)
    assert len(dataset) == 2
    assert {Path(p.file).name for p in dataset.problems} == {"yes", "no"}


def test_isic_folder_itself_and_loose_pictures(tmp_path):
    make_isic(tmp_path)
    draw(tmp_path / "skin/ISIC_0000009.jpg")
    dataset = load_dataset(tmp_path / "skin", layout="isic")
    assert counts(dataset) == {("skin", "test", "defect"): (2, 1)}
    assert "a defective picture has no mask" in [p.reason for p in dataset.problems]


def test_all_masks_of_a_picture_count_in_segmentation_sets(tmp_path):
    draw(tmp_path / "images/1.png")
    for name in ("a", "b"):
        draw_spot(tmp_path / f"masks/1/{name}.png")
    (sample,) = load_dataset(tmp_path, layout="colondb")
    assert [mask.name for mask in sample.masks] == ["a.png", "b.png"]


@pytest.mark.parametrize("case", ["visa raw", "ksdd2", "dagm", "real-iad", "loco", "isic"])
def test_the_order_of_the_disks_listing_does_not_matter(tmp_path, monkeypatch, case):
    CASES[case][0](tmp_path)
    expected = load_dataset(tmp_path, layout=CASES[case][2])
    listdir = os.listdir
    monkeypatch.setattr(os, "listdir", lambda folder: sorted(listdir(folder), reverse=True))
    assert load_dataset(tmp_path, layout=CASES[case][2]) == expected


# --- MVTec LOCO AD --------------------------------------------------------------------------------


def test_loco_knows_what_its_masks_mean(tmp_path):
    make_loco(tmp_path)
    dataset = load_dataset(tmp_path)
    kinds = dataset.defects["pushpins"]
    assert [(k.name, k.pixel_value, k.saturation, k.relative) for k in kinds] == [
        ("missing", 255, 4.0, False),
        ("additional", 254, 0.5, True),
        ("scratch", 253, 1.0, True),
    ]
    (sample,) = dataset.select(kind="logical_anomalies")
    channels = read_channels(sample, kinds)
    assert [kind.name for _, kind in channels] == ["missing", "additional"]
    assert all(mask.sum() == 6 and mask.dtype == bool for mask, _ in channels)
    (good, *_) = dataset.select(split="test", kind="good")
    assert read_channels(good, kinds) == []
    assert load_dataset(tmp_path / "pushpins").defects == dataset.defects
    found = [p.reason for p in check_files(dataset, deep=True).problems]
    assert {reason.split(" as ")[0] for reason in found} == {"it shows the same pixels"}


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda mask: draw_spot(mask, 7), "the values here are 7, of the kinds 253, 254, 255"),
        (lambda mask: draw(mask, 0), "the values here are none"),
        (lambda mask: draw(mask, 254, (4, 4)), "another size than 000.png"),
    ],
)
def test_loco_masks_that_mean_nothing(tmp_path, damage, words):
    make_loco(tmp_path)
    damage(tmp_path / "pushpins/ground_truth/logical_anomalies/000/001.png")
    dataset = load_dataset(tmp_path)
    (sample,) = dataset.select(kind="logical_anomalies")
    with pytest.raises(ImageError, match=words):
        read_channels(sample, dataset.defects["pushpins"])
    reasons = [p.reason for p in check_files(dataset, deep=True).problems]
    assert any(words in reason or "the mask is 4 x 4 pixels" in reason for reason in reasons)


@pytest.mark.parametrize(
    "text",
    ["{", "7", "[{}]", "[7]"]
    + [
        json.dumps(
            [
                {
                    "defect_name": "x",
                    "pixel_value": value,
                    "saturation_threshold": threshold,
                    "relative_saturation": True,
                }
                for value in values
            ]
        )
        for values, threshold in (((255, 255), 1), ((0,), 1), ((255,), 0), ((255,), 1.5))
    ],
)
def test_loco_configurations_that_cannot_be_used_are_reported(tmp_path, text):
    make_loco(tmp_path)
    (tmp_path / "pushpins/defects_config.json").write_text(text)
    dataset = load_dataset(tmp_path)
    assert not dataset.defects and len(dataset) == 5
    assert any("so no sPRO" in p.reason and p.severity == "error" for p in dataset.problems)


def test_loco_product_without_configuration(tmp_path):
    make_loco(tmp_path)
    make_loco(tmp_path, "screw_bag")
    (tmp_path / "screw_bag/defects_config.json").unlink()
    dataset = load_dataset(tmp_path)
    assert set(dataset.defects) == {"pushpins"}
    assert any("screw_bag" in p.file and "no sPRO" in p.reason for p in dataset.problems)


# --- the catalogue --------------------------------------------------------------------------------


def test_every_entry_can_be_looked_up_and_drawn():
    names = [known.name for known in CATALOGUE]
    assert len(set(names)) == len(names)
    for known in CATALOGUE:
        assert known.name in LAYOUTS and known.layout in LAYOUTS
        for name in (known.name, known.title, *known.aliases):
            assert find_known(name) is known
        assert "──" in expected_layouts(known.name)
        assert known.licence and known.source and known.pictures
        assert len(known.products) in (0, known.count)
    assert find_known("MVTec_AD").name == "mvtec"
    assert find_known("parts") is None


def test_the_documentation_has_every_entry_and_its_terms():
    text = (Path(__file__).parents[2] / "docs" / "datasets.md").read_text("utf-8")
    rows = {line.split("|")[2].strip(): line for line in text.splitlines() if line.startswith("|")}
    for known in CATALOGUE:
        row = rows[f"`{known.name}`"]
        assert f"`{known.layout}`" in row
        assert known.licence.split(",")[0] in row or "research use" in row

"""Data sets described by a file: meta.json, CSV, TSV, JSON lines."""

import csv
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from zerodefect.data import DatasetError, load_dataset
from zerodefect.data.words import says_good


def draw(path, value=200):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (8, 6), value).save(path, format="PNG")
    return path


def facts(dataset):
    """What each sample says, with paths relative to the root."""
    return [
        (
            dataset.relative(s.image),
            dataset.relative(s.mask) if s.mask else None,
            s.product,
            s.kind,
            s.anomalous,
            s.split,
        )
        for s in dataset
    ]


def entry(image, mask="", product="nut", kind="good", anomaly=0):
    return {
        "img_path": image,
        "mask_path": mask,
        "cls_name": product,
        "specie_name": kind,
        "anomaly": anomaly,
    }


def write_meta(root, content):
    (root / "meta.json").write_text(json.dumps(content), encoding="utf-8")


@pytest.fixture
def parts(tmp_path):
    """A good and a cracked part, and the crack's mask."""
    draw(tmp_path / "nut/good/0.png")
    draw(tmp_path / "nut/crack/1.png")
    draw(tmp_path / "truth/1.png", value=255)
    return tmp_path


EXPECTED = [
    ("nut/good/0.png", None, "nut", "good", False, "train"),
    ("nut/crack/1.png", "truth/1.png", "nut", "crack", True, "test"),
]


def write_csv(root, text, name="parts.csv", encoding="utf-8"):
    (root / name).write_bytes(text.encode(encoding))


# meta.json


@pytest.mark.parametrize("keys", [("train", "test"), ("Train", "TEST")])
def test_meta(parts, keys):
    train = {"nut": [entry("nut/good/0.png")]}
    test = {"nut": [entry("nut/crack/1.png", "truth/1.png", "nut", "crack", 1)]}
    write_meta(parts, {keys[0]: train, keys[1]: test})
    dataset = load_dataset(parts)
    assert dataset.layout == "meta"
    assert facts(dataset) == EXPECTED
    assert not dataset.problems
    assert facts(load_dataset(parts / "meta.json")) == EXPECTED


def test_the_order_of_entries_does_not_matter(parts):
    entries = [entry(f"nut/good/{i}.png") for i in (10, 9, 0)]
    for i in (9, 10):
        draw(parts / f"nut/good/{i}.png")
    loaded = []
    for listed in (entries, entries[::-1]):
        write_meta(parts, {"train": {"nut": listed}})
        loaded.append(load_dataset(parts))
    assert loaded[0] == loaded[1]
    assert [s.image.name for s in loaded[0]] == ["0.png", "9.png", "10.png"]
    assert loaded[0].k_shot("nut", 1, 5) == loaded[1].k_shot("nut", 1, 5)


def test_meta_with_absolute_paths_and_backslashes(parts):
    test = [
        entry(str(parts / "nut/good/0.png"), kind=""),
        entry("nut\\crack\\1.png", "truth\\1.png", "nut", "crack", 1),
    ]
    write_meta(parts, {"test": {"nut": test}})
    dataset = load_dataset(parts, layout="meta")
    assert [(i, m, k) for i, m, _, k, _, _ in facts(dataset)] == [
        ("nut/good/0.png", None, "good"),
        ("nut/crack/1.png", "truth/1.png", "crack"),
    ]
    assert not dataset.problems


@pytest.mark.parametrize(
    "prefix", ["C:\\data\\sets\\", "/home/someone/sets/", "s3://bucket/sets/", "\\\\nas\\sets\\"]
)
def test_paths_of_another_machine_are_found_by_their_end_and_noted(parts, prefix):
    separator = "\\" if "\\" in prefix else "/"
    image = prefix + separator.join(["nut", "good", "0.png"])
    write_meta(parts, {"test": {"nut": [entry(image)]}})
    dataset = load_dataset(parts)
    assert facts(dataset) == [("nut/good/0.png", None, "nut", "good", False, "test")]
    assert any("paths that point to another place" in note for note in dataset.notes)


def test_a_bare_file_name_of_another_machine_is_not_guessed(parts):
    draw(parts / "0.png")
    write_meta(parts, {"test": {"nut": [entry("/elsewhere/0.png"), entry("nut/good/0.png")]}})
    dataset = load_dataset(parts)
    assert len(dataset) == 1
    (problem,) = dataset.problems
    assert (problem.severity, problem.file.endswith("meta.json: test/nut entry 1")) == (
        "error",
        True,
    )
    assert "no such file: picture /elsewhere/0.png" in problem.reason


def test_meta_with_missing_masks_and_entries(parts):
    test = [entry("nut/crack/1.png", "truth/2.png", "nut", "crack", 1), {"anomaly": 0}, "what"]
    write_meta(parts, {"test": {"nut": test, "cap": [], "bolt": 3}, "notes": {"x": 1}})
    found = {p.reason.split(":")[0] for p in load_dataset(parts).problems}
    assert found == {
        "there is no such file",
        "the entry names no picture",
        "there are no entries",
        "this is no list of entries",
        "this part is not read",
        "nothing here means good; read as kinds of defects",
    }


def test_meta_of_another_program_is_not_used_but_named(parts):
    write_meta(parts, {"version": 1})
    dataset = load_dataset(parts)
    assert dataset.layout == "folder"
    assert any("not used" in p.reason for p in dataset.problems)
    with pytest.raises(DatasetError, match="'train' or 'test'"):
        load_dataset(parts, layout="meta")


def test_broken_meta(parts):
    (parts / "meta.json").write_text("{")
    with pytest.raises(DatasetError, match="not JSON"):
        load_dataset(parts / "meta.json")


def test_a_broken_meta_is_named_where_nothing_else_is_there(tmp_path):
    (tmp_path / "meta.json").write_text("{bad", encoding="utf-8")
    with pytest.raises(DatasetError, match=r"meta\.json: it is not JSON"):
        load_dataset(tmp_path)


def test_all_pictures_missing_is_an_error(tmp_path):
    write_meta(tmp_path, {"test": {"nut": [entry("nut/0.png")]}})
    with pytest.raises(DatasetError, match=r"no pictures were found.*nut/0\.png"):
        load_dataset(tmp_path)


def test_meta_listing_a_picture_twice(parts):
    once = entry("nut/good/0.png")
    write_meta(parts, {"train": {"nut": [once, once]}, "test": {"nut": [once]}})
    dataset = load_dataset(parts)
    assert facts(dataset) == [EXPECTED[0]]
    assert [p.severity for p in dataset.problems] == ["warning", "error"]
    assert "nut/train/good and as nut/test/good" in dataset.problems[1].reason


def test_masks_and_labels_that_contradict(parts):
    test = [
        entry("nut/good/0.png", "truth/1.png"),
        entry("nut/crack/1.png", "", "nut", "crack", 0),
        entry(str(draw(parts / "a.png")), "", "nut", "good", 1),
    ]
    write_meta(parts, {"test": {"nut": test}})
    dataset = load_dataset(parts)
    assert [(s.kind, s.anomalous) for s in dataset] == [
        ("good", False),
        ("good", False),
        ("defect", True),
    ]
    text = "\n".join(p.reason for p in dataset.problems)
    assert "the label says good (0) but the kind says 'crack'" in text
    assert "the label says defective (1) but the kind says 'good'" in text
    assert "a good picture has a mask" in text


# CSV and JSON lines


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_csv(parts, delimiter, encoding):
    lines = [
        ["Image", "Label", "Mask", "Product", "Kind", "Split"],
        ["nut/good/0.png", "0", "", "nut", "good", "Train"],
        ["nut\\crack\\1.png", "1", "truth\\1.png", "nut", "crack", "test"],
    ]
    text = "\r\n".join(delimiter.join(line) for line in lines)
    write_csv(parts, text, encoding=encoding)
    dataset = load_dataset(parts)
    assert dataset.layout == "csv"
    assert facts(dataset) == EXPECTED
    assert not dataset.problems


def test_visa_split_csv(tmp_path):
    draw(tmp_path / "candle/Data/Images/Normal/0000.JPG")
    draw(tmp_path / "candle/Data/Images/Anomaly/000.JPG")
    draw(tmp_path / "candle/Data/Masks/Anomaly/000.png", value=2)
    (tmp_path / "split_csv").mkdir()
    text = (
        "object,split,label,image,mask\n"
        "candle,train,normal,candle/Data/Images/Normal/0000.JPG,\n"
        "candle,test,anomaly,candle/Data/Images/Anomaly/000.JPG,"
        "candle/Data/Masks/Anomaly/000.png\n"
    )
    write_csv(tmp_path / "split_csv", text, "1cls.csv")
    write_csv(tmp_path / "split_csv", text, "2cls_fewshot.csv")
    for path in (tmp_path, tmp_path / "split_csv/2cls_fewshot.csv"):
        dataset = load_dataset(path)
        assert [(s.product, s.kind, s.split, bool(s.mask)) for s in dataset] == [
            ("candle", "good", "train", False),
            ("candle", "defect", "test", True),
        ]
        assert not dataset.problems


def test_only_the_picture_is_needed(parts):
    write_csv(parts, "path\nnut/good/0.png\nnut/crack/1.png\n")
    dataset = load_dataset(parts / "parts.csv", name="nuts")
    assert [f[2:] for f in facts(dataset)] == [("nuts", "", None, None)] * 2
    assert any("no labels" in note for note in dataset.notes)


@pytest.mark.parametrize(
    ("label", "kind", "anomalous"),
    [
        ("0", "good", False),
        ("0.0", "good", False),
        ("False", "good", False),
        ("OK", "good", False),
        ("1", "defect", True),
        ("1.0", "defect", True),
        ("NG", "defect", True),
        ("true", "defect", True),
        ("deep scratch", "deep scratch", True),
        ("", "", None),
        ("nan", "", None),
    ],
)
def test_labels_as_people_write_them(parts, label, kind, anomalous):
    write_csv(parts, f"image,label\nnut/good/0.png,{label}\n")
    (sample,) = load_dataset(parts / "parts.csv")
    assert (sample.kind, sample.anomalous) == (kind, anomalous)


def test_labels_and_splits_that_mean_nothing(parts):
    write_csv(parts, "image,label,split\nnut/good/0.png,-7,holdout\n")
    dataset = load_dataset(parts)
    assert facts(dataset)[0][3:] == ("", None, None)
    assert {p.reason.split(",")[0] for p in dataset.problems} == {
        "the label -7 is not understood",
        "the split 'holdout' is not understood",
    }


def test_a_class_column_is_the_label_only_where_nothing_else_is(parts):
    write_csv(parts, "image,class\nnut/good/0.png,good\nnut/crack/1.png,crack\n")
    assert [(s.product, s.kind) for s in load_dataset(parts, name="n")] == [
        ("n", "good"),
        ("n", "crack"),
    ]
    write_csv(parts, "image,class,label\nnut/good/0.png,nut,0\nnut/crack/1.png,nut,1\n")
    assert [(s.product, s.kind) for s in load_dataset(parts)] == [
        ("nut", "good"),
        ("nut", "defect"),
    ]


def test_json_lines_of_lookout(parts):
    rows = [
        {
            "source-ref": "s3://bucket/data/nut/good/0.png",
            "anomaly-label": 0,
            "anomaly-label-metadata": {"class-name": "normal"},
        },
        {
            "source-ref": "s3://bucket/data/nut/crack/1.png",
            "anomaly-label": 1,
            "anomaly-mask-ref": "s3://bucket/data/truth/1.png",
        },
    ]
    text = "\n".join(json.dumps(row) for row in rows)
    write_csv(parts, text, "train.manifest")
    dataset = load_dataset(parts, name="n")
    assert [(i, m, k, a) for i, m, _, k, a, _ in facts(dataset)] == [
        ("nut/good/0.png", None, "good", False),
        ("nut/crack/1.png", "truth/1.png", "defect", True),
    ]


def test_json_lines_with_plain_values(parts):
    rows = [{"image_path": "nut/good/0.png", "label": 0.0, "class_name": "nut", "mask_path": None}]
    write_csv(parts, "\n".join(json.dumps(row) for row in rows) + "\n\n", "x.jsonl")
    assert facts(load_dataset(parts)) == [("nut/good/0.png", None, "nut", "good", False, None)]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("x.jsonl", '{"image": "a"}\n{', "line 2 is not JSON"),
        ("x.jsonl", "[1]", "line 1 is not an object"),
        ("x.csv", "name,label\na,0\n", "no column for the picture \\(its columns: name, label\\)"),
        ("x.csv", "", "no column for the picture"),
    ],
)
def test_tables_that_cannot_be_used(parts, name, text, words):
    write_csv(parts, text, name)
    with pytest.raises(DatasetError, match=words):
        load_dataset(parts / name)


def test_a_table_that_is_not_text(parts):
    (parts / "x.csv").write_bytes(b"image\n\xff\xfe\x00\xd8")
    with pytest.raises(DatasetError, match="not UTF-8"):
        load_dataset(parts / "x.csv")


def test_several_tables_are_not_guessed_between(parts):
    for name in ("a.csv", "b.csv"):
        write_csv(parts, "image,label\nnut/good/0.png,0\n", name)
    with pytest.raises(DatasetError, match=r"several tables could describe it: a\.csv, b\.csv"):
        load_dataset(parts)


def test_a_table_of_something_else_is_passed_over(parts):
    write_csv(parts, "time,temperature\n1,20\n", "log.csv")
    write_csv(parts, "image,width\nnut/good/0.png,8\n", "sizes.csv")
    assert load_dataset(parts).layout == "folder"


def test_overlong_and_odd_paths_are_missing_files(parts):
    write_csv(parts, f"image,label\n{'x' * 5000},0\nnut/good/0.png,0\n")
    dataset = load_dataset(parts)
    assert len(dataset) == 1
    assert [p.severity for p in dataset.problems] == ["error"]


NAME = st.text(
    st.characters(exclude_characters='/\\\0<>:"|?*', exclude_categories=["Cs", "Cc", "Z"]),
    min_size=1,
    max_size=12,
).filter(lambda n: n.casefold() not in {"nan", "none", "null"})


@settings(max_examples=40, deadline=None)
@given(product=NAME, kind=NAME, stem=NAME)
def test_any_names_survive_both_formats(tmp_path_factory, product, kind, stem):
    root = tmp_path_factory.mktemp("names")
    image = f"pictures/{stem}.png"
    draw(root / image)
    write_meta(root, {"test": {product: [entry(image, "", product, kind, 1)]}})
    with (root / "parts.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(
            [["image", "product", "kind", "label", "split"], [image, product, kind, 1, "test"]]
        )
    (meta,) = facts(load_dataset(root / "meta.json"))
    (table,) = facts(load_dataset(root / "parts.csv"))
    assert meta == table
    assert meta[0] == image
    assert meta[2] == product
    assert meta[3] == ("defect" if says_good(kind) else kind)
    assert Path(meta[0]).stem == stem

"""The words, tables and file names that plants and annotation tools use."""

import errno
import json
import os

import pytest
from PIL import Image

from zerodefect.data import distinct, load_dataset
from zerodefect.data.words import says_good


def draw(path, value=200, size=(8, 6)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, value).save(path, format="PNG")
    return path


def labels(dataset):
    return {dataset.relative(s.image): (s.kind, s.anomalous) for s in dataset}


def said(dataset):
    return [f"{p.severity}: {p.reason}" for p in dataset.problems]


# Words


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ("ok", "nok"),
        ("OK", "NG"),
        ("iO", "niO"),
        ("i.O.", "n.i.O."),
        ("i. O.", "n. i. O."),
        ("pass", "fail"),
        ("PASSED", "FAILED"),
        ("ok_front", "def_front"),
        ("no_defect", "defect"),
        ("no defect", "Defective"),
        ("non_defective", "defective"),
        ("NonDefective", "Defects"),
        ("defect-free", "damaged"),
        ("Normal", "Abnormal"),
        ("0.normal", "1.abnormal"),
        ("normal_dir", "abnormal_dir"),
        ("Good Parts", "Bad Parts"),
        ("good", "not good"),
        ("Negative", "Positive"),
        ("accepted", "rejected"),
        ("in Ordnung", "nicht in Ordnung"),
        ("gut", "schlecht"),
    ],
)
def test_words_for_good_and_defective(good, bad):
    assert says_good(good) is True
    assert says_good(bad) is False


@pytest.mark.parametrize(
    "word", ["scratch", "normal wear", "0", "1", "", "io port", "A", "goodyear"]
)
def test_other_words_mean_nothing(word):
    assert says_good(word) is None


@pytest.mark.parametrize(
    ("good", "bad"), [("ok_front", "def_front"), ("IO", "NIO"), ("Good Parts", "scratch")]
)
def test_folders_called_so(tmp_path, good, bad):
    draw(tmp_path / good / "0.png")
    draw(tmp_path / bad / "0.png")
    dataset = load_dataset(tmp_path)
    assert labels(dataset) == {f"{good}/0.png": ("good", False), f"{bad}/0.png": (bad, True)}
    assert not dataset.problems


def test_the_casting_set(tmp_path):
    for split in ("train", "test"):
        for kind in ("ok_front", "def_front"):
            draw(tmp_path / split / kind / "0.png")
    dataset = load_dataset(tmp_path, name="casting")
    assert [(s.split, s.kind) for s in dataset] == [
        ("train", "good"),
        ("train", "def_front"),
        ("test", "good"),
        ("test", "def_front"),
    ]


@pytest.mark.parametrize("folder", ["negative", "table"])
def test_positive_is_defective_and_that_is_said(tmp_path, folder):
    for name in ("negative", "positive"):
        draw(tmp_path / folder / name / "0.png")
    if folder == "table":
        rows = "image,label\ntable/negative/0.png,neg\ntable/positive/0.png,pos\n"
        (tmp_path / "list.csv").write_text(rows)
    dataset = load_dataset(tmp_path if folder == "table" else tmp_path / folder)
    assert sorted(s.anomalous for s in dataset) == [False, True]
    assert any("negative is read as good" in note for note in dataset.notes)


def test_where_nothing_means_good_is_a_warning(tmp_path):
    for kind in ("bueno", "malo"):
        draw(tmp_path / "test" / kind / "0.png")
    (problem,) = load_dataset(tmp_path).problems
    assert problem.severity == "warning"
    assert problem.reason == "nothing here means good; read as kinds of defects: bueno, malo"


def test_folders_of_which_none_means_good_are_products_with_a_warning(tmp_path):
    for kind in ("bueno", "malo"):
        draw(tmp_path / kind / "0.png")
    dataset = load_dataset(tmp_path)
    assert dataset.products == ("bueno", "malo")
    assert said(dataset) == [
        "warning: no folder's name means good, so each is read as a product (bueno, malo)"
    ]


def test_splits_of_annotation_services(tmp_path):
    for split in ("train", "valid", "test"):
        draw(tmp_path / split / "p_jpg.rf.abc.jpg")
        draw(tmp_path / split / "p_jpg.rf.abc_mask.png", 1)
    dataset = load_dataset(tmp_path)
    assert [(s.split, s.mask.stem) for s in dataset] == [
        (split, "p_jpg.rf.abc_mask") for split in ("train", "validation", "test")
    ]


# Tables


def table(root, heading, good, bad, separator=",", encoding="utf-8", before=""):
    """A table of two pictures, the first of which is good."""
    draw(root / "g.png")
    draw(root / "d.png")
    lines = [heading, f"g.png,{good}", f"d.png,{bad}"]
    text = before + "\n".join(line.replace(",", separator) for line in lines) + "\n"
    (root / "list.csv").write_bytes(text.encode(encoding))
    return load_dataset(root)


@pytest.mark.parametrize(
    ("column", "good", "bad"),
    [
        ("label", "0", "1"),
        ("label", "good", "bad"),
        ("label_index", "0", "1"),
        ("label", "1", "-1"),  # scikit-learn: an inlier and an outlier
        ("anomaly", "-1", "1"),
        ("is_good", "True", "False"),
        ("good", "1", "0"),
        ("Is Good?", "yes", "no"),
        ("isGood", "TRUE", "FALSE"),
        ("i.O.", "ja", "nein"),
        ("pass", "y", "n"),
        ("negative", "1", "0"),
        ("no_defect", "1", "0"),
        ("defective", "False", "True"),
        ("defect", "0", "1"),
        ("bad", "0", "1"),
        ("NOK", "no", "yes"),
        ("quality", "OK", "NOK"),
        ("result", "PASS", "FAIL"),
        ("Ergebnis", "i.O.", "n.i.O."),
        ("status", "accepted", "rejected"),
        ("class", "ok_front", "def_front"),
    ],
)
def test_what_a_column_asks_decides_what_its_answers_mean(tmp_path, column, good, bad):
    dataset = table(tmp_path, f"image,{column}", good, bad)
    assert dataset.layout == "csv"
    assert labels(dataset) == {"g.png": ("good", False), "d.png": ("defect", True)}
    assert not dataset.problems


def test_the_sign_of_an_outlier_is_said(tmp_path):
    dataset = table(tmp_path, "image,label", "1", "-1")
    assert any("1 is read as good and -1 as defective" in note for note in dataset.notes)


@pytest.mark.parametrize(
    ("column", "bad"),
    [("label", "2"), ("label", "rework"), ("result", "scratch"), ("result", "1"), ("kind", "3")],
)
def test_what_is_not_understood_is_said_and_not_guessed(tmp_path, column, bad):
    dataset = table(tmp_path, f"image,{column}", "good", bad)
    assert labels(dataset) == {"g.png": ("good", False), "d.png": ("", None)}
    assert said(dataset) == [
        f"error: the {column} {bad} is not understood, so the picture counts as unlabelled"
    ]


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252"])
def test_separators_and_encodings(tmp_path, separator, encoding):
    dataset = table(tmp_path, "Image,Label", "good", "Kratzer groß", separator, encoding)
    assert labels(dataset) == {"g.png": ("good", False), "d.png": ("Kratzer groß", True)}
    assert not dataset.problems


def test_the_first_line_of_excel(tmp_path):
    dataset = table(tmp_path, "image,label", "good", "bad", ";", before="sep=;\r\n")
    assert labels(dataset) == {"g.png": ("good", False), "d.png": ("defect", True)}


def test_nan_in_json_lines(tmp_path):
    rows = [("g.png", 0), ("d.png", 1)]
    for name, _ in rows:
        draw(tmp_path / name)
    text = "".join(
        json.dumps({"image": n, "label": x, "mask": float("nan")}) + "\n" for n, x in rows
    )
    (tmp_path / "list.jsonl").write_text(text)
    dataset = load_dataset(tmp_path)
    assert labels(dataset) == {"g.png": ("good", False), "d.png": ("defect", True)}


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("a.csv", "name,verdict\n0.png,ok\n", "no column is called like one for the picture"),
        ("a.csv", "image,width\n0.png,8\n", "no column is called like one for a label"),
        ("a.csv", "image,status\n0.png,1\n", "no word for good or defective stands in its column"),
        ("a.csv", "", "it has no rows"),
        ("a.tsv", "0.png\tok\n", "it has no rows"),
        ("a.jsonl", "{", "line 1 is not JSON"),
        ("a.xlsx", "PK", "spreadsheets are not read"),
    ],
)
def test_a_table_that_is_not_used_is_said(tmp_path, name, text, why):
    draw(tmp_path / "0.png")
    (tmp_path / name).write_text(text)
    (problem,) = load_dataset(tmp_path).problems
    assert (problem.severity, problem.file) == ("warning", str(tmp_path / name))
    assert problem.reason.startswith("this table is not used: ")
    assert why in problem.reason


def test_a_table_beside_a_tree_is_said(tmp_path):
    draw(tmp_path / "train/good/0.png")
    draw(tmp_path / "test/good/0.png")
    (tmp_path / "labels.csv").write_text("image,label\ntrain/good/0.png,0\n")
    dataset = load_dataset(tmp_path)
    assert dataset.layout == "mvtec"
    assert said(dataset) == [
        "warning: this table is not used: the folder was read in another layout"
    ]


# One bad folder costs itself alone


@pytest.mark.parametrize(
    "closed", ["test/hole/a", "test/hole", "train/good/b", "ground_truth/hole"]
)
def test_a_folder_that_cannot_be_opened_costs_itself_alone(tmp_path, monkeypatch, closed):
    for name in ("train/good/0", "train/good/b/1", "test/good/0", "test/hole/0", "test/hole/a/1"):
        draw(tmp_path / f"{name}.png")
        if "hole" in name:
            draw(tmp_path / f"{name.replace('test', 'ground_truth')}_mask.png", 255)
    before = load_dataset(tmp_path)
    assert len(before) == 5
    listdir = os.listdir

    def refusing(folder):
        if os.fspath(folder) == os.fspath(tmp_path / closed):
            raise PermissionError(errno.EACCES, "Permission denied")
        return listdir(folder)

    monkeypatch.setattr(os, "listdir", refusing)
    dataset = load_dataset(tmp_path)
    kept = {s.image for s in before if tmp_path / closed not in s.image.parents}
    assert {s.image for s in dataset} == kept
    errors = [p.file for p in dataset.problems if "cannot be read" in p.reason]
    assert errors == [str(tmp_path / closed)]


# Names of data sets


def test_data_sets_of_one_name_get_names_of_their_own(tmp_path):
    for folder in ("a/screw", "b/Screw", "b/nut"):
        draw(tmp_path / folder / "0.png")
    loaded = [load_dataset(tmp_path / name) for name in ("a/screw", "b/Screw", "b/nut")]
    assert [d.name for d in distinct(loaded)] == ["a/screw", "b/Screw", "nut"]
    assert [d.name for d in distinct(loaded[:1] * 2)] == ["screw", "screw (2)"]
    assert [d.name for d in distinct(loaded[1:])] == ["Screw", "nut"]


def test_remarks_bring_problems_of_one_kind_together(tmp_path):
    for number in range(5):
        draw(tmp_path / f"good/{number}.png")
        draw(tmp_path / f"hole/{number}.png")
        draw(tmp_path / f"ground_truth/hole/x{number + 5}.png", 255)
    remarks = load_dataset(tmp_path, name="part").remarks()
    assert remarks[0] == (
        "error: ground_truth/hole/x5.png, ground_truth/hole/x6.png, ground_truth/hole/x7.png and 2 "
        "more: this mask belongs to no picture, by its name. Name it like its picture, or remove it"
    )

"""Data sets as labelling tools export them, written here as those tools document their formats."""

import json

import numpy as np
import pytest
from PIL import Image

from zerodefect.data import DatasetError, check_files, load_dataset, read_mask
from zerodefect.images import ImageError


def draw(path, size=(20, 10), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, 90).save(path, **options)
    return path


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
    return path


def kinds(dataset):
    return {sample.image.name: sample.kind for sample in dataset}


def areas(dataset):
    """Marked pixels of every defective picture that has a mask."""
    return {s.image.name: int(read_mask(s).sum()) for s in dataset if s.mask}


def told(dataset):
    return [f"{p.severity} {p.file.rsplit('/', 1)[-1]}: {p.reason}" for p in dataset.problems]


def mask_of(dataset, name):
    (sample,) = (sample for sample in dataset if sample.image.name == name)
    return read_mask(sample)


# COCO

SQUARE = [2, 1, 6, 1, 6, 4, 2, 4]  # 4 x 3 pixels


def coco(*annotations, images=("a.png", "b.png"), size=(20, 10)):
    width, height = size
    listed = [
        {"id": i, "file_name": name, "width": width, "height": height}
        for i, name in enumerate(images, 1)
    ]
    made = [
        {"id": i, "image_id": 1, "category_id": 1, "iscrowd": 0, **one}
        for i, one in enumerate(annotations, 1)
    ]
    classes = [{"id": 1, "name": "scratch"}, {"id": 2, "name": "stain"}, {"id": 3, "name": "ok"}]
    return {"images": listed, "annotations": made, "categories": classes}


@pytest.fixture
def two(tmp_path):
    for name in ("a.png", "b.png"):
        draw(tmp_path / "images" / name)
    return tmp_path


def test_coco_polygons_rle_and_boxes(two):
    counts = [10 * 12 + 3, 2, 10 * 20 - 125]
    content = coco(
        {"segmentation": [SQUARE, [10, 0, 12, 0, 12, 2, 10, 2]]},
        {"segmentation": {"size": [10, 20], "counts": counts}, "category_id": 2, "iscrowd": 1},
        {"segmentation": [], "bbox": [15, 5, 2, 2]},
    )
    file = write(two / "annotations.json", content)
    for place in (two, file):
        dataset = load_dataset(place, name="nut")
        assert dataset.layout == "coco" and kinds(dataset) == {
            "a.png": "scratch+stain",
            "b.png": "good",
        }
        assert areas(dataset) == {"a.png": 12 + 4 + 2 + 4}
        assert mask_of(dataset, "a.png")[3:5, 12].all()
        assert not mask_of(dataset, "b.png").any()
        assert "pictures in which nothing is marked, read as good: 1 of 2" in dataset.notes
        assert any("iscrowd" in note for note in dataset.notes)
        assert [r for r in told(dataset) if "boxes" in r and r.endswith(": 1")]


def test_coco_compressed_rle(two):
    # the runs 10, 2, 188: 10 is ":", 2 is "2", 188 = 5 * 32 + 28 is (28 + 32) + 48 and 5 + 48
    rle = {"size": [10, 20], "counts": ":2l5"}
    write(two / "x.json", coco({"segmentation": rle}))
    assert np.argwhere(mask_of(load_dataset(two), "a.png")).tolist() == [[0, 1], [1, 1]]


def test_a_class_that_means_good_marks_no_defect(two):
    write(two / "x.json", coco({"segmentation": [SQUARE], "category_id": 3}))
    dataset = load_dataset(two)
    assert kinds(dataset) == {"a.png": "good", "b.png": "good"}
    assert "areas called ok, which mark no defect: 1" in dataset.notes


def test_coco_splits_have_files_and_folders_of_their_own(tmp_path):
    for split in ("train2017", "val2017"):
        draw(tmp_path / split / "0.png")
        content = coco({"segmentation": [SQUARE]}, images=["0.png"])
        write(tmp_path / f"annotations/instances_{split}.json", content)
    dataset = load_dataset(tmp_path)
    assert dataset.layout == "coco"
    found = [(s.image.parent.name, s.split) for s in dataset]
    assert found == [("train2017", "train"), ("val2017", "validation")]


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        ({"segmentation": [SQUARE], "category_id": 9}, "category that is not listed (9)"),
        ({"segmentation": [[1, 2, 3]]}, "a polygon has 3 numbers"),
        ({"segmentation": [["x"] * 6]}, "could not convert string to float"),
        ({"segmentation": 5}, "neither polygons nor RLE nor a box"),
        ({"segmentation": []}, "neither polygons nor RLE nor a box"),
        ({"segmentation": {"size": [10]}}, "cannot be read"),
    ],
)
def test_a_picture_whose_annotation_cannot_be_read_is_left_out(two, annotation, words):
    write(two / "x.json", coco({"segmentation": [SQUARE]}, annotation))
    dataset = load_dataset(two)
    assert list(kinds(dataset)) == ["b.png"]
    (problem,) = (p for p in dataset.problems if p.severity == "error")
    assert "image 1 (a.png)" in problem.file and "x.json" in problem.file
    assert "annotation 2" in problem.reason and problem.reason.endswith("the picture is left out")
    assert words in problem.reason


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        ({"segmentation": {"size": [10, 20], "counts": [10, 5]}}, "cover 15 pixels, not 200"),
        ({"segmentation": {"size": [20, 10], "counts": [200]}}, "RLE is of 10 x 20 pixels"),
        ({"segmentation": {"size": [10, 20], "counts": "T"}}, "cut off"),
        ({"segmentation": [[0, 0, 90, 0, 90, 9]]}, "reaches 70 pixels out of its picture"),
        ({"segmentation": [[3, 3, 3, 3, 3, 3]]}, "mask of a defective picture is empty"),
    ],
)
def test_damaged_areas_are_named_when_masks_are_opened(two, annotation, words):
    write(two / "x.json", coco(annotation))
    dataset = load_dataset(two)
    problems = check_files(dataset, masks=True).problems
    assert [p.file.endswith("x.json: image 1 (a.png)") for p in problems] == [True]
    assert words in problems[0].reason and problems[0].remedy
    with pytest.raises(ImageError, match=words):
        mask_of(dataset, "a.png")


def test_labels_of_a_picture_of_another_size(two):
    write(two / "x.json", coco({"segmentation": [SQUARE]}, size=(40, 20)))
    dataset = load_dataset(two)
    (line,) = (line for line in told(dataset) if "error" in line)
    assert "the mask is 40 x 20 pixels, its picture 20 x 10" in line


def test_names_that_fit_no_picture_several_or_twice_the_same(tmp_path):
    for place in ("one/c.png", "two/c.png", "a.png", "unlisted.png"):
        draw(tmp_path / place)
    names = ["gone.png", "c.png", "two/c.png", "x/a.png", "y/a.png"]
    write(tmp_path / "x.json", coco(images=names))
    dataset = load_dataset(tmp_path)
    assert [s.image.relative_to(tmp_path).as_posix() for s in dataset] == ["two/c.png"]
    lines = "\n".join(told(dataset))
    assert "there is no such picture: gone.png" in lines
    assert "c.png fits several pictures" in lines and "one/c.png" in lines
    assert lines.count("2 entries mean the same picture (a.png)") == 2
    assert "pictures that the labels do not name, and that are not read: 3" in lines


def test_pictures_that_are_listed_twice(two):
    content = coco({"segmentation": [SQUARE]}, images=["a.png", "a.png", "b.png"])
    draw(two / "images/c.png")
    content["images"] += [dict(content["images"][2], file_name="c.png")]
    content["images"] += [dict(content["images"][2], file_name="d.png", id=9)]
    draw(two / "images/d.png")
    write(two / "x.json", content)
    dataset = load_dataset(two)
    lines = "\n".join(told(dataset))
    assert list(kinds(dataset)) == ["d.png"]
    assert lines.count("2 entries mean the same picture") == 2
    assert lines.count("two pictures have the same id") == 2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"images": [{"id": 1, "file_na', "it is not JSON"),
        ('{"images": []}', "no lists images, annotations and categories"),
        ('{"images": [3], "annotations": [], "categories": []}', "no lists images"),
        ('{"images": ' + "[" * 100_000, "it is not JSON"),
    ],
)
def test_files_of_coco_that_cannot_be_read(two, text, words):
    with pytest.raises(DatasetError, match=words):
        load_dataset(write(two / "x.json", text))


def test_annotations_of_pictures_that_are_not_listed(two):
    write(two / "x.json", coco({"segmentation": [SQUARE], "image_id": 77}))
    assert "annotation 1 is of a picture that is not listed" in "\n".join(told(load_dataset(two)))


# Roboflow


def test_roboflow_coco(tmp_path):
    for split, kind in (("train", 3), ("valid", 1), ("test", 2)):
        name = "0_jpg.rf.1a2b.jpg"  # the same name in every split
        draw(tmp_path / split / name)
        content = coco({"segmentation": [SQUARE], "category_id": kind}, images=[name])
        write(tmp_path / split / "_annotations.coco.json", content)
    dataset = load_dataset(tmp_path)
    assert dataset.layout == "roboflow"
    found = [(s.split, s.kind, s.image.parent.name) for s in dataset]
    assert found == [
        ("train", "good", "train"),
        ("validation", "scratch", "valid"),
        ("test", "stain", "test"),
    ]
    assert not [p for p in dataset.problems if p.severity == "error"]


def yolo(root, lines, names="['scratch', 'stain']", image="train/images/a.png"):
    draw(root / image)
    write(root / "data.yaml", f"train: ../train/images\nval: ../valid/images\nnames: {names}\n")
    if lines is not None:
        write(root / image.replace("images", "labels").replace(".png", ".txt"), lines)
    return root


def test_roboflow_yolo(tmp_path):
    yolo(tmp_path, "0 0.1 0.1 0.3 0.1 0.3 0.4 0.1 0.4\n1 0.75 0.5 0.1 0.2\n")
    yolo(tmp_path, "", image="train/images/good.png")
    yolo(tmp_path, None, image="valid/images/open.png")
    dataset = load_dataset(tmp_path)
    assert dataset.layout == "roboflow"
    assert kinds(dataset) == {"a.png": "scratch+stain", "good.png": "good"}
    assert areas(dataset) == {"a.png": 4 * 3 + 2 * 2}  # of 20 x 10; the second is a box
    lines = "\n".join(told(dataset))
    assert "nobody has annotated this picture" in lines and "areas that are boxes" in lines
    assert dataset.samples[0].split == "train"


def test_names_of_yolo_may_be_numbered(tmp_path):
    dataset = load_dataset(yolo(tmp_path, "7 0 0 .5 0 .5 .5", names="{7: dent}"))
    assert kinds(dataset) == {"a.png": "dent"}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("5 0 0 1 0 1 1", "line 1: class 5 is not among the names"),
        ("x 0 0 1 0 1 1", "class x is not among"),
        ("0 0 0 1 0 1", "a polygon has 5 numbers"),
        ("0 0 0 1 0 1 oops", "could not convert"),
    ],
)
def test_lines_of_yolo_that_cannot_be_read(tmp_path, line, words):
    yolo(tmp_path, line)
    yolo(tmp_path, "", image="train/images/b.png")
    dataset = load_dataset(tmp_path)
    assert list(kinds(dataset)) == ["b.png"] and words in "\n".join(told(dataset))


def test_corners_of_yolo_outside_the_picture(tmp_path):
    dataset = load_dataset(yolo(tmp_path, "0 0 0 1.5 0 1 1"))
    with pytest.raises(ImageError, match="reaches 10 pixels out"):
        mask_of(dataset, "a.png")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("train: [", "it is not YAML"),
        ("train: ../train/images\n", "no list names"),
        ("names: [a]\n", "no folder with pictures"),
        ("!!python/object/apply:os.system ['true']", "it is not YAML"),
    ],
)
def test_descriptions_of_yolo_that_cannot_be_read(tmp_path, text, words):
    yolo(tmp_path, "")
    with pytest.raises(DatasetError, match=words):
        load_dataset(write(tmp_path / "data.yaml", text))


def test_settings_of_other_programs_beside_a_folder_are_passed_over(tmp_path):
    draw(tmp_path / "good/0.png")
    draw(tmp_path / "dent/0.png")
    write(tmp_path / "data.yaml", "path: here\n")
    write(tmp_path / "state.json", {"version": 3, "images": [1]})
    dataset = load_dataset(tmp_path)
    assert dataset.layout == "folder" and len(dataset) == 2
    with pytest.raises(DatasetError, match="no lists images, annotations and categories"):
        load_dataset(tmp_path / "state.json")  # named, it is taken for what it looks like


# Label Studio


def brush(mask):
    """Pack a mask ``(H, W)`` of opacities as Label Studio does: a run for each change of value."""
    values = np.repeat(np.asarray(mask, np.uint8).ravel(), 4)
    bits, at = f"{len(values):032b}{7:05b}" + "".join(f"{w - 1:04b}" for w in (3, 4, 8, 16)), 0
    while at < len(values):
        same = np.flatnonzero(values[at:] != values[at])
        length = int(same[0]) if len(same) else len(values) - at
        bits += f"111{length - 1:016b}{values[at]:08b}"
        at += length
    bits += "0" * (-len(bits) % 8)
    return bytes(int(bits[i : i + 8], 2) for i in range(0, len(bits), 8))


def result(kind, label=None, name="r", size=(20, 10), **value):
    if label:
        value[kind] = [label]
    width, height = size
    return {
        **{"original_width": width, "original_height": height, "image_rotation": 0},
        **{"value": value, "id": name, "from_name": "tag", "to_name": "image", "type": kind},
    }


def choice(word, name="c", question="quality"):
    value = {"choices": [word]}
    return {"value": value, "id": name, "from_name": question, "to_name": "i", "type": "choices"}


def task(number, image, *annotations):
    made = [{"id": 9, "was_cancelled": False, "ground_truth": False, **one} for one in annotations]
    return {"id": number, "annotations": made, "data": {"image": image}, "predictions": []}


def done(*results, **facts):
    return {"result": list(results), **facts}


BOX = {"x": 10, "y": 10, "width": 20, "height": 30, "rotation": 0}  # 2, 1: 4 x 3 pixels
CORNERS = [[10, 10], [30, 10], [30, 40], [10, 40]]


def studio(root, *tasks):
    for letter in "abcdef":
        draw(root / "images" / f"{letter}.png")
    return write(root / "export.json", list(tasks))


def test_label_studio_shapes(tmp_path):
    mask = np.zeros((10, 20), np.uint8)
    mask[4:6, 3:10] = 255
    rle = list(brush(mask))
    file = studio(
        tmp_path,
        task(1, "images/a.png", done(result("polygonlabels", "dent", points=CORNERS))),
        task(2, "b.png", done(result("brushlabels", "stain", format="rle", rle=rle))),
        task(3, "c.png", done(result("rectanglelabels", "dent", **BOX))),
        task(4, "d.png", done(result("rectanglelabels", "dent", **{**BOX, "rotation": 90}))),
        task(
            5,
            "e.png",
            done(result("ellipselabels", "hole", x=50, y=50, radiusX=20, radiusY=20, rotation=0)),
        ),
        task(6, "f.png", done()),
    )
    for place in (tmp_path, file):
        dataset = load_dataset(place)
        assert dataset.layout == "label-studio"
        assert list(kinds(dataset).values()) == ["good", "dent", "dent", "dent", "hole", "stain"]
        found = areas(dataset)
        assert found["a.png"] == found["c.png"] == 12
        assert np.array_equal(mask_of(dataset, "b.png"), mask > 0)
        # turned about (2, 1): it hangs down to the left, 3 wide and 4 high, one column cut off
        turned = np.zeros((10, 20), bool)
        turned[1:5, 0:2] = True
        assert np.array_equal(mask_of(dataset, "d.png"), turned)
        # radii are shares of the width and of the height: 4 and 2 pixels
        rows, columns = (np.flatnonzero(mask_of(dataset, "e.png").any(a)) for a in (1, 0))
        assert (rows[0], rows[-1], columns[0], columns[-1]) == (3, 6, 6, 13)
        assert "pictures in which nothing is marked, read as good: 1 of 6" in dataset.notes


def test_label_studio_says_who_is_good_and_who_is_unlabelled(tmp_path):
    shape = result("polygonlabels", "dent", points=CORNERS)
    studio(
        tmp_path,
        task(1, "a.png", done(choice("Good"))),
        task(2, "b.png", done(choice("dark", question="light"), choice("NG"))),
        task(3, "c.png"),  # nobody has looked at it
        task(4, "d.png", done(shape, was_cancelled=True)),  # skipped
        task(5, "e.png", done(choice("good"), shape)),
        task(6, "f.png", done(choice("dark", question="light"), shape)),
    )
    dataset = load_dataset(tmp_path)
    assert kinds(dataset) == {"a.png": "good", "b.png": "defect", "f.png": "dent"}
    lines = told(dataset)
    assert (
        sum("nobody has annotated this picture, so it is left out" in line for line in lines) == 2
    )
    assert any("task 3 (c.png)" in p.file for p in dataset.problems)
    (contrary,) = (line for line in lines if line.startswith("error"))
    assert "task 5: it is called good and is marked" in contrary


def test_a_label_may_stand_in_a_result_of_its_own(tmp_path):
    shape = result("polygon", points=CORNERS)
    named = result("labels", "dent", points=CORNERS)
    per_region = {**choice("deep"), "id": "r"}
    studio(tmp_path, task(1, "a.png", done(shape, named, per_region)))
    dataset = load_dataset(tmp_path)
    assert kinds(dataset) == {"a.png": "dent"} and areas(dataset) == {"a.png": 12}


def test_several_annotators(tmp_path):
    dent, good = done(result("polygonlabels", "dent", points=CORNERS)), done()
    studio(
        tmp_path,
        task(1, "a.png", dent, good),
        task(2, "b.png", dent, {**good, "ground_truth": True}),
    )
    dataset = load_dataset(tmp_path)
    assert kinds(dataset) == {"b.png": "good"}
    assert "2 annotations, and none is marked as the ground truth" in "\n".join(told(dataset))


@pytest.mark.parametrize(
    ("written", "there"),
    [
        ("/data/upload/3/1a2b3c4d-my_part.jpg", "1a2b3c4d-my_part.jpg"),
        ("/data/upload/3/1a2b3c4d-my_part.jpg", "pictures/my part.jpg"),
        ("/data/local-files/?d=line%201/part.jpg", "line 1/part.jpg"),
        ("s3://bucket/line%201/part.jpg", "line 1/part.jpg"),
        ("https://plant.example/files/part.jpg?token=1", "deep/inside/part.jpg"),
        ("C:\\parts\\line\\part.jpg", "line/part.jpg"),
        ("M\u0308utter.jpg", "M\u0308utter.jpg"),
    ],
)
def test_names_of_pictures_in_label_studio(tmp_path, written, there):
    file = draw(tmp_path / there)
    write(tmp_path / "export.json", [task(1, written, done(choice("good")))])
    (sample,) = load_dataset(tmp_path)
    assert sample.image == file


def test_an_upload_that_may_be_either_of_two_pictures(tmp_path):
    draw(tmp_path / "one/a.png")
    draw(tmp_path / "two/a.png")
    write(tmp_path / "export.json", [task(1, "/data/upload/3/1a2b3c4d-a.png", done())])
    with pytest.raises(DatasetError, match="fits several pictures"):
        load_dataset(tmp_path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"type": "keypointlabels"}, "keypointlabels is no area and no choice"),
        ({"image_rotation": 90}, "the picture was turned in the tool"),
        ({"original_width": None}, "numbers are missing"),
        ({"value": {"points": [[0, 0], [1, 1]], "polygonlabels": ["x"]}}, "polygon of 2 corners"),
        ({"value": {"rle": [0, 300]}, "type": "brushlabels"}, "cannot be read"),
        ({"value": None}, "one of its results has no value"),
    ],
)
def test_results_of_label_studio_that_cannot_be_read(tmp_path, changes, words):
    shape = {**result("polygonlabels", "dent", points=CORNERS), **changes}
    studio(tmp_path, task(1, "a.png", done(shape)), task(2, "b.png", done()))
    dataset = load_dataset(tmp_path)
    assert list(kinds(dataset)) == ["b.png"] and words in "\n".join(told(dataset))


def test_a_brush_of_another_size(tmp_path):
    shape = result("brushlabels", "dent", format="rle", rle=list(brush(np.ones((5, 5)))))
    studio(tmp_path, task(1, "a.png", done(shape)))
    with pytest.raises(ImageError, match="task 1: its RLE holds 25 pixels, not 200"):
        mask_of(load_dataset(tmp_path), "a.png")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[{"id": 1, "annotations": [{"result": [', "it is not JSON"),
        ('[{"image": "a.png", "id": 1, "annotator": 1}]', "JSON-MIN has none"),
    ],
)
def test_exports_of_label_studio_that_cannot_be_read(tmp_path, text, words):
    draw(tmp_path / "a.png")
    with pytest.raises(DatasetError, match=words):
        load_dataset(write(tmp_path / "export.json", text))


def test_two_exports_in_one_folder(tmp_path):
    file = studio(tmp_path, task(1, "a.png", done()))
    write(tmp_path / "older.json", file.read_text())
    with pytest.raises(DatasetError, match=r"several exports could describe it: export\.json, old"):
        load_dataset(tmp_path)


# CVAT


def cvat(root, *images, head="", labels=("dent", "hole", "ok")):
    for letter in "abcdef":
        draw(root / "images" / f"{letter}.png")
    names = "".join(f"<label><name>{name}</name></label>" for name in labels)
    meta = f"<meta><task><labels>{names}</labels></task></meta>"
    listed = "".join(
        f'<image id="{i}" name="{name}" width="20" height="10">{shapes}</image>'
        for i, (name, shapes) in enumerate(images)
    )
    text = f'<?xml version="1.0" encoding="utf-8"?>\n{head}<annotations><version>1.1</version>'
    return write(root / "annotations.xml", f"{text}{meta}{listed}</annotations>")


POLYGON = '<polygon label="dent" points="2.0,1.0;6.0,1.0;6.0,4.0;2.0,4.0" z_order="0"/>'


def test_cvat_shapes(tmp_path):
    file = cvat(
        tmp_path,
        ("a.png", POLYGON),
        ("b.png", '<mask label="hole" rle="1, 2, 3" left="4" top="5" width="3" height="2"/>'),
        ("c.png", '<box label="dent" xtl="2" ytl="1" xbr="6" ybr="4"/>'),
        ("d.png", '<box label="dent" xtl="3" ytl="4" xbr="7" ybr="6" rotation="90.0"/>'),
        ("e.png", '<ellipse label="hole" cx="10" cy="5" rx="4" ry="2" rotation="90"/>'),
        ("f.png", ""),
    )
    for place in (tmp_path, file):
        dataset = load_dataset(place)
        assert dataset.layout == "cvat"
        assert list(kinds(dataset).values()) == ["good", "dent", "dent", "dent", "hole", "hole"]
        found = areas(dataset)
        assert found["a.png"] == found["c.png"] == 12
        assert np.argwhere(mask_of(dataset, "b.png")).tolist() == [[5, 5], [5, 6]]
        turned = np.zeros((10, 20), bool)
        turned[3:7, 4:6] = True  # about its centre
        assert np.array_equal(mask_of(dataset, "d.png"), turned)
        rows, columns = (np.flatnonzero(mask_of(dataset, "e.png").any(a)) for a in (1, 0))
        assert (rows[0], rows[-1], columns[0], columns[-1]) == (1, 8, 8, 11)
        assert "pictures in which nothing is marked, read as good: 1 of 6" in dataset.notes


def test_where_some_pictures_have_a_tag_that_says_good_bare_ones_are_unlabelled(tmp_path):
    good, dent = '<tag label="ok"/>', '<tag label="dent"/>'
    cvat(tmp_path, ("a.png", good), ("b.png", dent), ("c.png", ""), ("d.png", good + POLYGON))
    dataset = load_dataset(tmp_path)
    assert kinds(dataset) == {"a.png": "good", "b.png": "dent"}
    lines = "\n".join(told(dataset))
    assert "nobody has annotated this picture" in lines and "called good and is marked" in lines


def test_subsets_of_cvat_are_splits(tmp_path):
    file = cvat(tmp_path, ("Train/a.png", ""))
    file.write_text(file.read_text().replace("<image ", '<image subset="Train" '))
    draw(tmp_path / "images/Train/a.png")
    (sample,) = load_dataset(tmp_path)
    assert sample.split == "train" and sample.image.parent.name == "Train"


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ('<polygon label="new" points="0,0;1,0;1,1"/>', r"label that the file does not list (new)"),
        ('<polyline label="dent" points="0,0;1,0"/>', "a polyline marks no area"),
        ('<polygon label="dent" points="0,0;1"/>', "a polygon has no three corners"),
        ('<polygon label="dent" points="0,0;1,x;2,2"/>', "a corner of a polygon is no number (x)"),
        ('<mask label="dent" rle="1,-2" left="0" top="0" width="1" height="1"/>', "RLE of a mask"),
        ('<mask label="dent" rle="1" left="0.5" top="0" width="1" height="1"/>', "left of a mask"),
        ('<box label="dent" xtl="1"/>', "ytl of a box is no number"),
    ],
)
def test_shapes_of_cvat_that_cannot_be_read(tmp_path, shape, words):
    cvat(tmp_path, ("a.png", POLYGON + shape), ("b.png", ""))
    dataset = load_dataset(tmp_path)
    assert list(kinds(dataset)) == ["b.png"] and words in "\n".join(told(dataset))


@pytest.mark.parametrize(
    ("rle", "words"),
    [
        ('rle="1,2" left="0" top="0" width="3" height="2"', "cover 3 pixels, not 6"),
        ('rle="4" left="19" top="0" width="2" height="2"', "reaches out of the picture"),
    ],
)
def test_masks_of_cvat_that_do_not_fit(tmp_path, rle, words):
    cvat(tmp_path, ("a.png", f'<mask label="dent" {rle}/>'))
    with pytest.raises(ImageError, match=words):
        mask_of(load_dataset(tmp_path), "a.png")


BOMB = '<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;">]>'
FOREIGN = '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/hostname">]>'


@pytest.mark.parametrize("head", [BOMB, FOREIGN, '<!DOCTYPE annotations SYSTEM "cvat.dtd">'])
def test_xml_that_declares_a_document_type_is_refused(tmp_path, head):
    cvat(tmp_path, ("a.png", ""), head=head)
    with pytest.raises(DatasetError, match="declares a document type"):
        load_dataset(tmp_path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("<annotations><image", "it is not XML"),
        ("<annotations><image></wrong></annotations>", "it is not XML"),
        ("<annotations></annotations>", "it lists no images"),
        ("<annotations><track/></annotations>", "CVAT for video is not read"),
    ],
)
def test_files_of_cvat_that_cannot_be_read(tmp_path, text, words):
    draw(tmp_path / "a.png")
    write(tmp_path / "annotations.xml", text)
    with pytest.raises(DatasetError, match=words):
        load_dataset(tmp_path)


# Lookout for Vision

MAP = {
    "0": {"class-name": "BACKGROUND", "hex-color": "#ffffff", "confidence": 0},
    "1": {"class-name": "scratch", "hex-color": "#2ca02c", "confidence": 0},
    "2": {"class-name": "dent", "hex-color": "#1f77b4", "confidence": 0},
}


def line(name, number, word=None, mask=None, colours=MAP):
    said = {"class-name": word or ("anomaly" if number else "normal"), "type": "groundtruth/image-"}
    said["type"] += "classification"
    made = {"source-ref": f"s3://bucket/parts/{name}", "anomaly-label": number}
    made["anomaly-label-metadata"] = said
    if mask:
        about = {"internal-color-map": colours, "type": "groundtruth/semantic-segmentation"}
        made |= {"anomaly-mask-ref": f"s3://bucket/masks/{mask}"}
        made |= {"anomaly-mask-ref-metadata": about}
    return json.dumps(made)


def coloured(path, size=(20, 10)):
    """Draw a mask of Lookout: white, with 7 pixels of scratch and 4 of dent."""
    width, height = size
    pixels = np.full((height, width, 3), 255, np.uint8)
    pixels[4, 3:10], pixels[6:8, 3:5] = (0x2C, 0xA0, 0x2C), (0x1F, 0x77, 0xB4)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def lookout(root, *lines, name="test.manifest"):
    for letter in "abc":
        draw(root / "parts" / f"{letter}.png")
    coloured(root / "masks" / "a.png")
    return write(root / name, "\n".join(lines) + "\n")


def test_lookout(tmp_path):
    file = lookout(tmp_path, line("a.png", 1, mask="a.png"), line("b.png", 0))
    lookout(tmp_path, line("c.png", 0), name="train.manifest")
    dataset = load_dataset(tmp_path)
    assert dataset.layout == "lookout"
    found = {(s.image.name, s.split, s.kind) for s in dataset}
    assert found == {
        ("a.png", "test", "dent+scratch"),
        ("b.png", "test", "good"),
        ("c.png", "train", "good"),
    }
    wanted = np.zeros((10, 20), bool)
    wanted[4, 3:10] = wanted[6:8, 3:5] = True
    assert np.array_equal(mask_of(dataset, "a.png"), wanted)
    assert not dataset.problems
    assert len(load_dataset(file)) == 2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (line("gone.png", 0), "there is no such picture"),
        (line("c.png", 1, mask="gone.png"), "its mask is not there"),
        (line("c.png", 0, mask="a.png"), "called good and is marked"),
        (line("c.png", 1, "normal"), "called good and is marked, or called otherwise"),
        (line("c.png", 1, mask="a.png", colours={"0": MAP["0"]}), r"in no list of classes (#"),
        (line("c.png", 1, mask="a.png", colours={"0": {}}), "none of the form #rrggbb"),
        (json.dumps({"source-ref": "parts/c.png"}), "nobody has annotated this picture"),
        (json.dumps({"source-ref": "parts/c.png", "anomaly-label": 7}), "neither 0 nor 1"),
        (json.dumps({"source-ref": "", "anomaly-label": 0}), "the line names no picture"),
    ],
)
def test_lines_of_lookout_that_cannot_be_used(tmp_path, text, words):
    lookout(tmp_path, line("b.png", 0), text)
    dataset = load_dataset(tmp_path)
    assert list(kinds(dataset)) == ["b.png"]
    assert any(words in p.reason and "line 2" in p.file for p in dataset.problems)


def test_a_mask_of_lookout_of_another_size(tmp_path):
    lookout(tmp_path, line("a.png", 1, mask="a.png"))
    coloured(tmp_path / "masks/a.png", (24, 10))
    with pytest.raises(ImageError, match=r"a\.png is of 24 x 10 pixels, its picture of 20 x 10"):
        mask_of(load_dataset(tmp_path), "a.png")


def test_a_manifest_that_is_cut_off(tmp_path):
    text = line("b.png", 0)
    with pytest.raises(DatasetError, match="line 2: it is not JSON"):
        load_dataset(lookout(tmp_path, text, text[:40]))


# All of them


def test_the_same_data_elsewhere_have_the_same_fingerprint(tmp_path):
    prints = set()
    for place in ("one", "two"):
        lookout(tmp_path / place, line("a.png", 1, mask="a.png"))
        prints.add(load_dataset(tmp_path / place, name="nut").fingerprint())
    studio(tmp_path / "x", task(1, "a.png", done(result("polygonlabels", "d", points=CORNERS))))
    first = load_dataset(tmp_path / "x").fingerprint()
    moved = [[x + 1, y] for x, y in CORNERS]
    studio(tmp_path / "x", task(1, "a.png", done(result("polygonlabels", "d", points=moved))))
    assert len(prints) == 1 and load_dataset(tmp_path / "x").fingerprint() != first


def test_a_tree_of_mvtec_with_a_file_of_coco_beside_it_stays_one(tmp_path):
    for place in ("train/good/0.png", "test/good/0.png", "test/dent/0.png"):
        draw(tmp_path / place)
    write(tmp_path / "coco.json", coco())
    assert load_dataset(tmp_path).layout == "mvtec"

import csv
import errno
import json
import os
import re
import sys
import tracemalloc
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from rle_decoder import decode_rle

from zerodefect.data.drawn_masks import fill_outline
from zerodefect.files import StoreError
from zerodefect.inspection.inspected import Inspection
from zerodefect.inspection.records import failure_record, to_record
from zerodefect.inspection.region_kinds import by_words
from zerodefect.inspection.regions import find_regions
from zerodefect.reports.result_files import (
    IMAGE_COLUMNS,
    REGION_COLUMNS,
    map_path,
    write_coco,
    write_csv,
    write_map_tiff,
    write_regions_csv,
)
from zerodefect.types import Count, Failure


def record(image="a.png", kinds=("scratch", "hole"), calibrated=True, **changes):
    """Two squares, one on each half; with kinds, the left one is the first kind."""
    map = np.zeros((20, 30), np.float32)
    map[2:6, 3:8], map[10:14, 20:24] = 2.0, 3.0
    map[11, 21] = 0.0  # a hole
    types = None
    if kinds:
        types = np.array([[[0.75, 0.25]], [[0.25, 0.75]]])
    regions = find_regions(map, 1.0, p_value=lambda _: 0.25)
    regions = by_words(regions, types, kinds or (), map.shape)
    fields = {"object": "screw", "verdict": "defect", "score": 3.5, "p_value": 0.01, **changes}
    inspection = Inspection(
        image=image, width=30, height=20, calibrated=calibrated, regions=regions, **fields
    )
    return to_record(inspection)


def good(image="good.png"):
    return to_record(Inspection(image, "screw", 30, 20, "good", True, -0.5, 0.5, ()))


BROKEN = failure_record(Failure("broken.png", "cut off", "Copy it again."))


def rows_of(path):
    with Path(path).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_csv_has_one_row_per_image(tmp_path):
    counted = record(counts=(Count("hole", 2, 1, 3), Count("scratch", 1, 1, 1)))
    write_csv(iter([counted, good(), BROKEN]), tmp_path / "results.csv")
    rows = rows_of(tmp_path / "results.csv")
    assert tuple(rows[0]) == IMAGE_COLUMNS
    first, second, third = rows
    assert first["kinds"] == "hole; scratch"  # by falling score
    assert first["calibrated"] == "true" and first["count"] == "2"
    assert first["counts"] == "2 x hole (1 to 3); 1 x scratch" and second["counts"] == ""
    assert float(first["largest_area_percent"]) == pytest.approx(100 * 20 / 600)
    assert second["score"] == "-0.5" and second["kinds"] == second["largest_area_percent"] == ""
    assert third["status"] == "failed" and third["reason"] == "cut off" and third["score"] == ""


def test_an_answer_stands_behind_the_explanation(tmp_path):
    answer = "Yes, a scratch.\nIt is long."
    told = to_record(Inspection("a.png", "nut", 3, 2, "defect", True, 1.0, 0.1, (), answer=answer))
    old = {key: value for key, value in good().items() if key != "answer"}
    write_csv([told, old], tmp_path / "results.csv")
    rows = rows_of(tmp_path / "results.csv")
    assert [row["answer"] for row in rows] == [answer, ""]
    columns = list(rows[0])
    assert columns.index("answer") == columns.index("explanation") + 1


def test_without_maps_there_are_images_and_no_annotations(tmp_path):
    told = Inspection("a.png", "nut", 3, 2, "defect", True, 1.0, 0.1, (), answer="Yes.")
    write_coco([to_record(told)], tmp_path / "coco.json")
    data = json.loads((tmp_path / "coco.json").read_text())
    assert data["annotations"] == data["categories"] == []
    assert [image["verdict"] for image in data["images"]] == ["defect"]


def test_regions_csv_has_one_row_per_region(tmp_path):
    write_regions_csv([good(), record(), BROKEN], tmp_path / "regions.csv")
    rows = rows_of(tmp_path / "regions.csv")
    assert tuple(rows[0]) == REGION_COLUMNS
    assert [(r["image"], r["region"], r["kind"]) for r in rows] == [
        ("a.png", "1", "hole"),
        ("a.png", "2", "scratch"),
    ]
    places = [int(rows[1][name]) for name in ("x", "y", "width", "height", "area")]
    assert places == [3, 2, 5, 4, 20]
    assert float(rows[0]["kind_score"]) == 0.75 and float(rows[0]["p_value"]) == 0.25


@pytest.mark.parametrize(
    "name",
    ["=1+1.png", "+a.png", "-a.png", "@a.png", "\ta.png", "\r=a.png", " =a.png", "\uff1da.png"],
)
def test_file_names_are_no_formulas(tmp_path, name):
    write_csv([record(image=name)], tmp_path / "results.csv")
    assert rows_of(tmp_path / "results.csv")[0]["image"] == f"'{name}"


@given(st.text(max_size=30))
@settings(max_examples=100, deadline=None)
def test_any_text_survives_a_cell(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("csv") / "results.csv"
    write_csv([failure_record(Failure("a.png", text, f'{text}, "quoted"\nnext'))], path)
    (row,) = rows_of(path)
    assert row["reason"].removeprefix("'") == text.removeprefix("'")
    assert row["reason"].lstrip()[:1] not in tuple("=+-@")
    assert row["remedy"].endswith('"quoted"\nnext')


def test_names_that_are_no_text_are_escaped(tmp_path):
    write_csv([record(image="bad\udcff.png")], tmp_path / "results.csv")
    assert rows_of(tmp_path / "results.csv")[0]["image"] == "bad\\udcff.png"


def test_coco(tmp_path):
    path = tmp_path / "coco.json"
    records = iter([record("a.png"), BROKEN, good(), record("ü.png", kinds=None)])
    write_coco(records, path, kinds=("crack", "scratch"))
    data = json.loads(path.read_text())
    assert data["info"]["calibrated"] is True and data["info"]["failed_images"] == 1
    assert [image["file_name"] for image in data["images"]] == ["a.png", "good.png", "ü.png"]
    assert [image["id"] for image in data["images"]] == [1, 2, 3]
    names = {c["id"]: c["name"] for c in data["categories"]}
    assert names == {1: "crack", 2: "scratch", 3: "hole", 4: "anomaly"}
    found = [(a["id"], a["image_id"], names[a["category_id"]]) for a in data["annotations"]]
    assert found == [
        (1, 1, "hole"),
        (2, 1, "scratch"),
        (3, 3, "anomaly"),
        (4, 3, "anomaly"),
    ]
    first = data["annotations"][0]
    assert first["bbox"] == [20, 10, 4, 4] and first["area"] == 15 and first["score"] == 3.0
    assert first["iscrowd"] == 0
    mask = decode_rle(first["segmentation"])
    assert mask.shape == (20, 30) and mask.sum() == 15 and not mask[11, 21]


SHAPES = {  # twins in name, sub-folders, a turned picture and a thin one
    "a.png": (160, 200),
    "a.jpg": (160, 200),
    "sub/a.png": (160, 200),
    "rot.jpg": (200, 160),
    "thin.png": (33, 517),
}


def coco_of(tmp_path):
    """The file of one run over all shapes, and per picture the union of its regions."""
    wanted, records = {}, []
    for seed, (name, (height, width)) in enumerate(SHAPES.items()):
        noise = np.random.default_rng(seed).random((height // 4 + 1, width // 4 + 1))
        map = np.kron(noise, np.ones((4, 4)))[:height, :width].astype(np.float32)
        regions = find_regions(map, 0.7, minimum_area=1)
        shown = Inspection(name, None, width, height, "defect", False, 1.0, None, regions)
        records.append(to_record(shown))
        wanted[name] = map > 0.7
    write_coco(records, tmp_path / "coco.json")
    return tmp_path / "coco.json", wanted


def test_coco_masks_of_twins_and_sub_folders_decode_bit_for_bit(tmp_path):
    path, wanted = coco_of(tmp_path)
    data = json.loads(path.read_text())
    names = {image["id"]: image["file_name"] for image in data["images"]}
    assert list(names.values()) == list(SHAPES)
    found = {name: np.zeros(shape, bool) for name, shape in SHAPES.items()}
    for one in data["annotations"]:
        mask = decode_rle(one["segmentation"])
        assert mask.sum() == one["area"]
        assert not (found[names[one["image_id"]]] & mask).any()
        found[names[one["image_id"]]] |= mask
    for name in SHAPES:
        assert np.array_equal(found[name], wanted[name])


def test_coco_masks_decode_the_same_with_pycocotools(tmp_path):
    coco = pytest.importorskip("pycocotools.coco")
    path, wanted = coco_of(tmp_path)
    loaded = coco.COCO(str(path))
    for number, image in loaded.imgs.items():
        parts = [loaded.annToMask(one) for one in loaded.imgToAnns[number]]
        assert np.array_equal(np.max(parts, axis=0) > 0, wanted[image["file_name"]])


def test_coco_outlines_are_given_where_they_say_the_same(tmp_path):
    path = tmp_path / "coco.json"
    write_coco([record()], path, form="polygons")
    holed, square = json.loads(path.read_text())["annotations"]
    assert square["segmentation"] == [[3, 2, 8, 2, 8, 6, 3, 6]] and square["area"] == 20
    # an outline would fill the hole of the other
    mask = decode_rle(holed["segmentation"])
    assert mask.sum() == holed["area"] == 15 and not mask[11, 21]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**30))
def test_coco_of_either_form_says_the_same(tmp_path_factory, seed):
    path = tmp_path_factory.mktemp("coco") / "coco.json"
    map = np.random.default_rng(seed).random((9, 11)).astype(np.float32)
    regions = find_regions(map, 0.5, minimum_area=1)
    shown = to_record(Inspection("a", None, 11, 9, "defect", False, 1.0, None, regions))
    write_coco([shown], path, form="polygons")
    union = np.zeros((9, 11), bool)
    for one in json.loads(path.read_text())["annotations"]:
        form = one["segmentation"]
        parts = [fill_outline(np.reshape(p, (-1, 2)), 11, 9) for p in form if type(form) is list]
        mask = np.logical_or.reduce(parts) if parts else decode_rle(form)
        assert mask.sum() == one["area"] and not (union & mask).any()
        union |= mask
    assert np.array_equal(union, map > 0.5)


def test_coco_says_when_the_run_was_not_calibrated(tmp_path):
    write_coco([record(calibrated=False)], tmp_path / "coco.json")
    info = json.loads((tmp_path / "coco.json").read_text())["info"]
    assert info["calibrated"] is False and "not calibrated" in info["description"]


@pytest.mark.parametrize("records", [[], [BROKEN]])
def test_runs_without_any_result(tmp_path, records):
    write_coco(records, tmp_path / "coco.json")
    data = json.loads((tmp_path / "coco.json").read_text())
    assert data["images"] == data["annotations"] == data["categories"] == []
    write_csv(records, tmp_path / "results.csv")
    write_regions_csv(records, tmp_path / "regions.csv")
    assert len(rows_of(tmp_path / "results.csv")) == len(records)
    assert rows_of(tmp_path / "regions.csv") == []


def test_outputs_stream(tmp_path):
    template = record()

    def many():
        for i in range(3000):
            yield {**template, "image": f"{i}.png", "explanation": "x" * 2000}

    tracemalloc.start()
    try:
        write_csv(many(), tmp_path / "results.csv")
        write_regions_csv(many(), tmp_path / "regions.csv")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2_000_000  # the explanations alone are 6 MB
    write_coco(many(), tmp_path / "coco.json")
    assert len(json.loads((tmp_path / "coco.json").read_text())["annotations"]) == 6000
    assert len(rows_of(tmp_path / "results.csv")) == 3000


def test_a_failed_output_leaves_the_former_one(tmp_path):
    path = tmp_path / "results.csv"
    write_csv([good()], path)
    before = path.read_bytes()

    def full():
        yield record()
        raise OSError(errno.ENOSPC, "No space left on device")

    for write in (write_csv, write_regions_csv, write_coco):
        with pytest.raises(StoreError, match="No space left"):
            write(full(), path)
        assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


# Maps


def test_map_is_a_float_tiff_of_the_images_size(tmp_path):
    map = np.random.default_rng(0).normal(size=(37, 53)).astype(np.float32)
    path = tmp_path / "maps" / "a.tiff"
    write_map_tiff(path, map)
    read = tifffile.imread(path)
    assert read.dtype == np.float32 and np.array_equal(read, map)
    with Image.open(path) as image:
        assert image.mode == "F" and image.size == (53, 37)
        assert np.array_equal(np.asarray(image), map)
    with pytest.raises(ValueError, match=r"\(H, W\)"):
        write_map_tiff(path, map[None])


def place(tmp_path, image, root):
    return map_path(tmp_path / "run", image, root).relative_to(tmp_path / "run" / "maps").as_posix()


@pytest.mark.parametrize("root", ["data", "data/screw", "data/screw/test", "data/screw/test/hole"])
def test_mvtec_layout_wherever_the_run_began(tmp_path, root):
    image = tmp_path / "data/screw/test/hole/000.png"
    image.parent.mkdir(parents=True)
    image.touch()
    assert place(tmp_path, image, tmp_path / root) == "screw/test/hole/000.tiff"


def test_other_images_keep_their_path_below_the_root(tmp_path):
    assert place(tmp_path, tmp_path / "data/x/y/a.b.jpg", tmp_path / "data") == "x/y/a.b.tiff"
    assert place(tmp_path, tmp_path / "data/x/../a.jpg", tmp_path / "data") == "a.tiff"


def test_endings_stay_where_names_would_collide(tmp_path):
    for name in ("a.png", "a.jpg", "b.png", "b.png.jpg", "c", "c.png", "d.png"):
        (tmp_path / name).touch()
    places = {n.name: place(tmp_path, n, tmp_path) for n in tmp_path.iterdir()}
    assert len(set(places.values())) == len(places)
    assert places["a.png"] == "a.png.tiff" and places["a.jpg"] == "a.jpg.tiff"
    assert places["d.png"] == "d.tiff"


def test_images_from_elsewhere_stay_inside_the_maps_folder(tmp_path):
    one = place(tmp_path, "/etc/x/a.png", tmp_path)
    other = place(tmp_path, "/etc/y/a.png", tmp_path)
    assert one.startswith("elsewhere-") and one != other
    assert place(tmp_path, tmp_path / "../../a.png", tmp_path).startswith("elsewhere-")


def test_names_that_a_disk_may_take_for_one_another_have_maps_of_their_own(tmp_path):
    names = ["Part1.png", "part1.png", "lot/a.png", "LOT/a.png", "caf\u00e9.png", "cafe\u0301.png"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    if len(os.listdir(tmp_path)) < 6:  # noqa: PTH208
        pytest.skip("this disk takes them for one another itself")
    places = [place(tmp_path, tmp_path / name, tmp_path) for name in names]
    folded = {unicodedata.normalize("NFC", one.casefold()) for one in places}
    assert len(folded) == 6
    assert re.fullmatch(r"Part1\.png-[0-9a-f]{16}\.tiff", places[0])
    (tmp_path / "part1.png").unlink()
    os.utime(tmp_path, ns=(1, 1))
    assert place(tmp_path, tmp_path / "Part1.png", tmp_path) == "Part1.tiff"


@pytest.mark.parametrize("name", ["s" * 251 + ".png", "部" * 83 + "ab.png", "%" * 251 + ".png"])
def test_a_name_that_is_too_long_for_its_map_ends_in_a_hash(tmp_path, name):
    folder = tmp_path / ("d:" * 120)
    inside = Path(place(tmp_path, folder / name, tmp_path))
    assert all(len(os.fsencode(part)) in range(250, 256) for part in inside.parts)
    assert re.fullmatch(r".*-[0-9a-f]{16}\.tiff", inside.name)
    assert inside.name[:10] == name[:10].replace("%", "%25")[:10]
    other = place(tmp_path, folder / f"{name[:-5]}x.png", tmp_path)
    assert other != inside.as_posix()
    write_map_tiff(tmp_path / "run" / "maps" / inside, np.zeros((2, 3)))
    assert (tmp_path / "run" / "maps" / inside).stat().st_size > 0


@pytest.mark.skipif(sys.platform != "linux", reason="the longest path of Linux")
def test_a_path_near_the_longest_has_its_map_in_a_folder_of_its_own_kind(tmp_path):
    run = Path("/a/run", "y" * 99)
    for deep in (Path("/data", *(["x" * 99] * 39)), Path("/data", *(["x"] * 300))):
        one, other = (map_path(run, deep / f"{k}.png", "/data") for k in (0, 1))
        assert one.parent == other.parent and one.name == "0.tiff"
        assert re.fullmatch(r"elsewhere-[0-9a-f]{16}", one.parent.name)


def test_control_signs_stay_out_of_the_names_of_maps(tmp_path):
    assert place(tmp_path, tmp_path / "a\x1b\n:.png", tmp_path) == "a%1B%0A%3A.tiff"


def test_text_is_quoted_wherever_a_program_may_split_it(tmp_path):
    write_csv([record(image="a;=1+1|b.png")], tmp_path / "results.csv")
    assert '\n"a;=1+1|b.png",ok,' in (tmp_path / "results.csv").read_text()


def test_notes_are_a_column(tmp_path):
    told = record(notes=("first of 3 frames", "turned upright"))
    write_csv([told, good(), BROKEN], tmp_path / "results.csv")
    notes = [row["notes"] for row in rows_of(tmp_path / "results.csv")]
    assert notes == ["first of 3 frames; turned upright", "", ""]


parts = st.text(st.sampled_from("ab.%\\:/"), min_size=1, max_size=6) | st.sampled_from(
    ["..", "test", "C:", "C:\\", "/"]
)


@given(st.lists(st.lists(parts, min_size=1, max_size=5), min_size=2, max_size=2), parts)
@settings(max_examples=300, deadline=None)
def test_no_name_leaves_the_maps_folder_and_no_two_images_share_a_place(images, root):
    base = Path("/data") / root
    found = {}
    for names in images:
        image = Path("/data/" + "/".join(names) + ".png")
        path = map_path("/out/run", image, base)
        assert path.parts[:4] == ("/", "out", "run", "maps")
        assert not {"..", "."} & set(path.parts[4:])
        assert not any(sign in part for part in path.parts[4:] for sign in ":\\")
        found.setdefault(path, set()).add(os.path.normpath(image))
    assert all(len(same) == 1 for same in found.values())


def test_images_straight_below_a_test_folder_of_the_disk(tmp_path):
    for root in ("/", "/test", "/test/good"):
        path = map_path(tmp_path, "/test/good/0.png", root)
        assert path.is_relative_to(tmp_path / "maps")

"""Runs whose pictures are compared with each other: sets, marking, going on, repeated marks."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from run_files import lines_of, table
from small_detectors import small_cnn

from zerodefect import Inspector
from zerodefect.engines.local import inspect_files
from zerodefect.images import encode_png
from zerodefect.inspection.picture_sets import PictureSets, _divided
from zerodefect.inspection.product_groups import grouped
from zerodefect.inspection.repeated_marks import _short_names, repeated_marks
from zerodefect.inspection.self_comparison import (
    calibrate_within,
    compare_with_itself,
    limits_of_sets,
)
from zerodefect.methods.musc import MuSc, MuScConfig


def plate(seed, marked=False, spot=False):
    """Stripes in changing light; the mark is the same on every plate, a spot lies anywhere."""
    rng = np.random.default_rng(seed)
    stripes = 110 + 60 * (np.indices((64, 64))[1] // 8 % 2)
    pixels = np.repeat((stripes + rng.normal(0, 3, (64, 64)))[..., None], 3, axis=2)
    if marked:
        checks = np.indices((16, 16)).sum(0) // 4 % 2 * 200 + 20
        pixels[24:40, 24:40] = checks[..., None] * np.array([1, 0.3, 0.2])
    if spot:
        x, y = rng.integers(4, 40, 2)
        pixels[y : y + 20, x : x + 20] = (30, 250, 60)
    return pixels.clip(0, 255).astype(np.uint8)


def plates(folder, good=0, marked=0, spots=0, first=0):
    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(good + marked + spots):
        kind = "good" if seed < good else "marked" if seed < good + marked else "spot"
        made = plate(first + seed, kind == "marked", kind == "spot")
        (folder / f"{seed:02d}-{kind}.png").write_bytes(encode_png(made))
    return sorted(folder.iterdir())


@pytest.fixture
def inspector():
    detector = MuSc(small_cnn(), MuScConfig(layers=("layer1",), neighbourhoods=(1,)))
    detector.resize_inputs((64, 64))
    return Inspector(detector)


def test_a_batch_run_says_everywhere_that_it_is_one(inspector, tmp_path):
    files = plates(tmp_path / "parts", good=14, spots=2)
    sets = PictureSets.of(inspector, files)
    compare_with_itself(inspector, files, told=sets.sentence())
    summary = inspect_files(inspector, files, tmp_path / "run", sets=sets)
    records = {record["image"]: record for record in lines_of(tmp_path / "run")}
    assert all(record["transductive"] for record in records.values())
    assert all("Transductive" in record["explanation"] for record in records.values())
    assert all("Transductive" in row["explanation"] for row in table(tmp_path / "run/results.csv"))
    told = json.loads((tmp_path / "run/run.json").read_text())["transductive"]
    assert told["compared"] == "with each other" and told["sets"] == [16]
    assert told["set_level_steps_not_applied"] == ["rscin"]
    page = summary.report.read_text("utf-8")
    assert "16 pictures, compared with each other" in page and "Transductive: scores" in page
    assert not summary.calibrated
    scores = [records[str(file)]["score"] for file in files]
    assert min(scores[14:]) > max(scores[:14])
    assert {records[str(file)]["verdict"] for file in files[14:]} == {"defect"}


def test_parts_of_a_batch_say_that_they_are_compared(inspector, tmp_path):
    files = plates(tmp_path / "parts", good=4)
    inspect_files(inspector, files, tmp_path / "run", part_by=r"(?P<part>\d+)-.*", report=False)
    parts = list(map(json.loads, (tmp_path / "run/parts.jsonl").read_text().splitlines()))
    assert len(parts) == 4 and all(one["transductive"] is True for one in parts)
    rows = table(tmp_path / "run/parts.csv")
    for one in [*parts, *rows]:
        assert "Transductive: compared with the other pictures" in one["explanation"]


def test_a_set_that_is_not_done_is_scored_again_whole(inspector, tmp_path):
    files = plates(tmp_path / "parts", good=8)
    sets = PictureSets.of(inspector, files, most=4)
    assert [len(one) for one in sets.sets] == [4, 4]
    assert sets.sets[0] == tuple(files[::2])  # spread over the files
    inspect_files(inspector, files, tmp_path / "run", sets=sets, report=False)
    first = (tmp_path / "run/results.jsonl").read_text()
    lines = first.splitlines()
    assert [json.loads(one)["image"] for one in lines] == [str(f) for s in sets.sets for f in s]
    (tmp_path / "run/results.jsonl").write_text("\n".join(lines[:6]) + "\n")
    again = inspect_files(inspector, files, tmp_path / "run", sets=sets, report=False)
    assert again.inspected == 4
    scores = {record["image"]: record["score"] for record in lines_of(tmp_path / "run")}
    assert scores == pytest.approx(
        {json.loads(one)["image"]: json.loads(one)["score"] for one in lines}, abs=1e-6
    )
    alone = inspect_files(inspector, files, tmp_path / "run", sets=sets, report=False)
    assert alone.inspected == 0


@given(count=st.integers(2, 60), most=st.integers(2, 60))
def test_no_set_is_of_a_single_picture(count, most):
    files = [Path(str(number)) for number in range(count)]
    sets = _divided(files, most, 0)
    assert sorted(file for one in sets for file in one) == sorted(files)
    sizes = [len(one) for one in sets]
    assert min(sizes) >= 2 and max(sizes) - min(sizes) <= 1
    assert max(sizes) <= (most + 1 if most == 2 else most)


def test_an_odd_number_in_twos_leaves_none_alone(inspector, tmp_path):
    files = plates(tmp_path / "parts", good=7)
    sets = PictureSets.of(inspector, files, most=2)
    assert [len(one) for one in sets.sets] == [3, 2, 2]
    summary = inspect_files(inspector, files, tmp_path / "run", sets=sets, report=False)
    assert summary.failed == 0


def test_each_folder_is_a_product_and_a_picture_alone_fails(inspector, tmp_path):
    files = [*plates(tmp_path / "a", good=3), *plates(tmp_path / "b", good=1)]
    sets = PictureSets.of(inspector, files, by="folder")
    assert [len(one) for one in sets.sets] == [3, 1]
    assert "2 sets of 1 to 3" in sets.sentence()
    summary = inspect_files(inspector, files, tmp_path / "run", sets=sets, report=False)
    (failed,) = [one for one in lines_of(tmp_path / "run") if one["status"] == "failed"]
    assert failed["image"] == str(files[3]) and "there is one" in failed["reason"]
    assert failed["remedy"] == "Give two or more" and summary.failed == 1


def judged(inspector, files, run, **how):
    """Verdicts by the file's name of a batch whose products have limits of their own."""
    sets = limits_of_sets(inspector, PictureSets.of(inspector, files, **how))
    summary = inspect_files(inspector, files, run, sets=sets)
    return sets, summary, {Path(one["image"]): one["verdict"] for one in lines_of(run)}


def test_each_folder_has_limits_of_its_own(inspector, tmp_path):
    quiet = plates(tmp_path / "quiet", good=12, spots=1)
    busy = plates(tmp_path / "busy", good=6, spots=3)
    sets, summary, verdicts = judged(inspector, [*quiet, *busy], tmp_path / "run", by="folder")
    assert sets.products == len(sets.policies) == 2 and not summary.calibrated
    _, _, alone = judged(inspector, quiet, tmp_path / "alone", by="folder")
    assert {file: verdicts[file] for file in quiet} == alone
    assert alone[quiet[-1]] == "defect"
    assert {verdicts[file] for file in busy} == {"unsure"}  # too few for limits
    manifest = json.loads((tmp_path / "run/run.json").read_text())
    assert [one["limits"]["defect"] is None for one in manifest["policies"]] == [False, True]
    assert manifest["policy"]["limits"]["defect"] is None  # no limit in common
    page = summary.report.read_text("utf-8")
    assert "2 products, each judged by limits of its own" in page
    assert "busy: 9 pictures (9 unsure); ranked, without a limit." in page
    with pytest.raises(ValueError, match=r"2 folders.*nothing says whose the good parts are"):
        PictureSets.of(inspector, [*quiet, *busy], "folder", good=rings(tmp_path / "g", 2))


def ring(seed):
    """A bright ring on black, nothing like a plate."""
    rng = np.random.default_rng(seed)
    y, x = np.indices((64, 64)) - 32
    radius = np.hypot(x, y)
    pixels = np.where((radius > 14) & (radius < 24), 230, 15)[..., None] * np.array([1, 0.8, 0.1])
    return (pixels + rng.normal(0, 3, (64, 64, 1))).clip(0, 255).astype(np.uint8)


def rings(folder, count):
    folder.mkdir(parents=True, exist_ok=True)
    for seed in range(count):
        (folder / f"{seed:02d}-ring.png").write_bytes(encode_png(ring(seed)))
    return sorted(folder.iterdir())


def test_products_thrown_together_are_found_and_judged_each_by_its_own(inspector, tmp_path):
    files = [*rings(tmp_path / "mix", 5), *plates(tmp_path / "parts", good=13, spots=1)]
    odd = tmp_path / "noise.png"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    odd.write_bytes(encode_png(noise))
    good = [*rings(tmp_path / "good", 12)[5:], tmp_path / "unread.png"]
    good[-1].write_bytes(encode_png(ring(40)))
    run = tmp_path / "run"
    sets, summary, verdicts = judged(inspector, [*files, odd], run, by="look", good=good)
    plated, ringed = sets.groups
    assert set(plated.files) - {odd} == set(files[5:]) and not plated.good
    assert set(ringed.files) - {odd} == set(files[:5]) and set(ringed.good) == set(good)
    assert plated.strange + ringed.strange == (odd,)
    assert [policy.calibrated for policy in sets.policies] == [False, True]
    assert verdicts[files[-1]] == "defect" and not summary.calibrated
    assert "2 products (" in sets.sentence() and "1 picture resembles none" in sets.sentence()
    assert "8 good parts among them" in sets.sentence()
    products = json.loads((run / "products.json").read_text())
    assert [len(one["images"]) for one in products] == [len(g.files) for g in sets.groups]
    page = summary.report.read_text("utf-8")
    assert "Products of this batch" in page and "1 of them resembles no product" in page
    records = {Path(one["image"]): one for one in lines_of(run)}
    assert records[files[0]]["calibrated"] and not records[files[-1]]["calibrated"]


def test_one_product_alone_is_one_group(inspector, tmp_path):
    files = plates(tmp_path / "parts", good=8, marked=3, spots=5)
    sets = PictureSets.of(inspector, files, by="look")
    assert sets.products == 1 and sets.groups[0].strange == ()
    assert sets.sets == (tuple(files),) and "of one product" in sets.sentence()


@given(st.integers(0, 2**32 - 1), st.integers(1, 3), st.integers(0, 2))
def test_groups_are_those_that_lie_apart(seed, products, strange):
    """Tight bundles along axes, which lie 1.41 from each other, and single ones between."""
    rng = np.random.default_rng(seed)
    sizes = sorted(rng.integers(3, 9, products), reverse=True)
    own = np.repeat(range(products), sizes)
    x = np.eye(8)[np.concatenate([own, products + np.arange(strange)])]
    x = x + rng.normal(0, 0.01, x.shape)
    order = rng.permutation(len(x))
    label, odd = grouped((x / np.linalg.norm(x, axis=1, keepdims=True))[order])
    assert list(odd) == list(order >= len(own))
    pairs = {
        (own[place], number) for place, number in zip(order, label, strict=True) if place < len(own)
    }
    assert len(pairs) == products == len({number for _, number in pairs})
    counts = np.bincount(label[~odd])
    assert list(counts) == sorted(counts, reverse=True)


def test_pictures_of_which_no_three_are_alike_are_one_group():
    label, odd = grouped(np.eye(4)[[0, 0, 1, 2, 3]])
    assert not label.any() and not odd.any()
    assert grouped(np.ones((1, 4)))[0].tolist() == [0]


def test_files_that_cannot_be_read_leave_the_others_a_set(inspector, tmp_path):
    files = plates(tmp_path / "parts", good=4)
    files[1].write_bytes(b"")
    summary = inspect_files(inspector, files, tmp_path / "run", report=False)
    assert summary.failed == 1 and len(lines_of(tmp_path / "run")) == 4


def test_good_parts_in_the_set_make_limits_for_it(inspector, tmp_path):
    good = plates(tmp_path / "good", good=19, first=50)
    files = [*plates(tmp_path / "parts", good=3), *plates(tmp_path / "bad", spots=2)]
    sets = PictureSets.of(inspector, files, good=good)
    policy = calibrate_within(inspector, good, files, told=sets.sentence())
    assert policy.calibrated and not policy.guaranteed and len(policy.scores) == 19
    assert "same set" in policy.notes[0] and "Transductive" in policy.notes[0]
    summary = inspect_files(inspector, files, tmp_path / "run", sets=sets, report=False)
    records = lines_of(tmp_path / "run")
    assert [one["image"] for one in records] == [str(file) for file in files]
    assert summary.calibrated and {one["verdict"] for one in records[3:]} == {"defect"}
    assert all(one["p_value"] == 1 / 20 for one in records[3:])
    renamed = tmp_path / "copy.bmp"  # the same pixels under another name, in another format
    Image.open(files[0]).save(renamed)
    for same in (files[0], renamed):
        with pytest.raises(ValueError, match="compared with itself"):
            PictureSets.of(inspector, files, good=[same])
    with pytest.raises(ValueError, match=r"one set with all pictures of their product.* 3 sets"):
        PictureSets.of(inspector, files, most=21, good=good)


def test_the_same_mark_is_listed_with_examples(inspector, tmp_path):
    files = plates(tmp_path / "parts", good=14, marked=6, spots=2)
    compare_with_itself(inspector, files)
    summary = inspect_files(inspector, files, tmp_path / "run")
    (mark,) = json.loads((tmp_path / "run/repeated.json").read_text())
    assert {one["image"] for one in mark["members"]} == {str(file) for file in files[14:20]}
    for one in mark["members"]:
        x, y, width, height = one["box"]
        assert x < 40 and y < 40 and x + width > 24 and y + height > 24
    (told,) = summary.repeated
    assert told.startswith("The same mark on 6 of 22 pictures")
    page = summary.report.read_text("utf-8")
    assert told in page and page.count("<li><a href=") >= 6
    found = repeated_marks(inspector, lines_of(tmp_path / "run"))  # of any finished run
    assert [one.sentence() for one in found] == [told]


def test_a_repeated_mark_names_pictures_by_what_tells_them_apart(inspector, tmp_path):
    files = plates(tmp_path / "parts", good=14, marked=6, spots=2)
    other = tmp_path / "other"
    other.mkdir()
    files[14] = files[14].rename(other / files[15].name)
    compare_with_itself(inspector, files)
    summary = inspect_files(inspector, files, tmp_path / "run")
    (mark,) = json.loads((tmp_path / "run/repeated.json").read_text())
    names = {one["image"]: one["name"] for one in mark["members"]}
    assert names[str(files[14])] == "other/15-marked.png"
    assert names[str(files[15])] == "parts/15-marked.png"
    assert names[str(files[16])] == "16-marked.png"
    assert mark["members"][0]["name"] in summary.repeated[0]
    page = summary.report.read_text("utf-8")
    assert "other/15-marked.png</a>" in page and "parts/15-marked.png</a>" in page


@given(st.sets(st.text("ab/", min_size=1).map(lambda path: str(Path("/", path))), min_size=1))
def test_short_names_are_of_one_picture_each(paths):
    names = _short_names(sorted(paths))
    assert len(set(names)) == len(names)
    assert all(path.endswith(name) for path, name in zip(sorted(paths), names, strict=True))


def test_nothing_repeats_where_spots_lie_anywhere(inspector, tmp_path):
    files = plates(tmp_path / "parts", good=14, spots=2)
    compare_with_itself(inspector, files)
    summary = inspect_files(inspector, files, tmp_path / "run", report=False)
    assert summary.repeated == () and not (tmp_path / "run/repeated.json").exists()

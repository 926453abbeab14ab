"""``zerodefect inspect --batch`` as a user types it."""

import json

import numpy as np
import pytest

import zerodefect
from zerodefect.images import encode_png


@pytest.fixture
def parts(tmp_path):
    folder = tmp_path / "parts"
    folder.mkdir()
    for seed in range(4):
        rng = np.random.default_rng(seed)
        (folder / f"{seed}.png").write_bytes(
            encode_png(rng.normal(128, 20, (64, 64, 3)).clip(0, 255).astype(np.uint8))
        )
    return folder


def test_a_batch_is_compared_with_itself_and_says_so(run, parts, tmp_path):
    small = ("--image-size", 64, "-o", tmp_path / "run")
    code, out, err = run("inspect", parts, "--batch", *small)
    assert code == 0, err
    assert "one set of 4" in out and "UNCALIBRATED" in out and "4 images: 4 unsure" in out
    manifest = json.loads((tmp_path / "run/run.json").read_text())
    assert manifest["method"] == "MuSc" and manifest["transductive"]["sets"] == [4]
    code, out, err = run("inspect", parts, "--batch", *small)
    assert code == 0 and "(4 done before)" in out
    code, out, err = run("inspect", parts, "--batch", "--batch-sample", 2, *small, "--json")
    assert code == 1 and "other settings" in err
    code, out, err = run(
        *("inspect", parts, "--batch", "--batch-sample", 2, "--image-size", 64),
        *("-o", tmp_path / "two", "--json"),
    )
    assert code == 0 and "2 sets of 2" in err
    assert all(json.loads(line)["transductive"] for line in out.splitlines())


def test_what_does_not_go_with_a_batch_is_refused(run, parts, tmp_path):
    small = ("--image-size", 64, "-o", tmp_path / "run")
    for more, reason in (
        (("--batch", "-m", "dense"), "dense judges each picture alone; choose anomalydino_batch"),
        (("--batch", "--product", "a.zd"), "--product: what was learned from other pictures"),
        (("--batch", "--reference", parts), "to be inspected, so that it would be compared"),
        (("-m", "dense", "--object", "nut", "--batch-sample", 2), "are for --batch"),
    ):
        code, _, err = run("inspect", parts, *more, *small)
        assert code == 1 and reason in " ".join(err.split()), err
        assert "Traceback" not in err


def test_folders_that_are_products_are_judged_each_by_itself(run, parts, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    for seed in range(14):
        pixels = np.full((64, 64, 3), 90 + seed, np.uint8)
        pixels[20:30] = 200
        (other / f"{seed}.png").write_bytes(encode_png(pixels))
    small = ("--batch-by", "folder", "--image-size", 64, "-o", tmp_path / "run")
    code, out, err = run("inspect", parts, other, "--batch", *small)
    assert code == 0, err
    told = " ".join(out.split())
    assert "2 products, each judged by limits of its own" in told and "provisional limits" in told
    verdicts = {
        one["image"]: one["verdict"]
        for one in map(json.loads, (tmp_path / "run/results.jsonl").read_text().splitlines())
    }
    assert {verdicts[str(file)] for file in parts.iterdir()} == {"unsure"}
    assert "good" in {verdicts[str(file)] for file in other.iterdir()}
    code, _, err = run("inspect", parts, other, "--batch", *small, "--threshold", "0.5")
    assert code == 1 and "one score says nothing of 2 products" in " ".join(err.split())
    good = tmp_path / "good"
    good.mkdir()
    (other / "0.png").rename(good / "0.png")
    code, _, err = run("inspect", parts, other, "--batch", *small, "--reference", good)
    assert code == 1 and "each a product of its own" in " ".join(err.split())


def test_a_saved_product_of_a_batch_method_is_compared_with_itself(run, parts, tmp_path):
    for seed in range(4, 14):
        rng = np.random.default_rng(seed)
        pixels = rng.normal(128, 20, (64, 64, 3)).clip(0, 255).astype(np.uint8)
        (parts / f"{seed}.png").write_bytes(encode_png(pixels))
    made = zerodefect.load("musc", object="nut", image_size=64)
    made.save(tmp_path / "nut.zd")
    saved = ("inspect", parts, "--product", tmp_path / "nut.zd", "-o", tmp_path / "run")
    code, out, err = run(*saved, "--json")
    assert code == 0, err
    assert "one set of 14" in err
    assert "good" in {json.loads(line)["verdict"] for line in out.splitlines()}


def test_every_remedy_is_one_for_sets(run, parts, tmp_path):
    right = "--batch --reference good/, or take a method that needs no set: zerodefect setup good/"
    small = ("--image-size", 64)
    code, out, err = run("inspect", parts, "--batch", *small, "-o", tmp_path / "run")
    assert code == 0, err
    page = (tmp_path / "run/report.html").read_text("utf-8")
    assert right in " ".join(out.split()) and "zerodefect calibrate" not in out + page
    for command in (
        ("inspect", parts, "--batch", "--threshold", "q:0.9", *small, "-o", tmp_path / "q"),
        ("calibrate", parts, "-m", "musc", *small, "-o", tmp_path / "limits.json"),
    ):
        code, _, err = run(*command)
        assert code == 1 and right in " ".join(err.split()), err
        assert "zerodefect calibrate" not in err

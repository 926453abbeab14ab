"""``zerodefect inspect --batch`` as a user types it."""

import json

import numpy as np
import pytest

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


def test_folders_that_are_products_are_ranked_without_a_verdict(run, parts, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    for seed in range(10):
        (other / f"{seed}.png").write_bytes((parts / f"{seed % 4}.png").read_bytes())
    small = ("--batch-by", "folder", "--image-size", 64, "-o", tmp_path / "run")
    code, out, err = run("inspect", parts, other, "--batch", *small)
    assert code == 0, err
    assert "14 images: 14 unsure" in out
    assert "Verdicts per product: inspect each folder by itself." in out
    good = tmp_path / "good"
    other.joinpath("0.png").rename(tmp_path / "0.png")
    good.mkdir()
    (tmp_path / "0.png").rename(good / "0.png")
    code, _, err = run("inspect", parts, other, "--batch", *small, "--reference", good)
    assert code == 1 and "each a product of its own" in " ".join(err.split())


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

"""Data sets made of good pictures alone."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from zerodefect import cli
from zerodefect.data import DatasetError, check_files, load_dataset
from zerodefect.data.synthesis import damaged_picture, synthesize


@pytest.fixture
def good(tmp_path):
    draws = np.random.default_rng(0)
    folder = tmp_path / "good"
    folder.mkdir()
    for number in range(5):
        pixels = draws.integers(90, 130, (48, 64, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"part {number}.png")
    return folder


def test_what_is_written_is_a_data_set_of_mvtec_that_tells_the_truth(good, tmp_path):
    made = synthesize(good, tmp_path / "washer", 9, seed=3)
    assert (made.train, made.good, made.damaged) == (3, 2, 9)
    dataset = load_dataset(tmp_path / "washer")
    assert dataset.layout == "mvtec" and dataset.products == ("washer",) and not dataset.problems
    assert not check_files(dataset, masks=True, deep=True).problems
    by_split = {(s.split, s.anomalous): 0 for s in dataset}
    for sample in dataset:
        by_split[sample.split, sample.anomalous] += 1
    assert by_split == {("train", False): 3, ("test", False): 2, ("test", True): 9}

    def pixels(sample):
        return np.asarray(Image.open(sample.image).convert("RGB"))

    train = [pixels(s) for s in dataset if s.split == "train"]
    whole = [pixels(s) for s in dataset if s.split == "test" and not s.anomalous]
    for sample in (s for s in dataset if s.anomalous):
        mask, seen = np.asarray(Image.open(sample.mask)) > 0, pixels(sample)
        far = [float(np.abs(seen.astype(int) - other)[~mask].mean()) for other in whole]
        assert min(far) < 1  # it is one of those of the test split, outside of the damage
        assert min(float(np.abs(seen.astype(int) - t)[~mask].mean()) for t in train) > 5
        source = whole[int(np.argmin(far))]
        assert (seen != source).any(2)[mask].any()


def test_the_seed_decides(good, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        synthesize(good, tmp_path / name / "p", 4, seed=seed, sort="perlin")
    a, b, c = (
        {p.relative_to(tmp_path / n): p.read_bytes() for p in (tmp_path / n).rglob("*.png")}
        for n in "abc"
    )
    assert a == b != c


def test_one_picture_is_enough_for_one_damage():
    pixels = np.full((64, 64, 3), 128, np.uint8)
    for sort in ("perlin", "procedural"):
        changed, mask, kind = damaged_picture(pixels, 0, 5, sort)
        again = damaged_picture(pixels, 0, 5, sort)
        assert mask.any() and (changed != pixels).any() and (kind == "perlin") == (sort == "perlin")
        np.testing.assert_array_equal(changed, again[0])


def test_logical_edits_take_parts_of_other_good_pictures(tmp_path):
    good = tmp_path / "good"
    good.mkdir()
    for number in range(6):
        pixels = np.random.default_rng(number).integers(105, 115, (64, 96, 3)).astype(np.uint8)
        pixels[12:28, 10:30] = (30, 200, 40) if number % 2 else (200, 40, 30)
        pixels[40:54, 50:80] = (40, 60, 210)
        Image.fromarray(pixels).save(good / f"{number}.png")
    made = synthesize(good, tmp_path / "plate", 24, seed=1, sort="logical")
    assert (made.train, made.good, made.damaged) == (3, 3, 24)
    dataset = load_dataset(tmp_path / "plate")
    faults = check_files(dataset, masks=True, deep=True).problems
    assert not dataset.problems and not [one for one in faults if one.severity == "error"]
    kinds = {sample.kind for sample in dataset if sample.anomalous}
    assert {"logical_remove", "logical_move"} <= kinds
    assert kinds & {"structural_replace", "mixed_merge"}  # these need another picture
    flat = np.full((32, 32, 3), 90, np.uint8)
    with pytest.raises(ValueError, match="no logical anomaly"):
        damaged_picture(flat, 0, 0, "logical")


def test_faults_are_said_in_one_line(good, tmp_path):
    only = tmp_path / "one"
    only.mkdir()
    Image.new("RGB", (8, 8)).save(only / "a.png")
    with pytest.raises(DatasetError, match="holds 1 picture, and two are needed"):
        synthesize(only, tmp_path / "out", 1)
    with pytest.raises(DatasetError, match="there is something already"):
        synthesize(good, only, 1)
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        synthesize(tmp_path / "absent", tmp_path / "out", 1)


def test_from_the_command_line(good, tmp_path):
    out = tmp_path / "bolt"
    words = ["data", "synthesize", str(good), "-o", str(out), "--count", "3", "--damage", "perlin"]
    result = CliRunner().invoke(cli.app, words)
    assert result.exit_code == 0, result.output
    assert "measure on: 2 good, 3 damaged" in result.stdout
    assert len(list((out / "ground_truth" / "perlin").iterdir())) == 3
    refused = CliRunner().invoke(cli.app, [*words[:4], str(tmp_path / "x"), "--damage", "rust"])
    assert refused.exit_code and "procedural" in refused.output

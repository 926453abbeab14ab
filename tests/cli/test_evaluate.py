"""``zerodefect evaluate``: folders of results, names of data sets, the cache, learned pictures."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from models import write_tiny_weights
from PIL import Image
from safetensors.torch import load_file, save_file
from toy_method import registered, write_parts
from typer.testing import CliRunner

from zerodefect import cli
from zerodefect.cli import app
from zerodefect.detector.learned_pictures import LEARNED_FROM, picture_names
from zerodefect.images import open_image
from zerodefect.training.journal import Journal


@pytest.fixture(autouse=True)
def _toy(monkeypatch, tmp_path):
    monkeypatch.setattr(Journal, "draw", lambda journal: True)
    monkeypatch.setenv("ZERODEFECT_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    with registered():
        yield


@pytest.fixture
def weights(tmp_path) -> Path:
    return write_tiny_weights(tmp_path)


@pytest.fixture
def parts(tmp_path) -> Path:
    return write_parts(tmp_path / "parts", count=3)


def run(*arguments: object, fails: str | None = None) -> str:
    done = CliRunner().invoke(app, [str(a) for a in arguments])
    if fails is None:
        assert done.exit_code == 0, (done.output, done.exception)
        return done.output
    assert done.exit_code != 0
    assert fails in f"{done.output} {done.exception}", done.output
    return f"{done.output} {done.exception}"


def evaluate(data: object, weights: Path, *more: object, fails: str | None = None) -> str:
    given = ("-m", "winclip", "-b", weights, "--resolution", "network")
    return run("evaluate", "-d", data, *given, *more, fails=fails)


def stored(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text())


# --- folders of results --------------------------------------------------------------------------


def test_results_of_other_settings_are_never_written_over_in_silence(parts, weights, tmp_path):
    folder = tmp_path / "evaluation/parts/winclip"
    evaluate(parts, weights)
    evaluate(parts, weights, "--batch-size", 3, "--no-cache")  # are no other settings
    before = (folder / "results.json").read_bytes()
    refused = "holds results of other settings (protocol.smoothing: 0.0 then, 2.0 now)"
    said = evaluate(parts, weights, "--smoothing", 2, fails=refused)
    assert "--output" in said and "--overwrite" in said
    evaluate(parts, weights, "-n", "nut", fails='names.p: "p" then, "nut" now')
    roi = tmp_path / "roi.png"
    shutil.copy(next((parts / "p/ground_truth").rglob("*.png")), roi)
    evaluate(parts, weights, "--roi", roi, fails="areas")
    assert (folder / "results.json").read_bytes() == before
    evaluate(parts, weights, "--smoothing", 2, "--output", "other")
    evaluate(parts, weights, "--smoothing", 2, "--overwrite")
    assert stored(folder) == stored(tmp_path / "other/parts/winclip")
    evaluate(parts, weights, fails="protocol.smoothing: 2.0 then, 0.0 now")
    (folder / "results.json").write_text("{")
    evaluate(parts, weights, fails="not valid JSON")
    evaluate(parts, weights, "--overwrite")
    (folder / "results.json").write_text("{}")  # of another program
    evaluate(parts, weights, "--overwrite", fails="not the results of an evaluation")


def test_another_method_joins_what_is_there(parts, weights, tmp_path):
    evaluate(parts, weights)
    run("evaluate", "-d", parts, "-m", "dense", "-b", weights, "--resolution", "network")
    names = {path.name for path in (tmp_path / "evaluation/parts").iterdir()}
    assert names == {"winclip", "dense"}


def test_two_data_sets_of_one_folder_name_do_not_meet(weights, tmp_path):
    one = write_parts(tmp_path / "a/parts", count=3)
    two = write_parts(tmp_path / "b/parts", count=3, seed=9)
    evaluate(one, weights, "-d", two)
    folder = tmp_path / "evaluation"
    apart = [stored(folder / f"{n}-parts" / "winclip") for n in ("a", "b")]
    evaluate(one, weights)
    evaluate(two, weights, fails="data.fingerprint")
    evaluate(two, weights, "--output", "second")
    # from the cache, under another name: each its own
    later = [stored(folder / "parts/winclip"), stored(tmp_path / "second/parts/winclip")]
    for first, then in zip(apart, later, strict=True):
        assert first["pictures"] == then["pictures"]
    assert apart[0]["pictures"] != apart[1]["pictures"]


# --- worst cases ---------------------------------------------------------------------------------


def test_worst_cases_are_drawn_beside_the_results(parts, weights, tmp_path):
    said = evaluate(parts, weights)
    folder = tmp_path / "evaluation/parts/winclip"
    text = (folder / "results.md").read_text()
    drawn = sorted((folder / "worst").iterdir())
    assert len(drawn) == 6 and "6 worst cases in worst/" in said
    for file in drawn:
        assert f"(worst/{file.name})" in text
    pictures = sorted(stored(folder)["pictures"], key=lambda row: row["score"])
    lowest = next(row for row in pictures if row["anomalous"])
    assert f"1. {lowest['score']:.4f} p, spot: {lowest['image']}" in text
    shown = open_image(folder / "worst/lowest-defective-0-shot-1.jpg").pixels
    original = open_image(parts / lowest["image"]).to_uint8()
    height, width = original.shape[:2]
    assert shown.shape == (height, 3 * width, 3)  # picture, map, mask
    assert np.abs(shown[:, :width].astype(int) - original).mean() < 12  # a JPEG of it
    (truth,) = (parts / "p/ground_truth/spot").glob(f"{Path(lowest['image']).stem}*")
    mask = open_image(truth).to_uint8()[..., 0] > 0
    assert ((shown[:, 2 * width :, 0] > 127) == mask).mean() > 0.97


def test_pictures_of_twelve_bits_score_and_are_drawn_as_their_twins_of_eight(
    parts, weights, tmp_path
):
    twelve = Path(shutil.copytree(parts, tmp_path / "twelve"))
    for file in parts.rglob("*.png"):
        if "ground_truth" not in file.parts:
            grey = open_image(file).to_uint8().mean(axis=2).astype(np.uint8)
            Image.fromarray(grey).save(file)
            wide = grey.astype(np.uint32) * 4095 // 255
            Image.fromarray(wide.astype(np.uint16)).save(twelve / file.relative_to(parts))
    for data in (parts, twelve):
        evaluate(data, weights)
    eight, wide = (tmp_path / "evaluation" / data.name / "winclip" for data in (parts, twelve))
    assert [stored(one)["bit_depths"] for one in (eight, wide)] == [{}, {"p": 12}]
    scores = [[row["score"] for row in stored(one)["pictures"]] for one in (eight, wide)]
    assert scores[1] == pytest.approx(scores[0], abs=5e-3)
    brightness = []
    for one in (eight, wide):
        drawn = [open_image(file).pixels for file in (one / "worst").glob("highest-good-*.jpg")]
        # a picture, its map beside it
        brightness.append(np.mean([pixels[:, : pixels.shape[1] // 2].mean() for pixels in drawn]))
    assert brightness[1] == pytest.approx(brightness[0], abs=3)


# --- the cache -----------------------------------------------------------------------------------


def test_what_the_cache_will_take_is_said_before_and_a_limit_is_kept(parts, weights, tmp_path):
    said = evaluate(parts, weights)
    one = 64 * 64 * 2 + 1200
    assert f"cache: up to {6 * one / 1e6:,.1f} MB for 6 predictions in" in said
    taken = [path.stat().st_size for path in (tmp_path / "cache/predictions").rglob("*.npz")]
    assert sum(taken) == pytest.approx(6 * one, rel=0.02)
    limit = 3 * one / 1e9
    said = evaluate(parts, weights, "--full-maps", "--cache-limit", limit, "--output", "small")
    assert "the oldest give way" in said
    taken = [path.stat().st_size for path in (tmp_path / "cache/predictions").rglob("*.npz")]
    assert sum(taken) <= 3 * one
    evaluate(parts, weights, "--full-maps", "--cache-limit", limit / 3, "--output", "small")
    left = [path.stat().st_size for path in (tmp_path / "cache/predictions").rglob("*.npz")]
    assert sum(left) <= one  # a lower limit holds for what is there, too
    first, second = (stored(tmp_path / name / "parts/winclip") for name in ("evaluation", "small"))
    assert (first["maps"], second["maps"]) == ("16 bits", "float32")
    assert "cache:" not in evaluate(parts, weights, "--no-cache")


def test_cache_shows_what_is_kept_and_clears_it(parts, weights, tmp_path):
    evaluate(parts, weights)
    shown = run("cache")
    (line,) = (line for line in shown.splitlines() if "winclip on parts" in line)
    assert line.split()[2:6] == ["6", "files", "used", "just"]
    kept = json.loads(run("cache", "--json"))["kept"]
    assert {row["what"]: row["files"] for row in kept}["winclip on parts"] == 6
    total = sum(row["bytes"] for row in kept)
    assert f"removed: {total / 1e6:,.1f} MB" in run("cache", "--clear")
    assert json.loads(run("cache", "--json"))["kept"] == []
    assert not list((tmp_path / "cache").rglob("*.npz"))


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(5, "just now"), (61, "1 minute ago"), (7300, "2 hours ago"), (90000, "1 day ago")],
)
def test_ages_in_words(seconds, words):
    assert cli.cache.told_age(seconds) == words


# --- protocols and learned pictures --------------------------------------------------------------


def test_a_step_that_a_method_does_not_have_is_refused_before_the_work(parts, weights):
    said = evaluate(parts, weights, "--set-level", "min-max", fails="winclip has no such step")
    assert "it has: none" in said


def test_pictures_that_a_checkpoint_learned_from_are_refused(weights, tmp_path):
    parts = write_parts(tmp_path / "parts")
    chosen = ("--backbone", weights, "--device", "cpu")
    run("train", "toy", "--data", parts, *chosen, "--output", "run", "--max-steps", 1)
    path = tmp_path / "run/toy.safetensors"
    values = load_file(path)
    files = [file for file in (parts / "p/test").rglob("*.png")]
    assert values[LEARNED_FROM].tolist() == picture_names(files).tolist()
    given = ("--checkpoint", path, *chosen)
    refused = f"learned from {len(files)} of the {len(files)} pictures"
    run("evaluate", "-d", parts, *given, fails=refused)
    assert not (tmp_path / "evaluation").exists()
    run("evaluate", "-d", parts, *given, "--allow-training-pictures")
    found = stored(tmp_path / "evaluation/parts/toy")
    assert found["learned_pictures"] == len(files) and found["notes"]

    other = write_parts(tmp_path / "other", count=3, seed=7)
    run("evaluate", "-d", other, *given)
    assert stored(tmp_path / "evaluation/other/toy")["learned_pictures"] == 0
    del values[LEARNED_FROM]  # as files of before
    save_file(values, path)
    side_car = path.with_suffix(".json")
    facts = json.loads(side_car.read_text())
    from zerodefect.backbones.weight_files import file_hash

    side_car.write_text(json.dumps({**facts, "version": 1, "sha256": file_hash(path)}))
    said = run("evaluate", "-d", parts, *given, "--output", "old")
    assert "it is unknown whether the checkpoint learned from some of these pictures" in said

"""From labelled pictures to a checkpoint that the other verbs take."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from models import write_tiny_weights
from toy_method import read_steps, registered, write_parts
from typer.testing import CliRunner

from zerodefect.cli import app
from zerodefect.training.journal import Journal


@pytest.fixture(autouse=True)
def _toy(monkeypatch, tmp_path):
    monkeypatch.setattr(Journal, "draw", lambda journal: True)
    monkeypatch.chdir(tmp_path)
    with registered():
        yield


@pytest.fixture
def weights(tmp_path) -> Path:
    return write_tiny_weights(tmp_path)


def run(*arguments: object, fails: str | None = None) -> str:
    done = CliRunner().invoke(app, [str(a) for a in arguments])
    if fails is None:
        assert done.exit_code == 0, (done.output, done.exception)
        return done.output
    assert done.exception is not None
    assert fails in f"{done.output} {done.exception}"
    return done.output


def trained(tmp_path: Path, weights: Path, *more: object) -> Path:
    parts = write_parts(tmp_path / "parts")
    run(
        "train", "toy", "--data", f"parts={parts}", "--backbone", weights, "--device", "cpu",
        "--output", tmp_path / "run", "--epochs", 12, *more,
    )  # fmt: skip
    return tmp_path / "run" / "toy.safetensors"


def test_train_then_inspect_calibrate_evaluate(tmp_path, weights):
    val = write_parts(tmp_path / "val", count=4, seed=7)
    path = trained(tmp_path, weights, "--val", f"val={val}", "--image-size", 48)
    measured = [line for line in read_steps(tmp_path / "run") if "validation" in line]
    assert len(measured) == 12
    assert set(measured[-1]["validation"]) == {
        f"val {name}" for name in ("image auroc", "image ap", "pixel auroc", "pixel aupro")
    }
    assert measured[-1]["validation"]["val pixel auroc"] > 0.9
    card = json.loads(path.with_suffix(".json").read_text())
    assert card["image_size"] == [48, 48]
    assert card["config"]["seed"] == card["origin"]["seed"] == 5
    assert card["origin"]["data"][0]["anomalous"] == 5

    chosen = ("--checkpoint", path, "--backbone", weights, "--device", "cpu")
    pictures = val / "p" / "test"
    run("inspect", pictures, *chosen, "--output", tmp_path / "found", "--no-report")
    lines = (tmp_path / "found" / "results.jsonl").read_text().splitlines()
    score = {r["image"]: r["score"] for r in map(json.loads, lines)}
    good = [s for name, s in score.items() if "good" in name]
    bad = [s for name, s in score.items() if "spot" in name]
    assert max(good) < min(bad)

    good_parts = parts_good(tmp_path)
    run("calibrate", good_parts, *chosen, "--output", tmp_path / "policy.json")
    policy = json.loads((tmp_path / "policy.json").read_text())
    assert policy["method"] == "toy"

    run("evaluate", "--data", f"val={val}", *chosen, "--output", tmp_path / "figures")
    results = json.loads((tmp_path / "figures" / "val" / "toy" / "results.json").read_text())
    assert results["detector"]["checkpoint"] == card["sha256"]


def parts_good(tmp_path: Path) -> Path:
    return tmp_path / "parts" / "p" / "test" / "good"


def test_a_policy_of_other_values_is_refused(tmp_path, weights):
    path = trained(tmp_path, weights)
    chosen = ("--backbone", weights, "--device", "cpu")
    policy = tmp_path / "policy.json"
    run("calibrate", parts_good(tmp_path), "--checkpoint", path, *chosen, "--output", policy)
    other = tmp_path / "other"
    run("train", "toy", "--data", tmp_path / "parts", *chosen, "--output", other, "--max-steps", 1)
    run(
        "inspect", parts_good(tmp_path), "--checkpoint", other / "toy.safetensors", *chosen,
        "--policy", policy, "--output", tmp_path / "x", fails="policy",
    )  # fmt: skip


def test_two_checkpoints_of_one_method_are_measured_side_by_side(tmp_path, weights):
    path = trained(tmp_path, weights)
    other = tmp_path / "other"
    chosen = ("--backbone", weights, "--device", "cpu")
    run("train", "toy", "--data", tmp_path / "parts", *chosen, "--output", other, "--max-steps", 1)
    run(
        "evaluate", "--data", f"val={write_parts(tmp_path / 'val', count=2, seed=7)}", *chosen,
        "--checkpoint", path, "--checkpoint", other / "toy.safetensors",
        "--method", "winclip,toy", "--output", tmp_path / "figures",
    )  # fmt: skip
    names = {folder.name for folder in (tmp_path / "figures" / "val").iterdir()}
    assert "winclip" in names
    assert len(names) == 3
    run(
        "evaluate", "--data", tmp_path / "val", "--method", "winclip", "--checkpoint", path,
        fails="leaves out",
    )  # fmt: skip
    run(
        "evaluate", "--data", tmp_path / "val", "--method", "toy+pyramid", "--checkpoint", path,
        *chosen, "--k-shot", 1, "--output", tmp_path / "both",
    )  # fmt: skip
    (results,) = (tmp_path / "both").rglob("results.json")
    assert results.parent.name == "toy+pyramid"


def test_what_cannot_be_is_refused_in_words(tmp_path, weights):
    parts = write_parts(tmp_path / "parts")
    data = ("--data", f"parts={parts}", "--backbone", weights, "--device", "cpu")
    run("inspect", parts, "--method", "toy", "--backbone", weights, fails="zerodefect train toy")
    run("train", "winclip", *data, fails="winclip is not trained")
    run("train", "toy", *data, "--val", f"val={parts}", fails="is also a training picture")
    run("train", "toy", *data, "--object", "q=nut", fails="parts has no such product; it has: p")
    run("train", "toy", "--data", "procedural:many", fails="write procedural:COUNT")
    run(
        "train", "toy", "--data", "procedural-good:2", *data[2:],
        fails="no defective picture among them",
    )  # fmt: skip
    run("train", "toy", *data, "--output", weights, fails="this is a file")
    run("train", "toy", *data, "--set", "width=3", fails="toy has no option 'width'")
    run(
        "train",
        "toy",
        *data,
        "--precision",
        "float16",
        fails="precision is float32, bfloat16 or auto",
    )
    blank = tmp_path / "blank"
    blank.mkdir()
    (blank / "a.png").write_bytes((parts / "p" / "train" / "good" / "0.png").read_bytes())
    run("train", "toy", *data, "--val", blank, fails="has no labelled pictures to measure on")
    run("train", "toy", "--data", tmp_path / "none", fails="there is no such file or folder")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "size",
    [0, 63, 10**7],
)
def test_an_input_size_that_cannot_be_is_refused_with_its_side_car(tmp_path, weights, size):
    path = trained(tmp_path, weights, "--max-steps", 1)
    card = json.loads(path.with_suffix(".json").read_text())
    path.with_suffix(".json").write_text(json.dumps({**card, "image_size": [size, size]}))
    run(
        "inspect", parts_good(tmp_path), "--checkpoint", path, "--backbone", weights,
        fails=f"toy.json: image size {size}",
    )  # fmt: skip


def test_procedural_pictures_and_words(tmp_path, weights):
    parts = write_parts(tmp_path / "parts", count=2)
    run(
        "train", "toy", "--data", f"parts={parts}", "--data", "procedural:3",
        "--data", "procedural-good:2", "--object", "p=steel plate", "--train-good",
        "--backbone", weights, "--device", "cpu", "--epochs", 1, "--seed", 11,
    )  # fmt: skip
    card = json.loads((tmp_path / "runs" / "toy" / "toy.json").read_text())
    assert [d["name"] for d in card["origin"]["data"]] == ["parts", "procedural", "procedural-good"]
    assert [d["good"] + d["anomalous"] for d in card["origin"]["data"]] == [6, 3, 2]
    assert card["origin"]["data"][2]["anomalous"] == 0
    assert card["config"]["seed"] == 11


def test_an_untrainable_method_is_refused_before_processes_start(tmp_path, monkeypatch):
    monkeypatch.setattr("zerodefect.cli.train._launch", lambda processes: pytest.fail("started"))
    parts = write_parts(tmp_path / "parts")
    run("train", "winclip", "--data", parts, "--processes", 2, fails="winclip is not trained")


def test_several_processes_without_accelerate_are_one_line(tmp_path, monkeypatch):
    from importlib import util

    there = util.find_spec
    monkeypatch.setattr(util, "find_spec", lambda name: name != "accelerate" and there(name))
    monkeypatch.setattr("subprocess.run", lambda *a, **k: pytest.fail("started"))
    parts = write_parts(tmp_path / "parts")
    told = "several processes need accelerate: pip install 'zerodefect[train]'"
    run("train", "toy", "--data", parts, "--processes", 2, fails=told)


def test_a_journal_names_what_it_consists_of(tmp_path, weights):
    """The fixture leaves the curves out."""
    parts = write_parts(tmp_path / "parts")
    told = run(
        "train", "toy", "--data", parts, "--backbone", weights, "--device", "cpu",
        "--output", tmp_path / "run", "--epochs", 1,
    )  # fmt: skip
    assert "(log.jsonl" in told and "curves.png" not in told

"""``zerodefect.fit`` and ``zerodefect.evaluate`` do what the verbs do, with the same numbers."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from models import write_tiny_weights
from safetensors.torch import load_file
from toy_method import read_steps, registered, write_parts
from typer.testing import CliRunner

import zerodefect
from zerodefect.cli import app
from zerodefect.data import DatasetError, load_dataset
from zerodefect.evaluation.protocol import Protocol
from zerodefect.evaluation.validation import Validation
from zerodefect.methods import load_detector
from zerodefect.training.engine import Settings
from zerodefect.training.journal import Journal

pytestmark = pytest.mark.training

SHORT = Settings({"epochs": 2})


@pytest.fixture(autouse=True)
def _toy(monkeypatch, tmp_path):
    monkeypatch.setattr(Journal, "draw", lambda journal: True)
    monkeypatch.chdir(tmp_path)
    with registered():
        yield


@pytest.fixture
def chosen(tmp_path) -> dict[str, str]:
    return {"backbone": str(write_tiny_weights(tmp_path)), "device": "cpu"}


@pytest.fixture
def parts(tmp_path) -> Path:
    return write_parts(tmp_path / "parts", count=3)


def run(*arguments: object) -> None:
    done = CliRunner().invoke(app, [str(a) for a in arguments])
    assert done.exit_code == 0, (done.output, done.exception)


# --- fit ------------------------------------------------------------------------------------------


def test_a_run_of_the_verb_goes_on_as_one_of_the_function(parts, chosen, tmp_path, caplog):
    caplog.set_level(logging.INFO, "zerodefect")
    made = zerodefect.fit("toy", f"parts={parts}", tmp_path / "a", settings=SHORT, **chosen)
    run(
        "train", "toy", "--data", f"parts={parts}", "--output", tmp_path / "b", "--epochs", 2,
        "--backbone", chosen["backbone"], "--device", "cpu",
    )  # fmt: skip
    ours, theirs = load_file(made.path), load_file(tmp_path / "b" / "toy.safetensors")
    assert all((ours[name] == theirs[name]).all() for name in ours)
    assert "learning from parts: 3 good, 3 defective" in caplog.messages
    assert any(
        text.startswith("toy on ") and "2 epochs, batch 4" in text for text in caplog.messages
    )
    again = zerodefect.fit("toy", load_dataset(parts), tmp_path / "a", settings=SHORT, **chosen)
    assert again.sha256 == made.sha256  # the run was done
    inspector = zerodefect.load(checkpoint=made.path, **chosen)
    bad = inspector.inspect(parts / "p" / "test" / "spot" / "0.png")
    assert 0 < bad.score < 1


def test_several_sets_words_and_validation(parts, chosen, tmp_path):
    other = write_parts(tmp_path / "other", count=2, seed=7)
    steps: list[int] = []
    made = zerodefect.fit(
        "toy",
        [parts, parts, "procedural:3", "procedural-good:2"],
        settings=SHORT,
        object={"p": "steel plate"},
        train_good=True,
        validate=Validation([f"val={other}"]),
        on_step=lambda progress: steps.append(progress.step),
        **chosen,
    )
    assert made.path.parent == Path("runs/toy")
    card = json.loads(made.path.with_suffix(".json").read_text())
    counts = [d["good"] + d["anomalous"] for d in card["origin"]["data"]]
    assert counts == [8, 3, 2]  # a set that is named twice counts once
    measured = [line["validation"] for line in read_steps(Path("runs/toy")) if "validation" in line]
    assert len(measured) == 2
    assert set(measured[0]) == {
        f"val {name}" for name in ("image auroc", "image ap", "pixel auroc", "pixel aupro")
    }
    assert steps == list(range(1, len(steps) + 1))


@pytest.mark.parametrize(
    ("arguments", "options", "told"),
    [
        (("winclip", "parts"), {}, "winclip is not trained"),
        (("toy", "procedural-good:2"), {}, "no defective picture among them"),
        (("toy", "procedural:many"), {}, "write procedural:COUNT"),
        (("toy", []), {}, "there is nothing to learn from"),
        (("toy", "parts"), {"object": {"q": "nut"}}, "has no such product; it has: p"),
        (("toy", "parts"), {"output": "file"}, "this is a file"),
        (("toy", "parts"), {"width": 3}, "no option 'width'"),
        (("toy", "none"), {}, "there is no such file or folder"),
    ],
)
def test_what_cannot_be_is_refused_before_a_folder_is_made(parts, chosen, arguments, options, told):
    Path("file").write_text("")
    with pytest.raises(ValueError, match=told):
        zerodefect.fit(*arguments, settings=SHORT, **chosen, **options)
    assert not Path("runs").exists()


def test_pictures_that_are_measured_on_are_not_learned_from(parts, chosen):
    with pytest.raises(DatasetError, match="is also a training picture"):
        zerodefect.fit("toy", parts, validate=Validation([parts]), **chosen)


# --- evaluate -------------------------------------------------------------------------------------


def figures(evaluation) -> dict:
    return {(r.product, r.group, r.shots, r.metric.label): r.metric.value for r in evaluation.rows}


def test_figures_are_those_of_the_verb(parts, chosen, tmp_path):
    protocol = Protocol(shots=(0, 1), resolution="network")
    found = zerodefect.evaluate(parts, "winclip", protocol=protocol, object="nut", **chosen)
    run(
        "evaluate", "--data", parts, "--method", "winclip", "--k-shot", "0,1", "--object", "nut",
        "--resolution", "network", "--no-cache", "--backbone", chosen["backbone"],
        "--device", "cpu", "--output", tmp_path / "out",
    )  # fmt: skip
    stored = json.loads((tmp_path / "out" / "parts" / "winclip" / "results.json").read_text())
    theirs = {
        (r["product"], r["group"], r["shots"], r["metric"]["name"]): r["metric"]["value"]
        for r in stored["rows"]
    }
    ours = {(r.product, r.group, r.shots, r.metric.name): r.metric.value for r in found.rows}
    assert ours.keys() == theirs.keys() and len(ours) > 8
    for name, value in ours.items():
        assert theirs[name] == pytest.approx(value, abs=1e-9, nan_ok=True)
    assert repr(found).startswith("winclip on parts: 0-shot image auroc")


def test_a_detector_an_inspector_and_its_product_file_are_measured_alike(parts, chosen, tmp_path):
    protocol = Protocol(resolution="network")
    detector = load_detector("winclip", **chosen)
    by_name = figures(zerodefect.evaluate(parts, "winclip", protocol=protocol, **chosen))
    assert figures(zerodefect.evaluate(parts, detector, protocol=protocol)) == by_name
    good = sorted((parts / "p" / "train" / "good").glob("*.png"))
    inspector = zerodefect.load("winclip", object="p", references=good, **chosen)
    with_references = figures(zerodefect.evaluate(parts, inspector, protocol=protocol))
    assert {shots for _, _, shots, _ in with_references} == {2}
    inspector.save(tmp_path / "p.zd")
    by_file = zerodefect.evaluate(parts, tmp_path / "p.zd", protocol=protocol, **chosen)
    assert figures(by_file) == pytest.approx(with_references, abs=1e-9, nan_ok=True)
    with pytest.raises(ValueError, match="object: a product has its own; leave it out"):
        zerodefect.evaluate(parts, inspector, object="nut")
    with pytest.raises(ValueError, match="backbone, device: the detector is loaded already"):
        zerodefect.evaluate(parts, detector, **chosen)
    with pytest.raises(ValueError, match="a product has its own: drop it"):
        zerodefect.evaluate(parts, inspector, protocol=Protocol(shots=(1,)))


def test_a_step_that_the_method_does_not_have_is_refused(parts, chosen):
    with pytest.raises(ValueError, match="winclip has no such step"):
        zerodefect.evaluate(parts, "winclip", protocol=Protocol(set_level="none"), **chosen)


def test_figures_as_a_table(parts, chosen, monkeypatch):
    found = zerodefect.evaluate(parts, "winclip", protocol=Protocol(resolution=32), **chosen)
    stand_in = ModuleType("pandas")
    stand_in.DataFrame = lambda rows, columns: SimpleNamespace(rows=rows, columns=columns)
    monkeypatch.setitem(sys.modules, "pandas", stand_in)
    table = found.to_frame()
    rows = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    measured = {(r.group, r.metric.label): r.metric.value for r in found.rows}
    means = {(r["group"], r["metric"]): r["mean"] for r in rows}
    assert means == pytest.approx(measured, nan_ok=True) and len(means) > 4
    assert {(r["product"], r["shots"], r["deviation"]) for r in rows} == {("p", 0, None)}

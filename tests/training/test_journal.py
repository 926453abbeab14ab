"""The journal: JSON lines, TensorBoard's event file, a picture."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from PIL import Image

from zerodefect.training.journal import CURVES, EVENTS, LOG, Journal, read_log


def line(step: int, **more) -> dict:
    return {"step": step, "epoch": 1, "loss": 1 / step, "loss/pixel": 0.5 / step, **more}


def events(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Steps and values by name, as TensorBoard reads them."""
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    found = accumulators.EventAccumulator(str(folder))
    found.Reload()
    return {
        name: [(event.step, event.value) for event in found.Scalars(name)]
        for name in found.Tags()["scalars"]
    }


def test_tensorboard_reads_the_event_file(tmp_path):
    journal = Journal(tmp_path, 0)
    for step in (1, 2, 300):
        journal.write(line(step))
    journal.write({"step": 300, "epoch": 1, "validation": {"val pixel auroc": 0.75}})
    assert events(tmp_path) == {  # while the run still goes on
        "loss": [(s, pytest.approx(1 / s)) for s in (1, 2, 300)],
        "loss/pixel": [(s, pytest.approx(0.5 / s)) for s in (1, 2, 300)],
        "validation/val pixel auroc": [(300, 0.75)],
    }


def test_a_run_that_goes_on_drops_what_it_will_write_again(tmp_path):
    journal = Journal(tmp_path, 0)
    for step in (1, 2, 3):
        journal.write(line(step))
    journal.write({"step": 2, "epoch": 1, "validation": {"auroc": 0.5}})
    with (tmp_path / LOG).open("a") as log:
        log.write('{"step": 4, "lo')  # a kill in the middle of a line
    again = Journal(tmp_path, 2)
    assert [entry["step"] for entry in read_log(tmp_path / LOG)] == [1, 2, 2]
    assert again.validated == {2}
    assert [step for step, _ in events(tmp_path)["loss"]] == [1, 2]
    again.write(line(3, loss=7.0))
    assert [entry["step"] for entry in read_log(tmp_path / LOG)] == [1, 2, 2, 3]
    assert events(tmp_path)["loss"] == [(1, 1.0), (2, 0.5), (3, 7.0)]
    assert events(tmp_path)["validation/auroc"] == [(2, 0.5)]


def test_one_event_file_holds_all_that_the_journal_holds(tmp_path):
    tensorboard = pytest.importorskip("tensorboard.backend.event_processing.event_file_loader")
    for done in (0, 1, 2):
        Journal(tmp_path, done).write(line(done + 1))
    (path,) = tmp_path.glob(EVENTS)
    found = list(tensorboard.LegacyEventFileLoader(str(path)).Load())
    assert [e.step for e in found if e.summary.value] == [1, 1, 2, 2, 3, 3]
    times = sorted({e.wall_time for e in found if e.summary.value})
    assert times == [entry["time"] for entry in read_log(tmp_path / LOG)]


def test_no_thread_outlives_the_journal(tmp_path):
    before = threading.active_count()
    journal = Journal(tmp_path, 0)
    journal.write(line(1))
    del journal
    assert threading.active_count() == before


def test_without_tensorboard_the_run_goes_on_and_says_so_once(tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    journal = Journal(tmp_path, 0)
    for step in (1, 2):
        journal.write(line(step))
    assert [entry["step"] for entry in read_log(tmp_path / LOG)] == [1, 2]
    assert not list(tmp_path.glob(EVENTS))
    (said,) = caplog.messages
    assert "tensorboard is not installed" in said
    assert "pip install 'zerodefect[train]'" in said


def test_nothing_but_a_run_imports_tensorboard():
    code = "import sys, zerodefect.training.engine; sys.exit('tensorboard' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_line_is_json_with_the_time(tmp_path):
    Journal(tmp_path, 0).write(line(1))
    (text,) = (tmp_path / LOG).read_text().splitlines()
    assert json.loads(text)["time"] > 0


def test_the_picture_shows_losses_and_validation(tmp_path):
    pytest.importorskip("matplotlib")
    journal = Journal(tmp_path, 0)
    journal.write(line(1))
    assert journal.draw()
    with Image.open(tmp_path / CURVES) as image:
        assert 500 < image.width < 1000
    plain = (tmp_path / CURVES).read_bytes()
    for step in (2, 3):
        journal.write(line(step))
        journal.write({"step": step, "epoch": step, "validation": {"auroc": 0.5}})
    assert journal.draw()
    with Image.open(tmp_path / CURVES) as image:
        assert image.width > 1000  # two panels
    assert (tmp_path / CURVES).read_bytes() != plain


def test_without_matplotlib_it_is_said_once_why_there_are_no_curves(tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    journal = Journal(tmp_path, 0)
    journal.write(line(1))
    caplog.clear()
    assert not journal.draw() and not journal.draw()
    (record,) = caplog.records
    assert "matplotlib is not installed: curves.png is not drawn" in record.getMessage()
    assert "zerodefect[train]" in record.getMessage()

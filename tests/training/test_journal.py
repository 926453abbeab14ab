"""The journal: JSON lines, TensorBoard's event file, a picture."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from zerodefect.training.journal import CURVES, EVENTS, LOG, Journal, read_log


def line(step: int, **more) -> dict:
    return {"step": step, "epoch": 1, "loss": 1 / step, "loss/pixel": 0.5 / step, **more}


def test_tensorboard_reads_the_event_file(tmp_path):
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    journal = Journal(tmp_path, 0)
    for step in (1, 2, 300):
        journal.write(line(step))
    journal.write({"step": 300, "epoch": 1, "validation": {"val pixel auroc": 0.75}})
    found = accumulators.EventAccumulator(str(tmp_path))
    found.Reload()
    assert set(found.Tags()["scalars"]) == {"loss", "loss/pixel", "validation/val pixel auroc"}
    read = [(event.step, event.value) for event in found.Scalars("loss")]
    assert read == [(s, pytest.approx(1 / s)) for s in (1, 2, 300)]
    assert found.Scalars("validation/val pixel auroc")[0].value == 0.75
    assert found.Scalars("loss")[0].wall_time > 1e9


def test_a_run_that_goes_on_drops_what_it_will_write_again(tmp_path):
    journal = Journal(tmp_path, 0)
    for step in (1, 2, 3):
        journal.write(line(step))
    journal.write({"step": 2, "epoch": 1, "validation": {"auroc": 0.5}})
    with (tmp_path / LOG).open("a") as log:
        log.write('{"step": 4, "lo')  # a kill in the middle of a line
    before = (tmp_path / EVENTS).read_bytes()
    again = Journal(tmp_path, 2)
    assert [entry["step"] for entry in read_log(tmp_path / LOG)] == [1, 2, 2]
    assert again.validated == {2}
    assert len((tmp_path / EVENTS).read_bytes()) < len(before)
    again.write(line(3))
    assert [entry["step"] for entry in read_log(tmp_path / LOG)] == [1, 2, 2, 3]


def test_rebuilt_events_are_those_written(tmp_path):
    journal = Journal(tmp_path, 0)
    for step in (1, 2):
        journal.write(line(step))
    before = (tmp_path / EVENTS).read_bytes()
    Journal(tmp_path, 2)
    assert (tmp_path / EVENTS).read_bytes() == before


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

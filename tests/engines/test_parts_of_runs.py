"""Runs over parts of several pictures: records of parts beside those of their pictures."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time

import numpy as np
import pytest
import torch
from closeness import close
from marked_plates import COLOURS, inspector, plate, uncalibrated
from run_files import lines_of, table

from zerodefect.engines.local import inspect_files
from zerodefect.images import encode_png, find_images
from zerodefect.inspection.conformal import PolicyError
from zerodefect.reports.run_folder import RunMismatch

BY = r"(?P<part>\d+)_.*"
SIDES = ("left", "right")
STAIN = (COLOURS["stain"], 8, 10)


@pytest.fixture(scope="module")
def ready():
    """Calibrated on 20 good parts of two pictures."""
    made = uncalibrated()
    good = {f"{n:03d}": [plate(100 * n + side) for side in range(2)] for n in range(20)}
    policy = made.calibrate(good)
    named = policy.parts.model_copy(update={"by": BY})
    made.policy = policy.model_copy(update={"parts": named})
    return made


@pytest.fixture
def files(tmp_path):
    """Six parts, by side; 3 has a stain, 4 a broken picture, 5 one picture only."""
    for side in SIDES:
        (tmp_path / side).mkdir()
        for part in range(6):
            marks = [STAIN] if (part, side) == (3, "right") else []
            data = encode_png(plate(1000 + 10 * part + SIDES.index(side), *marks))
            (tmp_path / side / f"{part}_{side}.png").write_bytes(data)
    (tmp_path / "left" / "4_left.png").write_bytes(b"")
    (tmp_path / "right" / "5_right.png").unlink()
    return find_images([tmp_path])


VERDICTS = {"0": "good", "1": "good", "2": "good", "3": "defect", "4": "unsure", "5": "unsure"}


def parts_of(folder):
    return [json.loads(line) for line in (folder / "parts.jsonl").read_text().splitlines()]


def test_a_run_judges_parts_beside_their_pictures(ready, files, tmp_path):
    run, seen, told = tmp_path / "run", [], []
    summary = inspect_files(
        ready, files, run, on_record=seen.append, on_part=told.append, batch_size=3
    )
    assert summary.parts == {"good": 3, "defect": 1, "unsure": 2}
    assert (summary.images, summary.failed) == (11, 1)
    records = lines_of(run)
    assert [r["part"] for r in records] == ["0", "0", "1", "1", "2", "2", "3", "3", "4", "4", "5"]
    assert seen == [{k: v for k, v in r.items() if k != "key"} for r in records]

    parts = parts_of(run)
    assert parts == told and {p["part"]: p["verdict"] for p in parts} == VERDICTS
    by_image = {r["image"]: r for r in records}
    for part in parts:
        of_part = [r for r in records if r["part"] == part["part"]]
        assert [p["image"] for p in part["pictures"]] == [r["image"] for r in of_part]
        scores = [r["score"] for r in of_part if r["status"] == "ok"]
        assert part["score"] == max(scores) == by_image[part["decisive"]]["score"]
        assert part["p_value"] == ready.policy.p_value(part["score"]) and part["calibrated"]
    assert parts[4]["reason"].endswith("4_left.png could not be inspected (the file is empty)")
    assert [p["verdict"] for p in parts[4]["pictures"]] == ["failed", "good"]
    assert parts[5]["reason"] == "it has 1 picture where good parts have 2"
    assert parts[3]["decisive"].endswith("3_right.png") and parts[3]["reason"] is None

    rows = table(run / "parts.csv")
    assert [row["verdict"] for row in rows] == list(VERDICTS.values())
    assert rows[0]["images"].count("; ") == 1 and rows[0]["count"] == "2"
    assert [row["part"] for row in table(run / "results.csv")] == [r["part"] for r in records]
    page = (run / "report.html").read_text("utf-8")
    assert "<b>6 parts</b>: 1 defect, 2 unsure, 3 good" in page
    assert "Limits learned from 20 good parts" in page


def test_without_parts_nothing_is_said_of_them(files, tmp_path):
    summary = inspect_files(inspector(), files, tmp_path / "run")
    assert summary.parts is None and not (tmp_path / "run" / "parts.jsonl").exists()
    assert {r["part"] for r in lines_of(tmp_path / "run")} == {None}
    assert 'id="parts"' not in (tmp_path / "run" / "report.html").read_text("utf-8")


def test_a_run_that_ends_within_a_part_goes_on_and_keeps_it_whole(ready, files, tmp_path):
    run = tmp_path / "run"

    def interrupt(record):
        if record["image"].endswith("3_left.png"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        inspect_files(ready, files, run, on_record=interrupt, batch_size=1)
    assert lines_of(run)[-1]["image"].endswith("3_left.png")  # half a part
    assert not (run / "parts.jsonl").exists()
    told = []
    summary = inspect_files(ready, files, run, on_part=told.append)
    assert summary.inspected == 11 - 7 and summary.parts == {"good": 3, "defect": 1, "unsure": 2}
    assert parts_of(run) == told and {p["part"]: p["verdict"] for p in told} == VERDICTS


def test_a_repaired_picture_changes_its_part(ready, files, tmp_path):
    run = tmp_path / "run"
    inspect_files(ready, files, run)
    (tmp_path / "left" / "4_left.png").write_bytes(encode_png(plate(77)))
    (tmp_path / "right" / "5_right.png").write_bytes(encode_png(plate(78)))
    files = find_images([tmp_path / "left", tmp_path / "right"])
    assert inspect_files(ready, files, run).parts == {"good": 5, "defect": 1}
    parts = {p["part"]: p for p in parts_of(run)}
    assert parts["5"]["count"] == 2 and parts["4"]["reason"] is None


def test_what_contradicts_the_policy_is_refused_before_the_work(ready, files, tmp_path):
    with pytest.raises(PolicyError, match="not what the policy was calibrated with"):
        inspect_files(ready, files, tmp_path / "run", part_by=r"(?P<part>\d)_")
    with pytest.raises(PolicyError, match="learned from single pictures"):
        inspect_files(inspector(), files, tmp_path / "run", part_by=BY)
    (tmp_path / "left" / "cover.png").write_bytes(encode_png(plate(1)))
    with pytest.raises(PolicyError, match=r"cover\.png: --part-by"):
        inspect_files(ready, find_images([tmp_path]), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_parts_that_were_named_in_python_need_a_pattern(ready, files, tmp_path):
    made = uncalibrated()
    named = ready.policy.parts.model_copy(update={"by": None})
    made.policy = ready.policy.model_copy(update={"parts": named})
    with pytest.raises(PolicyError, match="Give the pattern"):
        inspect_files(made, files, tmp_path / "run")
    assert inspect_files(made, files, tmp_path / "run", part_by=BY).parts["good"] == 3
    with pytest.raises(RunMismatch, match="part_by"):
        inspect_files(made, files, tmp_path / "run", part_by=r"(?P<part>\d).*")


def _run(inspector, files, folder, sender):
    torch.set_num_threads(1)
    tell = lambda record: (sender.send_bytes(b"x"), time.sleep(0.02))
    inspect_files(inspector, files, folder, on_record=tell, batch_size=1)


@pytest.mark.killing
@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills a forked process")
@pytest.mark.parametrize("after", [1, 4, 7])
def test_killed_within_a_part_it_leaves_the_same_parts(ready, files, tmp_path, after):
    receiver, sender = multiprocessing.get_context("fork").Pipe(duplex=False)
    child = multiprocessing.get_context("fork").Process(
        target=_run, args=(ready, files, tmp_path / "run", sender)
    )
    child.start()
    sender.close()
    for _ in range(after):
        assert receiver.poll(60) and receiver.recv_bytes()
    os.kill(child.pid, signal.SIGKILL)
    child.join(60)
    assert len(lines_of(tmp_path / "run")) >= after
    inspect_files(ready, files, tmp_path / "run")
    inspect_files(ready, files, tmp_path / "fresh")
    assert close(parts_of(tmp_path / "run"), parts_of(tmp_path / "fresh"))
    assert np.all([p["verdict"] == VERDICTS[p["part"]] for p in parts_of(tmp_path / "run")])

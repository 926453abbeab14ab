"""Runs in processes of their own that are killed: nothing is lost, nothing is doubled."""

import contextlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import time

import numpy as np
import pytest
import tifffile
import torch
from closeness import close
from run_files import EVERYTHING, lines_of, parts_in, table

from zerodefect.engines.local import inspect_files
from zerodefect.reports.run_folder import RunBusy

pytestmark = [
    pytest.mark.killing,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="kills a forked process"),
]


def _run_in_child(inspector, parts, folder, sender, pause=0.0):
    torch.set_num_threads(1)

    def report(record):
        sender.send_bytes(b"x")
        time.sleep(pause)

    inspect_files(inspector, parts, folder, **EVERYTHING, batch_size=3, on_record=report)
    sender.send_bytes(b"end")


def started(inspector, parts, folder):
    """A run in a process of its own, and what it sends."""
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_run_in_child, args=(inspector, parts, folder, sender))
    child.start()
    sender.close()
    return child, receiver


def killed_after(records, delay, inspector, parts, folder):
    """Kill a run soon after its ``records``-th record."""
    child, receiver = started(inspector, parts, folder)
    for _ in range(records):
        assert receiver.poll(60)
        assert receiver.recv_bytes() == b"x"
    time.sleep(delay)
    os.kill(child.pid, signal.SIGKILL)
    child.join(60)
    assert child.exitcode == -signal.SIGKILL


def killed_at(moment, inspector, parts, folder):
    """Kill a run so many seconds after its start; gives how many records it told of."""
    child, receiver = started(inspector, parts, folder)
    child.join(moment)
    child.kill()
    child.join(60)
    told = 0
    with contextlib.suppress(EOFError):
        while receiver.recv_bytes() == b"x":
            told += 1
    return told


def with_broken(folder, count):
    """Parts, and among them a file that fails."""
    parts = parts_in(folder, count)
    (folder / "broken.png").write_bytes(b"")
    return [*parts[:5], folder / "broken.png", *parts[5:]]


def finished_in(folder):
    """Images whose record is whole; the last line may be torn, or there may be none yet."""
    path = folder / "results.jsonl"
    text = path.read_bytes() if path.exists() else b""
    found = [json.loads(line) for line in text[: text.rfind(b"\n") + 1].splitlines()]
    return [record["image"] for record in found if record["status"] == "ok"]


def same_as_never_killed(folder, fresh, parts):
    """Fail unless a run that was killed left what one that was not leaves, and nothing else."""
    records = lines_of(folder)
    assert sorted(r["image"] for r in records) == sorted(str(p) for p in parts)
    by_image = {r["image"]: r for r in lines_of(fresh)}
    assert all(close(r, by_image[r["image"]]) for r in records)
    files = {p.relative_to(folder) for p in folder.rglob("*") if p.is_file()}
    assert files == {p.relative_to(fresh) for p in fresh.rglob("*") if p.is_file()}
    for name in ("results.csv", "regions.csv"):
        images = [sorted(row["image"] for row in table(run / name)) for run in (folder, fresh)]
        assert images[0] == images[1]
    for record in records:
        if record["status"] == "ok":
            maps = [tifffile.imread(run / record["map"]) for run in (folder, fresh)]
            np.testing.assert_allclose(*maps, atol=1e-6)


@pytest.mark.parametrize("seed", range(2))
def test_killed_again_and_again_it_loses_and_repeats_nothing(inspector, tmp_path, forwarded, seed):
    chance = random.Random(seed)
    parts = with_broken(tmp_path / "parts", 16)
    folder = tmp_path / "run"
    # The third number includes the records of earlier starts, which are reported again.
    for records in (0, chance.randint(1, 4), chance.randint(6, 10)):
        killed_after(records, chance.uniform(0, 0.03), inspector, parts, folder)
    finished = finished_in(folder)
    assert len(finished) == len(set(finished)) >= 4
    summary = inspect_files(inspector, parts, folder, **EVERYTHING, batch_size=3)
    assert forwarded() == 16 - len(finished)
    assert (summary.images, summary.failed) == (17, 1)
    fresh = tmp_path / "fresh"
    inspect_files(inspector, parts, fresh, **EVERYTHING, batch_size=3)
    same_as_never_killed(folder, fresh, parts)


def killed_at_moments(inspector, tmp_path, forwarded, parts, shares):
    """Kill a run once at each moment, a share of how long it takes, and let it go on."""
    fresh = tmp_path / "fresh"
    begun = time.monotonic()
    child, _ = started(inspector, parts, fresh)
    child.join()
    seconds = time.monotonic() - begun
    for number, share in enumerate(shares):
        folder = tmp_path / f"run{number}"
        told = killed_at(share * seconds, inspector, parts, folder)
        finished, before = finished_in(folder), forwarded()
        assert len(finished) == len(set(finished)) >= told - 1  # one of those told of had failed
        summary = inspect_files(inspector, parts, folder, **EVERYTHING, batch_size=3)
        assert forwarded() - before == len(parts) - 1 - len(finished)
        assert (summary.images, summary.failed) == (len(parts), 1)
        same_as_never_killed(folder, fresh, parts)
        shutil.rmtree(folder)


def test_killed_at_the_start_in_the_middle_and_at_the_end(inspector, tmp_path, forwarded):
    parts = with_broken(tmp_path / "parts", 12)
    chance = random.Random(0)
    shares = [chance.uniform(low, low + 0.1) for low in (0, 0.45, 0.9)]
    killed_at_moments(inspector, tmp_path, forwarded, parts, shares)


@pytest.mark.soak
def test_killed_at_a_hundred_moments(inspector, tmp_path, forwarded):
    parts = with_broken(tmp_path / "parts", 40)
    chance = random.Random(1)
    ends = [chance.uniform(0, 0.1) for _ in range(25)]
    ends += [chance.uniform(0.9, 1) for _ in range(25)]
    shares = [*ends, *(chance.random() for _ in range(50))]
    killed_at_moments(inspector, tmp_path, forwarded, parts, shares)


def test_a_second_process_is_refused_while_the_first_goes_on(inspector, tmp_path):
    parts = parts_in(tmp_path / "parts", 4)
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    arguments = (inspector, parts, tmp_path / "run", sender, 0.3)
    child = context.Process(target=_run_in_child, args=arguments)
    child.start()
    try:
        assert receiver.poll(60)
        with pytest.raises(RunBusy, match="another process writes into this run folder"):
            inspect_files(inspector, parts, tmp_path / "run", **EVERYTHING)
        child.join(60)
        assert child.exitcode == 0
    finally:
        child.kill()
    assert len(lines_of(tmp_path / "run")) == 4

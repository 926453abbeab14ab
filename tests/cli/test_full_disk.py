"""A full disk is named as such, wherever results are written."""

from __future__ import annotations

import errno
import os
import sys
import tempfile
from pathlib import Path

import pytest
from models import write_tiny_weights
from toy_method import registered, write_parts

from zerodefect import cli, files
from zerodefect.cli.errors import told
from zerodefect.evaluation.metrics import SpillError
from zerodefect.files import StoreError, atomic_write
from zerodefect.scoring.spool import Spool
from zerodefect.training.journal import Journal


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture(autouse=True)
def _toy(monkeypatch, tmp_path):
    monkeypatch.setattr(Journal, "draw", lambda journal: True)
    monkeypatch.setenv("ZERODEFECT_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    with registered():
        yield


@pytest.mark.parametrize("verb", ["evaluate", "inspect", "train", "calibrate"])
def test_every_verb_that_writes_results_says_so(tmp_path, monkeypatch, capsys, verb):
    parts, weights = write_parts(tmp_path / "parts"), write_tiny_weights(tmp_path)
    good = parts / "p/test/good"
    arguments = {
        "evaluate": ["-d", parts, "-m", "winclip", "-b", weights, "-o", "out"],
        "inspect": [good, "-n", "part", "-m", "winclip", "-b", weights, "-o", "out"],
        "calibrate": [good, "-n", "part", "-m", "winclip", "-b", weights, "-o", "out/p.json"],
        "train": ["toy", "--data", parts, "--backbone", weights, "-o", "out", "--max-steps", 1],
    }
    monkeypatch.setattr(files.os, "fsync", full)
    monkeypatch.setattr(sys, "argv", ["zerodefect", verb, *map(str, arguments[verb])])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    (line,) = (x for x in capsys.readouterr().err.splitlines() if x.startswith("error: "))
    assert line.startswith(f"error: no space left on {tmp_path / 'out'}")
    assert "MB free)" in line and "--output" in line


def test_where_it_is_decides_what_helps(tmp_path):
    def said(path: Path) -> str:
        with pytest.raises(StoreError) as caught, atomic_write(path):
            full()
        return told(caught.value)

    assert "zerodefect cache --clear" in said(tmp_path / "cache/predictions/x.npz")
    assert f"no space left on {tmp_path} (" in said(tmp_path / "x.json")
    assert "--output" in said(tmp_path / "x.json")
    assert "TMPDIR" in said(Path(tempfile.gettempdir()) / "zerodefect-spool" / "0.safetensors")
    spilled = SpillError("cannot write")
    spilled.__cause__ = OSError(errno.ENOSPC, "full")
    assert "TMPDIR" in told(spilled)
    (tmp_path / "there").mkdir()
    quota = OSError(errno.EDQUOT, "quota", str(tmp_path / "there/x"))
    assert told(quota).startswith(f"the disk quota is used up on {tmp_path / 'there'} (")
    assert told(OSError(errno.ENOSPC, "full")).startswith("no space left on the disk: ")


def test_other_errors_keep_their_words(tmp_path):
    error = StoreError(tmp_path, "this is a file", "Name a folder.")
    assert told(error) == str(error)
    assert told(OSError(errno.EACCES, "denied", "x")) == "[Errno 13] denied: 'x'"
    inner = ValueError("three")
    inner.__cause__ = KeyError("two")
    assert told(inner) == "three"


def test_a_journal_and_a_spool_name_their_file(tmp_path, monkeypatch):
    journal = Journal(tmp_path, 0)
    monkeypatch.setattr(Journal, "_add_events", full)
    with pytest.raises(StoreError, match=r"log\.jsonl: cannot be written \(No space left"):
        journal.write({"step": 1, "epoch": 1, "loss": 0.5})
    import torch

    monkeypatch.setattr("zerodefect.scoring.spool.save", full)
    with Spool(budget=0) as spool, pytest.raises(StoreError, match=r"0\.safetensors"):
        spool.add(torch.ones(3))

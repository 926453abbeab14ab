"""Processes that train together find each other and part without a trace."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from zerodefect.training.processes import Processes

pytest.importorskip("accelerate")

RANK = """
import pathlib, torch
from zerodefect.training.processes import Processes

def threads():
    names = (p.read_text().strip() for p in pathlib.Path("/proc/self/task").glob("*/comm"))
    return [name for name in names if "gloo" in name or "tcpstore" in name]

joined = Processes.join("cpu")
import torch.distributed.nn.functional  # as validation and optimisers do sooner or later
parameter = torch.nn.Parameter(torch.zeros(3))
parameter.grad = torch.full((3,), float(joined.rank + 1))
joined.sum_gradients([parameter])
assert parameter.grad.tolist() == [3.0] * 3, parameter.grad
assert joined.gather(joined.rank) == [0, 1]
joined.wait()
assert threads(), "what is looked for has another name"
joined.leave()
assert not threads(), threads()
print("left", joined.rank)
"""


@pytest.mark.killing
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="lists threads as Linux does")
def test_who_leaves_takes_all_threads_along():
    """A thread that outlived the interpreter would abort the process, after all was done right."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    shared = {
        **os.environ, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "OMP_NUM_THREADS": "1",
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "CUDA_VISIBLE_DEVICES": "",
    }  # fmt: skip
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", RANK],
            env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    for rank, running in enumerate(ranks):
        out, err = running.communicate(timeout=300)
        assert running.returncode == 0, err
        assert out.strip() == f"left {rank}"


def test_alone_nothing_is_needed(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    alone = Processes.join("cpu")
    assert (alone.rank, alone.count, alone.device, alone.first) == (0, 1, "cpu", True)
    assert alone.gather({"a": 1}) == [{"a": 1}]
    alone.wait()
    alone.leave()


def test_several_processes_take_no_named_gpu(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="each takes its own GPU"):
        Processes.join("cuda:1")

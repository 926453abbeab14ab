"""Shared by all tests: no network, caches in a folder of the run, small models made on the spot."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# The same examples every time where a verdict hangs on them; new ones on a developer's machine.
# That a machine is busy is no fault of a test.
patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", patient, derandomize=True)
settings.register_profile("here", patient)
settings.load_profile("ci" if os.environ.get("CI") else "here")

os.environ["HF_HUB_OFFLINE"] = "1"
for folder in (Path(__file__).parent, Path(__file__).parent / "parity"):
    sys.path.insert(0, str(folder))  # models and tiny_clip, wherever a test needs them


_MARKS = {
    "parity": ("parity/test_",),
    "slow": ("cli/test_evaluate", "evaluation/test_protocol", "evaluation/test_metric_streaming"),
    "training": ("training/", "cli/test_train", "cli/test_cli_pretrain", "test_six_examples"),
}


def pytest_collection_modifyitems(items):
    """What whole folders are: for ``make test-fast``, see the Makefile."""
    for item in items:
        place = item.path.as_posix()
        for mark, parts in _MARKS.items():
            if any(part in place for part in parts):
                item.add_marker(mark)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    """Keep the user's cache out of the tests, and the tests out of the user's cache."""
    monkeypatch.setenv("ZERODEFECT_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def same_threads_afterwards():
    """What a test runs may choose a number of threads; the next test has the old one again."""
    import torch

    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    """Several test processes share the machine; tiny models gain nothing from threads."""
    import torch

    torch.set_num_threads(1)

"""Benchmark scripts fit the library that they measure."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.mark.parametrize("script", sorted(FOLDER.glob("*.py")), ids=lambda path: path.stem)
def test_it_finds_what_it_imports(script, monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))  # some take parts from each other
    monkeypatch.setattr("sys.argv", [script.name])
    assert runpy.run_path(str(script), run_name="benchmark")["__doc__"]

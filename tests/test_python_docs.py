"""The code of docs/python.md runs as it stands, and the example notebook from top to bottom."""

from __future__ import annotations

import logging
import re
from importlib.util import find_spec
from pathlib import Path

import pytest
from PIL import Image

from zerodefect.procedural import draw_product
from zerodefect.training.journal import Journal

ROOT = Path(__file__).parents[1]
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "docs/python.md").read_text("utf-8"), re.DOTALL)
NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))


def draw(path: Path, index: int, kind: str | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image, mask = draw_product("metal plate", seed=0, index=index, kind=kind)
    Image.fromarray(image).save(path)
    if kind:
        target = path.parents[2] / "ground_truth" / path.parent.name / f"{path.stem}_mask.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask).save(target)


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """What the page names."""
    monkeypatch.chdir(tmp_path)
    draw(Path("good/a.png"), 0)
    for index in range(1, 9):
        draw(Path(f"good/more/{index}.png"), index)
    for index in (20, 21):
        draw(Path(f"parts/test/good/{index}.png"), index)
        draw(Path(f"parts/test/scratch/{index}.png"), index + 10, "scratch")
    draw(Path("scratched.png"), 31)
    return tmp_path


@pytest.mark.slow
def test_the_page_runs(folders, monkeypatch):
    monkeypatch.setattr(Journal, "draw", lambda journal: True)
    monkeypatch.setattr(logging.root, "handlers", [])
    monkeypatch.setattr(logging.root, "level", logging.root.level)
    assert len(BLOCKS) > 4
    names: dict[str, object] = {}
    for block in BLOCKS:
        if "to_frame(" in block and "figures" not in block and not find_spec("pandas"):
            continue
        exec(compile(block, "docs/python.md", "exec"), names)
    assert Image.open("scratched.jpg").size == (256, 256)
    assert len(names["results"]) == 4 and not names["results"].failures
    assert len(names["figures"].pictures) == 4


def test_there_is_a_notebook():
    assert NOTEBOOKS


@pytest.mark.slow
@pytest.mark.killing
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path, tmp_path, monkeypatch):
    import nbformat
    from nbclient import NotebookClient

    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    notebook = nbformat.read(path, as_version=4)
    assert all(not cell.get("outputs") for cell in notebook.cells), "commit it without outputs"
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": tmp_path}}).execute()
    shown = [
        output["data"]
        for cell in notebook.cells
        for output in cell.get("outputs", ())
        if "data" in output
    ]
    assert any("data:image/jpeg;base64," in data.get("text/html", "") for data in shown)
    assert any("image/png" in data for data in shown)  # the overlay

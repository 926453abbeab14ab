"""Folders of parts with clouds through ``inspect`` and ``evaluate``, either modality missing."""

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from small_clouds import ply, tilted
from typer.testing import CliRunner

from zerodefect.cli import app
from zerodefect.cli.errors import expected, told

pytestmark = pytest.mark.slow


def bump(dent=0.0):
    """A dome of 24 pixels on a table, with a dent in it."""
    points = tilted(64, 64, (0, 0))
    rows, columns = np.mgrid[-32:32, -32:32] / 24
    points[..., 2] -= 0.012 * np.sqrt(np.maximum(1 - rows**2 - columns**2, 0))
    points[..., 2] += dent * np.exp(-(((rows - 0.2) ** 2 + columns**2) * 40))
    points[::7, ::5] = 0  # not measured
    return points


def write(folder, number, *, dent=0.0, picture=True, cloud=True):
    if picture:
        (folder / "rgb").mkdir(parents=True, exist_ok=True)
        grey = np.random.default_rng(number).integers(90, 100, (64, 64, 3), np.uint8)
        Image.fromarray(grey).save(folder / f"rgb/{number:03d}.png")
    if cloud:
        (folder / "xyz").mkdir(parents=True, exist_ok=True)
        points = bump(dent) + np.random.default_rng(number).normal(0, 1e-6, (64, 64, 1))
        points = np.where((bump() == 0).all(-1, keepdims=True), 0, points).astype(np.float32)
        tifffile.imwrite(folder / f"xyz/{number:03d}.tiff", points, photometric="rgb")


def run(*arguments):
    return CliRunner().invoke(app, list(map(str, arguments)))


def test_a_dent_that_only_the_cloud_shows_is_found_on_its_view(tmp_path):
    good, parts = tmp_path / "good", tmp_path / "parts3d"
    for number in range(4):
        write(good, number)
    write(parts, 10)
    write(parts, 11, dent=0.006)
    write(parts, 12, dent=0.006, picture=False)
    write(parts, 13, cloud=False)
    (parts / "xyz/014.ply").write_bytes(ply(tilted().reshape(-1, 3))[:300])
    folder = tmp_path / "run"
    how = ("--reference", good, "--view", "normals", "--maps", "--output", folder)
    done = run("inspect", parts, "--method", "pyramid", *how)
    assert done.exit_code == 3, done.output
    records = [json.loads(line) for line in (folder / "results.jsonl").open()]
    found = {Path(record["image"]).stem: record for record in records}
    assert set(found) == {"010", "011", "012", "013", "014"}
    assert found["011"]["score"] > 1.2 * found["010"]["score"]
    assert found["012"]["score"] == pytest.approx(found["011"]["score"], rel=0.05)
    assert "no point cloud" in found["013"]["reason"]
    assert "truncated" in found["014"]["reason"]
    cloud = found["011"]["cloud"]
    assert cloud["measured"] < cloud["points"] == 64 * 64
    assert cloud["other"] == "picture"
    assert (folder / cloud["scores"]).read_bytes().startswith(b"ply\n")
    assert (folder / "report.html").is_file()


def test_a_cloud_alone_names_the_view_where_a_method_needs_a_picture(tmp_path):
    for number in range(2):
        write(tmp_path / "good", number)
    write(tmp_path / "parts", 5, picture=False)
    how = ("--method", "pyramid", "--reference", tmp_path / "good", "--output", tmp_path / "run")
    done = run("inspect", tmp_path / "parts", *how)
    assert "colours" in done.output
    record = json.loads((tmp_path / "run/results.jsonl").read_text().splitlines()[0])
    assert "--view normals" in record["remedy"]


def test_a_method_that_needs_good_parts_says_so_in_a_line(tmp_path):
    write(tmp_path / "parts", 0)
    result = run("inspect", tmp_path / "parts", "--method", "bt_points", "-o", tmp_path / "run")
    assert result.exit_code == 1
    assert expected(result.exception)  # told in a line, no traceback
    said = told(result.exception)
    assert "needs normal images" in said and "--reference good/" in said


def test_evaluate_reads_mvtec_3d_s_tree_with_parts_that_lack_a_modality(tmp_path):
    root = tmp_path / "dome"
    for number in range(3):
        write(root / "train/good", number)
        write(root / "test/good", 10 + number)
        write(root / "test/dent", 20 + number, dent=0.006, picture=number != 1)
        mask = np.zeros((64, 64), np.uint8)
        mask[28:46, 26:38] = 255
        (root / "test/dent/gt").mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask).save(root / f"test/dent/gt/{20 + number:03d}.png")
    out = tmp_path / "out"
    how = ("--k-shot", 3, "--view", "normals", "--output", out)
    done = run("evaluate", "--method", "pyramid", "--data", f"dome={root}", *how)
    assert done.exit_code == 0, done.output
    assert "aupro:exact@0.3" in done.output
    (file,) = out.rglob("results.json")
    result = json.loads(file.read_text())
    assert result
    assert "image auroc:exact 100" in done.output

"""Data sets made of good parts with picture and points."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import tifffile
from PIL import Image
from small_clouds import ply, tilted
from typer.testing import CliRunner

from zerodefect import cli
from zerodefect.data import DatasetError, check_files, load_dataset
from zerodefect.data.part_synthesis import damaged_part, synthesize_parts
from zerodefect.images.clouds import open_cloud
from zerodefect.images.part_files import open_part
from zerodefect.procedural.on_clouds import CLOUD_KINDS

SIDE = 64


def dome(number: int) -> np.ndarray:
    """A dome on a table, with holes; in metres."""
    points = tilted(SIDE, SIDE, (0, 0)) + np.float32(1e-3 * number)
    rows, columns = np.mgrid[-32:32, -32:32] / 24
    points[..., 2] -= 0.012 * np.sqrt(np.maximum(1 - rows**2 - columns**2, 0))
    points[::7, ::5] = 0
    return points


@pytest.fixture
def good(tmp_path):
    folder = tmp_path / "good3d"
    for name in ("rgb", "xyz"):
        (folder / name).mkdir(parents=True)
    for number in range(5):
        grey = np.random.default_rng(number).integers(90, 130, (SIDE, SIDE, 3)).astype(np.uint8)
        Image.fromarray(grey).save(folder / f"rgb/{number:03d}.png")
        tifffile.imwrite(folder / f"xyz/{number:03d}.tiff", dome(number), photometric="rgb")
    return folder


def test_what_is_written_is_mvtec_3d_s_layout_and_tells_the_truth(good, tmp_path):
    out = tmp_path / "dome"
    made = synthesize_parts(good, out, 10, seed=2)
    assert (made.train, made.good, made.damaged) == (3, 2, 10)
    dataset = load_dataset(out)
    assert dataset.layout == "mvtec" and dataset.products == ("dome",) and not dataset.problems
    assert not check_files(dataset, masks=True, deep=True).problems
    assert all(sample.cloud for sample in dataset)
    assert {s.kind.replace("_", " ") for s in dataset if s.anomalous} <= CLOUD_KINDS.keys()
    whole = {s.image.stem: s for s in dataset if s.split == "test" and not s.anomalous}
    sources = [whole[name] for name in sorted(whole)]
    for sample in (s for s in dataset if s.anomalous):
        mask = np.asarray(Image.open(sample.mask)) > 0
        seen, source = open_part(sample.image), sources[int(sample.image.stem) % 2]
        before = open_part(source.image)
        assert (seen.pixels[~mask] == before.pixels[~mask]).all()
        assert (seen.cloud.valid == before.cloud.valid).all()
        step = seen.cloud.points - before.cloud.points
        assert np.abs(step[..., :2]).max() < 1e-6  # moved along the line of sight alone
        moved = np.abs(step[..., 2])
        assert moved[mask].max() > 1e-4 and moved[~mask].max() < 0.2 * moved[mask].max()


def test_the_seed_decides_and_the_number_in_the_series(good):
    part = open_part(good / "rgb/001.png")
    one, again, other = (damaged_part(part, 4, number) for number in (7, 7, 8))
    np.testing.assert_array_equal(one.points, again.points)
    np.testing.assert_array_equal(one.pixels, again.pixels)
    assert (one.points != other.points).any()


def test_clouds_alone_are_damaged_too(good, tmp_path):
    shutil.rmtree(good / "rgb")
    made = synthesize_parts(good, tmp_path / "dome", 3)
    assert made.damaged == 3
    assert not list((tmp_path / "dome").rglob("rgb"))
    assert len(list((tmp_path / "dome").rglob("test/*/xyz/*.tiff"))) == 5
    assert len(list((tmp_path / "dome").rglob("gt/*.png"))) == 3


def test_far_coordinates_stay_where_they_are(good, tmp_path):
    far = dome(0).astype(np.float64) * 1000 + (dome(0) != 0).any(-1, keepdims=True) * 4e6
    made = damaged_part(open_part(_part(tmp_path, far)), 0, 1)
    assert abs(np.median(made.points[made.mask][:, 0]) - 4e6) < 100


def _part(folder, points):
    file = folder / "far.tiff"
    tifffile.imwrite(file, points, photometric="rgb")
    return file


def test_faults_are_said_in_one_line(good, tmp_path):
    with pytest.raises(DatasetError, match="there is something already"):
        synthesize_parts(good, good, 1)
    for file in (good / "xyz").iterdir():
        file.unlink()
    with pytest.raises(DatasetError, match=r"\.png: it has no points on a grid\. Record it as a"):
        synthesize_parts(good, tmp_path / "a", 1)
    for number in range(5):
        (good / f"xyz/{number:03d}.ply").write_bytes(ply(dome(0).reshape(-1, 3)))
    with pytest.raises(DatasetError, match=r"is not used: .*does not fit the picture"):
        synthesize_parts(good, tmp_path / "b", 1)


@pytest.mark.slow
def test_the_set_is_read_by_evaluate(good, tmp_path):
    out, run = tmp_path / "dome", CliRunner()
    words = ["data", "synthesize", str(good), "-o", str(out), "--count", "4", "--damage", "points"]
    done = run.invoke(cli.app, words)
    assert done.exit_code == 0, done.output
    assert "learn from: 3 good parts" in done.stdout and "4 damaged" in done.stdout
    how = ["--k-shot", "3", "--output", str(tmp_path / "run")]
    done = run.invoke(cli.app, ["evaluate", "--method", "bt_points", "--data", f"dome={out}", *how])
    assert done.exit_code == 0, done.output
    (file,) = (tmp_path / "run").rglob("results.json")
    assert json.loads(file.read_text()) and "aupro:exact@0.3" in done.output


def test_open_cloud_reads_what_is_written(good, tmp_path):
    synthesize_parts(good, tmp_path / "dome", 2)
    for file in (tmp_path / "dome").rglob("*.tiff"):
        assert open_cloud(file).points.shape == (SIDE, SIDE, 3)

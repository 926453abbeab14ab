"""Parts with points as pictures from several sides."""

import re

import numpy as np
import pytest
import tifffile
from PIL import Image
from small_clouds import box_on_table, ply
from typer.testing import CliRunner

from zerodefect import cli
from zerodefect.data import DatasetError
from zerodefect.data.part_views import (
    PART_OF_VIEW,
    USUAL_TURNS,
    PartViews,
    parsed_turn,
    write_views,
)
from zerodefect.images import ImageError
from zerodefect.inspection.part_pictures import part_names


@pytest.fixture
def parts(tmp_path):
    folder = tmp_path / "parts3d"
    for name in ("good/rgb", "good/xyz", "bent/xyz"):
        (folder / name).mkdir(parents=True)
    points, _ = box_on_table()
    for file in ("good/xyz/000.tiff", "bent/xyz/000.tiff"):
        tifffile.imwrite(folder / file, points, photometric="rgb")
    Image.new("RGB", (80, 60)).save(folder / "good/rgb/000.png")
    return folder


def test_every_part_is_drawn_from_every_side_and_keeps_its_name(parts, tmp_path):
    made = list(write_views(parts, tmp_path / "views"))
    assert [len(one.views) for one in made] == [len(USUAL_TURNS)] * 2
    files = [file for one in made for file in one.views]
    assert {file.name for file in files} == {f.name for f in (tmp_path / "views").iterdir()}
    assert len(set(part_names(files, PART_OF_VIEW))) == 2
    assert (tmp_path / "views/bent_000_yaw-30_pitch+0.png").is_file()


def test_the_box_is_seen_without_its_table_as_wide_as_asked(parts, tmp_path):
    """A box of 20 x 30 mm in views of 80 pixels that cover 79 mm: a pixel for each."""
    turns = [(0.0, 0.0), (60.0, 0.0)]
    (one, _) = write_views(parts, tmp_path / "views", turns, width=0.079)
    straight, side = (np.asarray(Image.open(file)).astype(int) for file in one.views)
    ground = straight[0, 0]
    assert straight.shape == (80, 80, 3) and abs(ground - [127, 127, 255]).max() <= 1
    box = np.abs(straight - ground).max(2) > 2  # it is tilted like its table
    rows, columns = (np.flatnonzero(box.any(axis)) for axis in (1, 0))
    assert abs(np.ptp(rows) - 20) <= 8 and abs(np.ptp(columns) - 30) <= 8  # gaps are filled
    turned = np.flatnonzero((np.abs(side - ground).max(2) > 2).any(0))
    assert np.ptp(turned) < 0.85 * np.ptp(columns)
    (far, _) = write_views(parts, tmp_path / "far", turns, width=0.3)
    assert (np.abs(np.asarray(Image.open(far.views[0])).astype(int) - ground).max(2) > 2).sum() < (
        0.5 * box.sum()
    )


def test_a_part_without_a_cloud_costs_no_other_part(parts, tmp_path):
    Image.new("RGB", (80, 60)).save(parts / "good/rgb/001.png")
    (parts / "bent/xyz/000.tiff").unlink()
    (parts / "bent/xyz/000.ply").write_bytes(ply(np.ones((4, 3)))[:150])
    bent, good, bare = write_views(parts, tmp_path / "views")
    assert "truncated" in bent.reason
    assert "no point cloud" in bare.reason and "xyz/" in bare.remedy
    assert isinstance(good, PartViews)


def test_what_cannot_be_is_refused(parts, tmp_path):
    assert parsed_turn("30,-15") == (30, -15)
    for text in ("30", "x,1", "1,2,3", "91,0", "0,nan", ""):
        with pytest.raises(ValueError, match="YAW,PITCH in degrees"):
            parsed_turn(text)
    with pytest.raises(ValueError, match="each turn once"):
        list(write_views(parts, tmp_path / "a", [(0, 0), (0, 0)]))
    with pytest.raises(ValueError, match="width of a view"):
        list(write_views(parts, tmp_path / "b", width=0.0))
    with pytest.raises(DatasetError, match="something already"):
        list(write_views(parts, parts))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImageError, match="holds no pictures"):
        list(write_views(tmp_path / "empty", tmp_path / "c"))


@pytest.mark.slow
def test_views_are_inspected_as_one_part(parts, tmp_path):
    out, run = tmp_path / "views", CliRunner()
    words = ["data", "views", str(parts), "-o", str(out), "--turn", "0,0", "--turn", "-20,10"]
    done = run.invoke(cli.app, words)
    assert done.exit_code == 0, done.output
    assert "parts: 2, 2 views each" in done.stdout
    pattern = re.search(r"--part-by '(.+)'", done.stdout).group(1)
    folder = str(tmp_path / "run")
    how = ["--method", "dense", "--object", "box", "--part-by", pattern, "--output", folder]
    done = run.invoke(cli.app, ["inspect", str(out), *how])
    assert done.exit_code in (0, 2), done.output
    assert "2 parts" in done.output or "parts" in done.output
    refused = run.invoke(cli.app, [*words[:-1], "200,0"])
    assert refused.exit_code

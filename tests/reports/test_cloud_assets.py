"""What a run leaves of clouds: the other modality, the surface without a network, scored points."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import tifffile
from PIL import Image
from small_clouds import box_on_table, tilted

from zerodefect.images import Picture
from zerodefect.images.clouds import open_cloud
from zerodefect.images.part_files import open_part
from zerodefect.inspection.inspected import Inspection
from zerodefect.reports import cloud_assets
from zerodefect.reports.cloud_assets import (
    cloud_record,
    surface_page,
    write_cloud_assets,
    write_scored_points,
)


@pytest.fixture
def part(tmp_path):
    points, inside = box_on_table()
    points[0, :9] = 0
    for folder in ("rgb", "xyz"):
        (tmp_path / folder).mkdir()
    Image.fromarray(np.full((60, 80, 3), 90, np.uint8)).save(tmp_path / "rgb/000.png")
    tifffile.imwrite(tmp_path / "xyz/000.tiff", points, photometric="rgb")
    return open_part(tmp_path / "rgb/000.png"), inside.astype(np.float32)


def inspected(map):
    height, width = map.shape
    return Inspection("000.png", None, width, height, "good", False, 0.5, None, (), map=map)


def told(page):
    return json.loads(re.search(r"const told = (\{.*\});", page)[1])


def test_the_surface_has_the_measured_points_and_their_scores(part):
    picture, map = part
    found = told(surface_page(picture.cloud, map, (0.2, 0.9)))
    axes = np.array(found["axes"], float)  # None becomes NaN
    valid = picture.cloud.valid
    np.testing.assert_array_equal(np.isnan(axes).any(0), ~valid)
    np.testing.assert_allclose(axes[:, valid].T, picture.cloud.points[valid], rtol=1e-4)
    np.testing.assert_allclose(np.array(found["scores"], float)[valid], map[valid])
    assert found["range"] == [0.2, 0.9]
    assert found["scored"]
    assert found["ramp"][0] == [0, "rgb(160,160,160)"]  # what is not above the range is grey


def test_a_large_cloud_is_thinned_out_and_one_without_a_map_shows_heights():
    found = told(surface_page(open_cloud(tilted(400, 90)), None, None))
    assert np.array(found["axes"]).shape == (3, 134, 30)
    heights = np.array(found["scores"])
    assert heights.min() >= 0 and heights.max() <= 1
    assert not found["scored"]


def test_the_page_asks_for_nothing_but_the_script_beside_it(part):
    picture, map = part
    page = surface_page(picture.cloud, map, (0.2, 0.9))
    assert re.findall(r'(?:src|href)="([^"]*)"', page) == ["plotly.min.js"]
    assert "http" not in page


def test_both_modalities_and_the_viewer_once(part, tmp_path):
    pytest.importorskip("plotly")
    picture, map = part
    folder = tmp_path / "run/assets"
    folder.mkdir(parents=True)
    how = inspected(map), (0.2, 0.9), folder
    first = write_cloud_assets(picture, *how, "a", None)
    assert first == {"other": "assets/a.normals.jpg", "surface": "assets/a.surface.html"}
    script = folder / "plotly.min.js"
    made = script.stat().st_mtime_ns
    seen = open_part(picture.path, view="depth")
    second = write_cloud_assets(seen, *how, "b", "depth")
    assert second["other"] == "assets/b.picture.jpg"
    assert abs(int(np.asarray(Image.open(folder / "b.picture.jpg")).mean()) - 90) < 2
    assert script.stat().st_mtime_ns == made
    assert cloud_record(picture, None, None)["other"] == "normals"
    assert cloud_record(seen, "depth", "maps/b.ply") == {
        **{"points": 4800, "measured": 4791},
        **{"view": "depth", "other": "picture", "scores": "maps/b.ply"},
    }


def test_without_the_extra_the_viewer_is_left_out(part, tmp_path, monkeypatch):
    monkeypatch.setattr(cloud_assets, "_library", lambda: None)
    picture, map = part
    assets = write_cloud_assets(picture, inspected(map), (0.2, 0.9), tmp_path, "a", None)
    assert set(assets) == {"other"}
    assert not list(tmp_path.glob("*.js"))


def test_points_are_written_with_their_scores(part, tmp_path):
    picture, map = part
    write_scored_points(tmp_path / "a.ply", picture.cloud, map)
    again = open_cloud(tmp_path / "a.ply")
    assert len(again.cells) == picture.cloud.valid.sum()
    body = (tmp_path / "a.ply").read_bytes().split(b"end_header\n", 1)[1]
    rows = np.frombuffer(body, [("xyz", "<f8", 3), ("score", "<f4")])
    np.testing.assert_array_equal(rows["score"], map[picture.cloud.valid])
    np.testing.assert_allclose(rows["xyz"], picture.cloud.measured)
    with pytest.raises(ValueError, match="grid"):
        write_scored_points(tmp_path / "a.ply", picture.cloud, map[1:])


def test_a_cloud_alone_is_shown_by_two_views():
    cloud = open_cloud(tilted())
    alone = Picture("part.ply", np.zeros((24, 32, 3), np.uint8), cloud=cloud, colourless=True)
    assert cloud_assets.other_modality(alone, None) == "depth"
    assert cloud_assets.other_modality(replace(alone, colourless=False), "depth") == "normals"

"""Parts as picture and cloud: which files belong together, and either of them missing or broken."""

import numpy as np
import pytest
import tifffile
from PIL import Image
from small_clouds import box_on_table, ply, tilted

from zerodefect.images import ImageError
from zerodefect.images.cloud_views import VIEWS, seen_as
from zerodefect.images.clouds import open_cloud
from zerodefect.images.part_files import cloud_beside, find_parts, open_part, part_size
from zerodefect.reports.cloud_assets import cloud_record


def write(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    if pixels.dtype == np.uint8:
        Image.fromarray(pixels).save(path)
    else:
        tifffile.imwrite(path, pixels, photometric="rgb")
    return path


@pytest.fixture
def parts(tmp_path):
    """000 has both, 001 a picture alone, 002 a cloud alone; masks of all."""
    points, _ = box_on_table()
    grey = np.full((60, 80, 3), 90, np.uint8)
    for number in (0, 1):
        write(tmp_path / f"rgb/00{number}.png", grey)
    for number in (0, 2):
        write(tmp_path / f"xyz/00{number}.tiff", points)
    for number in range(3):
        write(tmp_path / f"gt/00{number}.png", grey[..., 0])
    return tmp_path


def test_each_part_is_listed_once_and_masks_are_none(parts):
    found = [file.relative_to(parts).as_posix() for file in find_parts([parts])]
    assert found == ["rgb/000.png", "rgb/001.png", "xyz/002.tiff"]
    named = find_parts([parts / "xyz/000.tiff", parts / "gt/000.png"])
    assert [file.name for file in named] == ["000.tiff", "000.png"]
    with pytest.raises(FileNotFoundError):
        find_parts([parts / "gone"])


def test_a_cloud_that_comes_or_changes_makes_another_part(parts):
    from zerodefect.reports.run_folder import image_key

    file = parts / "rgb/001.png"
    before = image_key(file)
    write(parts / "xyz/001.tiff", box_on_table()[0])
    with_cloud = image_key(file)
    write(parts / "xyz/001.tiff", box_on_table(70)[0])
    assert len({before, with_cloud, image_key(file)}) == 3


def test_either_may_be_missing(parts):
    both, colours, points = (open_part(file) for file in find_parts([parts]))
    assert both.cloud is not None and not both.colourless
    assert (both.pixels == 90).all()
    assert colours.cloud is None and not colours.colourless
    assert points.cloud is not None and points.colourless
    assert points.pixels.shape == (60, 80, 3)
    assert part_size(parts / "xyz/002.tiff") == (80, 60)
    assert part_size(parts / "rgb/000.png") == (80, 60)


def test_a_broken_cloud_costs_itself_alone_and_the_view_of_it(parts):
    file = parts / "xyz/000.tiff"
    file.write_bytes(file.read_bytes()[:500])
    part = open_part(parts / "rgb/000.png")
    assert part.cloud is None
    assert any("000.tiff is not used: the file is truncated" in note for note in part.notes)
    with pytest.raises(ImageError, match=r"rgb.000\.png: its cloud .* truncated"):
        open_part(parts / "rgb/000.png", view="depth")
    with pytest.raises(ImageError, match="no point cloud"):
        open_part(parts / "rgb/001.png", view="depth")


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_takes_the_picture_s_place_and_keeps_its_cloud(parts, view):
    part = open_part(parts / "rgb/000.png", view=view)
    assert part.pixels.dtype == np.uint16
    assert part.pixels.shape == (60, 80, 3)
    assert part.cloud is not None and not part.colourless
    np.testing.assert_array_equal(part.pixels, seen_as(part.cloud, view))


def test_single_files_of_every_kind(parts, tmp_path):
    (tmp_path / "part.ply").write_bytes(ply(tilted().reshape(-1, 3)))
    alone = write(tmp_path / "part.tiff", tilted() - np.float32(0.5))
    assert open_part(tmp_path / "part.ply").colourless
    assert open_part(alone).colourless  # numbers below zero are no picture
    assert open_part((tmp_path / "part.ply").read_bytes()).colourless
    picture = write(tmp_path / "picture.tiff", np.full((5, 6, 3), 0.25, np.float32))
    assert not open_part(picture).colourless  # an ordinary one in [0, 1]
    listed = [file.name for file in find_parts([tmp_path])]
    assert listed == ["part.ply", "part.tiff", "picture.tiff", "000.png", "001.png", "002.tiff"]


def test_a_cloud_of_another_size_is_shown_on_the_picture_s_pixels(parts):
    points, inside = box_on_table()
    write(parts / "xyz/000.tiff", points[::2, ::2])
    part = open_part(parts / "rgb/000.png")
    assert part.cloud.valid.shape == (60, 80)
    assert part.cloud.cells.shape == (30 * 40,)
    assert "its cloud of 40 x 30 points is shown on the picture's pixels" in part.notes
    record = cloud_record(part, None, None)
    assert (record["points"], record["measured"]) == (1200, 1200)  # the file's, not the pixels'
    at = part.cloud.at_points(inside.astype(np.float32))
    np.testing.assert_array_equal(at.reshape(30, 40), inside[1::2, 1::2])
    write(parts / "xyz/000.tiff", points[:20])
    part = open_part(parts / "rgb/000.png")
    assert part.cloud is None
    assert any("does not fit the picture's 80 x 60" in note for note in part.notes)


def test_depth_is_measured_from_the_ground_whatever_the_part_s_own_range():
    low, high = (seen_as(open_cloud(box_on_table(high=h)[0]), "depth") for h in (0.005, 0.01))
    ground = 0.25 * 65535
    assert abs(int(low[5, 5, 0]) - ground) < 100
    rise, more = (int(view[30, 40, 0]) - ground for view in (low, high))
    assert more == pytest.approx(2 * rise, rel=0.03)


def test_normals_face_the_camera_as_blue_and_curvature_is_dark_on_planes():
    cloud = open_cloud(tilted(tilt=(0, 0)))
    assert (seen_as(cloud, "normals")[8, 8] == [32768, 32768, 65535]).all()
    assert seen_as(cloud, "curvature").max() < 700
    points, inside = box_on_table()
    points[:, 40:, 2] += 0.5 * (points[:, 40:, 0] - points[:, 40:41, 0]) * inside[:, 40:]  # a ridge
    ridged = seen_as(open_cloud(points), "curvature")[..., 0]
    assert ridged[30, 40] > 7000
    assert ridged[30, 50] < 700
    assert not ridged[:15].any()  # the table
    with pytest.raises(ValueError, match="depth, normals, curvature"):
        seen_as(cloud, "above")


def test_depth_pictures_of_eyecandies(tmp_path):
    depth = np.full((64, 64), 65535, np.uint16)
    depth[:, 32:] = 32768
    depth[0, 0] = 0
    Image.fromarray(depth).save(tmp_path / "000_depth.png")
    write(tmp_path / "000_image_4.png", np.full((64, 64, 3), 50, np.uint8))
    assert cloud_beside(tmp_path / "000_image_4.png") is None
    (tmp_path / "000_info_depth.yaml").write_text("normalization: {min: 1.0, max: 3.0}")
    part = open_part(tmp_path / "000_image_4.png")
    assert not part.cloud.valid[0, 0]
    assert part.cloud.points[5, 5, 2] == pytest.approx(3)
    assert part.cloud.points[5, 40, 2] == pytest.approx(2, abs=1e-4)
    # one pixel is z / f wide, and f is 711.11 pixels of 512
    step = part.cloud.points[5, 6, 0] - part.cloud.points[5, 5, 0]
    assert step == pytest.approx(3 / (711.11 / 8), rel=1e-4)
    for text in ("normalization: {min: 3, max: 1}", "what: 1", "{"):
        (tmp_path / "000_info_depth.yaml").write_text(text)
        with pytest.raises(ImageError, match="info_depth"):
            open_cloud(tmp_path / "000_depth.png")

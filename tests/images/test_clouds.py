"""Point clouds: files of every kind, and files that are broken."""

import io
import struct

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from small_clouds import pcd, ply, tilted

from zerodefect.images import ImageError
from zerodefect.images.clouds import open_cloud


def tiff(points, **options):
    file = io.BytesIO()
    if points.shape[2:]:
        options = {"photometric": "rgb", **options}
    tifffile.imwrite(file, points, **options)
    return file.getvalue()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"photometric": "minisblack", "planarconfig": "contig"},
        {"compression": "zlib"},
        {"compression": "zlib", "predictor": False, "rowsperstrip": 5},
        {"byteorder": ">"},
        {"bigtiff": True},
        {"tile": (16, 16)},
    ],
)
def test_a_tiff_with_x_y_z_of_every_pixel(options):
    points = tilted(20, 30)
    points[3, 4] = 0
    points[5, 6] = np.nan
    cloud = open_cloud(tiff(points, **options), name="part.tiff")
    assert cloud.path == "part.tiff"
    assert cloud.organised
    assert cloud.valid.sum() == 598
    assert not cloud.valid[3, 4] and not cloud.valid[5, 6]
    assert (cloud.points[~cloud.valid] == 0).all()
    assert cloud.points.dtype == np.float32
    np.testing.assert_array_equal(cloud.points[cloud.valid], points[cloud.valid])


def test_numbers_of_64_bits_and_signed_ones_are_points_too():
    for kind in (np.float64, np.int16, np.int32):
        points = (tilted(6, 7) * 1000).round().astype(kind)
        np.testing.assert_allclose(open_cloud(tiff(points)).points, points)


@pytest.mark.parametrize("form", ["ascii", "binary_little_endian", "binary_big_endian"])
def test_ply_in_every_form_gives_the_same_points(form):
    points = tilted(10, 12).reshape(-1, 3)
    cloud = open_cloud(ply(points, form))
    assert not cloud.organised
    assert cloud.cells.shape == (120,)
    found = cloud.points.reshape(-1, 3)[cloud.cells]
    np.testing.assert_allclose(found, points, atol=1.5e-3)  # the nearest in its cell
    assert any("120 points" in note for note in cloud.notes)


def test_elements_before_the_points_of_a_ply_are_skipped():
    points = tilted(4, 5).reshape(-1, 3)
    data = ply(points)
    before = b"element camera 2\nproperty double view\nelement vertex"
    head, body = data.split(b"end_header\n")
    data = head.replace(b"element vertex", before) + b"end_header\n" + bytes(16) + body
    np.testing.assert_array_equal(open_cloud(data).cells, open_cloud(ply(points)).cells)


def test_a_range_scanner_s_ply_keeps_its_grid():
    points = tilted(4, 5)
    data = ply(points.reshape(-1, 3)).replace(
        b"comment made here", b"obj_info num_cols 5\nobj_info num_rows 4"
    )
    cloud = open_cloud(data)
    assert cloud.organised
    np.testing.assert_array_equal(cloud.points, points)


@pytest.mark.parametrize("how", ["ascii", "binary", "binary_compressed"])
def test_pcd_in_every_form_keeps_its_grid(how):
    points = tilted(8, 9)
    points[2:4, 3:9] = np.nan
    cloud = open_cloud(pcd(points, how))
    assert cloud.organised
    assert cloud.valid.sum() == 60
    np.testing.assert_allclose(cloud.points[cloud.valid], points[cloud.valid], rtol=1e-6)


def test_a_pcd_of_one_row_is_a_list():
    cloud = open_cloud(pcd(tilted(6, 6).reshape(1, 36, 3)))
    assert not cloud.organised
    assert (cloud.cells >= 0).all()


def test_values_of_the_grid_come_back_to_the_points_of_a_list():
    points = np.array([[0, 0, 1], [0, 0, 2], [9, 0, 1], [9, 9, 1], [np.nan, 0, 0]], np.float32)
    cloud = open_cloud(points)
    at = cloud.at_points(np.arange(cloud.valid.size, dtype=np.float32).reshape(cloud.valid.shape))
    assert at[0] == at[1] == 0  # the second lies behind the first
    assert cloud.points[0, 0, 2] == 1
    assert at[2] == cloud.width - 1
    assert at[3] == cloud.valid.size - 1
    assert np.isnan(at[4])
    with pytest.raises(ValueError, match="grid"):
        cloud.at_points(np.zeros((1, 99)))


def test_far_coordinates_keep_their_millimetres():
    points = tilted(6, 7).astype(np.float64) + np.array([0, 5e6, 0])
    cloud = open_cloud(points)
    assert cloud.origin[1] > 4.9e6
    np.testing.assert_allclose(cloud.points + cloud.origin, points, atol=1e-6)
    assert any("precision" in note for note in cloud.notes)


@given(
    arrays(np.float32, (3, 4, 3), elements=st.floats(-1e6, 1e6, width=32)),
    arrays(np.bool_, (3, 4)),
)
def test_whatever_is_measured_is_kept_and_nothing_else(points, missing):
    points = np.where(missing[..., None], np.float32(np.nan), points)
    there = np.isfinite(points).all(-1) & (points != 0).any(-1)
    if there.sum() < 3:
        with pytest.raises(ImageError, match=r"none of its points|only [12] of its 12 points"):
            open_cloud(points)
        return
    grid, loose = open_cloud(points), open_cloud(points.reshape(-1, 3))
    np.testing.assert_array_equal(grid.valid, there)
    assert np.isfinite(grid.points).all() and np.isfinite(loose.points).all()
    np.testing.assert_array_equal(loose.cells >= 0, there.ravel())
    assert loose.valid.ravel()[loose.cells[loose.cells >= 0]].all()
    assert loose.valid.sum() <= there.sum()


@given(st.data())
def test_a_cut_file_is_an_error_that_names_it(data):
    points = tilted(8, 9)
    whole = data.draw(
        st.sampled_from(
            [tiff(points, compression="zlib"), tiff(points)]
            + [ply(points.reshape(-1, 3), form) for form in ("ascii", "binary_big_endian")]
            + [pcd(points, how) for how in ("ascii", "binary", "binary_compressed")]
        )
    )
    cut = whole[: data.draw(st.integers(0, len(whole) - 60))]
    with pytest.raises(ImageError, match=r"^cut\.file: ") as raised:
        open_cloud(cut, name="cut.file")
    assert raised.value.remedy


@given(st.integers(0, 2**32 - 1), st.integers(0, 400))
def test_a_flipped_byte_never_costs_more_than_an_error(seed, place):
    draws = np.random.default_rng(seed)
    for whole in (tiff(tilted(8, 9)), ply(tilted(4, 4).reshape(-1, 3)), pcd(tilted(4, 4))):
        data = bytearray(whole)
        data[place % len(data)] = draws.integers(256)
        try:
            cloud = open_cloud(bytes(data))
        except ImageError:
            continue
        assert cloud.valid.any() and np.isfinite(cloud.points).all()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (tiff(np.zeros((4, 5, 3), np.float32)), "none of its points"),
        (tiff(np.full((4, 5, 3), np.nan, np.float32)), "none of its points"),
        (tiff(np.ones((4, 5), np.float32)), "1 channel, not x, y and z"),
        (tiff(np.ones((4, 5, 4), np.float32)), "4 channels, not"),
        (tiff(np.full((4, 5, 3), 9, np.uint8)), "without a sign"),
        (tiff(np.full((4, 5, 3), 1e39)), "too large"),
        (ply(np.zeros((0, 3))), "has no points"),
        (ply(np.ones((4, 3))).replace(b"property float z\n", b""), "have no z"),
        (ply(np.ones((4, 3))).replace(b"vertex 4", b"vertex 99999999999"), "the limit is"),
        (ply(np.ones((4, 3))).replace(b"vertex 4", b"vertex -4"), "header is damaged"),
        (ply(np.ones((4, 3))).replace(b"binary_l", b"packed_l"), "not one of PLY's"),
        (ply(np.ones((4, 3)), "ascii").replace(b"1.0 1.0", b"1.0 oops"), "cannot be read"),
        (ply(np.ones((4, 3)), more="property list uchar int f\n"), "lists stand"),
        (ply(np.ones((4, 3))).replace(b"vertex 4", b"face 4"), "no element vertex"),
        (pcd(tilted(3, 3)).replace(b"WIDTH 3\n", b"WIDTH 3000000\n"), "truncated"),
        (pcd(tilted(3, 3)).replace(b"WIDTH 3\n", b"WIDTH 30000000000\n"), "the limit is"),
        (pcd(tilted(3, 3)).replace(b"WIDTH 3\n", b""), "header is damaged"),
        (pcd(tilted(3, 3)).replace(b"TYPE F", b"TYPE Q"), "types that PCD"),
        (pcd(tilted(3, 3)).replace(b"DATA binary", b"DATA secret"), "does not know"),
        (b"\x89PNG\r\n\x1a\n" + bytes(20), "a PNG picture"),
        (b"hello world, how are you", "a text file"),
    ],
)
def test_what_is_no_cloud_says_why_and_what_to_do(data, reason):
    with pytest.raises(ImageError) as raised:
        open_cloud(data, name="part")
    assert reason in raised.value.reason
    assert raised.value.remedy


def test_huge_sizes_are_refused_on_the_header_alone():
    data = bytearray(tiff(tilted(8, 9)))
    with tifffile.TiffFile(io.BytesIO(bytes(data))) as file:
        tags = file.pages[0].tags
        for code in (256, 257):
            struct.pack_into("<I", data, tags[code].valueoffset, 60_000)
    with pytest.raises(ImageError, match="too large"):
        open_cloud(bytes(data))
    with pytest.raises(ImageError, match="limit is 50"):
        open_cloud(tilted(8, 9), max_points=50)


def test_paths_that_are_no_files(tmp_path):
    with pytest.raises(ImageError, match="no such file"):
        open_cloud(tmp_path / "gone.ply")
    with pytest.raises(ImageError, match="it is a folder"):
        open_cloud(tmp_path)


def test_unpacking_never_reads_before_its_start():
    whole = bytearray(pcd(tilted(3, 3), "binary_compressed"))
    start = whole.index(b"compressed\n") + len(b"compressed\n") + 8
    whole[start] = 0xFF  # a copy, where there is nothing to copy yet
    with pytest.raises(ImageError, match=r"do not unpack|damaged"):
        open_cloud(bytes(whole))


@pytest.mark.parametrize("far", [1e6, -3e4, 1e38])
def test_a_false_reading_far_out_is_not_measured_and_stretches_nothing(far):
    points = tilted()
    points[3, 4] = far
    cloud = open_cloud(points)
    assert not cloud.valid[3, 4] and cloud.valid.sum() == points[..., 0].size - 1
    assert "1 of its points lies far from all others" in cloud.notes[0]
    clean = open_cloud(np.delete(tilted().reshape(-1, 3), 3 * 32 + 4, 0))
    listed = open_cloud(points.reshape(-1, 3))
    assert np.array_equal(listed.points.shape, clean.points.shape)
    assert np.array_equal(listed.measured, clean.measured)
    assert np.isnan(listed.at_points(np.zeros(listed.valid.shape))[3 * 32 + 4])


def test_a_part_on_few_of_the_pixels_is_no_false_reading():
    points = tilted(tilt=(0, 0))
    points[5, 5, 2] = 0.95  # 50 mm towards the camera on a field of 31 mm
    cloud = open_cloud(points)
    assert cloud.valid[5, 5] and not cloud.notes


def test_a_handful_of_measured_points_is_no_part():
    points = np.zeros((50, 50, 3), np.float32)
    points[7, 7:9] = 1.0, 2.0, 3.0
    with pytest.raises(ImageError, match="only 2 of its 2,500 points were measured"):
        open_cloud(points)

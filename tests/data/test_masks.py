"""Masks as boolean arrays: what counts as defective, and the rules for resizing."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from zerodefect.data import MASK_RULES, Sample, check_files, load_dataset, read_mask
from zerodefect.data.masks import _nearest
from zerodefect.images import ImageError


def sample_of(tmp_path, *masks, anomalous=True):
    """A sample whose mask files hold the given pixels."""
    files = []
    for i, pixels in enumerate(masks):
        files.append(tmp_path / f"mask{i}.png")
        picture = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
        picture.save(files[-1])
    image = tmp_path / "image.png"
    width, height = Image.open(files[0]).size if files else (5, 4)
    Image.new("RGB", (width, height)).save(image)
    first, more = (files[0], tuple(files[1:])) if files else (None, ())
    return Sample(image, first, "nut", "hole", anomalous, "test", more)


@pytest.mark.parametrize("value", [1, 2, 128, 255])
def test_whatever_is_not_black_is_defective(tmp_path, value):
    pixels = np.zeros((4, 5), np.uint8)
    pixels[1, 2] = value
    mask = read_mask(sample_of(tmp_path, pixels))
    assert mask.dtype == np.bool_
    assert np.argwhere(mask).tolist() == [[1, 2]]


def test_small_values_of_16_bits_and_colours_and_palettes_count(tmp_path):
    wide = np.zeros((4, 5), np.uint16)
    wide[0, 0] = 1
    colour = np.zeros((4, 5, 3), np.uint8)
    colour[1, 1, 2] = 7
    palette = Image.new("P", (5, 4))
    palette.putpalette([0, 0, 0, 128, 0, 0])
    palette.putpixel((2, 2), 1)
    mask = read_mask(sample_of(tmp_path, wide, colour, palette))
    assert np.argwhere(mask).tolist() == [[0, 0], [1, 1], [2, 2]]


def test_good_without_a_mask_is_empty_at_the_pictures_size(tmp_path):
    sample = sample_of(tmp_path, anomalous=False)
    assert read_mask(sample).shape == (4, 5)
    assert read_mask(sample, size=(7, 9)).shape == (7, 9)
    assert not read_mask(sample).any()


@pytest.mark.parametrize("anomalous", [True, None])
def test_no_mask_and_not_good_is_an_error(tmp_path, anomalous):
    with pytest.raises(ValueError, match="there is no mask"):
        read_mask(sample_of(tmp_path, anomalous=anomalous))


def test_errors(tmp_path):
    pixels = np.zeros((4, 5), np.uint8)
    with pytest.raises(ValueError, match="no mask rule 'otsu'"):
        read_mask(sample_of(tmp_path, pixels), rule="otsu")
    with pytest.raises(ImageError, match="the mask is 4 x 5 pixels, its picture 5 x 4"):
        read_mask(sample_of(tmp_path, pixels, pixels.T.copy()))
    transparent = np.zeros((4, 5, 4), np.uint8)
    with pytest.raises(ImageError, match="transparent in places"):
        read_mask(sample_of(tmp_path, transparent))


def test_rules_grow_and_shrink_as_named(tmp_path):
    pixels = np.zeros((1, 12), np.uint8)
    pixels[0, :6] = 255
    sample = sample_of(tmp_path, pixels)
    areas = {rule: int(read_mask(sample, (1, 4), rule).sum()) for rule in MASK_RULES}
    # the four cells hold 1, about 0.94, about 0.06 and 0 of the weight
    assert areas == {
        "nonzero": 2,
        "nearest>0": 2,
        "bilinear>0.5": 2,
        ">0.45": 2,
        "bilinear>0": 3,
        "bilinear_truncate": 1,
    }


def test_the_two_thresholds_differ_in_the_cell_between_them(tmp_path):
    sample = sample_of(tmp_path, np.array([[0, 255]], np.uint8))
    # one cell of the ramp lies at 14.5 / 15 - 0.5, about 0.467
    assert read_mask(sample, (1, 30), "bilinear>0.5").sum() == 15
    assert read_mask(sample, (1, 30), ">0.45").sum() == 16


masks = arrays(np.bool_, st.tuples(st.integers(1, 12), st.integers(1, 12)))
sizes = st.tuples(st.integers(1, 24), st.integers(1, 24))


@given(masks, sizes)
def test_rules_are_nested_and_keep_full_and_empty(mask, size):
    resized = {name: rule(mask, size) for name, rule in MASK_RULES.items()}
    assert all(r.shape == size and r.dtype == np.bool_ for r in resized.values())
    order = ["bilinear_truncate", "bilinear>0.5", ">0.45", "bilinear>0"]
    for smaller, larger in pairwise(order):
        assert not (resized[smaller] & ~resized[larger]).any()
    if mask.all() or not mask.any():
        assert all((r == mask[0, 0]).all() for r in resized.values())


@given(masks, st.integers(1, 4))
def test_nearest_enlarges_exactly(mask, factor):
    size = (mask.shape[0] * factor, mask.shape[1] * factor)
    assert (_nearest(mask, size) == np.kron(mask, np.ones((factor, factor), bool))).all()


# What the deep check finds


def draw(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


@pytest.fixture
def tree(tmp_path):
    """A sound data set of three different pictures and one mask."""
    rng = np.random.default_rng(0)
    for name in ("train/good/0", "test/good/0", "test/hole/0"):
        draw(tmp_path / f"{name}.png", rng.integers(0, 255, (4, 5), np.uint8))
    mask = np.zeros((4, 5), np.uint8)
    mask[1, 1] = 1
    draw(tmp_path / "ground_truth/hole/0_mask.png", mask)
    return tmp_path


def found(tree, deep=True):
    check = check_files(load_dataset(tree, sizes=False), deep=deep)
    return [(p.severity, p.file.removeprefix(f"{tree}/"), p.reason) for p in check.problems]


def test_a_sound_data_set(tree):
    calls = []
    dataset = load_dataset(tree, sizes=False)
    for deep in (False, True):
        check = check_files(dataset, deep=deep, on_sample=lambda: calls.append(1))
        assert not check.problems
        assert check.sizes == {(5, 4): 3}
    assert len(calls) == 6


def test_empty_mask_of_a_defect(tree):
    draw(tree / "ground_truth/hole/0_mask.png", np.zeros((4, 5), np.uint8))
    assert not found(tree, deep=False)
    reason = "the mask of a defective picture is empty"
    assert found(tree) == [("error", "ground_truth/hole/0_mask.png", reason)]


def test_marked_mask_of_a_good_picture(tree):
    draw(tree / "ground_truth/good/0_mask.png", np.full((4, 5), 255, np.uint8))
    reason = "the mask of a good picture marks 20 pixels"
    assert found(tree) == [("error", "ground_truth/good/0_mask.png", reason)]


def test_truncated_files(tree):
    for name in ("test/good/0.png", "ground_truth/hole/0_mask.png"):
        data = (tree / name).read_bytes()
        (tree / name).write_bytes(data[:-6])
    assert {(s, f) for s, f, _ in found(tree)} == {
        ("error", "test/good/0.png"),
        ("error", "ground_truth/hole/0_mask.png"),
    }


def test_mask_of_another_size_in_both_depths(tree):
    draw(tree / "ground_truth/hole/0_mask.png", np.full((5, 4), 255, np.uint8))
    for deep in (False, True):
        ((severity, _, reason),) = found(tree, deep)
        assert severity == "error"
        assert reason == "the mask is 4 x 5 pixels, its picture 5 x 4"


def test_lossy_mask(tree):
    (tree / "ground_truth/hole/0_mask.png").unlink()
    draw(tree / "ground_truth/hole/0.jpg", np.full((4, 5), 255, np.uint8))
    problems = found(tree)
    assert {(s, f) for s, f, _ in problems} == {("warning", "ground_truth/hole/0.jpg")}
    assert [r for _, _, r in problems] == [
        "masks that mark every pixel of their picture",
        "JPEG blurs a mask",
    ]


@pytest.mark.parametrize(
    ("copy", "severity"), [("test/good/1.png", "error"), ("train/good/1.png", "warning")]
)
def test_same_pixels_twice(tree, copy, severity):
    draw(tree / copy, np.array(Image.open(tree / "train/good/0.png")), compress_level=0)
    problems = found(tree)
    assert [p[0] for p in problems] == [severity]
    assert "the same pixels" in problems[0][2]


def test_pixels_of_a_transparent_mask_are_not_guessed(tree):
    draw(tree / "ground_truth/hole/0_mask.png", np.zeros((4, 5, 4), np.uint8))
    ((severity, _, reason),) = found(tree)
    assert (severity, reason) == ("error", "the mask is transparent in places")


def test_a_mask_can_be_read_without_its_picture(tmp_path):
    sample = sample_of(tmp_path, np.full((2, 2), 9, np.uint8))
    assert read_mask(replace(sample, image=tmp_path / "gone.png")).all()


def test_a_mask_fits_the_picture_behind_a_thumbnail(tmp_path):
    import tifffile

    pixels = np.zeros((40, 60), np.uint8)
    pixels[3, 5] = 255
    sample = replace(sample_of(tmp_path, pixels), image=tmp_path / "image.tif")
    with tifffile.TiffWriter(sample.image) as file:
        file.write(pixels[::8, ::8], subfiletype=1)
        file.write(pixels)
    assert np.argwhere(read_mask(sample)).tolist() == [[3, 5]]

"""Masks as the field's tools write them: read alike, or found and said."""

import io

import numpy as np
import pytest
from PIL import Image, ImageFilter

from zerodefect.data import check_files, load_dataset, opened_mask
from zerodefect.images import ImageError

GREY = "masks of many grey values: above 127 of 255 counts as defective"


def defect(height=160, width=200):
    mask = np.zeros((height, width), np.uint8)
    mask[56:70, 60:100] = 255
    return mask


def tree(root, write, exif=None):
    """One good picture, one with a scratch, and the mask that ``write`` saves."""
    for folder in ("good", "scratch", "ground_truth/scratch"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(90, 150, (160, 200, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(root / "good/0.png")
    turn = Image.Exif()
    turn[0x0112] = exif or 1
    Image.fromarray(255 - pixels).save(root / "scratch/0.jpg", exif=turn)
    write(defect(), root / "ground_truth/scratch/0.png")
    return load_dataset(root, name="part")


def save(pixels, path):
    Image.fromarray(np.ascontiguousarray(pixels)).save(path)


def palette(colours):
    def write(mask, path):
        image = Image.fromarray(mask // 255, "L").convert("P")
        image.putdata([int(v) for v in (mask // 255).ravel()])
        image.putpalette(colours + [0] * (768 - len(colours)))
        image.save(path)

    return write


def through_jpeg(quality):
    def write(mask, path):
        memory = io.BytesIO()
        Image.fromarray(mask).save(memory, "JPEG", quality=quality)
        Image.open(memory).save(path)

    return write


def wide(mask):
    return mask.astype(np.uint16)


ALIKE = {
    "255": save,
    "1": lambda m, p: save(m // 255, p),
    "2": lambda m, p: save(m // 255 * 2, p),
    "16 bits of 1": lambda m, p: save(wide(m // 255), p),
    "16 bits of 65535": lambda m, p: save(wide(m) * 257, p),
    "1 bit": lambda m, p: Image.fromarray(m).convert("1").save(p),
    "red": lambda m, p: save(np.stack([m, m * 0, m * 0], -1), p),
    "blue": lambda m, p: save(np.stack([m * 0, m * 0, m // 2], -1), p),
    "opaque": lambda m, p: save(np.stack([m, m, m, np.full_like(m, 255)], -1), p),
    "palette": palette([0, 0, 0, 128, 0, 0]),
    "palette of grey 1": palette([0, 0, 0, 1, 1, 1]),
    "palette without colours": palette([]),
}


@pytest.mark.parametrize("name", ALIKE)
def test_values_colours_and_palettes_read_alike(tmp_path, name):
    dataset = tree(tmp_path, ALIKE[name])
    (sample,) = dataset.select(kind="scratch")
    mask, remarks = opened_mask(sample)
    assert (mask == (defect() > 0)).all()
    assert not remarks
    assert not check_files(dataset, masks=True).problems


def test_kinds_with_values_of_their_own_are_one_area(tmp_path):
    def write(mask, path):
        values = mask // 255
        values[:, 80:] *= 2
        save(values, path)

    (sample,) = tree(tmp_path, write).select(kind="scratch")
    assert (opened_mask(sample)[0] == (defect() > 0)).all()


@pytest.mark.parametrize("quality", [30, 70, 95])
def test_noise_of_jpeg_is_no_defect(tmp_path, quality):
    dataset = tree(tmp_path, through_jpeg(quality))
    (sample,) = dataset.select(kind="scratch")
    mask, remarks = opened_mask(sample)
    assert (mask != (defect() > 0)).sum() <= 30  # of 560 pixels, at the edge
    assert remarks == (GREY,)
    assert [p.reason for p in check_files(dataset, masks=True).problems] == [GREY]


@pytest.mark.parametrize("radius", [1, 4])
def test_soft_edges_count_from_half_of_white(tmp_path, radius):
    def write(mask, path):
        Image.fromarray(mask).filter(ImageFilter.GaussianBlur(radius)).save(path)

    (sample,) = tree(tmp_path, write).select(kind="scratch")
    mask, remarks = opened_mask(sample)
    soft = np.array(Image.open(sample.mask))
    assert (mask == (soft > 127)).all()
    assert 0.85 * 560 < mask.sum() <= 560
    assert remarks == (GREY,)


def turned(mask):
    return np.rot90(mask)


FOUND = {
    "inverted": (lambda m, p: save(255 - m, p), "it marks 98% of the picture and 100% of its"),
    "inverted jpeg": (lambda m, p: through_jpeg(80)(255 - m, p), "of its border, as if inverted"),
    "background 1": (lambda m, p: save(np.maximum(m, 1), p), r"values \(1, 255\) seems to stand"),
    "classes 1 and 2": (lambda m, p: save(1 + m // 255, p), r"values \(1, 2\) seems to stand"),
    "void, background, defect": (
        lambda m, p: save(np.pad((1 + m // 255)[5:-5, 5:-5], 5), p),
        r"values \(0, 1, 2\) seems to stand",
    ),
    "half size": (lambda m, p: save(m[::2, ::2], p), "the mask is 100 x 80 pixels, its picture"),
    "turned": (lambda m, p: save(turned(m), p), "the mask is 160 x 200 pixels, its picture"),
    "transparent": (
        lambda m, p: save(np.stack([m, m * 0, m * 0, m], -1), p),
        "transparent in places",
    ),
    "black": (lambda m, p: save(m * 0, p), "the mask of a defective picture is empty"),
}


@pytest.mark.parametrize("name", FOUND)
def test_what_cannot_be_a_mask_is_found(tmp_path, name):
    write, words = FOUND[name]
    dataset = tree(tmp_path, write)
    (sample,) = dataset.select(kind="scratch")
    with pytest.raises(ImageError, match=words) as caught:
        opened_mask(sample)
    (problem,) = check_files(dataset, masks=True).problems
    assert (problem.severity, problem.file) == ("error", str(sample.mask))
    assert (problem.reason, problem.remedy) == (caught.value.reason, caught.value.remedy)


def test_a_mask_drawn_before_the_picture_was_turned_by_exif(tmp_path):
    dataset = tree(tmp_path, save, exif=6)
    (problem,) = dataset.problems
    assert problem.reason.endswith("its picture 160 x 200 once it is turned as its EXIF says")
    (sample,) = dataset.select(kind="scratch")
    with pytest.raises(ImageError, match="as its EXIF says"):
        opened_mask(sample)


def test_a_mask_drawn_on_the_upright_picture(tmp_path):
    dataset = tree(tmp_path, lambda m, p: save(turned(m), p), exif=6)
    assert not dataset.problems
    (sample,) = dataset.select(kind="scratch")
    assert opened_mask(sample)[0].shape == (200, 160)


def test_a_half_turn_leaves_the_size_and_is_a_warning(tmp_path):
    dataset = tree(tmp_path, save, exif=3)
    (problem,) = dataset.problems
    assert problem.severity == "warning"
    assert "turned by EXIF" in problem.reason
    assert any("turned by EXIF" in remark for remark in dataset.remarks())


def test_a_mask_of_the_whole_picture_is_used_and_said(tmp_path):
    dataset = tree(tmp_path, lambda m, p: save(np.full_like(m, 255), p))
    (sample,) = dataset.select(kind="scratch")
    mask, remarks = opened_mask(sample)
    assert mask.all()
    assert remarks == ("masks that mark every pixel of their picture",)


def test_a_large_defect_is_no_inverted_mask(tmp_path):
    def write(mask, path):
        mask[:, 20:] = 255  # nine tenths of the picture, three sides of its border
        save(mask, path)

    (sample,) = tree(tmp_path, write).select(kind="scratch")
    assert opened_mask(sample)[0].mean() == pytest.approx(0.9)

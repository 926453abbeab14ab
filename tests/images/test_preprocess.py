import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from zerodefect.images import CLIP_MEAN, CLIP_STD, Picture, Preprocess, open_image

PARITY = Path(__file__).parents[1] / "parity"


def picture(height=30, width=44, dtype=np.uint8):
    high = int(np.iinfo(dtype).max) + 1
    pixels = np.random.default_rng(1).integers(0, high, (height, width, 3), dtype=dtype)
    return open_image(pixels)


def test_official_input_is_reproduced(monkeypatch):
    """The parity case's picture and the network input that the reference code made of it."""
    monkeypatch.setattr(sys, "path", [str(PARITY), *sys.path])
    import tiny_clip

    with np.load(PARITY / "cases" / "winclip" / "case_a.npz") as case:
        arguments = json.loads(str(case["meta"]))["image"]["args"]
        expected, references = case["input"], case["reference_input"]
        reference_pixels = [case[f"reference/{i}"] for i in range(len(references))]
    prepare = Preprocess((112, 112))
    got = prepare(open_image(tiny_clip.image(*arguments)))
    np.testing.assert_allclose(got[None].numpy(), expected, atol=1e-5)
    batch = torch.stack([prepare(open_image(pixels)) for pixels in reference_pixels])
    np.testing.assert_allclose(batch.numpy(), references, atol=1e-5)


def test_pillow_resizing_is_pillows():
    source = picture()
    got = Preprocess((16, 24), resize_on="pil")(source)
    resized = np.array(Image.fromarray(source.pixels).resize((24, 16), Image.Resampling.BICUBIC))
    expected = (resized / 255 - CLIP_MEAN) / CLIP_STD
    np.testing.assert_allclose(got.numpy(), expected.transpose(2, 0, 1), atol=1e-5)


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_the_two_ways_of_resizing_nearly_agree(interpolation):
    smooth = np.stack(np.broadcast_arrays(*np.mgrid[40:200:80j, 30:190:120j], 90.0), axis=-1)
    source = open_image(np.rint(smooth).astype(np.uint8))
    unit = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0), "interpolation": interpolation}
    tensor = Preprocess((32, 40), **unit)(source)
    pillow = Preprocess((32, 40), resize_on="pil", **unit)(source)
    assert (tensor - pillow).abs().max() < 1.5 / 255


def test_antialiasing_averages():
    checks = (np.indices((64, 64)).sum(axis=0) % 2 * 255).astype(np.uint8)
    unit = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0), "interpolation": "bilinear"}
    smooth = Preprocess((8, 8), **unit)(open_image(checks))
    assert (smooth - 0.5).abs().max() < 0.05


def test_same_size_and_normalisation():
    source = picture()
    got = Preprocess((30, 44), mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))(source)
    expected = (source.pixels / 255 - [0.1, 0.2, 0.3]) / [0.5, 0.6, 0.7]
    np.testing.assert_allclose(got.numpy(), expected.transpose(2, 0, 1), atol=1e-5)
    assert got.dtype == torch.float32


def test_sixteen_bits_are_not_lost():
    low, high = (Picture("x", np.full((8, 8, 3), v, np.uint16)) for v in (30000, 30010))
    prepare = Preprocess((8, 8))
    assert (prepare(high) - prepare(low)).min() > 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": (0, 4)},
        {"size": (4, 4), "interpolation": "nearest"},
        {"size": (4, 4), "resize_on": "gpu"},
        {"size": (4, 4), "resize_on": "pil", "antialias": False},
    ],
    ids=str,
)
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ValueError, match=r"size|interpolation|resize_on"):
        Preprocess(**wrong)

"""What an evaluation records of data that are not as they should be."""

import json

import numpy as np
import pytest
from models import tiny_backbone
from PIL import Image
from typer.testing import CliRunner

from zerodefect.cli import app
from zerodefect.data import load_dataset
from zerodefect.evaluation.evaluator import Evaluator
from zerodefect.evaluation.protocol import Protocol
from zerodefect.evaluation.result_tables import write_results
from zerodefect.methods.winclip import WinCLIP


def write_parts(root, mask=lambda mask: mask, name="{}_mask"):
    """Three good parts to train, two to test, and three scratched ones with masks."""
    draws = np.random.default_rng(0)
    for folder, count in (("train/good", 3), ("test/good", 2), ("test/scratch", 3)):
        for number in range(count):
            pixels = draws.integers(90, 150, (40, 48, 3)).astype(np.uint8)
            truth = np.zeros((40, 48), np.uint8)
            if folder == "test/scratch":
                truth[10:20, 12:24] = 255
                pixels[truth > 0] = 20
                save(mask(truth), root / f"ground_truth/scratch/{name.format(number)}.png")
            save(pixels, root / f"{folder}/{number}.png")
    return root


def save(pixels, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.ascontiguousarray(pixels)).save(path)


def evaluate(root, **options):
    protocol = Protocol(resolution="network", pixel_queries=("auroc",), **options)
    return Evaluator(WinCLIP(tiny_backbone()), load_dataset(root, name="part"), protocol).run()


def pixels_of(evaluation):
    found = {row.group: row for row in evaluation.rows if row.metric.level == "pixel"}
    return found["scratch"].metric.value, found["scratch"].images


def test_pixel_figures_do_not_depend_on_how_masks_are_written(tmp_path):
    wanted = pixels_of(evaluate(write_parts(tmp_path / "255")))
    for name, mask in (
        ("1", lambda m: m // 255),
        ("red", lambda m: np.stack([m, m * 0, m * 0], 2)),
    ):
        assert pixels_of(evaluate(write_parts(tmp_path / name, mask))) == wanted
    assert wanted[1] == 3


@pytest.mark.parametrize(
    ("mask", "reason"),
    [
        (lambda m: 255 - m, "as if inverted"),
        (lambda m: np.maximum(m, 1), "stand for the background"),
        (lambda m: m[::2, ::2], "the mask is 24 x 20 pixels, its picture 48 x 40"),
        (lambda m: m * 0, "the mask of a defective picture is empty"),
    ],
)
def test_masks_that_cannot_be_meant_are_left_out_and_named(tmp_path, mask, reason):
    root = write_parts(tmp_path)
    truth = root / "ground_truth/scratch/1_mask.png"
    save(mask(np.array(Image.open(truth))), truth)
    evaluation = evaluate(root)
    (failure,) = evaluation.failures
    assert failure.image == str(truth)
    assert reason in failure.reason
    assert pixels_of(evaluation)[1] == 2
    (images,) = {
        r.images for r in evaluation.rows if r.metric.level == "image" and r.group != "all"
    }
    assert images == 5


def test_thresholds_and_guessed_pairs_are_in_the_results(tmp_path):
    def soft(mask):
        mask[9, 12:24] = np.arange(12) * 20
        return mask

    evaluation = evaluate(write_parts(tmp_path / "data", soft, name="m{}"))
    write_results(evaluation, tmp_path / "out", "winclip")
    results = json.loads((tmp_path / "out/results.json").read_text())
    assert "masks of many grey values: above 127 of 255 counts as defective" in results["notes"]
    assert any("paired by their numbers" in text for text in results["data"]["remarks"])
    assert "paired by their numbers" in (tmp_path / "out/results.md").read_text()


@pytest.mark.parametrize("number", range(3))
def test_a_reference_that_cannot_be_read_is_replaced_and_named(tmp_path, number):
    root = write_parts(tmp_path)
    broken = root / f"train/good/{number}.png"
    broken.write_bytes(b"")
    evaluation = evaluate(root, shots=(2,), seeds=3)
    assert {failure.image for failure in evaluation.failures} <= {str(broken)}
    assert {row.seed for row in evaluation.rows} == {0, 1, 2}
    with pytest.raises(ValueError, match="only 2 good training pictures of 'part' can be read"):
        evaluate(root, shots=(3,))


@pytest.mark.slow
def test_two_data_sets_of_one_name_are_both_written(tmp_path):
    sets = [write_parts(tmp_path / side / "screw") for side in ("left", "right")]
    command = ["evaluate", "--no-cache", "--resolution", "network", "-o", str(tmp_path / "out")]
    named = [word for root in sets for word in ("--data", str(root))]
    result = CliRunner().invoke(app, [*command, *named])
    assert result.exit_code == 0, result.output
    files = sorted((tmp_path / "out").rglob("results.json"))
    names = [json.loads(file.read_text())["data"]["name"] for file in files]
    assert names == ["left/screw", "right/screw"]

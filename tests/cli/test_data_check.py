"""``zerodefect data check``: what it says, and its exit codes."""

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from zerodefect.cli import app


def draw(path, seed=0, size=(6, 8)):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, size, np.uint8)
    Image.fromarray(pixels).save(path)


def draw_mask(path, size=(6, 8), value=255):
    pixels = np.zeros(size, np.uint8)
    pixels[1:3, 1:3] = value
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def nuts(tmp_path):
    root = tmp_path / "metal nut"
    for seed in range(3):
        draw(root / f"train/good/{seed}.png", seed)
    draw(root / "test/good/0.png", 10)
    for seed in range(2):
        draw(root / f"test/crack/{seed}.png", 20 + seed)
        draw_mask(root / f"ground_truth/crack/{seed}_mask.png")
    return root


def run(*arguments):
    return CliRunner().invoke(app, ["data", "check", *map(str, arguments)])


@pytest.mark.parametrize("options", [[], ["--deep"], ["--layout", "mvtec"]])
def test_a_sound_data_set(nuts, options):
    result = run(nuts, *options)
    assert result.exit_code == 0
    assert "layout:    mvtec: it has train/ or test/ folders" in result.stdout
    assert "pictures:  6, 2 with mask" in result.stdout
    assert "sizes:     all 8 x 6 pixels" in result.stdout
    assert "metal nut  test   crack         2          2" in result.stdout
    assert "no problems found" in result.stdout


def test_problems_are_grouped_and_give_exit_code_3(nuts):
    for seed in range(5):
        draw(nuts / f"ground_truth/hole/{seed}.png")
    draw_mask(nuts / "ground_truth/crack/0_mask.png", size=(4, 4))
    result = run(nuts)
    assert result.exit_code == 3
    assert "6 errors, 0 warnings:" in result.stdout
    assert result.stdout.count("there is no folder of pictures for this mask") == 1
    assert "and 2 more (--json lists all)" in result.stdout
    assert "the mask is 4 x 4 pixels, its picture 8 x 6" in result.stdout


@pytest.mark.skipif(sys.platform == "win32", reason="such names cannot be")
def test_names_do_nothing_to_the_terminal(nuts):
    names = ["esc\x1b[31m.png", "new\nline.png", "latin1_\udce9.png"]
    for name in names:
        (nuts / "test/good" / name).write_bytes(b"no picture")
    result = CliRunner().invoke(app, ["data", "check", str(nuts)], color=True)
    assert result.exit_code == 3
    for shown in ("esc\\u001b[31m.png", "new\\nline.png", "latin1_\\udce9.png"):
        assert f"/test/good/{shown}\n" in result.stdout


def test_json_has_everything(nuts):
    (nuts / "test/crack/1.png").write_bytes(b"no picture")
    result = run(nuts, "--json")
    assert result.exit_code == 3
    facts = json.loads(result.stdout)
    assert (facts["layout"], facts["products"], facts["images"]) == ("mvtec", ["metal nut"], 6)
    assert facts["table"][-1] == {
        "product": "metal nut",
        "split": "test",
        "kind": "crack",
        "images": 2,
        "masks": 2,
    }
    assert facts["sizes"] == [{"width": 8, "height": 6, "images": 5}]
    assert len(facts["fingerprint"]) == 64
    (problem,) = facts["problems"]
    assert problem["file"] == str(nuts / "test/crack/1.png")
    assert set(problem) == {"severity", "file", "reason", "remedy"}


def test_masks_are_opened(nuts):
    draw_mask(nuts / "ground_truth/crack/0_mask.png", value=0)
    result = run(nuts)
    assert result.exit_code == 3
    assert "the mask of a defective picture is empty" in result.stdout
    assert "\n1 error, 0 warnings:" in result.stdout


def test_only_deep_opens_pictures(nuts):
    file = nuts / "test/good/0.png"
    file.write_bytes(file.read_bytes()[:-6])
    assert run(nuts).exit_code == 0
    result = run(nuts, "--deep")
    assert result.exit_code == 3
    assert "\n1 error, 0 warnings:" in result.stdout


def test_consequences_are_said(tmp_path):
    draw(tmp_path / "parts/0.png")
    result = run(tmp_path / "parts")
    assert result.exit_code == 0
    assert "no labels: the pictures can be inspected" in result.stdout
    assert "no masks: image metrics only" in result.stdout
    assert "parts    -      (no label)         1          -" in result.stdout


@pytest.mark.slow
def test_unusable_is_exit_code_1_and_shows_the_layouts(tmp_path):
    for arguments in ([tmp_path / "gone"], [tmp_path, "--layout", "coco"]):
        command = [sys.executable, "-m", "zerodefect", "data", "check", *map(str, arguments)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        assert result.returncode == 1
        assert result.stderr.startswith("error: ")
        assert "Traceback" not in result.stderr
    assert "ground_truth/scratch/000_mask.png" in run(tmp_path).exception.remedy

"""``zerodefect pretrain``: a run from the command line, resumed, refused and previewed."""

from __future__ import annotations

import pytest
import torch
from models import picture, write_tiny_weights
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from zerodefect.backbones.weight_files import file_hash
from zerodefect.pretraining import pretrain_clip, pretrain_stem

pytestmark = pytest.mark.usefixtures("same_threads_afterwards")


@pytest.fixture(autouse=True)
def _few_pictures(monkeypatch):
    """On the contact sheet and behind the stem's usual values: how many, no test here asks."""
    monkeypatch.setattr(pretrain_clip, "SHOWN", 2)
    monkeypatch.setattr(pretrain_stem, "USUAL_FROM", 4)


def test_a_run_goes_on_and_another_seed_is_refused(run, tmp_path):
    folder = tmp_path / "a folder"
    options = ("pretrain", "--output", folder, "--threads", 1, "--device", "cpu", "--batch", 2)
    options = (*options, "--first-steps", 1)
    code, out, _ = run(*options, "--steps", 1)
    assert (folder / "first" / "embedded.safetensors").exists()
    assert code == 0 and f"weights: {folder / 'embedded.safetensors'}" in out
    code, _, _ = run(*options, "--steps", 1, "--steps", 2)
    assert code == 0 and (folder / "steps-2" / "samples.png").exists()
    one, two = (load_file(folder / f"steps-{n}" / "embedded.safetensors") for n in (1, 2))
    for name, value in load_file(folder / "embedded.safetensors").items():
        wanted = (one[name].float() + two[name].float()) / 2
        assert torch.equal(value, wanted.half()), name
    code, out, err = run(*options, "--seed", 3)
    assert (code, out) == (1, "")
    assert err.startswith("error: ") and "seed was 0 and is now 3" in err
    assert "another output folder" in err and "Traceback" not in err


def test_the_first_stage_can_be_left_out(run, tmp_path):
    options = ("pretrain", "--output", tmp_path, "--threads", 1, "--device", "cpu", "--batch", 2)
    code, _, err = run(*options, "--onto", tmp_path / "none.safetensors")
    assert code == 1 and "none.safetensors: no such file" in err
    code, _, _ = run(*options, "--onto", "embedded", "--steps", 1)
    assert code == 0 and not (tmp_path / "first").exists()
    weights = tmp_path / "embedded.safetensors"
    assert weights.exists()

    (tmp_path / "mine").mkdir()
    for seed in range(2):
        Image.fromarray(picture(seed)).save(tmp_path / "mine" / f"{seed}.png")
    own = ("--good", tmp_path / "mine", "--onto", weights, "--steps", 1)
    code, out, _ = run(*options[:1], "--output", tmp_path / "own", *options[3:], *own)
    adapted = tmp_path / "own" / "embedded.safetensors"
    assert code == 0 and "mine: 2 pictures" in out and f"weights: {adapted}" in out
    with safe_open(adapted, "pt") as stored:
        assert stored.metadata()["base"] == file_hash(weights)
    code, out, _ = run("inspect", tmp_path / "mine", "--backbone", adapted, "-o", tmp_path / "run")
    assert code == 0


def test_adapting_has_no_first_stage_and_needs_a_tower_on_a_stem(run, tmp_path):
    for more in (("--preview",), ("--first-steps", 3)):
        code, _, err = run("pretrain", "--good", tmp_path, "--output", tmp_path / "new", *more)
        assert code == 1 and f"leave {more[0]} out" in err
    code, _, err = run("pretrain", "--good", tmp_path, "--steps", 1, "--steps", 2)
    assert code == 1 and "give --steps once" in err
    weights = write_tiny_weights(tmp_path)
    told = ("pretrain", "--good", tmp_path, "--onto", weights, "--output", tmp_path / "new")
    code, _, err = run(*told)
    assert code == 1 and "tiny.safetensors: its image tower sees pixels" in err
    assert not (tmp_path / "new").exists()


def test_preview_writes_a_sheet_and_trains_nothing(run, tmp_path):
    code, out, _ = run("pretrain", "--preview", "--output", tmp_path / "new")
    assert code == 0 and "contact sheet" in out
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["preview.png"]
    with Image.open(tmp_path / "new" / "preview.png") as sheet:
        assert sheet.size == (8 * 2 * 128, 8 * 128)


def test_a_device_that_is_not_there_is_an_error(run, tmp_path):
    code, _, err = run("pretrain", "--device", "nowhere", "--output", tmp_path)
    assert code == 1 and err.startswith("error: device 'nowhere' cannot be used")

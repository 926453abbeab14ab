"""The third stage: the tower on the stem goes on learning from a plant's own good pictures."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from models import picture
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from test_pretrain_clip import CONFIG, log_of
from test_pretrain_stem import config_onto

from zerodefect.backbones.clip_weights import load_clip
from zerodefect.backbones.weight_files import WeightsError, file_hash
from zerodefect.images import ImageError
from zerodefect.pretraining.adapt_to_pictures import AdaptConfig, adapt_config
from zerodefect.pretraining.pretrain_clip import CHECKPOINT, SAMPLES, pretrain
from zerodefect.procedural import ProceduralBatch
from zerodefect.training.run_state import TrainingError

pytestmark = pytest.mark.usefixtures("same_threads_afterwards")


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pretrain(replace(CONFIG, steps=2), tmp_path_factory.mktemp("first"))


@pytest.fixture(scope="module")
def base(first: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model as the second stage leaves it, recommending what no other does."""
    weights = pretrain(config_onto(first, steps=1), tmp_path_factory.mktemp("second"))
    told = json.loads(weights.with_suffix(".json").read_text())
    told |= {"recommended_method": "winclip", "recommended": {"winclip": {"scales": [1]}}}
    weights.with_suffix(".json").write_text(json.dumps(told))
    return weights


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("good")
    for number in range(3):
        Image.fromarray(picture(number)).save(folder / f"{number}.png")
    return folder


def config_of(good: Path, base: Path, **changed) -> AdaptConfig:
    few = {"steps": 4, "batch": 8, "windows": 2, "threads": 1, "sides": (4, 8), "workers": 0}
    usual = {**few, "checkpoint_every": 2, "log_every": 1, "warm_up": 1}
    return adapt_config(good, str(base), **{**usual, **changed})


@pytest.fixture(scope="module")
def finished(good: Path, base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("third")
    pretrain(config_of(good, base), folder)
    return folder


def test_of_the_model_the_tower_on_the_stem_alone_learns(base: Path, finished: Path) -> None:
    before, after = load_file(base), load_file(finished / "embedded.safetensors")
    assert before.keys() == after.keys()
    bits = torch.int16  # of float16: a zero that changed its sign would have to travel, too
    differing = {n for n in before if not torch.equal(before[n].view(bits), after[n].view(bits))}
    assert "visual.proj" in differing
    assert any(name.startswith("visual.stem.project.") for name in differing)
    assert all(n.startswith("visual.") and ".eyes." not in n for n in differing)


def test_it_is_used_as_what_it_came_from(base: Path, finished: Path) -> None:
    weights = finished / "embedded.safetensors"
    loaded, former = load_clip(str(weights)), load_clip(str(base))
    assert loaded.recommended == former.recommended == {"winclip": {"scales": [1]}}
    assert (loaded.licence, loaded.clip.config) == (former.licence, former.clip.config)
    with safe_open(weights, "pt") as stored:
        assert stored.metadata()["base"] == file_hash(base)


def test_what_is_adapted_twice_still_says_what_it_came_from_at_first(
    base: Path, good: Path, finished: Path, tmp_path: Path
) -> None:
    once = finished / "embedded.safetensors"
    with safe_open(pretrain(config_of(good, once, steps=1), tmp_path), "pt") as stored:
        assert stored.metadata()["base"] == file_hash(base)


def test_a_run_that_was_stopped_ends_with_the_same_weights(
    good: Path, base: Path, finished: Path, tmp_path: Path
) -> None:
    elsewhere = shutil.copytree(good, tmp_path / "moved")
    pretrain(config_of(good, base), tmp_path / "run", until=3)
    pretrain(config_of(elsewhere, base), tmp_path / "run")
    assert log_of(tmp_path / "run") == log_of(finished)
    ours, theirs = (load_file(run / CHECKPOINT) for run in (tmp_path / "run", finished))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_a_run_does_not_go_on_with_other_pictures(good: Path, base: Path, tmp_path: Path) -> None:
    run, changed = tmp_path / "run", shutil.copytree(good, tmp_path / "changed")
    pretrain(config_of(good, base), run, until=1)
    Image.fromarray(picture(9)).save(changed / "0.png")
    with pytest.raises(TrainingError, match="good was '3 pictures"):
        pretrain(config_of(changed, base), run)


def rows_of(batch: ProceduralBatch) -> Iterator[tuple[torch.Tensor, torch.Tensor, int]]:
    yield from zip(batch.images, batch.kind_map, batch.kinds.tolist(), strict=True)


def test_half_of_the_own_pictures_of_a_step_are_damaged_where_the_truth_says(
    good: Path, base: Path
) -> None:
    config = config_of(good, base, procedural=0.0)
    own = config.shown().images[0::2]
    for step in range(4):
        batch = config.draw(step)
        assert len(batch.images) == config.batch
        assert int((batch.kinds < 0).sum()) == config.batch // 2
        for image, kind_map, kind in rows_of(batch):
            nearest = own[(own - image).abs().flatten(1).mean(1).argmin()]
            assert set(kind_map.unique().tolist()) <= {0, kind + 1}
            changed = (image != nearest).any(0)
            assert bool(changed.any()) == (kind >= 0)
            assert kind < 0 or bool(changed[kind_map > 0].any())


def test_every_picture_takes_its_turn(good: Path, base: Path) -> None:
    """Four good ones a step: three steps show each of three pictures four times."""
    config = config_of(good, base, procedural=0.0)
    own = config.shown().images[0::2]
    counts = [0, 0, 0]
    for step in range(3):
        for image, _, kind in rows_of(config.draw(step)):
            if kind < 0:
                counts[[torch.equal(image, one) for one in own].index(True)] += 1
    assert counts == [4, 4, 4]


def test_place_in_the_batch_tells_nothing_of_the_state(good: Path, base: Path) -> None:
    """Product names go by place, and every fourth picture is judged through windows."""
    config = config_of(good, base)
    states = np.stack([(config.draw(step).kinds >= 0).numpy() for step in range(12)])
    assert states.any(0).all()
    assert not states.all(0).any()


def test_procedural_pictures_are_those_of_no_other_step(good: Path, base: Path) -> None:
    config = config_of(good, base, procedural=1.0)
    pictures = [image for step in range(3) for image in config.draw(step).images]
    procedural = {image.numpy().tobytes() for image in pictures}
    assert len(pictures) == 3 * config.batch
    assert len(procedural) >= 3 * (config.batch - 2)  # a pair of own ones is always among them


def test_the_sheet_shows_own_pictures(finished: Path, good: Path, base: Path) -> None:
    with Image.open(finished / SAMPLES) as sheet:
        drawn = np.asarray(sheet.convert("RGB"))[:64, :64]
    shown = config_of(good, base).shown().images[0].permute(1, 2, 0).numpy()
    assert np.abs(drawn / 255 - shown).max() < 0.01


def test_sixteen_bit_pictures_are_read_as_their_camera_meant(base: Path, tmp_path: Path) -> None:
    values = np.full((40, 40), 1000, np.uint16)
    values[:20] = 4000  # of 4,095: 12 bits
    Image.fromarray(values).save(tmp_path / "a.png")
    config = config_of(tmp_path, base)
    assert config.bit_depth == 12
    shown = config.shown().images[0]
    assert shown[:, 10, 10].tolist() == pytest.approx([4000 / 4095] * 3, abs=0.01)
    assert shown[:, -10, 10].tolist() == pytest.approx([1000 / 4095] * 3, abs=0.01)


def test_weights_without_a_stem_are_refused(first: Path, good: Path) -> None:
    with pytest.raises(WeightsError, match=r"sees pixels.*--onto FILE"):
        adapt_config(good, str(first))


def test_a_folder_without_pictures_and_a_broken_one_are_refused(base: Path, tmp_path: Path) -> None:
    with pytest.raises(ImageError):
        adapt_config(tmp_path, str(base))
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(ImageError, match=r"broken\.png"):
        adapt_config(tmp_path, str(base))

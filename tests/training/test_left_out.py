"""What a run leaves out: one bad file costs itself alone, and the journal says so."""

from __future__ import annotations

import json

import pytest
from models import tiny_backbone
from PIL import Image
from toy_method import Toy, registered, write_parts

from zerodefect.data import load_dataset
from zerodefect.training.batches import Steps, shards
from zerodefect.training.engine import Settings, fit
from zerodefect.training.examples import Examples, Pictures
from zerodefect.training.journal import LOG, Journal
from zerodefect.training.run_state import TrainingError


@pytest.fixture(autouse=True)
def _toy(monkeypatch):
    monkeypatch.setattr(Journal, "draw", lambda journal: True)  # slow; test_journal.py tests it
    with registered():
        yield


def run(found, folder, epochs=1):
    fit(Toy.build(tiny_backbone()), found, folder, Settings({"epochs": epochs}, log_every=1))
    lines = map(json.loads, (folder / LOG).read_text().splitlines())
    return [text for line in lines for text in line.get("remarks", ())]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_picture_that_cannot_be_read_costs_itself_alone(tmp_path, workers):
    root = write_parts(tmp_path, count=2)
    found = Examples([Pictures(load_dataset(root))])
    broken = root / "p" / "test" / "spot" / "0.png"
    broken.write_bytes(b"none")
    recipe = Toy.recipe.changed(batch_size=4, epochs=1, seed=0)
    steps = Steps(found, Toy.build(tiny_backbone()).inputs, recipe)
    (shard,) = shards(steps, 0, 1, workers)
    assert [failure.image for failure in shard.failures.values()] == [str(broken)]
    assert (len(shard.labels), shard.share, shard.whole) == (3, 0.75, 4)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("test/good/0.png", b""),
        ("test/spot/1.png", b"none"),
        ("ground_truth/spot/0_mask.png", b"none"),
        ("ground_truth/spot/1_mask.png", "half"),
        ("ground_truth/spot/1_mask.png", "black"),
    ],
)
def test_a_run_goes_on_without_what_cannot_be_used_and_says_so(tmp_path, file, content):
    root = write_parts(tmp_path / "data", count=3)
    found = Examples([Pictures(load_dataset(root))])
    path = root / "p" / file
    if isinstance(content, str):
        with Image.open(path) as image:
            size = (image.width // 2, image.height // 2) if content == "half" else image.size
        Image.new("L", size, 255 if content == "half" else 0).save(path)
    else:
        path.write_bytes(content)
    remarks = run(found, tmp_path / "run", epochs=2)
    assert run(found, tmp_path / "run", epochs=2) == remarks  # the finished run tells it once
    assert len(remarks) == 1
    assert remarks[0].startswith(f"left out: {path}: ")


def test_remarks_on_the_data_are_in_the_journal(tmp_path):
    root = write_parts(tmp_path / "data", count=2)
    for number in range(2):
        file = root / "p" / "ground_truth" / "spot" / f"{number}_mask.png"
        file.rename(file.with_name(f"m{number}.png"))
    remarks = run(Examples([Pictures(load_dataset(root))]), tmp_path / "run")
    assert any("paired by their numbers" in text for text in remarks)


def test_a_run_of_which_most_cannot_be_read_stops(tmp_path):
    root = write_parts(tmp_path / "data", count=2)
    found = Examples([Pictures(load_dataset(root))])
    for file in (root / "p" / "test").rglob("*.png"):
        file.write_bytes(b"none")
    with pytest.raises(TrainingError, match="4 of 4 pictures to learn from cannot be used"):
        run(found, tmp_path / "run")


def test_a_run_without_any_usable_mask_stops(tmp_path):
    root = write_parts(tmp_path / "data", count=3)
    found = Examples([Pictures(load_dataset(root))])
    for file in (root / "p" / "ground_truth").rglob("*.png"):
        Image.new("L", (24, 20), 255).save(file)
    with pytest.raises(TrainingError, match=r"3 of 6 .* the mask is 24 x 20 pixels"):
        run(found, tmp_path / "run")


def test_other_good_pictures_stand_in_for_references_that_cannot_be_read(tmp_path):
    root = write_parts(tmp_path / "data", count=3)
    found = Examples([Pictures(load_dataset(root))])
    for number in range(2):
        (root / "p" / "test" / "good" / f"{number}.png").write_bytes(b"none")
    recipe = Toy.recipe.changed(batch_size=6, epochs=1, seed=0, references=2)
    shard = Steps(found, Toy.build(tiny_backbone()).inputs, recipe)[0]
    # the last good picture is nobody's but its own reference, so it has none and is left out, too
    assert len(shard.failures) == 3
    assert shard.references["image"].shape[:2] == (3, 2)
    first = shard.references["image"][0, 0]
    assert all(bool((one == first).all()) for pair in shard.references["image"] for one in pair)

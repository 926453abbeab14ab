"""What methods that learn to compare are shown beside each picture."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from models import write_tiny_weights
from toy_method import write_parts
from typer.testing import CliRunner

from zerodefect.cli import app
from zerodefect.data import DatasetError, load_dataset
from zerodefect.detector.recipes import FEW
from zerodefect.training.batches import seeded
from zerodefect.training.examples import Examples, Pictures, Procedural
from zerodefect.training.journal import Journal


@pytest.fixture
def parts(tmp_path) -> Path:
    return write_parts(tmp_path / "parts", products=("p", "q"))


def compared(root: Path, **how) -> Examples:
    return Examples([Pictures(load_dataset(root), compared=True, **how)])


def drawn(found: Examples, index: int, count: int = 40) -> list[int]:
    return found.references(index, count, seeded(1, index))


def file_of(found: Examples, index: int) -> Path:
    return found.files()[index]


def test_the_training_split_is_compared_with_and_not_learned_from(parts):
    found, plain = compared(parts), Examples([Pictures(load_dataset(parts))])
    assert len(found) == len(plain) == 20
    assert [found.label(i) for i in range(20)] == [plain.label(i) for i in range(20)]
    assert found.facts()[0]["good"] == plain.facts()[0]["good"] == 10
    assert found.facts()[0]["fingerprint"] != plain.facts()[0]["fingerprint"]
    for index in range(20):
        shown = {file_of(found, i) for i in drawn(found, index)}
        product = file_of(found, index).relative_to(parts).parts[0]
        assert shown == set((parts / product / "train" / "good").iterdir())
        assert not any(found.read(i).anomalous for i in drawn(found, index, 3))


@pytest.mark.parametrize("missing", [True, False])
def test_without_a_training_split_or_with_it_learned_from_the_others_stand_beside(parts, missing):
    if missing:
        for product in "pq":
            shutil.rmtree(parts / product / "train")
    found = compared(parts, train_good=not missing)
    for index in range(len(found)):
        shown = drawn(found, index)
        assert index not in shown and max(shown) < len(found)
        assert not any(found.label(i)[2] for i in shown)
        assert len({found.label(i)[1] for i in [index, *shown]}) == 1


def test_one_good_test_picture_is_enough_where_there_are_good_ones_to_compare_with(parts):
    for number in range(1, 5):
        (parts / "p" / "test" / "good" / f"{number}.png").unlink()
    compared(parts).check_references()
    with pytest.raises(DatasetError, match="'p' has fewer than two good pictures to compare"):
        Examples([Pictures(load_dataset(parts))]).check_references()


@pytest.mark.parametrize("good_only", [False, True])
def test_drawn_products_come_several_times_and_twice_without_damage(good_only):
    source = Procedural(50, 3, 16, good_only=good_only, compared=True)
    found = Examples([source])
    assert 50 <= len(found) < 58
    found.check_references()
    products = {found.label(i)[1] for i in range(len(found))}
    assert len(products) <= 50 / (2 if good_only else 8) + 1
    assert good_only != any(found.label(i)[2] for i in range(len(found)))
    assert len({found.read(i).object for i in found.partners(0)}) == 1
    assert source.fingerprint() != Procedural(len(found), 3, 16, good_only=good_only).fingerprint()


def test_drawn_pictures_of_other_methods_stay_what_they_were():
    source = Procedural(20, 0, 16)
    assert source.numbers == list(range(20))
    assert len({source.label(i)[0] for i in range(20)}) == 20


@pytest.mark.slow
def test_a_few_defects_of_ones_own_product_with_one_command(parts, tmp_path, monkeypatch):
    """And every picture whose references cannot be read is named, not passed over in silence."""
    monkeypatch.setattr(Journal, "draw", lambda journal: True)
    weights = write_tiny_weights(tmp_path)
    command = ["train", "adaptclip", "--data", f"mine={parts}", "--few", "--epochs", "2"]
    command += ["--backbone", str(weights), "--device", "cpu", "--set", "hidden=8"]
    done = CliRunner().invoke(app, [*command, "--output", str(tmp_path / "run")])
    assert done.exit_code == 0, (done.output, done.exception)
    card = json.loads((tmp_path / "run" / "adaptclip.json").read_text())
    recipe = card["origin"]["recipe"]
    assert (recipe["epochs"], recipe["augment"]) == (2, FEW["augment"])
    assert recipe["references"] == 1
    for file in parts.glob("*/train/good/*"):
        file.write_bytes(b"none")
    done = CliRunner().invoke(app, [*command, "--output", str(tmp_path / "other")])
    assert "pictures to learn from cannot be used" in f"{done.output} {done.exception}"

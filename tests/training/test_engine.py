"""The engine: deterministic, resumable to the bit, the same in several processes."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import toy_method
from models import backbone_of, tiny_backbone, tiny_state, write_tiny_weights
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from toy_method import Toy, read_steps, registered, write_parts
from typer.testing import CliRunner

from zerodefect.cli import app
from zerodefect.data import DatasetError, load_dataset
from zerodefect.detector.checkpoint_file import load_checkpoint
from zerodefect.detector.recipes import Recipe
from zerodefect.training.batches import Steps, seeded
from zerodefect.training.engine import Settings, fit
from zerodefect.training.examples import Examples, Pictures, Procedural, check_apart
from zerodefect.training.journal import Journal
from zerodefect.training.optimizers import check_learners, optimizer_of, rate_factor
from zerodefect.training.run_state import STATE, TrainingError


class StopError(Exception):
    """The run is cut off here."""


@pytest.fixture(autouse=True)
def _toy(monkeypatch):
    monkeypatch.setattr(Journal, "draw", lambda journal: True)  # slow; test_journal.py tests it
    with registered():
        yield


@pytest.fixture(scope="module")
def parts(tmp_path_factory) -> Path:
    return write_parts(tmp_path_factory.mktemp("parts"))


def examples(parts: Path) -> Examples:
    return Examples([Pictures(load_dataset(parts))])


def toy(**options) -> Toy:
    return Toy.build(tiny_backbone(), **options)


def settings(**changes) -> Settings:
    recipe = {k: changes.pop(k) for k in list(changes) if k in Recipe.__dataclass_fields__}
    Toy.recipe.changed(**recipe)  # refused as it is when the run begins
    return Settings(recipe, **{"log_every": 1, **changes})


def steps_of(found: Examples, batch_size: int, mosaic: float = 0.0, **changes) -> Steps:
    recipe = Toy.recipe.changed(batch_size=batch_size, **{"epochs": 1, "seed": 0, **changes})
    return Steps(found, toy().inputs, recipe, mosaic)


def values(folder: Path) -> bytes:
    return (folder / "toy.safetensors").read_bytes()


# --- what is learned -----------------------------------------------------------------------------


def test_the_loss_falls_and_the_result_finds_defects(parts, tmp_path):
    detector = toy()
    before = {n: p.detach().clone() for n, p in detector.learned.items()}
    made = fit(detector, examples(parts), tmp_path, settings(epochs=20))
    losses = [line["loss"] for line in read_steps(tmp_path)]
    assert losses[-1] < 0.5 * losses[0]
    assert not torch.equal(before["first"], detector.first)
    assert torch.equal(before["unused"], detector.unused)  # no gradient, so no weight decay either
    shard = steps_of(examples(parts), 10)[0]
    score = detector(shard.images["image"]).score
    assert score[shard.labels == 1].min() > score[shard.labels == 0].max()
    assert made.sha256 == detector.checkpoint == detector.facts()["checkpoint"]
    assert not detector.training


def test_loss_terms_add_up_in_the_journal(parts, tmp_path):
    fit(toy(), examples(parts), tmp_path, settings(epochs=1))
    for line in read_steps(tmp_path):
        assert line["loss"] == pytest.approx(line["loss/pixel"] + line["loss/image"])
        assert line["learning_rate"] == 0.02
        assert line["gradient_norm"] > 0


def test_same_seed_same_bytes_other_seed_other_bytes(parts, tmp_path):
    for name, changes in (("a", {}), ("b", {}), ("c", {"seed": 6})):
        fit(toy(dropout=0.3), examples(parts), tmp_path / name, settings(augment="vcp", **changes))
    assert values(tmp_path / "a") == values(tmp_path / "b")
    assert values(tmp_path / "a") != values(tmp_path / "c")
    assert read_steps(tmp_path / "a") == read_steps(tmp_path / "b")
    cards = [(tmp_path / name / "toy.json").read_bytes() for name in "ab"]
    assert cards[0] == cards[1]


def test_workers_change_nothing(parts, tmp_path):
    fit(toy(), examples(parts), tmp_path / "none", settings(epochs=1, mosaic=0.5))
    fit(toy(), examples(parts), tmp_path / "one", settings(epochs=1, mosaic=0.5, workers=1))
    assert values(tmp_path / "none") == values(tmp_path / "one")


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_stopped_after_any_step_it_ends_with_the_same_bytes(parts, tmp_path, optimizer):
    chosen = settings(
        optimizer=optimizer, schedule="cosine", warm_up=2, clip_norm=0.1, state_steps=2, log_every=3
    )
    fit(toy(dropout=0.3), examples(parts), tmp_path / "whole", chosen)

    for stop in (1, 4, 5, 9):
        folder = tmp_path / str(stop)

        def on_step(progress, stop=stop):
            if progress.step == stop:
                raise StopError

        with pytest.raises(StopError):
            fit(toy(dropout=0.3), examples(parts), folder, chosen, on_step=on_step)
        fit(toy(dropout=0.3), examples(parts), folder, chosen)
        assert values(folder) == values(tmp_path / "whole")
        assert read_steps(folder) == read_steps(tmp_path / "whole")


def test_a_finished_run_is_not_trained_again(parts, tmp_path):
    fit(toy(), examples(parts), tmp_path, settings())
    first = values(tmp_path)
    (tmp_path / "toy.safetensors").unlink()
    seen = []
    fit(toy(), examples(parts), tmp_path, settings(), on_step=seen.append)
    assert not seen
    assert values(tmp_path) == first


def test_max_steps_ends_the_run_and_its_schedule(parts, tmp_path):
    fit(toy(), examples(parts), tmp_path, settings(max_steps=4, schedule="cosine"))
    rates = [line["learning_rate"] for line in read_steps(tmp_path)]
    assert rates == pytest.approx(
        [
            0.02 * rate_factor(dataclasses.replace(Toy.recipe, schedule="cosine"), step, 4)
            for step in range(4)
        ]
    )
    assert len(rates) == 4


def test_another_run_in_the_folder_is_refused_and_both_sides_named(parts, tmp_path):
    fit(toy(), examples(parts), tmp_path, settings())
    with pytest.raises(TrainingError, match=r"recipe\.seed was 5 and is now 6"):
        fit(toy(), examples(parts), tmp_path, settings(seed=6))
    with pytest.raises(TrainingError, match=r"config\.hidden was 8 and is now 4"):
        fit(toy(hidden=4), examples(parts), tmp_path, settings())
    other = Toy.build(tiny_backbone(seed=1))
    with pytest.raises(TrainingError, match="weights was"):
        fit(other, examples(parts), tmp_path, settings())


def test_a_run_does_not_go_on_with_another_activation(parts, tmp_path):
    fit(toy(), examples(parts), tmp_path, settings(max_steps=2))
    same_weights = backbone_of(tiny_state(), tiny_backbone().fingerprint, "quick_gelu")
    with pytest.raises(TrainingError, match="activation was 'gelu' and is now 'quick_gelu'"):
        fit(Toy.build(same_weights), examples(parts), tmp_path, settings(max_steps=2))
    # states from before the activation was written down are not checked for it
    with safe_open(tmp_path / STATE, "pt") as stored:
        facts = stored.metadata()
    identity = json.loads(facts["identity"])
    del identity["activation"]
    tensors = load_file(tmp_path / STATE)
    save_file(tensors, tmp_path / STATE, {**facts, "identity": json.dumps(identity)})
    fit(Toy.build(same_weights), examples(parts), tmp_path, settings(max_steps=2))


def test_a_broken_state_says_what_to_do(parts, tmp_path):
    fit(toy(), examples(parts), tmp_path, settings())
    (tmp_path / STATE).write_bytes(b"nothing")
    with pytest.raises(TrainingError, match="delete it to begin the run again"):
        fit(toy(), examples(parts), tmp_path, settings())


def test_a_second_process_is_kept_out(parts, tmp_path):
    def on_step(progress):
        with pytest.raises(TrainingError, match="another process trains there"):
            fit(toy(), examples(parts), tmp_path, settings())

    fit(toy(), examples(parts), tmp_path, settings(max_steps=1), on_step=on_step)


def test_a_loss_that_is_not_finite_stops_the_run(parts, tmp_path):
    detector = toy()
    with torch.no_grad():
        detector.second.fill_(float("inf"))
    with pytest.raises(TrainingError, match="step 1: not finite"):
        fit(detector, examples(parts), tmp_path, settings())


def test_bfloat16_keeps_learned_values_in_float32(parts, tmp_path):
    detector = toy()
    fit(detector, examples(parts), tmp_path, settings(precision="bfloat16"))
    assert detector.first.dtype == torch.float32
    fit(toy(), examples(parts), tmp_path / "full", settings())
    full = load_file(tmp_path / "full" / "toy.safetensors")
    torch.testing.assert_close(detector.first.detach(), full["first"], atol=0.02, rtol=0)
    assert not torch.equal(detector.first, full["first"])


def test_settings_that_make_no_sense_are_refused():
    for wrong in (
        {"epochs": 0}, {"batch_size": 0}, {"learning_rate": 0.0}, {"max_steps": 0},
        {"precision": "float16"}, {"mosaic": 1.5}, {"learning_rate": float("nan")},
    ):  # fmt: skip
        with pytest.raises(ValueError):
            settings(**wrong)


def test_groups_must_hold_each_learned_value_once():
    class Forgetful(Toy):
        def parameter_groups(self, recipe):
            return [{"params": [self.first]}]

    class TwoRates(Toy):
        def parameter_groups(self, recipe):
            return [
                {"params": [self.first, self.unused]},
                {"params": [self.second], "lr": 0.5, "weight_decay": 0.0},
            ]

    class Twice(Toy):
        def parameter_groups(self, recipe):
            return [*super().parameter_groups(recipe), {"params": [self.first]}]

    for wrong, reason in ((Forgetful, "is in none of its groups"), (Twice, "hold a value twice")):
        detector = wrong.build(tiny_backbone())
        with pytest.raises(ValueError, match=reason):
            check_learners(detector, detector.stages())
    detector = TwoRates.build(tiny_backbone())
    (stage,) = detector.stages()
    check_learners(detector, [stage])
    groups = optimizer_of(stage.learners[0], stage.recipe).param_groups
    assert [(g["lr"], g["weight_decay"]) for g in groups] == [(0.02, 0.01), (0.5, 0.0)]


def test_rates_of_a_schedule():
    recipe = dataclasses.replace(Toy.recipe, schedule="cosine", warm_up=4)
    found = [rate_factor(recipe, step, 12) for step in range(12)]
    assert found[:4] == [0.25, 0.5, 0.75, 1.0]
    assert found[4] == 1.0
    assert found[8] == pytest.approx(0.5)
    assert 0 < found[11] < 0.05
    assert rate_factor(Toy.recipe, 7, 12) == 1.0
    stepped = dataclasses.replace(Toy.recipe, schedule="steps")
    found = [rate_factor(stepped, step, 20) for step in (0, 15, 16, 17, 18, 19)]
    assert found == pytest.approx([1, 1, 0.2, 0.2, 0.04, 0.04])
    halved = dataclasses.replace(Toy.recipe, schedule="halves")
    found = [rate_factor(halved, step, 50_000) for step in (0, 15_999, 16_000, 31_999, 32_000)]
    assert found == [1, 1, 0.5, 0.5, 0.25]


# --- validation ----------------------------------------------------------------------------------


def test_validation_is_measured_once_an_epoch_also_after_a_stop(parts, tmp_path):
    calls = []

    def validate(detector):
        assert not detector.training
        calls.append(None)
        if len(calls) == 2:
            raise KeyboardInterrupt  # in the middle of measuring
        return {"auroc": 0.5}

    with pytest.raises(KeyboardInterrupt):
        fit(toy(), examples(parts), tmp_path, settings(), validate=validate)
    fit(toy(), examples(parts), tmp_path, settings(), validate=validate)
    lines = [line for line in read_steps(tmp_path) if "validation" in line]
    assert [(line["step"], line["epoch"]) for line in lines] == [(3, 1), (6, 2), (9, 3)]
    assert len(calls) == 4
    fit(toy(), examples(parts), tmp_path / "without", settings())
    assert values(tmp_path) == values(tmp_path / "without")


def test_no_target_picture_is_learned_from(parts, tmp_path):
    sources = [Pictures(load_dataset(parts))]
    copied = write_parts(tmp_path / "copied", count=1, seed=3)
    check_apart(sources, load_dataset(copied))
    one = next((parts / "p" / "test" / "spot").iterdir())
    (copied / "p" / "test" / "good" / "renamed.png").write_bytes(one.read_bytes())
    with pytest.raises(DatasetError, match="is also a training picture"):
        check_apart(sources, load_dataset(copied))
    with pytest.raises(DatasetError, match="is also a training picture"):
        check_apart(sources, load_dataset(parts))


# --- what a batch is -----------------------------------------------------------------------------


def test_every_example_once_an_epoch_in_another_order(parts):
    steps = steps_of(examples(parts), 4, epochs=2, seed=1)
    assert (steps.per_epoch, len(steps)) == (3, 6)
    first = [i for step in range(3) for i in steps.indices(step)]
    second = [i for step in range(3, 6) for i in steps.indices(step)]
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second
    assert [len(steps.indices(step)) for step in range(3)] == [4, 4, 2]


def test_shards_of_processes_make_up_the_batch(parts):
    whole = steps_of(examples(parts), 4, 0.5, seed=1, augment="vcp")
    for count in (2, 3):
        split = [dataclasses.replace(whole, rank=r, processes=count) for r in range(count)]
        for step in range(3):
            made = [part[step] for part in split]
            assert torch.equal(
                torch.cat([m.images["image"] for m in made]), whole[step].images["image"]
            )
            assert torch.equal(torch.cat([m.masks for m in made]), whole[step].masks)
            assert sum(m.share for m in made) == pytest.approx(1)
            assert sum((m.objects for m in made), ()) == whole[step].objects


def test_images_are_prepared_as_for_inspection_and_masks_beside_them(parts):
    detector = toy()
    source = Pictures(load_dataset(parts))
    steps = steps_of(Examples([source]), 10)
    shard, order = steps[0], steps.indices(0)
    for row, index in enumerate(order):
        example = source.read(index)
        assert torch.equal(shard.images["image"][row], detector.preprocess(example.picture))
        assert bool(shard.masks[row].any()) == example.anomalous == bool(shard.labels[row])
    assert shard.masks.dtype == torch.float32
    assert set(shard.masks.unique().tolist()) == {0.0, 1.0}
    assert set(shard.objects) == {"p"}


def test_mosaics_show_four_pictures_of_the_product(tmp_path):
    root = write_parts(tmp_path, count=3, products=("a", "b"))
    found = Examples([Pictures(load_dataset(root))])
    plain = steps_of(found, 12)[0]
    mosaics = steps_of(found, 12, 1.0)[0]
    assert mosaics.objects == plain.objects
    assert bool((mosaics.labels == mosaics.masks.flatten(1).any(1)).all())
    damaged = steps_of(found, 12, 1.0, augment="vcp")[0]
    assert bool(damaged.labels.eq(1).all())


def test_sources_learn_from_the_test_split_and_train_good_on_request(parts):
    dataset = load_dataset(parts)
    assert len(Pictures(dataset)) == 10
    more = Pictures(dataset, train_good=True)
    assert len(more) == 12
    assert more.facts()["good"] == 7
    assert more.facts()["anomalous"] == 5
    assert more.fingerprint() != Pictures(dataset).fingerprint()
    named = Pictures(dataset, {"p": "steel plate"})
    assert named.read(0).object == "steel plate"
    assert named.fingerprint() != Pictures(dataset).fingerprint()


def test_defective_pictures_without_masks_are_left_out_and_none_at_all_is_an_error(tmp_path):
    root = write_parts(tmp_path, count=2)
    (root / "p" / "ground_truth" / "spot" / "1_mask.png").unlink()
    found = Pictures(load_dataset(root))
    assert (len(found), found.left_out) == (3, 1)
    (root / "p" / "ground_truth" / "spot" / "0_mask.png").unlink()
    with pytest.raises(DatasetError, match="no defective pictures with masks"):
        Pictures(load_dataset(root))


def test_procedural_pictures_are_numbered_and_good_ones_are_good():
    mixed, good = Procedural(12, 0, 30), Procedural(4, 0, 30, good_only=True)
    assert mixed.size == 32
    labels = [mixed.read(i).anomalous for i in range(12)]
    assert 0 < sum(labels) < 12
    assert all(not wrong or mixed.label(i)[1] for i, wrong in enumerate(labels))
    assert len(good) == 4
    assert not any(good.read(i).anomalous for i in range(4))
    again = Procedural(12, 0, 30).read(7)
    assert (again.picture.pixels == mixed.read(7).picture.pixels).all()
    assert again.object and mixed.fingerprint() != Procedural(12, 1, 30).fingerprint()


def test_generators_depend_on_their_numbers_alone():
    assert seeded(1, 2).initial_seed() == seeded(1, 2).initial_seed()
    assert len({seeded(a, b).initial_seed() for a in range(8) for b in range(8)}) == 64


# --- real processes ------------------------------------------------------------------------------


def command(parts: Path, weights: Path, output: Path, *more: str) -> list[str]:
    return [
        "train", "toy", "--data", f"parts={parts}", "--backbone", str(weights),
        "--output", str(output), "--device", "cpu", "--set", "dropout=0.3", *more,
    ]  # fmt: skip


def here(arguments: list[str]) -> None:
    """Run the command in this process, which has PyTorch loaded already."""
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@pytest.mark.killing
def test_killed_in_mid_epoch_and_started_again_it_ends_with_the_same_bytes(parts, tmp_path):
    weights = write_tiny_weights(tmp_path)
    more = ("--epochs", "40", "--save-every", "1")
    cut = command(parts, weights, tmp_path / "cut", *more)
    program = [sys.executable, toy_method.__file__]
    with subprocess.Popen(
        [*program, *cut], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment()
    ) as running:
        state = tmp_path / "cut" / STATE
        while not state.exists() and running.poll() is None:
            time.sleep(0.005)
        running.send_signal(signal.SIGKILL)
        running.wait()
    assert running.returncode == -signal.SIGKILL
    assert not (tmp_path / "cut" / "toy.safetensors").exists()
    here(cut)
    here(command(parts, weights, tmp_path / "whole", *more))
    assert values(tmp_path / "cut") == values(tmp_path / "whole")
    lines = read_steps(tmp_path / "cut")
    assert lines == read_steps(tmp_path / "whole")
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulators.EventAccumulator(str(tmp_path / "cut"))
    events.Reload()
    assert [event.step for event in events.Scalars("loss")] == [line["step"] for line in lines]


@pytest.mark.killing
def test_two_processes_learn_what_one_learns(parts, tmp_path):
    pytest.importorskip("accelerate")
    weights = write_tiny_weights(tmp_path)
    more = (
        "--set",
        "dropout=0",
        "--batch-size",
        "3",
        "--val",
        f"val={write_parts(tmp_path / 'v', 2, 9)}",
    )
    launcher = [
        sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2",
        "--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no",
        "--main_process_port", str(free_port()),
    ]  # fmt: skip
    two = [*launcher, toy_method.__file__, *command(parts, weights, tmp_path / "two", *more)]
    done = subprocess.run(two, check=False, capture_output=True, text=True, env=environment())
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("checkpoint:") == 1
    here(command(parts, weights, tmp_path / "one", *more))
    found, expected = (load_file(tmp_path / n / "toy.safetensors") for n in ("two", "one"))
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=1e-5, rtol=0)
    lines = [read_steps(tmp_path / name) for name in ("two", "one")]
    for mine, theirs in zip(*lines, strict=True):
        assert mine.keys() == theirs.keys()
        if "loss" in mine:
            assert mine["loss"] == pytest.approx(theirs["loss"], abs=1e-5)
    detector = toy()
    with pytest.raises(ValueError, match="weights"):
        load_checkpoint(detector, tmp_path / "two" / "toy.safetensors")


def test_a_batch_says_what_kind_of_defect_each_picture_has(parts):
    steps = steps_of(examples(parts), 10)
    shard = steps[0]
    assert shard.kinds == tuple("spot" if label else "" for label in shard.labels.tolist())
    batch = shard.batch(torch.device("cpu"), torch.Generator())
    assert batch.kinds == shard.kinds and "spot" in shard.kinds

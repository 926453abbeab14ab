"""The six examples go through everything that a method must: the contract fits them all."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from models import tiny_backbone, write_tiny_weights
from PIL import Image
from safetensors.torch import load_file
from six_examples import (
    EXAMPLES,
    Adversary,
    Assembly,
    Autoencoder,
    ConvMemory,
    Mutual,
    TinyEyes,
    TwoStages,
    registered,
)
from toy_method import write_parts

from zerodefect import Inspector, Tiling, Viewing
from zerodefect.data import load_dataset
from zerodefect.detector.checkpoint_file import load_checkpoint
from zerodefect.detector.contract import UnsupportedError
from zerodefect.detector.knowledge import Knowledge, KnowledgeError, Product
from zerodefect.engines.local import inspect_files
from zerodefect.evaluation.evaluator import Evaluator
from zerodefect.evaluation.protocol import Protocol
from zerodefect.methods import load_detector
from zerodefect.training.engine import Settings, fit
from zerodefect.training.examples import Examples, Pictures

TRAINED = (Autoencoder, TwoStages, Adversary)


def make(kind):
    networks = {
        ConvMemory: (TinyEyes(),),
        TwoStages: (tiny_backbone(),),
        Assembly: (tiny_backbone(), TinyEyes(40)),
    }
    return kind(*networks.get(kind, ())).eval()


@pytest.fixture(scope="module", autouse=True)
def _known():
    with registered(*EXAMPLES):
        yield


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    return write_parts(tmp_path_factory.mktemp("parts"), count=3)


@pytest.fixture(scope="module")
def pictures():
    draws = np.random.default_rng(0)
    return [draws.integers(60, 200, (40, 48, 3)).astype(np.uint8) for _ in range(6)]


@pytest.fixture(params=EXAMPLES, ids=lambda kind: kind.info.name)
def detector(request):
    return make(request.param)


def inspector_of(detector, pictures, **options) -> Inspector:
    made = Inspector(detector, **options)
    made.describe("part")
    if detector.memory is not None:
        made.remember(pictures[:2])
    return made


# --- inspect -------------------------------------------------------------------------------------


@pytest.mark.parametrize("viewing", [Viewing(), Viewing(Tiling(24, 0.25)), Viewing(None, True)])
def test_each_inspects_whole_pictures_tiles_and_kept_aspects(detector, pictures, viewing):
    inspector = inspector_of(detector, pictures, viewing=viewing)
    results = list(inspector.inspect_many(pictures[2:]))
    assert [result.object for result in results] == ["part"] * 4
    for result in results:
        assert np.isfinite(result.score)
        assert (result.map is None) == isinstance(detector, Assembly)
        assert result.map is None or result.map.shape == (40, 48)
    alone = [r.score for r in inspector.inspect_many(pictures[2:], batch_size=1)]
    np.testing.assert_allclose(alone, [r.score for r in results], rtol=1e-5)


def test_each_leaves_a_run_folder_with_a_report(detector, pictures, tmp_path):
    files = []
    for number, pixels in enumerate(pictures[2:]):
        files.append(tmp_path / f"{number}.png")
        Image.fromarray(pixels).save(files[-1])
    inspector = inspector_of(detector, pictures)
    summary = inspect_files(inspector, files, tmp_path / "run", maps=True)
    assert summary.failed == 0
    lines = (tmp_path / "run" / "results.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    maps = [record["map"] for record in records]
    answers = [record["answer"] for record in records]
    if isinstance(detector, Assembly):
        assert maps == [None] * 4
        assert all("The part looks" in answer for answer in answers)
    else:
        assert all((tmp_path / "run" / map).exists() for map in maps)
        assert answers == [None] * 4
    assert summary.report.exists()


def test_an_input_that_a_picture_lacks_is_simply_not_there():
    detector = make(Assembly)
    known = detector.describe(detector.empty(), Product("part"))
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    both = detector({"clip": images, "eyes": images[..., :40, :40]}, known)
    one = detector({"clip": images}, known)
    assert (both.score > one.score).all()
    assert one.answer == both.answer


def test_a_set_is_judged_by_its_other_pictures(pictures):
    inspector = Inspector(make(Mutual))
    odd = np.full_like(pictures[0], 255)
    scores = [r.score for r in inspector.inspect_many([*pictures, odd])]
    assert max(scores) == scores[-1]
    again = [r.score for r in inspector.inspect_many([odd, *pictures], batch_size=3)]
    np.testing.assert_allclose(sorted(again), sorted(scores), rtol=1e-5)
    unreadable = list(inspector.inspect_many([pictures[0], b"no picture", pictures[1]]))
    assert [hasattr(result, "score") for result in unreadable] == [True, False, True]


# --- calibrate -----------------------------------------------------------------------------------


@pytest.mark.parametrize("leave_one_out", [False, True])
def test_each_calibrates_as_far_as_it_can(detector, pictures, leave_one_out):
    inspector = inspector_of(detector, pictures)
    good = pictures if leave_one_out else pictures[2:]

    def calibrate():
        return inspector.calibrate(good, false_alarms=0.4, leave_one_out=leave_one_out)

    if isinstance(detector, Mutual):
        with pytest.raises(UnsupportedError, match="scores the images of a set against each other"):
            calibrate()
        return
    if leave_one_out and detector.memory is None:
        with pytest.raises(UnsupportedError, match="takes no references"):
            calibrate()
        return
    policy = calibrate()
    assert policy.guaranteed
    assert len(policy.scores) == len(good)
    assert bool(policy.map_maxima) != isinstance(detector, Assembly)
    verdicts = [r.verdict for r in inspector.inspect_many(pictures[2:])]
    assert all(r in ("good", "unsure", "defect") for r in verdicts)


# --- evaluate ------------------------------------------------------------------------------------


def test_each_is_measured(detector, parts):
    dataset = load_dataset(parts)
    shots = (1, 2) if detector.memory is not None else (0,)
    evaluation = Evaluator(detector, dataset, Protocol(shots=shots, seeds=2)).run()
    levels = {row.metric.level for row in evaluation.rows}
    assert levels == ({"image"} if isinstance(detector, Assembly) else {"image", "pixel"})
    assert not evaluation.failures
    told = any("transductive" in note for note in evaluation.notes)
    assert told == isinstance(detector, Mutual) == ("(transductive)" in repr(evaluation))
    if detector.memory is None:
        with pytest.raises(UnsupportedError, match="takes no references"):
            Evaluator(detector, dataset, Protocol(shots=(1,))).run()


# --- train, checkpoints --------------------------------------------------------------------------


class StopError(Exception):
    """The run is cut off here."""


@pytest.mark.parametrize("kind", TRAINED, ids=lambda kind: kind.info.name)
@pytest.mark.parametrize("stop", [1, 3, 4])
def test_a_run_that_was_cut_off_ends_with_the_same_values(kind, stop, parts, tmp_path):
    dataset = load_dataset(parts)
    examples = Examples([Pictures(dataset, good_only="good" in kind.info.knows_from)])
    settings = Settings({"batch_size": 2}, state_steps=1, log_every=1)
    whole = fit(make(kind), examples, tmp_path / "whole", settings)

    def cut(progress):
        if progress.step == stop:
            raise StopError

    steps = [json.loads(line)["step"] for line in (tmp_path / "whole/log.jsonl").open()]
    if stop < max(steps):
        with pytest.raises(StopError):
            fit(make(kind), examples, tmp_path / "cut", settings, on_step=cut)
    resumed = fit(make(kind), examples, tmp_path / "cut", settings)
    assert whole.path.read_bytes() == resumed.path.read_bytes()

    loaded = make(kind)
    before = {name: value.clone() for name, value in loaded.learned_values.items()}
    load_checkpoint(loaded, whole.path)
    assert any(not torch.equal(before[n], v) for n, v in loaded.learned_values.items())


def test_running_statistics_travel_in_the_checkpoint(parts, tmp_path):
    examples = Examples([Pictures(load_dataset(parts), good_only=True)])
    made = fit(make(Autoencoder), examples, tmp_path / "run")
    stored = load_file(made.path)
    assert stored["net.1.running_mean"].abs().max() > 0
    assert int(stored["net.1.num_batches_tracked"]) > 0


def test_stages_move_their_own_values_at_their_own_rates(parts, tmp_path):
    examples = Examples([Pictures(load_dataset(parts))])
    detector = make(TwoStages)
    start = {name: value.detach().clone() for name, value in detector.learned.items()}
    seen = {}

    def note(progress):
        moved = {n for n, v in detector.learned.items() if not torch.equal(v, start[n])}
        seen.setdefault(progress.stage, []).append((moved, progress.epochs))

    fit(detector, examples, tmp_path / "run", on_step=note)
    assert list(seen) == ["texts", "patches"]
    assert all(moved == {"shift"} and epochs == 2 for moved, epochs in seen["texts"])
    assert seen["patches"][-1] == ({"shift", "adapter.weight", "adapter.bias"}, 1)
    lines = [json.loads(line) for line in (tmp_path / "run/log.jsonl").open()]
    rates = {line["stage"]: line["learning_rate"] for line in lines}
    assert rates == {"texts": 0.01, "patches": 0.001}


def test_two_optimisers_follow_their_own_losses(parts, tmp_path):
    examples = Examples([Pictures(load_dataset(parts), good_only=True)])
    fit(make(Adversary), examples, tmp_path / "run", Settings({"epochs": 1}, log_every=1))
    line = json.loads((tmp_path / "run/log.jsonl").read_text().splitlines()[0])
    terms = ("loss/critic", "loss/reconstruction", "loss/fooling")
    assert line["loss"] == pytest.approx(sum(line[term] for term in terms))


def test_the_command_line_trains_and_inspects_without_any_network(parts, tmp_path, capsys):
    from zerodefect import cli

    def run(*words):
        import sys
        from unittest import mock

        with mock.patch.object(sys, "argv", ["zerodefect", *map(str, words)]):
            try:
                cli.main()
            except SystemExit as ended:
                assert not ended.code, capsys.readouterr().err

    run("train", "toy_autoencoder", "--data", parts, "--output", tmp_path / "run", "--epochs", 1)
    checkpoint = tmp_path / "run" / "toy_autoencoder.safetensors"
    test = parts / "p" / "test"
    run("inspect", test, "--checkpoint", checkpoint, "--output", tmp_path / "out", "--no-report")
    records = (tmp_path / "out" / "results.jsonl").read_text().splitlines()
    assert len(records) == 6
    weights = write_tiny_weights(tmp_path)
    run("train", "two_stages", "--data", parts, "--weights", weights, "--output", tmp_path / "two")
    assert (tmp_path / "two" / "two_stages.safetensors").exists()


def test_a_detector_of_several_networks_names_them(tmp_path):
    with pytest.raises(ValueError, match="built on clip and eyes: name each as NAME=WEIGHTS"):
        load_detector("assembly", backbone="embedded")
    with pytest.raises(ValueError, match="no network 'ears'; it has: clip, eyes"):
        load_detector("assembly", backbone={"ears": "embedded"})
    with pytest.raises(ValueError, match="built on no network"):
        load_detector("mutual", backbone="embedded")


# --- knowledge -----------------------------------------------------------------------------------


def test_knowledge_travels_and_is_refused_by_others(detector, pictures, tmp_path):
    inspector = inspector_of(detector, pictures)
    known = inspector._ready(None).knowledge
    known.save(tmp_path / "part.safetensors")
    again = Knowledge.load(tmp_path / "part.safetensors")
    detector.check(again)
    assert again.product == known.product
    assert again.shots == known.shots
    assert again.tensors.keys() == known.tensors.keys()
    for name, tensor in known.tensors.items():
        assert torch.equal(tensor, again[name])
    with pytest.raises(KnowledgeError, match="was made by"):
        detector.check(replace(again, detector={**again.detector, "method": "another"}))

"""What an evaluation says of single pictures, of its data, and of what was learned from."""

from __future__ import annotations

import dataclasses
import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from models import picture, tiny_backbone
from small_detectors import Setting
from toy_method import Toy, registered

from zerodefect.data import load_dataset, read_mask
from zerodefect.detector.knowledge import Product
from zerodefect.detector.learned_pictures import picture_names
from zerodefect.evaluation.evaluator import Evaluator
from zerodefect.evaluation.metrics import PixelMetrics
from zerodefect.evaluation.prediction_cache import PredictionCache
from zerodefect.evaluation.protocol import ALL, Protocol, Tally
from zerodefect.evaluation.result_tables import write_results
from zerodefect.evaluation.worst_cases import MOST, WorstCase, WorstCases
from zerodefect.images import encode_png, open_image
from zerodefect.methods.winclip import WinCLIP

NETWORK = Protocol(resolution="network")


def write_parts(root: Path, good: int = 3, bad: int = 3) -> Path:
    """``part/train/good``, ``test/good`` and ``test/hole`` with masks; 40 x 48 pixels."""
    number = 0
    for folder, count in (("train/good", 4), ("test/good", good), ("test/hole", bad)):
        for index in range(count):
            number += 1
            pixels, path = picture(number, 40, 48), root / "part" / folder / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            if folder.endswith("hole"):
                mask = np.zeros((40, 48), np.uint8)
                mask[10:20, 12:24] = 255
                pixels[mask > 0] = 255 - pixels[mask > 0]
                truth = root / "part/ground_truth/hole" / f"{index}_mask.png"
                truth.parent.mkdir(parents=True, exist_ok=True)
                truth.write_bytes(encode_png(mask))
            path.write_bytes(encode_png(pixels))
    return root


@pytest.fixture
def parts(tmp_path):
    return write_parts(tmp_path / "parts")


def test_results_name_each_picture_with_its_score(parts, tmp_path):
    detector = WinCLIP(tiny_backbone())
    evaluation = Evaluator(
        detector, load_dataset(parts), Protocol(shots=(0, 1), resolution="network")
    ).run()
    (file, *_) = write_results(evaluation, tmp_path / "out", "winclip")
    stored = json.loads(file.read_text())["pictures"]
    assert len(stored) == 2 * 6
    knowledge = detector.describe(detector.empty(), Product("part"))
    for row in (row for row in stored if row["shots"] == 0):
        shown = detector.preprocess(open_image(parts / row["image"]))[None]
        assert row["score"] == pytest.approx(float(detector(shown, knowledge).score), abs=1e-5)
        assert row["product"] == "part" and row["seed"] == 0
        assert row["anomalous"] == (row["kind"] == "hole") == ("hole" in row["image"])


def test_the_worst_are_the_highest_good_and_the_lowest_defective(parts):
    evaluation = Evaluator(WinCLIP(tiny_backbone()), load_dataset(parts), NETWORK).run()
    for anomalous in (False, True):
        expected = sorted(
            (p for p in evaluation.pictures if p.anomalous == anomalous),
            key=lambda p: p.score if anomalous else -p.score,
        )
        found = [case for case in evaluation.worst if case.anomalous == anomalous]
        assert [case.image for case in found] == [picture.image for picture in expected]
        assert [case.rank for case in found] == [1, 2, 3]
        assert all(case.map.shape == (64, 64) for case in found)


def test_only_so_many_worst_cases_are_kept_and_their_maps_are_small():
    kept = WorstCases()
    large = np.zeros((1024, 2048), np.float32)
    large[512:] = 1
    for number in range(20):
        name, score = f"{number:02d}", float(number % 10)
        case = WorstCase(Path(name), name, "p", "good", False, 0, 0, score, large)
        kept.add(case)
        kept.add(dataclasses.replace(case, anomalous=True, kind="hole", map=None))
    good, bad = (
        [c for c in kept.ranked() if c.anomalous == anomalous] for anomalous in (False, True)
    )
    assert [c.score for c in good] == [9, 9, 8, 8, 7, 7] and len(good) == MOST
    assert [c.image for c in bad] == ["00", "10", "01", "11", "02", "12"]
    assert good[0].map.shape == (256, 512) and good[0].map.mean() == 0.5


def test_remarks_of_the_data_stand_in_the_results(parts, tmp_path):
    data = dataclasses.replace(load_dataset(parts), notes=("masks are paired by order",))
    evaluation = Evaluator(WinCLIP(tiny_backbone()), data, NETWORK).run()
    json_file, markdown, *_ = write_results(evaluation, tmp_path / "out", "winclip")
    remarks = json.loads(json_file.read_text())["data"]["remarks"]
    assert "masks are paired by order" in remarks
    assert "- data, masks are paired by order" in markdown.read_text()


# --- set-level steps ----------------------------------------------------------------------------


def _row(evaluation, label: str, shots: int) -> float:
    (value,) = (
        row.metric.value
        for row in evaluation.rows
        if (row.group, row.shots, row.metric.label) == (ALL, shots, label)
    )
    return value


def test_april_gan_as_published_few_shot_scaled_over_the_class_zero_shot_not(parts, tmp_path):
    """Mean of s and of the map's highest value, min-max scaled over the test pictures."""
    detector = Setting("april_gan", {}).build()
    data = load_dataset(parts)
    protocol = Protocol(shots=(0, 2), resolution="network", set_level="image min-max")
    cache = PredictionCache(tmp_path / "cache", full=True)
    evaluator = Evaluator(detector, data, protocol, cache=cache)
    evaluation = evaluator.run()
    plain = Evaluator(detector, data, dataclasses.replace(protocol, set_level=None)).run()

    def scores(some, shots: int) -> np.ndarray:
        return np.array([p.score for p in some.pictures if p.shots == shots])

    np.testing.assert_allclose(scores(evaluation, 0), scores(plain, 0), atol=1e-6)
    knowledge = detector.describe(detector.empty(), Product("part"))
    shown = [detector.preprocess(open_image(s.image)) for s in data.k_shot("part", 2, 0)]
    with torch.no_grad():
        known = detector.settle(detector.remember(knowledge, [detector.encode(torch.stack(shown))]))
    expected, highest = [], []
    for sample in evaluator.test_samples("part"):
        image = detector.preprocess(open_image(sample.image))[None]
        expected.append(float(detector(image, knowledge).score))
        highest.append(float(detector(image, known).map.max()))
    low, high = min(highest), max(highest)
    expected = [(s + (m - low) / (high - low)) / 2 for s, m in zip(expected, highest, strict=True)]
    np.testing.assert_allclose(scores(evaluation, 2), expected, atol=1e-4)
    assert not np.allclose(scores(evaluation, 2), scores(plain, 2), atol=1e-2)

    stored = json.loads(write_results(evaluation, tmp_path / "o", "april_gan")[0].read_text())
    assert stored["protocol"]["set_level"] == "image min-max"
    assert stored["set_level_shots"] == [2]
    assert any("transductive at 2-shot" in note for note in stored["notes"])
    assert any("no 'image min-max' at 0-shot" in note for note in stored["notes"])
    again = Evaluator(detector, data, protocol, cache=cache).run()
    assert again.set_level_shots == (2,) and again.rows == evaluation.rows


def test_vcp_clip_as_published_scores_and_maps_on_one_scale_over_the_class(parts, tmp_path):
    detector = Setting("vcp_clip", {}).build()
    protocol = Protocol(resolution="network", set_level="min-max")
    data = load_dataset(parts)
    evaluation = Evaluator(detector, data, protocol).run()
    plain = Evaluator(detector, data, NETWORK).run()
    raw = np.array([p.score for p in plain.pictures])
    expected = (raw - raw.min()) / (raw.max() - raw.min())
    np.testing.assert_allclose([p.score for p in evaluation.pictures], expected, atol=1e-4)
    maps = np.stack([case.map for case in evaluation.worst])
    assert maps.min() == 0 and maps.max() == pytest.approx(1)
    # one scale for a class: what ranks stays as it is
    for label in ("image auroc:exact", "pixel auroc:exact"):
        assert _row(evaluation, label, 0) == pytest.approx(_row(plain, label, 0), abs=1e-3)
    assert evaluation.set_level_shots == (0,)


# --- pictures that were learned from -------------------------------------------------------------


@pytest.fixture
def toy():
    with registered():
        yield Toy.build(tiny_backbone())


def test_pictures_that_were_learned_from_are_refused_unless_asked_for(toy, parts):
    data = load_dataset(parts)
    copied = parts / "part/test/hole/1.png"
    toy.checkpoint, toy.learned_from = "0" * 64, picture_names([copied])
    (parts / "part/test/hole/renamed.png").write_bytes(copied.read_bytes())
    copied.unlink()
    (parts / "part/ground_truth/hole/1_mask.png").rename(
        parts / "part/ground_truth/hole/renamed_mask.png"
    )
    data = load_dataset(parts)
    with pytest.raises(ValueError, match=r"learned from 1 of the 6 pictures.*--allow-training"):
        Evaluator(toy, data, NETWORK).run()
    allowed = dataclasses.replace(NETWORK, allow_training_pictures=True)
    evaluation = Evaluator(toy, data, allowed).run()
    assert evaluation.facts["learned_pictures"] == 1
    assert any(note.startswith("1 of these pictures") for note in evaluation.notes)


def test_known_unknown_and_none_are_told_apart(toy, parts):
    data = load_dataset(parts)
    evaluation = Evaluator(toy, data, NETWORK).run()  # no checkpoint
    assert evaluation.facts["learned_pictures"] == 0 and not evaluation.notes
    toy.checkpoint = "0" * 64  # imported, or of before
    evaluation = Evaluator(toy, data, NETWORK).run()
    assert evaluation.facts["learned_pictures"] is None
    assert any(note.startswith("it is unknown whether") for note in evaluation.notes)
    toy.learned_from = picture_names([parts / "part/train/good/0.png"])  # not measured on
    evaluation = Evaluator(toy, data, NETWORK).run()
    assert evaluation.facts["learned_pictures"] == 0 and not evaluation.notes


# --- memory --------------------------------------------------------------------------------------


def _tallied(kinds: int) -> tuple[int, list]:
    """Highest memory taken, and rows, for two pictures of each kind."""
    draws = np.random.default_rng(0)
    tracemalloc.start()
    tally = Tally(NETWORK)
    for kind in ("good", *(f"kind {number}" for number in range(kinds))):
        for _ in range(2):
            mask = np.zeros((16, 16), bool)
            mask[2:5, 3:8] = kind != "good"
            tally.add_score(kind, kind != "good", float(draws.random()))
            tally.add_map(kind, draws.random((16, 16), np.float32), mask, None)
    rows = list(tally.rows("part", 0, 0))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak, rows


def test_memory_does_not_grow_with_the_number_of_kinds():
    few, _ = _tallied(2)
    many, rows = _tallied(24)
    assert many < 1.1 * few
    assert len({row.group for row in rows}) == 25


def test_streamed_kinds_are_measured_as_before(parts):
    """Pixel metrics of a kind over its own pictures, of all over everything."""
    evaluation = Evaluator(WinCLIP(tiny_backbone()), load_dataset(parts), NETWORK).run()
    detector = WinCLIP(tiny_backbone())
    knowledge = detector.describe(detector.empty(), Product("part"))
    states = {"hole": PixelMetrics(), ALL: PixelMetrics()}
    for sample in load_dataset(parts).select(split="test"):
        shown = detector.preprocess(open_image(sample.image))[None]
        map = detector(shown, knowledge).map[0].numpy()
        for group, state in states.items():
            if group in (sample.kind, ALL):
                state.update(map, read_mask(sample, (64, 64)))
    for group, state in states.items():
        found = {
            row.metric.name: (row.metric.value, row.images)
            for row in evaluation.rows
            if row.group == group and row.metric.level == "pixel"
        }
        for metric in state.compute(NETWORK.plain_queries):
            value, images = found[metric.name]
            assert value == pytest.approx(metric.value, abs=1e-3)
            assert images == state.images == {"hole": 3, ALL: 6}[group]


def test_a_kind_that_comes_again_is_refused():
    tally, map, mask = Tally(NETWORK), np.zeros((4, 4), np.float32), np.eye(4, dtype=bool)
    for kind in ("hole", "rust"):
        tally.add_map(kind, map, mask, None)
    with pytest.raises(ValueError, match="'hole' must come one after the other"):
        tally.add_map("hole", map, mask, None)


def test_kinds_stay_together_where_half_of_the_predictions_are_kept(parts, tmp_path):
    cache = PredictionCache(tmp_path / "cache", full=True)
    data = load_dataset(parts)
    shuffled = dataclasses.replace(data, samples=data.samples[::-2] + data.samples[::2][::-1])
    first = Evaluator(WinCLIP(tiny_backbone()), shuffled, NETWORK, cache=cache).run()
    for file in sorted(cache.folder.glob("*/*.npz"))[::2]:
        file.unlink()
    again = Evaluator(WinCLIP(tiny_backbone()), shuffled, NETWORK, cache=cache).run()
    for one, other in zip(first.rows, again.rows, strict=True):
        assert one.metric.value == pytest.approx(other.metric.value, abs=1e-3)

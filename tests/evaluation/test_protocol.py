"""The evaluation protocol on small trees: what is measured, pooled, cached, left out."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from models import picture, tiny_backbone, write_tiny_weights
from sklearn.metrics import average_precision_score, roc_auc_score

from zerodefect import cli
from zerodefect.data import load_dataset
from zerodefect.detector.knowledge import Product
from zerodefect.evaluation.evaluator import Evaluator
from zerodefect.evaluation.metrics import MetricError, Saturation, SPROMetrics
from zerodefect.evaluation.prediction_cache import PredictionCache
from zerodefect.evaluation.protocol import ALL, Protocol
from zerodefect.evaluation.result_tables import MEAN, published, summarise, write_results
from zerodefect.images import Picture, encode_png, open_image
from zerodefect.images.tiling import Tiling
from zerodefect.methods.winclip import WinCLIP
from zerodefect.scoring.scorer import Scorer
from zerodefect.scoring.viewing import Viewing


def write_product(root: Path, name: str, seed: int, size=(40, 48), masks=True) -> None:
    """MVTec tree: 4 good for training, 3 good and two kinds with 2 defective ones each to test."""
    number = seed
    for folder, count in (("train/good", 4), ("test/good", 3), ("test/hole", 2), ("test/rust", 2)):
        for index in range(count):
            number += 1
            pixels = picture(number, *size)
            path = root / name / folder / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            if not folder.endswith("good") and masks:
                mask = np.zeros(size, np.uint8)
                mask[10:20, 12:24] = 255
                pixels[mask > 0] = 255 - pixels[mask > 0]
                truth = root / name / "ground_truth" / path.parent.name / f"{index}_mask.png"
                truth.parent.mkdir(parents=True, exist_ok=True)
                truth.write_bytes(encode_png(mask))
            path.write_bytes(encode_png(pixels))


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "parts"
    write_product(root, "nut", 0)
    write_product(root, "bolt", 100)
    return root


@pytest.fixture
def detector():
    return WinCLIP(tiny_backbone())


def run(detector, tree, protocol, **options):
    return Evaluator(detector, load_dataset(tree), protocol, **options).run()


def value(evaluation, product, group, label, shots=0, seed=0):
    (found,) = (
        row.metric.value
        for row in evaluation.rows
        if (row.product, row.group, row.shots, row.seed) == (product, group, shots, seed)
        and row.metric.label == label
    )
    return found


def test_figures_are_those_of_the_scores_and_maps(detector, tree):
    """Against scikit-learn, with predictions made here one by one."""
    evaluation = run(detector, tree, Protocol(resolution="network"))
    knowledge = detector.describe(detector.empty(), Product("nut"))
    scores, labels, maps, masks, kinds = [], [], [], [], []
    for sample in load_dataset(tree).select(product="nut", split="test"):
        from zerodefect.data import read_mask
        from zerodefect.images import open_image

        seen = detector(detector.preprocess(open_image(sample.image))[None], knowledge)
        scores.append(float(seen.score))
        labels.append(sample.anomalous)
        kinds.append(sample.kind)
        maps.append(seen.map[0].numpy())
        masks.append(read_mask(sample, (64, 64)))
    assert value(evaluation, "nut", ALL, "image auroc:exact") == pytest.approx(
        roc_auc_score(labels, scores)
    )
    assert value(evaluation, "nut", ALL, "image ap:step") == pytest.approx(
        average_precision_score(labels, scores)
    )
    flat, truth = (
        np.concatenate([m.ravel() for m in maps]),
        np.concatenate([m.ravel() for m in masks]),
    )
    assert value(evaluation, "nut", ALL, "pixel auroc:exact") == pytest.approx(
        roc_auc_score(truth, flat), abs=1e-6
    )
    holes = [i for i, kind in enumerate(kinds) if kind == "hole"]
    flat = np.concatenate([maps[i].ravel() for i in holes])
    truth = np.concatenate([masks[i].ravel() for i in holes])
    assert value(evaluation, "nut", "hole", "pixel auroc:exact") == pytest.approx(
        roc_auc_score(truth, flat), abs=1e-6
    )
    with_good = [i for i, kind in enumerate(kinds) if kind in ("hole", "good")]
    assert value(evaluation, "nut", "hole", "image auroc:exact") == pytest.approx(
        roc_auc_score([labels[i] for i in with_good], [scores[i] for i in with_good])
    )


def test_seeds_shots_and_means(detector, tree):
    protocol = Protocol(shots=(0, 2), seeds=3, resolution="network")
    evaluation = run(detector, tree, protocol)
    assert {(r.shots, r.seed) for r in evaluation.rows} == {(0, 0), (2, 0), (2, 1), (2, 2)}
    cells = {(c.product, c.group, c.shots, c.metric): c for c in summarise(evaluation.rows)}
    label = "pixel auroc:exact"
    values = [value(evaluation, "nut", ALL, label, 2, seed) for seed in range(3)]
    assert len(set(values)) > 1  # the draws differ
    cell = cells["nut", ALL, 2, label]
    assert cell.mean == pytest.approx(np.mean(values))
    assert cell.deviation == pytest.approx(np.std(values, ddof=1))
    assert cells["nut", ALL, 0, label].deviation is None
    products = [cells[p, ALL, 2, label].mean for p in ("nut", "bolt")]
    assert cells[MEAN, ALL, 2, label].mean == pytest.approx(np.mean(products))


def test_undefined_is_not_zero(detector, tmp_path):
    write_product(tmp_path, "nut", 0)
    for file in (tmp_path / "nut/test/good").iterdir():
        file.unlink()
    (tmp_path / "nut/test/good").rmdir()
    evaluation = run(detector, tmp_path, Protocol(resolution="network"))
    assert math.isnan(value(evaluation, "nut", ALL, "image auroc:exact"))
    (cell,) = (
        c for c in summarise(evaluation.rows) if c.group == ALL and c.metric == "image auroc:exact"
    )
    assert str(cell) == "-"
    assert cell.reason
    assert value(evaluation, "nut", ALL, "pixel auroc:exact") > 0


def test_without_masks_only_images_are_judged(detector, tmp_path):
    write_product(tmp_path, "nut", 0, masks=False)
    evaluation = run(detector, tmp_path, Protocol(resolution="network"))
    assert {row.metric.level for row in evaluation.rows if row.group == "hole"} == {"image"}
    assert "pictures without a mask count in image metrics only" in evaluation.notes


def test_a_broken_picture_is_left_out_and_named(detector, tmp_path):
    write_product(tmp_path, "nut", 0)
    (tmp_path / "nut/test/good/1.png").write_bytes(b"")
    evaluation = run(detector, tmp_path, Protocol(resolution="network"))
    assert [Path(f.image).name for f in evaluation.failures] == ["1.png"]
    (images,) = {r.images for r in evaluation.rows if r.group == ALL and r.metric.level == "image"}
    assert images == 6


class Counting(WinCLIP):
    seen = 0

    def encode(self, images):
        Counting.seen += len(images)
        return super().encode(images)

    def remember(self, knowledge, batches, pictures=None):
        before = Counting.seen
        known = super().remember(knowledge, batches, pictures)
        Counting.seen = before  # references are not the pictures that are judged
        return known


def test_predictions_are_reused_exactly(tree, tmp_path):
    # one at a time: the last digits of a random network depend on the batch, and ranks on them
    protocol = Protocol(shots=(0, 1), seeds=2, resolution="network", batch_size=1)
    cache = PredictionCache(tmp_path)
    Counting.seen = 0
    first = run(Counting(tiny_backbone()), tree, protocol, cache=cache)
    assert Counting.seen == 2 * 7  # the network ran once a picture, not once for each setting
    plain = run(Counting(tiny_backbone()), tree, protocol)
    assert Counting.seen == 2 * 7 + 2 * 7 * 3
    full = PredictionCache(tmp_path / "full", full=True)
    exact = run(Counting(tiny_backbone()), tree, protocol, cache=full)
    for one, other, third in zip(first.rows, plain.rows, exact.rows, strict=True):
        assert one.metric.value == pytest.approx(other.metric.value, abs=1e-3, nan_ok=True)
        assert third.metric.value == pytest.approx(other.metric.value, abs=1e-9, nan_ok=True)
    Counting.seen = 0
    run(Counting(tiny_backbone()), tree, protocol, cache=full)
    assert Counting.seen == 0
    Counting.seen = 0
    again = run(Counting(tiny_backbone()), tree, protocol, cache=cache)
    assert Counting.seen == 0
    assert [r.metric.value for r in first.rows] == [r.metric.value for r in again.rows]
    run(Counting(tiny_backbone(seed=1)), tree, protocol, cache=cache)
    assert Counting.seen == 2 * 7
    Counting.seen = 0
    for file in sorted(tmp_path.glob("*/*.npz"))[::5]:  # of both detectors
        file.write_bytes(file.read_bytes()[:40])  # a disk that was full, a process that was killed
    third = run(Counting(tiny_backbone()), tree, protocol, cache=cache)
    assert Counting.seen > 0
    assert [r.metric.value for r in first.rows] == [r.metric.value for r in third.rows]


@pytest.mark.parametrize(
    "change",
    [
        {"resolution": "picture"},
        {"resolution": 32},
        {"smoothing": 2.0},
        {"alike": True},
        {"mask_rule": "bilinear>0"},
    ],
    ids=str,
)
def test_what_changes_a_figure_is_in_the_protocol_and_the_cache(detector, tree, tmp_path, change):
    cache = PredictionCache(tmp_path, full=True)
    base = {"resolution": "network"}
    first = run(detector, tree, Protocol(**base), cache=cache)
    other = run(detector, tree, Protocol(**{**base, **change}), cache=cache)
    uncached = run(detector, tree, Protocol(**{**base, **change}))
    assert [r.metric.value for r in other.rows] == [r.metric.value for r in uncached.rows]
    assert other.facts["protocol"] != first.facts["protocol"]
    assert [r.metric.value for r in other.rows] != [r.metric.value for r in first.rows]


def test_areas_count_nowhere_outside(detector, tree):
    roi = np.zeros((40, 48, 3), np.uint8)
    roi[:, 24:] = 255  # every defect lies in columns 12..23
    evaluation = run(detector, tree, Protocol(resolution="network"), roi=Picture("r", roi))
    for row in evaluation.rows:
        if row.metric.label == "pixel auroc:exact":
            assert math.isnan(row.metric.value)
            assert row.metric.reason


def test_alike_crops_to_the_smallest_side_and_drops_what_lies_outside(detector, tmp_path):
    write_product(tmp_path, "nut", 0, size=(120, 200))
    write_product(tmp_path / "small", "nut", 50, size=(40, 48))
    (tmp_path / "small/nut/test/good/0.png").rename(tmp_path / "nut/test/good/9.png")
    only = tmp_path / "only"
    (tmp_path / "nut").rename(only)
    evaluation = run(detector, only, Protocol(alike=True))
    # defects in the corner of 120x200 pictures lie outside their central 40 pixels
    assert any("outside the common crop" in note for note in evaluation.notes)
    assert {r.images for r in evaluation.rows} == {4}


def test_tiles_can_be_evaluated(detector, tree):
    viewing = Viewing(Tiling(24), keep_aspect=True)
    evaluation = run(detector, tree, Protocol(), viewing=viewing)
    assert 0 <= value(evaluation, "nut", ALL, "pixel auroc:exact") <= 1
    assert evaluation.facts["viewing"]["tiling"]["size"] == 24


def test_too_few_references_and_unlabelled_pictures(detector, tree, tmp_path):
    with pytest.raises(ValueError, match="9-shot needs 9 good training pictures"):
        run(detector, tree, Protocol(shots=(9,)))
    (tmp_path / "a.png").write_bytes(encode_png(picture()))
    with pytest.raises(ValueError, match="no labelled pictures"):
        run(detector, tmp_path, Protocol())


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"shots": ()}, "shots"),
        ({"seeds": 0}, "seed"),
        ({"resolution": 0}, "resolution"),
        ({"mask_rule": "x"}, "no mask rule"),
    ],
)
def test_impossible_protocols(wrong, reason):
    with pytest.raises(ValueError, match=reason):
        Protocol(**wrong)
    with pytest.raises(MetricError, match="unknown metric"):
        Protocol(pixel_queries=("aucpro",))


def test_results_are_written_whole(detector, tree, tmp_path):
    evaluation = run(detector, tree, Protocol(shots=(0, 1), seeds=2, resolution="network"))
    files = write_results(evaluation, tmp_path, "winclip")
    assert [f.name for f in files] == ["results.json", "results.md", "curves.png"]
    stored = json.loads(files[0].read_text())
    assert stored["protocol"]["shots"] == [0, 1]
    assert stored["detector"]["weights"]
    assert stored["data"]["fingerprint"] == load_dataset(tree).fingerprint()
    assert len(stored["rows"]) == len(evaluation.rows)
    text = files[1].read_text()
    for part in ("## 0-shot", "## 1-shot", "| nut | hole |", MEAN, "pixel aupro:exact@0.3"):
        assert part in text
    assert files[2].read_bytes().startswith(b"\x89PNG")


def test_approximate_pixel_metrics_state_their_error(detector, tree, tmp_path):
    exact = run(detector, tree, Protocol(resolution="network"))
    evaluation = run(detector, tree, Protocol(resolution="network", approximate=True))
    for row, expected in zip(evaluation.rows, exact.rows, strict=True):
        if row.metric.level == "image":
            assert row == expected
        else:
            assert 0 < row.metric.error_bound < 0.01
            assert abs(row.metric.value - expected.metric.value) <= row.metric.error_bound
    for cell, expected in zip(summarise(evaluation.rows), summarise(exact.rows), strict=True):
        assert abs(cell.mean - expected.mean) <= cell.error_bound
        assert expected.error_bound == 0
    files = write_results(evaluation, tmp_path / "approximate", "winclip")
    stored = json.loads(files[0].read_text())
    assert stored["protocol"]["approximate"] is True
    assert {row["metric"]["error_bound"] > 0 for row in stored["rows"]} == {True, False}
    assert any(cell["error_bound"] for cell in stored["summary"] if cell["product"] == MEAN)
    assert "- pixel aupro:exact@0.3: ± " in files[1].read_text()
    assert "±" not in write_results(exact, tmp_path / "exact", "winclip")[1].read_text()


def test_approximate_metrics_without_a_bound_are_refused_before_the_work(detector, loco):
    with pytest.raises(MetricError, match="cannot be bounded"):
        Protocol(pixel_queries=("auroc", "aupro:steps200"), approximate=True)
    approximate = run(detector, loco, Protocol(pixel_queries=("spro", "auroc"), approximate=True))
    exact = run(detector, loco, Protocol(pixel_queries=("spro", "auroc")))
    assert value(approximate, "box", ALL, LABEL) == value(exact, "box", ALL, LABEL)


def test_published_figures_stand_beside_ours_only_where_the_data_are_the_same():
    assert {f.data for f in published("winclip", "mvtec")} == {"MVTec AD"}
    assert {f.data for f in published("winclip", "VisA")} == {"VisA"}
    assert published("winclip", "parts") == ()


# --- the command --------------------------------------------------------------------------------


@pytest.fixture
def command(monkeypatch, capsys, tmp_path):
    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["zerodefect", "evaluate", *map(str, arguments)])
        monkeypatch.chdir(tmp_path)
        try:
            cli.main()
            code = 0
        except SystemExit as ended:
            code = ended.code or 0
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def test_the_command_prints_what_it_writes(command, tree, tmp_path):
    weights = write_tiny_weights(tmp_path)
    code, out, err = command(
        "-d", f"mine={tree}", "-b", weights, "-k", "0,1", "--seeds", "2", "-n", "nut=hex nut"
    )
    assert code == 0
    assert "train" in err
    assert (tmp_path / "evaluation/mine/winclip/results.md").read_text() in out
    stored = json.loads((tmp_path / "evaluation/mine/winclip/results.json").read_text())
    assert stored["names"] == {"bolt": "bolt", "nut": "hex nut"}
    for shots in ("0", "1"):
        mean = next(
            cell["mean"]
            for cell in stored["summary"]
            if (cell["product"], cell["shots"]) == ("mean over products", int(shots))
        )
        last = out.splitlines()[-2]
        assert last.startswith("winclip on mine: 0-shot ") and f"{shots}-shot" in last
        assert f"{100 * mean:.1f}" in last
    assert out.splitlines()[-1] == "results: evaluation"
    code, out, err = command("-d", tree, "-b", weights, "--json", "--no-cache")
    assert code == 0
    assert json.loads(out)[0]["data"]["name"] == "parts"
    assert "winclip on parts: 0-shot" in err and err.splitlines()[-1] == "results: evaluation"


@pytest.mark.parametrize("named", [("-m", "winclip,dense"), ("-m", "winclip", "-m", "dense")])
def test_methods_are_named_one_by_one_or_with_commas(command, tree, tmp_path, named):
    weights = write_tiny_weights(tmp_path)
    code, out, _ = command("-d", tree, "-b", weights, *named, "--json")
    assert code == 0
    assert [one["detector"]["method"] for one in json.loads(out)] == ["winclip", "dense"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-d", "{tree}", "-k", "two"], "write numbers such as"),
        (["-d", "{tree}", "--resolution", "large"], "picture, network or pixels"),
        (["-d", "{tree}", "-n", "gear=cog"], "no such product; it has: bolt, nut"),
        (["-d", "{tree}", "--pixel-metric", "aucpro"], "unknown metric 'aucpro'"),
        (["-d", "mine=/no/such/place"], "/no/such/place"),
        (["-d", "{tree}", "-m", "wincilp"], "Did you mean 'winclip'"),
    ],
)
def test_bad_input_is_one_error(command, tree, tmp_path, arguments, message):
    weights = write_tiny_weights(tmp_path)
    code, out, err = command(*[a.format(tree=tree) for a in arguments], "-b", weights)
    assert (code, out) == (1, "")
    assert message in err.split("error: ", 1)[1]


@pytest.mark.killing
def test_killed_and_started_again_it_goes_on(command, tree, tmp_path, monkeypatch):
    weights = write_tiny_weights(tmp_path)
    arguments = ["-d", str(tree), "-b", str(weights), "-k", "0,1,2", "--seeds", "3"]
    cache = tmp_path / "cache"
    environment = {**os.environ, "ZERODEFECT_CACHE": str(cache)}
    child = subprocess.Popen(
        [sys.executable, "-m", "zerodefect", "evaluate", *arguments, "--batch-size", "1"],
        env=environment,
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while len(list(cache.glob("predictions/*/*.npz"))) < 3 and child.poll() is None:
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    child.wait()
    monkeypatch.setenv("ZERODEFECT_CACHE", str(cache))
    assert command(*arguments)[0] == 0
    resumed = json.loads((tmp_path / "evaluation/parts/winclip/results.json").read_text())
    assert command(*arguments, "--no-cache")[0] == 0
    fresh = json.loads((tmp_path / "evaluation/parts/winclip/results.json").read_text())
    for one, other in zip(resumed["summary"], fresh["summary"], strict=True):
        assert one["metric"] == other["metric"]
        assert one["mean"] == pytest.approx(other["mean"], abs=1e-3)


# --- MVTec LOCO AD: saturated overlap -------------------------------------------------------------


@pytest.fixture
def loco(tmp_path):
    """The tree of ``write_product`` with a folder of masks per picture, two defects in rust's."""
    write_product(tmp_path / "loco", "box", 0)
    truth = tmp_path / "loco/box/ground_truth"
    for file in sorted(truth.rglob("*_mask.png")):
        folder = file.with_name(file.stem.removesuffix("_mask"))
        folder.mkdir()
        file.rename(folder / "000.png")
        if folder.parent.name == "rust":
            mask = np.zeros((40, 48), np.uint8)
            mask[30:36, 2:8] = 254
            (folder / "001.png").write_bytes(encode_png(mask))
    config = [
        {
            "defect_name": name,
            "pixel_value": pixel,
            "saturation_threshold": threshold,
            "relative_saturation": relative,
        }
        for name, pixel, threshold, relative in (("a", 255, 20, False), ("b", 254, 0.5, True))
    ]
    (tmp_path / "loco/box/defects_config.json").write_text(json.dumps(config))
    return tmp_path / "loco"


LABEL = "pixel spro:exact@0.05"


def test_spro_is_that_of_the_maps_and_the_saturations(detector, loco):
    evaluation = run(detector, loco, Protocol())
    expected = SPROMetrics(("hole", "rust"))
    evaluator = Evaluator(detector, load_dataset(loco), Protocol())
    knowledge = detector.describe(detector.empty(), Product("box"))
    for sample in evaluator.test_samples("box"):
        map = Scorer(detector).score([open_image(sample.image)], None, knowledge)[0].map
        channels = []
        if sample.anomalous:
            mask = np.zeros((40, 48), bool)
            mask[10:20, 12:24] = True
            channels = [(mask, Saturation(20))]
        if sample.kind == "rust":
            mask = np.zeros((40, 48), bool)
            mask[30:36, 2:8] = True
            channels.append((mask, Saturation(0.5, relative=True)))
        expected.update(map, channels, sample.kind if sample.anomalous else None)
    for metric in expected.compute():
        group = ALL if metric.group == "mean" else metric.group
        assert value(evaluation, "box", group, LABEL) == pytest.approx(metric.value, abs=1e-6)
    images = {r.group: r.images for r in evaluation.rows if r.metric.label == LABEL}
    assert images == {"hole": 5, "rust": 5, ALL: 7}


def test_spro_with_other_limits_and_other_metrics(detector, loco):
    evaluation = run(detector, loco, Protocol(pixel_queries=("spro@0.3", "auroc")))
    labels = {r.metric.label for r in evaluation.rows if r.metric.level == "pixel"}
    assert labels == {"pixel spro:exact@0.3", "pixel auroc:exact"}
    evaluation = run(detector, loco, Protocol(pixel_queries=("auroc",)))
    assert LABEL not in {r.metric.label for r in evaluation.rows}


def test_spro_stands_in_the_results_and_what_it_counts(detector, loco, tmp_path):
    evaluation = run(detector, loco, Protocol())
    text = write_results(evaluation, tmp_path / "results", "winclip")[1].read_text()
    assert LABEL in text and "counts false positives on the good pictures" in text


def test_spro_only_where_it_means_something(detector, loco, tree):
    for protocol in (Protocol(resolution="network"), Protocol(alike=True)):
        evaluation = run(detector, loco, protocol)
        assert LABEL not in {r.metric.label for r in evaluation.rows}
        assert any("no sPRO" in note for note in evaluation.notes)
    with pytest.raises(ValueError, match="needs the resolution 'picture'"):
        Protocol(pixel_queries=("spro",), resolution=64)
    with pytest.raises(ValueError, match=r"only MVTec LOCO AD's defects_config\.json"):
        run(detector, tree, Protocol(pixel_queries=("spro",)))
    assert LABEL not in {r.metric.label for r in run(detector, tree, Protocol()).rows}


def test_masks_that_mean_nothing_are_left_out_of_spro_and_named(detector, loco):
    mask = np.zeros((40, 48), np.uint8)
    (loco / "box/ground_truth/rust/0/001.png").write_bytes(encode_png(mask + 7))
    mask[0, 0] = 254  # half of one pixel is none
    (loco / "box/ground_truth/rust/1/001.png").write_bytes(encode_png(mask))
    evaluation = run(detector, loco, Protocol())
    assert {Path(f.image).name for f in evaluation.failures} == {"001.png", "1.png"}
    assert math.isnan(value(evaluation, "box", "rust", LABEL))
    assert value(evaluation, "box", "hole", LABEL) >= 0

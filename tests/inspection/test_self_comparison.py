"""Provisional limits from a folder of pictures that is compared with itself."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from models import tiny_backbone, write_tiny_weights

from zerodefect.images import encode_png
from zerodefect.inspection import self_comparison
from zerodefect.inspection.inspector import Inspector
from zerodefect.inspection.self_comparison import ENOUGH, compare_with_itself, usual_up_to
from zerodefect.methods.winclip import WinCLIP

scores = st.lists(st.integers(-1000, 1000), min_size=3, max_size=40)


def test_the_limit_by_hand():
    # the lowest two thirds of nine: 1 2 3 4 5 6, quartiles 2.25, 3.5, 4.75
    assert usual_up_to([9, 8, 7, 6, 5, 4, 3, 2, 1], 2.0) == pytest.approx(3.5 + 2 * 2.5 / 1.349)
    assert usual_up_to([5.0] * 12, 6.0) == 5.0


@given(scores, st.data())
def test_what_a_third_of_the_scores_are_moves_nothing(values, data):
    values = sorted(values)
    damaged = len(values) // 3
    worse = data.draw(st.lists(st.integers(0, 10**6), min_size=damaged, max_size=damaged))
    raised = values[: len(values) - damaged]
    raised += [v + w for v, w in zip(values[len(values) - damaged :], worse, strict=True)]
    random.Random(0).shuffle(raised)
    assert usual_up_to(raised, 4.0) == usual_up_to(values, 4.0)


@given(scores, st.floats(0.1, 10), st.floats(-50, 50))
def test_the_limit_goes_with_scale_and_place(values, scale, shift):
    moved = usual_up_to([scale * value + shift for value in values], 4.0)
    assert moved == pytest.approx(scale * usual_up_to(values, 4.0) + shift, rel=1e-6, abs=1e-6)


def part(seed, damaged=False):
    """A striped plate in slightly changing light; damage is a blot."""
    rng = np.random.default_rng(seed)
    stripes = 110 + 60 * (np.indices((64, 64))[1] // 8 % 2)
    pixels = np.repeat((stripes + rng.normal(0, 3, (64, 64)))[..., None], 3, axis=2)
    if damaged:
        x, y = rng.integers(4, 40, 2)
        pixels[y : y + 20, x : x + 20] = (250, 30, 20)
    return pixels.clip(0, 255).astype(np.uint8)


def folder_of(folder, good, damaged):
    folder.mkdir()
    for seed in range(good + damaged):
        name = f"{seed:02d}-{'damaged' if seed >= good else 'good'}.png"
        (folder / name).write_bytes(encode_png(part(seed, seed >= good)))
    return sorted(folder.iterdir())


@pytest.fixture
def inspector():
    made = Inspector(WinCLIP(tiny_backbone()))
    made.describe("plate")
    return made


def test_a_third_that_is_damaged_stands_out(inspector, tmp_path):
    files = folder_of(tmp_path / "parts", 14, 6)
    policy = compare_with_itself(inspector, files)
    assert not policy.calibrated and "compared with each other" in policy.notes[0]
    found = [inspector.inspect(file) for file in files]
    good, damaged = found[:14], found[14:]
    assert max(one.score for one in good) < min(one.score for one in damaged)
    assert "good" not in {one.verdict for one in damaged}
    assert sum(one.verdict == "defect" for one in damaged) >= 3
    assert sum(one.verdict == "defect" for one in good) <= 1
    assert all(one.p_value is None and not one.calibrated for one in found)
    assert "(not calibrated on good parts)" in found[0].explanation


def test_a_folder_of_good_pictures_has_hardly_a_defect(inspector, tmp_path):
    files = folder_of(tmp_path / "parts", 24, 0)
    compare_with_itself(inspector, files)
    verdicts = [one.verdict for one in inspector.inspect_many(files)]
    assert verdicts.count("defect") <= 2 and verdicts.count("good") >= 18


def test_no_picture_is_compared_with_itself(inspector, tmp_path, monkeypatch):
    files = folder_of(tmp_path / "parts", 12, 2)
    monkeypatch.setattr(self_comparison, "_MOST", 12)
    compare_with_itself(inspector, files)
    assert inspector.shots == 12
    shown = inspector._ready(None)
    alone = inspector._learned(shown.without_references()).known
    left_out = inspector.scorer.score_left_out(shown.references, [None] * 12, alone)
    seen = [inspector.inspect(picture).score for picture in shown.references]
    assert seen == pytest.approx([one.score for one in left_out], abs=1e-5)
    copy = tmp_path / "copy.png"
    copy.write_bytes(files[0].read_bytes())
    assert inspector.inspect(copy).score == pytest.approx(inspector.inspect(files[0]).score)


def test_a_few_are_ranked_without_a_verdict(inspector, tmp_path):
    files = folder_of(tmp_path / "parts", ENOUGH - 3, 2)
    policy = compare_with_itself(inspector, files)
    found = [inspector.inspect(file) for file in files]
    assert {one.verdict for one in found} == {"unsure"}
    assert "ranked" in policy.notes[0] and inspector.shots == 0
    assert "without good parts no verdict can be given" in found[0].explanation


def test_files_that_show_nothing_or_cannot_be_read_do_not_count(inspector, tmp_path):
    files = folder_of(tmp_path / "parts", 14, 4)
    (tmp_path / "parts" / "05-good.png").write_bytes(b"")
    (tmp_path / "parts" / "06-good.png").write_bytes(encode_png(np.zeros((64, 64, 3), np.uint8)))
    compare_with_itself(inspector, files)
    assert inspector.shots == 16
    assert inspector.inspect(files[6]).verdict == "unsure"


def test_every_output_says_that_verdicts_are_provisional(tmp_path, monkeypatch, capsys):
    import json

    from typer.testing import CliRunner

    from zerodefect.cli import app

    monkeypatch.chdir(tmp_path)
    folder_of(tmp_path / "parts", 12, 4)
    weights = write_tiny_weights(tmp_path)
    command = ["inspect", "parts", "-n", "plate", "-b", str(weights), "-m", "winclip", "-o", "run"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0
    assert result.output.startswith("verdict (provisional)")
    for text in (result.output, (tmp_path / "run" / "report.html").read_text("utf-8")):
        assert "rovisional" in text and "--reference" in text and "zerodefect calibrate" in text
        assert "compared with each other" in text
    for line in (tmp_path / "run" / "results.jsonl").read_text().splitlines():
        record = json.loads(line)
        assert record["calibrated"] is False and "not calibrated" in record["explanation"]
    assert (
        "compared" in json.loads((tmp_path / "run" / "run.json").read_text())["policy"]["notes"][0]
    )
    again = CliRunner().invoke(app, command)
    assert again.exit_code == 0 and "(16 done before)" in again.output

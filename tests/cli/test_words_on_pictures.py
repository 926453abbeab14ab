"""Words on the picture: ``--show-words``, and what is inspected by them: ``--roi``."""

from __future__ import annotations

import json

import numpy as np
import pytest
from models import picture, write_tiny_weights

from zerodefect.images import encode_png, open_image
from zerodefect.inspection.word_sight import WordSight


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    """Weights and two parts."""
    shelf = tmp_path_factory.mktemp("shelf")
    write_tiny_weights(shelf)
    (shelf / "parts").mkdir()
    for seed in range(2):
        (shelf / "parts" / f"{seed}.png").write_bytes(encode_png(picture(seed, 40, 48)))
    return shelf


@pytest.fixture
def inspect(run, shelf, monkeypatch, tmp_path):
    """The verb on the parts: exit code, output, and the records."""
    monkeypatch.setenv("ZERODEFECT_CACHE", str(shelf / "cache"))
    monkeypatch.chdir(tmp_path)
    weights = ["--backbone", shelf / "tiny.safetensors", "--method", "winclip", "--object", "screw"]

    def command(*options):
        code, out, err = run("inspect", shelf / "parts", *weights, *options, "-o", tmp_path / "run")
        results = tmp_path / "run" / "results.jsonl"
        lines = results.read_text().splitlines() if results.exists() else []
        return code, out + err, [json.loads(line) for line in lines]

    return command


def test_words_are_shown_on_every_picture(inspect, tmp_path):
    code, _, records = inspect("--show-words", "scratch, label", "--show-words", "hole,scratch")
    assert code == 0 and len(records) == 2
    for record in records:
        assert [one["word"] for one in record["words"]] == ["scratch", "label", "hole"]
        for number, one in enumerate(record["words"]):
            low, high = one["span"]
            assert (one["remark"] in record["notes"]) is (one["remark"] is not None)
            assert 0 <= low <= high <= 1 and one["at"][0] < 48 and one["at"][1] < 40
            shown = open_image(tmp_path / "run" / record["assets"][f"word{number}"])
            assert (shown.height, shown.width) == (40, 48)
    manifest = json.loads((tmp_path / "run" / "run.json").read_text())
    assert manifest["settings"]["words"] == ["scratch", "label", "hole"]
    page = (tmp_path / "run" / "report.html").read_text()
    assert '"word":"label"' in page and "function showWords" in page
    code, told, _ = inspect("--show-words", "scratch")  # another run
    assert code == 1 and "settings.words" in told


def test_without_words_nothing_is_said_of_them(inspect, tmp_path):
    code, _, (record, _) = inspect()
    assert code == 0 and record["words"] == [] and record["area"] is None
    assert not {"word0", "area"} & record["assets"].keys()
    assert "words" not in json.loads((tmp_path / "run" / "run.json").read_text())["settings"]


@pytest.mark.parametrize("words", ["", "scratch,,hole", "scratch, "])
def test_an_empty_word_ends_the_command_in_one_line(inspect, words):
    code, told, records = inspect("--show-words", words)
    assert code == 1 and not records
    assert "an empty word can be seen nowhere: name what is looked for" in told


def test_a_word_in_another_script_is_remarked_on(inspect):
    code, told, _ = inspect("--show-words", "螺丝", "--no-report")
    assert code == 0
    assert "the word '螺丝' is not written in Latin letters: the model hardly knows it" in told


def test_an_area_in_words_is_written_and_shown(inspect, monkeypatch, tmp_path):
    left = np.repeat([[0.9, 0.9, 0.1, 0.1]], 4, axis=0).astype(np.float32)
    monkeypatch.setattr(WordSight, "_area_map", lambda *asked: left)
    code, _, records = inspect("--roi", "the screw, not the background")
    assert code == 0
    for record in records:
        assert record["area"]["words"] == "screw, not background"
        assert record["area"]["percent"] == pytest.approx(50, abs=3)
        assert all(region["box"][0] < 26 for region in record["regions"])
        assert (tmp_path / "run" / record["assets"]["area"]).exists()
    page = (tmp_path / "run" / "report.html").read_text()
    assert '"area":{"words":"screw, not background"' in page


@pytest.mark.parametrize(
    ("area", "why"),
    [
        ("not the background", "only says what is not inspected"),
        ("the, a", "holds no word"),
        ("none.png", "none.png"),
    ],
)
def test_an_area_that_names_nothing_ends_the_command_in_one_line(inspect, area, why):
    code, told, records = inspect("--roi", area)
    assert code == 1 and not records and why in told


def test_an_area_in_words_is_not_measured(run, shelf):
    code, _, err = run("evaluate", "--data", shelf / "parts", "--roi", "the screw")
    assert code == 1 and "measure with a mask picture" in err

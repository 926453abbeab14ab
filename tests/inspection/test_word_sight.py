"""Where a word is seen, and inspecting what words name."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
import torch
from models import picture, tiny_backbone, write_tiny_weights

import zerodefect
from zerodefect import Inspector, PolicyMismatch
from zerodefect.detector.combined import Combined
from zerodefect.evaluation.contender import product_contender
from zerodefect.inspection.word_sight import WordSight, is_mask
from zerodefect.methods.autoencoder import Autoencoder
from zerodefect.methods.clip_surgery import CLIPSurgery
from zerodefect.methods.winclip import WinCLIP
from zerodefect.scoring.areas import AreaWords

LEFT = "the left, not the right"


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return write_tiny_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture
def sees_left(monkeypatch):
    """A model that finds any words in the left half."""

    def map(self, seen, words):
        return np.repeat([[0.9, 0.9, 0.1, 0.1]], 4, axis=0).astype(np.float32)

    monkeypatch.setattr(WordSight, "_area_map", map)


def made(roi=None) -> Inspector:
    inspector = Inspector(WinCLIP(tiny_backbone()).eval(), roi=roi)
    inspector.describe("screw")
    return inspector


# --- words ---------------------------------------------------------------------------------------


def test_a_word_has_a_map_at_the_size_of_the_picture_on_the_scale_of_the_method():
    inspector, seen = made(), picture(1, 60, 90)
    map = inspector.where("  scratch ", seen)
    assert map.shape == (60, 90) and map.dtype == np.float32 and 0 <= map.min() <= map.max() <= 1
    surgery = CLIPSurgery(tiny_backbone()).eval()
    pixels = surgery.preprocess(zerodefect.open_image(seen))[None]
    with torch.no_grad():
        evidence = surgery.word_evidence(surgery.encode(pixels), ["scratch"])[0, 0]
    (word,) = inspector.see_words(zerodefect.open_image(seen), ["scratch"])
    np.testing.assert_allclose(word.map, evidence.sigmoid(), atol=1e-6)
    x, y = word.at
    row, column = y * word.map.shape[0] // 60, x * word.map.shape[1] // 90
    assert word.map[row, column] == word.map.max() == word.span[1]


def test_the_detectors_own_weights_are_asked_and_not_loaded_again():
    inspector = made()
    shared = inspector.surgery.clip.visual.proj
    assert shared.data_ptr() == inspector.detector.clip.visual.proj.data_ptr()
    joint = Combined({"autoencoder": Autoencoder(), "winclip": inspector.detector})
    found = Inspector(joint).surgery.clip.visual.proj
    assert found.data_ptr() == shared.data_ptr()


def test_a_detector_without_a_clip_asks_the_embedded_one():
    inspector = zerodefect.load("padim", device="cpu")
    assert inspector.surgery.backbone == "embedded" and inspector.surgery.sizes == (256, 256)
    assert inspector.where("scratch", picture(1)).shape == (80, 96)


def test_a_flat_map_and_an_unknown_word_are_called_so(monkeypatch):
    inspector, told = made(), list[str]()
    assert inspector.asked_words(["scratch", "螺丝", "scratch"], told.append) == ["scratch", "螺丝"]
    assert told == ["the word '螺丝' is not written in Latin letters: the model hardly knows it"]
    monkeypatch.setattr(WordSight, "_evidence", lambda *asked: torch.zeros(2, 4, 4))
    flat, unknown = inspector.see_words(zerodefect.open_image(picture(1)), ["label", "螺丝"])
    assert flat.remark == "the model sees no place for the word 'label': its map is flat"
    assert unknown.remark.startswith("the model sees no place")


@pytest.mark.parametrize("words", [[], ["scratch", " "]])
def test_no_word_is_refused(words):
    with pytest.raises(ValueError, match="an empty word can be seen nowhere"):
        made().asked_words(words)


def test_a_word_that_is_too_long_is_refused_before_the_work():
    with pytest.raises(ValueError, match="tokens, but the text tower reads 77"):
        made().asked_words(["scratch " * 90])


# --- areas by words ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("roi", "mask"),
    [
        (LEFT, False),
        ("screw", False),
        (AreaWords(("screw",)), False),
        ("screw.png", True),
        ("masks/screw", True),
        (None, True),
        ("screw no. 5, not the table", False),
    ],
)
def test_text_that_looks_like_a_file_is_one(roi, mask):
    assert is_mask(roi) is mask


def test_a_file_of_that_name_is_a_mask(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert not is_mask("screw")
    (tmp_path / "screw").write_bytes(b"")
    assert is_mask("screw")


def test_what_lies_outside_changes_nothing(sees_left):
    inspector = made(LEFT)
    one = picture(3, 64, 64)
    other = one.copy()
    other[:, 36:] = 255 - other[:, 36:]
    first, second = inspector.inspect(one), inspector.inspect(other)
    assert second.score == pytest.approx(first.score, abs=1e-6)
    assert all(region.box[0] < 34 for region in second.regions)
    told = json.loads(json.dumps(first.to_dict()))["area"]
    assert told["words"] == "left, not right" and told["percent"] == pytest.approx(50, abs=2)
    assert told["rle"]["size"] == [64, 64]
    assert made().inspect(one).to_dict()["area"] is None


def test_an_area_that_words_do_not_find_is_told_and_all_is_inspected(monkeypatch):
    monkeypatch.setattr(WordSight, "_area_map", lambda *asked: np.full((4, 4), 0.5, np.float32))
    inspected, whole = made(LEFT).inspect(picture(3)), made().inspect(picture(3))
    assert inspected.score == whole.score
    why = "the model sees no place for left, not right: the whole picture is inspected"
    assert inspected.notes == (why,)
    assert inspected.to_dict()["area"] == {"words": "left, not right", "percent": 100, "rle": None}


def test_limits_of_other_words_are_refused(sees_left):
    inspector = made(LEFT)
    inspector.calibrate([picture(seed) for seed in range(10, 16)])
    inspector.roi = "the right, not the left"
    with pytest.raises(PolicyMismatch, match="other areas: see --roi"):
        inspector.inspect(picture(3))
    inspector.roi = LEFT
    assert inspector.roi == AreaWords(("left",), ("right",)) and inspector.inspect(picture(3))


def test_words_travel_in_a_product_file(sees_left, weights, tmp_path):
    inspector = zerodefect.load("winclip", backbone=str(weights), object="screw", roi=LEFT)
    inspector.remember([picture(seed, 60, 90) for seed in range(3)])
    inspector.calibrate([picture(seed, 60, 90) for seed in range(10, 16)])
    inspector.save(tmp_path / "screw.zd")
    again = zerodefect.load(tmp_path / "screw.zd", device="cpu")
    assert again.roi == AreaWords(("left",), ("right",)) and again.facts() == inspector.facts()
    one, other = (each.inspect(picture(3, 60, 90)) for each in (inspector, again))
    assert (one.score, one.to_dict()["area"]) == (other.score, other.to_dict()["area"])
    card = again.file.card()
    assert "Only part of a picture is inspected (words: left, not right)" in card
    with pytest.raises(ValueError, match="an area by words is another one in every picture"):
        product_contender(again, "screw")


def test_an_inspector_with_words_goes_to_other_processes(weights):
    inspector = zerodefect.load("winclip", backbone=str(weights), object="screw", roi=LEFT)
    there = pickle.loads(pickle.dumps(inspector))
    one, other = (each.inspect(picture(3)) for each in (inspector, there))
    assert one.to_dict() == other.to_dict() and one.area is not None

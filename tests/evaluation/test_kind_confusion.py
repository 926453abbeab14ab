"""Which kinds are called what: by examples that are left out, by words, as a product was taught."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from models import picture, tiny_backbone
from small_detectors import SMALL, Setting

from zerodefect.data import load_dataset
from zerodefect.evaluation.count_errors import CountErrors
from zerodefect.evaluation.evaluator import Evaluator
from zerodefect.evaluation.kind_confusion import Confusion
from zerodefect.evaluation.predictions import Taught
from zerodefect.evaluation.protocol import Protocol
from zerodefect.evaluation.result_tables import write_results
from zerodefect.images import encode_png
from zerodefect.inspection.inspector import Inspector
from zerodefect.methods.dense import DenseCLIP

SHAPES = {"line": (3, 40), "spot": (14, 14)}


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """Eight white lines and eight white spots, and three good pictures."""
    root = tmp_path_factory.mktemp("data") / "parts" / "nut"
    for kind, count in (("good", 3), ("line", 8), ("spot", 8)):
        for seed in range(count):
            pixels = picture(seed + 100 * len(kind) + (kind == "spot") * 50, 48, 56)
            path = root / "test" / kind / f"{seed}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            if kind != "good":
                height, width = SHAPES[kind]
                mask = np.zeros(pixels.shape[:2], np.uint8)
                mask[8 + seed : 8 + seed + height, 6 : 6 + width - seed] = 255
                pixels[mask > 0] = 255
                truth = root / "ground_truth" / kind / f"{seed}_mask.png"
                truth.parent.mkdir(parents=True, exist_ok=True)
                truth.write_bytes(encode_png(mask))
            path.write_bytes(encode_png(pixels))
    return root.parent


def evaluated(tree, kinds, method=DenseCLIP):
    protocol = Protocol(kind_examples=kinds, resolution="network", approximate=True)
    return Evaluator(method(tiny_backbone()), load_dataset(tree), protocol).run()


def test_a_confusion_counts_pairs_by_hand():
    pairs = [("a", "a"), ("a", "b"), ("b", "b"), ("b", None), ("b", "c"), ("b", "b")]
    found = Confusion.of("nut", "told by words", pairs)
    assert found.called == ("a", "b", "c", "unknown")
    assert found.counts == ((1, 1, 0, 0), (0, 2, 1, 1))
    assert found.right == pytest.approx(3 / 6)
    assert "50.0 % of 6 pictures right, told by words." in list(found.lines())
    assert "| b | 0 | 2 | 1 | 1 |" in list(found.lines())


def test_errors_of_counts_by_hand():
    """Two lines are told as two; one spot of two is found; what is below the limit is none."""
    map, mask = np.zeros((2, 40, 40), np.float32)
    mask[4:8, 2:38] = mask[30:34, 2:38] = 1
    map[4:8, 2:38] = map[30:34, 2:38] = 0.9
    half = map * (np.arange(40) < 20)[:, None]
    found = CountErrors.of(
        "nut", "by hand", 0.5, [("line", map, mask), ("spot", half, mask), ("spot", half / 2, mask)]
    )
    every, line, spot = found.rows
    assert (line.kind, line.pictures, line.true, line.told, line.plain, line.holds) == (
        *("line", 1, 2.0, 0.0, 0.0, 1.0),
    )
    assert (spot.pictures, spot.true, spot.told, spot.plain, spot.holds) == (2, 2.0, 1.5, 1.5, 0.0)
    assert every.kind == "all" and every.told == pytest.approx(1.0)
    assert "| spot | 2 | 2.00 | 1.50 | 1.50 | 0 % |" in list(found.lines())
    assert "Regions above 0.5, by hand." in "\n".join(found.lines())


def test_examples_are_left_out_and_the_others_told_by_them(tree, tmp_path):
    evaluation = evaluated(tree, 10)  # half of eight are drawn
    (found,) = evaluation.confusions
    assert sorted(found.kinds) == ["line", "spot"]
    assert [sum(row) for row in found.counts] == [4, 4]
    assert found.right >= 0.75
    assert (
        found.by == "told by examples: 4 of each kind (10 asked for; half of the pictures at most)"
    )
    assert evaluated(tree, 2).confusions[0].by == "told by examples: 2 of each kind"
    assert evaluated(tree, 10).confusions == evaluation.confusions  # always the same draw
    files = write_results(evaluation, tmp_path, "dense")
    stored = json.loads(files[0].read_text())
    assert stored["kinds"][0]["right"] == found.right and stored["transductive"] is False
    (counted,) = stored["counts"]
    assert [(row["kind"], row["pictures"], row["true"]) for row in counted["rows"]] == [
        *(("all", 16, 1.0), ("line", 8, 1.0), ("spot", 8, 1.0)),
    ]
    assert counted["by"] == "the highest value on the good pictures of the test"
    assert "Number of defects of nut" in files[1].read_text()
    assert "Kinds of nut, the damaged area known" in files[1].read_text()


def test_without_examples_kinds_are_told_by_words(tree):
    (found,) = evaluated(tree, 0).confusions
    assert [sum(row) for row in found.counts] == [8, 8]
    assert set(found.called) <= {"line", "spot"}
    assert found.by == "told by words, the names of its kinds"


@pytest.mark.parametrize("kinds", [0, 3])
def test_where_no_kind_can_be_told_a_note_says_so(tree, kinds):
    evaluation = evaluated(tree, kinds, lambda _: Setting("ganomaly", SMALL["ganomaly"]).build())
    assert evaluation.confusions == ()
    assert any("kinds are not told" in note for note in evaluation.notes)


def test_nothing_is_told_unless_asked_and_facts_stay(tree):
    evaluation = evaluated(tree, None)
    assert evaluation.confusions == evaluation.counts == ()
    assert "kind_examples" not in evaluation.facts["protocol"]
    with pytest.raises(ValueError, match="0 or more examples"):
        Protocol(kind_examples=-1)


def measured_as_taught(tree, count, named=True, **how):
    """Kinds as a product was taught them by the first pictures of each."""
    made = Inspector(DenseCLIP(tiny_backbone()))
    made.describe("nut")
    tests, truth = tree / "nut" / "test", tree / "nut" / "ground_truth"
    pairs = {
        kind: [(tests / kind / f"{n}.png", truth / kind / f"{n}_mask.png") for n in range(count)]
        for kind in SHAPES
    }
    kinds = made.teach_kinds(pairs)
    taught = Taught(made.snapshot().known, kinds=kinds if named else replace(kinds, digests=()))
    protocol = Protocol(kind_examples=0, resolution="network", approximate=True, **how)
    return Evaluator(made.detector, load_dataset(tree), protocol, taught=taught).run()


def test_examples_of_taught_kinds_are_left_out_unless_asked_for(tree, tmp_path):
    evaluation = measured_as_taught(tree, 6)
    (found,) = evaluation.confusions
    assert [sum(row) for row in found.counts] == [2, 2]
    assert any(one.startswith("12 of 16 damaged pictures are examp") for one in evaluation.notes)
    written = write_results(evaluation, tmp_path, "dense")[1].read_text()
    assert "Nothing was trained" not in written and "told by labelled examples" in written
    allowed = measured_as_taught(tree, 6, allow_training_pictures=True)
    assert [sum(row) for row in allowed.confusions[0].counts] == [8, 8]
    assert any("no figures of new ones" in one for one in allowed.notes)


def test_where_all_are_examples_nothing_is_counted(tree):
    evaluation = measured_as_taught(tree, 8)
    assert evaluation.confusions == ()
    assert any("16 of 16 damaged pictures are examples" in one for one in evaluation.notes)


def test_kinds_of_earlier_files_name_no_examples_which_is_said(tree):
    evaluation = measured_as_taught(tree, 6, named=False)
    assert [sum(row) for row in evaluation.confusions[0].counts] == [8, 8]
    assert any("it is unknown whether kinds were taught" in one for one in evaluation.notes)

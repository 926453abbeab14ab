"""Official checkpoints are checked key by key, and all faults are told at once."""

import pytest
import torch

from zerodefect.detector.official_files import Checked


def test_what_is_taken_and_ignored_passes():
    published = {"a": torch.ones(2, 3, dtype=torch.float16), "ids": torch.arange(4), "epoch": 15}
    checked = Checked(published, "file")
    value = checked.take("a", (2, 3))
    assert value.dtype == torch.float32 and value.eq(1).all()
    assert checked.take("ids", [4]).dtype == torch.int64
    checked.ignore("epo*")
    checked.ignore("nothing like it")
    checked.done()


def test_all_faults_are_listed_at_once():
    published = {
        "shape": torch.zeros(2, 3),
        "number": 3,
        "broken": torch.tensor([float("nan")]),
        "extra": torch.zeros(1),
    }
    checked = Checked(published, "epoch_15.pth")
    assert checked.take("absent", (4, 5)).shape == (4, 5)
    assert checked.take("shape", (3, 2)).shape == (3, 2)
    checked.take("number", (1,))
    checked.take("broken", (1,))
    checked.fault("the tokens are those of other texts")
    with pytest.raises(ValueError, match=r"^epoch_15\.pth: ") as caught:
        checked.done()
    for told in (
        "absent is missing",
        "shape has shape (2, 3) instead of (3, 2)",
        "number is a int, not a tensor",
        "broken holds values that are not finite",
        "the tokens are those of other texts",
        "extra is unknown",
    ):
        assert told in str(caught.value)


def test_dictionaries_inside_are_part_of_the_check():
    published = {"learner": {"x": torch.zeros(1), "y": torch.zeros(1)}, "scale": 3}
    checked = Checked(published, "file")
    learner = checked.inside("learner")
    learner.take("x", (1,))
    learner.take("z", (1,))
    checked.inside("scale")
    checked.inside("tower")
    with pytest.raises(ValueError) as caught:
        checked.done()
    for told in (
        "learner/z is missing",
        "learner/y is unknown",
        "scale is a int, not a dictionary",
        "tower is missing",
    ):
        assert told in str(caught.value)
    assert "scale is unknown" not in str(caught.value)


def test_a_file_that_is_no_dictionary():
    with pytest.raises(ValueError, match="a list instead of named values"):
        Checked([1, 2], "file")


def test_taken_values_are_copies():
    stored = torch.zeros(2)
    Checked({"a": stored}, "file").take("a", (2,)).fill_(1)
    assert stored.eq(0).all()

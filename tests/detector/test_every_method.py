"""What holds for every registered method, and what WinCLIP adds."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from models import tiny_backbone

from zerodefect import methods
from zerodefect.detector.contract import Detector, UnsupportedError
from zerodefect.detector.registry import MethodInfo, register
from zerodefect.methods.winclip import WinCLIP, WinCLIPConfig
from zerodefect.prompts.vocabulary import Vocabulary
from zerodefect.types import Prediction


def images(count: int, side: int = 64, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module", params=methods.names())
def detector(request) -> Detector:
    made = methods.create(request.param, tiny_backbone())
    if "words" in made.info.knows_from:
        made.describe("screw", Vocabulary.default())
    return made


# --- every method ----------------------------------------------------------------------------


def test_shapes_ranges_and_purity(detector):
    batch = images(3)
    first, second = detector(batch), detector(batch)
    assert first.score.shape == (3,)
    assert first.map.shape == (3, 64, 64)
    low, high = detector.map_range
    assert low <= first.map.min()
    assert first.map.max() <= high
    assert torch.equal(first.map, second.map)
    assert torch.equal(first.score, second.score)
    if first.type_map is not None:
        kinds = len(detector.kinds)
        assert first.type_map.shape == (3, kinds, 64, 64)
        assert first.type_score.shape == (3, kinds)
        torch.testing.assert_close(first.type_map.sum(1), torch.ones(3, 64, 64))
        torch.testing.assert_close(first.type_score.sum(1), torch.ones(3))


def test_batch_of_eight_equals_batches_of_one(detector):
    batch = images(8)
    together = detector(batch)
    for row in range(8):
        alone = detector(batch[row : row + 1])
        for field in dataclasses.fields(Prediction):
            one, many = getattr(alone, field.name), getattr(together, field.name)
            if one is not None:
                torch.testing.assert_close(one[0], many[row], atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", [(64, 64), (40, 88), (128, 64)])
def test_any_size_that_patches_divide(detector, size):
    batch = torch.randn(2, 3, *size)
    assert detector(batch).map.shape == (2, *size)


def test_facts_are_plain_data_and_carry_the_registered_name(detector):
    facts = detector.facts()
    assert json.loads(json.dumps(facts))["method"] == detector.info.name


def test_what_a_method_cannot_learn_from_is_said_clearly(detector):
    calls = {
        "words": lambda: detector.describe("screw"),
        "references": lambda: detector.remember(images(1)),
        "set": lambda: detector.score_set(images(3)),
        "training": lambda: detector.training_loss(None),
    }
    if "training" in detector.info.knows_from:
        del calls["words"]  # learned sentences about any object: a name is kept for the reports
    for knowledge, call in calls.items():
        if knowledge not in detector.info.knows_from:
            with pytest.raises(UnsupportedError, match=f"cannot learn normality from {knowledge}"):
                call()


def test_registered_facts_are_complete():
    for name in methods.names():
        info = methods.get(name).info
        assert info.name == name
        assert info.knows_from
        assert info.paper
        assert info.parity
        assert all(0 < figure.value <= 100 and figure.source for figure in info.figures)


# --- the registry ----------------------------------------------------------------------------


def test_unknown_names_and_options():
    with pytest.raises(ValueError, match="Did you mean 'winclip'"):
        methods.get("winclipp")
    with pytest.raises(ValueError, match=r"no option 'temprature'; it has: .*temperature"):
        methods.create("winclip", tiny_backbone(), temprature=1)


def test_a_name_can_be_taken_only_once():
    info = MethodInfo("winclip", "x", "prompt", ("words",), "x", "x", "x")
    with pytest.raises(ValueError, match="two methods are named 'winclip'"):
        register(info)(type("Other", (Detector,), {}))
    assert methods.get("winclip").detector is WinCLIP


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        ({"temperature": 0.0}, "temperature must be positive"),
        ({"scales": ()}, "scales"),
        ({"scales": (0,)}, "scales"),
        ({"image_score": "best"}, "image_score"),
    ],
)
def test_impossible_hyper_parameters(option, reason):
    with pytest.raises(ValueError, match=reason):
        WinCLIPConfig(**option)


# --- WinCLIP ---------------------------------------------------------------------------------


@pytest.fixture
def winclip() -> WinCLIP:
    made = WinCLIP(tiny_backbone())
    made.describe("screw", Vocabulary.of(["rust", "burr", "dent"]))
    return made


def test_words_come_first():
    with pytest.raises(RuntimeError, match="call describe"):
        WinCLIP(tiny_backbone())(images(1))


def test_image_score_choices(winclip):
    batch = images(2)
    text = winclip(batch).score
    grid = WinCLIP(tiny_backbone(), WinCLIPConfig(image_score="map"))
    grid.describe("screw")
    both = WinCLIP(tiny_backbone(), WinCLIPConfig(image_score="mean"))
    both.describe("screw")
    torch.testing.assert_close(both(batch).score, (text + grid(batch).score) / 2)
    torch.testing.assert_close(grid(batch).score, grid(batch).map.amax((1, 2)))


def test_a_reference_is_at_no_distance_from_itself(winclip):
    batch = images(2)
    zero_shot = winclip(batch)
    winclip.remember(batch)
    few_shot = winclip(batch)
    torch.testing.assert_close(few_shot.map, zero_shot.map / 2, atol=1e-4, rtol=0)
    winclip.forget()
    assert torch.equal(winclip(batch).map, zero_shot.map)


def test_references_may_come_in_parts(winclip):
    batch, references = images(2), images(11, seed=5)
    winclip.remember(references)
    together = winclip(batch).map
    winclip.forget()
    for reference in references:
        winclip.remember(reference[None])
    assert winclip.shots == 11
    torch.testing.assert_close(winclip(batch).map, together, atol=1e-6, rtol=0)


def test_leave_one_out_is_what_it_says(winclip):
    batch = images(4)
    fast = winclip.score_left_out(batch)
    general = Detector.score_left_out(winclip, batch)
    torch.testing.assert_close(fast.score, general.score, atol=1e-6, rtol=0)
    torch.testing.assert_close(fast.map, general.map, atol=1e-6, rtol=0)
    assert winclip.shots == 0
    with pytest.raises(ValueError, match="at least two"):
        winclip.score_left_out(batch[:1])


def test_more_references_never_raise_score_or_map(winclip):
    """The property that leave-one-out calibration rests on."""
    batch, references = images(5), images(6, seed=9)
    winclip.remember(references[:2])
    few = winclip(batch)
    winclip.remember(references[2:])
    many = winclip(batch)
    assert (many.score <= few.score + 1e-6).all()
    assert (many.map <= few.map + 1e-6).all()


def test_kinds_follow_the_vocabulary_and_nothing_else_does(winclip):
    batch = images(2)
    before = winclip(batch)
    assert winclip.kinds == ("rust", "burr", "dent")
    winclip.describe("screw", Vocabulary.of(["rust"]))
    after = winclip(batch)
    assert torch.equal(before.map, after.map)
    assert torch.equal(before.score, after.score)
    assert after.type_map.shape[1] == 1
    winclip.describe("screw")
    assert winclip(batch).type_map is None


def test_refused_words_change_nothing(winclip):
    """The product's texts and the kinds' texts are replaced together or not at all."""
    batch = images(2)
    before = winclip(batch)
    with pytest.raises(ValueError, match="reads 77"):
        winclip.describe("bolt", Vocabulary.of(["rust", "rust " * 90]))
    assert winclip.object_name == "screw"
    assert torch.equal(winclip(batch).score, before.score)
    assert torch.equal(winclip(batch).type_map, before.type_map)


def test_window_chunks_do_not_change_the_numbers(winclip, monkeypatch):
    batch = images(3)
    whole = winclip(batch).map
    monkeypatch.setattr("zerodefect.methods.winclip._TOKENS_CPU", 64)
    torch.testing.assert_close(winclip(batch).map, whole, atol=1e-6, rtol=0)


def test_the_neutral_point_exists_only_without_references(winclip):
    assert winclip.neutral_score == 0.5
    winclip.remember(images(1))
    assert winclip.neutral_score is None


def test_a_picture_smaller_than_a_window_is_an_error(winclip):
    with pytest.raises(ValueError, match="no 2x2 window fits a grid of 1x1"):
        winclip(torch.randn(1, 3, 8, 8))

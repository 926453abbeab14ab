"""Files that earlier versions wrote: those that fit still do, others are refused by what differs.

``former/`` holds limits and a product of ``pyramid`` on EfficientNet-Lite0, at 64 pixels, from
``good()`` and three references of their own, or with each left out in turn. Limits of Dense CLIP
and initial values of AnomalyCLIP are older: from before network and knowledge were told apart, on
the third embedded model, whose weights are not those of today.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from zerodefect import Inspector, Policy, PolicyMismatch, load
from zerodefect.detector.checkpoint_file import CheckpointError, read_checkpoint
from zerodefect.inspection.archive import ProductError
from zerodefect.inspection.load_inspector import renewed
from zerodefect.methods import load_detector

FORMER = Path(__file__).parent / "former"
FORMER_EMBEDDED = "eaa081f172c9"
RATES = {"false_alarms": 0.2, "review_rate": 0.4}


def smooth(seed: int, height: int, width: int, marks: int) -> np.ndarray:
    draws = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:height, 0:width]
    base = 120 + 30 * np.sin(columns / 17 + seed % 3) + 20 * np.cos(rows / 11)
    pixels = base[..., None] + draws.normal(0, 6, (height, width, 3))
    for _ in range(marks):
        y, x = draws.integers(8, height - 8), draws.integers(8, width - 8)
        pixels[y - 4 : y + 5, x - 4 : x + 7] = draws.integers(0, 255, 3)
    return pixels.clip(0, 255).astype(np.uint8)


def good() -> list[np.ndarray]:
    return [smooth(seed, 96, 128, 0) for seed in range(6)]


def marked() -> np.ndarray:
    return smooth(50, 96, 128, 2)


def references() -> list[np.ndarray]:
    return [smooth(seed, 96, 128, 0) for seed in range(20, 23)]


@pytest.fixture(scope="module")
def detector():
    return load_detector("pyramid", device="cpu", image_size=64)


@pytest.fixture
def inspector(detector):
    made = Inspector(detector)
    made.describe("metal plate")
    return made


def same_limits(one: Policy, other: Policy) -> None:
    assert one.fingerprint == other.fingerprint
    assert (one.form, one.guaranteed) == (other.form, other.guaranteed)
    assert (one.false_alarms, one.review_rate) == (other.false_alarms, other.review_rate)
    assert one.scores == pytest.approx(other.scores, rel=1e-3)
    assert one.map_maxima == pytest.approx(other.map_maxima, rel=1e-3)
    assert one.limits.unsure == pytest.approx(other.limits.unsure, rel=1e-3)
    assert one.limits.defect == pytest.approx(other.limits.defect, rel=1e-3)
    assert one.region_limit == pytest.approx(other.region_limit, rel=1e-3)


def judged_as_then(inspector: Inspector, score: float) -> None:
    found = inspector.inspect(marked())
    assert found.calibrated and found.verdict == "defect" and found.regions
    assert found.score == pytest.approx(score, rel=1e-3)


def test_a_policy_from_good_pictures_fits_and_is_learned_again(inspector):
    former = Policy.load(FORMER / "pyramid-split.json")
    inspector.remember(references())
    inspector.policy = former
    judged_as_then(inspector, 8.0867)
    same_limits(inspector.calibrate(good(), **RATES), former)


def test_a_policy_of_left_out_references_fits_and_is_learned_again(inspector):
    former = Policy.load(FORMER / "pyramid-loo.json")
    inspector.remember(good())
    inspector.policy = former
    judged_as_then(inspector, 20.9127)
    same_limits(inspector.calibrate(good(), leave_one_out=True, **RATES), former)


def test_a_product_file_fits_and_is_learned_again():
    again = load(FORMER / "pyramid.zd", device="cpu")
    former = Policy.load(FORMER / "pyramid-split.json")
    same_limits(again.policy, former)
    judged_as_then(again, 8.0867)
    renewed_policy = renewed(FORMER / "pyramid.zd", device="cpu").policy  # of shrunk pictures
    assert (renewed_policy.form, renewed_policy.guaranteed) == (former.form, True)
    assert len(renewed_policy.scores) == len(former.scores)


def test_they_are_as_strict_as_they_were(inspector):
    inspector.remember(references())
    inspector.policy = Policy.load(FORMER / "pyramid-split.json")
    with pytest.raises(PolicyMismatch, match="object"):
        inspector.inspect(marked(), "wooden plate")
    inspector.policy = Policy.load(FORMER / "pyramid-loo.json")
    with pytest.raises(PolicyMismatch, match="detector"):
        inspector.inspect(marked())  # with other references


@pytest.mark.parametrize("name", ["dense-split", "dense-loo"])
def test_limits_of_other_weights_are_read_and_refused(name):
    policy = Policy.load(FORMER / f"{name}.json")
    assert (policy.method, policy.guaranteed, len(policy.scores)) == ("dense", True, 6)
    inspector = Inspector(load_detector("dense", device="cpu"), policy=policy)
    inspector.describe("metal plate")
    if name == "dense-loo":
        inspector.remember(good())
    with pytest.raises(PolicyMismatch, match=r"detector .*when calibrated.*zerodefect calibrate"):
        inspector.inspect(marked())


def test_a_checkpoint_of_other_weights_is_read_and_refused():
    path = FORMER / "anomalyclip.safetensors"
    known = read_checkpoint(path)
    assert known.method == "anomalyclip" and known.weights.startswith(FORMER_EMBEDDED)
    with pytest.raises(CheckpointError, match=rf"weights {FORMER_EMBEDDED}.*--backbone, --weights"):
        load_detector(checkpoint=path, device="cpu")


def test_an_option_that_came_later_is_told_only_where_it_is_used(detector):
    usual, used = detector.facts(), load_detector("pyramid", device="cpu", thorough=True).facts()
    assert "sizes" not in usual["config"] and used["config"]["sizes"] == [0.7, 1.0]


def test_a_thorough_product_stays_one_when_it_is_learned_anew(tmp_path):
    small = {"thorough": True, "image_size": 96}
    inspector = load("pyramid", object="plate", references=references(), **small)
    inspector.save(tmp_path / "plate.zd")
    again, anew = load(tmp_path / "plate.zd"), renewed(tmp_path / "plate.zd")
    assert again.detector.sizes == anew.detector.sizes == (96, 96)
    assert again.detector.facts() == anew.detector.facts() == inspector.detector.facts()
    assert again.inspect(marked()).score == pytest.approx(inspector.inspect(marked()).score)
    with pytest.raises(ProductError, match="thorough was given"):
        load(tmp_path / "plate.zd", thorough=True)

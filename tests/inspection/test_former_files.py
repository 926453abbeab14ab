"""Files that earlier versions wrote still fit: policies and checkpoints, kept here as they were.

``former/`` was written before network and knowledge were told apart, on the third embedded model:
Dense CLIP's limits from ``good()``, as ``calibrate`` with and without ``--leave-one-out``, and
AnomalyCLIP's initial values as a checkpoint.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from zerodefect import Inspector, Policy, PolicyMismatch
from zerodefect.backbones.clip_weights import embedded_file
from zerodefect.backbones.weight_files import file_hash
from zerodefect.detector.checkpoint_file import read_checkpoint
from zerodefect.methods import load_detector

FORMER = Path(__file__).parent / "former"
WEIGHTS = "eaa081f172c98b627bbd3fcde385a69fdc4992ebe35190306e6514c7aaab08f1"

pytestmark = pytest.mark.skipif(
    file_hash(embedded_file()) != WEIGHTS, reason="another embedded model than these are bound to"
)


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


@pytest.fixture(scope="module")
def detector():
    return load_detector("dense", device="cpu")


@pytest.fixture
def inspector(detector):
    made = Inspector(detector)
    made.describe("metal plate")
    return made


def same_limits(one: Policy, other: Policy) -> None:
    assert one.fingerprint == other.fingerprint
    assert (one.form, one.guaranteed) == (other.form, other.guaranteed)
    assert (one.false_alarms, one.review_rate) == (other.false_alarms, other.review_rate)
    assert one.scores == pytest.approx(other.scores, abs=1e-4)
    assert one.map_maxima == pytest.approx(other.map_maxima, abs=1e-4)
    assert one.limits.unsure == pytest.approx(other.limits.unsure, abs=1e-4)
    assert one.limits.defect == pytest.approx(other.limits.defect, abs=1e-4)
    assert one.region_limit == pytest.approx(other.region_limit, abs=1e-4)


RATES = {"false_alarms": 0.2, "review_rate": 0.4}


@pytest.mark.slow
def test_a_policy_from_good_pictures_fits_and_is_learned_again(inspector):
    former = Policy.load(FORMER / "dense-split.json")
    inspector.policy = former
    found = inspector.inspect(marked())
    assert found.calibrated and found.verdict == "defect" and found.regions
    assert found.score == pytest.approx(0.98863077, abs=1e-4)  # as it was then
    same_limits(inspector.calibrate(good(), **RATES), former)


@pytest.mark.slow
def test_a_policy_of_left_out_references_fits_and_is_learned_again(inspector):
    former = Policy.load(FORMER / "dense-loo.json")
    inspector.remember(good())
    inspector.policy = former
    found = inspector.inspect(marked())
    assert found.calibrated and found.verdict == "defect" and found.regions
    same_limits(inspector.calibrate(good(), leave_one_out=True, **RATES), former)


@pytest.mark.slow
def test_they_are_as_strict_as_they_were(inspector):
    inspector.policy = Policy.load(FORMER / "dense-split.json")
    with pytest.raises(PolicyMismatch, match="object"):
        inspector.inspect(marked(), "wooden plate")
    inspector.policy = Policy.load(FORMER / "dense-loo.json")
    with pytest.raises(PolicyMismatch, match="detector"):
        inspector.inspect(marked())  # without its references
    inspector.remember(good()[:5])
    with pytest.raises(PolicyMismatch, match="detector"):
        inspector.inspect(marked())


def test_a_checkpoint_loads():
    path = FORMER / "anomalyclip.safetensors"
    detector = load_detector(checkpoint=path, device="cpu")
    stored = load_file(path)
    assert detector.info.name == "anomalyclip" and detector.sizes == (128, 128)
    assert detector.checkpoint == read_checkpoint(path).sha256
    assert detector.learned_values.keys() == stored.keys()
    for name, value in detector.learned_values.items():
        assert torch.equal(value, stored[name]), name
    found = Inspector(detector).inspect(marked())
    assert found.score == pytest.approx(0.30965006, abs=1e-4)  # as it was then

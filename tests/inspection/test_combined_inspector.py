"""An inspector whose detector is several in one, as the default is."""

from __future__ import annotations

import pickle

import pytest
from models import picture, tiny_backbone
from small_detectors import small_cnn

from zerodefect import Inspector
from zerodefect.detector.combined import Combined
from zerodefect.inspection.policy import Policy, PolicyMismatch
from zerodefect.methods import create


@pytest.fixture(scope="module")
def detector():
    parts = {"dense": create("dense", tiny_backbone()), "pyramid": create("pyramid", small_cnn())}
    combined = Combined(parts).eval()
    combined.resize_inputs((64, 64))
    return combined


def good(count, first=0):
    return [picture(seed, 48, 64) for seed in range(first, first + count)]


def test_words_then_references_then_limits(detector):
    inspector = Inspector(detector)
    inspector.describe("nut")
    alone = inspector.inspect(picture(20, 48, 64))
    assert not alone.calibrated and 0 < alone.score < 1
    inspector.remember(good(4))
    shown = inspector.inspect(picture(20, 48, 64))
    assert shown.score != alone.score and shown.map.shape == (48, 64)
    assert shown.p_value is not None  # references are calibrated with, each left out in turn
    policy = inspector.calibrate(good(20, first=40))
    assert policy.form == "split" and policy.guaranteed
    inspector.policy = Policy.model_validate_json(policy.model_dump_json())
    again = inspector.inspect(picture(20, 48, 64))
    assert again.score == shown.score and again.calibrated
    inspector.remember(good(1, first=90))
    with pytest.raises(PolicyMismatch, match="references"):
        inspector.inspect(picture(20, 48, 64))


def test_left_out_references_are_not_promised_a_rate(detector):
    """Scales are learned from all references, so that scores can rise with more of them."""
    policy = Inspector(detector).calibrate(good(8), leave_one_out=True)
    assert policy.form == "leave-one-out" and not policy.guaranteed


def test_a_name_for_one_call_and_none_at_all(detector):
    inspector = Inspector(detector)
    inspector.remember(good(3))
    nameless = inspector.inspect(picture(20, 48, 64))
    assert nameless.object == "object"
    named = inspector.inspect(picture(20, 48, 64), object="copper coil")
    assert named.object == "copper coil" and named.score != nameless.score
    assert inspector.inspect(picture(20, 48, 64)).score == nameless.score
    inspector.describe("copper coil")
    assert inspector.inspect(picture(20, 48, 64)).score == named.score
    assert pickle.loads(pickle.dumps(inspector)).inspect(picture(20, 48, 64)).score == named.score

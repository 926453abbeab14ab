"""SPADE against the numbers of an unofficial implementation (see the case's meta)."""

from __future__ import annotations

import pytest
import torch
from cases import find
from tiny_cnn import CNNCase

from zerodefect.detector.knowledge import Knowledge
from zerodefect.methods.spade import SPADE, SPADEConfig


@pytest.fixture(scope="module", params=find("spade"))
def case(request) -> CNNCase:
    return CNNCase(request.param)


def learned(case: CNNCase, **options) -> tuple[SPADE, Knowledge]:
    facts = case.meta
    config = SPADEConfig(
        layers=tuple(facts["layers"]),
        neighbours=facts["K"],
        sigma=facts["gaussian_sigma"],
        **options,
    )
    detector = SPADE(case.network, config)
    known = detector.remember(detector.empty(), [detector.encode(case.pixels("train"))])
    return detector, detector.settle(known)


def test_pictures_and_features(case):
    case.close("input_test", case.pixels("test")[:2], 1e-5)
    for which in ("train", "test"):
        encoded = learned(case)[0].encode(case.pixels(which))
        for number, level in enumerate(encoded.levels, start=1):
            case.close(f"features_{which}/layer{number}", level.values.mT, 1e-5)
        case.close(f"features_{which}/global", encoded.whole, 1e-5)


def test_neighbours_and_levels(case):
    detector, known = learned(case)
    encoded = detector.encode(case.pixels("test"))
    _, nearest = detector.nearest(encoded, known)
    assert torch.equal(nearest, case.tensor("out/neighbours"))
    for place, name in enumerate(detector.layers):
        d = detector.level(place, encoded, nearest, known)
        case.close(f"out/distance_{name}", d, 1e-5)


def test_scores_and_maps(case):
    detector, known = learned(case, image_score="distance")
    got = detector(case.pixels("test"), known)
    case.close("out/image_score", got.score, 1e-5)
    case.close("out/anomaly_map", got.map, 1e-5)
    squared, known = learned(case)
    case.close("out/image_score_squared", squared(case.pixels("test"), known).score, 1e-5)

"""PaDiM against the numbers of anomalib and of the paper's formulas (see the case's meta)."""

from __future__ import annotations

import pytest
from cases import find
from tiny_cnn import CNNCase

from zerodefect.detector.knowledge import Knowledge
from zerodefect.methods.padim import PaDiM, PaDiMConfig


@pytest.fixture(scope="module", params=find("padim"))
def case(request) -> CNNCase:
    return CNNCase(request.param)


def learned(case: CNNCase, flavour: str) -> tuple[PaDiM, Knowledge]:
    regularisation = case.meta["regularisation"][0]
    config = PaDiMConfig(
        flavour=flavour,
        layers=("layer1", "layer2", "layer3"),
        channels=case.meta["n_features"],
        regularisation=regularisation,
        sigma=case.meta["blur"]["sigma"],
    )
    detector = PaDiM(case.network, config)
    detector.chosen = lambda channels: case.tensor("channel_index").long()
    pixels = case.pixels("train")
    batches = [detector.encode(part) for part in pixels.split(5)]
    return detector, detector.settle(detector.remember(detector.empty(), batches))


def test_pictures_features_and_embeddings(case):
    case.close("input_test", case.pixels("test")[:2], 1e-5)
    for which in ("train", "test"):
        maps = case.network.maps(case.pixels(which), ["layer1", "layer2", "layer3"])
        for number, value in enumerate(maps, start=1):
            case.close(f"features_{which}/layer{number}", value, 1e-5)
    detector, _ = learned(case, "anomalib")
    case.close("out/embedding_test", detector.encode(case.pixels("test")).values.mT, 1e-5)


def test_gaussians(case):
    _, known = learned(case, "anomalib")
    case.close("out/mean", known["gaussian/mean"].T, 1e-5)
    whitening = known["gaussian/whitening"].double()
    inverse = whitening.mT @ whitening
    first = len(case.tensor("out/inverse_covariance"))
    largest = float(case.tensor("out/inverse_covariance").abs().max())
    case.close("out/inverse_covariance", inverse[:first], 2e-3 * largest, 2e-3)
    trace = inverse.diagonal(dim1=1, dim2=2).sum(1)
    case.close("out/inverse_covariance_trace", trace, 0, 2e-3)


def test_scores_of_anomalib(case):
    detector, known = learned(case, "anomalib")
    encoded = detector.encode(case.pixels("test"))
    case.close("out/distance", detector.memory.distance(known, encoded.values), 1e-3)
    got = detector.predict(encoded, known)
    case.close("out/anomaly_map", got.map, 1e-3)
    case.close("out/image_score", got.score, 1e-3)


def test_scores_of_the_paper_over_the_whole_set(case):
    detector, known = learned(case, "paper")
    encoded = detector.encode(case.pixels("test"))
    # the case's own float64 begins at float32 features
    case.close("out/paper/distance", detector.memory.distance(known, encoded.values), 1e-6, 1e-6)
    got = detector.predict(encoded, known)
    case.close("out/paper/anomaly_map", got.map, 1e-6, 2e-6)
    step = detector.set_level("min_max", known)
    step.see(got)
    case.close("out/paper/image_score", step.apply(got).score, 2e-6)

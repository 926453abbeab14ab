"""PatchCore against the numbers of the authors' code and of anomalib (see the case's meta)."""

from __future__ import annotations

import pytest
import torch
from cases import find
from tiny_cnn import CNNCase

from zerodefect.detector.feature_detector import Patches
from zerodefect.detector.knowledge import Knowledge
from zerodefect.layers.coreset import farthest_points
from zerodefect.methods.patchcore import PatchCore, PatchCoreConfig, from_anchors


@pytest.fixture(scope="module", params=find("patchcore"))
def case(request) -> CNNCase:
    return CNNCase(request.param)


def detector_of(case: CNNCase, scoring: str, **options) -> PatchCore:
    facts = case.meta[scoring]
    own = {
        "amazon": lambda: {
            "layer_width": facts["pretrain_embed_dimension"],
            "width": facts["target_embed_dimension"],
            "projected": facts["target_embed_dimension"],
            "fraction": facts["percentage"],
        },
        "anomalib": lambda: {
            "neighbours": facts["num_neighbors"],
            "fraction": facts["sampling_ratio"],
        },
    }
    layers = tuple(case.meta["layers"])
    config = {"scoring": scoring, "layers": layers, "minimum": 1, **own[scoring](), **options}
    return PatchCore(case.network, PatchCoreConfig(**config))


def features(case: CNNCase, detector: PatchCore, which: str) -> Patches:
    return detector.encode(case.pixels(which))


def remembered(case: CNNCase, detector: PatchCore) -> Knowledge:
    """All patches of the training pictures, and of them those that the case says were chosen."""
    known = detector.remember(detector.empty(), [features(case, detector, "train")])
    rows = case.tensor(f"out/{detector.config.scoring}/coreset_index")
    return detector.memory.only(known, "patches", rows)


def test_network_and_pictures(case):
    case.close("input_test", case.pixels("test")[:2], 1e-5)
    for which in ("train", "test"):
        maps = case.network.maps(case.pixels(which), case.meta["layers"])
        for name, value in zip(case.meta["layers"], maps, strict=True):
            case.close(f"features_{which}/{name}", value, 1e-5)


def test_embeddings(case):
    authors, other = (detector_of(case, scoring) for scoring in ("amazon", "anomalib"))
    case.close("out/amazon/embedding_test", features(case, authors, "test").values, 1e-5)
    train = features(case, authors, "train").values
    case.close("out/amazon/embedding_train_sum", train.double().sum(2), 1e-4)
    case.close("out/anomalib/embedding_test", features(case, other, "test").values.mT, 1e-5)


def test_order_and_radius_of_the_coreset(case):
    authors, other = (detector_of(case, scoring) for scoring in ("amazon", "anomalib"))
    e = features(case, authors, "train").values.flatten(0, 1)
    projected = features(case, other, "train").values.flatten(0, 1)
    projected = projected @ case.tensor("anomalib/projection").T
    rows = {"amazon": case.tensor("out/amazon/coreset_index")}
    rows["anomalib"] = case.tensor("out/anomalib/coreset_index")
    found = from_anchors(e, len(rows["amazon"]), case.tensor("amazon/start_points"))
    assert torch.equal(found, rows["amazon"])
    start = int(case.tensor("anomalib/start_index"))
    assert torch.equal(farthest_points(projected, len(rows["anomalib"]), start), rows["anomalib"])
    for scoring, space in (("amazon", e), ("anomalib", projected)):
        radius = torch.cdist(space, space[rows[scoring]]).amin(1).max()
        case.close(f"out/{scoring}/coverage_radius", radius, 1e-3)


def test_as_many_are_chosen_as_there_were(case):
    for scoring in ("amazon", "anomalib"):
        detector = detector_of(case, scoring)
        known = detector.remember(detector.empty(), [features(case, detector, "train")])
        kept = detector.memory.bank(detector.settle(known), "patches").features
        assert len(kept) == len(case.tensor(f"out/{scoring}/coreset_index"))


def test_scores_of_the_authors_code(case):
    detector = detector_of(case, "amazon")
    known, encoded = remembered(case, detector), features(case, detector, "test")
    case.close("out/amazon/patch_score", detector.squared(encoded, known), 1e-4)
    three = detector_of(case, "amazon", neighbours=3)
    case.close("out/amazon/patch_score_k3", three.squared(encoded, known), 1e-4)
    got = detector.predict(encoded, known)
    case.close("out/amazon/image_score", got.score, 1e-4)
    case.close("out/amazon/anomaly_map", got.map, 1e-4)


def test_scores_of_anomalib(case):
    detector = detector_of(case, "anomalib")
    known, encoded = remembered(case, detector), features(case, detector, "test")
    d, rows = detector.memory.neighbours(known, "patches", encoded.values, 1)
    case.close("out/anomalib/patch_distance", d, 1e-4)
    assert torch.equal(rows.flatten(), case.tensor("out/anomalib/nearest").flatten())
    got = detector.predict(encoded, known)
    case.close("out/anomalib/image_score", got.score, 1e-4)
    case.close("out/anomalib/anomaly_map", got.map, 1e-4)

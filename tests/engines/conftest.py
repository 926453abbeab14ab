"""A small detector that is ready to inspect, for all tests of this folder."""

import pytest
from models import picture, write_tiny_weights

import zerodefect
from zerodefect import Inspector, Vocabulary


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A detector that knows its texts, and a policy by which some pictures have regions."""
    folder = tmp_path_factory.mktemp("model")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZERODEFECT_CACHE", str(folder / "texts"))
        inspector = zerodefect.load(backbone=str(write_tiny_weights(folder)), device="cpu")
        inspector.describe("screw")
    policy = inspector.calibrate([picture(seed, 48, 64) for seed in range(50, 60)])
    middle = sum(policy.map_maxima) / len(policy.map_maxima) - 0.01
    return inspector.detector, policy.model_copy(update={"region_limit": middle})


@pytest.fixture
def inspector(prepared):
    detector, policy = prepared
    made = Inspector(detector, policy=policy)
    made.describe("screw", Vocabulary.default())
    return made


@pytest.fixture
def forwarded(prepared, monkeypatch):
    """Counts the pictures that went through the network."""
    detector, _ = prepared
    counts = []
    encode = detector.encode

    def counting(images):
        counts.append(len(images))
        return encode(images)

    monkeypatch.setattr(detector, "encode", counting)
    return lambda: sum(counts)

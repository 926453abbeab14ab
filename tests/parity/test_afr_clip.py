"""AFR-CLIP against numbers derived from the same equations (see the case's meta)."""

from __future__ import annotations

import pytest
import tiny_clip
import torch
from cases import Case, find

from zerodefect.backbones.clip import CLIP, CLIPConfig, TextConfig, VisionConfig
from zerodefect.backbones.clip_weights import CLIPBackbone
from zerodefect.detector.clip_detector import Features
from zerodefect.detector.knowledge import Knowledge, Product
from zerodefect.images import Preprocess
from zerodefect.layers.grid import Grid
from zerodefect.methods.afr_clip import AFRCLIP, AFRCLIPConfig


@pytest.fixture(scope="module", params=find("afr_clip"))
def case(request) -> Case:
    return Case(request.param)


@pytest.fixture(scope="module")
def detector(case) -> AFRCLIP:
    """On towers of the case's sizes, which are never run: the case starts from their features."""
    meta = case.meta
    count, side = meta["layers"], meta["size"]
    clip = CLIP(
        CLIPConfig(
            embed_dim=meta["dim"],
            vision=VisionConfig(side, side // meta["grid"], meta["visual_width"], count, 1),
            text=TextConfig(77, 49408, meta["dim"], 1, 1),
        )
    )
    backbone = CLIPBackbone("tiny", clip.eval(), Preprocess((side, side)), "tiny", "none", "a test")
    config = AFRCLIPConfig(
        taps=tuple(range(1, count + 1)), temperature=meta["temperature"], sigma=0.0
    )
    detector = AFRCLIP(backbone, config)
    seed = meta["seed"]
    values = {
        name: torch.from_numpy(tiny_clip.fill(seed, name, tuple(shape)))
        for name, shape in meta["parameters"]
    }
    assert set(values) == set(detector.learned)
    detector.load_state_dict(values, strict=False)
    return detector


@pytest.fixture(scope="module")
def texts(case) -> tuple[torch.Tensor, torch.Tensor]:
    """t_0 and [t_n, t_a] of a batch of one."""
    return case.tensor("stateless")[None], case.tensor("stateful")[None]


@pytest.fixture(scope="module")
def known(detector, texts) -> Knowledge:
    t_0, t = texts
    return detector.empty().having({"texts": torch.cat([t_0, t[0]])}, product=Product("part"))


@pytest.fixture(scope="module")
def features(case) -> Features:
    grid, size = case.meta["grid"], case.meta["size"]
    return Features(
        grid=Grid(grid, grid, (size, size)),
        image=case.tensor("class_feature")[None],
        patches=tuple(case.tensor("features")[:, None]),
    )


def check(case: Case, name: str, value: torch.Tensor) -> None:
    expected = case.tensor(name)
    tolerance = float(case.meta["tolerance"].split()[-1])
    off = float((value.detach().reshape(expected.shape) - expected).abs().max())
    assert off <= tolerance, f"{name}: off by {off:.3g}"


def test_layers(case, detector, features, texts):
    t_0, t = texts
    for layer, p in enumerate(detector.patches(features)):
        check(case, f"out/layer{layer}/adapted", p)
        check(case, f"out/layer{layer}/gate", detector.rectifier.gate(p, t_0))
        check(case, f"out/layer{layer}/rectified", detector.rectifier(p, t_0))
        check(case, f"out/layer{layer}/prob", detector.probabilities(p, t_0, t))


def test_map_and_score(case, detector, features, texts, known):
    t_0, t = texts
    maps = [detector.probabilities(p, t_0, t)[..., 1] for p in detector.patches(features)]
    check(case, "out/map_low", torch.stack(maps).mean(0))
    class_prob = detector.probabilities(detector.image(features), t_0, t)[..., 1]
    check(case, "out/class_prob", class_prob)
    got = detector.predict(features, known)
    check(case, "out/anomaly_map", got.map)
    check(case, "out/image_score", got.score)

"""AnoVL against the numbers of the authors' program (see the case's meta)."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tiny_clip
import torch
from cases import Case, find

from zerodefect.detector.knowledge import Knowledge, Product
from zerodefect.images import open_image
from zerodefect.layers.similarity import anomaly_probability, text_probabilities
from zerodefect.layers.smoothing import neighbourhood_mean
from zerodefect.methods.anovl import Adapter, AnoVL, AnoVLConfig, adapt, anovl_views


@pytest.fixture(scope="module", params=find("anovl"))
def case(request) -> Case:
    return Case(request.param)


@pytest.fixture(scope="module")
def detector(case) -> AnoVL:
    tta = case.meta["tta"]
    config = AnoVLConfig(
        steps=tta["iterations"],
        learning_rate=tta["lr"],
        weight_decay=tta["weight_decay"],
        noise=tta["noise_std"],
    )
    return AnoVL(case.backbone(), config)


@pytest.fixture(scope="module")
def known(case, detector) -> Knowledge:
    return detector.describe(detector.empty(), Product(case.meta["class_name"]))


@pytest.fixture(scope="module")
def features(case, detector):
    return detector.encode(case.tensor("input"))


def draw(case: Case, name: str, shape) -> torch.Tensor:
    seed = case.meta["extra_parameters"]["seed"]
    return torch.from_numpy(tiny_clip.draw(seed, name, tuple(shape)))


def prepared(case: Case, bank: torch.Tensor, shapes: dict, prefix: str = "") -> Adapter:
    """The adapter with the case's initial values."""
    adapter = Adapter(bank, 0.5, torch.Generator())
    seed = case.meta["extra_parameters"]["seed"]
    adapter.load_state_dict(
        {
            name: torch.from_numpy(tiny_clip.fill(seed, prefix + name, tuple(shape)))
            for name, shape in shapes.items()
        },
        strict=False,
    )
    assert set(shapes) == {name for name, _ in adapter.named_parameters()}
    return adapter


def test_preprocessing(case, detector):
    size = case.meta["run_image_size"]
    preprocess = dataclasses.replace(detector.preprocess, size=(size, size))
    got = preprocess(open_image(case.arrays["image"]))
    np.testing.assert_allclose(got, case.arrays["input"][0], atol=1e-5)


def test_texts(case, known):
    case.check("out/text_features", known["texts"])
    prompts, dimension, states = case.arrays["out/text_bank_shape"]
    assert known["bank"].shape == (prompts * states, dimension)
    case.check("out/text_bank_head", known["bank"][::33])


def test_views_and_image_score(case, detector, known, features):
    views = torch.cat(anovl_views(case.tensor("input")))
    case.check("out/aug_input_subsampled", views[..., ::8, ::8])
    units = torch.nn.functional.normalize(features.views[0], dim=-1)
    case.check("out/aug_class_token", units)
    case.check("out/aug_global_prob", text_probabilities(units, known["texts"], 1.0))
    case.check("out/image_score", detector.predict(features, known).score)


def test_patch_tokens(case, features):
    tokens = torch.cat([features.views[:, :1], *features.patches], dim=1)
    case.check("out/projected_all_tokens", tokens)
    case.check("out/patch_tokens", features.patches[0])


def test_map_without_adaptation(case, features):
    plain = AnoVL(case.backbone(), AnoVLConfig(adapt=False))
    known = plain.describe(plain.empty(), Product(case.meta["class_name"]))
    p = anomaly_probability(features.patches[0], known["texts"], 1.0)
    case.check("out/no_adapter/patch_prob", p)
    case.check("out/no_adapter/anomaly_map", plain.predict(features, known).map)


def test_adaptation(case, detector, known, features):
    shapes = case.meta["extra_parameters"]["shapes"]
    X, texts, bank = features.patches[0][0], known["texts"], known["bank"]
    noise = [n.flatten(0, -2) for n in case.tensor("noise")]
    for step, n in enumerate(noise):
        drawn = detector.config.noise * draw(
            case, f"noise/{step}", case.arrays["noise"][step].shape
        )
        torch.testing.assert_close(n, drawn.flatten(0, -2))

    adapter = prepared(case, bank, shapes)
    adapt(adapter, X, texts, noise[:1], detector.config)
    case.check("out/tta/grad_bias_first", adapter.ad.bias.grad)

    adapter = prepared(case, bank, shapes)
    losses = adapt(adapter, X, texts, noise, detector.config)
    case.check("out/loss/per_iteration", losses)
    case.check("out/tta/bias_after", adapter.ad.bias)
    case.check("out/tta/weight_after_head", adapter.ad.weight[::33])
    case.check("out/tta/tokens", adapter(X))
    p = anomaly_probability(adapter(X), texts, 1.0).view(1, 1, *features.grid.shape)
    case.check("out/patch_prob", p)
    smooth = neighbourhood_mean(p, 3, "replicate")
    case.check("out/anomaly_map", features.grid.upsample(smooth, align_corners=True))


def test_adaptation_of_a_well_conditioned_picture(case, detector):
    shapes = case.meta["unit"]["shapes"]
    X = case.tensor("unit/tokens").flatten(0, -2)
    texts = case.tensor("unit/text").T
    bank = case.tensor("unit/bank").permute(2, 0, 1).flatten(0, 1)
    shape = case.arrays["unit/tokens"].shape
    noise = [
        (detector.config.noise * draw(case, f"unit/noise/{step}", shape)).flatten(0, -2)
        for step in range(detector.config.steps)
    ]
    adapter = prepared(case, bank, shapes, "unit/")
    adapt(adapter, X, texts, noise[:1], detector.config)
    case.check("out/unit/grad_weight_first", adapter.ad.weight.grad)

    adapter = prepared(case, bank, shapes, "unit/")
    case.check(
        "out/unit/loss_per_iteration",
        adapt(adapter, X, texts, noise, detector.config),
    )
    case.check("out/unit/weight_after", adapter.ad.weight)
    case.check("out/unit/tokens", adapter(X))
    case.check("out/unit/patch_prob", anomaly_probability(adapter(X), texts, 1.0))


def test_forward_is_those_steps_with_its_own_draws(case, detector, known, features):
    X, texts, bank = features.patches[0][0], known["texts"], known["bank"]
    generator = torch.Generator().manual_seed(detector.config.seed)
    adapter = Adapter(bank, detector.config.residual, generator)
    noise = [
        detector.config.noise * torch.randn(X.shape, generator=generator)
        for _ in range(detector.config.steps)
    ]
    adapt(adapter, X, texts, noise, detector.config)
    p = anomaly_probability(adapter(X), texts, 1.0).view(1, 1, *features.grid.shape)
    smooth = neighbourhood_mean(p, 3, "replicate")
    expected = features.grid.upsample(smooth, align_corners=True)
    got = detector(case.tensor("input"), known)
    torch.testing.assert_close(got.map, expected.detach()[:, 0], atol=1e-6, rtol=0)

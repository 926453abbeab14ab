"""AnomalyCLIP against the official code's numbers (see the case's meta)."""

from __future__ import annotations

import pytest
import torch
from cases import find
from prompt_cases import PromptCase

from zerodefect.layers.losses import dice_loss, focal_loss
from zerodefect.layers.similarity import cosine, text_probabilities
from zerodefect.methods.anomalyclip import AnomalyCLIP, AnomalyCLIPConfig


@pytest.fixture(scope="module", params=find("anomalyclip"))
def case(request) -> PromptCase:
    return PromptCase(request.param)


def build(case: PromptCase, taps: str) -> AnomalyCLIP:
    settings = case.meta["settings"]
    layers = case.meta["tiny_clip"]["config"]["vision_layers"]
    config = AnomalyCLIPConfig(
        context_length=settings["n_ctx"],
        deep_length=settings["deep_prompt_length"],
        depth=settings["text_depth"],
        stream_start=layers - (settings["dpam_layer_argument"] - 1) + 1,
        taps=tuple(settings[taps]),
        temperature=settings["temperature"],
        sigma=settings["sigma"],
        local_weight=case.meta["training"]["lambda_local"],
    )
    detector = AnomalyCLIP(case.backbone(), config)
    case.fill(detector.prompts)
    return detector


@pytest.fixture(scope="module")
def detector(case) -> AnomalyCLIP:
    return build(case, "features_1based")


@pytest.fixture(scope="module")
def four_taps(case) -> AnomalyCLIP:
    return build(case, "features_1based_4layers")


def test_preprocessing(case, detector):
    case.near("input", case.preprocessed(detector.preprocess), 1e-5)


def test_texts(case, detector):
    ids = case.tensor("out/tokenized_prompts").long()
    assert torch.equal(detector.prompts.token_ids(), ids)
    case.check_feature("out/text_raw", detector.texts)
    case.check_feature("out/text_features", torch.nn.functional.normalize(detector.texts, dim=-1))


def test_image_side(case, detector, four_taps):
    g = detector.encode(case.tensor("input")).image
    case.check_feature("out/image_feature_raw", g)
    case.check_feature("out/image_feature", torch.nn.functional.normalize(g, dim=-1))
    features = four_taps.encode(case.tensor("input"))
    tau = case.meta["settings"]["temperature"]
    for tap, F in zip(four_taps.taps, features.patches, strict=True):
        name = f"out/patch_features_raw/layer{tap:02}"
        case.arrays[f"{name}/patches"] = case.arrays[name][:, 1:]  # our maps need no class token
        case.check_feature(f"{name}/patches", F)
        P = text_probabilities(F, four_taps.texts, tau)
        case.check_map(f"out/patch_prob/layer{tap:02}", P)


def test_score_and_map(case, detector, four_taps):
    got = detector(case.tensor("input"))
    case.check_map("out/image_score", got.score)
    case.check_map("out/anomaly_map", got.map)
    case.check_map("out/anomaly_map_4layers", four_taps(case.tensor("input")).map, 4)
    features = detector.encode(case.tensor("input"))
    tau = case.meta["settings"]["temperature"]
    case.check_logits("out/global_logits", cosine(features.image, detector.texts) / tau, tau)
    P = text_probabilities(features.patches[0], detector.texts, tau)[..., 1]
    case.check_map("out/map_before_smoothing", features.grid.map(P))


@pytest.mark.parametrize(
    ("taps", "stored"), [("features_1based", "loss"), ("features_1based_4layers", "loss_4layers")]
)
def test_losses(case, taps, stored):
    detector = build(case, taps)
    batch, w = case.batch(), detector.config.local_weight
    terms = detector.training_loss(batch)
    case.check_loss(f"out/{stored}/image_ce", terms["image"])
    case.check_loss(f"out/{stored}/total", sum(terms.values()))
    for name in ("focal", "dice_abnormal", "dice_normal"):
        whole = case.tensor(f"out/{stored}/{name}").sum()
        assert (
            abs(float((terms[name] / w - whole).detach()))
            <= case.tolerance("losses_relative") * whole
        )
    features, T = detector.encode(batch.images), detector.texts
    maps = [detector.probability_map(F, T, features.grid) for F in features.patches]
    case.check_loss(f"out/{stored}/focal", torch.stack([focal_loss(p, batch.masks) for p in maps]))
    case.check_loss(
        f"out/{stored}/dice_normal",
        torch.stack([dice_loss(p[:, 0], 1 - batch.masks) for p in maps]),
    )


def test_gradients_and_one_optimiser_step(case):
    detector = build(case, "features_1based")
    recipe = AnomalyCLIP.recipe
    optimiser = torch.optim.Adam(
        detector.parameter_groups(recipe), lr=recipe.learning_rate, betas=recipe.betas
    )
    sum(detector.training_loss(case.batch()).values()).backward()
    case.check_gradients("out/grad/", detector.prompts)
    optimiser.step()
    # Adam's first step moves every value by the rate in its gradient's direction, whatever its size
    after = [name for name in case.arrays if name.startswith("out/after_adam_step/")]
    assert after
    for name in after:
        own = detector.prompts.get_parameter(name.removeprefix("out/after_adam_step/"))
        gradient = case.tensor(name.replace("after_adam_step", "grad")).abs()
        certain = gradient > case.tolerance("gradients_relative_to_max") * gradient.max()
        assert certain.float().mean() > 0.5
        off = (own.detach() - case.tensor(name)).abs()
        assert float(off[certain].max()) <= 1e-6
        assert float(off.max()) <= 2 * recipe.learning_rate + 1e-6


def test_any_batch_gives_the_numbers_of_batch_one(case, detector):
    batch = case.batch().images
    together = detector(batch)
    for row in range(2):
        alone = detector(batch[row : row + 1])
        torch.testing.assert_close(together.map[row], alone.map[0], atol=2e-5, rtol=0)
        torch.testing.assert_close(together.score[row], alone.score[0], atol=2e-5, rtol=0)

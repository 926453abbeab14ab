"""GlocalCLIP against the official code's numbers (see the case's meta)."""

from __future__ import annotations

import pytest
import torch
from cases import find
from prompt_cases import PromptCase

from zerodefect.layers.losses import dice_loss, focal_loss
from zerodefect.layers.similarity import cosine, text_probabilities
from zerodefect.methods.glocalclip import GlocalCLIP, GlocalCLIPConfig


@pytest.fixture(scope="module", params=find("glocalclip"))
def case(request) -> PromptCase:
    return PromptCase(request.param)


def build(case: PromptCase, **options) -> GlocalCLIP:
    settings, training = case.meta["settings"], case.meta["training"]
    layers = case.meta["tiny_clip"]["config"]["vision_layers"]
    options = {
        "context_length": settings["n_ctx"],
        "abnormal_length": settings["ab_ctx"],
        "deep_length": settings["deep_prompt_length"],
        "depth": settings["text_depth"],
        "stream_start": layers - (settings["dpam_layer_argument"] - 1) + 1,
        "taps": tuple(settings["features_1based"]),
        "temperature": settings["temperature"],
        "sigma": settings["sigma"],
        "margin": training["margin"],
        "alpha": training["alpha"],
        **options,
    }
    detector = GlocalCLIP(case.backbone(), GlocalCLIPConfig(**options))
    case.fill(detector.prompts)
    return detector


@pytest.fixture(scope="module")
def detector(case) -> GlocalCLIP:
    return build(case)


def test_preprocessing(case, detector):
    case.near("input", case.preprocessed(detector.preprocess), 1e-5)


def test_texts(case, detector):
    ids = case.tensor("out/tokenized_prompts").long()
    assert torch.equal(detector.prompts.token_ids(), ids)
    case.check_feature("out/text_raw", detector.texts)
    case.check_feature("out/text_features", torch.nn.functional.normalize(detector.texts, dim=-1))


def test_image_side(case, detector):
    features = detector.encode(case.tensor("input"))
    case.check_feature("out/image_feature_raw", features.image)
    unit = torch.nn.functional.normalize(features.image, dim=-1)
    case.check_feature("out/image_feature", unit)
    name = "out/patch_features_raw/all_taps"
    case.arrays["patches"] = case.arrays[name][:, 1:]  # our maps need no class token
    (F,) = features.patches
    case.check_feature("patches", F)
    tau = case.meta["settings"]["temperature"]
    P = text_probabilities(F, detector.texts[2:], tau)
    case.check_map("out/patch_prob/all_taps", P)
    logits = cosine(features.image, detector.texts[:2]) / tau
    case.check_logits("out/global_logits", logits, tau)
    case.check_map("out/map_before_smoothing_one_tap", features.grid.map(P[..., 1]))


def test_score_and_map(case, detector):
    got = detector(case.tensor("input"))
    case.check_map("out/image_score", got.score)
    case.check_map("out/anomaly_map", got.map, detector.K)


def test_losses(case, detector):
    batch, K = case.batch(), detector.K
    terms = detector.training_loss(batch)
    case.check_loss("out/loss/image_ce", terms["image"])
    case.check_loss("out/loss/total", torch.stack(list(terms.values())).sum())
    features = detector.encode(batch.images)
    P = detector.probability_map(features.patches[0], detector.texts[2:], features.grid)
    case.check_loss("out/loss/focal", focal_loss(P, batch.masks).expand(K))
    case.check_loss("out/loss/dice_abnormal", dice_loss(P[:, 1], batch.masks).expand(K))
    case.check_loss("out/loss/dice_normal", dice_loss(P[:, 0], 1 - batch.masks).expand(K))
    torch.testing.assert_close(terms["focal"], K * focal_loss(P, batch.masks))
    case.check_loss(
        "out/loss/contrastive_normal_abnormal", detector.contrastive(*detector.texts.split(2))
    )
    wide = build(case, margin=1.0)
    case.check_loss(
        "out/loss/contrastive_normal_abnormal_margin1", wide.contrastive(*wide.texts.split(2))
    )


def test_gradients(case):
    detector = build(case)
    torch.stack(list(detector.training_loss(case.batch()).values())).sum().backward()
    case.check_gradients("out/grad/", detector.prompts)


def test_any_batch_gives_the_numbers_of_batch_one(case, detector):
    batch = case.batch().images
    together = detector(batch)
    for row in range(2):
        alone = detector(batch[row : row + 1])
        torch.testing.assert_close(together.map[row], alone.map[0], atol=5e-5, rtol=0)
        torch.testing.assert_close(together.score[row], alone.score[0], atol=2e-5, rtol=0)

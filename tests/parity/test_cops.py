"""CoPS against the numbers of the official code (see the case's meta)."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from cases import Case, find

from zerodefect.detector.clip_detector import Features
from zerodefect.images import open_image
from zerodefect.layers.losses import dice_loss, focal_loss
from zerodefect.layers.smoothing import patch_mean
from zerodefect.methods.cops import CoPS, CoPSConfig, distance
from zerodefect.types import TrainingBatch

PREFIX = "prompt_learner."


@pytest.fixture(scope="module", params=find("cops"))
def case(request) -> Case:
    return Case(request.param)


@pytest.fixture(scope="module")
def detector(case) -> CoPS:
    settings, here = case.meta["settings"], case.meta["case_settings"]
    shapes = case.meta["parameters"]["shapes"]
    slots = shapes[f"{PREFIX}ctx_pos"][2]
    config = CoPSConfig(
        context_length=settings["prompt_length"] - settings["prt_length"],
        prototypes=settings["prt_length"],
        class_length=slots - settings["prompt_length"],
        depth=settings["learnable_text_embedding_depth"] + 1,
        deep_length=settings["learnable_text_embedding_length"],
        heads=settings["prototype_heads"],
        window=here["test_window"],
        training_window=here["train_window"],
        alpha=here["alpha"],
        beta=here["beta"],
        samples=settings["samples"],
        temperature=settings["temperature"],
        sigma=settings["gaussian_sigma"],
        reconstruction="all_pairs" if here["reconstruction_loss_used"] else "none",
    )
    detector = CoPS(case.backbone(), config)
    assert settings["layers_1based"] == [detector.clip.config.vision.layers]
    published = {
        name.removeprefix(PREFIX): value
        for name, value in case.parameters().items()
        if "vae_encoder" not in name
    }
    assert sorted(published) == sorted(case.meta["checkpoint_keys"])
    state = detector.official_state({"prompt_learner": published})
    assert set(state) == set(detector.learned)
    for name, value in case.parameters().items():
        if "vae_encoder" in name:
            state[name.removeprefix(PREFIX)] = value
    detector.load_state_dict(state, strict=False)
    detector.z = case.tensor("z_test")[:, 0]
    return detector


@pytest.fixture(scope="module")
def features(case, detector) -> Features:
    return detector.encode(case.tensor("input")[1:2])


@pytest.fixture(scope="module")
def patches(detector, features) -> torch.Tensor:
    F, grid = features.patches[0], features.grid
    return patch_mean(F, grid.shape, detector.config.window, "zeros")


@pytest.fixture(scope="module")
def prototypes(detector, patches) -> tuple[torch.Tensor, torch.Tensor]:
    with torch.no_grad():
        return detector.extractor(detector.t_n, patches), detector.extractor(detector.t_a, patches)


@pytest.fixture(scope="module")
def bias(detector) -> torch.Tensor:
    with torch.no_grad():
        return detector.vae_decoder(detector.z)[None]


@pytest.fixture(scope="module")
def texts(detector, prototypes, bias) -> torch.Tensor:
    with torch.no_grad():
        return detector.texts(*prototypes, bias)


def training_mean(detector: CoPS, features: Features) -> torch.Tensor:
    F, grid = features.patches[0], features.grid
    return patch_mean(F, grid.shape, detector.config.training_window, "zeros")


def official_name(name: str) -> str:
    return PREFIX + name.removeprefix("prompts.")


def test_preprocessing(case, detector):
    size = case.meta["case_settings"]["size"]
    preprocess = dataclasses.replace(detector.preprocess, size=(size, size))
    for picture, expected in zip(case.arrays["image"], case.arrays["input"], strict=True):
        np.testing.assert_allclose(preprocess(open_image(picture)), expected, atol=1e-5)


def test_sentence(case, detector):
    """Slots, full stop, end: where the official tokens have them."""
    embeddings, ends = detector.prompts.embeddings(detector.clip.text)
    tokens = case.tensor("tokens")[0].long()
    assert ends.tolist() == [int(tokens.argmax())] * 2
    table = detector.clip.text.token_embedding.weight
    slots = detector.prompts.lengths["ctx_pos"]
    for row in embeddings:
        assert torch.equal(row[0], table[tokens[0]])
        assert torch.equal(row[slots + 1 :], table[tokens[slots + 1 : len(row)]])


def test_image_side(case, features, patches):
    case.check("out/image_feature", features.image)
    case.check("out/patch_tokens", features.patches[0])
    case.check("out/patch_features", patches)


def test_prototypes(case, patches, prototypes):
    for name, P in zip(("normal", "abnormal"), prototypes, strict=True):
        case.check(f"out/prototypes_{name}", P)
        case.check(f"out/distance_{name}", distance(patches, P))


def test_texts(case, detector, prototypes, bias, texts):
    case.check("out/class_bias", bias)
    with torch.no_grad():
        samples = detector.text_samples(*prototypes, bias)
    case.check("out/text_features_samples", samples.transpose(1, 2))
    case.check("out/text_features", texts)


def test_texts_without_rounding(case, detector, prototypes, bias, monkeypatch):
    edits = {
        number: [dataclasses.replace(edit, half=False) for edit in some]
        for number, some in detector.prompts.edits().items()
    }
    monkeypatch.setattr(detector.prompts, "edits", lambda: edits)
    with torch.no_grad():
        case.check("out/no_half/text_features", detector.texts(*prototypes, bias))


def test_map_and_score(case, detector, features, patches, prototypes, texts):
    logits = detector.logits(patches, texts)
    case.check("out/patch_similarity", logits * detector.config.temperature)
    case.check("out/patch_probability", logits.softmax(-1))
    weight = detector.weight(*(distance(patches, P) for P in prototypes))
    case.check("out/patch_weight", weight)
    p = logits.softmax(-1)[..., 1] * weight
    case.check("out/patch_score", p)
    case.check("out/anomaly_map_raw", detector.upsampled(p[:, None], features.grid))
    image = detector.logits(features.image[:, None], texts)
    case.check("out/global_logits", image)
    case.check("out/global_probability", image.softmax(-1)[..., 1])
    got = detector(case.tensor("input")[1:2])
    case.check("out/anomaly_map", got.map)
    case.check("out/image_score", got.score)


def test_training(case, detector):
    images = case.tensor("input")
    masks = case.tensor("gt").float()
    batch = TrainingBatch(
        images=images,
        masks=masks,
        labels=masks.flatten(1).amax(1).long(),
        objects=("object",) * len(images),
        generator=torch.Generator(),
    )
    features, eps = detector.encode(images), case.tensor("eps_train")[0]
    mean, log_var = detector.vae_encoder(features.image)
    case.check("out/train/vae_mean", mean)
    case.check("out/train/vae_log_var", log_var)
    decoded = detector.vae_decoder(mean + (0.5 * log_var).exp() * eps)
    case.check("out/train/class_bias", decoded)
    smooth = training_mean(detector, features)
    P = [detector.extractor(t, smooth) for t in (detector.t_n, detector.t_a)]
    t = detector.texts(*P, decoded[:, None])
    case.check("out/train/text_features", t)
    labels = detector.patch_labels(masks)
    assert torch.equal(labels, case.tensor("out/train/patch_mask").bool())

    terms = detector.losses(features, batch, eps)
    case.check("out/loss/patch", terms["patch"] / 4)
    for name in ("image", "gather", "scatter", "kl"):
        case.check(f"out/loss/{name}", terms[name])
    other = CoPS(case.backbone(), dataclasses.replace(detector.config, reconstruction="all_pairs"))
    [reconstruction] = other.reconstruction(features.image, decoded).values()
    case.check("out/loss/recon_all_pairs", reconstruction)
    total = torch.stack(list(terms.values())).sum()
    case.check("out/loss/total", total)

    detector.zero_grad()
    total.backward()
    norms = {
        official_name(name): -1.0 if p.grad is None else float(p.grad.norm())
        for name, p in detector.learned.items()
    }
    assert set(norms) == set(case.meta["grad_norm_names"])
    case.check(
        "out/loss/grad_norm", torch.tensor([norms[name] for name in case.meta["grad_norm_names"]])
    )


def test_parts_of_the_patch_loss(case, detector):
    features, masks = detector.encode(case.tensor("input")), case.tensor("gt").float()
    smooth = training_mean(detector, features)
    p = detector.logits(smooth, case.tensor("out/train/text_features")).softmax(-1).mT
    p = detector.upsampled(p, features.grid)
    parts = [focal_loss(p, masks), dice_loss(p[:, 1], masks), dice_loss(p[:, 0], 1 - masks)]
    case.check("out/loss/patch_focal_dice1_dice0", torch.stack(parts))

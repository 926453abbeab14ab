"""VCP-CLIP against the numbers of the official code (see the case's meta)."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from cases import Case, find

from zerodefect.backbones.clip import TextTower
from zerodefect.images import open_image
from zerodefect.layers.losses import map_losses
from zerodefect.layers.similarity import two_class
from zerodefect.methods.vcp_clip import VCPCLIP, VCPCLIPConfig
from zerodefect.types import TrainingBatch


@pytest.fixture(scope="module", params=find("vcp_clip"))
def case(request) -> Case:
    return Case(request.param)


def published(case: Case, numbers: dict[str, int] | None = None) -> dict:
    """The learned values, or constants by name, in the form of the official file."""
    parts: dict = defaultdict(dict)
    flat = {}
    values = case.parameters()
    if numbers:
        values = {name: torch.full_like(value, numbers[name]) for name, value in values.items()}
    for name, value in values.items():
        part, _, key = name.partition(".")
        if part in ("trainable_linearlayer", "New_Lan_Embed", "Zero_try"):
            parts[part][key] = value
        else:
            flat[name] = value
    return {**parts, **flat}


def build(case: Case) -> VCPCLIP:
    settings = case.meta["settings"]
    config = VCPCLIPConfig(
        taps=tuple(settings["layers_1based"]),
        word_length=settings["prompt_len"],
        deep_length=settings["deep_prompt_len"],
        mix=float(re.search(r"([\d.]+)\*post", settings["map_mix"])[1]),
        sigma=settings["gaussian_sigma"],
        top_pixels=int(re.search(r"(\d+) largest", settings["image_score"])[1]),
    )
    detector = VCPCLIP(case.backbone(), config).eval()
    values = detector.official_state(published(case))
    missing, unexpected = detector.load_state_dict(values, strict=False)
    assert not unexpected
    assert not set(missing) & set(detector.learned)
    return detector


@pytest.fixture(scope="module")
def detector(case) -> VCPCLIP:
    return build(case)


@pytest.fixture(scope="module")
def features(case, detector):
    return detector.encode(case.tensor("input"))


@pytest.fixture(scope="module")
def texts(detector, features):
    with torch.no_grad():
        return detector.texts(features.image)


def test_preprocessing(case, detector):
    size = case.meta["case_settings"]["size"]
    preprocess = replace(detector.preprocess, size=(size, size))
    for picture, expected in zip(case.arrays["image"], case.arrays["input"], strict=True):
        np.testing.assert_allclose(preprocess(open_image(picture)), expected, atol=1e-5)


def test_defaults_are_the_published_settings(case, detector):
    plain = VCPCLIP(case.backbone())
    assert plain.taps == detector.taps
    for field in ("word_length", "deep_length", "mix", "sigma"):
        assert getattr(plain.config, field) == getattr(detector.config, field)
    assert len(detector.deep_prompt_embeddings) == case.meta["settings"]["total_d_layer_len"]


def test_sentences(case, detector):
    for name, (before, behind) in zip(("normal", "abnormal"), detector.sentences, strict=True):
        expected = torch.from_numpy(case.arrays[f"tokens_{name}"][0].astype(np.int64))
        word = torch.tensor([detector.clip.config.text.vocab_size])
        end = int(TextTower.ends(expected))
        assert torch.equal(torch.cat([before, word, behind]), expected[: end + 1])


@torch.no_grad()
def test_texts(case, detector, features, texts):
    case.check("out/image_feature", features.image)
    case.check("out/class_tokens", detector.pre_vcp(features.image))
    case.check("out/text_features", texts)


@torch.no_grad()
def test_layers(case, detector, features, texts):
    pre, post = detector.logits(features.patches, texts)
    states = detector.run(case.tensor("input"), taps=detector.taps)  # with the class token
    mapped = detector.trainable_linearlayer(features.patches)
    for index, tap in enumerate(detector.taps):
        if f"out/layer_tokens/{tap}" in case.arrays:
            case.check(f"out/layer_tokens/{tap}", states.taps[tap])
        patches = features.patches[index]
        case.check(f"out/patch_features/{tap}", F.normalize(mapped[index], dim=-1))
        case.check(f"out/pre_logits/{tap}", pre[index])
        rewritten = detector.post_vcp(texts, F.normalize(patches, dim=-1))
        case.check(f"out/post_text/{tap}", rewritten)
        case.check(f"out/post_logits/{tap}", post[index])
    case.check("out/pre_map", detector.map(pre, features.grid))
    case.check("out/post_map", detector.map(post, features.grid))


def test_prediction_and_set_level(case, detector):
    got = detector(case.tensor("input"))
    case.check("out/anomaly_map_smoothed", got.map)
    case.check("out/image_score_unscaled", got.score)
    step = detector.set_level("min-max", detector.empty())
    step.see(got)
    scaled = step.apply(got)
    case.check("out/anomaly_map", scaled.map)
    case.check("out/image_score", scaled.score)


def test_losses_and_gradients(case):
    detector, gt = build(case), case.tensor("gt").float()
    batch = TrainingBatch(
        images=case.tensor("input"),
        masks=gt,
        labels=gt.flatten(1).amax(1).long(),
        objects=(case.meta["case_settings"]["cls"],) * len(gt),
        generator=torch.Generator(),
    )
    features = detector.encode(batch.images)
    with torch.no_grad():
        stages = detector.logits(features.patches, detector.texts(features.image))
        for stage, z in zip(("pre", "post"), stages, strict=True):
            p = [two_class(detector._upsampled(z_l, features.grid)) for z_l in z]
            focal, dice, _ = zip(*(map_losses([p_l], batch.masks) for p_l in p), strict=True)
            case.check(f"out/loss/{stage}_focal", torch.stack(focal))
            case.check(f"out/loss/{stage}_dice", torch.stack(dice))
    losses = detector.training_loss(batch)
    for stage in ("pre", "post"):
        case.check(f"out/loss/{stage}", losses[f"{stage}_focal"] + losses[f"{stage}_dice"])
    total = torch.stack(list(losses.values())).sum()
    case.check("out/loss/total", total)
    total.backward()
    case.check("out/loss/grad_norm", torch.tensor(gradient_norms(case, detector)))
    assert all(p.grad is None for p in detector.clip.parameters())


def gradient_norms(case: Case, detector: VCPCLIP) -> list[float]:
    """Norms in the case's order; -1 for what the official code does not use."""
    numbers = {name: number for number, name in enumerate(case.parameters())}
    marked = published(case, numbers)  # constants that tell which value goes where
    own = {int(v.flatten()[0]): name for name, v in detector.official_state(marked).items()}
    norms = []
    for name in case.meta["grad_norm_names"]:
        if numbers[name] not in own:
            norms.append(-1.0)
            continue
        grad = detector.learned[own[numbers[name]]].grad
        # the bias of the keys cancels in the softmax: no gradient here, rounding noise there
        norms.append(0.0 if grad is None else float(grad.norm()))
    return norms

"""AdaCLIP against the numbers of the official code (see the case's meta)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from cases import Case, find
from sklearn.cluster import KMeans

from zerodefect.detector.knowledge import Knowledge, Product
from zerodefect.images import open_image
from zerodefect.methods.adaclip import AdaCLIP, AdaCLIPConfig, Features
from zerodefect.types import TrainingBatch


@pytest.fixture(scope="module", params=find("adaclip"))
def case(request) -> Case:
    return Case(request.param)


def build(case: Case, **options) -> AdaCLIP:
    settings = case.meta["settings"]
    options = {
        "taps": tuple(settings["layers_1based"]),
        "depth": settings["prompting_depth"],
        "length": settings["prompting_length"],
        "clusters": settings["k_clusters"],
        "fusion": settings["hsf_alpha"],
        "temperature": settings["temperature"],
        "sigma": settings["gaussian_sigma"],
        "round_tokens": True,
        **options,
    }
    detector = AdaCLIP(case.backbone(), AdaCLIPConfig(**options)).eval()
    values = detector.official_state(case.parameters())
    missing, unexpected = detector.load_state_dict(values, strict=False)
    assert not unexpected
    assert not set(missing) & set(detector.learned)
    return detector


def described(case: Case, detector: AdaCLIP) -> Knowledge:
    return detector.describe(detector.empty(), Product(case.meta["case_settings"]["cls"]))


def with_stored_tokens(case: Case, detector: AdaCLIP) -> AdaCLIP:
    """The detector with the case's dynamic tokens in place of its own, gradients as they were.

    The tokens are rounded through float16 right after. Where a value lies next to a rounding limit,
    the last bits of float32 decide to which side it goes, and a token that goes the other way moves
    what follows by more than the tolerances, which are those of float32 noise. So the own tokens
    are compared as they are (test_dynamic_tokens), what follows starts from the stored ones, and
    the whole way is walked without rounding (test_without_rounding).
    """
    for tower in ("text", "visual"):
        layers = getattr(detector, f"dynamic_{tower}_prompt_generator")
        stored = case.tensor(f"out/dynamic_{tower}_prompts")

        def of_one(f, own=layers.of_one, stored=stored):
            computed = own(f)
            return stored + (computed - computed.detach())

        layers.of_one = of_one
    return detector


@pytest.fixture(scope="module")
def detector(case) -> AdaCLIP:
    return with_stored_tokens(case, build(case))


@pytest.fixture(scope="module")
def features(case, detector) -> Features:
    return detector.encode(case.tensor("input"))


@pytest.fixture(scope="module")
def known(case, detector) -> Knowledge:
    return described(case, detector)


@pytest.fixture(scope="module")
def texts(detector, features, known):
    with torch.no_grad():
        dynamic = detector.dynamic_text_prompt_generator.of_one(features.frozen)
        return detector.texts(dynamic, known["sentences"])


@pytest.fixture
def stored_labels(case, monkeypatch):
    """The stored k-means labels, brought from falling probability to ascending patch number."""
    order = torch.from_numpy(case.arrays["out/hsf/topk_indices"][0].astype(np.int64)).argsort()
    labels = torch.from_numpy(case.arrays["out/hsf/cluster_labels"].astype(np.int64))[order]

    def cluster(self, points, generator):
        assert len(points) == len(labels)
        return labels

    monkeypatch.setattr(AdaCLIP, "cluster", cluster)


def check_all(case, values):
    for name, value in values.items():
        case.check(f"out/{name}", value)


def test_preprocessing(case, detector):
    size = case.meta["case_settings"]["size"]
    preprocess = replace(detector.preprocess, size=(size, size))
    got = preprocess(open_image(case.arrays["image"]))
    np.testing.assert_allclose(got, case.arrays["input"][0], atol=1e-5)


def test_default_taps_are_the_published_ones(case, detector):
    assert AdaCLIP(case.backbone()).taps == detector.taps


def test_sentences(case, known):
    expected = np.concatenate([case.arrays["tokens_normal"], case.arrays["tokens_abnormal"]])
    np.testing.assert_array_equal(known["sentences"], expected)


@torch.no_grad()
def test_dynamic_tokens(case):
    detector = build(case)
    f = detector.frozen_feature(case.tensor("input"))
    case.check("out/frozen_image_feature", f)
    dynamic = detector.dynamic_visual_prompt_generator.of_one(f)
    case.check("out/dynamic_visual_prompts", dynamic)
    case.check("out/dynamic_text_prompts", detector.dynamic_text_prompt_generator.of_one(f))


@torch.no_grad()
def test_towers(case, detector, features, texts):
    dynamic = detector.dynamic_visual_prompt_generator.of_one(features.frozen)
    g, tokens = detector.prompted(case.tensor("input"), dynamic)
    check_all(
        case,
        {
            "pooled_image_feature": g,
            f"layer_tokens_{detector.taps[-1]}": tokens[-1],
            "text_features": texts.mT,
            "image_feature": features.image,
        },
    )


def test_patches(case, detector, features, texts):
    z = detector.logits(features, texts)
    for tap, p, logits in zip(detector.taps, features.patches, z, strict=True):
        case.check(f"out/patch_features/{tap}", p)
        case.check(f"out/patch_logits/{tap}", logits)
    probability = torch.stack(z).mean(0).softmax(-1)[..., 1]
    case.check("out/hsf/patch_probability", probability)
    np.testing.assert_array_equal(detector.suspicious(z), case.arrays["out/hsf/topk_indices"])
    case.check("out/anomaly_map_raw", detector.map(z, features.grid))


def test_fusion_with_the_stored_labels(case, detector, features, texts, stored_labels):
    z = detector.logits(features, texts)
    h = detector.cluster_features(features, z, [torch.Generator()])
    case.check("out/hsf/cluster_feature", h)
    case.check("out/global_logits", detector.image_logits(features, texts, z, [torch.Generator()]))
    alpha = detector.config.fusion
    u = torch.nn.functional.normalize(alpha * h + (1 - alpha) * features.image, dim=-1)
    case.check("out/fused_image_feature", u)


def test_the_stored_labels_are_scikit_learns(case, detector, features):
    """What we feed in is what the official fusion computes from our features."""
    chosen = torch.from_numpy(case.arrays["out/hsf/topk_indices"][0].astype(np.int64))
    points = torch.cat([p[0, chosen] for p in features.patches], dim=-1).detach()
    seed = case.meta["case_settings"]["kmeans_seed"]
    labels = KMeans(detector.config.clusters, n_init=1, random_state=seed).fit(points).labels_
    np.testing.assert_array_equal(labels, case.arrays["out/hsf/cluster_labels"])


def test_prediction(case, detector, known, stored_labels):
    got = detector(case.tensor("input"), known)
    case.check("out/image_score", got.score)
    case.check("out/anomaly_map", got.map)


def test_own_clustering_is_close(case, detector, known):
    """Another k-means start finds other clusters; their mean moves the score only a little."""
    score = detector(case.tensor("input"), known).score
    torch.testing.assert_close(score, case.tensor("out/image_score"), atol=0.05, rtol=0)


def test_one_cluster(case, features, texts):
    detector = with_stored_tokens(case, build(case, clusters=1))
    z = detector.logits(features, texts)
    h = detector.cluster_features(features, z, [torch.Generator()])
    case.check("out/k1/cluster_feature", h)
    got = detector(case.tensor("input"), described(case, detector))
    case.check("out/k1/image_score", got.score)


def test_without_rounding(case, stored_labels):
    detector = build(case, round_tokens=False)
    known = described(case, detector)
    features = detector.encode(case.tensor("input"))
    with torch.no_grad():
        dynamic = detector.dynamic_text_prompt_generator.of_one(features.frozen)
        texts = detector.texts(dynamic, known["sentences"])
        z = detector.logits(features, texts)
        h = detector.cluster_features(features, z, [torch.Generator()])
    case.check("out/no_half/text_features", texts.mT)
    case.check("out/no_half/image_feature", features.image)
    case.check("out/no_half/cluster_feature", h)
    case.check("out/no_half/image_score", detector(case.tensor("input"), known).score)


def batch_of(case: Case) -> TrainingBatch:
    facts = case.meta["case_settings"]
    return TrainingBatch(
        images=case.tensor("input"),
        masks=case.tensor("gt")[:, 0].float(),
        labels=torch.tensor([facts["label"]]),
        objects=(facts["cls"],),
        generator=torch.Generator().manual_seed(0),
    )


def test_losses_and_gradients(case, stored_labels):
    detector, batch = with_stored_tokens(case, build(case)), batch_of(case)
    features = detector.encode(batch.images)
    with torch.no_grad():
        dynamic = detector.dynamic_text_prompt_generator.of_one(features.frozen)
        sentences = described(case, detector)["sentences"]
        z = detector.logits(features, detector.texts(dynamic, sentences))
        each = [detector.layer_losses(z_l, features.grid, batch.masks) for z_l in z]
    names = {
        "focal": "seg_focal",
        "dice_anomalous": "seg_dice_abnormal",
        "dice_normal": "seg_dice_normal",
    }
    for mine, theirs in names.items():
        case.check(f"out/loss/{theirs}", torch.stack([terms[mine] for terms in each]))

    losses = detector.training_loss(batch)
    case.check("out/loss/classification_focal", losses["image_focal"])
    total = torch.stack(list(losses.values())).sum()
    case.check("out/loss/total", total)
    total.backward()
    norms = []
    for name in case.meta["grad_norm_names"]:
        grad = detector.learned[name.removeprefix("clip_model.")].grad
        norms.append(-1.0 if grad is None else float(grad.norm()))
    case.check("out/loss/grad_norm", torch.tensor(norms))
    assert all(p.grad is None for p in detector.clip.parameters())

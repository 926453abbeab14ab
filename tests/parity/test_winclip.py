"""WinCLIP against the numbers of three implementations of the field (see the case's meta)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from cases import Case, find

from zerodefect.detector.knowledge import Knowledge, Product
from zerodefect.images import Preprocess, open_image
from zerodefect.layers.similarity import anomaly_probability
from zerodefect.layers.windows import harmonic_windows
from zerodefect.methods.winclip import WinCLIP, WinCLIPConfig


@pytest.fixture(scope="module", params=find("winclip"))
def case(request) -> Case:
    return Case(request.param)


@pytest.fixture(scope="module")
def detector(case) -> WinCLIP:
    config = WinCLIPConfig(temperature=case.meta["temperature"], scales=tuple(case.meta["scales"]))
    return WinCLIP(case.backbone(), config)


@pytest.fixture(scope="module")
def words(case, detector) -> Knowledge:
    return detector.describe(detector.empty(), Product(case.meta["class_name"]))


@pytest.fixture(scope="module")
def few_shot(case, detector, words) -> Knowledge:
    return detector.remember(words, [detector.encode(case.tensor("reference_input"))])


def test_preprocessing(case):
    size = case.meta["run_image_size"]
    preprocess = Preprocess(size=(size, size))
    picture = open_image(case.arrays["image"])
    np.testing.assert_allclose(preprocess(picture), case.arrays["input"][0], atol=1e-5)
    for index, expected in enumerate(case.arrays["reference_input"]):
        picture = open_image(case.arrays[f"reference/{index}"])
        np.testing.assert_allclose(preprocess(picture), expected, atol=1e-5)


def test_preprocessing_on_pil(case):
    size = case.meta["run_image_size"]
    preprocess = Preprocess(size=(size, size), resize_on="pil")
    got = preprocess(open_image(case.arrays["image"]))[None, :, ::8, ::8]
    np.testing.assert_allclose(got, case.arrays["input_pil_sub8"], atol=1e-5)


def test_text_features(case, words):
    case.check("out/text_mean", words["texts"])


def test_image_side(case, detector, words):
    features = detector.encode(case.tensor("input"))
    case.check("out/image_embedding", features.image)
    case.check("out/patch_embedding", features.patches[0])
    for k, windows in zip(case.meta["scales"], features.windows, strict=True):
        case.check(f"out/window_embedding_{k}", windows)
        scores = anomaly_probability(windows, words["texts"], case.meta["temperature"])
        case.check(f"out/window_score_{k}", scores)
        case.check(f"out/window_map_{k}", harmonic_windows(scores, features.grid.shape, k))


def test_zero_shot(case, detector, words):
    got = detector(case.tensor("input"), words)
    case.check("out/zero_shot/anomaly_map", got.map)
    case.check("out/zero_shot/image_score", got.score)
    case.check("out/zqhang/zero_shot/image_score", got.score)


def test_few_shot(case, detector, few_shot):
    got = detector(case.tensor("input"), few_shot)
    case.check("out/few_shot/anomaly_map", got.map)
    case.check("out/few_shot/image_score", got.score)
    features = detector.encode(case.tensor("input"))
    case.check("out/few_shot/patch_map", detector.reference_distance(features, few_shot))


def test_few_shot_with_patches_before_the_norm(case):
    """The second implementation: tokens before ln_post, and M + D instead of its half."""
    config = WinCLIPConfig(
        temperature=case.meta["temperature"],
        scales=tuple(case.meta["scales"]),
        patch_norm=False,
    )
    detector = WinCLIP(case.backbone(), config)
    words = detector.describe(detector.empty(), Product(case.meta["class_name"]))
    known = detector.remember(words, [detector.encode(case.tensor("reference_input"))])
    features = detector.encode(case.tensor("input"))
    case.check("out/zqhang/patch_token_pre_ln", features.patches[0])
    case.check("out/zqhang/few_shot/patch_map", detector.reference_distance(features, known))
    got = detector(case.tensor("input"), known)
    case.check("out/zqhang/few_shot/image_score", got.score)
    case.check("out/zqhang/few_shot/anomaly_map_sub4", 2 * got.map[:, ::4, ::4])


def test_any_batch_gives_the_numbers_of_batch_one(case, detector, few_shot):
    images = torch.cat([case.tensor("input"), case.tensor("reference_input")])
    together = detector(images, few_shot)
    for index in range(len(images)):
        alone = detector(images[index : index + 1], few_shot)
        torch.testing.assert_close(together.map[index], alone.map[0], atol=2e-6, rtol=0)
        torch.testing.assert_close(together.score[index], alone.score[0], atol=2e-6, rtol=0)

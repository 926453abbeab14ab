"""CLIP Surgery against the numbers of the authors' program (see the case's meta)."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from cases import Case, find

from zerodefect.detector.knowledge import Product
from zerodefect.images import open_image
from zerodefect.layers.similarity import cosine
from zerodefect.methods.clip_surgery import (
    CLIPSurgery,
    explanation_map,
    feature_surgery,
    points,
    redundant_surgery,
)


@pytest.fixture(scope="module", params=find("clip_surgery"))
def case(request) -> Case:
    return Case(request.param)


@pytest.fixture(scope="module")
def detector(case) -> CLIPSurgery:
    return CLIPSurgery(case.backbone())


@pytest.fixture(scope="module")
def texts(case, detector) -> torch.Tensor:
    return detector.texts(case.meta["texts"])


@pytest.fixture(scope="module")
def features(case, detector):
    return detector.encode(case.tensor("input"))


def all_tokens(features) -> torch.Tensor:
    return torch.cat([features.image[:, None], *features.patches], dim=1)


def size(case) -> tuple[int, int]:
    return case.arrays["image"].shape[:2]


def check_map(case, name: str, S: torch.Tensor, grid) -> None:
    case.check(name, explanation_map(S[:, 1:], grid.shape, size(case))[0].permute(1, 2, 0))


def check_points(case, name: str, S: torch.Tensor, grid) -> None:
    xy, labels = points(S, grid.shape, size(case))
    assert xy.tolist() == case.arrays[f"{name}/points_xy"].tolist()
    assert labels.tolist() == case.arrays[f"{name}/point_labels"].tolist()


def test_preprocessing(case, detector):
    side = case.meta["run_image_size"]
    preprocess = dataclasses.replace(detector.preprocess, size=(side, side))
    got = preprocess(open_image(case.arrays["image"]))
    np.testing.assert_allclose(got, case.arrays["input"][0], atol=1e-5)


def test_both_streams(case, detector, features):
    states = detector.run(case.tensor("input"), second=detector.stream)
    case.check("out/new_path_tokens", states.second[0, 1:])
    case.check("out/original_path_tokens", states.tokens[0, ::4])
    case.check("out/image_tokens", F.normalize(all_tokens(features)[0], dim=-1))
    (native,) = (name for name in case.arrays if name.startswith("input_"))
    name = f"out/native{native.removeprefix('input_')}/image_tokens"
    case.check(name, F.normalize(all_tokens(detector.encode(case.tensor(native)))[0], dim=-1))


def test_several_texts(case, features, texts):
    f = all_tokens(features)
    case.check("out/text_features", texts)
    case.check("out/raw_similarity", cosine(f, texts)[0])
    S = feature_surgery(features.image, f, texts)
    case.check("out/surgery_similarity", S[0])
    check_map(case, "out/similarity_map", S, features.grid)


def test_a_single_text(case, detector, features):
    f, r = all_tokens(features), detector.texts([""])[0]
    case.check("out/redundant_text_feature", r)
    S = redundant_surgery(f, detector.texts([case.meta["single_text"]]), r)
    case.check("out/single/similarity", S[0])
    check_map(case, "out/single/similarity_map", S, features.grid)
    check_points(case, "out/single", S[0, 1:, 0], features.grid)


def test_points_of_one_of_several_texts(case, features, texts):
    S = feature_surgery(features.image, features.patches[0], texts)
    check_points(case, "out/multi0", S[0, :, 0], features.grid)


def test_the_anomaly_read_out(case, detector, features):
    known = detector.describe(detector.empty(), Product(case.meta["class_name"]))
    case.check("out/derived/state_text", known["texts"])
    case.check("out/derived/patch_anomaly", detector.patch_anomaly(features, known["texts"]))
    got = detector(case.tensor("input"), known)
    case.check("out/derived/anomaly_map", got.map)
    case.check("out/derived/image_score", got.score)

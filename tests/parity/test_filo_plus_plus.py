"""The completion of FiLo++ against an independent NumPy computation of the same equations."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from assembly_cases import AssemblyCase
from cases import find

from zerodefect.detector.fine_descriptions import PLACES, Boxes
from zerodefect.detector.knowledge import Knowledge, Product
from zerodefect.images import open_image
from zerodefect.methods.filo_plus_plus import FiLoPlusPlus
from zerodefect.prompts.ensemble import NORMAL_STATES

_GENERAL = 5  # states that stand behind the details


@pytest.fixture(scope="module", params=find("filo_plus_plus"))
def case(request) -> AssemblyCase:
    return AssemblyCase(request.param)


@pytest.fixture(scope="module")
def boxes(case) -> Boxes:
    corners = torch.tensor(case.meta["boxes"])
    left, top, right, bottom = corners[0].tolist()
    return Boxes(corners, ((left + right) / 2, (top + bottom) / 2))


@pytest.fixture(scope="module")
def detector(case, boxes) -> FiLoPlusPlus:
    said = case.meta["settings"]
    assert tuple(case.meta["positions"]) == PLACES
    assert tuple(case.meta["normal_states"]) == NORMAL_STATES
    detector = FiLoPlusPlus.build(
        case.backbone(),
        None,
        details=case.meta["details"][:-_GENERAL],
        domain=case.meta["domain"],
        context_length=said["n_ctx"],
        taps=said["features_list"],
        kernels=said["kernels"],
        margin=said["filter_tau"],
        adapted=False,
        window=said["window"],
        logit_scale=said["temperature_map"],
        temperature=said["temperature_image"],
        outside=said["box_weight"],
    ).eval()
    values = case.published()
    assert values.keys() == detector.learned.keys()
    detector.load_state_dict(values, strict=False)
    detector.boxes = lambda encoded, knowledge: [boxes] * len(encoded.image)
    return detector


@pytest.fixture(scope="module")
def words(case, detector) -> Knowledge:
    product = Product(case.meta["class_name"])
    states = [state.replace("{}", case.meta["prompt_class_word"]) for state in case.meta["details"]]
    assert [s.removesuffix(" at top left") for s in detector.states(product)[1][::9]] == states
    return detector.describe(detector.empty(), product)


@pytest.fixture(scope="module")
def encoded(case, detector) -> Any:
    with torch.no_grad():
        return detector.encode(case.tensor("input"))


@pytest.fixture(scope="module")
def place(case, detector, boxes, encoded) -> int:
    found = detector.place(boxes, encoded.grid.size)
    assert found == int(case.arrays["out/region"][0])
    return found


def test_preprocessing(case, detector):
    size = case.meta["input_size"]
    preprocess = replace(detector.preprocess, size=(size, size))
    for name in ("", "prompt_"):
        got = preprocess(open_image(case.arrays[f"{name}image"]))
        np.testing.assert_allclose(got, case.arrays[f"{name}input"][0], atol=1e-5)


@torch.no_grad()
def test_sentences(case, detector, words, encoded):
    f = F.normalize(encoded.image, dim=-1)
    ((N, A),) = detector.sides(f, [words], [None])
    case.near("normal_text_all", N, case.tolerance("features"))
    case.near("abnormal_text_all", A[:18], case.tolerance("features"))


@torch.no_grad()
def test_the_filter(case, detector, words, encoded, place):
    f = F.normalize(encoded.image, dim=-1)
    ((N, A),) = detector.sides(f, [words], [place])
    for name, margins in zip(("normal", "abnormal"), detector.margins(N, A), strict=True):
        case.near(f"out/filter/{name}_margin", margins, 2 * case.tolerance("features"))
        kept = torch.from_numpy(case.arrays[f"out/filter/{name}_keep"]).bool()
        assert torch.equal(detector.staying(margins), kept)
    T = detector.texts(f, [words], [place])
    case.near("out/text_features", T, case.tolerance("features"))


@torch.no_grad()
def test_deformable_convolutions(case, detector, words, encoded, place):
    G, k = encoded.grid.fold(encoded.patches[0].mT), 3
    case.near(f"out/mdci_offset_stage0_k{k}", detector.mdci.offsets(G, 0, k), 1e-3)
    T = detector.texts(F.normalize(encoded.image, dim=-1), [words], [place])
    low = []
    for tap, y in zip(detector.taps, detector.mapped(encoded), strict=True):
        got = encoded.grid.fold(y.mT)
        case.near(f"out/mdci_features/layer_{tap}", got, case.tolerance("features"))
        low.append(encoded.grid.fold(detector.logits(y, T).mT))
    allowed = 2 * 100 * case.tolerance("features")
    case.near("out/layer_logits_low", torch.cat(low), allowed)


@torch.no_grad()
def test_zero_shot(case, detector, words, encoded, place):
    T = detector.texts(F.normalize(encoded.image, dim=-1), [words], [place])
    case.near("out/map_before_box_weight", detector.map(encoded, T), case.tolerance("maps"))
    p = detector.image_logits(encoded.image, T).softmax(-1)[:, 1]
    case.near("out/global_probability", p, case.tolerance("scores"))
    got = detector(case.tensor("input"), words)
    case.near("out/anomaly_map", got.map, case.tolerance("maps"))
    case.near("out/image_score", got.score, case.tolerance("scores"))


@torch.no_grad()
def test_few_shot(case, detector, words, encoded):
    shown = detector.remember(words, [detector.encode(case.tensor("prompt_input"))])
    low = encoded.grid.fold(detector.distances(encoded, shown))
    case.near("out/few_shot/distance_low", low, case.tolerance("features"))
    got = detector(case.tensor("input"), shown)
    case.near("out/few_shot/anomaly_map", got.map, case.tolerance("maps"))
    case.near("out/few_shot/image_score", got.score, case.tolerance("scores"))

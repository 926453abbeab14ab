"""MultiADS against the numbers of the official code (see the case's meta).

Its lists of kinds and phrases are licensed otherwise and are not in the repository; the texts made
of them are in the case. Where ``multiads_defect_types.json`` lies beside the further cases, or in
``methods`` next to their folder, the texts are compared, too.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from assembly_cases import AssemblyCase
from cases import find

from zerodefect.detector.knowledge import Knowledge, Product
from zerodefect.methods.multiads import MultiADS
from zerodefect.types import TrainingBatch

PHRASES = "multiads_defect_types.json"


@pytest.fixture(scope="module", params=find("multiads"))
def case(request) -> AssemblyCase:
    return AssemblyCase(request.param)


def phrases() -> dict[str, Any]:
    """The authors' lists, where they are at hand."""
    folder = Path(os.environ.get("ZERODEFECT_PARITY_DIR", "."))
    for path in (
        folder / PHRASES,
        folder / "multiads" / PHRASES,
        folder.parent / "methods" / PHRASES,
    ):
        if path.is_file():
            return json.loads(path.read_text(encoding="utf-8"))
    pytest.skip(f"{PHRASES} is AGPL-3.0 and not in the repository; see ZERODEFECT_PARITY_DIR")


def build(case: AssemblyCase, columns: int, **options: Any) -> MultiADS:
    kinds = {f"kind {number}": ("{}",) for number in range(1, columns)}
    taps = case.meta["settings"]["features_list"]
    assert case.meta["settings"]["few_shot_features"] == taps
    detector = MultiADS.build(case.backbone(), kinds=kinds, taps=taps, **options).eval()
    layers = {n.partition(".")[2]: value for n, value in case.published().items()}
    values = detector.official_state({"trainable_linearlayer": layers})
    detector.load_state_dict(values, strict=False)
    return detector


@pytest.fixture(scope="module")
def texts(case) -> torch.Tensor:
    return case.tensor("out/text_features").T


@pytest.fixture(scope="module")
def detector(case, texts) -> MultiADS:
    return build(case, len(texts))


def knowing(detector: MultiADS, T: torch.Tensor, own: torch.Tensor | None = None) -> Knowledge:
    """Knowledge of a product whose texts are those of the case."""
    own = T[:0] if own is None else own
    return detector.empty().having({"texts": T, "kind_texts": own}, product=Product("x"))


@pytest.fixture(scope="module")
def encoded(case, detector):
    with torch.no_grad():
        return detector.encode(case.tensor("input"))


def test_preprocessing(case, detector):
    case.check_preprocessed(detector.preprocess)


@pytest.mark.parametrize(
    ("use", "stored"),
    [
        ("test", "text_features"),
        ("multi_type", "multi_type/text_features"),
        ("training", "train_text_features"),
    ],
)
def test_texts(case, use, stored):
    if f"out/{stored}" not in case.arrays:
        pytest.skip("these texts are not in the case")
    lists = phrases()
    (name,) = re.findall(rf"{use} uses (?:set )?(\w+)", case.meta["phrases"])
    own = lists["prompt_sets"][name]
    good, *kinds = own["type_order"]
    detector = MultiADS.build(
        case.backbone(),
        kinds={kind: own["phrases"][kind] for kind in kinds},
        normal_states=own["phrases"][good],
        templates=lists["templates"],
    )
    got = detector.words(Product(case.meta["class_name"]))["texts"]
    case.near(f"out/{stored}", got.T, case.tolerance("features"))
    assert list(MultiADS.Config().templates) == lists["templates"]


@torch.no_grad()
def test_image_side(case, detector, encoded, texts):
    case.near("out/image_features", encoded.image, case.tolerance("features"))
    for tap, y in zip(detector.taps, detector.mapped(encoded), strict=True):
        case.near(f"out/patch_projected/layer_{tap}", y[:1], case.tolerance("features"))
    low = [100 * y[0] @ texts.T for y in detector.mapped(encoded)]
    case.near("out/layer_logits_low", torch.stack(low), 100 * case.tolerance("features"))


@torch.no_grad()
def test_zero_shot(case, detector, texts):
    got = detector(case.tensor("input"), knowing(detector, texts))
    case.near("out/anomaly_map", got.map, case.tolerance("maps"))
    case.near("out/image_score", got.score, case.tolerance("scores"))


@torch.no_grad()
def test_few_shot(case, detector, texts):
    references = detector.encode(case.tensor("prompt_input"))
    shown = detector.remember(knowing(detector, texts), [references])
    got = detector(case.tensor("input"), shown)
    case.near("out/few_shot/anomaly_map", got.map[:1], case.tolerance("maps"))
    case.near("out/few_shot/image_score", got.score, case.tolerance("scores"))


@torch.no_grad()
def test_a_memory_of_the_test_pictures(case, texts):
    detector = build(case, len(texts), adaptation=case.meta["settings"]["quantile"])
    own = detector.encode(case.tensor("input"))
    shown = detector.remember(knowing(detector, texts), [own])
    got = detector(case.tensor("input"), shown)
    case.near("out/domain_adaption/anomaly_map", got.map[:1], case.tolerance("maps"))
    case.near("out/domain_adaption/image_score", got.score, case.tolerance("scores"))


@torch.no_grad()
def test_kinds(case, detector, encoded):
    """The product's own columns, and what each pixel is."""
    ids, types = case.meta["type_ids"], case.meta["local_types"]
    named = {name.replace("_", " "): number for name, number in ids.items()}
    if not all(name.replace("_", " ") in named for name in types):
        pytest.skip("a column of the product is not named in the case")
    columns = [named[name.replace("_", " ")] for name in types]
    T = case.tensor("out/multi_type/text_features").T[columns]
    Q = detector.kind_logits(encoded, T)
    stored = "out/multi_type/probability_sum_stride4"
    case.near(stored, Q[:1, :, ::4, ::4].exp(), case.tolerance("maps"))
    expected = case.tensor("out/multi_type/argmax").long()
    two = Q.exp().topk(2, dim=1).values
    clear = two[:, 0] - two[:, 1] > 2 * case.tolerance("maps")
    assert torch.equal(Q.argmax(dim=1)[clear], expected[clear])
    assert clear.float().mean() > 0.9
    said = detector.predict(encoded, knowing(detector, T, T)).type_map
    shares = Q[:, 1:].exp() / Q[:, 1:].exp().sum(dim=1, keepdim=True)
    torch.testing.assert_close(said, shares, atol=1e-4, rtol=0)


def batch(case: AssemblyCase) -> TrainingBatch:
    facts = case.meta["loss_batch"]
    masks = case.tensor("mask").float()
    return TrainingBatch(
        images=case.tensor("input"),
        masks=masks,
        labels=masks.flatten(1).amax(1).long(),
        objects=("x",) * len(masks),
        generator=torch.Generator(),
        kinds=tuple(f"kind {number}" if number else "" for number in facts["types"]),
    )


@pytest.mark.parametrize("name", ["detection", "multi_seg"])
def test_losses_and_gradients(case, texts, name, monkeypatch):
    if "out/train_text_features" in case.arrays:
        texts = case.tensor("out/train_text_features").T
    detector = build(case, len(texts), dice=name == "detection")
    monkeypatch.setattr(detector, "texts_of", lambda names: texts.expand(len(names), -1, -1))
    loss = torch.stack(list(detector.training_loss(batch(case)).values())).sum()
    case.check_loss(f"out/loss/{name}", loss)
    if name == "detection":  # at that commit a mean over taps of half of it
        case.check_loss("out/loss/detection_head_commit", loss / (2 * len(detector.taps)))
    loss.backward()
    case.check_gradients(f"out/loss/{name}_grad/", detector.learned)
    assert all(value.grad is None for value in detector.clip.parameters())

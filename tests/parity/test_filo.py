"""FiLo against the numbers of the official code, with made-up outputs of its grounder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from assembly_cases import AssemblyCase
from cases import find

from zerodefect.backbones.grounder import Grounder
from zerodefect.detector.fine_descriptions import PLACES
from zerodefect.detector.knowledge import Knowledge, Product
from zerodefect.layers.grid import Grid
from zerodefect.methods.filo import FiLo
from zerodefect.types import TrainingBatch


class StoredGrounder(Grounder):
    """Answers what is in the case, picture by picture."""

    def __init__(self, case: AssemblyCase) -> None:
        super().__init__("stored", "0" * 64, width=1)
        self.case, self.known = case, case.meta["grounding"]["words"]

    def tokens(self, caption: str) -> tuple[int, ...]:
        assert caption == self.case.meta["grounding"]["caption"]
        return tuple(range(len(self.known)))

    def words(self, ids: Sequence[int]) -> str:
        return " ".join(self.known[one] for one in ids)

    def run(self, pixels: torch.Tensor, ids: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
        """The picture's number is its only value; pictures have different numbers of boxes."""
        (row,) = pixels.flatten().long().tolist()
        parts = (self.case.tensor(f"det{row}/pred_{part}") for part in ("logits", "boxes"))
        logits, boxes = parts
        return logits[None], boxes[None]


@pytest.fixture(scope="module", params=find("filo"))
def case(request) -> AssemblyCase:
    return AssemblyCase(request.param)


@pytest.fixture(scope="module")
def detector(case) -> FiLo:
    said = case.meta["settings"]
    config = FiLo.Config(
        details=case.meta["details"],
        context_length=said["n_ctx"],
        taps=said["features_list"],
        box_threshold=said["box_threshold"],
        largest_box=said["area_threshold"],
        outside=said["outside_box_weight"],
        fixed_centre=True,
    )
    detector = FiLo(case.backbone(), StoredGrounder(case), config).eval()
    published = {"filo": {**case.published(), "clip_model.logit_scale": torch.ones(())}}
    assert FiLo.official_options(published) == {"context_length": said["n_ctx"]}
    detector.load_state_dict(detector.official_state(published), strict=False)
    return detector


@pytest.fixture(scope="module")
def words(case, detector) -> Knowledge:
    name = case.meta["class_name"].replace(" ", "_")
    return detector.describe(detector.empty(), Product(name))


@pytest.fixture(scope="module")
def encoded(case, detector) -> list[Any]:
    with torch.no_grad():
        images = case.tensor("input")
        return [
            detector.encode({"image": images[row][None], "grounder": torch.tensor([[row]])})
            for row in range(len(images))
        ]


def test_preprocessing(case, detector):
    case.check_preprocessed(detector.preprocess)


# --- sentences -----------------------------------------------------------------------------------


def test_tokens(case, words):
    assert torch.equal(words["normal_ids"], case.tensor("out/tokens_normal"))
    assert torch.equal(words["abnormal_ids"][:9], case.tensor("out/tokens_abnormal_first"))
    assert len(words["abnormal_ids"]) == case.meta["abnormal_prompt_count"]


@torch.no_grad()
def test_sentences(case, detector, words, encoded):
    f = detector.adapted(encoded[0].image)
    case.near("out/clip_cls_projected", encoded[0].image, case.tolerance("features"))
    case.near("out/adapted_unit", f, case.tolerance("features"))
    normal = detector.normal_prompt_learner(f)[0]
    abnormal = detector.abnormal_prompt_learner(f)[0]
    allowed = 10 * case.tolerance("features")  # not normalised
    case.near("out/text_normal_each", detector.sentences(words["normal_ids"], normal), allowed)
    first = detector.sentences(words["abnormal_ids"][:9], abnormal)
    case.near("out/text_abnormal_first9", first, allowed)


# --- boxes and places ----------------------------------------------------------------------------


def test_places_at_518_pixels(case):
    centres = case.arrays["out/position518/centre"].tolist()
    assert case.meta["grounding"]["region_order_518"] == list(PLACES)
    from zerodefect.methods.filo import _third

    for (x, y), region in zip(centres, case.arrays["out/position518/region"], strict=True):
        row, column = _third(y, 518), _third(x, 518)
        got = -1 if row is None or column is None else 3 * row + column
        assert got == region, (x, y)


@torch.no_grad()
def test_boxes(case, detector, words, encoded):
    for row, one in enumerate(encoded):
        stored = f"out/det{row}"
        said = case.meta["grounding"][f"det{row}"]
        (found,) = detector.boxes(one, words)
        queries = detector.grounder.queries(one.shown, detector.caption(words.product))
        told = list(detector.phrased(queries, 0))
        phrases = [f"{phrase}({f'{score:.6f}'[:4]})" for _, phrase, score in told]
        assert phrases == [phrase.removesuffix("#$%") for phrase in said["phrases"]]
        kept = case.tensor(f"{stored}/boxes")
        counting = [not phrase.endswith("#$%") for phrase in said["phrases"]]
        torch.testing.assert_close(found.corners, kept[torch.tensor(counting)], atol=1e-3, rtol=0)
        place = detector.place(found, one.grid.size)
        assert ([] if place is None else [PLACES[place]]) == said["position"]
        if found.centre:
            case.near(f"{stored}/centre", torch.tensor(found.centre), 1e-3)


# --- the rest ------------------------------------------------------------------------------------


@torch.no_grad()
def test_streams(case, detector, encoded):
    first = encoded[0]
    for tap, o in zip(detector.taps, first.patches, strict=True):
        name = "vv_final_shared" if tap == detector.taps[0] else f"ori_layer_{tap}"
        expected = case.tensor(f"out/tokens/{name}")[:, 1:]
        assert (o - expected).abs().max() <= case.tolerance("features")
    final = case.tensor("out/tokens/vv_final_shared")[:, 1:]
    assert len(first.convolved) == 3
    for v in first.convolved:
        assert (v - final).abs().max() <= case.tolerance("features")


@torch.no_grad()
def test_zero_shot(case, detector, words, encoded):
    first, f = encoded[0], detector.adapted(encoded[0].image)
    (found,) = detector.boxes(first, words)
    place = detector.place(found, first.grid.size)
    for name, where in (("text_probs", place), ("text_probs_no_position", None)):
        T = detector.texts(f, [words], [where])
        case.near(f"out/{name}", (f[:, None] * T).sum(-1), case.tolerance("scores"))
    T = detector.texts(f, [words], [place])
    P = torch.cat(detector.layer_maps(first, T))[:, 1]
    case.near("out/layer_maps_abnormal", P, case.tolerance("maps"))
    M = detector.blurred(P).mean(0)
    case.near("out/map_before_box_weight", M, case.tolerance("maps"))
    said = [detector.predict(one, words) for one in encoded]
    case.near("out/anomaly_map", torch.cat([p.map for p in said]), case.tolerance("maps"))
    case.near("out/image_score", torch.cat([p.score for p in said]), case.tolerance("scores"))


def batch(case: AssemblyCase, row: int) -> TrainingBatch:
    masks = case.tensor("mask")[0].float() * (row == 0)
    name = case.meta["class_name"].replace(" ", "_")
    label = torch.tensor([case.meta["loss_batch"]["labels"][row]])
    images = case.tensor("input")[row][None]
    return TrainingBatch(images, masks, label, (name,), torch.Generator())


@pytest.mark.parametrize("row", [0, 1])
@pytest.mark.parametrize("stage", ["main", "adapter"])
def test_losses_and_gradients(case, detector, stage, row):
    loss_of = detector.map_loss if stage == "main" else detector.image_loss
    detector.zero_grad()
    loss = torch.stack(list(loss_of(batch(case, row)).values())).sum()
    case.check_loss(f"out/loss/{stage}_image{row}", loss)
    if row == 0:
        loss.backward()
        case.check_gradients(f"out/loss/{stage}_grad/", detector.learned)
    assert all(value.grad is None for value in detector.clip.parameters())


def test_one_convolution_is_the_sum_of_its_shapes(detector):
    """Each of its own size, on its own."""
    x = torch.randn(2, 20, detector.clip.config.vision.width, generator=torch.Generator())
    grid = Grid(4, 5, (56, 70))
    maps, total = grid.fold(x.mT), 0
    for rows, columns in ((1, 1), (3, 3), (5, 5), (7, 7), (1, 5), (5, 1)):
        layer = detector.decoder_cov.get_submodule(f"fc_{rows}{columns}.1")
        beside = (rows // 2, columns // 2)
        total = total + F.conv2d(maps, layer.weight, layer.bias, padding=beside)
    got = detector.decoder_cov([x, x, x], grid)[1]
    torch.testing.assert_close(got, total.flatten(2).mT, atol=1e-4, rtol=1e-4)

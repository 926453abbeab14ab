"""SAM and Grounding DINO of transformers' own classes, tiny and random."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("transformers", reason="the extra 'sam' is not installed")

from zerodefect.backbones.grounder import load_grounder
from zerodefect.backbones.segmenter import Prompts, load_segmenter
from zerodefect.backbones.tiny_networks import grounding_dino_folder, sam2_folder, sam_folder
from zerodefect.backbones.weight_files import WeightsError


@pytest.fixture(scope="module", params=[sam_folder, sam2_folder])
def sam(request, tmp_path_factory):
    return request.param(tmp_path_factory.mktemp("sam"))


@pytest.fixture(scope="module")
def dino(tmp_path_factory):
    return grounding_dino_folder(tmp_path_factory.mktemp("dino"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_sam_takes_boxes_points_and_masks(sam, dtype):
    segmenter = load_segmenter(str(sam), dtype=dtype)
    pixels = torch.randn(2, 3, 48, 80, generator=torch.Generator().manual_seed(0))
    embedded = segmenter.embed(pixels)
    boxes = torch.rand(20, 2, 2).sort(dim=1).values.flatten(1)
    points, labels = torch.rand(20, 2, 2), torch.tensor([[1, -1]] * 20)
    for prompts in (
        Prompts(boxes=boxes),
        Prompts(points=points, labels=labels),
        Prompts(boxes, points, labels, torch.randn(20, 16, 16)),
    ):
        found = segmenter.masks(embedded, 1, prompts, several=True)
        assert found.at((48, 80)).shape == (20, 3, 48, 80)
        assert found.quality.shape == (20, 3)
        assert found.logits.dtype == found.quality.dtype == torch.float32
    one = segmenter.masks(embedded, 1, Prompts(boxes=boxes[3:4]))
    all_of_them = segmenter.masks(embedded, 1, Prompts(boxes=boxes))
    atol = 1e-4 if dtype == torch.float32 else 0.1
    torch.testing.assert_close(one.logits[0], all_of_them.logits[3], atol=atol, rtol=atol)
    assert not any(p.requires_grad for p in segmenter.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_grounding_dino_finds_boxes_for_phrases(dino, dtype):
    grounder = load_grounder(str(dino), dtype=dtype)
    queries = grounder.queries(torch.randn(2, 3, 64, 96), "white scratch. hole")
    assert queries.boxes.shape == (2, 2, 4)
    assert len(queries.ids) == 7
    found = grounder.found(queries, 1, box_threshold=0.0, text_threshold=0.0)
    assert found.phrases == ("[CLS] white scratch. hole. [SEP]",) * 2
    assert ((found.boxes >= 0) & (found.boxes <= 1)).all()
    with pytest.raises(ValueError, match="Ask for fewer phrases"):
        grounder.queries(torch.randn(1, 3, 64, 96), "scratch. " * 30)


def test_another_kind_of_network_is_refused(sam, dino):
    with pytest.raises(WeightsError, match="a network of type grounding-dino"):
        load_segmenter(str(dino))
    with pytest.raises(WeightsError, match=r"no tokeniser in it|a network of type sam"):
        load_grounder(str(sam))

"""Segmenters and grounders: prompts, phrases, and what is said where something is missing."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from small_assemblies import ShadeGrounder, ShadeSegmenter

from zerodefect.backbones import hub_models
from zerodefect.backbones.grounder import (
    Queries,
    caption_of,
    grounding_size,
    load_grounder,
    to_corners,
)
from zerodefect.backbones.segmenter import Masks, Prompts, load_segmenter
from zerodefect.backbones.weight_files import WeightsError

without = pytest.mark.skipif(
    importlib.util.find_spec("transformers") is not None, reason="transformers is installed"
)


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"boxes": torch.zeros(2, 3)},
        {"points": torch.zeros(2, 2)},
        {"boxes": torch.zeros(2, 4), "points": torch.zeros(3, 1, 2)},
        {"boxes": torch.zeros(2, 4), "labels": torch.zeros(2, 1)},
        {"points": torch.zeros(2, 3, 2), "labels": torch.zeros(2, 1)},
        {"boxes": torch.zeros(2, 4), "masks": torch.zeros(1, 8, 8)},
    ],
)
def test_prompts_that_do_not_fit_are_refused(given):
    with pytest.raises(ValueError, match=r"box|boxes"):
        Prompts(**given)


def test_a_picture_is_its_own_row_and_prompts_go_through_in_parts():
    segmenter = ShadeSegmenter()
    pixels = torch.zeros(2, 3, 64, 64)
    pixels[1, :, 16:48, 16:48] = 5.0
    embedded = segmenter.embed(pixels)
    boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0]]).repeat(40, 1)
    found = segmenter.masks(embedded, 1, Prompts(boxes=boxes))
    assert found.quality.shape == (40, 1)
    mask = found.at((64, 64))
    assert mask[39, 0, 32, 32]
    assert not mask[39, 0, 2, 2]
    assert mask[0, 0].sum().item() == pytest.approx(32 * 32, rel=0.15)
    assert segmenter.masks(embedded, 0, Prompts(boxes=boxes[:1])).at((64, 64)).all()


def test_no_prompt_gives_no_mask():
    segmenter = ShadeSegmenter()
    embedded = segmenter.embed(torch.zeros(1, 3, 64, 64))
    found = segmenter.masks(embedded, 0, Prompts(boxes=torch.zeros(0, 4)), several=True)
    assert found.quality.shape == (0, 3)
    assert found.at((10, 20)).shape == (0, 3, 10, 20)


def test_masks_are_brought_to_a_size_before_they_are_cut_off():
    logits = torch.tensor([[[[-1.0, 3.0]]]])
    # half-way points of the pixels at four columns: -1, 0, 2, 3
    assert Masks(logits, torch.ones(1, 1)).at((1, 4)).flatten().tolist() == [
        False,
        False,
        True,
        True,
    ]


def test_phrases_and_thresholds():
    grounder = ShadeGrounder()
    ids = grounder.tokens(caption_of("  White Crack. Hole"))
    assert grounder.words(ids[1:-1]) == "white crack . hole ."
    p = torch.tensor([[[0.0, 0.9, 0.1, 0.0, 0.3, 0.0, 0.2], [0.1, 0.1, 0.0, 0.0, 0.0, 0.0, 0.0]]])
    boxes = torch.tensor([[[0.5, 0.5, 0.2, 0.4], [0.5, 0.5, 1.0, 1.0]]])
    queries = Queries(boxes, p, ids)
    found = grounder.found(queries, 0, box_threshold=0.1, text_threshold=0.1)
    assert found.phrases == ("white hole " + grounder.words([1]),)  # the other is not likely enough
    assert found.scores.tolist() == pytest.approx([0.9])
    assert found.areas.tolist() == pytest.approx([0.08])
    torch.testing.assert_close(found.corners, torch.tensor([[0.4, 0.3, 0.6, 0.7]]))
    inner = grounder.found(queries, 0, box_threshold=0.1, text_threshold=0.1, ends=False)
    assert inner.phrases == ("white hole",)
    assert found.rows(torch.tensor([False])).phrases == ()


def test_corners_and_sizes():
    torch.testing.assert_close(
        to_corners(torch.tensor([0.5, 0.25, 1.0, 0.5])), torch.tensor([0.0, 0.0, 1.0, 0.5])
    )
    assert grounding_size(150, 200) == (800, 1066)
    assert grounding_size(100, 400) == (333, 1332)
    assert grounding_size(400, 100) == (1332, 333)
    assert grounding_size(512, 512) == (800, 800)


@without
@pytest.mark.parametrize("load", [load_segmenter, load_grounder])
def test_the_missing_package_is_named_with_its_extra(load):
    with pytest.raises(WeightsError, match=r"pip install 'zerodefect\[sam\]'"):
        load()


def test_weights_that_are_not_here_are_named_with_their_source(tmp_path):
    with pytest.raises(WeightsError, match="hf download facebook/sam-vit-base"):
        hub_models.weights_folder("facebook/sam-vit-base")
    with pytest.raises(WeightsError, match=r"no model\.safetensors in it"):
        hub_models.weights_folder(tmp_path)
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(WeightsError, match=r"no config\.json in it"):
        hub_models.weights_folder(tmp_path / "model.safetensors")


def test_nothing_is_imported_unless_asked_for():
    code = (
        "import sys, zerodefect.methods; import zerodefect.backbones.segmenter; "
        "sys.exit('transformers' in sys.modules)"
    )
    environment = {"PYTHONPATH": str(Path(hub_models.__file__).parents[2]), "PATH": ""}
    assert (
        subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 0
    )

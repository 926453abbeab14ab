"""SAA+: its hybrid prompts, what is left out and kept, and the way through an inspector."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from small_assemblies import ShadeGrounder, ShadeSegmenter
from small_detectors import small_cnn

from zerodefect.backbones.grounder import Queries, caption_of
from zerodefect.backbones.segmenter import Masks
from zerodefect.backbones.weight_files import WeightsError
from zerodefect.detector.knowledge import Product
from zerodefect.inspection.inspector import Inspector
from zerodefect.methods import load_detector
from zerodefect.methods.saa_plus import SAAPlus, object_saliency, self_saliency
from zerodefect.prompts.public_defects import public_prompts
from zerodefect.prompts.vocabulary import Vocabulary


def build(**options) -> SAAPlus:
    return SAAPlus.build(ShadeSegmenter(), ShadeGrounder(), small_cnn(), **options).eval()


def test_what_is_missing_is_named():
    with pytest.raises(WeightsError, match=r"zerodefect\[sam\]|hf download facebook/sam-vit-base"):
        load_detector("saa_plus")


def test_prompts_are_the_users_then_the_products_then_the_usual():
    asked = build().prompts(Product("gear wheel"))
    assert asked.captions == ("defect on gear wheel", "damage on gear wheel", "flaw on gear wheel")
    assert (asked.object, asked.background) == ("gear wheel", "gear wheel")
    assert (asked.count, asked.most, asked.area) == (1, 5, 0.9)
    counted = build().prompts(Product("box of gears", counts=(("gear", 6),)))
    assert (counted.object, counted.count) == ("gear", 6)
    own = build(captions=("burr.",), object="wheel", count=2, most=9, area=0.0, background="rim")
    asked = own.prompts(Product("gear wheel", counts=(("gear", 6),)))
    assert asked.captions[3:] == ("burr.",)
    assert (asked.object, asked.background) == ("wheel", "rim")
    assert (asked.count, asked.most, asked.area) == (2, 9, 0.0)


def test_classes_of_public_data_have_the_authors_prompts_unless_asked_not_to():
    asked = build().prompts(Product("metal_nut"))
    assert asked.captions[0] == "defect on metal_nut"
    assert (asked.object, asked.background, asked.area) == ("metal_nut,", "nut", 1.0)
    assert build().prompts(Product("metal nut")).captions[3:] == asked.captions[3:]
    assert build(published=False).prompts(Product("metal_nut")).captions == asked.captions[:3]
    capsules = public_prompts("capsules")
    assert (capsules.count, capsules.most, capsules.object) == (20, 15, "capsule,")
    assert public_prompts("chewinggum").object == "chewinggum"
    assert public_prompts("gear wheel") is None


def test_boxes_that_are_too_large_or_name_the_product_are_left_out():
    detector = build()
    ids = detector.grounder.tokens(caption_of("hole on nut"))
    heard = {"hole": 1, "nut": 3}

    def row(*words: str) -> list[float]:
        return [0.8 if place in [heard[w] for w in words] else 0.0 for place in range(len(ids))]

    p = torch.tensor([[row("hole"), row("hole", "nut"), row("hole"), row("hole"), row()]])
    boxes = torch.tensor([[0.5, 0.5, 0.5, 0.5]]).repeat(5, 1)
    boxes[2, 2:] = torch.tensor([0.5, 0.8])  # an area of 0.4, which is not below 0.4
    boxes[3, 2:] = 0.0
    found = detector.propose([Queries(boxes[None], p, ids)] * 2, 0, "nut", 0.4)
    assert found.phrases == ("hole", "hole")  # one of each caption
    assert len(detector.propose([Queries(boxes[None], p, ids)], 0, None, 0.4).scores) == 2


def test_scores_and_map_by_hand():
    detector = build(saliency=2.0)
    logits = torch.full((3, 1, 2, 2), -1.0)
    logits[0, 0, 0] = 1.0  # upper row
    logits[1, 0, :, 0] = 1.0  # left column; the third is empty
    masks, sigma = Masks(logits, torch.ones(3, 1)), torch.tensor([[0.5, 0.1], [0.3, 0.9]])
    s = detector.rescored(masks, torch.tensor([0.2, 0.4, 0.3]), sigma)
    expected = [0.2 * math.exp(2 * 0.3), 0.4 * math.exp(2 * 0.4), 0.3]
    assert s.tolist() == pytest.approx(expected)
    map = detector.weighed(masks, s, 2, sigma)  # the two best are the left column and the upper row
    a, b = expected[0], expected[1]
    assert map.flatten().tolist() == pytest.approx([(a + b) / 3, a / 2, b / 2, 0.0])
    assert detector.weighed(masks, s, 1, sigma).flatten().tolist() == pytest.approx(
        [b / 2, 0.0, b / 2, 0.0]
    )


def test_saliencies_by_hand():
    f = torch.tensor([[1.0, 0.0, 0.6], [0.0, 1.0, 0.8]])[:, None]  # three places in a row
    # distances (1 - cos) / 2 to the two least alike: of the third to the first 0.2, itself 0
    near = self_saliency(f, 2).flatten().tolist()
    assert near == pytest.approx([(0.5 + 0.2) / 2, (0.5 + 0.1) / 2, (0.2 + 0.1) / 2])
    objects = torch.tensor([[[True, False, False]], [[False, False, True]]])
    sigma = object_saliency(f, objects).flatten().tolist()
    assert sigma == pytest.approx([0.2, 0.0, 0.2])
    alone = object_saliency(f, torch.tensor([[[True, False, True]], [[False] * 3]]))
    assert alone.flatten().tolist() == [0.0, 0.0, 0.0]


def test_where_nothing_is_found_the_map_is_zero():
    detector = build(box_threshold=1.0)
    known = detector.describe(detector.empty(), Product("plate"))
    given = {name: torch.randn(1, 3, 64, 64) for name in detector.inputs}
    got = detector(given, known)
    assert got.score.item() == 0.0
    assert not got.map.any()


def test_colours_are_swapped_for_all_but_the_grounder_unless_asked_not_to():
    given = {name: torch.rand(1, 3, 64, 64) for name in ("segmenter", "grounder", "saliency")}
    swapped, plain = build().encode(given), build(swap_colours=False).encode(given)
    assert torch.equal(swapped.pixels, plain.pixels)
    assert not torch.allclose(swapped.features, plain.features)
    assert not torch.allclose(swapped.embedded[0], plain.embedded[0])


def test_the_saliency_input_must_fit_its_network():
    with pytest.raises(ValueError, match="saliency_size=250: a multiple of 16 is needed"):
        build(saliency_size=250)


@pytest.mark.slow
def test_it_inspects_and_calibrates_like_any_method():
    draws = np.random.default_rng(0)
    good = [draws.integers(90, 110, (48, 64, 3), dtype=np.uint8) for _ in range(12)]
    bad = good[0].copy()
    bad[12:30, 20:40] = 250
    kinds = Vocabulary.of(["hole", "scratch"])
    inspector = Inspector(build(saliency_size=64), vocabulary=kinds)
    inspector.describe("plate")
    inspector.calibrate(good, false_alarms=0.1)
    found = inspector.inspect(bad)
    assert found.calibrated and 0 < found.p_value <= 1
    assert found.map.shape == (48, 64)
    assert {region.kind for region in found.regions} <= {"hole", "scratch"}
    assert {count.kind for count in found.counts} == {region.kind for region in found.regions}

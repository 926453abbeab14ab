"""What is APRIL-GAN's own; its numbers are held by tests/parity/test_april_gan.py."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from models import backbone_of, tiny_state
from official_samples import official_file
from small_detectors import images, remembered, small_clip, taught, total, training_batch

from zerodefect.detector.knowledge import Product
from zerodefect.methods.april_gan import AprilGAN
from zerodefect.prompts.features import embed_texts
from zerodefect.types import Prediction


def build(backbone=None, **options) -> AprilGAN:
    few = {"templates": ("a photo of a {}.", "the {}.")}  # quicker than all 35
    return AprilGAN.build(backbone or small_clip(), **{**few, **options}).eval()


@pytest.fixture(scope="module")
def detector() -> AprilGAN:
    return build()


# --- words -----------------------------------------------------------------------------------


def test_the_sentences_are_the_published_number_and_each_counts_by_its_direction():
    backbone = small_clip()
    made = AprilGAN(backbone)
    sentences = [made.prompts.normal_prompts("metal_nut"), made.prompts.anomalous_prompts("m")]
    assert [len(set(some)) for some in sentences] == [245, 175]
    assert "a photo of the cool flawless metal_nut." in sentences[0]
    assert "this is one broken m in the scene." in sentences[1]

    small = build(backbone)
    groups = small.prompts.normal_prompts("bolt"), small.prompts.anomalous_prompts("bolt")
    rows = [F.normalize(embed_texts(backbone.clip, group), dim=-1).mean(0) for group in groups]
    expected = F.normalize(torch.stack(rows), dim=-1)
    torch.testing.assert_close(small.words(Product("bolt"))["texts"], expected, atol=1e-6, rtol=0)


def test_reloaded_text_towers_run_with_gelu_too():
    state = tiny_state()
    backbone = backbone_of(state, "with-reload", "quick_gelu")
    mapped = replace(backbone, reload=lambda: backbone_of(state, "", "quick_gelu").clip)
    texts = [taught(build(each))["texts"] for each in (mapped, backbone_of(state, "y"))]
    assert torch.equal(*texts)


@pytest.mark.parametrize(
    ("shape", "taps"),
    [
        ({"vision_layers": 8}, (2, 4, 6, 8)),
        ({"vision_layers": 1, "text_layers": 1}, (1,)),
        ({"vision_width": 128, "text_width": 64, "embed_dim": 32}, (1, 2, 3)),
    ],
)
def test_any_shape_of_towers(shape, taps):
    detector = build(small_clip(**shape))
    assert detector.taps == taps
    assert detector.map_range(detector.empty()) == (0.0, len(taps))
    assert detector(images(2), taught(detector)).map.isfinite().all()
    assert total(detector, training_batch(detector, [0, 1])).isfinite()


# --- references ------------------------------------------------------------------------------


def test_a_remembered_image_has_the_map_of_its_words_alone(detector):
    several, told = images(2), taught(detector)
    words, seen = detector(several, told), detector(several, remembered(detector, told, several))
    torch.testing.assert_close(seen.map, words.map, atol=1e-5, rtol=0)
    highest = words.map.amax((1, 2)) / len(detector.taps)
    torch.testing.assert_close(seen.score, (words.score + highest) / 2, atol=1e-5, rtol=0)


def test_the_scale_follows_the_references(detector):
    told = taught(detector)
    shown = remembered(detector, told, images(1))
    assert detector.neutral_score(told) == 0.5
    assert detector.map_range(told) == (0.0, 3.0)
    assert detector.neutral_score(shown) is None
    assert detector.map_range(shown) == (0.0, 9.0)  # a cosine distance is at most 2


def test_set_level_scales_the_highest_values_over_the_class(detector):
    def scaled(knowledge, given: Prediction) -> Prediction:
        step = detector.set_level("image min-max", knowledge)
        step.see(given)
        return step.apply(given)

    s, highest = torch.tensor([0.2, 0.4, 0.6]), torch.tensor([1.0, 2.0, 5.0])
    maps = torch.zeros(3, 2, 2)
    maps[:, 0, 1] = highest
    given = Prediction(score=(s + highest / 3) / 2, map=maps)
    few_shot = taught(detector, references=3)
    got = scaled(few_shot, given)
    torch.testing.assert_close(got.score, (s + torch.tensor([0.0, 0.25, 1.0])) / 2)
    assert torch.equal(got.map, maps)
    equal = scaled(few_shot, Prediction(score=(s + 1 / 3) / 2, map=torch.ones(3, 2, 2)))
    torch.testing.assert_close(equal.score, s / 2)
    assert detector.set_level("image min-max", taught(detector)) is None  # none zero-shot


# --- training --------------------------------------------------------------------------------


def test_what_is_learned_and_by_which_terms(detector):
    kinds = ("weight", "bias")
    assert list(detector.learned) == [f"fc.{tap}.{kind}" for tap in range(3) for kind in kinds]
    assert set(detector.training_loss(training_batch(detector, [0, 1]))) == {"focal", "dice"}


def test_each_image_is_compared_with_the_texts_of_its_own_product(detector):
    losses = [
        total(detector, training_batch(detector, [0, 1, 1], names))
        for names in (("screw", "metal_nut", "tile"), ("screw",) * 3)
    ]
    assert not torch.allclose(*losses, atol=1e-4)


# --- options and files -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        ({"logit_scale": 0.0}, "option logit_scale=.* greater than 0"),
        ({"taps": (2, 4)}, r"which has 1\.\.3"),
        ({"taps": (1, 1)}, r"which has 1\.\.3"),
        ({"taps": ()}, "option taps=.* at least 1 item"),
    ],
)
def test_impossible_options(option, reason):
    with pytest.raises(ValueError, match=reason):
        build(**option)


def test_the_official_format():
    file = official_file(build(small_clip(vision_width=128)))
    assert file.keys() == {"trainable_linearlayer"}
    assert file["trainable_linearlayer"]["fc.2.weight"].shape == (64, 128)

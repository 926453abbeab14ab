"""What is AdaCLIP's own; its numbers are held by tests/parity/test_adaclip.py."""

from __future__ import annotations

import pytest
import torch
from official_samples import official_file
from small_detectors import images, small_clip, taught, total, training_batch

from zerodefect.detector.knowledge import Product
from zerodefect.methods.adaclip import AdaCLIP


def build(backbone=None, **options) -> AdaCLIP:
    return AdaCLIP.build(backbone or small_clip(), **options).eval()


@pytest.fixture(scope="module")
def detector() -> AdaCLIP:
    return build()


# --- predictions -----------------------------------------------------------------------------


def test_rounding_the_tokens_is_a_small_change(detector):
    several, rounded = images(2), build(round_tokens=True)
    got, expected = rounded(several, taught(rounded)), detector(several, taught(detector))
    assert not torch.equal(got.map, expected.map)
    torch.testing.assert_close(got.map, expected.map, atol=5e-4, rtol=0)


def test_running_the_sentences_in_parts_changes_nothing(detector, monkeypatch):
    several, known = images(3), taught(detector)
    whole = detector(several, known)
    monkeypatch.setattr("zerodefect.methods.adaclip._SEQUENCES", 1)
    torch.testing.assert_close(detector(several, known).map, whole.map, atol=1e-6, rtol=0)


def test_only_hyphens_in_a_name_are_replaced(detector):
    names = ("screw", "metal_nut", "metal nut", "metal-nut")
    screw, underscore, spaced, hyphen = (
        detector(images(1), taught(detector, name)).map for name in names
    )
    assert not torch.equal(screw, underscore)
    assert not torch.equal(underscore, spaced)
    assert torch.equal(hyphen, spaced)


def test_the_fusion_can_be_left_out(detector):
    several, plain = images(2), build(fusion=0.0)
    got, fused = plain(several, taught(plain)), detector(several, taught(detector))
    assert torch.equal(got.map, fused.map)
    assert not torch.equal(got.score, fused.score)


def test_a_picture_of_fewer_patches_than_clusters(detector):
    got = detector(images(1, 8, 16), taught(detector))
    assert got.map.shape == (1, 8, 16)
    assert 0 < got.score.item() < 1


@pytest.mark.parametrize(
    "shape",
    [
        {"vision_width": 128, "text_width": 64, "embed_dim": 32},
        {"text_width": 128, "embed_dim": 64},
    ],
)
def test_towers_of_other_widths(shape):
    detector = build(small_clip(**shape))
    assert torch.isfinite(detector(images(2), taught(detector)).map).all()
    assert total(detector, training_batch(detector, [0, 1])).isfinite()


# --- training --------------------------------------------------------------------------------


def test_the_terms_of_the_loss(detector):
    losses = detector.training_loss(training_batch(detector, [0, 1]))
    assert set(losses) == {"image_focal", "focal", "dice_anomalous", "dice_normal"}


def test_each_image_is_compared_with_the_sentences_of_its_own_product(detector):
    losses = [
        total(detector, training_batch(detector, [0, 1], names))
        for names in (("screw", "tile"), ("screw", "screw"))
    ]
    assert not torch.allclose(*losses, atol=1e-4)


def test_the_clustering_draws_from_the_batch():
    detector = build(clusters=6)
    batches = [training_batch(detector, [1]) for _ in range(3)]
    batches[2].generator.manual_seed(1)
    first, again, other = (detector.training_loss(batch)["image_focal"] for batch in batches)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


# --- options and files -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        ({"depth": 0}, "option depth=0: .*greater than or equal to 1"),
        ({"length": 0}, "option length=0: .*greater than or equal to 1"),
        ({"clusters": 0}, "option clusters=0: .*greater than or equal to 1"),
        ({"fusion": 1.5}, r"option fusion=1\.5: .*less than or equal to 1"),
        ({"temperature": 0.0}, r"option temperature=0\.0: .*greater than 0"),
        ({"sigma": -1.0}, r"option sigma=-1\.0: .*greater than or equal to 0"),
        ({"dice": "column"}, "option dice='column': .*'rows' or 'image'"),
        ({"taps": (2, 4)}, r"which has 1\.\.3"),
        ({"length": 9}, "longer templates or a smaller length"),
    ],
)
def test_impossible_options(option, reason):
    with pytest.raises(ValueError, match=reason):
        taught(build(**option))


def test_a_template_must_hold_the_learned_tokens(detector):
    short = build(templates=("{}",), normal_states=("{}",))
    with pytest.raises(ValueError, match="a sentence ends at token 2, but 5 learned tokens"):
        short.describe(short.empty(), Product("nut"))


def test_the_official_format():
    file = official_file(build(depth=2, length=3))
    assert "clip_model.dynamic_visual_prompt_generator.head.2.weight" in file
    assert file["clip_model.text_prompter.static_prompts.1"].shape == (3, 64)
    assert AdaCLIP.official_options(file) == {"depth": 2, "length": 3}

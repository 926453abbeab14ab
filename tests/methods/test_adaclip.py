"""How AdaCLIP behaves; its numbers are held by tests/parity/test_adaclip.py."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from models import tiny_backbone

from zerodefect.methods.adaclip import AdaCLIP, AdaCLIPConfig
from zerodefect.prompts.vocabulary import Vocabulary
from zerodefect.types import TrainingBatch


def images(count: int, height: int = 64, width: int = 64, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(seed))


def batch(labels: list[int], names: tuple[str, ...] = (), seed: int = 0) -> TrainingBatch:
    masks = torch.zeros(len(labels), 64, 64)
    masks[torch.tensor(labels) == 1, 8:30, 20:44] = 1
    return TrainingBatch(
        images=images(len(labels)) + 2 * masks[:, None],
        masks=masks,
        labels=torch.tensor(labels),
        objects=names or ("screw",) * len(labels),
        generator=torch.Generator().manual_seed(seed),
    )


def build(backbone=None, **options) -> AdaCLIP:
    detector = AdaCLIP(backbone or tiny_backbone(), AdaCLIPConfig(**options)).eval()
    detector.describe("screw", Vocabulary.default())
    return detector


@pytest.fixture(scope="module")
def detector() -> AdaCLIP:
    return build()


# --- predictions -----------------------------------------------------------------------------


def test_words_come_first():
    with pytest.raises(RuntimeError, match="call describe"):
        AdaCLIP(tiny_backbone())(images(1))


def test_no_kinds_are_told_apart(detector):
    assert detector.kinds == ()
    assert detector(images(1)).type_map is None


def test_a_prediction_depends_on_its_image_alone(detector):
    several = images(5, 48, 80)
    together = detector(several)
    assert together.map.shape == (5, 48, 80)
    for row in range(5):
        alone = detector(several[row : row + 1])
        torch.testing.assert_close(alone.map[0], together.map[row], atol=1e-5, rtol=0)
        torch.testing.assert_close(alone.score[0], together.score[row], atol=1e-5, rtol=0)


def test_rounding_the_tokens_is_a_small_change(detector):
    several, rounded = images(2), build(round_tokens=True)
    rounded.load_state_dict(detector.learned, strict=False)
    got, expected = rounded(several), detector(several)
    assert not torch.equal(got.map, expected.map)
    torch.testing.assert_close(got.map, expected.map, atol=5e-4, rtol=0)


def test_running_the_sentences_in_parts_changes_nothing(detector, monkeypatch):
    several = images(3)
    whole = detector(several)
    monkeypatch.setattr("zerodefect.methods.adaclip._SEQUENCES", 1)
    torch.testing.assert_close(detector(several).map, whole.map, atol=1e-6, rtol=0)


def test_the_product_decides_and_only_hyphens_are_replaced(detector):
    one = images(1)
    before = detector(one).map
    detector.describe("metal_nut")
    other = detector(one).map
    assert not torch.equal(before, other)
    detector.describe("metal nut")
    spaced = detector(one).map
    assert not torch.equal(spaced, other)
    detector.describe("metal-nut")
    assert torch.equal(detector(one).map, spaced)
    detector.describe("screw")
    assert torch.equal(detector(one).map, before)


def test_bfloat16_is_close():
    plain, backbone = build(), tiny_backbone()
    backbone.clip.to(torch.bfloat16)
    rounded = build(backbone)
    rounded.load_state_dict(plain.learned, strict=False)
    several = images(2)
    got, expected = rounded(several), plain(several)
    assert got.map.dtype == got.score.dtype == torch.float32
    torch.testing.assert_close(got.map, expected.map, atol=0.05, rtol=0)
    torch.testing.assert_close(got.score, expected.score, atol=0.1, rtol=0)


def test_the_seed_decides_initial_values_and_nothing_else_does():
    state = torch.get_rng_state()
    first = build(seed=1).learned
    torch.manual_seed(5)
    again, other = build(seed=1).learned, build(seed=2).learned
    torch.set_rng_state(state)
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    assert not any(torch.equal(value, other[name]) for name, value in first.items())


def test_the_fusion_can_be_left_out(detector):
    several, plain = images(2), build(fusion=0.0)
    plain.load_state_dict(detector.learned, strict=False)
    assert torch.equal(plain(several).map, detector(several).map)
    assert not torch.equal(plain(several).score, detector(several).score)


def test_a_picture_of_fewer_patches_than_clusters(detector):
    got = detector(images(1, 8, 16))
    assert got.map.shape == (1, 8, 16)
    assert 0 < got.score.item() < 1


@pytest.mark.parametrize(
    "shape",
    [
        {"vision_layers": 8, "text_layers": 5},
        {"vision_layers": 1, "text_layers": 1},
        {"vision_width": 128, "text_width": 64, "embed_dim": 32},
        {"text_width": 128, "embed_dim": 64},
    ],
)
def test_any_shape_of_towers(shape):
    detector = build(tiny_backbone(**shape))
    assert torch.isfinite(detector(images(2)).map).all()
    losses = detector.training_loss(batch([0, 1]))
    assert torch.isfinite(torch.stack(list(losses.values()))).all()


# --- training --------------------------------------------------------------------------------


def test_what_is_learned():
    detector = build()
    assert all(name.split(".")[0] != "clip" for name in detector.learned)
    sum(detector.training_loss(batch([0, 1])).values()).backward()
    without = {name for name, p in detector.learned.items() if p.grad is None}
    assert without == {"text_prompter.static_prompts.0"}  # as in the published code
    assert all(p.grad.abs().max() > 0 for n, p in detector.learned.items() if n not in without)
    assert all(p.grad is None for p in detector.clip.parameters())


@pytest.mark.parametrize("labels", [[0], [1], [0, 0], [1, 1], [0, 1, 0]])
def test_any_batch_can_be_learned_from(labels):
    losses = build().training_loss(batch(labels))
    assert set(losses) == {"image_focal", "focal", "dice_anomalous", "dice_normal"}
    assert torch.isfinite(torch.stack(list(losses.values()))).all()


@pytest.mark.parametrize("dice", ["rows", "image"])
def test_a_batch_is_the_mean_of_its_images(dice):
    detector = build(dice=dice, fusion=0.0)
    names = ("screw", "metal-nut", "tile")
    together = batch([0, 1, 1], names)
    whole = detector.training_loss(together)
    parts = []
    for row in range(3):
        some = slice(row, row + 1)
        parts.append(
            detector.training_loss(
                replace(
                    together,
                    images=together.images[some],
                    masks=together.masks[some],
                    labels=together.labels[some],
                    objects=together.objects[some],
                )
            )
        )
    for name, value in whole.items():
        mean = torch.stack([part[name] for part in parts]).mean()
        torch.testing.assert_close(value, mean, atol=1e-5, rtol=1e-5)


def test_the_clustering_draws_from_the_batch():
    detector = build(clusters=6)
    first, again, other = (
        detector.training_loss(batch([1], seed=seed))["image_focal"] for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_mixed_precision_is_close():
    detector = build()
    expected = detector.training_loss(batch([0, 1]))
    with torch.autocast("cpu", torch.bfloat16):
        losses = detector.training_loss(batch([0, 1]))
    for name, value in losses.items():
        assert value.item() == pytest.approx(expected[name].item(), abs=0.1), name
    sum(losses.values()).backward()
    assert all(p.grad.isfinite().all() for p in detector.learned.values() if p.grad is not None)


def test_learning_lowers_the_loss():
    detector = build()
    optimizer = torch.optim.AdamW(detector.parameter_groups(detector.recipe)[0]["params"], lr=1e-2)

    def loss() -> torch.Tensor:
        return sum(detector.training_loss(batch([0, 1])).values())

    before = loss().item()
    for _ in range(8):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    assert loss().item() < 0.8 * before


# --- options and files -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        ({"depth": 0}, "depth must be at least 1"),
        ({"length": 0}, "length must be at least 1"),
        ({"clusters": 0}, "clusters must be at least 1"),
        ({"fusion": 1.5}, "fusion is a weight"),
        ({"temperature": 0.0}, "temperature must be positive"),
        ({"dice": "column"}, "dice is rows or image"),
    ],
)
def test_impossible_hyper_parameters(option, reason):
    with pytest.raises(ValueError, match=reason):
        AdaCLIPConfig(**option)


def test_taps_must_lie_in_the_tower():
    with pytest.raises(ValueError, match=r"which has 1\.\.3"):
        build(taps=(2, 4))


def test_sentences_must_hold_the_learned_tokens():
    with pytest.raises(ValueError, match="longer templates or a smaller length"):
        build(length=9)


def official(detector: AdaCLIP) -> dict[str, torch.Tensor]:
    return {f"clip_model.{name}": value.detach() + 1 for name, value in detector.learned.items()}


def test_official_files_come_and_go():
    detector = build(depth=2, length=3)
    file = official(detector)
    assert "clip_model.dynamic_visual_prompt_generator.head.2.weight" in file
    assert file["clip_model.text_prompter.static_prompts.1"].shape == (3, 64)
    assert AdaCLIP.official_options(file) == {"depth": 2, "length": 3}
    state = detector.official_state(file)
    assert set(state) == set(detector.learned)
    for name, value in state.items():
        torch.testing.assert_close(value, detector.learned[name] + 1)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda file: file.pop("clip_model.cls_token_layer.head.0.bias"), "0.bias is missing"),
        (lambda file: file.update({"clip_model.more": torch.ones(1)}), "more is unknown"),
        (
            lambda file: file.update({"clip_model.cls_token_layer.head.0.bias": torch.ones(2)}),
            r"0.bias has shape \(2,\) instead of \(64,\)",
        ),
    ],
)
def test_official_files_that_do_not_fit(detector, change: Callable, reason: str):
    file = official(detector)
    change(file)
    with pytest.raises(ValueError, match=reason):
        detector.official_state(file)
    assert AdaCLIP.official_options({}) == {}

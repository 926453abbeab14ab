"""How APRIL-GAN behaves; its numbers are held by tests/parity/test_april_gan.py."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from models import backbone_of, tiny_backbone, tiny_state

from zerodefect.detector.contract import Detector
from zerodefect.methods.april_gan import AprilGAN, AprilGANConfig
from zerodefect.prompts.features import embed_texts
from zerodefect.prompts.vocabulary import Vocabulary
from zerodefect.types import Prediction, TrainingBatch


def images(count: int, height: int = 64, width: int = 64, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(seed))


def batch(labels: list[int], names: tuple[str, ...] = ()) -> TrainingBatch:
    masks = torch.zeros(len(labels), 64, 64)
    masks[torch.tensor(labels) == 1, 8:30, 20:44] = 1
    return TrainingBatch(
        images=images(len(labels)) + 2 * masks[:, None],
        masks=masks,
        labels=torch.tensor(labels),
        objects=names or ("screw",) * len(labels),
        generator=torch.Generator().manual_seed(0),
    )


def total(detector: AprilGAN, data: TrainingBatch) -> torch.Tensor:
    return torch.stack(list(detector.training_loss(data).values())).sum()


def build(backbone=None, **options) -> AprilGAN:
    few = {"templates": ("a photo of a {}.", "the {}.")}  # quicker than all 35
    config = AprilGANConfig(**{**few, **options})
    detector = AprilGAN(backbone or tiny_backbone(), config).eval()
    detector.describe("screw", Vocabulary.default())
    return detector


@pytest.fixture(scope="module")
def detector() -> AprilGAN:
    return build()


@pytest.fixture
def few_shot(detector):
    detector.remember(images(3, seed=7))
    yield detector
    detector.forget()


# --- words -----------------------------------------------------------------------------------


def test_words_come_first():
    with pytest.raises(RuntimeError, match="call describe"):
        AprilGAN(tiny_backbone())(images(1))


def test_no_kinds_are_told_apart(detector):
    assert detector.kinds == ()
    assert detector(images(1)).type_map is None


def test_the_sentences_are_the_published_number_and_each_counts_by_its_direction():
    backbone = tiny_backbone()
    made = AprilGAN(backbone)
    sentences = [made.prompts.normal_prompts("metal_nut"), made.prompts.anomalous_prompts("m")]
    assert [len(set(some)) for some in sentences] == [245, 175]
    assert "a photo of the cool flawless metal_nut." in sentences[0]
    assert "this is one broken m in the scene." in sentences[1]

    small = build(backbone)
    groups = small.prompts.normal_prompts("bolt"), small.prompts.anomalous_prompts("bolt")
    rows = [F.normalize(embed_texts(backbone.clip, group), dim=-1).mean(0) for group in groups]
    expected = F.normalize(torch.stack(rows), dim=-1)
    torch.testing.assert_close(small.words("bolt"), expected, atol=1e-6, rtol=0)


def test_refused_words_change_nothing(detector):
    one = images(1)
    before = detector(one).score
    for name, reason in (("  ", "needs a name"), ("very " * 90, "reads 77")):
        with pytest.raises(ValueError, match=reason):
            detector.describe(name)
    assert detector.object_name == "screw"
    assert torch.equal(detector(one).score, before)


# --- the activation --------------------------------------------------------------------------


def test_reloaded_text_towers_run_with_gelu_too():
    state = tiny_state()
    backbone = backbone_of(state, "with-reload", "quick_gelu")
    mapped = replace(backbone, reload=lambda: backbone_of(state, "", "quick_gelu").clip)
    assert torch.equal(build(mapped).texts, build(backbone_of(state, "y")).texts)


# --- predictions -----------------------------------------------------------------------------


@pytest.mark.parametrize("references", [0, 2])
def test_a_prediction_depends_on_its_image_alone(references):
    detector, several = build(), images(5, 48, 80)
    if references:
        detector.remember(images(references, seed=3))
    together = detector(several)
    assert together.map.shape == (5, 48, 80)
    for row in range(5):
        alone = detector(several[row : row + 1])
        torch.testing.assert_close(alone.map[0], together.map[row], atol=1e-5, rtol=0)
        torch.testing.assert_close(alone.score[0], together.score[row], atol=1e-5, rtol=0)


def test_bfloat16_is_close():
    plain, backbone = build(), tiny_backbone()
    backbone.clip.to(torch.bfloat16)
    rounded = build(backbone)
    several = images(2)
    for shots in (0, 1):
        if shots:
            plain.remember(images(shots, seed=2))
            rounded.remember(images(shots, seed=2))
        got, expected = rounded(several), plain(several)
        assert got.map.dtype == got.score.dtype == torch.float32
        span = plain.map_range[1]
        torch.testing.assert_close(got.map, expected.map, atol=0.05 * span, rtol=0)
        torch.testing.assert_close(got.score, expected.score, atol=0.1, rtol=0)


def test_the_seed_decides_initial_values_and_nothing_else_does():
    state = torch.get_rng_state()
    first = build(seed=1).learned
    torch.manual_seed(5)
    again, other = build(seed=1).learned, build(seed=2).learned
    torch.set_rng_state(state)
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    assert not any(torch.equal(value, other[name]) for name, value in first.items())


@pytest.mark.parametrize(
    ("shape", "taps"),
    [
        ({"vision_layers": 8}, (2, 4, 6, 8)),
        ({"vision_layers": 1, "text_layers": 1}, (1,)),
        ({"vision_width": 128, "text_width": 64, "embed_dim": 32}, (1, 2, 3)),
    ],
)
def test_any_shape_of_towers(shape, taps):
    detector = build(tiny_backbone(**shape))
    assert detector.taps == taps
    assert detector.map_range == (0.0, len(taps))
    assert detector(images(2)).map.isfinite().all()
    assert total(detector, batch([0, 1])).isfinite()


# --- references ------------------------------------------------------------------------------


def test_an_image_is_at_no_distance_from_itself(detector):
    several = images(2)
    words = detector(several)
    detector.remember(several)
    seen = detector(several)
    torch.testing.assert_close(seen.map, words.map, atol=1e-5, rtol=0)
    highest = words.map.amax((1, 2)) / len(detector.taps)
    torch.testing.assert_close(seen.score, (words.score + highest) / 2, atol=1e-5, rtol=0)
    detector.forget()
    assert torch.equal(detector(several).map, words.map)


def test_references_may_come_in_parts(detector):
    several, references = images(2), images(9, seed=5)
    detector.remember(references)
    together = detector(several).map
    detector.forget()
    for reference in references:
        detector.remember(reference[None])
    assert detector.shots == 9
    torch.testing.assert_close(detector(several).map, together, atol=1e-5, rtol=0)
    detector.forget()
    assert detector.shots == 0


def test_more_references_never_raise_score_or_map(few_shot):
    """The property that leave-one-out calibration rests on."""
    several = images(5)
    few = few_shot(several)
    few_shot.remember(images(4, seed=9))
    many = few_shot(several)
    assert (many.score <= few.score + 1e-6).all()
    assert (many.map <= few.map + 1e-5).all()
    assert (many.map < few.map - 1e-3).any()


@pytest.mark.parametrize("groups", [None, [0, 0, 1, 2]])
def test_leave_one_out_is_what_it_says(detector, groups):
    several = images(4)
    groups = None if groups is None else torch.tensor(groups)
    fast = detector.score_left_out(several, groups)
    general = Detector.score_left_out(detector, several, groups)
    torch.testing.assert_close(fast.score, general.score, atol=1e-5, rtol=0)
    torch.testing.assert_close(fast.map, general.map, atol=1e-5, rtol=0)
    assert detector.shots == 0
    with pytest.raises(ValueError, match="at least two"):
        detector.score_left_out(several[:1])


def test_images_remembered_before_stay_references_of_all(few_shot):
    several, kept = images(3), few_shot.shots
    alone = few_shot(several)
    left_out = few_shot.score_left_out(several)
    assert few_shot.shots == kept
    assert (left_out.map <= alone.map + 1e-5).all()


def test_the_scale_follows_the_references(detector):
    assert detector.neutral_score == 0.5
    assert detector.map_range == (0.0, 3.0)
    detector.remember(images(1))
    assert detector.neutral_score is None
    assert detector.map_range == (0.0, 9.0)  # a cosine distance is at most 2
    detector.forget()


def test_set_level_scales_the_highest_values_over_the_class(detector, few_shot):
    s, highest = torch.tensor([0.2, 0.4, 0.6]), torch.tensor([1.0, 2.0, 5.0])
    maps = torch.zeros(3, 2, 2)
    maps[:, 0, 1] = highest
    given = Prediction(score=(s + highest / 3) / 2, map=maps)
    scaled = few_shot.set_level(given)
    torch.testing.assert_close(scaled.score, (s + torch.tensor([0.0, 0.25, 1.0])) / 2)
    assert torch.equal(scaled.map, maps)
    equal = few_shot.set_level(Prediction(score=(s + 1 / 3) / 2, map=torch.ones(3, 2, 2)))
    torch.testing.assert_close(equal.score, s / 2)
    detector.forget()
    assert detector.set_level(given) is given  # zero-shot there is no such step


# --- training --------------------------------------------------------------------------------


def test_what_is_learned():
    detector = build()
    kinds = ("weight", "bias")
    assert list(detector.learned) == [f"fc.{tap}.{kind}" for tap in range(3) for kind in kinds]
    total(detector, batch([0, 1])).backward()
    assert all(p.grad.abs().max() > 0 for p in detector.learned.values())
    assert all(p.grad is None for p in detector.clip.parameters())


@pytest.mark.parametrize("labels", [[0], [1], [0, 0], [1, 1], [0, 1, 0]])
def test_any_batch_can_be_learned_from(detector, labels):
    losses = detector.training_loss(batch(labels))
    assert set(losses) == {"focal", "dice"}
    assert torch.isfinite(torch.stack(list(losses.values()))).all()


def test_a_batch_is_the_mean_of_its_images_each_with_its_own_product(detector):
    together = batch([0, 1, 1], ("screw", "metal_nut", "tile"))
    parts = [
        replace(
            together,
            images=together.images[row : row + 1],
            masks=together.masks[row : row + 1],
            labels=together.labels[row : row + 1],
            objects=together.objects[row : row + 1],
        )
        for row in range(3)
    ]
    mean = torch.stack([total(detector, part) for part in parts]).mean()
    torch.testing.assert_close(total(detector, together), mean, atol=1e-5, rtol=1e-5)
    renamed = total(detector, replace(together, objects=("screw",) * 3))
    assert not torch.allclose(total(detector, together), renamed, atol=1e-4)


def test_mixed_precision_is_close():
    detector = build()
    expected = detector.training_loss(batch([0, 1]))
    with torch.autocast("cpu", torch.bfloat16):
        losses = detector.training_loss(batch([0, 1]))
    for name, value in losses.items():
        assert value.item() == pytest.approx(expected[name].item(), abs=0.1), name
    sum(losses.values()).backward()
    assert all(p.grad.isfinite().all() for p in detector.learned.values())


def test_learning_lowers_the_loss_and_leaves_the_memory_alone():
    detector, data = build(), batch([0, 1])
    detector.remember(images(1, seed=4))
    memory = [bank.features.clone() for bank in detector.banks]
    optimiser = torch.optim.Adam(detector.parameter_groups(detector.recipe), lr=1e-3)
    before = total(detector, data).item()
    for _ in range(10):
        optimiser.zero_grad()
        total(detector, data).backward()
        optimiser.step()
    assert total(detector, data).item() < 0.8 * before
    for bank, stored in zip(detector.banks, memory, strict=True):
        assert torch.equal(bank.features, stored)


# --- options and files -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        ({"logit_scale": 0.0}, "logit_scale must be positive"),
        ({"activation": "relu"}, "activation is gelu or weights"),
    ],
)
def test_impossible_hyper_parameters(option, reason):
    with pytest.raises(ValueError, match=reason):
        AprilGANConfig(**option)


@pytest.mark.parametrize("taps", [(2, 4), (1, 1), ()])
def test_taps_must_lie_in_the_tower(taps):
    with pytest.raises(ValueError, match=r"which has 1\.\.3"):
        build(taps=taps)


def official(detector: AprilGAN) -> dict[str, dict[str, torch.Tensor]]:
    """A file in the documented form."""
    layers = {name: value.detach() + 1 for name, value in detector.learned.items()}
    return {"trainable_linearlayer": layers}


def test_official_files_come_and_go():
    detector = build(tiny_backbone(vision_width=128))
    file = official(detector)
    assert file["trainable_linearlayer"]["fc.2.weight"].shape == (64, 128)
    state = detector.official_state(file)
    assert set(state) == set(detector.learned)
    for name, value in state.items():
        torch.testing.assert_close(value, detector.learned[name] + 1)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda layers: layers.pop("fc.1.bias"), r"trainable_linearlayer/fc\.1\.bias is missing"),
        (lambda layers: layers.update({"fc.3.bias": torch.ones(64)}), r"fc\.3\.bias is unknown"),
        (
            lambda layers: layers.update({"fc.0.bias": torch.ones(2)}),
            r"fc\.0\.bias has shape \(2,\) instead of \(64,\)",
        ),
    ],
)
def test_official_files_that_do_not_fit(detector, change: Callable, reason: str):
    file = official(detector)
    change(file["trainable_linearlayer"])
    with pytest.raises(ValueError, match=reason):
        detector.official_state(file)
    with pytest.raises(ValueError, match="trainable_linearlayer is missing"):
        detector.official_state({})

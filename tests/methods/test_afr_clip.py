"""AFR-CLIP: our completion as a detector that is trained."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from models import tiny_backbone

from zerodefect.backbones.clip_weights import Backbone
from zerodefect.detector.contract import UnsupportedError
from zerodefect.methods.afr_clip import AFRCLIP, AFRCLIPConfig, self_prompting
from zerodefect.prompts.vocabulary import Vocabulary
from zerodefect.types import TrainingBatch


def images(count: int, *size: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, *(size or (64, 64)), generator=generator)


def batch_of(*labels: int) -> TrainingBatch:
    """Noise; the defective ones have a bright square."""
    pictures, masks = images(len(labels)), torch.zeros(len(labels), 64, 64)
    for row, label in enumerate(labels):
        if label:
            masks[row, 16:40, 24:48] = 1
            pictures[row, :, 16:40, 24:48] += 3
    return TrainingBatch(
        images=pictures,
        masks=masks,
        labels=torch.tensor(labels),
        objects=tuple(("screw", "cable")[row % 2] for row in range(len(labels))),
        generator=torch.Generator().manual_seed(0),
    )


def made(**options) -> AFRCLIP:
    detector = AFRCLIP(tiny_backbone(), AFRCLIPConfig(**options))
    detector.describe("screw")
    return detector


def total(detector: AFRCLIP, batch: TrainingBatch) -> torch.Tensor:
    return torch.stack(list(detector.training_loss(batch).values())).sum()


def test_words_come_first():
    with pytest.raises(RuntimeError, match="call describe"):
        AFRCLIP(tiny_backbone())(images(1))


def test_an_image_does_not_depend_on_its_batch():
    detector, batch = made(), images(3)
    together = detector(batch)
    for row in range(3):
        alone = detector(batch[row : row + 1])
        torch.testing.assert_close(alone.map[0], together.map[row], atol=1e-6, rtol=0)
        torch.testing.assert_close(alone.score[0], together.score[row], atol=1e-6, rtol=0)


@pytest.mark.parametrize("size", [(40, 88), (8, 16)])
def test_any_size(size):
    """Also grids smaller than the neighbourhoods and pools."""
    got = made()(images(2, *size))
    assert got.map.shape == (2, *size)
    assert got.map.isfinite().all()


def test_the_seed_decides_the_initial_values():
    backbone, state = tiny_backbone(), torch.get_rng_state()
    first, same, other = (AFRCLIP(backbone, AFRCLIPConfig(seed=seed)) for seed in (0, 0, 1))
    assert torch.equal(state, torch.get_rng_state())
    for name, value in first.learned.items():
        assert torch.equal(value, same.learned[name])
        assert torch.equal(value, other.learned[name]) == (name == "rectifier.fc2.bias")
    assert set(first.learned) == {
        *(f"visual_adapters.{layer}.weight" for layer in range(3)),
        *(f"rectifier.{part}" for part in ("fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias")),
    }


def test_bfloat16_towers_are_close():
    """Learned values stay float32, and so does what is predicted."""
    backbone, batch = tiny_backbone(), images(2)
    full = made()(batch)
    half = AFRCLIP(dataclasses.replace(backbone, clip=backbone.clip.to(torch.bfloat16)))
    half.describe("screw")
    got = half(batch)
    assert got.map.dtype == got.score.dtype == torch.float32
    torch.testing.assert_close(got.map, full.map, atol=0.05, rtol=0)
    torch.testing.assert_close(got.score, full.score, atol=0.05, rtol=0)


@pytest.mark.parametrize("labels", [(0, 1, 1), (0,), (1,), (0, 0)])
def test_every_learned_value_gets_a_gradient(labels):
    detector = made()
    terms = detector.training_loss(batch_of(*labels))
    assert set(terms) == {"focal", "dice_anomalous", "dice_normal", "image"}
    torch.stack(list(terms.values())).sum().backward()
    for name, parameter in detector.named_parameters():
        if name in detector.learned:
            assert parameter.grad.isfinite().all()
            assert parameter.grad.abs().max() > 0, name
        else:
            assert parameter.grad is None, name


def test_each_image_is_compared_with_the_texts_of_its_own_product():
    detector, batch = made(), batch_of(0, 1)
    swapped = dataclasses.replace(batch, objects=batch.objects[::-1])
    assert not torch.equal(total(detector, batch), total(detector, swapped))
    rows = torch.arange(2).flip(0)
    turned = dataclasses.replace(
        swapped, images=batch.images[rows], masks=batch.masks[rows], labels=batch.labels[rows]
    )
    torch.testing.assert_close(total(detector, batch), total(detector, turned))


def test_training_reduces_the_loss_and_finds_the_squares():
    detector, batch = made(sigma=0.0), batch_of(0, 1, 0, 1)
    optimizer = torch.optim.Adam(detector.learned.values(), lr=1e-2)
    before = float(total(detector, batch).detach())
    for _ in range(30):
        optimizer.zero_grad()
        loss = total(detector, batch)
        loss.backward()
        optimizer.step()
    detector.after_learning()
    assert float(loss.detach()) < 0.7 * before
    got = detector(batch.images)
    inside = batch.masks[1] > 0
    assert got.map[1][inside].mean() > got.map[1][~inside].mean() + 0.2
    assert got.score[[1, 3]].min() > got.score[[0, 2]].max()


def test_one_adapter_per_tap():
    detector = made(taps=(1, 3))
    assert len(detector.visual_adapters) == 2
    assert made().taps == (1, 2, 3)
    with pytest.raises(ValueError, match=r"has 1\.\.3"):
        made(taps=(4,))


def test_a_picture_without_contrast_prompts_itself_with_its_mean():
    P = images(1).flatten()[:8].expand(1, 12, 8)
    torch.testing.assert_close(self_prompting(P, (3, 4), (1, 2)), 2 * P)


def test_kinds_are_none_whatever_the_vocabulary():
    detector = made()
    detector.describe("screw", Vocabulary.default())
    assert detector.kinds == ()
    assert detector(images(1)).type_map is None


def test_refused_words_change_nothing():
    detector = made()
    before = detector(images(1)).map
    with pytest.raises(ValueError, match="reads 77"):
        detector.describe("bolt " * 90)
    assert detector.object_name == "screw"
    assert torch.equal(detector(images(1)).map, before)


def test_no_official_checkpoint_is_known():
    with pytest.raises(UnsupportedError, match="no official checkpoint"):
        made().official_state({})
    assert "completion" in AFRCLIP.info.title + AFRCLIP.info.parity
    assert not AFRCLIP.info.figures


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        ({"temperature": 0.0}, "temperature"),
        ({"sides": (2,)}, "odd numbers"),
        ({"sides": ()}, "odd numbers"),
        ({"pools": (0,)}, "pools"),
        ({"sigma": -1.0}, "sigma"),
    ],
)
def test_impossible_hyper_parameters(option, reason):
    with pytest.raises(ValueError, match=reason):
        AFRCLIPConfig(**option)


def test_the_backbone_is_frozen():
    backbone: Backbone = tiny_backbone()
    backbone.clip.requires_grad_(True)
    AFRCLIP(backbone)
    assert not any(p.requires_grad for p in backbone.clip.parameters())

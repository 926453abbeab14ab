"""APRIL-GAN against the numbers of the official code (see the case's meta)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import tiny_clip
import torch
from cases import Case, find

from zerodefect.detector.knowledge import Knowledge, Product
from zerodefect.images import open_image
from zerodefect.layers.losses import map_losses
from zerodefect.layers.similarity import two_class
from zerodefect.methods.april_gan import AprilGAN, AprilGANConfig
from zerodefect.types import TrainingBatch


@pytest.fixture(scope="module", params=find("april_gan"))
def case(request) -> Case:
    return Case(request.param)


def build(case: Case) -> AprilGAN:
    config = AprilGANConfig(taps=tuple(case.meta["features_list_1based"]))
    detector = AprilGAN(case.backbone(), config).eval()
    facts = case.meta["extra_parameters"]
    layers = {
        name: torch.from_numpy(tiny_clip.fill(facts["seed"], name, tuple(shape)))
        for name, shape in facts["shapes"].items()
    }
    values = detector.official_state({"trainable_linearlayer": layers})
    missing, unexpected = detector.load_state_dict(values, strict=False)
    assert not unexpected
    assert not set(missing) & set(detector.learned)
    return detector


@pytest.fixture(scope="module")
def detector(case) -> AprilGAN:
    return build(case)


@pytest.fixture(scope="module")
def words(case, detector) -> Knowledge:
    return detector.describe(detector.empty(), Product(case.meta["class_name"]))


@pytest.fixture(scope="module")
def features(case, detector):
    return detector.encode(case.tensor("input"))


@pytest.fixture(scope="module")
def few_shot(case, detector, words) -> Knowledge:
    return detector.remember(words, [detector.encode(case.tensor("reference_input"))])


def batch(case: Case) -> TrainingBatch:
    masks = case.tensor("train/mask").float()
    return TrainingBatch(
        images=case.tensor("train/input"),
        masks=masks,
        labels=masks.flatten(1).amax(1).long(),
        objects=(case.meta["class_name"],) * len(masks),
        generator=torch.Generator(),
    )


def test_preprocessing(case, detector):
    size = case.meta["run_image_size"]
    preprocess = replace(detector.preprocess, size=(size, size))
    names = ["image", *(f"reference/{i}" for i in range(len(case.arrays["reference_input"])))]
    expected = [*case.arrays["input"], *case.arrays["reference_input"]]
    for name, prepared in zip(names, expected, strict=True):
        got = preprocess(open_image(case.arrays[name]))
        np.testing.assert_allclose(got, prepared, atol=1e-5)


def test_default_taps_and_training_are_the_published_ones(case, detector):
    assert AprilGAN(case.backbone()).taps == detector.taps
    published, recipe = case.meta["optimizer"], AprilGAN.recipe
    assert recipe.optimizer == published["name"].lower()
    assert (recipe.learning_rate, recipe.weight_decay) == (
        published["lr"],
        published["weight_decay"],
    )
    assert list(recipe.betas) == published["betas"]


def test_texts(case, words):
    case.check("out/text_features", words["texts"])


@torch.no_grad()
def test_image_side(case, detector, features):
    case.check("out/image_embedding", features.image)
    case.check("out/patch_tokens", torch.cat(features.patches))
    case.check("out/projected_tokens", torch.cat(detector.projected(features)))


@torch.no_grad()
def test_zero_shot(case, detector, words, features):
    case.check("out/global_logits", detector.image_logits(features, words["texts"]))
    Q = detector.logits(detector.projected(features), words["texts"])
    case.check("out/patch_logits", Q)
    case.check("out/layer_maps", detector.layer_maps(Q, features)[..., ::4, ::4])
    got = detector(case.tensor("input"), words)
    case.check("out/image_score", got.score)
    case.check("out/anomaly_map", got.map)


@torch.no_grad()
def test_few_shot(case, detector, few_shot, features):
    d = detector.distances(features, few_shot)
    case.check("out/few_shot/distance", d)
    N = features.grid.upsample(d.sum(1), align_corners=True)
    case.check("out/few_shot/map", N)
    case.check("out/few_shot/anomaly_map", detector(case.tensor("input"), few_shot).map)


def test_losses_gradients_and_one_optimiser_step(case, words):
    detector, data = build(case), batch(case)
    with torch.no_grad():
        features = detector.encode(data.images)
        Q = detector.logits(detector.projected(features), words["texts"])
        p = two_class(detector._upsampled(Q, features))
        focal, dice, _ = zip(*(map_losses([p_l], data.masks) for p_l in p.unbind(2)), strict=True)
        case.check("out/loss/focal", torch.stack(focal))
        case.check("out/loss/dice", torch.stack(dice))

    def total() -> torch.Tensor:
        return torch.stack(list(detector.training_loss(data).values())).sum()

    loss = total()
    case.check("out/loss/total", loss)
    loss.backward()
    learned, order = detector.learned, list(case.meta["extra_parameters"]["shapes"])
    order.sort(key=lambda name: (name.split(".")[1], name.endswith("bias")))  # weight, then bias
    case.check("out/loss/grad_norms", torch.stack([learned[n].grad.norm() for n in order]))
    case.check("out/loss/grad_fc0_weight", learned["fc.0.weight"].grad)
    assert all(value.grad is None for value in detector.clip.parameters())

    recipe, published = detector.recipe, case.meta["optimizer"]
    groups = detector.parameter_groups(recipe)
    torch.optim.Adam(groups, recipe.learning_rate, recipe.betas, published["eps"]).step()
    case.check("out/loss/fc0_weight_after_one_step", learned["fc.0.weight"])
    case.check("out/loss/total_after_one_step", total())


def test_any_batch_gives_the_numbers_of_batch_one(case, detector, few_shot):
    images = torch.cat([case.tensor("input"), case.tensor("train/input")])
    together = detector(images, few_shot)
    for row in range(len(images)):
        alone = detector(images[row : row + 1], few_shot)
        torch.testing.assert_close(together.map[row], alone.map[0], atol=2e-5, rtol=0)
        torch.testing.assert_close(together.score[row], alone.score[0], atol=2e-5, rtol=0)

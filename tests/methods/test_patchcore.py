"""What is PatchCore's own: when patches are selected, how, and the two ways of scoring."""

from __future__ import annotations

import pytest
import torch
from small_detectors import images, inputs, remembered, small_cnn, small_dino

from zerodefect.methods import create
from zerodefect.methods.patchcore import PatchCoreConfig, chosen, sparse_projection


def made(**options):
    return create("patchcore", small_cnn(), **options)


def patches_of(detector, knowledge) -> torch.Tensor:
    return detector.memory.bank(knowledge, "patches").features


def test_a_few_pictures_are_kept_whole_and_many_thinned():
    detector = made(minimum=500)  # 256 patches a picture
    one = remembered(detector, detector.empty(), inputs(detector, 1))
    assert len(patches_of(detector, one)) == 256 and detector.memory.leaves_out(one)
    three = remembered(detector, one, inputs(detector, 2, seed=1))
    assert len(patches_of(detector, three)) == 500 and not detector.memory.leaves_out(three)
    assert three.shots == 3
    share = made(minimum=1, fraction=0.25)
    known = share.empty()
    for seed in range(3):  # of all that was ever shown, not of what is left
        known = remembered(share, known, inputs(share, 1, seed=seed))
    assert len(patches_of(share, known)) == 192


def test_what_is_kept_are_remembered_patches_each_once():
    detector = made(minimum=40, fraction=0.0, projected=1024)
    given = inputs(detector, 2)
    whole = detector.encode(given).values.flatten(0, 1)
    kept = patches_of(detector, remembered(detector, detector.empty(), given))
    assert torch.cdist(kept.double(), whole.double()).amin(1).max() < 1e-4
    assert len(kept.unique(dim=0)) == 40


@pytest.mark.parametrize("scoring", ["amazon", "anomalib"])
def test_the_choice_hangs_on_the_seed_alone(scoring):
    features = torch.randn(200, 300, generator=torch.Generator().manual_seed(0))
    configs = [PatchCoreConfig(scoring=scoring, seed=seed) for seed in (1, 1, 2)]
    first, again, other = (chosen(features, 50, config) for config in configs)
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert first.unique().numel() == 50


def test_the_sparse_projection_keeps_lengths_on_average():
    x = torch.randn(400, 900, generator=torch.Generator().manual_seed(0))
    R = sparse_projection(5000, 900, torch.Generator().manual_seed(1))
    assert (R != 0).float().mean() == pytest.approx(900**-0.5, rel=0.1)
    ratio = (x @ R.T).norm(dim=1) / x.norm(dim=1)
    assert ratio.mean() == pytest.approx(1, abs=0.1)


def test_squared_distances_and_their_mean_over_neighbours():
    detector, three = made(sigma=0), made(sigma=0, neighbours=3)
    given = inputs(detector, 2, seed=3)
    known = remembered(detector, detector.empty(), inputs(detector, 2))
    E = detector.encode(given).values
    every = torch.cdist(E.flatten(0, 1).double(), patches_of(detector, known).double()).square()
    expected = every.amin(1).float().unflatten(0, (2, 256))
    torch.testing.assert_close(detector.squared(detector.encode(given), known), expected)
    torch.testing.assert_close(detector(given, known).score, expected.amax(1))
    mean = every.topk(3, largest=False)[0].mean(1).float().unflatten(0, (2, 256))
    same = remembered(three, three.empty(), inputs(detector, 2))
    torch.testing.assert_close(three.squared(three.encode(given), same), mean)


def test_the_weight_of_the_image_score():
    detector = made(scoring="anomalib", neighbours=4)
    plain = made(scoring="anomalib", neighbours=1)
    given, references = inputs(detector, 2, seed=3), inputs(detector, 2)
    known = remembered(detector, detector.empty(), references)
    one = remembered(plain, plain.empty(), references)
    M = patches_of(detector, known).double()
    unweighted = plain(given, one).score
    for E, score, s in zip(
        detector.encode(given).values.double(),
        detector(given, known).score,
        unweighted,
        strict=True,
    ):
        d = torch.cdist(E, M)
        worst = d.amin(1).argmax()
        nearest = d[worst].argmin()
        around = torch.cdist(M[nearest][None], M)[0].topk(4, largest=False).indices
        w = 1 - d[worst, around].softmax(0)[0]
        torch.testing.assert_close(s, d.amin(1).max().float())
        torch.testing.assert_close(score, (w * d[worst, nearest]).float(), rtol=1e-4, atol=1e-4)


def test_the_map_is_fine_at_the_first_layer_and_any_features_will_do():
    detector = made(layers=("layer1", "layer3"))
    assert detector.encode(inputs(detector, 1)).grid.shape == (32, 32)
    tower = create("patchcore", small_dino())
    known = remembered(tower, tower.empty(), images(1, 56, 84))
    assert tower(images(1, 56, 84), known).map.abs().max() < 1e-6
    with pytest.raises(ValueError, match=r"resnet18 .* has no layer 'layer7'; it has: act1,"):
        made(layers=("layer7",))

"""What is AdaptCLIP's own; its numbers are held by tests/parity/test_adaptclip.py."""

from __future__ import annotations

import torch
from small_detectors import images, remembered, small_clip, training_batch

from zerodefect.methods.adaptclip import AdaptCLIP, ResidualMLP


def build(backbone=None, **options) -> AdaptCLIP:
    return AdaptCLIP.build(backbone or small_clip(), **options).eval()


def test_the_papers_proportions_hold_in_any_tower():
    paper = build(small_clip(vision_layers=24, text_layers=12))
    assert paper.taps == (6, 12, 18, 24)
    assert paper.stream.start == 6
    assert len(paper.prompts.compound_prompts_text) == 0
    assert build(small_clip(vision_layers=6, text_layers=4)).taps == (2, 3, 5, 6)


def test_the_sizes_are_those_of_the_published_checkpoints():
    """Folder ``12_4_128_...``: context, reduction, hidden channels."""
    config = AdaptCLIP.Config()
    assert (config.context_length, config.reduction, config.hidden) == (12, 4, 128)
    assert (config.temperature, config.sigma, config.context) == (0.07, 4.0, True)
    recipe = AdaptCLIP.recipe
    assert (recipe.epochs, recipe.batch_size, recipe.learning_rate) == (15, 8, 1e-3)
    assert (recipe.references, recipe.image_size, recipe.seed) == (1, 518, 10)


def test_a_picture_that_was_remembered_has_no_damage_anywhere():
    """Whatever the learners say: the harmonic mean with a distance of nothing is nothing."""
    detector = build()
    own = remembered(detector, detector.empty(), images(3))
    got = detector(images(3), own)
    assert got.map.max() < 1e-5 and got.score.max() < 1e-5
    assert detector(images(3, seed=8), own).map.min() > 1e-3


def test_the_comparison_is_heard_with_references_alone():
    detector = build()
    given = images(2)
    shown = remembered(detector, detector.empty(), images(2, seed=5))
    before = detector(given), detector(given, shown)
    with torch.no_grad():
        detector.comparison.local_head[-1].bias += torch.tensor([0.0, 2.0])
    after = detector(given), detector(given, shown)
    assert torch.equal(after[0].map, before[0].map)
    assert (after[1].map > before[1].map).all()


def test_the_class_token_counts_in_the_statistics_and_changes_nothing_else():
    mlp = ResidualMLP(8, 4, torch.Generator().manual_seed(0))
    tokens = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(1))
    other = torch.cat([5 * tokens[:, :1], tokens[:, 1:]], dim=1)
    assert torch.equal(mlp.eval()(tokens)[:, 1:], mlp(other)[:, 1:])
    assert not torch.allclose(mlp.train()(tokens)[:, 1:], mlp(other)[:, 1:])


def test_each_picture_is_compared_with_its_own_references():
    detector = build()
    batch = training_batch(detector, [0, 1])
    encoded = detector.encode(batch.images)
    shown = detector.encode(batch.references.flatten(0, 1))
    r = detector.beside(encoded, shown)[0]
    for row in range(2):
        own = remembered(detector, detector.empty(), batch.references[row])
        alone, _ = detector.aligned(detector.encode(batch.images[row : row + 1]), own)
        torch.testing.assert_close(r[row], alone[0][0], atol=1e-5, rtol=0)

"""What is Dense CLIP's own: patches against texts and references, computed by hand."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from small_detectors import images, remembered, small_clip, taught

from zerodefect.layers.similarity import anomaly_probability, upsample
from zerodefect.methods import create
from zerodefect.types import Prediction


def judged(pictures: torch.Tensor, references: torch.Tensor | None = None, **options) -> Prediction:
    detector = create("dense", small_clip(), **options)
    knowledge = taught(detector, "bolt")
    if references is not None:
        knowledge = remembered(detector, knowledge, references)
    return detector(pictures, knowledge)


def test_map_is_the_softmax_of_patch_cosines():
    made, picture = create("dense", small_clip()), images(1)
    known = taught(made, "bolt")
    with torch.no_grad():
        visual = made.clip.visual
        tokens = visual.project(visual.encode(visual.embed(picture)).tokens)[0].double()
        texts = F.normalize(known["texts"].double(), dim=-1)
        logits = F.normalize(tokens, dim=-1) @ texts.T / 0.07
        expected = logits.exp()[:, 1] / logits.exp().sum(1)
    found = made(picture, known)
    grid = expected[1:].view(1, 8, 8).float()
    torch.testing.assert_close(found.map, upsample(grid, (64, 64)))
    torch.testing.assert_close(found.score, expected[:1].float())


@pytest.mark.parametrize("choice", ["map", "mean", "text"])
def test_image_score_choices(choice):
    pictures = images(2)
    text = judged(pictures).score
    found = judged(pictures, image_score=choice)
    highest = found.map.amax((1, 2))
    wanted = {"map": highest, "text": text, "mean": (text + highest) / 2}[choice]
    torch.testing.assert_close(found.score, wanted)


def test_a_remembered_picture_is_at_distance_zero():
    made = create("dense", small_clip(), reference_weight=1.0)
    told = taught(made)
    shown = remembered(made, told, images(2))
    assert shown.shots == 2
    assert made(images(2), shown).map.abs().max() < 1e-6
    assert made(images(1, seed=9), shown).map.max() > 1e-3
    assert made.neutral_score(shown) is None
    assert made.neutral_score(told) == 0.5


def test_reference_scale_cuts_and_weight_mixes():
    pictures, references = images(2, seed=5), images(3)
    words = judged(pictures).map
    distances = judged(pictures, references, reference_weight=1.0).map
    mixed = judged(pictures, references, reference_weight=0.25).map
    torch.testing.assert_close(mixed, 0.75 * words + 0.25 * distances, rtol=1e-5, atol=1e-6)
    cut = judged(pictures, references, reference_weight=1.0, reference_scale=1e-6).map
    torch.testing.assert_close(cut, torch.ones(2, 64, 64))


def test_maps_of_several_sizes_are_averaged_on_the_finest_grid():
    made, pictures = create("dense", small_clip(), sizes=(0.5, 1.0)), images(2)
    known = taught(made)
    coarse, fine = (
        each.grid.fold(anomaly_probability(each.patches, known["texts"], 0.07))
        for each in made.encode(pictures)
    )
    assert (coarse.shape, fine.shape) == ((2, 4, 4), (2, 8, 8))
    expected = upsample((upsample(coarse, (8, 8)) + fine) / 2, (64, 64))
    torch.testing.assert_close(made(pictures, known).map, expected)


def test_seen_mirrored_a_picture_and_its_mirror_image_are_judged_alike():
    """Map and score are the means of what is said of both, each patch at its own place."""
    pictures = images(2, seed=5)
    both, turned = (judged(x, mirrored=(1.0,)) for x in (pictures, pictures.flip(-1)))
    torch.testing.assert_close(turned.map.flip(-1), both.map, atol=1e-5, rtol=0)
    torch.testing.assert_close(turned.score, both.score, atol=1e-5, rtol=0)
    there, back = judged(pictures), judged(pictures.flip(-1))
    torch.testing.assert_close(both.map, (there.map + back.map.flip(-1)) / 2)
    torch.testing.assert_close(both.score, (there.score + back.score) / 2)


def test_mirrored_references_are_compared_with_mirrored_pictures():
    references, new = images(2), images(1, seed=9)
    alone = {"reference_weight": 1.0}
    both = judged(references, references, mirrored=(1.0,), **alone)
    assert both.map.abs().max() < 1e-6
    there = judged(new, references, **alone).map
    back = judged(new.flip(-1), references.flip(-1), **alone).map.flip(-1)
    both = judged(new, references, mirrored=(1.0,), **alone)
    torch.testing.assert_close(both.map, (there + back) / 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.0}, "option temperature=.* greater than 0"),
        ({"sizes": ()}, "option sizes=.* at least 1 item"),
        ({"sizes": (0.0,)}, "option sizes=.* greater than 0"),
        ({"sizes": (5.0,)}, "option sizes=.* less than or equal to 4"),
        ({"image_score": "max"}, "option image_score='max': "),
        ({"reference_weight": 1.5}, "option reference_weight=.* less than or equal to 1"),
        ({"reference_scale": 0.0}, "option reference_scale=.* greater than 0"),
        ({"smoothing": -1.0}, "option smoothing=.* greater than or equal to 0"),
        ({"mirrored": (0.5,)}, "mirrored: 0.5 is none of the sizes"),
    ],
)
def test_impossible_options(options, message):
    with pytest.raises(ValueError, match=message):
        create("dense", small_clip(), **options)

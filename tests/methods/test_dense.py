"""Dense CLIP: patches against texts and references."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from models import tiny_backbone

from zerodefect.layers.similarity import upsample
from zerodefect.methods import create
from zerodefect.prompts.vocabulary import Vocabulary

BACKBONE = tiny_backbone()


def images(count: int, height: int = 64, width: int = 64, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(seed))


def detector(**options):
    made = create("dense", BACKBONE, **options)
    made.describe("bolt")
    return made


def test_map_is_the_softmax_of_patch_cosines():
    made, picture = detector(), images(1)
    with torch.no_grad():
        visual = BACKBONE.clip.visual
        tokens = visual.project(visual.encode(visual.embed(picture)).tokens)[0].double()
        texts = F.normalize(made.texts.double(), dim=-1)
        logits = F.normalize(tokens, dim=-1) @ texts.T / 0.07
        expected = logits.exp()[:, 1] / logits.exp().sum(1)
    found = made(picture)
    grid = expected[1:].view(1, 8, 8).float()
    torch.testing.assert_close(found.map, upsample(grid, (64, 64)))
    torch.testing.assert_close(found.score, expected[:1].float())


def test_a_prediction_does_not_depend_on_the_batch():
    made, pictures = detector(sizes=(1.0, 0.5), smoothing=0.7), images(3, 64, 96)
    together = made(pictures)
    for number in range(3):
        alone = made(pictures[number : number + 1])
        torch.testing.assert_close(alone.map[0], together.map[number], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(alone.score[0], together.score[number], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("choice", "expected"), [("map", "map"), ("mean", "mean"), ("text", "text")]
)
def test_image_score_choices(choice, expected):
    pictures = images(2)
    text = detector()(pictures).score
    found = detector(image_score=choice)(pictures)
    highest = found.map.amax((1, 2))
    wanted = {"map": highest, "text": text, "mean": (text + highest) / 2}[expected]
    torch.testing.assert_close(found.score, wanted)


def test_a_remembered_picture_is_at_distance_zero():
    made = detector(reference_weight=1.0)
    made.remember(images(2))
    assert made.shots == 2
    assert made(images(2)).map.abs().max() < 1e-6
    assert made(images(1, seed=9)).map.max() > 1e-3
    assert made.neutral_score is None
    made.forget()
    assert made.shots == 0
    assert made.neutral_score == 0.5


def test_reference_scale_cuts_and_weight_mixes():
    pictures = images(2, seed=5)
    words = detector()(pictures).map
    distances = detector(reference_weight=1.0)
    distances.remember(images(3))
    mixed = detector(reference_weight=0.25)
    mixed.remember(images(3))
    torch.testing.assert_close(
        mixed(pictures).map, 0.75 * words + 0.25 * distances(pictures).map, rtol=1e-5, atol=1e-6
    )
    cut = detector(reference_weight=1.0, reference_scale=1e-6)
    cut.remember(images(3))
    torch.testing.assert_close(cut(pictures).map, torch.ones(2, 64, 64))


def test_leaving_out_equals_remembering_the_others():
    made, pictures = detector(sizes=(1.0, 0.5)), images(4)
    left_out = made.score_left_out(pictures)
    assert made.shots == 0
    for number in range(4):
        made.remember(torch.cat([pictures[:number], pictures[number + 1 :]]))
        alone = made(pictures[number : number + 1])
        torch.testing.assert_close(alone.map[0], left_out.map[number], rtol=1e-5, atol=1e-6)
        made.forget()


def test_kinds_are_a_distribution():
    made = detector(sizes=(1.0, 1.5))
    made.describe("bolt", Vocabulary((("scratch", ("{} with a scratch",)), ("hole", ("{} hole",)))))
    found = made(images(2))
    assert found.type_map is not None
    assert found.type_map.shape == (2, 2, 64, 64)
    torch.testing.assert_close(found.type_map.sum(1), torch.ones(2, 64, 64))
    assert found.type_score is not None
    assert found.type_score.shape == (2, 2)


def test_needs_words():
    with pytest.raises(RuntimeError, match="describe"):
        create("dense", BACKBONE)(images(1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.0}, "temperature"),
        ({"sizes": ()}, "sizes"),
        ({"sizes": (0.0,)}, "sizes"),
        ({"image_score": "max"}, "image_score"),
        ({"reference_weight": 1.5}, "reference_weight"),
        ({"reference_scale": 0.0}, "reference_scale"),
        ({"smoothing": -1.0}, "smoothing"),
    ],
)
def test_refuses_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        create("dense", BACKBONE, **options)

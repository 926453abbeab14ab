"""What is AA-CLIP's own: its mix, its phrases, its stages."""

from __future__ import annotations

import pytest
import torch
from models import tiny_backbone
from small_detectors import alter, images, learners, taught, training_batch

from zerodefect.detector.knowledge import Product
from zerodefect.methods.aa_clip import AACLIP, AACLIPConfig, across_images, mixed
from zerodefect.prompts.public_classes import described


@pytest.fixture(scope="module")
def detector() -> AACLIP:
    return AACLIP(tiny_backbone()).eval()


def test_the_mix_by_hand():
    """|x| = 5 and a = (0, 2): a tenth of (0, 5) and nine tenths of x."""

    def layer(x):
        return torch.tensor([[0.0, 2.0]])

    got = mixed(layer, torch.tensor([[3.0, 4.0]]))
    torch.testing.assert_close(got, torch.tensor([[2.7, 0.5 + 3.6]]))


def test_adapters_change_tokens_from_their_block_on():
    """Also at a tap whose own block has one: the tap is read after it."""
    plain = AACLIP(tiny_backbone(), AACLIPConfig(taps=(1, 2, 3), image_depth=2)).eval()
    changed = AACLIP(tiny_backbone(), AACLIPConfig(taps=(1, 2, 3), image_depth=2)).eval()
    with torch.no_grad():
        changed.image_adapter.layer_adapters[1].fc[0].weight.neg_()
        before, after = (each.encode(images(1)).patches for each in (plain, changed))
    assert torch.equal(before[0], after[0])
    assert not torch.allclose(before[1], after[1]) and not torch.allclose(before[2], after[2])


def test_phrases_of_public_classes_and_no_others(detector):
    assert described("metal_nut") == "metal nut which has four notched edges"
    assert described("Metal Nut") == described("metal-nut") == described("metal_nut")
    assert described("screw") == "screw" and described("my metal_nut") == "my metal_nut"
    assert detector.sentences("tile")[:2] == [
        "speckled tile surface.",
        "a photo of speckled tile surface.",
    ]
    assert detector.sentences("tile")[-1] == "a photo of a speckled tile surface with damage."
    own = AACLIP(tiny_backbone(), AACLIPConfig(phrases=False)).eval()
    assert own.sentences("tile")[0] == "tile."
    assert len(own.sentences("tile")) == 16


def test_every_public_phrase_fits_the_text_tower(detector):
    from zerodefect.prompts import public_classes

    for name in public_classes._PHRASES:
        assert detector.words(Product(name))["texts"].isfinite().all()


def test_attention_across_images_is_none_for_one_image():
    v = torch.randn(1, 2, 5, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(across_images(v, v, v, v), v)
    both = torch.cat([v, v.flip(2)])
    got = across_images(both, both, both, both)
    expected = torch.softmax(both[:, 0, 0] @ both[:, 0, 0].T / 3**0.5, -1) @ both[:, 0, 0]
    torch.testing.assert_close(got[:, 0, 0], expected)


def test_the_first_stage_mixes_images_unless_told_not_to():
    batch = images(3)
    for across in (True, False):
        detector = AACLIP(tiny_backbone(), AACLIPConfig(across=across)).eval()
        _, (together,) = detector.frozen_features(batch, detector.taps[-1:])
        _, (alone,) = detector.frozen_features(batch[:1], detector.taps[-1:])
        assert torch.allclose(together[:1], alone, atol=1e-5) == (not across)


def test_the_second_stage_learns_against_what_the_first_one_left(detector):
    """Its anchors are kept while it runs, and made anew when the first stage has moved on."""
    fresh = AACLIP(tiny_backbone())
    first, second = learners(fresh)
    batch = training_batch(fresh, [0, 1])
    before = second.loss(batch)
    alter(fresh)
    first.loss(batch)  # the last step of the first stage
    after = second.loss(batch)
    assert not torch.equal(before["image"], after["image"])
    again = AACLIP(tiny_backbone())
    again.load_state_dict(fresh.state_dict())
    torch.testing.assert_close(learners(again)[1].loss(batch), after)
    texts, pictures = (
        {id(p) for g in each.groups for p in g["params"]} for each in (first, second)
    )
    assert texts == {id(p) for p in fresh.text_adapter.parameters()}
    assert pictures == {id(p) for p in fresh.image_adapter.parameters()}


def test_the_score_is_of_map_and_image(detector):
    known = taught(detector)
    got = detector(images(2), known)
    with torch.no_grad():
        g = detector.image(detector.encode(images(2)))
    s = (g @ known["texts"][1] + 1) / 2
    K = len(detector.taps)
    torch.testing.assert_close(got.score, (got.map.amax((1, 2)) / (100 * K) + s) / 2)
    medical = AACLIP(tiny_backbone(), AACLIPConfig(domain="medical")).eval()
    only = medical(images(2), taught(medical))
    torch.testing.assert_close(only.score, only.map.amax((1, 2)) / (100 * K))


@pytest.mark.parametrize("option", ["text_depth", "image_depth"])
def test_more_adapters_than_blocks_are_refused(option):
    with pytest.raises(ValueError, match=rf"{option} 9: that tower has 1\.\."):
        AACLIP(tiny_backbone(), AACLIPConfig(**{option: 9}))


def test_beside_references_the_map_is_a_probability_of_usual_temperature(detector):
    """Differences of cosines of 0.07 and of its negative, 50 of them and a half per tap."""
    K, step = len(detector.taps), 50 * 0.07
    sums = torch.tensor([K * (0.5 + step), K * 0.5, K * (0.5 - step)])
    got = detector.map_share(sums, detector.empty())
    torch.testing.assert_close(got, torch.tensor([1.0, 0.0, -1.0]).sigmoid())


def test_references_are_joined_as_published_scores_are_and_not_scaled_over_a_class(detector):
    knowledge = taught(detector, references=2)
    with torch.no_grad():
        encoded = detector.encode(images(2, seed=3))
    said, joined = detector.judge(encoded, knowledge), detector.predict(encoded, knowledge)
    D = encoded.grid.map(detector.patch_distance(encoded, knowledge))
    p = detector.map_share(said.map, knowledge)
    M = 2 / (1 / p + 1 / D)
    low, high = detector.map_range(knowledge)
    torch.testing.assert_close(joined.map, low + (high - low) * M)
    s = (said.score + 0.995) / 2  # scores lie from -0.995 to 1.005
    torch.testing.assert_close(joined.score, 4 / (1 / s + 1 / M.amax((1, 2))) - 0.995)
    assert detector.set_level("class min-max", knowledge) is None

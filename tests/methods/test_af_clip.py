"""What is AF-CLIP's own: averages, sums of logits, its loss, and its memory."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from models import tiny_backbone
from small_detectors import everything, images, taught

from zerodefect.layers.grid import Grid
from zerodefect.methods.af_clip import AFCLIP, AFCLIPConfig, focal, misalignment, patch_targets


@pytest.fixture(scope="module")
def detector() -> AFCLIP:
    return AFCLIP(tiny_backbone()).eval()


def test_the_sentences_begin_with_the_learned_vectors(detector):
    """In front of the start token, the same for both; the rest are the words' own tokens."""
    text, context = detector.clip.text, detector.prompts.context("state_prompt_embedding")
    embedded, ends = detector.prompts.embeddings(text)
    assert torch.equal(embedded[0, :12], context) and torch.equal(embedded[1, :12], context)
    assert ends.tolist() == [12 + 4, 12 + 4]  # start, two words, full stop, end
    table = text.token_embedding.weight
    assert torch.equal(embedded[0, 12], table[49406])
    assert torch.equal(embedded[1, 16], table[49407])


def test_a_longer_context_than_the_tower_reads_is_refused():
    with pytest.raises(ValueError, match="choose shorter contexts"):
        AFCLIP(tiny_backbone(), AFCLIPConfig(context_length=73))


def test_the_product_changes_nothing_and_references_weigh_most(detector):
    given = images(2)
    plain = detector(given, taught(detector, "screw"))
    assert torch.equal(plain.map, detector(given, taught(detector, "leather")).map)
    shown = everything(detector)
    alone = AFCLIP(tiny_backbone(), AFCLIPConfig(alpha=0.0)).eval()
    distance = alone(given, everything(alone))
    got = detector(given, shown)
    torch.testing.assert_close(got.map, distance.map + 0.1 * plain.map, atol=1e-5, rtol=0)
    torch.testing.assert_close(got.score, distance.score + 0.1 * plain.score, atol=1e-5, rtol=0)
    assert detector.map_range(shown) == (0.0, 1.1)


# --- losses --------------------------------------------------------------------------------------


def test_targets_are_zero_one_or_in_balance():
    masks = torch.zeros(1, 4, 6)
    masks[0, :2, :2] = 1
    masks[0, :, 2] = 1
    masks[0, 2:, 4:] = 0.75
    got = patch_targets(masks, Grid(2, 3, (4, 6)))
    assert got.tolist() == [[1.0, 0.5, 0.0, 0.0, 0.5, 1.0]]


def test_focal_by_hand():
    p, t = torch.tensor([0.8, 0.1]), torch.tensor([1.0, 0.0])
    expected = (-torch.tensor(0.8).log() * 0.2**4 - torch.tensor(0.9).log() * 0.1**4) / 2
    torch.testing.assert_close(focal(p, t), expected)
    torch.testing.assert_close(focal(p, t, t), expected)


@given(
    p=st.lists(st.floats(0.01, 0.99), min_size=1, max_size=6),
    kinds=st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=6, max_size=6),
)
def test_targets_that_stay_leave_the_gradient_as_written(p, kinds):
    t = torch.tensor(kinds[: len(p)])
    gradients = []
    for overwritten in (None, t, t.where(t > 0, -1)):
        leaf = torch.tensor(p, requires_grad=True)
        focal(leaf, t, overwritten).backward()
        gradients.append(leaf.grad)
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-5, rtol=1e-4)
    normal = t == 0
    torch.testing.assert_close(gradients[0][~normal], gradients[2][~normal], atol=1e-5, rtol=1e-4)
    assert (gradients[2][normal] > gradients[0][normal]).all()  # pushed down harder


@given(st.integers(0, 10_000), st.integers(1, 3), st.integers(1, 8))
def test_misalignment_is_that_of_all_pairs(seed, count, patches):
    draws = torch.Generator().manual_seed(seed)
    Z = torch.randn(count, patches, 4, generator=draws)
    t = torch.randint(0, 3, (count, patches), generator=draws) / 2
    signs = torch.where(t == 0, -1.0, t)
    K, unit = signs[:, :, None] * signs[:, None], F.normalize(Z, dim=-1)
    C = unit @ unit.mT
    a = C[K == -1].mean() - C[K == 1].mean()  # NaN where there is no such pair
    expected = a if a > 0 else torch.tensor(0.0)
    torch.testing.assert_close(misalignment(Z, t), expected, atol=1e-5, rtol=1e-4)
